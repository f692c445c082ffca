//! Answers on their way to the source.

use std::sync::Arc;

use actix::prelude::*;
use slog::warn;

use super::QueueIngress;
use crate::domain::job::{Answer, JobId, body};
use crate::domain::lease::{Event, PostFault};
use crate::ports::job_source::SourceError;

impl QueueIngress {
    pub(super) fn post(&mut self, job: JobId, ctx: &mut Context<Self>) {
        let Some(answer) = self.works.get(&job).and_then(|work| work.answer.clone()) else { return };
        let (source, stop_pod, id) = (Arc::clone(&self.deps.source), self.deps.settings.refresh_worker, job.clone());
        let post = async move { source.settle(&id, &answer, stop_pod).await };
        self.spawn(ctx, post, move |ingress, posted, ctx| {
            let Err(error) = posted else { return ingress.step(Event::Posted { job }, ctx) };
            warn!(ingress.deps.log, "job.post_failed"; "requestId" => job.as_str(), "reason" => error.to_string());
            let fault = match error {
                SourceError::Throttled { retry_after } => PostFault::Later { after: retry_after },
                SourceError::Unreachable(_) => PostFault::Later { after: None },
                SourceError::Rejected(_) => PostFault::Rejected,
                SourceError::Refused(_) => PostFault::Never,
            };
            ingress.step(Event::PostFailed { job, fault }, ctx);
        });
    }

    /// Puts a small plain error in the place of an answer that the source refused, so that the caller hears of it.
    pub(super) fn replace(&mut self, job: &JobId) {
        let Some(work) = self.works.get_mut(job) else { return };
        let bytes = work.answer.as_ref().map_or(0, Answer::size);
        work.answer = Some(Answer::failed(body::too_large(bytes, None, None)));
        work.code = Some("too_large");
    }
}
