//! Images: brings the runtimes' images into the store, tries new ones, and lets those serve that pass.
//!
//! ```text
//!   started, CheckImages ──► Find ──► Try, one after the other ──► Record ──► new sandboxes are made of it
//!                             └ domain::image::Rollouts decides; the store and the trials do     └─► ImageServes, also with each beat
//! ```
//!
//! Calls never wait for this actor: what serves is read from the store, and stays there when the actor falls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{Logger, info, warn};
use tokio::time::{sleep, timeout};

use crate::actors::seat::Seat;
use crate::domain::environment::Runtime;
use crate::domain::image::{Digest, Effect, Event, Rollouts};
use crate::messages::child::Drain;
use crate::messages::handle::Handle;
use crate::messages::images::{CheckImages, GetImages};
use crate::messages::sandbox_pool::{GetPool, ImageServes};
use crate::ports::clock::Clock;
use crate::ports::images::{ImageError, ImageStore, ImageTrials, TrialError};
use crate::telemetry::error_chain;

#[cfg(test)]
mod tests;

/// How often the log tells of a trial: after so many starts.
const TOLD_EVERY: u32 = 20;

/// While calls wait or boot, the next start of a trial waits so long between two looks, for so many looks at most: a trial
/// ends on a busy host, too.
const BUSY_AGAIN: Duration = Duration::from_millis(500);
const BUSY_LOOKS: u32 = 60;
/// A pool that does not answer for so long gets no say.
const POOL_WITHIN: Duration = Duration::from_secs(2);

/// What it works with.
#[derive(Clone)]
pub struct Deps {
    pub store: Arc<dyn ImageStore>,
    pub trials: Arc<dyn ImageTrials>,
    /// Calls go before trials.
    pub pool: Handle<GetPool>,
    /// The pool, which ends what stands with a former image.
    pub serves: Handle<ImageServes>,
    pub clock: Arc<dyn Clock>,
    /// Good starts that a new image needs before it takes the place of another.
    pub soak: u32,
    pub log: Logger,
}

/// The actor.
pub struct Images {
    deps: Deps,
    seat: Seat,
    machine: Rollouts,
    runtimes: Vec<Runtime>,
    /// What is under way outside: one piece for each runtime, and the sweep before all of them.
    work: BTreeMap<Runtime, SpawnHandle>,
    sweep: Option<SpawnHandle>,
    wake: Option<SpawnHandle>,
}

