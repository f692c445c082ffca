//! RunPod's serverless platform as a source of jobs, spoken to as its own SDK does.
//!
//! ```text
//!   take        GET  job-take, job-take-batch   long poll, 90 s      polls: the open one, whoever waits for it
//!   stops       GET  job-stop                   long poll, 90 s      paced when the platform does not hold it
//!   settle      POST job-done                   {"output":…}         body: in pieces, nothing copied
//!   update      POST job-done                   {"status":"IN_PROGRESS",…}
//!   heartbeat   GET  ping?job_id=a%2Cb
//! ```
//!
//! A call is made once; the ingress decides what is tried again. Nothing of a job is logged or in an error. The API was
//! observed on the SDK 1.12.0; `tests::replay` compares every request with the recorded ones, and names the differences.

mod body;
mod calls;
mod jobs;
mod polls;
mod urls;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, StatusCode, Url};
use secrecy::SecretString;
use slog::Logger;
use uuid::Uuid;

use crate::domain::job::{Answer, JobId};
use crate::ports::job_source::{Empty, JobSource, SourceError, Taken, Update};

use body::Pieces;
use calls::Calls;
use polls::{Arriving, Poll, Polls};
use urls::Urls;
pub use urls::{BadUrl, Templates};

/// The largest answer to a take: a batch of the largest jobs that the platform accepts.
const LARGEST_TAKE: usize = 32 << 20;
/// The largest list of jobs to stop.
const LARGEST_STOP: usize = 64 << 10;
/// Bodies above this are read as JSON on a thread that may be blocked.
const READ_ASIDE: usize = 256 << 10;
/// From one poll for stops to the next, when the platform answers at once.
const STOPS_EVERY: Duration = Duration::from_secs(1);
/// For a report of ill health.
const REPORT_WITHIN: Duration = Duration::from_secs(2);

/// What a worker is told by its platform, and what it may send.
pub struct Settings {
    pub templates: Templates,
    /// The worker's name; none: one is made up, and there are no heartbeats.
    pub pod_id: Option<String>,
    /// Sent as it is; none: no heartbeats.
    pub api_key: Option<SecretString>,
    pub ping_every: Duration,
    /// How long a poll may stay open.
    pub poll: Duration,
    /// How long an answer that may be on its way is waited for when polling ends.
    pub grace: Duration,
    /// The largest body of an answer to a queued job, and to one whose caller waits, in bytes.
    pub result_bytes: usize,
    pub sync_result_bytes: usize,
}

/// The platform, for one worker.
pub struct RunPod {
    calls: Calls,
    urls: Urls,
    polls: Polls,
    /// Whether the platform wants to hear from this worker.
    pings: bool,
    settings: Settings,
    log: Logger,
}

impl RunPod {
    /// `http` must not follow redirects by itself.
    ///
    /// # Errors
    /// When an address of the platform's is not one.
    pub fn new(settings: Settings, http: Client, log: Logger) -> Result<Self, BadUrl> {
        let worker = settings.pod_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let urls = Urls::new(&settings.templates, &worker)?;
        Ok(Self {
            calls: Calls::new(http, settings.api_key.as_ref()),
            pings: settings.pod_id.is_some() && settings.api_key.is_some() && settings.templates.ping.is_some(),
            polls: Polls::new(settings.grace),
            urls,
            settings,
            log,
        })
    }

    fn begin(&self, url: Url) -> Poll {
        let (calls, limit, log) = (self.calls.clone(), self.settings.poll, self.log.clone());
        let arriving = Arriving::default();
        let answer = take(calls, url, limit, log, Arc::clone(&arriving));
        Poll { answer: Box::pin(answer), arriving }
    }

