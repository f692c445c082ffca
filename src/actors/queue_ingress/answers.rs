//! Answers: written, sealed where the request was, and made to fit.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::warn;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::QueueIngress;
use super::work::Outcome;
use crate::domain::bucket::Bucket;
use crate::domain::job::{
    Answer, ComfyFailure, ComfyReport, FailureCode, JobId, JobTimings, Output, PromptId, ReplyAddress, ReplyTo,
    SealedPart, body,
};
use crate::domain::lease::End;
use crate::domain::secret::Secret;
use crate::messages::crypto::Seal;
use crate::messages::handle::Handle;
use crate::ports::bucket::{ObjectStore, UploadError};

/// Bodies above this are written on a thread that may block.
const INLINE_BYTES: usize = 64 << 10;
/// Answers above this are made one at a time: each takes several times its size until it is sealed.
const LARGE_BYTES: usize = 16 << 20;
/// How often a seal is asked for while Crypto is being restarted, and how long between.
const ASKED: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(500);

/// The report of a run that there was none of, or that nobody reported.
pub(super) fn failed_report(failure: ComfyFailure) -> ComfyReport {
    ComfyReport {
        prompt_id: PromptId(Uuid::nil()),
        outputs: Vec::new(),
        history: None,
        failure: Some(failure),
        timings: JobTimings::default(),
    }
}

/// What is needed to make one answer fit.
struct Maker {
    job: JobId,
    limit: usize,
    seal: Handle<Seal>,
    objects: Arc<dyn ObjectStore>,
    bucket: Option<Bucket>,
    link_lasts: Duration,
    /// One permit, held while a large answer is made.
    large: Arc<Semaphore>,
}

impl QueueIngress {
    pub(super) fn conclude(&mut self, job: JobId, end: End, ctx: &mut Context<Self>) {
        let failure = self.failure_of(end);
        let Some(work) = self.works.get_mut(&job) else { return };
        (work.comfy, work.handler, work.input, work.progress) = (None, None, None, None);
        let outcome = match (failure, work.outcome.take()) {
            // The last instance said why it could not have it.
            (Some(_), Some(outcome)) if end == End::Lost => Some(outcome),
            (Some(failure), _) => Some(Outcome::Comfy(Box::new(failed_report(failure)))),
            (None, outcome) => outcome,
        };
        let maker = Maker {
            limit: self.deps.source.answer_limit(&job),
            seal: self.deps.seal.clone(),
            objects: Arc::clone(&self.deps.objects),
            bucket: work.bucket.clone().or_else(|| self.deps.bucket.clone()),
            link_lasts: self.deps.settings.link_lasts,
            large: Arc::clone(&self.large),
            job: job.clone(),
        };
        let reply = work.reply.clone().unwrap_or(ReplyTo::Plain);
        let code = match &outcome {
            Some(Outcome::Comfy(report)) => report.failure.as_ref().map(|failure| failure.code.as_str()),
            Some(Outcome::Handler(Err(_))) => Some("handler"),
            _ => None,
        };
        let make = async move {
            match outcome {
                Some(Outcome::Comfy(report)) => {
                    let prompt = (!report.prompt_id.0.is_nil()).then(|| report.prompt_id.to_string());
                    maker.comfy(prompt, report, reply).await
                }
                Some(Outcome::Handler(Ok(body))) => maker.execution(body, reply).await,
                Some(Outcome::Handler(Err(error))) => Answer::failed(error),
                None => {
                    let dry = ComfyReport { failure: None, ..failed_report(nothing()) };
                    maker.comfy(Some(body::DRY_RUN.to_owned()), Box::new(dry), reply).await
                }
            }
        };
        self.spawn(ctx, make, move |ingress, answer, ctx| {
            if let Some(error) = answer.error.as_ref().filter(|error| error.starts_with("result_too_large")) {
                warn!(ingress.deps.log, "job.too_large"; "requestId" => job.as_str(), "reason" => error);
            }
            ingress.made(job, answer, code, ctx);
        });
    }

