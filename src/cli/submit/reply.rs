//! What comes back: opened, checked, and read.

use anyhow::{Context as _, anyhow, bail};

use crate::domain::base64;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::SubmitError;
use super::kept::Kept;
use super::remote::Remote;
use crate::domain::job::body::DRY_RUN;
use crate::sealed::{NONCE_BYTES, Nonce};

/// An answer, in clear.
#[derive(Default)]
pub struct Reply {
    pub prompt_id: Option<String>,
    pub outputs: Vec<Output>,
    pub history: Option<Value>,
    /// The failure in one line, when the answer tells of one.
    pub error: Option<String>,
    /// What ComfyUI said of it; null when nothing.
    pub detail: Value,
}

/// One output.
pub struct Output {
    pub filename: String,
    pub data: Vec<u8>,
}

/// How far a job is.
#[derive(Deserialize)]
pub struct Progress {
    #[serde(default)]
    pub value: f64,
    #[serde(default)]
    pub max: f64,
    #[serde(default)]
    pub nodes_done: u64,
    #[serde(default)]
    pub nodes: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outer {
    prompt_id: Option<String>,
    encrypted: bool,
    nonce: Option<String>,
    ciphertext: Option<String>,
    ciphertext_url: Option<String>,
    images: Vec<File>,
    outputs: Vec<File>,
    history: Option<Value>,
    errors: Option<Value>,
    details: Option<Value>,
}

#[derive(Deserialize)]
struct Inner {
    r#type: String,
    id: String,
    #[serde(default)]
    outputs: Vec<File>,
    #[serde(default)]
    history: Option<Value>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    code: String,
    summary: String,
    #[serde(default)]
    detail: Value,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    #[serde(default)]
    r#type: Option<String>,
    data: String,
}

impl Progress {
    /// Of the whole job, in thousandths.
    pub fn permille(&self) -> u64 {
        let nodes = self.nodes.max(1);
        let within = if self.max > 0.0 { (self.value / self.max).clamp(0.0, 1.0) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
        let within = (within * 1000.0) as u64;
        (self.nodes_done.min(nodes) * 1000 + within).checked_div(nodes).unwrap_or(0).min(1000)
    }
}

impl Reply {
    /// Whether nothing was run (`DRY_RUN`). The worker says so outside of the box.
    pub fn is_dry(&self) -> bool {
        self.prompt_id.as_deref() == Some(DRY_RUN)
    }

    /// Reads a final answer's `output`.
    ///
    /// # Errors
    /// When it does not open, or is not the answer to this request.
    pub async fn open(output: &RawValue, kept: &Kept, remote: &Remote) -> anyhow::Result<Self> {
        let Ok(outer) = serde_json::from_str::<Outer>(output.get()) else {
            // Another worker's answer: shown as it is.
            return Ok(Self { detail: serde_json::from_str(output.get())?, ..Self::default() });
        };
        let detail = outer.errors.or(outer.details).unwrap_or_default();
        let mut reply = Self { prompt_id: outer.prompt_id, detail, ..Self::default() };
        if outer.encrypted {
            let sealed = match (outer.ciphertext, outer.ciphertext_url) {
                (Some(text), _) => base64::decode(&text)
                    .context("the answer's ciphertext is not base64")
                    .map_err(SubmitError::Unopened)?,
                (None, Some(url)) => remote.object(&url).await?,
                (None, None) => {
                    return Err(SubmitError::Unopened(anyhow!("the answer is sealed and holds no ciphertext")).into());
                }
            };
            let inner = opened(outer.nonce.as_deref(), sealed, kept).map_err(SubmitError::Unopened)?;
            reply.take_inner(inner, kept).map_err(SubmitError::Unopened)?;
        } else {
            if kept.box_key().is_some() && !(outer.images.is_empty() && outer.outputs.is_empty()) {
                let text = "the request was sealed and the answer is not: do not trust this worker";
                return Err(SubmitError::Unopened(anyhow!(text)).into());
            }
            reply.history = outer.history;
            for file in outer.images.into_iter().chain(outer.outputs) {
                reply.outputs.push(file.load(remote).await?);
            }
        }
        Ok(reply)
    }

    fn take_inner(&mut self, inner: Inner, kept: &Kept) -> anyhow::Result<()> {
        // The two directions of a box share one key: these two tell a reply from a request, and from another's reply.
        if inner.r#type != "reply" || inner.id != kept.request_id.to_string() {
            bail!("the answer opens, and is not the answer to this request: do not trust this worker");
        }
        self.history = inner.history;
        if let Some(failure) = inner.error {
            self.error = Some(format!("{}: {}", failure.code, failure.summary));
            self.detail = failure.detail;
        }
        for file in inner.outputs {
            let data = base64::decode(&file.data).context("an output is not base64")?;
            self.outputs.push(Output { filename: file.filename, data });
        }
        Ok(())
    }
}

impl File {
    async fn load(self, remote: &Remote) -> anyhow::Result<Output> {
        let data = if self.r#type.as_deref() == Some("s3_url") {
            remote.object(&self.data).await?
        } else {
            base64::decode(&self.data).context("an output is not base64")?
        };
        Ok(Output { filename: self.filename, data })
    }
}

fn opened<T: for<'de> Deserialize<'de>>(nonce: Option<&str>, mut sealed: Vec<u8>, kept: &Kept) -> anyhow::Result<T> {
    let key = kept.box_key().context("the answer is sealed, and the request was not")?;
    let nonce = nonce.and_then(|text| base64::decode(text).ok());
    let nonce: Option<[u8; NONCE_BYTES]> = nonce.and_then(|bytes| bytes.try_into().ok());
    let nonce = Nonce::new(nonce.context("the answer's nonce is not 24 bytes of base64")?);
    let plain = key.open(&nonce, &mut sealed).context(
        "the answer does not open: it was changed on its way, or its sender does not hold the worker's private key",
    )?;
    serde_json::from_slice(plain).context("the answer opens, and is not what a worker answers")
}

/// Reads a progress update; none when it is none that can be read.
pub fn open_progress(output: &RawValue, kept: &Kept) -> Option<Progress> {
    let outer: Outer = serde_json::from_str(output.get()).ok()?;
    if !outer.encrypted {
        return serde_json::from_str(output.get()).ok();
    }
    let sealed = base64::decode(&outer.ciphertext?).ok()?;
    opened(outer.nonce.as_deref(), sealed, kept).ok()
}
