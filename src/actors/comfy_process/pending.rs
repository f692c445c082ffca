//! The job in hand, and the one answer that it gets whatever happens.

use std::future::Future;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::domain::instance::Verdict;
use crate::domain::job::{ComfyFailure, ComfyJob, ComfyReport, FailureCode, JobTimings, PromptId};
use crate::domain::time::Moment;
use crate::messages::comfy_process::JobProgressed;

/// A job that was taken and is not answered.
pub(super) struct Pending {
    pub(super) prompt: PromptId,
    /// Until it is given to ComfyUI.
    pub(super) job: Option<Box<ComfyJob>>,
    pub(super) progress: Recipient<JobProgressed>,
    pub(super) reply: Reply,
    /// Follows the run.
    pub(super) run: Option<SpawnHandle>,
    pub(super) began: Moment,
}

/// Where the answer goes. Dropping it answers too, so that a panic leaves nobody waiting.
pub(super) struct Reply {
    prompt: PromptId,
    place: Option<oneshot::Sender<ComfyReport>>,
}

impl Reply {
    /// The place, and the answer to wait for.
    pub(super) fn new(prompt: PromptId) -> (Self, impl Future<Output = ComfyReport> + use<>) {
        let (place, answer) = oneshot::channel();
        let answer = async move { answer.await.unwrap_or_else(|_| lost(prompt)) };
        (Self { prompt, place: Some(place) }, answer)
    }

    /// Answers. Whoever asked may be gone.
    pub(super) fn send(mut self, report: ComfyReport) {
        if let Some(place) = self.place.take() {
            drop(place.send(report));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            drop(place.send(lost(self.prompt)));
        }
    }
}

fn lost(prompt: PromptId) -> ComfyReport {
    let summary = "the instance was ended under the job".to_owned();
    failed(prompt, Verdict { code: FailureCode::Crashed, summary })
}

/// A report with nothing in it but why.
pub(super) fn failed(prompt: PromptId, verdict: Verdict) -> ComfyReport {
    ComfyReport {
        prompt_id: prompt,
        outputs: Vec::new(),
        history: None,
        failure: Some(failure(verdict)),
        timings: JobTimings::default(),
    }
}

/// A verdict as a report tells it.
pub(super) fn failure(Verdict { code, summary }: Verdict) -> ComfyFailure {
    ComfyFailure { code, summary, detail: serde_json::Value::Null }
}
