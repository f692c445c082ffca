//! How a job of this host's own queue stands, as its door shows it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::answer::Answer;
use super::id::JobId;
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;

/// RunPod's words for how a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    InQueue,
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

impl JobStatus {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled)
    }
}

/// A job as its door shows it.
#[derive(Debug, Clone)]
pub struct JobView {
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantName,
    pub status: JobStatus,
    /// From its coming to its being taken, and from there to its end, in milliseconds.
    pub delay_ms: Option<u64>,
    pub execution_ms: Option<u64>,
    /// The latest progress while it runs.
    pub progress: Option<Secret>,
    pub answer: Option<Arc<Answer>>,
}

/// How many jobs stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub in_progress: u64,
    pub in_queue: u64,
}

/// Why a job is not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueRefusal {
    #[error("the queue of jobs is full")]
    Full { retry_after: Duration },
    #[error("the daemon is stopping")]
    Draining,
}
