//! Updates: the newest progress of a job, sealed where its request was.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::debug;
use tokio::time::timeout;

use super::QueueIngress;
use crate::domain::job::{JobId, ReplyTo, body};
use crate::domain::lease::Event;
use crate::messages::comfy_process::JobProgressed;
use crate::messages::crypto::Seal;
use crate::ports::job_source::Update;

/// The answer waits for an update that is under way, but not longer than this.
const UPDATE_DEADLINE: Duration = Duration::from_secs(5);

impl QueueIngress {
    pub(super) fn note_progress(&mut self, message: JobProgressed, ctx: &mut Context<Self>) {
        let JobProgressed { job, progress } = message;
        let Some(work) = self.works.get_mut(&job) else { return };
        if !work.silent {
            work.progress = Some(progress);
            self.step(Event::Progressed { job }, ctx);
        }
    }

    pub(super) fn update(&mut self, job: JobId, ctx: &mut Context<Self>) {
        let Some(work) = self.works.get_mut(&job) else { return self.step(Event::UpdateEnded { job }, ctx) };
        let (Some(progress), Some(reply)) = (work.progress.take(), work.reply.clone()) else {
            return self.step(Event::UpdateEnded { job }, ctx);
        };
        let seq = work.updates;
        work.updates += 1;
        let (source, seal, id) = (Arc::clone(&self.deps.source), self.deps.seal.clone(), job.clone());
        let post = async move {
            let output = match reply {
                ReplyTo::Plain => body::progress_text(id.as_str(), seq, &progress),
                ReplyTo::Sealed(to) => {
                    let plaintext = body::progress_text(&to.request_id, seq, &progress);
                    match seal.ask(Seal { to, plaintext }).await {
                        Ok(Ok(part)) => body::sealed_progress(&part),
                        Ok(Err(error)) => return Err(error.to_string()),
                        Err(error) => return Err(error.to_string()),
                    }
                }
            };
            source.update(&id, &Update { output }).await.map_err(|error| error.to_string())
        };
        self.spawn(ctx, timeout(UPDATE_DEADLINE, post), move |ingress, posted, ctx| {
            // An update that is lost is followed by a newer one, or by the answer.
            if let Ok(Err(reason)) = posted {
                debug!(ingress.deps.log, "job.update_failed"; "requestId" => job.as_str(), "reason" => reason);
            }
            ingress.step(Event::UpdateEnded { job }, ctx);
        });
    }
}
