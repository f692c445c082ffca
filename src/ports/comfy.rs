//! ComfyUI: one process for each instance, started, asked, followed, ended, and verified gone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::domain::instance::InstanceSpec;
use crate::domain::job::{ComfyJob, ComfyReport, Progress, PromptId};

/// What is told while a prompt runs. Bounded by the channel: a slow listener loses steps, never the end.
pub enum RunEvent {
    /// ComfyUI took the prompt.
    Accepted,
    Progress(Progress),
    /// Any other sign of life of this prompt.
    Sign,
}

/// Why ComfyUI could not be used. Never holds anything of a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ComfyError {
    #[error("ComfyUI is not set up on this host: {0}")]
    Off(String),
    #[error("ComfyUI did not answer within {0:?} of its start")]
    NotReady(Duration),
    /// It ended before it was ready. `last` is what it printed before any prompt.
    #[error("ComfyUI ended before it was ready ({end}): {last}")]
    DiedEarly { end: String, last: String },
    #[error("ComfyUI gave no answer within {0:?}")]
    Silent(Duration),
    #[error("{doing} failed")]
    Host {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComfyEnd {
    /// Such as "exit code 1" or "signal 11 (SIGSEGV)".
    pub end: String,
    pub out_of_memory: bool,
}

/// Starts instances.
#[async_trait]
pub trait ComfyEngine: Send + Sync {
    /// Spawns ComfyUI into a cgroup and a RAM directory of its own. Returns while it loads. What an earlier life left
    /// of this instance is removed first.
    async fn start(&self, instance: &InstanceSpec) -> Result<Arc<dyn ComfyUi>, ComfyError>;
    /// Removes what an earlier life left of an instance: processes, cgroup, RAM directory. Idempotent.
    async fn sweep(&self, instance: &InstanceSpec) -> Result<(), ComfyError>;
}

/// One ComfyUI process. Dropping it kills nothing; end it with `stop`.
#[async_trait]
pub trait ComfyUi: Send + Sync {
    /// Waits until it answers; bounded by the engine's start deadline.
    async fn ready(&self) -> Result<(), ComfyError>;

    /// Runs one prompt to its end and collects all its outputs: WebSocket first, then the prompt, then whatever tells
    /// of the end first. Has no deadline of its own; returns when the prompt ended, when it was refused, or when the
    /// process is gone. What ComfyUI did wrong is in the report; dropping the future stops following, not the prompt.
    async fn run(&self, job: &ComfyJob, prompt: PromptId, events: mpsc::Sender<RunEvent>) -> ComfyReport;

    /// Asks it to stop this prompt, running or waiting. Answers before it has.
    async fn interrupt(&self, prompt: PromptId) -> Result<(), ComfyError>;

    /// Whether HTTP answers, within five seconds.
    async fn probe(&self) -> Result<(), ComfyError>;

    /// Sweeps the job's files (the directories, not a list) and its history. Nothing of the job is left behind.
    async fn clean(&self, prompt: PromptId) -> Result<(), ComfyError>;

    /// Memory of the whole cgroup, in bytes; none where it cannot be told.
    fn memory(&self) -> Option<u64>;

    /// SIGABRT, so that it prints the stacks of all threads (which stay secret) and ends.
    fn abort(&self);

    /// TERM, `grace`, KILL of the whole cgroup; returns when it is empty and the RAM directory is gone.
    ///
    /// # Errors
    /// When something survives: the instance is wedged, and the call can be repeated.
    async fn stop(&self, grace: Duration) -> Result<(), ComfyError>;

    /// How it ended; waits for it.
    async fn ended(&self) -> ComfyEnd;
}