    /// One poll for jobs to stop; empty when there are none.
    async fn stops_once(&self, url: Url) -> Result<Vec<JobId>, SourceError> {
        let Some(response) = self.calls.poll(url, self.settings.poll).await? else { return Ok(Vec::new()) };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Ok(Vec::new()),
            _ => return calls::refusal(&response).map(|()| Vec::new()),
        }
        Ok(jobs::stops(&calls::read(response, LARGEST_STOP).await?, &self.log))
    }
}

#[async_trait]
impl JobSource for RunPod {
    fn name(&self) -> &'static str {
        "runpod"
    }

    fn answer_limit(&self, job: &JobId) -> usize {
        if job.as_str().starts_with("sync-") { self.settings.sync_result_bytes } else { self.settings.result_bytes }
    }

    async fn take(&self, slots: usize, busy: bool) -> Result<Taken, SourceError> {
        let url = self.urls.take(slots, busy).map_err(|bad| SourceError::Unreachable(bad.to_string()))?;
        self.polls.take(|| self.begin(url)).await
    }

    async fn stop_taking(&self) -> Taken {
        self.polls.stop().await
    }

    async fn settle(&self, job: &JobId, answer: &Answer, stop_pod: bool) -> Result<(), SourceError> {
        let url = self.urls.done(job).map_err(|bad| SourceError::Unreachable(bad.to_string()))?;
        self.calls.post(url, job, Pieces::of_answer(answer, stop_pod)).await
    }

    async fn update(&self, job: &JobId, update: &Update) -> Result<(), SourceError> {
        let url = self.urls.done(job).map_err(|bad| SourceError::Unreachable(bad.to_string()))?;
        self.calls.post(url, job, Pieces::of_update(&update.output)).await
    }

    async fn heartbeat(&self, held: &[JobId]) -> Result<(), SourceError> {
        match self.urls.heartbeat(held).filter(|_| self.pings) {
            Some(url) => self.calls.tell(url, self.settings.ping_every * 2).await,
            None => Ok(()),
        }
    }

    fn heartbeat_every(&self) -> Option<Duration> {
        self.pings.then_some(self.settings.ping_every)
    }

    async fn stops(&self) -> Result<Vec<JobId>, SourceError> {
        let Some(url) = self.urls.stop() else { return std::future::pending().await };
        loop {
            let pace = tokio::time::sleep(STOPS_EVERY);
            let stops = self.stops_once(url.clone()).await?;
            if !stops.is_empty() {
                return Ok(stops);
            }
            pace.await;
        }
    }

    async fn report_unhealthy(&self, check: &str, reason: &str) {
        let Some(url) = self.urls.unhealthy(check, reason).filter(|_| self.pings) else { return };
        if let Err(error) = self.calls.tell(url, REPORT_WITHIN).await {
            slog::warn!(self.log, "source.report_failed"; "error" => %error);
        }
    }
}

/// One poll for jobs, from its request to the jobs in its answer.
async fn take(calls: Calls, url: Url, limit: Duration, log: Logger, arriving: Arriving) -> Result<Taken, SourceError> {
    let Some(response) = calls.poll(url, limit).await? else { return Ok(jobs::none(Empty::Idle)) };
    arriving.store(true, Ordering::Release);
    match response.status() {
        StatusCode::NO_CONTENT => return Ok(jobs::none(Empty::Idle)),
        StatusCode::BAD_REQUEST => return Ok(jobs::none(Empty::Parked)),
        StatusCode::OK if calls::is_json(&response) => {}
        status if status.is_success() => return Ok(jobs::none(Empty::Unreadable)),
        _ => return calls::refusal(&response).map(|()| Taken::default()),
    }
    let body = calls::read(response, LARGEST_TAKE).await?;
    if body.len() <= READ_ASIDE {
        return Ok(jobs::read(&body, &log));
    }
    let aside = tokio::task::spawn_blocking(move || jobs::read(&body, &log));
    aside.await.map_err(|_stopped| SourceError::Unreachable("the answer's reading was cut off".to_owned()))
}

#[cfg(test)]
mod tests;
