//! The real ComfyUI behind the daemon's door: every kind of output, every kind of refusal, updates, cancelling. One
//! process serves them all, one after the other: a start takes ten seconds of a core.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::comfy_caller::{Ended, image};
use crate::comfy_worker::{Worker, failing, files_below, through};
use crate::support::eventually;
use crate::support::gpu::{left, workflow};

#[tokio::test]
async fn sealed_jobs_of_every_kind_are_served_by_the_real_comfyui() {
    let mut worker = Worker::start(|setup| setup.set("comfy.ram_mib", "96")).await;
    every_kind_of_output_comes_back_and_its_file_goes(&worker).await;
    the_same_graph_again_gives_its_outputs_again(&worker).await;
    an_image_goes_under_the_seal_and_no_other_job_sees_it(&worker).await;
    a_refusal_names_the_node(&worker).await;
    a_part_that_is_refused_is_told_beside_the_rest(&worker).await;
    a_nodes_exception_is_told_under_the_seal_only(&worker).await;
    no_stock_node_writes_outside_of_the_ram_directory(&worker).await;
    a_full_output_directory_is_named_and_the_next_job_served(&worker).await;
    updates_and_previews_come_while_it_runs(&worker).await;
    a_running_job_and_a_waiting_one_are_cancelled(&worker).await;
    a_callers_own_deadline_holds(&worker).await;
    a_stock_sampler_runs(&worker).await;
    its_process_is_still_the_first(&worker).await;
    the_stopped_daemon_leaves_nothing(&mut worker).await;
}

async fn every_kind_of_output_comes_back_and_its_file_goes(worker: &Worker) {
    let png = (&b"\x89PNG\r\n\x1a\n"[..], "image", "image/png");
    for (name, count, (magic, kind, mime), file) in [
        ("01_save_one", 1, png, "t_00001_.png"),
        ("02_save_batch4", 4, png, "sub/batch_00001_.png"),
        ("03_scale_invert_two_outputs", 2, png, "inv_00001_.png"),
        ("04_preview_only", 1, png, "ComfyUI_temp_"),
        ("05_save_websocket_batch2", 2, png, "websocket_00001.png"),
        ("07_video_webm", 1, (&b"\0\0\0"[..], "video", "video/mp4"), "vid_00001_.mp4"),
        ("08_audio_flac", 1, (b"fLaC", "audio", "audio/flac"), "aud_00001.flac"),
        ("09_latent", 1, (b"", "latent", "application/octet-stream"), "lat_00001_.latent"),
        ("10_animated_webp", 1, (b"RIFF", "animated", "image/webp"), "anim_00001_.webp"),
        ("11_text_preview_any", 1, (b"a secret prompt text", "text", "text/plain"), "text_00001.txt"),
    ] {
        let asking = json!({ "reply": { "history": true } });
        let ended = worker.caller.run_with(&workflow::fixture(name), asking).await.done();
        assert!(ended.public.get("images").is_none() && ended.public.get("history").is_none(), "{name}: in clear");
        assert!(ended.reply["history"]["status"]["completed"] == true, "{name}: {}", ended.reply["history"]);
        assert!(ended.reply["timings"]["runMs"].is_u64(), "{name}: {}", ended.reply["timings"]);
        let outputs = ended.outputs();
        assert_eq!(outputs.len(), count, "{name}");
        for output in &outputs {
            assert_eq!((output.kind.as_str(), output.mime.as_str()), (kind, mime), "{name}");
            assert!(output.data.starts_with(magic) && !output.data.is_empty(), "{name}: {:?}", output.filename);
            assert!(!contains(&output.data, b"class_type"), "{name}: the workflow is in the file");
        }
        let names: BTreeSet<_> = outputs.iter().map(|output| output.filename.as_str()).collect();
        assert_eq!(names.len(), count, "{name}: each has a name of its own");
        assert!(names.iter().any(|own| own.starts_with(file)), "{name}: {names:?}");
        worker.swept().await;
    }
}

