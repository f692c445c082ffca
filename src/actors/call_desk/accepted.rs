//! Accepted calls: recorded, run, ended; and what an earlier life left of them.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{info, warn};
use tokio::sync::oneshot;

use super::{AGAIN, CallDesk, Deps, LONGEST, host};
use crate::domain::desk::{Event, Recovered};
use crate::domain::execution::{ExecutionRecord, ExecutionReport, Limits, Outcome, Start, Timings};
use crate::domain::id::ExecutionId;
use crate::domain::pool::Refusal;
use crate::domain::quota::{Exceeded, Quota, Work};
use crate::messages::call_desk::{AcceptCall, CancelCall, DeskError};
use crate::messages::handle::HandleError;
use crate::messages::sandbox_pool::{CancelExecution, Execute, ExecuteError};
use crate::ports::call_book::{AcceptedCall, CallEnd, Unended};
use crate::ports::store::StoreError;
use crate::telemetry::error_chain;

/// What the recorded outcome of a call without a report is.
const FAILED: &str = "failed";

/// A call whose acceptance is being written.
pub(super) struct Asking {
    accepted: AcceptedCall,
    reply: oneshot::Sender<Result<(), DeskError>>,
}

/// What became of a call that was handed to the pool.
enum Told {
    /// It has not begun, and may later.
    PutOff(Duration),
    /// The same, but others may.
    HeldUp(Duration),
    Ended(Result<ExecutionReport, ExecuteError>),
    /// It had begun, and nobody knows more than its record does.
    Lost(ExecutionRecord),
    /// There is nothing left to run: its environment went, and it with it.
    Gone,
}

impl Handler<AcceptCall> for CallDesk {
    type Result = ResponseFuture<Result<(), DeskError>>;

    fn handle(&mut self, message: AcceptCall, ctx: &mut Self::Context) -> Self::Result {
        let AcceptCall { call, tenant, webhook } = message;
        let (execution, environment) = (call.execution, call.environment);
        let bytes = call.data.len() + call.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let (reply, answer) = oneshot::channel();
        let accepted = AcceptedCall { call, tenant, accepted_at: self.deps.clock.wall(), webhook };
        self.asking.insert(execution, Asking { accepted, reply });
        self.step(Event::Asked(Recovered { execution, environment, bytes }), ctx);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(stopped("accepting the call"))) })
    }
}

impl Handler<CancelCall> for CallDesk {
    type Result = ResponseFuture<Result<bool, DeskError>>;

    fn handle(&mut self, message: CancelCall, ctx: &mut Self::Context) -> Self::Result {
        let CancelCall { execution, tenant } = message;
        let book = Arc::clone(&self.deps.book);
        let (reply, answer) = oneshot::channel();
        self.spawn(ctx, async move { book.view(execution).await }, move |desk, view, ctx| {
            let view = view.map_err(|error| host("reading the call", &error));
            let told = view.map(|view| match view.filter(|view| view.tenant == tenant) {
                None => false,
                Some(_) if desk.machine.holds(execution) => {
                    desk.step(Event::Cancelled { execution }, ctx);
                    true
                }
                Some(view) => {
                    // A call whose caller waits is nobody's but the pool's.
                    if view.ended_at.is_none() {
                        desk.cancel_running(execution, ctx);
                    }
                    true
                }
            });
            drop(reply.send(told));
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(stopped("cancelling the call"))) })
    }
}

impl CallDesk {
    pub(super) fn reply(&mut self, execution: ExecutionId, answer: Result<(), DeskError>) {
        if let Some(asking) = self.asking.remove(&execution) {
            drop(asking.reply.send(answer));
        }
    }

    pub(super) fn record(&mut self, execution: ExecutionId, ctx: &mut Context<Self>) {
        let Some(asking) = self.asking.get(&execution) else { return };
        let (book, accepted) = (Arc::clone(&self.deps.book), asking.accepted.clone());
        self.spawn(ctx, async move { book.accept(&accepted).await }, move |desk, stored, ctx| {
            desk.note(&stored);
            if let Err(error) = &stored {
                desk.reply(execution, Err(host("recording the call", error)));
            }
            desk.step(Event::Recorded { execution, stored: stored.is_ok() }, ctx);
        });
    }

