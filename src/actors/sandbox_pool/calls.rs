//! Calls: looked up, booted, run, recorded, answered.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{info, warn};
use tokio::sync::oneshot;

use super::{Deps, SandboxPool, begun, kind_of};
use crate::domain::environment::{Environment, Isolation};
use crate::domain::execution::{
    Call, Evidence, ExecutionRecord, ExecutionReport, Following, Outcome, Start, Timings, judge,
};
use crate::domain::failure::FailureKind;
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::pool::{Answer, Event, Wants};
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::{CancelExecution, Execute, ExecuteError, POOL_FELL, RUNNING};
use crate::ports::sandbox::{Purpose, SandboxError, SlotSpec};
use crate::ports::store::StoreError;
use crate::ports::tenants::Pass;
use crate::telemetry::error_chain;

const STARTING: &str = "starting the sandbox";

type Reply = oneshot::Sender<Result<ExecutionReport, ExecuteError>>;

/// A call that is not answered yet.
pub(super) struct PendingCall {
    call: Call,
    tenant: TenantName,
    /// Its place among its tenant's calls.
    _pass: Pass,
    following: Following,
    reply: Reply,
    environment: Option<Environment>,
    /// Whether it has a slot, and with it a revision of its own.
    in_slot: bool,
    /// Its row in the store, once that is written.
    record: Option<ExecutionRecord>,
    /// The same row from the beginning of its writing on: a call may be cancelled before the pool hears that it is there.
    begins: Option<oneshot::Receiver<ExecutionRecord>>,
    evidence: Option<Evidence>,
    failure: Option<ExecuteError>,
    /// Why its last sandbox was of no use: the answer if it gets no other.
    boot_failure: Option<ExecuteError>,
    came: Duration,
    boot_began: Option<Duration>,
    claimed: Option<Duration>,
    given: Given,
}

/// How a call came to its sandbox, and whether that may be kept after it.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub(super) start: Start,
    pub(super) keep: bool,
}

impl PendingCall {
    /// None while its environment is not known.
    fn wants(&self) -> Option<Wants> {
        let environment = self.environment.as_ref()?;
        let runtime = environment.runtime;
        Some(Wants {
            runtime,
            memory_mb: self.call.limits.memory_mb,
            plain: environment.metadata.permissions.are_plain(runtime) && environment.metadata.secrets.is_empty(),
            bare: self.call.env.is_empty(),
            concurrency: environment.limits.concurrency.map(|calls| usize::try_from(calls).unwrap_or(usize::MAX)),
            // What the calls before left in /tmp/out would come out of this one.
            shares: environment.metadata.isolation == Isolation::Environment && self.call.files.is_none(),
        })
    }

    fn timings(&self, now: Duration) -> Timings {
        let millis = |from: Option<Duration>, to: Option<Duration>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_sub(from).as_secs_f64() * 1000.0,
            _ => 0.0,
        };
        Timings {
            queue_ms: millis(Some(self.came), self.boot_began.or(Some(now))),
            claim_ms: millis(self.boot_began, self.claimed.or(Some(now))),
            handler_ms: self.evidence.as_ref().map_or(0.0, |seen| seen.handler_time.as_secs_f64() * 1000.0),
            total_ms: millis(Some(self.came), Some(now)),
        }
    }
}

impl Handler<Execute> for SandboxPool {
    type Result = ResponseFuture<Result<ExecutionReport, ExecuteError>>;

    fn handle(&mut self, message: Execute, ctx: &mut Self::Context) -> Self::Result {
        let Execute { call, tenant, work, following } = message;
        let pass = match self.deps.tenants.admit(&tenant, work) {
            Ok(pass) => pass,
            Err(exceeded) => return Box::pin(std::future::ready(Err(exceeded.into()))),
        };
        let (reply, answer) = oneshot::channel();
        let (execution, environment) = (call.execution, call.environment);
        let pending = PendingCall {
            call,
            tenant: tenant.clone(),
            _pass: pass,
            following,
            reply,
            environment: None,
            in_slot: false,
            record: None,
            begins: None,
            evidence: None,
            failure: None,
            boot_failure: None,
            came: self.deps.clock.uptime(),
            boot_began: None,
            claimed: None,
            given: Given { start: Start::Cold, keep: false },
        };
        self.calls.insert(execution, pending);
        self.step(Event::CallCame { execution, environment, tenant }, ctx);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(lost())) })
    }
}

impl Handler<CancelExecution> for SandboxPool {
    type Result = ();

