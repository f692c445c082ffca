//! A caller with sealed jobs at a daemon's own queue, who opens what comes back.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::daemon::TOKEN;
use crate::support::eventually;
use crate::support::gpu::sealed::{Keys, Sealed, bytes};

/// Sends jobs to a daemon's own queue.
#[derive(Clone)]
pub struct Caller {
    http: reqwest::Client,
    endpoint: String,
    keys: Keys,
}

/// A job that was sent, and what opens its answer.
pub struct Sent {
    pub id: String,
    sealed: Sealed,
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    /// RunPod's word.
    pub status: String,
    pub error: Option<String>,
    /// What everybody may read.
    pub public: Value,
    /// What was sealed: `outputs`, `history`, `error`, `timings`. Null where nothing was.
    pub reply: Value,
}

/// One output, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub node: String,
    pub filename: String,
    pub kind: String,
    pub mime: String,
    pub data: Vec<u8>,
}

impl Ended {
    pub fn outputs(&self) -> Vec<Output> {
        let field = |output: &Value, name: &str| output[name].as_str().unwrap().to_owned();
        let read = |output: &Value| Output {
            node: field(output, "node"),
            filename: field(output, "filename"),
            kind: field(output, "kind"),
            mime: field(output, "mime"),
            data: bytes(&output["data"]),
        };
        self.reply["outputs"].as_array().map(|all| all.iter().map(read).collect()).unwrap_or_default()
    }

    /// Asserts that it went well.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!((self.status.as_str(), self.error.as_deref()), ("COMPLETED", None), "{}", self.reply["error"]);
        assert_eq!(self.public["status"], "ok");
        self
    }

    /// Asserts that it failed with this code, in public and under the seal.
    #[track_caller]
    pub fn failed(self, code: &str) -> Self {
        let line = self.error.as_deref().unwrap_or_default();
        let public = format!("execution_failed: {code}: ");
        assert!(line.starts_with(&public), "{code}: {} {line} {}", self.status, self.reply["error"]);
        assert_eq!((self.status.as_str(), &self.reply["error"]["code"]), ("FAILED", &json!(code)));
        self
    }
}

impl Caller {
    pub fn new(url: &str, keys: &Keys) -> Self {
        let http = crate::support::http().timeout(Duration::from_secs(180)).build().unwrap();
        Self { http, endpoint: format!("{url}/v2/local"), keys: keys.clone() }
    }

    /// One call of the client API: its status and its body.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.endpoint)).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    pub async fn send(&self, workflow: &Value) -> Sent {
        self.send_with(workflow, json!({})).await
    }

    /// Seals a request of `workflow`, with `more` fields beside it, and queues it.
    pub async fn send_with(&self, workflow: &Value, more: Value) -> Sent {
        let mut fields = json!({ "workflow": workflow });
        fields.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let sealed = self.keys.v2(&fields);
        let (status, ticket) = self.ask(Method::POST, "/run", Some(json!({ "input": sealed.input }))).await;
        assert_eq!(status, 200, "{ticket}");
        Sent { id: ticket["id"].as_str().unwrap().to_owned(), sealed }
    }

    pub async fn run(&self, workflow: &Value) -> Ended {
        self.ended(&self.send(workflow).await).await
    }

    pub async fn run_with(&self, workflow: &Value, more: Value) -> Ended {
        self.ended(&self.send_with(workflow, more).await).await
    }

    /// Waits for the job's end and opens its answer.
    pub async fn ended(&self, sent: &Sent) -> Ended {
        loop {
            let path = format!("/status-sync/{}?wait=60000", sent.id);
            let (status, mut job) = self.ask(Method::GET, &path, None).await;
            assert_eq!(status, 200, "{job}");
            let status = job["status"].as_str().unwrap().to_owned();
            if matches!(status.as_str(), "COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT") {
                let public = job["output"].take();
                let is_sealed = public.get("ciphertext").is_some();
                let reply = if is_sealed { sent.sealed.reply(&public, &sent.id) } else { Value::Null };
                return Ended { status, error: job["error"].as_str().map(str::to_owned), public, reply };
            }
        }
    }

    pub async fn status(&self, sent: &Sent) -> Value {
        self.ask(Method::GET, &format!("/status/{}", sent.id), None).await.1
    }

    /// Cancels a job, and tells its status then.
    pub async fn cancel(&self, sent: &Sent) -> String {
        let (status, job) = self.ask(Method::POST, &format!("/cancel/{}", sent.id), None).await;
        assert_eq!(status, 200, "{job}");
        job["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The updates since the last look, opened.
    pub async fn updates(&self, sent: &Sent) -> Vec<Value> {
        let (_, body) = self.ask(Method::GET, &format!("/stream/{}", sent.id), None).await;
        let chunks = body["stream"].as_array().cloned().unwrap_or_default();
        let is_update = |chunk: &&Value| chunk["output"].get("status").is_none() && !chunk["output"].is_null();
        let updates: Vec<Value> =
            chunks.iter().filter(is_update).map(|chunk| sent.sealed.open(&chunk["output"])).collect();
        for update in &updates {
            assert_eq!((&update["type"], &update["id"]), (&json!("progress"), &json!(sent.sealed.id)));
        }
        updates
    }

    /// Waits until an update is as wanted.
    pub async fn updated(&self, sent: &Sent, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually("an update", Duration::from_secs(90), async || {
            let updates = self.updates(sent).await;
            found = updates.iter().find(|update| wanted(update)).cloned();
            found.is_some().then_some(()).ok_or_else(|| format!("{} others", updates.len()))
        })
        .await;
        found.unwrap()
    }

    /// Waits until a node runs.
    pub async fn reached(&self, sent: &Sent, node: &str) {
        self.updated(sent, |update| update["node"] == node).await;
    }
}

/// Bytes as an image of a request.
pub fn image(name: &str, bytes: &[u8]) -> Value {
    json!({ "images": [{ "name": name, "image": STANDARD.encode(bytes) }] })
}