    fn failure_of(&self, end: End) -> Option<ComfyFailure> {
        let (code, summary) = match end {
            End::Ran | End::Dry => return None,
            End::NoInstance => {
                let wait = self.deps.settings.leases.instance_wait.as_secs();
                let mut reasons = self.leases.complaints().join("; ");
                if reasons.is_empty() {
                    reasons = "all are busy".to_owned();
                }
                (FailureCode::Unavailable, format!("no instance of ComfyUI was free within {wait} s: {reasons}"))
            }
            End::Lost => (FailureCode::Crashed, "the instance ended under the job, twice".to_owned()),
            End::Stopping => (FailureCode::Interrupted, "the worker is being stopped".to_owned()),
        };
        Some(ComfyFailure { code, summary, detail: serde_json::Value::Null })
    }
}

fn nothing() -> ComfyFailure {
    ComfyFailure { code: FailureCode::Interrupted, summary: String::new(), detail: serde_json::Value::Null }
}

/// The turn of a large answer; a small one needs none.
async fn turn(large: &Semaphore, size: usize) -> Option<SemaphorePermit<'_>> {
    if size <= LARGE_BYTES {
        return None;
    }
    // It is never closed.
    large.acquire().await.ok()
}

/// Writes a body, on a thread that may block when it is large.
async fn written<T: Send + 'static>(bytes: usize, write: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if bytes <= INLINE_BYTES {
        return Some(write());
    }
    tokio::task::spawn_blocking(write).await.ok()
}

fn defect() -> Answer {
    Answer::failed("execution_failed: the answer could not be written")
}

impl Maker {
    async fn comfy(self, prompt: Option<String>, report: Box<ComfyReport>, reply: ReplyTo) -> Answer {
        match reply {
            ReplyTo::Plain => self.plain(prompt, report).await,
            ReplyTo::Sealed(to) => self.sealed(prompt, report, to).await,
        }
    }

    async fn plain(self, prompt: Option<String>, report: Box<ComfyReport>) -> Answer {
        let size = body::size_with_data(&report, false);
        if size > self.limit && !report.outputs.is_empty() {
            return self.plain_by_url(prompt, &report, size).await;
        }
        let _alone = turn(&self.large, size).await;
        let made = written(size, move || body::plain(prompt.as_deref(), &report, None)).await;
        self.fitting(made.unwrap_or_else(defect))
    }

    async fn plain_by_url(self, prompt: Option<String>, report: &ComfyReport, size: usize) -> Answer {
        let Some(bucket) = &self.bucket else { return Answer::failed(body::too_large(size, Some(self.limit), None)) };
        let mut urls = Vec::new();
        for output in &report.outputs {
            match self.put(bucket, &extension(output), output.mime, output.data.clone()).await {
                Ok(url) => urls.push(url),
                Err(error) => return self.not_uploaded(size, &error),
            }
        }
        self.fitting(body::plain(prompt.as_deref(), report, Some(&urls)))
    }

    async fn sealed(self, prompt: Option<String>, report: Box<ComfyReport>, to: ReplyAddress) -> Answer {
        let least = body::least_sealed(&report);
        if self.bucket.is_none() && least > self.limit {
            return Answer::failed(body::too_large(least, Some(self.limit), None));
        }
        let size = body::size_with_data(&report, true);
        let alone = turn(&self.large, size).await;
        let address = to.clone();
        let text = written(size, move || (body::reply_text(&address, &report), without_outputs(*report))).await;
        let Some((plaintext, rest)) = text else { return defect() };
        self.around(to, plaintext, alone, move |part, url| body::sealed(prompt.as_deref(), &rest, part, url)).await
    }

