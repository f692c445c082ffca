//! ComfyUI's HTTP, on loopback: small typed questions with bounds.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::domain::job::PromptId;

/// How long any answer but a prompt's may take. ComfyUI's garbage collector alone stops it for up to 1.5 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: a history entry holds the whole prompt.
const LONGEST_ANSWER: usize = 256 << 20;

/// Asks one instance. Connections are kept and used again.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    base: Arc<str>,
}

/// ComfyUI could not be asked. Holds nothing of an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("ComfyUI could not be reached")]
    Transport(#[source] reqwest::Error),
    #[error("ComfyUI gave no answer within {0:?}")]
    Silent(Duration),
    #[error("ComfyUI answered with status {0}")]
    Status(u16),
    #[error("ComfyUI's answer is longer than {LONGEST_ANSWER} bytes")]
    TooLong,
    #[error("ComfyUI's answer cannot be read")]
    Format,
}

/// How `POST /prompt` was answered.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Where a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Queue,
    Nowhere,
}

#[derive(Deserialize)]
struct Queue<'a> {
    #[serde(borrow)]
    queue_running: Vec<&'a RawValue>,
    #[serde(borrow)]
    queue_pending: Vec<&'a RawValue>,
}

impl Http {
    /// # Errors
    /// When the client cannot be built.
    pub(super) fn new(port: u16) -> Result<Self, reqwest::Error> {
        // Nothing is asked over TLS: no certificates are loaded.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = Client::builder().no_proxy().http1_only().tcp_nodelay(true);
        if let Ok(versions) =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
        {
            let roots = rustls::RootCertStore::empty();
            client = client.tls_backend_preconfigured(versions.with_root_certificates(roots).with_no_client_auth());
        }
        let client = client.redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, base: format!("http://127.0.0.1:{port}").into() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// What the process that answers was started with, where it says so.
    pub(super) async fn arguments(&self) -> Result<Option<Vec<String>>, HttpError> {
        #[derive(Deserialize)]
        struct Stats {
            system: System,
        }
        #[derive(Deserialize)]
        struct System {
            argv: Option<Vec<String>>,
        }
        let body = timely(self.request(Method::GET, "/system_stats")).await?;
        let stats: Stats = serde_json::from_slice(&body).map_err(|_| HttpError::Format)?;
        Ok(stats.system.argv)
    }

    /// Posts a prompt. Takes as long as its validation does.
    pub(super) async fn prompt(&self, body: Vec<u8>) -> Result<Reply, HttpError> {
        let request = self.request(Method::POST, "/prompt").header("content-type", "application/json").body(body);
        let response = request.send().await.map_err(transport)?;
        let status = response.status().as_u16();
        Ok(Reply { status, body: bounded(response).await? })
    }

    /// JSON text of a prompt's history entry; none while it is not over.
    pub(super) async fn history(&self, prompt: PromptId) -> Result<Option<Vec<u8>>, HttpError> {
        let body = timely(self.request(Method::GET, &format!("/history/{prompt}"))).await?;
        let entries: std::collections::BTreeMap<String, &RawValue> =
            serde_json::from_slice(&body).map_err(|_| HttpError::Format)?;
        Ok(entries.get(&prompt.to_string()).map(|entry| entry.get().as_bytes().to_vec()))
    }

    /// Whether a prompt waits or runs.
    pub(super) async fn place(&self, prompt: PromptId) -> Result<Place, HttpError> {
        let body = timely(self.request(Method::GET, "/queue")).await?;
        let queue: Queue<'_> = serde_json::from_slice(&body).map_err(|_| HttpError::Format)?;
        let id = Value::String(prompt.to_string());
        let mut all = queue.queue_running.iter().chain(&queue.queue_pending);
        // An entry is [number, id, prompt, …].
        let is_it = |entry: &&&RawValue| {
            serde_json::from_str::<Vec<&RawValue>>(entry.get())
                .ok()
                .and_then(|fields| serde_json::from_str::<Value>(fields.get(1)?.get()).ok())
                .is_some_and(|found| found == id)
        };
        Ok(if all.any(|entry| is_it(&entry)) { Place::Queue } else { Place::Nowhere })
    }

    /// Takes a prompt out of the queue, or interrupts it. In this order: one that begins in between is interrupted.
    pub(super) async fn interrupt(&self, prompt: PromptId) -> Result<(), HttpError> {
        self.post("/queue", &json!({ "delete": [prompt] })).await?;
        self.post("/interrupt", &json!({ "prompt_id": prompt })).await
    }

    /// Forgets a prompt that is over.
    pub(super) async fn forget(&self, prompt: PromptId) -> Result<(), HttpError> {
        self.post("/history", &json!({ "delete": [prompt] })).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(), HttpError> {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        timely(request.body(body.to_string())).await.map(drop)
    }
}

async fn timely(request: RequestBuilder) -> Result<Vec<u8>, HttpError> {
    let asking = async {
        let response = request.send().await.map_err(transport)?;
        match response.status() {
            StatusCode::OK => bounded(response).await,
            status => Err(HttpError::Status(status.as_u16())),
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.map_err(|_elapsed| HttpError::Silent(PATIENCE))?
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Err(HttpError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn transport(error: reqwest::Error) -> HttpError {
    HttpError::Transport(error.without_url())
}