impl Images {
    /// One life of it.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        let serving = deps.store.runtimes();
        let runtimes = serving.iter().map(|(runtime, _)| *runtime).collect();
        let machine = Rollouts::new(serving, deps.soak);
        Self { deps, seat, machine, runtimes, work: BTreeMap::new(), sweep: None, wake: None }
    }

    fn step(&mut self, runtime: Runtime, event: Event, ctx: &mut Context<Self>) {
        self.tell(runtime, &event);
        let is_switch = event == Event::Recorded;
        let effects = self.machine.step(runtime, event, self.deps.clock.now());
        if is_switch {
            self.tell_pool();
        }
        if let Some(earlier) = self.wake.take() {
            ctx.cancel_future(earlier);
        }
        for effect in effects {
            self.perform(effect, ctx);
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let (store, trials) = (Arc::clone(&self.deps.store), Arc::clone(&self.deps.trials));
        match effect {
            Effect::Find { runtime } => self.spawn(ctx, runtime, async move {
                match store.find(runtime).await {
                    Ok(found) => Event::Found { digest: found.digest, stale: found.stale },
                    Err(error) => {
                        let again = !matches!(error, ImageError::Unfit { .. });
                        Event::NotFound { reason: error_chain(&error).to_string(), again }
                    }
                }
            }),
            Effect::Try { runtime, digest } => {
                let pool = self.deps.pool.clone();
                self.spawn(ctx, runtime, async move {
                    let_calls_go_first(&pool).await;
                    attempt(&*store, &*trials, runtime, &digest).await
                });
            }
            Effect::Record { runtime, digest } => self.spawn(ctx, runtime, async move {
                match store.serve(runtime, &digest).await {
                    Ok(()) => Event::Recorded,
                    Err(error) => Event::NotRecorded { reason: error_chain(&error).to_string() },
                }
            }),
            Effect::WakeIn(after) => self.wake = Some(ctx.run_later(after, Self::tick)),
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.wake = None;
        if let Some(runtime) = self.runtimes.first() {
            self.step(*runtime, Event::Tick, ctx);
        }
    }

    fn spawn(&mut self, ctx: &mut Context<Self>, runtime: Runtime, work: impl Future<Output = Event> + 'static) {
        let then = work.into_actor(self).map(move |event, images, ctx| images.step(runtime, event, ctx));
        self.work.insert(runtime, ctx.spawn(then));
    }

    fn beat(&mut self) {
        self.seat.beat(self.machine.complaints());
        self.tell_pool();
    }

    fn tell_pool(&self) {
        for (runtime, image) in self.machine.serving() {
            self.deps.serves.tell(ImageServes { runtime, image: image.clone() });
        }
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        for runtime in self.runtimes.clone() {
            self.step(runtime, Event::Check, ctx);
        }
    }

    fn tell(&self, runtime: Runtime, event: &Event) {
        let log = &self.deps.log;
        let picture = self.machine.pictures().into_iter().find(|picture| picture.runtime == runtime);
        let Some(picture) = picture else { return };
        let (on_trial, passed, needed) = (picture.on_trial.unwrap_or_default(), picture.passed, picture.needed);
        match event {
            Event::NotFound { reason, .. } => {
                warn!(log, "image.not_found"; "runtime" => %runtime, "reason" => reason);
            }
            Event::Passed { took } if (passed + 1) % TOLD_EVERY == 0 || passed + 1 == needed => {
                info!(log, "image.on_trial"; "runtime" => %runtime, "digest" => on_trial, "passed" => passed + 1,
                    "needed" => needed, "last_ms" => took.as_millis());
            }
            Event::Failed { reason } => {
                warn!(log, "image.failed"; "runtime" => %runtime, "digest" => on_trial, "passed" => passed,
                    "needed" => needed, "reason" => reason);
            }
            Event::Disturbed { reason } => {
                warn!(log, "image.disturbed"; "runtime" => %runtime, "digest" => on_trial, "reason" => reason);
            }
            Event::NotRecorded { reason } => {
                warn!(log, "image.not_recorded"; "runtime" => %runtime, "reason" => reason);
            }
            _ => {}
        }
    }
}

async fn let_calls_go_first(pool: &Handle<GetPool>) {
    for _ in 0..BUSY_LOOKS {
        match timeout(POOL_WITHIN, pool.ask(GetPool)).await {
            Ok(Ok(picture)) if picture.queued + picture.booting > 0 => sleep(BUSY_AGAIN).await,
            _ => return,
        }
    }
}

async fn attempt(store: &dyn ImageStore, trials: &dyn ImageTrials, runtime: Runtime, digest: &Digest) -> Event {
    let root = match store.root(runtime, digest).await {
        Ok(root) => root,
        Err(error) => return Event::Failed { reason: error_chain(&error).to_string() },
    };
    match trials.attempt(runtime, root).await {
        Ok(took) => Event::Passed { took },
        Err(TrialError::Image(reason)) => Event::Failed { reason },
        Err(TrialError::Host(reason)) => Event::Disturbed { reason },
    }
}

impl Actor for Images {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.beat();
        ctx.run_interval(self.seat.beat_every(), |images, _| images.beat());
        let trials = Arc::clone(&self.deps.trials);
        let swept = async move { trials.sweep().await }.into_actor(self);
        self.sweep = Some(ctx.spawn(swept.map(|(), images, ctx| images.check(ctx))));
    }
}

impl Handler<Drain> for Images {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        let outside = std::mem::take(&mut self.work).into_values();
        for work in outside.chain(self.sweep.take()).chain(self.wake.take()) {
            ctx.cancel_future(work);
        }
        // A trial that was cut off has left its sandbox.
        let trials = Arc::clone(&self.deps.trials);
        let swept = async move { trials.sweep().await }.into_actor(self);
        ctx.spawn(swept.map(|(), images, ctx| {
            images.seat.leave();
            ctx.stop();
        }));
    }
}

impl Handler<CheckImages> for Images {
    type Result = ();

    fn handle(&mut self, _: CheckImages, ctx: &mut Self::Context) {
        self.check(ctx);
    }
}

impl Handler<GetImages> for Images {
    type Result = MessageResult<GetImages>;

    fn handle(&mut self, _: GetImages, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.machine.pictures())
    }
}
