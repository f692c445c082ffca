//! `cloister submit` against a played worker, which opens and seals as a real one does.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::played::{Asked, Did, Played, Setting};
use crate::domain::base64;
use crate::sealed::{BoxKey, Epk, Nonce, SecretKey, TAG_BYTES};

const JOB: &str = "4c6f7a52-1d1b-4b53-9d3a-7a1f0e2d4c55-u1";
const WORKFLOW: &str = r#"{"1":{"class_type":"EmptyImage","inputs":{"width":8}}}"#;

/// The worker's side of one request.
struct Worker {
    key: SecretKey,
    /// The request's id and the box's key, once it came.
    open: Option<(String, BoxKey)>,
}

impl Worker {
    fn new() -> Self {
        Self { key: SecretKey::generate().unwrap(), open: None }
    }

    fn public(&self) -> String {
        self.key.public_key().to_base64()
    }

    /// Opens a sealed request and returns its plaintext.
    fn take(&mut self, body: &str) -> Value {
        let body: Value = serde_json::from_str(body).unwrap();
        let field = |name: &str| base64::decode(body["input"][name].as_str().unwrap()).unwrap();
        let epk = Epk::admit(field("epk").try_into().unwrap()).unwrap();
        let key = self.key.agree(&epk).unwrap();
        let mut sealed = field("ciphertext");
        let plain: Value =
            serde_json::from_slice(key.open(&Nonce::new(field("nonce").try_into().unwrap()), &mut sealed).unwrap())
                .unwrap();
        self.open = Some((plain["id"].as_str().unwrap().to_owned(), key));
        plain
    }

    fn sealed(&self, mut inner: Value) -> Value {
        let (id, key) = self.open.as_ref().unwrap();
        if inner["id"].is_null() {
            inner["id"] = json!(id);
        }
        let nonce = Nonce::random().unwrap();
        let mut buffer = vec![0; TAG_BYTES];
        serde_json::to_writer(&mut buffer, &inner).unwrap();
        key.seal(&nonce, &mut buffer).unwrap();
        json!({ "status": "ok", "prompt_id": "p", "encrypted": true, "v": 2, "nonce": base64::encode(nonce.as_bytes()),
                "ciphertext": base64::encode(&buffer) })
    }
}

fn state(status: &str, more: Value) -> (u16, String) {
    let mut body = json!({ "id": JOB, "status": status });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (200, body.to_string())
}

/// A worker that takes one request, tells of progress once, then ends with `inner`, sealed.
fn worker(public: &mut String, inner: Value) -> Played {
    let mut worker = Worker::new();
    *public = worker.public();
    let mut asked = 0;
    Played::answering(3, move |question: &Asked| {
        asked += 1;
        match asked {
            1 => {
                worker.take(&question.body);
                state("IN_QUEUE", json!({}))
            }
            2 => {
                let progress =
                    json!({ "type": "progress", "seq": 1, "value": 3, "max": 4, "nodes_done": 0, "nodes": 2 });
                state("IN_PROGRESS", json!({ "output": worker.sealed(progress) }))
            }
            _ => state("COMPLETED", json!({ "output": worker.sealed(inner.clone()) })),
        }
    })
}

struct Client {
    home: TempDir,
    workflow: String,
}