    pub(super) fn start(&mut self, execution: ExecutionId, ctx: &mut Context<Self>) {
        let work = run(self.deps.clone(), execution);
        self.spawn(ctx, work, move |desk, told, ctx| match told {
            Told::PutOff(wait) => desk.step(Event::PutOff { execution, wait }, ctx),
            Told::HeldUp(wait) => desk.step(Event::HeldUp { execution, wait }, ctx),
            Told::Gone => {
                desk.step(Event::Told { execution }, ctx);
                desk.step(Event::Ended { execution }, ctx);
            }
            Told::Lost(record) => {
                desk.step(Event::Told { execution }, ctx);
                let at = desk.deps.clock.wall();
                desk.end(lost(execution, record, at), ctx);
            }
            Told::Ended(result) => {
                desk.step(Event::Told { execution }, ctx);
                desk.conclude(execution, &result, ctx);
            }
        });
    }

    pub(super) fn cancel_running(&mut self, execution: ExecutionId, ctx: &mut Context<Self>) {
        let cancel = self.deps.cancel.clone();
        // Without a pool there is nothing to cancel.
        let asked = async move {
            let _ = cancel.ask(CancelExecution { execution }).await;
        };
        self.spawn(ctx, asked, |_, (), _| {});
    }

    /// Ends a call that has not begun.
    pub(super) fn end_cancelled(&mut self, execution: ExecutionId, ctx: &mut Context<Self>) {
        let book = Arc::clone(&self.deps.book);
        self.spawn(ctx, async move { book.request(execution).await }, move |desk, request, ctx| {
            let limits = match request {
                Ok(Some((_, call))) => call.limits,
                Ok(None) => return desk.step(Event::Ended { execution }, ctx),
                Err(_) => return desk.later(AGAIN, ctx, move |desk, ctx| desk.end_cancelled(execution, ctx)),
            };
            desk.conclude(execution, &Ok(cancelled(execution, limits)), ctx);
        });
    }

    fn conclude(
        &mut self,
        execution: ExecutionId,
        result: &Result<ExecutionReport, ExecuteError>,
        ctx: &mut Context<Self>,
    ) {
        let at = self.deps.clock.wall();
        let answer = (self.deps.render)(result, at);
        self.answers.put(execution, answer.clone(), at);
        let outcome = result.as_ref().map_or(FAILED, |report| report.outcome.as_str()).to_owned();
        let answer = self.deps.settings.keep_output.then_some(answer);
        self.end(CallEnd { execution, outcome, at, answer }, ctx);
    }

    /// Writes the end, again and again until it is written.
    fn end(&mut self, end: CallEnd, ctx: &mut Context<Self>) {
        let (book, execution) = (Arc::clone(&self.deps.book), end.execution);
        let work = async move {
            let stored = book.end(&end).await;
            (end, stored)
        };
        self.spawn(ctx, work, move |desk, (end, stored), ctx| {
            desk.note(&stored);
            match stored {
                Ok(()) => {
                    info!(desk.deps.log, "desk.ended"; "execution" => %execution, "outcome" => &end.outcome);
                    desk.step(Event::Ended { execution }, ctx);
                    desk.tell_due(ctx);
                }
                Err(error) => {
                    warn!(desk.deps.log, "desk.unrecorded"; "execution" => %execution, "error" => error_chain(&error));
                    desk.later(AGAIN, ctx, move |desk, ctx| desk.end(end, ctx));
                }
            }
        });
    }

