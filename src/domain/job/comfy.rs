//! A job for ComfyUI, its progress, and what came of it.

use std::time::Duration;

use serde::Serialize;

use super::id::{JobId, PromptId};
use super::request::{ReplyTo, Wants};
use crate::domain::secret::Secret;

/// A workflow to run. Nothing of it may be logged.
#[derive(Clone)]
pub struct ComfyJob {
    pub id: JobId,
    /// JSON text of the API prompt: node id → node.
    pub prompt: Secret,
    pub images: Vec<InputImage>,
    /// Names of the model files that the prompt loads, as they stand in it; for choosing an instance.
    pub models: Vec<String>,
    /// How many nodes the prompt has, for progress.
    pub nodes: usize,
    pub wants: Wants,
    pub reply: ReplyTo,
    /// The caller's limit on the run, when it set one below the host's.
    pub deadline: Option<Duration>,
}

/// An image that the prompt loads by name. The name is a plain file name, checked.
#[derive(Clone)]
pub struct InputImage {
    pub name: String,
    pub source: ImageSource,
}

/// Where an input image comes from.
#[derive(Clone)]
pub enum ImageSource {
    Bytes(Secret),
    /// To be fetched, where the host allows it.
    Url(Secret),
}

/// How far a run is. Its texts are of the prompt, hence secret: this is sealed, or goes to a caller who sent it in clear.
#[derive(Clone, Default)]
pub struct Progress {
    /// The node that runs, by its id in the prompt.
    pub node: Option<String>,
    /// Steps of that node: done, and of how many.
    pub value: f64,
    pub max: f64,
    pub nodes_done: usize,
    pub nodes: usize,
    pub preview: Option<Preview>,
}

/// A picture of work under way.
#[derive(Clone)]
pub struct Preview {
    pub mime: String,
    pub data: Secret,
}

/// What kind of thing an output is, by its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    Image,
    Animated,
    Video,
    Audio,
    Text,
    Latent,
    Model3d,
    File,
}

/// One output.
#[derive(Clone)]
pub struct Output {
    /// The node's id in the prompt.
    pub node: String,
    /// With its subfolder, `/` between.
    pub filename: String,
    pub kind: OutputKind,
    pub mime: &'static str,
    pub data: Secret,
}

/// Where the time of a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTimings {
    /// From being taken to being given to an instance, in milliseconds.
    pub queue_ms: u64,
    /// From the prompt's post to its end.
    pub run_ms: u64,
    /// Collecting the outputs.
    pub collect_ms: u64,
}

/// Why a run failed: public, stable, and without anything of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// ComfyUI refused the prompt, all or part of it.
    Validation,
    /// A node raised.
    NodeError,
    /// A node ran out of the GPU's or the host's memory.
    OutOfMemory,
    /// It was cancelled.
    Interrupted,
    /// It ran over its deadline.
    Timeout,
    /// No progress within the limit, or no answer at all.
    Hang,
    /// The process ended under it.
    Crashed,
    /// The disk or the RAM directory of the outputs is full.
    NoSpace,
    /// An output is of a kind, or of a size, that cannot be sent.
    Unsendable,
    /// An input image could not be had.
    Input,
    /// No instance could be had, or its ComfyUI never took the job: it ran nowhere.
    Unavailable,
}

impl FailureCode {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureCode::Validation => "validation",
            FailureCode::NodeError => "node_error",
            FailureCode::OutOfMemory => "out_of_memory",
            FailureCode::Interrupted => "interrupted",
            FailureCode::Timeout => "timeout",
            FailureCode::Hang => "hang",
            FailureCode::Crashed => "crashed",
            FailureCode::NoSpace => "no_space",
            FailureCode::Unsendable => "unsendable",
            FailureCode::Input => "input",
            FailureCode::Unavailable => "unavailable",
        }
    }
}

/// A failed run. `detail` quotes the prompt: for the caller's eyes only.
#[derive(Clone)]
pub struct ComfyFailure {
    pub code: FailureCode,
    /// What happened, in words that hold nothing of the prompt.
    pub summary: String,
    /// JSON: ComfyUI's own report by node (`node_errors`, `exception_type`, `exception_message`, `traceback`), or null.
    pub detail: serde_json::Value,
}

/// The end of a run. With a failure there may still be outputs (a partial one).
#[derive(Clone)]
pub struct ComfyReport {
    pub prompt_id: PromptId,
    pub outputs: Vec<Output>,
    /// JSON text of the history entry, when it was wanted.
    pub history: Option<Secret>,
    pub failure: Option<ComfyFailure>,
    pub timings: JobTimings,
}
