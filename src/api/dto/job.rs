//! A job as RunPod's client API shows it.
//!
//! Outputs are JSON already, and may be megabytes: they become a piece of the body as they are, never parsed and never
//! copied, since any number of callers may read one output at once.

use serde::{Deserialize, Serialize};

use crate::api::pieces::Pieces;
use crate::domain::job::{JobStatus, JobView};
use crate::domain::secret::Secret;

/// A submitted job: `POST /run`, `POST /cancel/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TicketBody<'a> {
    pub id: &'a str,
    pub status: JobStatus,
}

/// The fields of a job before its output; times in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    id: &'a str,
    status: JobStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// `/status`, `/status-sync` and `/runsync`: `{id, status, delayTime?, executionTime?, error?, output?}`. While the job
/// runs, `output` is its latest progress.
pub fn job_body(view: &JobView) -> Pieces {
    let answer = view.answer.as_deref();
    let head = Head {
        id: view.id.as_str(),
        status: view.status,
        delay_time: view.delay_ms,
        execution_time: view.execution_ms,
        error: answer.and_then(|answer| answer.error.as_deref()),
    };
    // Plain fields and string keys cannot fail.
    let mut head = serde_json::to_vec(&head).unwrap_or_default();
    let Some(output) = answer.map_or(view.progress.as_ref(), |answer| answer.output.as_ref()) else {
        return Pieces::default().with(head);
    };
    head.pop();
    head.extend_from_slice(b",\"output\":");
    Pieces::default().with(head).sharing(output).with("}")
}

/// `/stream`: `{status, stream: [{output}, …]}`, the updates since the last call.
pub fn stream_body(status: JobStatus, chunks: &[Secret]) -> Pieces {
    let mut head = b"{\"status\":".to_vec();
    let _ = serde_json::to_writer(&mut head, &status);
    head.extend_from_slice(b",\"stream\":[");
    let mut body = Pieces::default().with(head);
    for (at, chunk) in chunks.iter().enumerate() {
        body = body.with(if at == 0 { "{\"output\":" } else { ",{\"output\":" }).sharing(chunk).with("}");
    }
    body.with("]}")
}

/// `GET /health`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueHealthBody {
    pub jobs: QueueJobs,
    pub workers: QueueWorkers,
}

/// Jobs since the daemon's start, and those at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueJobs {
    pub completed: u64,
    pub failed: u64,
    pub in_progress: u64,
    pub in_queue: u64,
    pub retried: u64,
}

/// This host's instances, in RunPod's words for workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueWorkers {
    pub idle: usize,
    pub initializing: usize,
    pub ready: usize,
    pub running: usize,
    pub throttled: usize,
    pub unhealthy: usize,
}
