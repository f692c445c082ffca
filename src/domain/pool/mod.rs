//! The pool's decisions: who waits, who starts, who is refused, and when an environment may go.
//!
//! ```text
//!  CallCame ─► Arriving ──found──► Queued ──fair turn──► InSlot ──► Answer
//!                 │ absent            │ ▲ too long, cancelled  (the slot's own life: domain::sandbox)
//!                 ▼                   ▼ └─ its sandbox was spoiled before it ran
//!               Answer              Answer
//! ```
//!
//! A call in its turn takes a sandbox that stands ready for its environment, else one that stands for its runtime, else
//! one is booted for it. Waiting calls are served in turns by tenant and by environment, so that a burst of one does not
//! starve the others; an environment that allows only so many calls at once is passed over while it has them. Set-ups
//! are served in turns by tenant, and take turns with calls. Who fills the queue gives way to whoever has less of it.
//! What shall stand ready (`standing`) is made when no call waits that could start. Where an environment's calls share a
//! sandbox, it stands for the next of them when one has ended well (`reuse`). A slot counts against
//! `max_executions` from its claim or its boot for a call until nothing of it is left, or until it stands again.
//!
//! Invariants, held by the property tests: every call that came is answered exactly once; never more slots of calls than
//! `max_executions`, never more boots at once than `boots_at_once`, and always one for the calls; never more slots of an
//! environment's calls than its own limit; a slot is claimed once, unless its environment's calls share it,
//! and only by a call that it fits; what stands stays within its memory, and is of the image that serves; no call of an environment begins once its
//! deletion has; an environment is removed only when no slot of it is left but wedged ones; a drain ends.

mod compilers;
mod demand;
mod grants;
mod machine;
mod reuse;
mod shares;
#[cfg(test)]
mod simulation;
mod standing;
mod turns;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::environment::Runtime;
use crate::domain::execution::Start;
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::image::Digest;
use crate::domain::tenant::TenantName;

pub use machine::{Pool, set_up_slot};
pub use standing::{StandingPolicy, StandsFor, Wants};

/// The pool's bounds.
#[derive(Debug, Clone)]
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
    pub standing: StandingPolicy,
}

impl PoolPolicy {
    /// How many set-ups may have a sandbox at once: half of the boots, and one at the least.
    pub fn transpiles_at_once(&self) -> usize {
        (self.boots_at_once / 2).max(1)
    }
}

/// What sandbox a set-up needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// Deno's compiler, and nothing of its modules' dependencies: one that stands will do.
    Compiler,
    /// One of its own, for its dependencies or beside them.
    Boot,
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
    /// What the call needs; None: its environment does not exist, is not its caller's, or is not ready.
    LookedUp {
        execution: ExecutionId,
        wants: Option<Wants>,
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
    /// A sandbox that shall stand has booted, and imports its module now: from here on it takes the time of a call, and no boot's
    /// place.
    Imports {
        slot: SlotId,
    },
    /// A sandbox stands ready.
    Stood {
        slot: SlotId,
    },
    /// What stands was laid to rest, and is charged this much.
    Rests {
        slot: SlotId,
        memory_mb: u64,
    },
    StandFailed {
        slot: SlotId,
    },
    /// What stood ready has ended by itself.
    Lost {
        slot: SlotId,
    },
    /// What stood ready, or was booted for the call, was of no use when it was to run; nothing of the call has reached it.
    Spoiled {
        slot: SlotId,
    },
    Settled {
        slot: SlotId,
    },
    /// Its call ended well, and it waits for another, as its [`Effect::Run`] allowed. It holds so much beside the idle runtime.
    Released {
        slot: SlotId,
        memory_mb: u64,
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
    SetUpCame {
        environment: EnvironmentId,
        tenant: TenantName,
        needs: Needs,
    },
    SetUpEnded {
        environment: EnvironmentId,
    },
    /// What stands for it has modules of an older revision.
    ModulesChanged {
        environment: EnvironmentId,
    },
    /// New sandboxes of the runtime are made of this image: what was begun before may have another. Told again and again.
    ImageServes {
        runtime: Runtime,
        image: Digest,
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
    /// Make a sandbox that stands ready.
    Stand {
        slot: SlotId,
        stands_for: StandsFor,
    },
    /// `keep`: it may be released instead of settled.
    Run {
        slot: SlotId,
        execution: ExecutionId,
        start: Start,
        keep: bool,
    },
    /// A slot that was released stands, and nobody claimed it at once.
    Await {
        slot: SlotId,
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
    /// `compiler`: the slot of one that stood, its own until it has ended.
    BeginSetUp {
        environment: EnvironmentId,
        compiler: Option<SlotId>,
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
#[serde(rename_all = "camelCase", default)]
pub struct PoolPicture {
    pub running: usize,
    pub queued: usize,
    /// For calls and set-ups.
    pub booting: usize,
    /// Ready, and waiting for a call.
    pub standing: usize,
    /// Being made to stand ready.
    pub warming: usize,
    pub destroying: usize,
    pub wedged: usize,
    pub set_ups: usize,
    pub set_ups_queued: usize,
    /// Calls answered since the pool started.
    pub executions_total: u64,
}

#[cfg(test)]
mod tests;
