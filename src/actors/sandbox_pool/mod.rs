//! The SandboxPool: environments are set up, called and deleted here.
//!
//! ```text
//!   SetUp, Execute, CancelExecution, DeleteEnvironment, ExpireEnvironment ──► domain::pool::Pool
//!        ▲                                                                        │ effects
//!        └── answers ◄── engine, volumes, store (each a future that ends in one event) ◄┘
//! ```
//!
//! State goes to the store before anybody is told: a call is recorded before its sandbox runs and its end is
//! recorded before its caller hears of it.

mod alarms;
mod calls;
mod deletions;
mod packages;
mod rest;
mod revisions;
mod set_up;
mod standing;
mod sweep;
mod trees;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use slog::{Logger, info, warn};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::actors::seat::Seat;
use crate::domain::environment::{Environment, ModulesUpdate, SetUpRequest};
use crate::domain::execution::Limits;
use crate::domain::failure::FailureKind;
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::pool::{Effect, Event, Pool, PoolPolicy};
use crate::domain::tenant::TenantName;
use crate::messages::child::Drain;
use crate::messages::sandbox_pool::{DeleteError, GetHoldings, GetPool, PoolHoldings, SetUpError};
use crate::ports::clock::Clock;
use crate::ports::credentials::Credentials;
use crate::ports::packages::Packages;
use crate::ports::revisions::Revisions;
use crate::ports::sandbox::{SandboxEngine, SandboxError};
use crate::ports::store::Store;
use crate::ports::tenants::Tenants;
use crate::ports::volumes::Volumes;
use crate::telemetry::error_chain;

use alarms::{Alarm, Alarms};
use calls::{Given, PendingCall};
pub use packages::InstallPolicy;
use packages::{Installs, Wanted};
use trees::Trees;

#[cfg(test)]
mod tests;

/// Readiness until the first act has ended: it may take longer than a beat.
const SWEEPING: &str = "what an earlier life left is still being removed, and the host looked at";
/// How long the destruction of a used sandbox waits, so that its caller has read the answer.
const BEHIND_ANSWERS: Duration = Duration::from_millis(5);
/// Places in the mailbox. Callers wait for one; facts from the pool's own futures do not pass through it.
const MAILBOX: usize = 4096;

/// What the pool works with.
#[derive(Clone)]
pub struct Deps {
    pub engine: Arc<dyn SandboxEngine>,
    pub volumes: Arc<dyn Volumes>,
    pub packages: Arc<dyn Packages>,
    pub store: Arc<dyn Store>,
    pub tenants: Arc<dyn Tenants>,
    pub revisions: Arc<dyn Revisions>,
    pub clock: Arc<dyn Clock>,
    pub log: Logger,
    pub policy: PoolPolicy,
    /// Of a call that asks for none; what stands ready is made for such calls.
    pub usual_limits: Limits,
    /// For the transpile task of a set-up.
    pub transpile_limits: Limits,
    /// None: they come from nowhere, and dependencies are refused.
    pub installs: Option<InstallPolicy>,
    /// For the secrets that a set-up names; None: nothing gets out of sandboxes, and they are refused.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// The most cores that a call may use, with a fraction.
    pub cores: f64,
    /// Whether calls run in gVisor; false only with `DISABLE_GVISOR`.
    pub isolated: bool,
    /// Whether the store keeps what handlers returned and printed.
    pub keep_output: bool,
}

/// The actor.
pub struct SandboxPool {
    deps: Deps,
    seat: Seat,
    machine: Pool,
    calls: HashMap<ExecutionId, PendingCall>,
    set_ups: HashMap<EnvironmentId, PendingSetUp>,
    installs: Installs,
    /// Environments whose modules are being changed.
    updating: HashSet<EnvironmentId>,
    trees: Trees,
    /// Volumes of older revisions, and what took their place.
    retired: HashMap<String, Environment>,
    deletions: HashMap<EnvironmentId, Vec<oneshot::Sender<Result<(), DeleteError>>>>,
    /// Answers whose record is being written: a drained pool stays until they are out.
    answering: usize,
    drained: bool,
    alarms: Alarms,
    /// What is wrong with the host, as the last probe told it.
    problems: Vec<String>,
    /// A sandbox did not boot: the host may have changed under the daemon.
    suspect_host: bool,
    /// Why the store did not answer the last time it was asked.
    store_trouble: Option<String>,
}

struct PendingSetUp {
    tenant: TenantName,
    work: Making,
    reply: oneshot::Sender<Result<Environment, SetUpError>>,
}

/// What a set-up makes.
enum Making {
    New { request: Box<SetUpRequest>, wanted: Vec<Wanted> },
    Clone { from: EnvironmentId, ttl_seconds: Option<u64> },
    Revision { update: ModulesUpdate, wanted: Vec<Wanted> },
}