    fn handle(&mut self, message: CancelExecution, ctx: &mut Self::Context) {
        self.step(Event::CallCancelled { execution: message.execution }, ctx);
    }
}

impl SandboxPool {
    pub(super) fn look_up(&mut self, execution: ExecutionId, id: EnvironmentId, ctx: &mut Context<Self>) {
        let (store, known) = (Arc::clone(&self.deps.store), self.known(execution, id));
        let work = async move {
            match known {
                Some(known) => Ok(Some(known)),
                None => store.environment(id).await,
            }
        };
        self.spawn(ctx, work, move |pool, answer, ctx| {
            pool.note_unreadable(&answer);
            let answer = answer.map(|found| found.map(|environment| pool.newest(environment)));
            let now = pool.deps.clock.wall();
            let Some(pending) = pool.calls.get_mut(&execution) else { return };
            match answer {
                Ok(found) => {
                    pending.environment = found.filter(|found| found.is_found_by(&pending.tenant, now));
                }
                Err(error) => pending.failure = Some(host("reading the environment", &error, FailureKind::Retryable)),
            }
            let limits = pending.environment.as_ref().map(|environment| environment.limits);
            if let Some(rate) = limits.and_then(|limits| limits.rate)
                && let Err(exceeded) = pool.deps.tenants.admit_by(&pending.tenant, id, rate)
            {
                pending.failure = Some(exceeded.into());
                pending.environment = None;
            }
            let wants = pending.wants();
            pool.step(Event::LookedUp { execution, wants }, ctx);
        });
    }

    /// The environment, if a slot has it and it is there for the caller: what is not there the store alone says.
    fn known(&self, execution: ExecutionId, id: EnvironmentId) -> Option<Environment> {
        if self.deletions.contains_key(&id) {
            return None;
        }
        let (pending, now) = (self.calls.get(&execution)?, self.deps.clock.wall());
        self.trees.known(id).filter(|known| known.is_found_by(&pending.tenant, now)).cloned()
    }

    /// Records the call and boots its sandbox, both at once; it runs only when both are done.
    pub(super) fn boot(&mut self, slot: SlotId, execution: ExecutionId, ctx: &mut Context<Self>) {
        let now = self.deps.clock.uptime();
        let Some(pending) = self.calls.get_mut(&execution) else { return };
        let Some(environment) = pending.environment.clone() else { return };
        pending.boot_began.get_or_insert(now);
        pending.in_slot = true;
        self.trees.hold_for(slot, &environment);
        let spec = SlotSpec {
            slot,
            runtime: environment.runtime,
            purpose: Purpose::Execute {
                environment: environment.id,
                volume: environment.volume_name.clone(),
                permissions: environment.metadata.permissions.clone(),
                secrets: environment.metadata.secrets.clone(),
            },
            memory_mb: pending.call.limits.memory_mb,
        };
        let recording = record(&self.deps, pending, environment.id);
        let engine = Arc::clone(&self.deps.engine);
        let creating = begun(async move { engine.create(spec).await });
        let work = futures_util::future::join(recording, creating);
        self.spawn(ctx, work, move |pool, (recorded, created), ctx| {
            pool.note_store(&recorded);
            match pool.note_sandbox(execution, recorded, created) {
                Sandbox::Ready => pool.step(Event::Booted { slot }, ctx),
                Sandbox::Failed => pool.step(Event::BootFailed { slot }, ctx),
                Sandbox::NotRecorded => pool.step(Event::CallCancelled { execution }, ctx),
            }
        });
    }

    /// The call has a sandbox of its own. One that stood ready is given to it as a boot would be: recorded first.
    pub(super) fn run(&mut self, slot: SlotId, execution: ExecutionId, given: Given, ctx: &mut Context<Self>) {
        let Some(pending) = self.calls.get_mut(&execution) else { return };
        pending.given = given;
        let start = given.start;
        if start == Start::Cold {
            return self.send(slot, execution, ctx);
        }
        let Some(known) = pending.environment.as_ref() else { return };
        let (environment, volume) = (known.id, known.volume_name.clone());
        pending.in_slot = true;
        self.trees.hold_for(slot, known);
        pending.boot_began.get_or_insert(self.deps.clock.uptime());
        let recording = record(&self.deps, pending, environment);
        let engine = Arc::clone(&self.deps.engine);
        // It comes to itself while the call is being recorded.
        let readying = async move {
            engine.wake(slot).await?;
            if start == Start::WarmRuntime { engine.attach(slot, &volume).await } else { Ok(()) }
        };
        let work = futures_util::future::join(recording, readying);
        self.spawn(ctx, work, move |pool, (recorded, readied), ctx| {
            pool.note_store(&recorded);
            match pool.note_sandbox(execution, recorded, readied) {
                Sandbox::Ready => pool.send(slot, execution, ctx),
                Sandbox::Failed => pool.step(Event::Spoiled { slot }, ctx),
                Sandbox::NotRecorded => pool.step(Event::CallCancelled { execution }, ctx),
            }
        });
    }

