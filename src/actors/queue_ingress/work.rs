//! What one job is made of, while it is held.

use std::time::Duration;

use crate::domain::bucket::Bucket;
use crate::domain::id::ExecutionId;
use crate::domain::job::{Answer, ComfyJob, ComfyReport, ExecuteInput, Job, Progress, ReplyTo};
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;

/// A job's own things. None of them may be logged.
pub(super) struct Work {
    /// Since when it is held, on the daemon's clock.
    pub(super) taken: Duration,
    /// Whose it is: a handler that it calls has to be its own.
    pub(super) tenant: TenantName,
    /// Until it is opened.
    pub(super) input: Option<Secret>,
    /// Where its large outputs go, when it brought a place of its own.
    pub(super) bucket: Option<Bucket>,
    /// It came again after it was stopped, and is next.
    pub(super) again: Option<Job>,
    pub(super) comfy: Option<Box<ComfyJob>>,
    pub(super) handler: Option<Box<ExecuteInput>>,
    /// Its call in the pool, while that runs.
    pub(super) execution: Option<ExecutionId>,
    /// How the answer goes back; known once it is open.
    pub(super) reply: Option<ReplyTo>,
    /// The caller wants the answer only.
    pub(super) silent: bool,
    pub(super) queue_ms: u64,
    pub(super) outcome: Option<Outcome>,
    pub(super) progress: Option<Progress>,
    pub(super) updates: u64,
    pub(super) answer: Option<Answer>,
    /// The failure's stable name, for the log.
    pub(super) code: Option<&'static str>,
}

/// What came of its run.
pub(super) enum Outcome {
    Comfy(Box<ComfyReport>),
    /// The handler's answer as JSON text, or why there is none.
    Handler(Result<String, String>),
}

impl Work {
    /// A job that has just been taken.
    pub(super) fn new(job: Job, taken: Duration) -> Self {
        Self {
            taken,
            tenant: job.tenant,
            input: Some(job.input),
            bucket: job.bucket,
            again: None,
            comfy: None,
            handler: None,
            execution: None,
            reply: None,
            silent: false,
            queue_ms: 0,
            outcome: None,
            progress: None,
            updates: 0,
            answer: None,
            code: None,
        }
    }
}