    async fn execution(self, json: String, reply: ReplyTo) -> Answer {
        match reply {
            ReplyTo::Plain => self.fitting(Answer::done(json.into())),
            ReplyTo::Sealed(to) => {
                let plaintext = body::execution_text(&to, &json);
                let alone = turn(&self.large, plaintext.len()).await;
                self.around(to, plaintext, alone, body::sealed_execution).await
            }
        }
    }

    /// Seals a text and puts its body around it; the ciphertext goes to a bucket when it is too large. `alone` is given
    /// back when the body is written, or before the upload, which holds the ciphertext only.
    async fn around(
        &self,
        to: ReplyAddress,
        plaintext: Secret,
        alone: Option<SemaphorePermit<'_>>,
        body_of: impl FnOnce(&SealedPart, Option<&str>) -> Answer + Send + 'static,
    ) -> Answer {
        let part = match ask(&self.seal, to, plaintext).await {
            Ok(part) => part,
            Err(error) => return Answer::failed(format!("execution_failed: {error}")),
        };
        let size = part.ciphertext.len().div_ceil(3).saturating_mul(4);
        if size < self.limit {
            let made = written(size, move || body_of(&part, None)).await;
            return self.fitting(made.unwrap_or_else(defect));
        }
        let Some(bucket) = &self.bucket else { return Answer::failed(body::too_large(size, Some(self.limit), None)) };
        drop(alone);
        let mut part = part;
        let ciphertext = Secret::new(std::mem::take(&mut part.ciphertext));
        match self.put(bucket, "box", "application/octet-stream", ciphertext).await {
            Ok(url) => self.fitting(body_of(&part, Some(&url))),
            Err(error) => self.not_uploaded(size, &error),
        }
    }

    async fn put(&self, bucket: &Bucket, extension: &str, mime: &str, data: Secret) -> Result<String, UploadError> {
        // The name is a random one: what is uploaded is read by whoever knows it.
        let key = format!("{}/{}.{extension}", self.job, Uuid::new_v4().simple());
        self.objects.put(bucket, &key, mime, data, self.link_lasts).await
    }

    fn not_uploaded(&self, size: usize, error: &UploadError) -> Answer {
        Answer::failed(body::too_large(size, Some(self.limit), Some(&error.to_string())))
    }

    /// The last word: what is still too large is not sent.
    fn fitting(&self, answer: Answer) -> Answer {
        let size = answer.size();
        if size <= self.limit { answer } else { Answer::failed(body::too_large(size, Some(self.limit), None)) }
    }
}

/// What the public half of a sealed answer is made from.
fn without_outputs(mut report: ComfyReport) -> ComfyReport {
    for output in &mut report.outputs {
        output.data = Secret::default();
    }
    report.history = None;
    report
}

/// The file's own ending, when it is a plain one.
fn extension(output: &Output) -> String {
    let ending = output.filename.rsplit_once('.').map_or("", |(_, ending)| ending);
    let plain = !ending.is_empty() && ending.len() <= 16 && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain { ending.to_owned() } else { "bin".to_owned() }
}

/// Asks Crypto, also through a restart of it.
async fn ask(seal: &Handle<Seal>, to: ReplyAddress, plaintext: Secret) -> Result<SealedPart, String> {
    let mut last = String::new();
    for _ in 0..ASKED {
        match seal.ask(Seal { to: to.clone(), plaintext: plaintext.clone() }).await {
            Ok(sealed) => return sealed.map_err(|error| error.to_string()),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_answers_are_made_one_at_a_time_and_small_ones_beside_them() {
        let large = Semaphore::new(1);
        let soon = |size| tokio::time::timeout(Duration::from_secs(1), turn(&large, size));
        let first = soon(LARGE_BYTES + 1).await.unwrap();
        assert!(first.is_some());
        assert!(soon(LARGE_BYTES + 1).await.is_err(), "the second waits");
        assert!(soon(LARGE_BYTES).await.unwrap().is_none(), "a small one does not");
        drop(first);
        assert!(soon(LARGE_BYTES + 1).await.unwrap().is_some());
    }
}