    fn note_sandbox(
        &mut self,
        execution: ExecutionId,
        recorded: Result<ExecutionRecord, StoreError>,
        created: Result<(), SandboxError>,
    ) -> Sandbox {
        let uptime = self.deps.clock.uptime();
        let Some(pending) = self.calls.get_mut(&execution) else { return Sandbox::Failed };
        match recorded {
            Ok(record) => {
                pending.record.get_or_insert(record);
            }
            Err(error) => {
                pending.failure = Some(host("recording the call", &error, FailureKind::Retryable));
                return Sandbox::NotRecorded;
            }
        }
        match created {
            Ok(()) => {
                pending.claimed = Some(uptime);
                Sandbox::Ready
            }
            Err(error) => {
                warn!(self.deps.log, "slot.boot_failed"; "execution" => %execution, "error" => error_chain(&error));
                self.suspect_host = true;
                pending.boot_failure = Some(host(STARTING, &error, kind_of(&error)));
                self.newest_again(execution);
                Sandbox::Failed
            }
        }
    }

    /// A call whose slot was of no use begins anew with the newest revision; that slot's is there until the slot is gone.
    fn newest_again(&mut self, execution: ExecutionId) {
        let Some(pending) = self.calls.get_mut(&execution) else { return };
        pending.in_slot = false;
        let Some(known) = pending.environment.take() else { return };
        let newest = self.newest(known);
        if let Some(pending) = self.calls.get_mut(&execution) {
            pending.environment = Some(newest);
        }
    }

    /// Waiting calls begin with the new revision.
    pub(super) fn move_waiting(&mut self, next: &Environment) {
        for pending in self.calls.values_mut().filter(|pending| !pending.in_slot) {
            if pending.environment.as_ref().is_some_and(|known| known.id == next.id) {
                pending.environment = Some(next.clone());
            }
        }
    }

    fn send(&mut self, slot: SlotId, execution: ExecutionId, ctx: &mut Context<Self>) {
        let Some(pending) = self.calls.get_mut(&execution) else { return };
        let Some(environment) = pending.environment.as_ref() else { return };
        let main_module = environment.main_module.clone();
        // The caller's data is needed once, and up to a MiB: it moves. What stays behind is what the answer needs.
        let (data, env) = (std::mem::take(&mut pending.call.data), std::mem::take(&mut pending.call.env));
        let call = Call { data, env, ..pending.call.clone() };
        let engine = Arc::clone(&self.deps.engine);
        let (tenant, began) = (pending.tenant.clone(), self.deps.clock.uptime());
        let (following, keep) = (pending.following.clone(), pending.given.keep);
        let work = async move { (engine.run(slot, &call, &main_module, keep, following).await, call) };
        self.spawn(ctx, work, move |pool, (ran, call), ctx| {
            // Of a call that was cancelled nobody read the count: it is charged the most that it can have used.
            let most = || pool.deps.clock.uptime().saturating_sub(began).mul_f64(pool.deps.cores);
            let used = match &ran {
                Ok(evidence) => evidence.cpu,
                // Nothing of the call has reached it.
                Err(SandboxError::Spoiled(_)) => Duration::ZERO,
                Err(_) => most(),
            };
            pool.deps.tenants.charge(&tenant, used);
            let well = ran.as_ref().ok().filter(|evidence| keep && judge(evidence) == Outcome::Ok);
            let kept = well.map(|evidence| Event::Released { slot, memory_mb: evidence.peak_memory_bytes >> 20 });
            if let Some(pending) = pool.calls.get_mut(&execution) {
                match ran {
                    Err(error @ SandboxError::Spoiled(_)) => {
                        warn!(pool.deps.log, "slot.spoiled"; "slot" => %slot, "error" => error_chain(&error));
                        (pending.call.data, pending.call.env) = (call.data, call.env);
                        pending.boot_failure = Some(host(STARTING, &error, kind_of(&error)));
                        pool.newest_again(execution);
                        return pool.step(Event::Spoiled { slot }, ctx);
                    }
                    Ok(evidence) => pending.evidence = Some(evidence),
                    Err(error) => pending.failure = Some(host(RUNNING, &error, kind_of(&error))),
                }
            }
            pool.step(kept.unwrap_or(Event::Settled { slot }), ctx);
        });
    }

