//! One ComfyUI process of this host as a pure machine: when it takes a job, and what is done about one that does not end.
//!
//! ```text
//!          GPU fit        spawned, answers HTTP            asked to run
//!   Held ─────────► Starting ─────────────────► Ready ─────────────────► Busy ─────────────┐
//!    │                 │ failed, too late        │ ▲                      │ cancelled, over a limit, no progress
//!    │                 │                         │ │ swept          ended ▼                │
//!    │                 │                         │ └───── Cleaning ◄── Interrupting ◄──────┘
//!    │                 │        silent, recycled │          │ too late    │ not ended within its grace
//!    │                 ▼                         ▼          │             ▼
//!    └──────────► Stopping ◄───────────────────────────────┴───────── Aborting ◄── Busy, when HTTP is silent
//!                  │   ▲ │ it survives                                    │ (stacks, then TERM and KILL)
//!             gone │   │ ▼                          the process ended under its job
//!                  ▼   Wedged (tried again)                       Collapsed ─► Stopping
//!                 Gone: the actor's life is over
//! ```
//!
//! Invariants, held by the property tests: a job that was taken is answered once, and before the end; no job is taken
//! while another one is unanswered or not swept away, nor while the process stops, is wedged or has no fit GPU; the
//! late end of an earlier run changes nothing; at most one stop is under way; whatever a job does, it is answered
//! within the limits and the graces together.

mod machine;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use machine::Instance;

use crate::domain::job::{FailureCode, JobId, PromptId};

/// An instance's stable name: `comfy-0`, `comfy-1`, …
pub type InstanceName = crate::domain::restart::ChildName;

/// What one instance is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    pub name: InstanceName,
    /// The value of `CUDA_VISIBLE_DEVICES`: a GPU's UUID or index. None: the process sees what the daemon sees.
    pub device: Option<String>,
    pub port: u16,
}

/// How an instance stands, as those who give it work know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It loads, or waits to be started again.
    Down {
        reason: String,
    },
    /// A start failed: it ended, or did not answer in time, before it was ever ready. `in_a_row` counts them. Told
    /// also while the next start is under way, until one succeeds.
    FailedStart {
        in_a_row: u32,
        reason: String,
    },
    /// It waits for a job. `models` are those of the last jobs that it ran, the newest first.
    Ready {
        models: Vec<String>,
    },
    Busy,
}

/// Why an instance does not run a job. The job is as it was, and may go to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunRefused {
    #[error("the instance runs another job")]
    Busy,
    #[error("the instance is not ready")]
    NotReady,
}

/// The limits and the manners of one instance.
#[derive(Debug, Clone, Copy)]
pub struct InstancePolicy {
    /// From the spawn until it answers. The engine holds it; the machine waits a little longer.
    pub start_deadline: Duration,
    /// The longest run of a job.
    pub job_deadline: Duration,
    /// The longest time of a job without any sign of it.
    pub no_progress: Duration,
    /// For an interrupt to take effect.
    pub interrupt_grace: Duration,
    /// For SIGABRT to print the stacks and end the process.
    pub abort_grace: Duration,
    /// Between TERM and KILL.
    pub stop_grace: Duration,
    pub probe_every: Duration,
    /// So many probes in a row without an answer, and the process hangs.
    pub probe_misses: u32,
    /// After so many jobs the process is replaced; none: never.
    pub recycle_after_jobs: Option<u64>,
    /// Above so many bytes after a job the process is replaced; none: never.
    pub recycle_above: Option<u64>,
    /// How often a process that survived its end is tried again.
    pub wedged_retry: Duration,
}

impl Default for InstancePolicy {
    fn default() -> Self {
        Self {
            start_deadline: Duration::from_secs(600),
            job_deadline: Duration::from_secs(3600),
            no_progress: Duration::from_secs(600),
            interrupt_grace: Duration::from_secs(10),
            abort_grace: Duration::from_secs(3),
            stop_grace: Duration::from_secs(10),
            probe_every: Duration::from_secs(10),
            probe_misses: 3,
            recycle_after_jobs: None,
            recycle_above: None,
            wedged_retry: Duration::from_secs(30),
        }
    }
}

/// What an instance's lives hand on to each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartRecord {
    /// Starts that failed since the last one that did not.
    pub failed_in_a_row: u32,
    /// Lives that a job ended, since the last job that left its process alive.
    pub felled_in_a_row: u32,
    /// Why the last life, or the last start, ended.
    pub last_failure: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The instance's GPU: why it must not be used, and how many of its errors a restart of the process cures.
    GpuLooked {
        unfit: Option<String>,
        faults: u64,
    },
    /// It is this instance's turn to start.
    Spawning,
    /// It answers.
    Ready,
    StartFailed {
        reason: String,
    },
    RunAsked {
        prompt: PromptId,
        job: JobId,
        models: Vec<String>,
        /// The caller's own limit.
        deadline: Option<Duration>,
    },
    /// ComfyUI took the prompt.
    Accepted {
        prompt: PromptId,
    },
    /// Progress, or any other sign of life of the prompt.
    Sign {
        prompt: PromptId,
    },
    RunEnded {
        prompt: PromptId,
        failure: Option<FailureCode>,
    },
    InterruptAsked {
        job: JobId,
    },
    ProbeAnswered,
    ProbeSilent,
    /// The job's files and history are gone. `memory` is what the process has, in bytes.
    Cleaned {
        prompt: PromptId,
        memory: Option<u64>,
    },
    CleanFailed {
        prompt: PromptId,
        reason: String,
    },
    ProcessEnded {
        end: String,
        out_of_memory: bool,
    },
    Stopped,
    StopFailed {
        reason: String,
    },
    /// Time has passed.
    Tick,
    /// Finish what runs, or cancel it when `hurry`; then end.
    Drain {
        hurry: bool,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Wait for the turn, spawn the process and wait until it answers.
    Spawn,
    Run {
        prompt: PromptId,
    },
    Refuse(RunRefused),
    Interrupt {
        prompt: PromptId,
    },
    Abort,
    /// End whatever there is of the process, and verify that it is gone.
    Stop {
        grace: Duration,
    },
    Probe,
    Clean {
        prompt: PromptId,
    },
    /// The job's end. With `failure`, that is what its report says, whatever else there is of it.
    Answer {
        prompt: PromptId,
        failure: Option<Verdict>,
    },
    Tell(Standing),
    /// The life is over.
    Leave(Leaving),
}

/// Why a job failed, when the machine and not ComfyUI decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub code: FailureCode,
    pub summary: String,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// As it was asked to.
    Requested,
    /// To make way for a fresh process: it is worn, or a job took it with it.
    Recycled,
    /// Its process ended or hung without a job, or never came up.
    Crashed,
}
