//! From a taken job to one that can run: opened by Crypto, its images fetched.

use std::sync::Arc;

use actix::prelude::*;
use slog::warn;

use super::QueueIngress;
use super::work::Outcome;
use crate::domain::job::{
    Answer, ComfyFailure, ComfyJob, FailureCode, ImageSource, JobId, OpenError, ReplyTo, Request,
};
use crate::domain::lease::{Event, Need};
use crate::messages::crypto::Open;
use crate::messages::handle::{Handle, HandleError};
use crate::ports::fetch::Fetcher;

/// How often Crypto is asked while it is being restarted, and how long between.
const ASKED: u32 = 20;
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(500);

enum Opened {
    Comfy(Box<ComfyJob>, Result<(), ComfyFailure>),
    Handler(Box<crate::domain::job::ExecuteInput>),
    Refused(OpenError),
    /// Crypto was not there.
    Nobody(HandleError),
}

impl QueueIngress {
    pub(super) fn open(&mut self, job: JobId, ctx: &mut Context<Self>) {
        let Some(input) = self.works.get_mut(&job).and_then(|work| work.input.take()) else { return };
        let (open, fetcher) = (self.deps.open.clone(), Arc::clone(&self.deps.fetcher));
        let message = Open { job: job.clone(), input };
        let dry = self.deps.settings.dry_run;
        let work = async move {
            match ask(&open, message).await {
                Ok(Ok(Request::Comfy(mut comfy))) => {
                    let fetched = if dry { Ok(()) } else { fetch_images(&mut comfy, &*fetcher).await };
                    Opened::Comfy(comfy, fetched)
                }
                Ok(Ok(Request::Execute(input))) => Opened::Handler(input),
                Ok(Err(refusal)) => Opened::Refused(refusal),
                Err(error) => Opened::Nobody(error),
            }
        };
        self.spawn(ctx, work, move |ingress, opened, ctx| ingress.opened(job, opened, ctx));
    }

    fn opened(&mut self, job: JobId, opened: Opened, ctx: &mut Context<Self>) {
        let (dry, no_history) = (self.deps.settings.dry_run, self.deps.settings.no_history);
        let Some(work) = self.works.get_mut(&job) else { return };
        let need = match opened {
            Opened::Comfy(mut comfy, fetched) => {
                comfy.wants.history &= !no_history;
                work.reply = Some(comfy.reply.clone());
                work.silent = comfy.wants.silent;
                match fetched {
                    Err(failure) => {
                        // It ends like a run that failed, so that a sealed request's details stay sealed.
                        work.outcome = Some(Outcome::Comfy(Box::new(super::answers::failed_report(failure))));
                        Need::Nothing
                    }
                    Ok(()) if dry => Need::Nothing,
                    Ok(()) => {
                        let models = comfy.models.clone();
                        work.comfy = Some(comfy);
                        Need::Instance { models }
                    }
                }
            }
            Opened::Handler(input) => {
                work.reply = Some(input.reply.clone());
                work.handler = Some(input);
                if dry { Need::Nothing } else { Need::Handler }
            }
            Opened::Refused(refusal) => return self.refuse(job, refusal.to_string(), "refused", ctx),
            Opened::Nobody(error) => return self.refuse(job, format!("execution_failed: {error}"), "no_crypto", ctx),
        };
        self.step(Event::Opened { job, need }, ctx);
    }

    fn refuse(&mut self, job: JobId, error: String, code: &'static str, ctx: &mut Context<Self>) {
        warn!(self.deps.log, "job.refused"; "requestId" => job.as_str(), "reason" => &error);
        self.made(job, Answer::failed(error), Some(code), ctx);
    }

    /// An answer is made.
    pub(super) fn made(&mut self, job: JobId, answer: Answer, code: Option<&'static str>, ctx: &mut Context<Self>) {
        let bytes = answer.size();
        if let Some(work) = self.works.get_mut(&job) {
            work.answer = Some(answer);
            work.code = code;
        }
        self.step(Event::Answered { job, bytes }, ctx);
    }
}

/// Asks Crypto, also through a restart of it: a job that was taken is not refused for that.
async fn ask(open: &Handle<Open>, message: Open) -> Result<Result<Request, OpenError>, HandleError> {
    let mut last = HandleError::Absent;
    for _ in 0..ASKED {
        let again = Open { job: message.job.clone(), input: message.input.clone() };
        match open.ask(again).await {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(last)
}

async fn fetch_images(comfy: &mut ComfyJob, fetcher: &dyn Fetcher) -> Result<(), ComfyFailure> {
    for image in &mut comfy.images {
        let ImageSource::Url(url) = &image.source else { continue };
        let fetched = fetcher.fetch(url.text().unwrap_or_default()).await;
        match fetched {
            Ok(bytes) => image.source = ImageSource::Bytes(bytes),
            Err(error) => {
                let detail = serde_json::json!({ "image": image.name, "error": error.to_string() });
                return Err(ComfyFailure { code: FailureCode::Input, summary: summary(comfy, &error), detail });
            }
        }
    }
    Ok(())
}

/// A host's name out of a sealed request stays sealed.
fn summary(comfy: &ComfyJob, error: &crate::ports::fetch::FetchError) -> String {
    match comfy.reply {
        ReplyTo::Plain => error.to_string(),
        ReplyTo::Sealed(_) => "an input image could not be fetched".to_owned(),
    }
}