    /// Records the call's end, then tells its caller.
    pub(super) fn answer(&mut self, execution: ExecutionId, answer: Answer, ctx: &mut Context<Self>) {
        let Some(mut pending) = self.calls.remove(&execution) else { return };
        let result = self.conclude(execution, answer, &mut pending);
        let PendingCall { call, tenant, reply, record, begins, .. } = pending;
        if let Ok(report) = &result {
            info!(self.deps.log, "call.ended"; "execution" => %execution, "environment" => %call.environment,
                "tenant" => tenant.as_str(), "request" => call.request.as_str(), "outcome" => report.outcome.as_str(),
                "total_ms" => report.timings.total_ms);
        }
        if record.is_none() && begins.is_none() {
            drop(reply.send(result));
            return;
        }
        let (store, keep_output) = (Arc::clone(&self.deps.store), self.deps.keep_output);
        let completed_at = self.deps.clock.wall();
        let work = async move {
            let begun = match (record, begins) {
                (None, Some(begins)) => begins.await.ok(),
                (record, _) => record,
            };
            // A row that could not be written needs no end.
            let Some(begun) = begun else { return (result, None) };
            let finished = match &result {
                Ok(report) => report.record(&begun, completed_at, keep_output),
                Err(_) => {
                    ExecutionRecord { completed_at: Some(completed_at), outcome: Some("failed".to_owned()), ..begun }
                }
            };
            let stored = store.finish_execution(&finished).await;
            (result, Some(stored))
        };
        self.answering += 1;
        self.spawn(ctx, work, move |pool, (result, stored), ctx| {
            if let Some(stored) = &stored {
                pool.note_store(stored);
            }
            if let Some(Err(error)) = &stored {
                warn!(pool.deps.log, "call.unrecorded"; "execution" => %execution, "error" => error_chain(error));
            }
            drop(reply.send(result));
            pool.answering -= 1;
            pool.leave_when_drained(ctx);
        });
    }

    fn conclude(
        &self,
        execution: ExecutionId,
        answer: Answer,
        pending: &mut PendingCall,
    ) -> Result<ExecutionReport, ExecuteError> {
        let timings = pending.timings(self.deps.clock.uptime());
        let (limits, start) = (pending.call.limits, pending.given.start);
        if let Some(failure) = pending.failure.take() {
            return Err(failure);
        }
        match (answer, pending.evidence.take()) {
            (Answer::Absent, _) => Err(ExecuteError::Absent(pending.call.environment)),
            (Answer::Refused(refusal), _) => Err(refusal.into()),
            (Answer::Settled, Some(evidence)) => {
                Ok(ExecutionReport::conclude(&pending.call, self.deps.isolated, evidence, timings, start))
            }
            (Answer::Cancelled, _) => {
                Ok(ExecutionReport::cancelled(execution, limits, self.deps.isolated, timings, start))
            }
            (Answer::BootFailed, _) => Err(pending.boot_failure.take().unwrap_or_else(lost)),
            (Answer::Settled, _) => Err(lost()),
        }
    }
}

/// What came of giving a call its sandbox.
enum Sandbox {
    Ready,
    Failed,
    NotRecorded,
}

/// Writes the row of a call that begins, unless that was done at an earlier try.
fn record(
    deps: &Deps,
    pending: &mut PendingCall,
    environment: EnvironmentId,
) -> impl Future<Output = Result<ExecutionRecord, StoreError>> + 'static {
    let record = ExecutionRecord::begun(pending.call.execution, environment, deps.clock.wall());
    let store = Arc::clone(&deps.store);
    let (written, begins) = oneshot::channel();
    let done = pending.record.is_some();
    pending.begins = Some(begins);
    async move {
        if !done {
            store.begin_execution(&record).await?;
        }
        // Nobody listens but whoever ends a call in the meantime.
        drop(written.send(record.clone()));
        Ok(record)
    }
}

fn host(doing: &'static str, error: &dyn std::error::Error, kind: FailureKind) -> ExecuteError {
    ExecuteError::Host { doing, cause: error_chain(error).to_string(), kind }
}

fn lost() -> ExecuteError {
    let cause = "the pool was restarted under it".to_owned();
    ExecuteError::Host { doing: POOL_FELL, cause, kind: FailureKind::Retryable }
}