impl SandboxPool {
    /// A pool for one life.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        let machine = Pool::new(deps.policy.clone(), Uuid::new_v4());
        Self {
            deps,
            seat,
            machine,
            calls: HashMap::new(),
            set_ups: HashMap::new(),
            installs: Installs::default(),
            updating: HashSet::new(),
            trees: Trees::default(),
            retired: HashMap::new(),
            deletions: HashMap::new(),
            answering: 0,
            drained: false,
            alarms: Alarms::default(),
            problems: vec![SWEEPING.to_owned()],
            suspect_host: false,
            store_trouble: None,
        }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now = self.deps.clock.now();
        for effect in self.machine.step(event, now) {
            self.perform(effect, ctx);
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::LookUp { execution, environment } => self.look_up(execution, environment, ctx),
            Effect::Boot { slot, execution } => self.boot(slot, execution, ctx),
            Effect::Stand { slot, stands_for } => self.stand(slot, stands_for, ctx),
            Effect::Run { slot, execution, start, keep } => self.run(slot, execution, Given { start, keep }, ctx),
            Effect::Await { slot } => self.await_call(slot, None, ctx),
            Effect::Destroy { slot } => self.destroy(slot, ctx),
            Effect::RetryDestroy { slot, after } => self.set_alarm(after, Alarm::Step(Event::RetryDue { slot }), ctx),
            Effect::Answer { execution, answer } => self.answer(execution, answer, ctx),
            Effect::BeginSetUp { environment, compiler } => self.begin_set_up(environment, compiler, ctx),
            Effect::RefuseSetUp { environment, refusal } => {
                self.updating.remove(&environment);
                if let Some(pending) = self.set_ups.remove(&environment) {
                    drop(pending.reply.send(Err(refusal.into())));
                }
            }
            Effect::RemoveEnvironment { environment } => self.remove_environment(environment, ctx),
            Effect::WakeIn(after) => self.set_alarm(after, Alarm::Step(Event::Tick), ctx),
            Effect::Drained => {
                self.drained = true;
                self.write_charges(ctx);
            }
        }
    }

    /// Writes the CPU time that calls have used since the last time.
    fn write_charges(&mut self, ctx: &mut Context<Self>) {
        let tenants = Arc::clone(&self.deps.tenants);
        self.answering += 1;
        self.spawn(ctx, async move { tenants.write_charges().await }, |pool, written, ctx| {
            if let Err(error) = &written {
                warn!(pool.deps.log, "tenants.uncharged"; "error" => error_chain(error));
                pool.note_store(&written);
            }
            pool.answering -= 1;
            pool.leave_when_drained(ctx);
        });
    }

    fn leave_when_drained(&mut self, ctx: &mut Context<Self>) {
        if self.drained && self.answering == 0 {
            info!(self.deps.log, "pool.drained");
            self.seat.leave();
            ctx.stop();
        }
    }

    /// Runs a piece of outside work; what it comes to is handled on the actor.
    fn spawn<T: 'static>(
        &self,
        ctx: &mut Context<Self>,
        work: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        ctx.spawn(work.into_actor(self).map(|outcome, pool, ctx| then(pool, outcome, ctx)));
    }

    /// A tear-down keeps both the kernel and a core busy for 20 ms: it begins behind the answers that are on their way.
    fn destroy(&mut self, slot: SlotId, ctx: &mut Context<Self>) {
        let engine = Arc::clone(&self.deps.engine);
        let wait = (self.answering > 0).then(|| actix::clock::sleep(BEHIND_ANSWERS));
        let work = async move {
            if let Some(wait) = wait {
                wait.await;
            }
            engine.destroy(slot).await
        };
        self.spawn(ctx, work, move |pool, destroyed, ctx| match destroyed {
            Ok(()) => {
                pool.let_go(slot, ctx);
                pool.step(Event::Destroyed { slot }, ctx);
            }
            Err(error) => {
                warn!(pool.deps.log, "slot.wedged"; "slot" => %slot, "error" => error_chain(&error));
                pool.step(Event::DestroyFailed { slot }, ctx);
            }
        });
    }

    fn complaints(&self) -> Vec<String> {
        self.problems.iter().chain(self.store_trouble.iter()).cloned().collect()
    }

    /// A store that cannot be read is in trouble; one that can be read may still not be written.
    fn note_unreadable<T>(&mut self, answer: &Result<T, crate::ports::store::StoreError>) {
        if answer.is_err() {
            self.note_store(answer);
        }
    }

    /// Remembers whether the store takes what is written, for readiness.
    fn note_store<T>(&mut self, answer: &Result<T, crate::ports::store::StoreError>) {
        self.store_trouble = answer.as_ref().err().map(|error| error_chain(error).to_string());
    }
}

/// Begins a future now, not when somebody first looks at it: a sandbox must be known to the engine before it is told to
/// destroy it, in whatever order the two are polled.
fn begun<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    let early = future.as_mut().now_or_never();
    async move {
        match early {
            Some(done) => done,
            None => future.await,
        }
    }
}

/// What a failure of the engine means for whoever asked.
fn kind_of(error: &SandboxError) -> FailureKind {
    match error {
        // A source that the compiler cannot take in its time and memory stays one.
        SandboxError::Off(_) | SandboxError::RuntimeMissing(_) | SandboxError::TaskFailed(_) => FailureKind::Permanent,
        _ => FailureKind::Retryable,
    }
}

impl Actor for SandboxPool {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.sweep(ctx);
    }
}

impl Handler<Drain> for SandboxPool {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        self.step(Event::Drain { hurry: drain.hurry }, ctx);
    }
}

impl Handler<GetHoldings> for SandboxPool {
    type Result = PoolHoldings;

    fn handle(&mut self, _: GetHoldings, _: &mut Self::Context) -> Self::Result {
        PoolHoldings {
            slots: self.machine.slots().into_iter().collect(),
            environments: self.machine.environments().into_iter().collect(),
        }
    }
}

impl Handler<GetPool> for SandboxPool {
    type Result = MessageResult<GetPool>;

    fn handle(&mut self, _: GetPool, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.machine.picture())
    }
}