    /// Learns what an earlier life left: what had begun is over, what had not waits.
    pub(super) fn recover(&mut self, ctx: &mut Context<Self>) {
        let work = recover(self.deps.clone());
        self.spawn(ctx, work, |desk, recovered, ctx| {
            desk.note(&recovered);
            match recovered {
                Ok(calls) => {
                    if !calls.is_empty() {
                        info!(desk.deps.log, "desk.recovered"; "waiting" => calls.len());
                    }
                    desk.step(Event::Recovered(calls), ctx);
                }
                Err(error) => {
                    warn!(desk.deps.log, "desk.unrecovered"; "error" => error_chain(&error));
                    desk.later(AGAIN, ctx, Self::recover);
                }
            }
        });
    }
}

async fn run(deps: Deps, execution: ExecutionId) -> Told {
    let (tenant, call) = match deps.book.request(execution).await {
        Ok(Some(request)) => request,
        Ok(None) => return Told::Gone,
        Err(_) => return Told::PutOff(AGAIN),
    };
    // Its rate was counted at the door.
    match deps.execute.ask(Execute { call, tenant, work: Work::QueuedCall, following: None }).await {
        Err(HandleError::Absent) | Ok(Err(ExecuteError::Refused(Refusal::Draining))) => Told::PutOff(AGAIN),
        Ok(Err(ExecuteError::Refused(Refusal::QueueFull { retry_after }))) => Told::PutOff(retry_after),
        // That may be the environment's own limit: it does not keep the others' calls.
        Ok(Err(ExecuteError::Refused(Refusal::WaitedTooLong { retry_after }))) => {
            Told::HeldUp(retry_after.min(LONGEST))
        }
        // The CPU time of the day comes back tomorrow: to wait for that would fill the desk. All else comes back soon.
        Ok(Err(ExecuteError::Exceeded(Exceeded { quota, retry_after: Some(wait), .. }))) if quota != Quota::Cpu => {
            Told::HeldUp(wait.min(LONGEST))
        }
        // The pool fell under it: its record tells whether it had begun.
        Err(HandleError::Lost) => look(&deps, execution).await,
        Ok(Err(error)) if error.is_of_a_lost_pool() => look(&deps, execution).await,
        Ok(result) => Told::Ended(result),
    }
}

async fn look(deps: &Deps, execution: ExecutionId) -> Told {
    match deps.book.unended().await {
        Ok(unended) => match unended.into_iter().find(|call| call.execution == execution) {
            Some(Unended { record: Some(record), .. }) => Told::Lost(record),
            Some(_) => Told::PutOff(AGAIN),
            None => Told::Gone,
        },
        Err(_) => Told::PutOff(AGAIN),
    }
}

async fn recover(deps: Deps) -> Result<Vec<Recovered>, StoreError> {
    // A pool that outlived an earlier desk may still have some of them: what has not begun then never does.
    for call in deps.book.unended().await? {
        let _ = deps.cancel.ask(CancelExecution { execution: call.execution }).await;
    }
    let mut waiting = Vec::new();
    for Unended { execution, environment, bytes, record } in deps.book.unended().await? {
        match record {
            None => waiting.push(Recovered { execution, environment, bytes }),
            Some(record) => deps.book.end(&lost(execution, record, deps.clock.wall())).await?,
        }
    }
    Ok(waiting)
}

/// The end of a call that had begun and whose answer nobody has: what its record says, else that it was cut off.
fn lost(execution: ExecutionId, record: ExecutionRecord, now: crate::domain::time::WallTime) -> CallEnd {
    let outcome = record.outcome.unwrap_or_else(|| Outcome::Cancelled.as_str().to_owned());
    CallEnd { execution, outcome, at: record.completed_at.unwrap_or(now), answer: None }
}

fn cancelled(execution: ExecutionId, limits: Limits) -> ExecutionReport {
    // It had no sandbox, so that nothing was not isolated.
    ExecutionReport::cancelled(execution, limits, true, Timings::default(), Start::Cold)
}

fn stopped(doing: &'static str) -> DeskError {
    DeskError::Host { doing, cause: "the desk was restarted under it".to_owned() }
}
