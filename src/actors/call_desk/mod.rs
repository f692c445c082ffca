//! The CallDesk: calls that are answered later, idempotency keys, webhooks.
//!
//! ```text
//!   AcceptCall, CancelCall ──► domain::desk::Desk ──► book: recorded ──► Execute to the pool ──► book: ended ──► webhook
//!   ClaimKey ──► book: claimed ──► (the door does it) ──► SettleKey or ReleaseKey ──► whoever waited for the key
//! ```
//!
//! A call is accepted when the book has it. One that had begun when a life of the daemon ended is over; one that had not
//! runs in the next. Answers are kept in memory, and in the book only where the configuration asks for that.

mod accepted;
mod hooks;
mod keys;
mod views;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{Logger, info, warn};

use crate::actors::seat::Seat;
use crate::domain::desk::{Answer, Answers, Desk, DeskPolicy, Effect, Event, ExecutionView, KeyId};
use crate::domain::execution::ExecutionReport;
use crate::domain::id::ExecutionId;
use crate::domain::time::WallTime;
use crate::messages::call_desk::DeskError;
use crate::messages::child::Drain;
use crate::messages::handle::Handle;
use crate::messages::sandbox_pool::{CancelExecution, Execute, ExecuteError};
use crate::ports::call_book::CallBook;
use crate::ports::clock::Clock;
use crate::ports::store::StoreError;
use crate::ports::webhook::WebhookTeller;
use crate::telemetry::error_chain;

use accepted::Asking;
use keys::Claiming;

#[cfg(test)]
mod doubles;
#[cfg(test)]
mod tests;

/// How often what is old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How long the desk waits for a pool or a store that does not answer, before it asks again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that a call waits whose tenant or environment is at a quota, before the pool is asked again: quotas change.
const LONGEST: Duration = Duration::from_secs(60);

/// A call's answer, as the door gives it.
pub type Render = fn(&Result<ExecutionReport, ExecuteError>, WallTime) -> Answer;
/// How a call stands, as the door shows it: JSON.
pub type Show = fn(ExecutionView) -> String;

/// What the desk works with.
#[derive(Clone)]
pub struct Deps {
    pub book: Arc<dyn CallBook>,
    pub teller: Arc<dyn WebhookTeller>,
    pub execute: Handle<Execute>,
    pub cancel: Handle<CancelExecution>,
    pub clock: Arc<dyn Clock>,
    pub policy: DeskPolicy,
    pub settings: Settings,
    pub render: Render,
    pub show: Show,
    pub log: Logger,
}

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long keys, ended calls and their answers are kept.
    pub keep: Duration,
    /// The most bytes of answers, in memory and in the book each.
    pub keep_bytes: usize,
    /// Whether the book keeps answers.
    pub keep_output: bool,
    /// The most keys.
    pub keys: u32,
    /// How often a webhook is tried.
    pub webhook_attempts: u32,
}

/// The actor.
pub struct CallDesk {
    deps: Deps,
    seat: Seat,
    machine: Desk,
    asking: HashMap<ExecutionId, Asking>,
    answers: Answers,
    keys: HashMap<KeyId, Claiming>,
    /// Webhooks that are being told.
    telling: BTreeSet<ExecutionId>,
    /// Nothing of the accepted calls is under way any more; held keys may still be.
    drained: bool,
    /// A drain that waits for no key.
    hurried: bool,
    /// Why the book did not answer the last time it was asked.
    trouble: Option<String>,
}

impl CallDesk {
    /// A desk for one life.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        Self {
            machine: Desk::new(deps.policy),
            asking: HashMap::new(),
            answers: Answers::new(deps.settings.keep_bytes),
            keys: HashMap::new(),
            telling: BTreeSet::new(),
            drained: false,
            hurried: false,
            trouble: None,
            deps,
            seat,
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
            Effect::Record { execution } => self.record(execution, ctx),
            Effect::Refuse { execution, refusal } => self.reply(execution, Err(refusal.into())),
            Effect::Accept { execution } => self.reply(execution, Ok(())),
            Effect::Start { execution } => self.start(execution, ctx),
            Effect::CancelRunning { execution } => self.cancel_running(execution, ctx),
            Effect::EndCancelled { execution } => self.end_cancelled(execution, ctx),
            Effect::WakeIn(after) => self.later(after, ctx, |desk, ctx| desk.step(Event::Tick, ctx)),
            Effect::Drained => {
                self.drained = true;
                self.leave_when_drained(ctx);
            }
        }
    }

    /// A key that is held is about to be settled, by a call whose answer was just given: that is worth waiting for.
    fn leave_when_drained(&mut self, ctx: &mut Context<Self>) {
        if self.drained && (self.keys.is_empty() || self.hurried) {
            info!(self.deps.log, "desk.drained"; "waiting" => self.machine.counts().0);
            self.seat.leave();
            ctx.stop();
        }
    }

    fn later(
        &self,
        after: Duration,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        ctx.run_later(after, then);
    }

    /// Runs a piece of outside work; what it comes to is handled on the actor.
    fn spawn<T: 'static>(
        &self,
        ctx: &mut Context<Self>,
        work: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        ctx.spawn(work.into_actor(self).map(|outcome, desk, ctx| then(desk, outcome, ctx)));
    }

    /// Remembers whether the book takes what is written, for readiness.
    fn note<T>(&mut self, answer: &Result<T, StoreError>) {
        self.trouble = answer.as_ref().err().map(|error| error_chain(error).to_string());
    }

    /// Asks a book that did not answer whether it does again: by a write that changes nothing.
    fn probe(&mut self, ctx: &mut Context<Self>) {
        if self.trouble.is_some() {
            let book = Arc::clone(&self.deps.book);
            self.spawn(ctx, async move { book.release_key(&KeyId(String::new())).await }, |desk, answer, _| {
                desk.note(&answer);
            });
        }
    }

    fn forget(&mut self, ctx: &mut Context<Self>) {
        let keep = i64::try_from(self.deps.settings.keep.as_millis()).unwrap_or(i64::MAX);
        let before = WallTime(self.deps.clock.wall().0.saturating_sub(keep));
        self.answers.forget(before);
        let (book, most) = (Arc::clone(&self.deps.book), self.deps.settings.keep_bytes);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        self.spawn(ctx, async move { book.forget(before, most).await }, |desk, forgotten, _| {
            desk.note(&forgotten);
            if let Err(error) = &forgotten {
                warn!(desk.deps.log, "desk.unforgotten"; "error" => error_chain(error));
            }
        });
    }
}

fn host(doing: &'static str, error: &StoreError) -> DeskError {
    DeskError::Host { doing, cause: error_chain(error).to_string() }
}

impl Actor for CallDesk {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.seat.beat(Vec::new());
        ctx.run_interval(self.seat.beat_every(), |desk, ctx| {
            desk.seat.beat(desk.trouble.iter().cloned().collect());
            desk.tell_due(ctx);
            desk.probe(ctx);
        });
        ctx.run_interval(FORGET_EVERY, Self::forget);
        self.recover(ctx);
    }
}

impl Handler<Drain> for CallDesk {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        self.hurried |= drain.hurry;
        self.step(Event::Drain { hurry: drain.hurry }, ctx);
        self.leave_when_drained(ctx);
    }
}
