//! What a job asks for, once it is open.

use std::collections::BTreeMap;

use crate::domain::envelope::{EnvelopeVersion, Kid, PublicKeyBytes};
use crate::domain::id::EnvironmentId;

use super::comfy::ComfyJob;

/// An opened job.
pub enum Request {
    Comfy(Box<ComfyJob>),
    /// A call of a handler, through the same queue.
    Execute(Box<ExecuteInput>),
}

/// A sandbox job: `{"input": {"execute": {…}}}`, with the fields of the HTTP route's body and the environment's id.
#[derive(Clone)]
pub struct ExecuteInput {
    pub environment: EnvironmentId,
    /// JSON text.
    pub data: String,
    pub env: BTreeMap<String, String>,
    /// None takes the host's default.
    pub timeout_ms: Option<u64>,
    pub memory_mb: Option<u64>,
    pub reply: ReplyTo,
}

/// What a caller wants beside the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// ComfyUI's history entry in the answer.
    pub history: bool,
    /// Preview images with the progress.
    pub previews: bool,
    /// No progress at all: the answer only.
    pub silent: bool,
}

/// How the answer goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// The request came in clear.
    Plain,
    /// Everything of the job goes back sealed.
    Sealed(ReplyAddress),
}

/// To whom a sealed answer goes. None of it is secret; the keys stay with Crypto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyAddress {
    pub version: EnvelopeVersion,
    /// Which of our keys the request was sealed to.
    pub kid: Kid,
    /// The caller's public key, made for this request.
    pub epk: PublicKeyBytes,
    /// The request's own `id` (v2); the job's id for v1.
    pub request_id: String,
}

/// Why a job is not opened. The texts are v1's where v1 had one; nothing of a plaintext is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The outer request is not one: no JSON object, equal keys, a wrong type, ciphertext beside a plain workflow.
    #[error("{0}")]
    Malformed(&'static str),
    #[error("missing encrypted fields")]
    MissingFields,
    /// Every failure to open, in one shape.
    #[error("invalid ciphertext")]
    Unopenable,
    #[error("encryption_required: set ENCRYPTION_REQUIRED=0 to allow plaintext for testing")]
    PlaintextRefused,
    #[error("this request was received before, under another job id")]
    Replayed,
    /// The time stamp of a v2 request is outside the window.
    #[error("the request's time is more than {0} s from this host's: check both clocks, and seal it anew")]
    Stale(u64),
    #[error("unknown kid: this worker's current key is {current}")]
    UnknownKey { current: Kid },
    /// It opened, and what it holds is no API prompt.
    #[error("Missing or invalid workflow: expected an API prompt mapping (id->node){}", if *.graph_export { GRAPH_HINT } else { "" })]
    NoWorkflow {
        /// It looks like the editor's own file.
        graph_export: bool,
    },
    /// It opened, and one of its fields is wrong; the text names the field, never a value.
    #[error("{0}")]
    Field(&'static str),
    #[error(
        "this worker has no private key: set WORKER_PRIVATE_KEY_B64, or crypto.private_key_file (`cloister keygen` makes one)"
    )]
    NoKey,
    /// A sandbox job whose fields are wrong.
    #[error("execute: {0}")]
    Execute(String),
    /// The host could not do it: the replay guard's log, a full pool.
    #[error("{doing} failed: {cause}")]
    Host { doing: &'static str, cause: String },
}

/// What to do about a workflow that was saved from the editor.
const GRAPH_HINT: &str = "; this is the editor's own graph: export it with \"Export (API)\"";
