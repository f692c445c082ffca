//! A source of jobs: a platform that is polled, or this host's own queue.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::job::{Answer, Job, JobId};
use crate::domain::secret::Secret;

/// What was taken in one poll.
#[derive(Debug, Default)]
pub struct Taken {
    /// May be more than were asked for, and may hold an id twice.
    pub jobs: Vec<Job>,
    /// Entries that were no jobs (no usable id or input); they have been logged.
    pub malformed: usize,
    /// Why there are no jobs. None beside jobs, and when the poll was ended by [`JobSource::stop_taking`].
    pub empty: Option<Empty>,
}

/// Why a poll brought nothing. None of these is a fault; an empty answer that came at once must still not be asked for
/// again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// There are no jobs.
    Idle,
    /// The platform parks this worker (RunPod's 400 under FlashBoot).
    Parked,
    /// The answer could not be read as jobs.
    Unreadable,
}

/// Why a call to the source did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It asks for a pause (429), of at least so long.
    #[error("asked to slow down")]
    Throttled { retry_after: Option<Duration> },
    /// Worth trying again: connection refused or reset, no answer, a 5xx.
    #[error("{0}")]
    Unreachable(String),
    /// It will not change by itself soon: 401, 403, 404 and other statuses of their kind.
    #[error("refused with status {0}")]
    Refused(u16),
    /// The answer is too large for it (400 or 413 on a result).
    #[error("the body was refused with status {0}")]
    Rejected(u16),
}

/// A progress update, ready to be posted.
#[derive(Debug, Clone)]
pub struct Update {
    /// JSON text of `output`.
    pub output: Secret,
}

/// Where jobs come from and go back to. Every method may be called while others are under way. Dropping a future
/// abandons the call; a job that it would have brought is then the source's again, unless `take` says otherwise.
#[async_trait]
pub trait JobSource: Send + Sync {
    /// `runpod` or `local`.
    fn name(&self) -> &'static str;

    /// The largest answer that the source takes for this job, in bytes.
    fn answer_limit(&self, job: &JobId) -> usize;

    /// One poll for up to `slots` jobs; held by the source while it has none. `busy`: jobs are held already.
    /// Cancelling: the poll stays open, and a job handed out in that very instant comes back from the next call of
    /// `take`, which goes on with that poll and its `slots`, or from [`JobSource::stop_taking`]. One of them must follow.
    async fn take(&self, slots: usize, busy: bool) -> Result<Taken, SourceError>;

    /// Ends the poll that is open, at once; a `take` under way returns nothing. Returns what was handed out in that
    /// instant. A later `take` opens a new poll.
    async fn stop_taking(&self) -> Taken;

    /// Posts the final answer. `stop_pod`: ask the platform to recycle this worker.
    async fn settle(&self, job: &JobId, answer: &Answer, stop_pod: bool) -> Result<(), SourceError>;

    /// Posts a progress update. The caller orders updates strictly before the answer.
    async fn update(&self, job: &JobId, update: &Update) -> Result<(), SourceError>;

    /// Says which jobs are held. Called every [`JobSource::heartbeat_every`].
    async fn heartbeat(&self, held: &[JobId]) -> Result<(), SourceError>;

    /// How often; none: the source wants no heartbeats.
    fn heartbeat_every(&self) -> Option<Duration>;

    /// Waits for jobs that are to be stopped; ids that are not held may be among them. It returns never where the
    /// source stops none, and paces itself; after an error the caller does.
    async fn stops(&self) -> Result<Vec<JobId>, SourceError>;

    /// Tells the platform that this worker is unwell, before it ends. Bounded by two seconds.
    async fn report_unhealthy(&self, check: &str, reason: &str);
}
