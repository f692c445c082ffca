//! The jobs that one ingress holds, from the moment each is taken until its answer is off.
//!
//! ```text
//!   Came ─► Opening ─┬─ Instance ─► Waiting ──given──► Running ──────────┐ ended
//!                    │                 ▲  └ too long ┐    │ refused       │
//!                    │                 └─────────────┼────┘               ▼
//!                    ├─ Handler ─► Running ──────────┼──────────────► Concluding ──► Answered ─► Posting ─► gone
//!                    ├─ Nothing ─────────────────────┘                    ▲  (an update     ▲ │
//!                    └─ Answered (refused) ───────────────────────────────┘   is awaited)   │ ▼
//!   Stopped: as soon as what is under way has ended, gone without a post                   Retrying
//! ```
//!
//! Invariants, held by the property tests: every job that was taken is settled exactly once, or was stopped, or is
//! given up loudly; nothing is posted for a stopped job; no update after the answer has gone out, and one at a time; an
//! id that is held runs once; a job is held until its answer is off; the bounds hold; a drain ends.

mod machine;
mod posting;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::admission::Backoff;
use super::instance::{InstanceName, Standing};
use super::job::JobId;
use super::placement::{InstanceCounts, NotRun};

pub use machine::Leases;

/// The bounds of one ingress.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeasePolicy {
    /// How long a job may wait for an instance.
    pub instance_wait: Duration,
    /// The least time between two updates of one job.
    pub progress_every: Duration,
    /// Over so many bytes of answers that are not off yet nothing is taken.
    pub spool_bytes: usize,
    /// Handlers that run at once; without instances, all jobs in hand.
    pub sandbox_slots: usize,
    /// Jobs run without an instance (`DRY_RUN`), or there is none.
    pub without_instances: bool,
    /// So many failed starts in a row on every instance, and the host is given up. None: never.
    pub max_failed_starts: Option<u32>,
    /// Between two tries to post an answer.
    pub retry: Backoff,
}

impl Default for LeasePolicy {
    fn default() -> Self {
        Self {
            instance_wait: Duration::from_secs(900),
            progress_every: Duration::from_millis(500),
            spool_bytes: 256 << 20,
            sandbox_slots: 8,
            without_instances: false,
            max_failed_starts: None,
            retry: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30), jitter: 0.25 },
        }
    }
}

/// What an opened job needs to run.
#[derive(Clone, PartialEq, Eq)]
pub enum Need {
    /// An instance; these models are loaded by it.
    Instance {
        models: Vec<String>,
    },
    /// A sandbox of the pool.
    Handler,
    Nothing,
}

/// Why an answer is not off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostFault {
    /// Worth another try, not sooner than this.
    Later { after: Option<Duration> },
    /// The body itself is refused.
    Rejected,
    /// It will not be taken, however often it is sent.
    Never,
}

/// How a run was refused or lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunFault {
    NotRun(NotRun),
    /// The instance's actor ended before it answered, or its ComfyUI never took the job.
    Lost,
}

/// What happened.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// A job was taken from the source.
    Came {
        job: JobId,
    },
    /// It is open, and its images are there.
    Opened {
        job: JobId,
        need: Need,
    },
    /// The run on the instance, or of the handler, has ended; the shell has its report.
    RunEnded {
        job: JobId,
    },
    RunFailed {
        job: JobId,
        fault: RunFault,
    },
    /// Its answer is made, of so many bytes.
    Answered {
        job: JobId,
        bytes: usize,
    },
    Posted {
        job: JobId,
    },
    PostFailed {
        job: JobId,
        fault: PostFault,
    },
    /// The shell has a newer progress of it.
    Progressed {
        job: JobId,
    },
    /// The update is off, or given up.
    UpdateEnded {
        job: JobId,
    },
    /// The source wants no more of it.
    Stopped {
        job: JobId,
    },
    Stood {
        instance: InstanceName,
        standing: Standing,
    },
    /// Time has passed.
    Tick,
    /// Finish what is held, then end. A hurried one cancels what runs.
    Drain {
        hurry: bool,
    },
    /// From now on no poll can bring a job.
    TakingEnded,
}

/// What a job ended with, where there is no report of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There is a report.
    Ran,
    /// It ran nowhere, as it should.
    Dry,
    /// No instance could be had in time.
    NoInstance,
    /// The instance was lost under it, or did not take it, twice.
    Lost,
    /// The daemon stops.
    Stopping,
}

/// Why a job is held no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The source has its answer.
    Settled,
    /// The source wanted none.
    Stopped,
    /// The source does not take the answer.
    GivenUp,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Open it and fetch its images: ends in `Opened` or `Answered`.
    Open { job: JobId },
    /// Ends in `RunEnded` or `RunFailed`.
    Run { job: JobId, on: InstanceName },
    /// Call its handler: ends in `RunEnded`.
    Execute { job: JobId },
    /// End its run, wherever it is; its event comes all the same.
    Interrupt { job: JobId, on: Option<InstanceName> },
    /// Make its answer: ends in `Answered`.
    Conclude { job: JobId, end: End },
    /// Ends in `Posted` or `PostFailed`.
    Post { job: JobId },
    /// The source refused the body: put a small plain error in its place.
    Replace { job: JobId },
    /// Post its newest progress: ends in `UpdateEnded`.
    Update { job: JobId },
    /// The id is held already.
    Duplicate { job: JobId },
    /// The post failed and is tried again after this.
    Retrying { job: JobId, wait: Duration },
    /// Forget all of it.
    Forget { job: JobId, fate: Fate },
    /// Come back with a `Tick`.
    WakeIn(Duration),
    /// No instance starts: end the daemon.
    Abandon { reason: String },
    /// Ask the source for no more: ends in `TakingEnded`.
    StopTaking,
    /// Nothing is held any more.
    Drained,
}

/// How many jobs are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    pub opening: usize,
    pub waiting: usize,
    pub running: usize,
    /// Answers that are being made, or are not off yet.
    pub unsent: usize,
    /// Bytes of the answers that are made.
    pub unsent_bytes: usize,
    pub instances: InstanceCounts,
}
