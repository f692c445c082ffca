//! Every shape of a job, and of its answer.

use serde_json::{Value, json};

use crate::support::gpu::{Gpu, POD, sealed, workflow};
use crate::support::platform::job::Status;
use crate::support::platform::{Call, Exchange};

/// The eight bytes that every PNG begins with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

fn keys_of(value: &Value) -> Vec<&str> {
    value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn a_sealed_job_is_taken_opened_run_sealed_and_posted() {
    let gpu = Gpu::double().on_platform().start().await;
    let request = gpu.keys.v2(&json!({"workflow": workflow::save_one(), "reply": {"history": true}}));
    let id = gpu.platform().submit(request.input.clone());
    let job = gpu.platform().settled(&id).await;
    assert_eq!(job.status, Status::Completed, "{:?}", job.error);

    let body = &job.finals[0].body;
    assert_eq!(keys_of(body), ["output"], "{body}");
    let output = &body["output"];
    assert_eq!(keys_of(output), ["ciphertext", "encrypted", "kid", "nonce", "prompt_id", "status", "v"]);
    assert_eq!((&output["status"], &output["kid"]), (&json!("ok"), &json!(gpu.keys.kid())));

    let reply = request.reply(output, &id);
    let outputs = reply["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 1, "{reply}");
    let shown = (&outputs[0]["node"], &outputs[0]["filename"], &outputs[0]["kind"], &outputs[0]["mime"]);
    assert_eq!(shown, (&json!("2"), &json!("t_00001_.png"), &json!("image"), &json!("image/png")));
    assert!(sealed::bytes(&outputs[0]["data"]).starts_with(PNG));
    assert!(reply["history"]["outputs"]["2"].is_object(), "{}", reply["history"]);
    assert!(reply["timings"].is_object());
}

#[tokio::test]
async fn what_the_platform_sees_is_what_the_sdk_sends() {
    let gpu = Gpu::double().on_platform().start().await;
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    gpu.platform().settled(&id).await;
    let first = |call| gpu.platform().look(|state| state.calls(call).next().cloned());
    let path = |exchange: &Exchange| exchange.segments().join("/");

    let take = first(Call::Take).unwrap();
    assert_eq!((take.method.as_str(), path(&take)), ("GET", format!("job-take/{POD}")));
    assert!(take.target.ends_with("?gpu=NVIDIA+GeForce+RTX+4090&job_in_progress=0"), "{}", take.target);
    assert_eq!(take.header("authorization"), Some("key-of-the-tests"));

    let done = first(Call::Done).unwrap();
    assert_eq!((done.method.as_str(), path(&done)), ("POST", format!("job-done/{POD}/{id}")));
    assert_eq!(done.parameter("isStream"), Some("false"));
    let headers = ["content-type", "charset", "x-request-id"].map(|name| done.header(name).unwrap_or_default());
    assert_eq!(headers, ["application/x-www-form-urlencoded", "utf-8", &id]);
    assert!(done.body.starts_with(b"{\"output\":{\"status\":\"ok\",\"prompt_id\":\""));

    gpu.platform().arrived(Call::Ping, 1).await;
    gpu.platform().arrived(Call::Stop, 1).await;
    let ping = first(Call::Ping).unwrap();
    assert_eq!((ping.method.as_str(), path(&ping)), ("GET", format!("ping/{POD}")));
    assert_eq!(path(&first(Call::Stop).unwrap()), format!("job-stop/{POD}"));
}

#[tokio::test]
async fn a_v1_job_is_answered_with_readable_fields_and_a_sealed_part() {
    let gpu = Gpu::double().on_platform().start().await;
    let request = gpu.keys.v1(&workflow::save_one());
    let id = gpu.platform().submit(request.input.clone());
    let job = gpu.platform().settled(&id).await;
    let output = job.output.expect("an output");
    assert_eq!(output["status"], "ok");
    assert!(output["prompt_id"].as_str().is_some_and(|id| id.len() == 36), "{output}");
    assert!(output.get("history").is_none() && output.get("images").is_none(), "in clear: {output}");
    let reply = request.reply(&output, &id);
    assert!(sealed::bytes(&reply["outputs"][0]["data"]).starts_with(PNG));
}

#[tokio::test]
async fn what_is_in_clear_or_cannot_be_opened_is_refused_in_the_old_words() {
    let gpu = Gpu::double().on_platform().start().await;
    let stranger = sealed::Keys::generate();
    let mut unopenable = stranger.v1(&workflow::save_one()).input;
    unopenable["ciphertext"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let graph = json!({"nodes": [], "links": [], "version": 0.4});
    let cases = [
        (
            json!({"workflow": workflow::save_one()}),
            "encryption_required: set ENCRYPTION_REQUIRED=0 to allow plaintext",
        ),
        (unopenable, "invalid ciphertext"),
        (json!({"encrypted": true, "epk": "AAAA"}), "missing encrypted fields"),
        (gpu.keys.v1(&graph).input, "Missing or invalid workflow: expected an API prompt mapping (id->node)"),
        (stranger.workflow(&workflow::save_one()).input, &format!("this worker's current key is {}", gpu.keys.kid())),
    ];
    for (input, told) in cases {
        let id = gpu.platform().submit(input);
        let job = gpu.platform().settled(&id).await;
        let error = job.error.as_ref().and_then(Value::as_str).unwrap_or_else(|| panic!("{told}: {job:?}"));
        assert!(error.contains(told), "{error}, not {told}");
        assert_eq!((job.status, job.finals.len()), (Status::Failed, 1));
    }
    gpu.platform().look(|state| state.assert_settled_once());
}

#[tokio::test]
async fn without_encryption_required_worker_comfyuis_input_is_run_and_answered() {
    let gpu = Gpu::double().on_platform().env("ENCRYPTION_REQUIRED", "0").start().await;
    let image = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let mut loads = workflow::fixture("06_load_invert_save");
    let loader = loads.as_object_mut().unwrap().values_mut().find(|node| node["class_type"] == "LoadImage").unwrap();
    loader["inputs"]["image"] = json!("mine.png");
    let input = json!({"workflow": loads, "images": [{"name": "mine.png", "image": image}]});
    let job = gpu.platform().settled(&gpu.platform().submit(input)).await;
    let output = job.output.unwrap_or_else(|| panic!("{:?}", job.error));
    let images = output["images"].as_array().unwrap();
    assert_eq!((images.len(), &images[0]["type"]), (1, &json!("base64")), "{output}");
    assert!(sealed::bytes(&images[0]["data"]).starts_with(PNG));

    let failing = json!({"workflow": workflow::fixture("41_exec_error_test")});
    let job = gpu.platform().settled(&gpu.platform().submit(failing)).await;
    assert_eq!(job.status, Status::Failed);
    assert!(job.error.unwrap().as_str().unwrap().starts_with("execution_failed: "));
    assert!(job.output.unwrap()["details"].is_array());
}

#[tokio::test]
async fn a_sandbox_job_goes_through_the_same_queue() {
    let gpu = Gpu::double().on_platform().with_sandboxes().start().await;
    let source = "export const handler = (event) => ({ doubled: event.data * 2 });";
    let environment = gpu.daemon.client().environment("bun", source).await;
    let execute = json!({"id": environment, "data": 21, "limits": {"timeoutMs": 30_000}});
    let in_clear = gpu.platform().submit(json!({"execute": execute}));
    let request = gpu.keys.v2(&json!({"execute": execute}));
    let sealed = gpu.platform().submit(request.input.clone());

    let job = gpu.platform().settled(&in_clear).await;
    let output = job.output.unwrap_or_else(|| panic!("{:?}", job.error));
    assert_eq!((&output["outcome"], &output["result"]), (&json!("ok"), &json!({"doubled": 42})));
    let job = gpu.platform().settled(&sealed).await;
    let output = job.output.unwrap_or_else(|| panic!("{:?}", job.error));
    assert!(output.get("result").is_none(), "{output}");
    assert_eq!(request.reply(&output, &sealed)["execution"]["result"], json!({"doubled": 42}));
}