impl Client {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let workflow = home.path().join("workflow.json");
        fs::write(&workflow, WORKFLOW).unwrap();
        Self { workflow: workflow.display().to_string(), home }
    }

    fn out(&self) -> String {
        self.home.path().join("out").display().to_string()
    }

    fn run(&self, url: &str, key: &str, arguments: &[&str]) -> Did {
        let variables = vec![
            ("CLOISTER_URL", url.to_owned()),
            ("SERVER_PUBLIC_KEY_B64", key.to_owned()),
            ("XDG_STATE_HOME", self.home.path().display().to_string()),
            ("BEARER_TOKEN", "secret".to_owned()),
        ];
        let words: Vec<&str> = std::iter::once("submit").chain(arguments.iter().copied()).collect();
        Setting { variables, ..Setting::default() }.run(&words)
    }

    fn kept(&self) -> Vec<String> {
        let names = fs::read_dir(self.home.path().join("cloister/jobs")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn reply(outputs: Value) -> Value {
    json!({ "v": 2, "type": "reply", "outputs": outputs })
}

#[test]
fn a_sealed_workflow_goes_out_and_its_outputs_are_written_under_their_names() {
    let (client, mut key) = (Client::new(), String::new());
    let picture = json!({ "node": "2", "filename": "sub/a.png", "kind": "image", "mime": "image/png", "data": "AAEC" });
    let played = worker(&mut key, reply(json!([picture])));
    let url = played.url.clone();
    let did = client.run(&url, &key, &[&client.workflow, "--out", &client.out()]);
    let path = Path::new(&client.out()).join("sub/a.png");
    let told = format!("job {JOB} is with {url}/v2/local\n");
    assert_eq!(did, Did { code: 0, out: format!("{}\n", path.display()), err: told });
    assert_eq!(fs::read(path).unwrap(), [0, 1, 2]);
    assert_eq!(client.kept(), Vec::<String>::new(), "the one-time key is of no more use");
    let asked = played.asked();
    assert_eq!(asked[0].line, "POST /v2/local/run HTTP/1.1");
    assert_eq!(asked[1].line, format!("GET /v2/local/status/{JOB} HTTP/1.1"));
    assert!(
        !asked[0].body.contains("EmptyImage") && asked[0].body.contains(r#""encrypted":true"#),
        "{}",
        asked[0].body
    );
}

#[test]
fn a_detached_job_is_resumed_by_its_id() {
    let client = Client::new();
    let mut worker = Worker::new();
    let key = worker.public();
    let mut asked = 0;
    let played = Played::answering(2, move |question: &Asked| {
        asked += 1;
        if asked == 1 {
            worker.take(&question.body);
            return state("IN_QUEUE", json!({}));
        }
        state("COMPLETED", json!({ "output": worker.sealed(reply(json!([]))) }))
    });
    let did = client.run(&played.url, &key, &[&client.workflow, "--detach"]);
    assert_eq!((did.code, did.out), (0, format!("{JOB}\n")));
    assert_eq!(client.kept(), [format!("{JOB}.json")]);
    let did = client.run(&played.url, &key, &["--resume", JOB]);
    assert_eq!((did.code, did.err), (0, "done; the workflow made no outputs\n".to_owned()));
    assert_eq!(client.kept(), Vec::<String>::new());
    assert_eq!(played.asked().len(), 2);
    let did = client.run("http://127.0.0.1:9", &key, &["--resume", JOB]);
    assert!(did.code == 64 && did.err.contains(&format!("nothing is kept of job {JOB}")), "{}", did.err);
}

#[test]
fn an_answer_that_is_not_to_this_request_is_not_believed() {
    let (client, mut key) = (Client::new(), String::new());
    let played = worker(&mut key, json!({ "v": 2, "type": "reply", "id": "another", "outputs": [] }));
    let did = client.run(&played.url, &key, &[&client.workflow]);
    assert!(did.code == 76 && did.err.contains("is not the answer to this request"), "{}", did.err);
    let played = worker(&mut key, json!({ "v": 2, "type": "request", "outputs": [] }));
    let did = client.run(&played.url, &key, &[&client.workflow]);
    assert!(did.code == 76 && did.err.contains("is not the answer to this request"), "{}", did.err);
}

#[test]
fn a_wrong_key_is_called_one_and_a_failure_is_told_with_its_detail() {
    let (client, key) = (Client::new(), Worker::new().public());
    let failed = format!(r#"{{"id":"{JOB}","status":"FAILED","error":"invalid ciphertext"}}"#);
    let queued = format!(r#"{{"id":"{JOB}","status":"IN_QUEUE"}}"#);
    let played = Played::on_port(vec![(200, &queued), (200, &failed)]);
    let did = client.run(&played.url, &key, &[&client.workflow]);
    assert!(did.code == 76 && did.err.contains("the key is wrong"), "{}", did.err);

    let mut key = String::new();
    let failure = json!({ "code": "validation", "summary": "ComfyUI refused it", "detail": { "1": "too small" } });
    let played = worker(&mut key, json!({ "v": 2, "type": "reply", "outputs": [], "error": failure }));
    let did = client.run(&played.url, &key, &[&client.workflow]);
    assert!(did.code == 1 && did.err.contains("validation: ComfyUI refused it"), "{}", did.err);
    assert!(did.err.contains("too small"), "{}", did.err);
}

#[test]
fn a_key_that_the_worker_does_not_have_is_named_beside_the_one_that_it_has() {
    let (client, worker) = (Client::new(), Worker::new());
    let (key, ours) = (worker.public(), worker.key.public_key().kid().to_string());
    let said = "unknown kid: this worker's current key is abababababababab";
    let told = format!(
        "the key is wrong: this was sealed to SERVER_PUBLIC_KEY_B64 or --key (kid {ours}), and the worker \
         holds kid abababababababab; `cloister keygen --from FILE` on its host shows its public key\n"
    );
    let at_the_door = json!({ "error": said, "code": "unknown_kid", "details": { "kid": "abababababababab" } });
    let played = Played::on_port(vec![(422, &at_the_door.to_string())]);
    let did = client.run(&played.url, &key, &[&client.workflow]);
    assert_eq!(did, Did { code: 76, out: String::new(), err: format!("cloister: {told}") });
    assert_eq!(client.kept(), Vec::<String>::new(), "its key opens nothing");

    let later = json!({ "id": JOB, "status": "FAILED", "error": said }).to_string();
    let played = Played::on_port(vec![(200, &state("IN_QUEUE", json!({})).1), (200, &later)]);
    let did = client.run(&played.url, &key, &[&client.workflow]);
    assert_eq!(
        (did.code, did.err.ends_with(&format!("job {JOB} failed: {said}\n  {told}"))),
        (76, true),
        "{}",
        did.err
    );
    let refused = r#"{"error":"invalid ciphertext","code":"invalid_ciphertext"}"#;
    let did = client.run(&Played::on_port(vec![(400, refused)]).url, &key, &[&client.workflow]);
    assert!(
        did.code == 76
            && did.err.contains("invalid ciphertext: the key is wrong")
            && did.err.contains("holds another one"),
        "{did:?}"
    );
}

#[test]
fn a_job_that_the_daemon_has_lost_is_to_be_submitted_again_and_its_key_goes() {
    let (client, key) = (Client::new(), Worker::new().public());
    let queued = state("IN_QUEUE", json!({})).1;
    let lost = r#"{"error":"there is no such job, or it is forgotten","code":"not_found"}"#;
    let played = Played::on_port(vec![(200, &queued), (404, lost), (200, &queued)]);
    assert_eq!(client.run(&played.url, &key, &[&client.workflow, "--detach"]).code, 0);
    let did = client.run(&played.url, &key, &["--resume", JOB]);
    assert!(did.code == 1 && did.err.contains(&format!("{}/v2/local does not know job", played.url)), "{did:?}");
    assert!(did.err.contains("Submit it again") && did.err.contains("removed"), "{}", did.err);
    assert_eq!(client.kept(), Vec::<String>::new());

    // Another daemon cannot know it: the key stays, for the one that does.
    assert_eq!(client.run(&played.url, &key, &[&client.workflow, "--detach"]).code, 0);
    let other = Played::on_port(vec![(404, lost)]);
    let did = client.run(&other.url, &key, &["--resume", JOB]);
    assert!(did.code == 1 && did.err.contains(&format!("it was sent to {}/v2/local", played.url)), "{}", did.err);
    assert_eq!(client.kept(), [format!("{JOB}.json")]);
}

#[test]
fn a_daemon_that_is_gone_and_a_job_that_takes_its_time_are_told_apart() {
    let (client, key) = (Client::new(), Worker::new().public());
    let queued = state("IN_QUEUE", json!({})).1;
    let played = Played::on_port(vec![(200, &queued)]);
    let url = played.url.clone();
    assert_eq!(client.run(&url, &key, &[&client.workflow, "--detach"]).code, 0);
    played.asked();
    let did = client.run(&url, &key, &["--resume", JOB, "--wait", "1"]);
    assert!(did.code == 69 && did.err.contains(&format!("{url}/v2/local cannot be reached (")), "{did:?}");
    assert!(did.err.contains(&format!("cloister submit --resume {JOB}")), "{}", did.err);

    let slow = Played::answering(64, move |_| state("IN_PROGRESS", json!({})));
    let did = client.run(&slow.url, &key, &["--resume", JOB, "--wait", "1"]);
    let told = format!("cloister: job {JOB} is not done after 1 s; go on with: cloister submit --resume {JOB}\n");
    assert_eq!(did, Did { code: 75, out: String::new(), err: told });
    assert_eq!(client.kept().len(), 1);

    let full = Played::on_port(vec![(429, r#"{"error":"the queue of jobs is full","code":"too_many_requests"}"#)]);
    let did = client.run(&full.url, &key, &[&client.workflow]);
    assert!(did.code == 69 && did.err.contains("takes nothing now: the queue of jobs is full"), "{did:?}");
    assert_eq!(client.kept().len(), 1, "what was not taken needs no key");
    assert_eq!(client.run(&Played::on_port(vec![(401, "Unauthorized")]).url, &key, &[&client.workflow]).code, 77);
}

#[test]
fn a_cancelled_job_and_one_that_was_never_run_are_called_so() {
    let (client, key) = (Client::new(), Worker::new().public());
    let queued = state("IN_QUEUE", json!({})).1;
    let played = Played::on_port(vec![(200, &queued), (200, &state("CANCELLED", json!({})).1)]);
    let did = client.run(&played.url, &key, &[&client.workflow]);
    assert!(did.code == 1 && did.err.ends_with(&format!("cloister: job {JOB} was cancelled\n")), "{did:?}");
    let dry = state("COMPLETED", json!({ "output": { "status": "ok", "prompt_id": "dry-run" } })).1;
    let played = Played::on_port(vec![(200, &queued), (200, &dry), (200, &queued), (200, &dry)]);
    let did = client.run(&played.url, &key, &[&client.workflow, "--plain"]);
    assert!(did.code == 0 && did.err.contains("nothing was run") && did.err.contains("DRY_RUN"), "{did:?}");
    let did = client.run(&played.url, &key, &[&client.workflow, "--plain", "--json"]);
    assert!(did.out.contains(r#""dryRun":true"#), "{}", did.out);
}

#[test]
fn an_image_that_no_node_loads_is_warned_of() {
    let (client, key) = (Client::new(), Worker::new().public());
    let workflow = client.home.path().join("loads.json");
    fs::write(&workflow, r#"{"1":{"class_type":"LoadImage","inputs":{"image":"a.png [input]"}}}"#).unwrap();
    let image = client.home.path().join("x").display().to_string();
    fs::write(&image, "x").unwrap();
    let workflow = workflow.display().to_string();
    let queued = state("IN_QUEUE", json!({})).1;
    let played = Played::on_port(vec![(200, &queued)]);
    let images = [format!("a.png={image}"), format!("b.png={image}")];
    let did = client.run(&played.url, &key, &[&workflow, "--detach", "--image", &images[0], "--image", &images[1]]);
    let warned = "warning: no node of the workflow loads \"b.png\", which --image brings\n";
    assert!(did.code == 0 && did.err.starts_with(warned), "{did:?}");
}

#[test]
fn what_cannot_be_sent_is_said_before_it_is_sent() {
    let client = Client::new();
    let key = Worker::new().public();
    let graph = client.home.path().join("graph.json");
    fs::write(&graph, r#"{"nodes":[],"links":[]}"#).unwrap();
    let text = client.home.path().join("text.json");
    fs::write(&text, "{").unwrap();
    let (graph, text) = (graph.display().to_string(), text.display().to_string());
    let nowhere = "http://127.0.0.1:9";
    let said = |arguments: &[&str], key: &str| {
        let did = client.run(nowhere, key, arguments);
        assert_eq!(did.code, 64, "{}", did.err);
        did.err
    };
    assert!(said(&[&graph], &key).contains("Export (API)"));
    assert!(said(&[&text], &key).contains("is not JSON"));
    assert!(said(&["/nonexistent"], &key).contains("cannot read the workflow"));
    assert!(said(&[&client.workflow], "").contains("cloister keygen"));
    assert!(said(&[&client.workflow], "AAAA").contains("32 bytes"));
    assert!(said(&[&client.workflow, "--image", "a.png"], &key).contains("NAME=FILE"));
    assert!(said(&[&client.workflow, "--image", "=a.png"], &key).contains("NAME=FILE"));
    let did = client.run(nowhere, &key, &[&client.workflow]);
    assert!(did.code == 69 && did.err.contains("http://127.0.0.1:9/v2/local cannot be reached"), "{did:?}");
    assert_eq!(client.kept().len(), 1, "it may have arrived");
    let played = Played::on_port(vec![(403, r#"{"error":"no","code":"forbidden"}"#)]);
    assert_eq!(client.run(&played.url, &key, &[&client.workflow]).err, "cloister: no (forbidden)\n");
    assert_eq!(client.kept().len(), 1, "a key whose request was refused is not kept");
}