/// ComfyUI caches output nodes, and would name files that are swept away.
async fn the_same_graph_again_gives_its_outputs_again(worker: &Worker) {
    for name in ["01_save_one", "04_preview_only", "08_audio_flac", "11_text_preview_any"] {
        let mut all = Vec::new();
        for _ in 0..3 {
            let outputs = worker.caller.run(&workflow::fixture(name)).await.done().outputs();
            assert_eq!(outputs.len(), 1, "{name}");
            all.push(outputs[0].data.clone());
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{name}: the same graph gives the same");
    }
}

async fn an_image_goes_under_the_seal_and_no_other_job_sees_it(worker: &Worker) {
    let mut prompt = workflow::fixture("06_load_invert_save");
    prompt["1"]["inputs"]["image"] = json!("mine.png");
    let picture = |color: u32| async move {
        let mut prompt = workflow::save_one();
        prompt["1"]["inputs"]["color"] = json!(color);
        worker.caller.run(&prompt).await.done().outputs().remove(0).data
    };
    let (black, white) = (picture(0).await, picture(0xff_ffff).await);
    let inverted = worker.caller.run_with(&prompt, image("mine.png", &black)).await.done().outputs().remove(0);
    assert_eq!(inverted.data, white, "what was sent is what was loaded");
    worker.swept().await;
    worker.caller.run(&prompt).await.failed("validation");
    // The same name, another picture: nothing of the first is left in a cache.
    let inverted = worker.caller.run_with(&prompt, image("mine.png", &white)).await.done().outputs().remove(0);
    assert_eq!(inverted.data, black);
    worker.swept().await;
}

async fn a_refusal_names_the_node(worker: &Worker) {
    for (name, node, kind) in [
        ("32_err_validation_range", "1", "value_smaller_than_min"),
        ("33_err_missing_input", "1", "required_input_missing"),
        ("34_err_type_mismatch", "2", "return_type_mismatch"),
        ("35_err_not_in_list", "1", "value_not_in_list"),
        ("39_err_missing_upload", "1", "custom_validation_failed"),
    ] {
        let ended = worker.caller.run(&workflow::fixture(name)).await.failed("validation");
        let errors = ended.reply["error"]["detail"]["node_errors"][node]["errors"].to_string();
        assert!(errors.contains(kind), "{name}: {}", ended.reply["error"]);
    }
    for (name, kind) in [("30_err_missing_node", "missing_node_type"), ("31_err_no_outputs", "prompt_no_outputs")] {
        let ended = worker.caller.run(&workflow::fixture(name)).await.failed("validation");
        assert_eq!(ended.reply["error"]["detail"]["type"], kind, "{name}");
        assert!(ended.error.unwrap().ends_with(kind), "{name}");
    }
}

async fn a_part_that_is_refused_is_told_beside_the_rest(worker: &Worker) {
    let ended = worker.caller.run(&workflow::fixture("36_err_partial_one_good_output")).await.done();
    assert_eq!(ended.outputs().len(), 1);
    assert_eq!(ended.reply["error"]["code"], "validation");
    assert!(ended.reply["error"]["detail"]["node_errors"]["3"].is_object(), "{}", ended.reply["error"]);
}

async fn a_nodes_exception_is_told_under_the_seal_only(worker: &Worker) {
    let raised = worker.caller.run(&workflow::fixture("41_exec_error_test")).await.failed("node_error");
    assert_eq!(raised.error.as_deref(), Some("execution_failed: node_error: a node raised an exception (ValueError)"));
    assert!(!raised.public.to_string().contains("SECRET"));
    let detail = &raised.reply["error"]["detail"];
    assert_eq!((&detail["node_id"], &detail["node_type"]), (&json!("2"), &json!("TestFail")));
    assert!(detail["exception_message"].as_str().unwrap().contains("SECRET-INPUT"), "{detail}");

    worker.caller.run(&failing("oom_error")).await.failed("out_of_memory");
    let no_picture = image("broken.png", b"this is no picture");
    let broken = worker.caller.run_with(&workflow::fixture("40_exec_error_core"), no_picture).await;
    assert!(broken.error.is_some() && broken.reply["error"]["detail"].is_object(), "{broken:?}");
    worker.assert_serves().await;
}

/// Some of ComfyUI's own nodes write wherever a request says.
async fn no_stock_node_writes_outside_of_the_ram_directory(worker: &Worker) {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("escaped").to_string_lossy().into_owned();
    let mut prompt = workflow::save_one();
    for class in ["SaveImageTextDataSetToFolder", "SaveImageDataSetToFolder"] {
        let inputs = json!({ "images": ["1", 0], "folder_name": "d", "filename_prefix": &target, "mode": "overwrite" });
        prompt["2"] = json!({ "class_type": class, "inputs": inputs });
        let ended = worker.caller.run(&prompt).await.failed("validation");
        assert_eq!(ended.reply["error"]["detail"]["type"], "missing_node_type", "{class}");
    }
    let inputs = json!({ "latents": ["1", 0], "conditioning": ["1", 0], "folder_name": "escaped", "shard_size": 1 });
    prompt["2"] = json!({ "class_type": "SaveTrainingDataset", "inputs": inputs });
    let ended = worker.caller.run(&prompt).await.failed("validation");
    assert_eq!(ended.reply["error"]["detail"]["type"], "missing_node_type");

    let served = worker.caller.run_with(&splat_as("ply"), image("one.ply", &one_splat())).await;
    assert_eq!(served.done().outputs().len(), 1, "a splat is saved");
    let leaving = splat_as(&format!("{}{target}", "/..".repeat(12)));
    let raised = worker.caller.run_with(&leaving, image("one.ply", &one_splat())).await.failed("node_error");
    let said = raised.reply["error"]["detail"]["exception_message"].as_str().unwrap_or_default();
    assert!(said.contains("outside of the output directory"), "{}", raised.reply["error"]);

    let mut found = Vec::new();
    files_below(outside.path(), &mut found);
    assert_eq!(found, Vec::<std::path::PathBuf>::new());
    worker.swept().await;
    worker.assert_serves().await;
}

/// Saves the splat of the file `one.ply` in this format. The switch takes the list of formats out of ComfyUI's sight.
fn splat_as(format: &str) -> Value {
    let load = json!({ "model_file": "one.ply", "viewport_state": {}, "width": 64, "height": 64 });
    let either = json!({ "switch": true, "on_true": ["3", 0], "on_false": ["3", 0] });
    json!({
        "1": { "class_type": "Load3DAdvanced", "inputs": load },
        "2": { "class_type": "File3DToSplat", "inputs": { "model_3d": ["1", 0] } },
        "3": { "class_type": "PrimitiveString", "inputs": { "value": format } },
        "4": { "class_type": "ComfySwitchNode", "inputs": either },
        "5": { "class_type": "SplatToFile3D", "inputs": { "splat": ["2", 0], "format": ["4", 0] } },
        "6": { "class_type": "SaveGLB", "inputs": { "mesh": ["5", 0], "filename_prefix": "m" } },
    })
}

/// A file of one splat.
fn one_splat() -> Vec<u8> {
    let names = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3";
    let mut file = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\n".to_vec();
    for name in names.split(' ') {
        file.extend(format!("property float {name}\n").into_bytes());
    }
    file.extend(b"end_header\n");
    file.extend(names.split(' ').flat_map(|name| if name == "rot_0" { 1_f32 } else { 0_f32 }.to_le_bytes()));
    file
}

async fn a_full_output_directory_is_named_and_the_next_job_served(worker: &Worker) {
    let mut large = workflow::fixture("09_latent");
    // 128 MiB of numbers into 96.
    for (name, value) in [("width", 4096), ("height", 4096), ("batch_size", 128 >> 2)] {
        large["1"]["inputs"][name] = json!(value);
    }
    worker.caller.run(&large).await.failed("no_space");
    worker.swept().await;
    worker.assert_serves().await;
}

async fn updates_and_previews_come_while_it_runs(worker: &Worker) {
    let prompt = through("TestSteps", json!({ "steps": 30, "delay": 0.1, "preview": "JPEG" }));
    let sent = worker.caller.send_with(&prompt, json!({ "reply": { "previews": true } })).await;
    let is_step = |update: &Value| update["node"] == "9" && update["max"] == 30.0 && update["preview"].is_object();
    let first = worker.caller.updated(&sent, is_step).await;
    assert_eq!(first["preview"]["mime"], "image/jpeg");
    assert_eq!(first["nodes"], 3);
    // The job's status shows the latest one, sealed.
    let status = worker.caller.status(&sent).await;
    assert_eq!((&status["status"], &status["output"]["encrypted"]), (&json!("IN_PROGRESS"), &json!(true)));
    let later = worker.caller.updated(&sent, |update| is_step(update) && update["value"] != first["value"]).await;
    assert!(later["seq"].as_u64() > first["seq"].as_u64(), "{later}");
    assert!(later["value"].as_f64() > first["value"].as_f64(), "{later}");
    worker.caller.ended(&sent).await.done();

    let quiet = worker.caller.send_with(&prompt, json!({ "reply": { "progress": false } })).await;
    worker.caller.ended(&quiet).await.done();
    assert!(worker.caller.updates(&quiet).await.is_empty(), "nobody asked for updates");
}

async fn a_running_job_and_a_waiting_one_are_cancelled(worker: &Worker) {
    let endless = through("TestSteps", json!({ "steps": 10_000, "delay": 0.05, "preview": "none" }));
    let running = worker.caller.send(&endless).await;
    worker.caller.reached(&running, "9").await;
    let waiting = worker.caller.send(&workflow::save_one()).await;
    assert_eq!(worker.caller.status(&waiting).await["status"], "IN_QUEUE");
    assert_eq!(worker.caller.cancel(&waiting).await, "CANCELLED");
    worker.caller.cancel(&running).await;
    for sent in [&running, &waiting] {
        let Ended { status, reply, .. } = worker.caller.ended(sent).await;
        assert_eq!(status, "CANCELLED");
        assert!(reply["outputs"].as_array().is_none_or(Vec::is_empty));
    }
    worker.assert_serves().await;
}

async fn a_callers_own_deadline_holds(worker: &Worker) {
    let endless = through("TestSteps", json!({ "steps": 10_000, "delay": 0.05, "preview": "none" }));
    worker.caller.run_with(&endless, json!({ "reply": { "deadline_ms": 1_500 } })).await.failed("timeout");
    worker.assert_serves().await;
}

/// ComfyUI's own sampler, with a progress bar of its own, on a small network of random weights.
async fn a_stock_sampler_runs(worker: &Worker) {
    let mut prompt = workflow::fixture("50_ksampler_random_unet");
    prompt["4"]["inputs"]["width"] = json!(64);
    prompt["4"]["inputs"]["height"] = json!(64);
    prompt["5"]["inputs"]["steps"] = json!(2);
    let ended = worker.caller.run(&prompt).await.done();
    assert!(!ended.outputs().is_empty());
    worker.swept().await;
}

/// None of all this was a fall.
async fn its_process_is_still_the_first(worker: &Worker) {
    assert_eq!(worker.gpu.log_of("comfy.started").len(), 1);
    let picture = worker.gpu.picture().await;
    let restarts: Vec<_> = picture["parts"].as_array().unwrap().iter().map(|part| &part["restarts"]).collect();
    assert!(restarts.iter().all(|count| **count == 0), "{picture}");
}

async fn the_stopped_daemon_leaves_nothing(worker: &mut Worker) {
    let home = worker.gpu.daemon.home.clone();
    assert!(left::beyond(&home, 1).is_ok() && !left::rooms(&home).is_empty());
    worker.gpu.daemon.signal(Signal::SIGTERM);
    assert_eq!(worker.gpu.daemon.ended(Duration::from_secs(60)).await.code(), Some(0));
    eventually("an empty host", Duration::from_secs(10), async || left::beyond(&home, 0)).await;
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
