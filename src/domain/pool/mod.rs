//! The pool's decisions: who waits, who starts, who is refused, and when an environment may go.
//!
//! ```text
//!  CallCame ─► Arriving ──found──► Queued ──fair turn──► InSlot ──► Answer
//!                 │ absent            │ too long, cancelled   (the slot's own life: domain::sandbox)
//!                 ▼                   ▼
//!               Answer              Answer
//! ```
//!
//! Waiting calls are served in turns by tenant and by environment, so that a burst of one does not starve the
//! others; an environment that allows only so many calls at once is passed over while it has them. Set-ups are
//! served in turns by tenant, and take turns with calls. Who fills the queue gives way to whoever has less of it. A slot counts against `max_executions` from its boot until nothing of it is left.
//!
//! Invariants, held by the property tests: every call that came is answered exactly once; never more slots than
//! `max_executions`, never more boots at once than `boots_at_once`, and always one for the calls;
//! never more slots of an environment than its own limit; no call of an environment begins once its
//! deletion has; an environment is removed only when no slot of it is left but wedged ones; a drain ends.

mod machine;
mod shares;
mod turns;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::tenant::TenantName;

pub use machine::{Pool, set_up_slot};

/// The pool's bounds.
#[derive(Debug, Clone, Copy)]
pub struct PoolPolicy {
    /// Sandboxes for calls at once, those being destroyed and wedged ones included.
    pub max_executions: usize,
    /// Calls that may wait beyond those that run.
    pub queue: usize,
    /// How long a call may wait before it is refused.
    pub queue_wait: Duration,
    /// Set-ups at once; as many again may wait ten times over.
    pub set_ups: usize,
    /// Sandboxes that may boot at once: more than there are cores only slow each other down.
    pub boots_at_once: usize,
}

impl PoolPolicy {
    /// How many set-ups may have a sandbox at once: half of the boots, and one at the least.
    pub fn transpiles_at_once(&self) -> usize {
        (self.boots_at_once / 2).max(1)
    }
}

/// Why work is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the daemon is shutting down")]
    Draining,
    #[error("the queue is full; try again in {} s", retry_after.as_secs().max(1))]
    QueueFull { retry_after: Duration },
    #[error("no sandbox came free in time; try again in {} s", retry_after.as_secs().max(1))]
    WaitedTooLong { retry_after: Duration },
}

/// What the turns need to know of a call's environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// The most calls of it at once; none: as many as there are places.
    pub concurrency: Option<usize>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What an earlier life left behind has been dealt with: boots may begin.
    Swept,
    CallCame {
        execution: ExecutionId,
        environment: EnvironmentId,
        tenant: TenantName,
    },
    /// The call's environment exists, is its caller's and is ready, or not.
    LookedUp {
        execution: ExecutionId,
        found: Option<Found>,
    },
    /// The caller is gone.
    CallCancelled {
        execution: ExecutionId,
    },
    Booted {
        slot: SlotId,
    },
    BootFailed {
        slot: SlotId,
    },
    Settled {
        slot: SlotId,
    },
    Destroyed {
        slot: SlotId,
    },
    DestroyFailed {
        slot: SlotId,
    },
    RetryDue {
        slot: SlotId,
    },
    /// `transpiles`: it will boot a sandbox of its own.
    SetUpCame {
        environment: EnvironmentId,
        tenant: TenantName,
        transpiles: bool,
    },
    SetUpEnded {
        environment: EnvironmentId,
    },
    DeleteCame {
        environment: EnvironmentId,
    },
    DeleteEnded {
        environment: EnvironmentId,
    },
    Tick,
    Drain {
        hurry: bool,
    },
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its environment does not exist, or is being deleted.
    Absent,
    Refused(Refusal),
    /// No sandbox could be booted for it, twice.
    BootFailed,
    /// It ran; the evidence is with the shell.
    Settled,
    Cancelled,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    LookUp {
        execution: ExecutionId,
        environment: EnvironmentId,
    },
    Boot {
        slot: SlotId,
        execution: ExecutionId,
    },
    Run {
        slot: SlotId,
        execution: ExecutionId,
    },
    Destroy {
        slot: SlotId,
    },
    RetryDestroy {
        slot: SlotId,
        after: Duration,
    },
    Answer {
        execution: ExecutionId,
        answer: Answer,
    },
    BeginSetUp {
        environment: EnvironmentId,
    },
    RefuseSetUp {
        environment: EnvironmentId,
        refusal: Refusal,
    },
    /// No slot of it is left: remove its volume and its record.
    RemoveEnvironment {
        environment: EnvironmentId,
    },
    /// Send a `Tick` after this time.
    WakeIn(Duration),
    Drained,
}

/// How full the pool is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolPicture {
    pub running: usize,
    pub queued: usize,
    pub booting: usize,
    pub destroying: usize,
    pub wedged: usize,
    pub set_ups: usize,
    pub set_ups_queued: usize,
    /// Calls answered since the pool started.
    pub executions_total: u64,
}

#[cfg(test)]
mod tests;
