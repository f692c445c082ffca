//! The Supervisor: starts the other actors, restarts them one for one, and stops them in order.
//!
//! ```text
//!   Beat, ChildDown, Tick, Shutdown, Abandon ──► domain::restart::Supervision ──► Start, Dismiss, Stop, Drained
//! ```
//!
//! A child is made by its factory for every life anew, with a [`Seat`] that tells of its end. A child that hangs
//! cannot be stopped from outside: its handles are withdrawn, its thread is let go, and a new life begins elsewhere.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::prelude::*;
use slog::{Logger, crit, info, warn};
use tokio::sync::oneshot;

use crate::actors::seat::Seat;
use crate::actors::timer::Timer;
use crate::domain::health::{HealthPicture, Part};
use crate::domain::restart::{ChildName, Effect, Event, Generation, RestartPolicy, Supervision};
use crate::domain::time::Moment;
use crate::messages::child::Drain;
use crate::messages::supervisor::{Abandon, Beat, ChildDown, GetHealth, Shutdown};
use crate::ports::clock::Clock;
use crate::ports::notify::ServiceNotifier;

#[cfg(test)]
mod tests;

/// Places in the mailbox: beats are small and frequent, and the fact of a child's end must find room.
const MAILBOX: usize = 1024;

/// A child as the Supervisor can reach it.
pub struct RunningChild {
    pub drain: Recipient<Drain>,
    /// Withdraws its handles and lets go of its thread.
    pub dismiss: Box<dyn FnOnce()>,
}

/// How one child is made. Called once for every life.
pub struct ChildSpec {
    pub name: ChildName,
    /// Whether the daemon ends when this child is given up.
    pub essential: bool,
    pub start: Box<dyn Fn(Seat) -> RunningChild>,
}

/// How the Supervisor's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All children stopped, within the drain's deadline or not.
    Drained { in_time: bool },
    /// An essential child was given up.
    GaveUp(ChildName),
    /// A child asked for the daemon's end, as for one that failed.
    Abandoned,
}

/// What the Supervisor needs.
pub struct Deps {
    pub policy: RestartPolicy,
    pub beat_every: std::time::Duration,
    pub clock: Arc<dyn Clock>,
    pub notifier: Arc<dyn ServiceNotifier>,
    /// Loud facts for the health picture.
    pub warnings: Vec<String>,
    /// Parts that this host does not use, with the reason.
    pub off: Vec<Part>,
    pub log: Logger,
    /// Feeds the jitter.
    pub seed: u64,
}

/// The actor.
pub struct Supervisor {
    deps: Deps,
    machine: Supervision,
    specs: Vec<ChildSpec>,
    running: HashMap<(ChildName, Generation), RunningChild>,
    ended: Option<oneshot::Sender<Ended>>,
    gave_up: Option<ChildName>,
    abandoned: bool,
    tick: Timer,
    announced_start: bool,
    announced_ready: bool,
    status: String,
}

impl Supervisor {
    /// A supervisor over `specs`, in their start order, and the place where its end is told.
    pub fn new(deps: Deps, specs: Vec<ChildSpec>) -> (Self, oneshot::Receiver<Ended>) {
        let rules: Vec<(ChildName, bool)> = specs.iter().map(|spec| (spec.name, spec.essential)).collect();
        let machine = Supervision::new(deps.policy, &rules, deps.seed);
        let (ended, told) = oneshot::channel();
        let supervisor = Self {
            deps,
            machine,
            specs,
            running: HashMap::new(),
            ended: Some(ended),
            gave_up: None,
            abandoned: false,
            tick: Timer::default(),
            announced_start: false,
            announced_ready: false,
            status: String::new(),
        };
        (supervisor, told)
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now = self.deps.clock.now();
        for effect in self.machine.step(event, now) {
            self.perform(effect, ctx);
        }
        self.arm_tick(now, ctx);
        self.tell_service_manager();
    }

    fn arm_tick(&mut self, now: Moment, ctx: &mut Context<Self>) {
        self.tick.put_forward(now, self.machine.next_tick(now), ctx, Self::on_tick);
    }

    fn on_tick(&mut self, ctx: &mut Context<Self>) {
        self.tick.went_off();
        self.step(Event::Tick, ctx);
        if self.machine.is_live(self.deps.clock.now()) {
            self.deps.notifier.watchdog();
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let log = &self.deps.log;
        match effect {
            Effect::Start { child, generation } => self.start(child, generation, ctx),
            Effect::Dismiss { child, generation, hung } => {
                if hung {
                    warn!(log, "child.hung"; "child" => child, "generation" => generation.0);
                }
                if let Some(running) = self.running.remove(&(child, generation)) {
                    (running.dismiss)();
                }
            }
            Effect::Stop { child, generation, hurry } => {
                info!(log, "child.stopping"; "child" => child, "hurry" => hurry);
                if let Some(running) = self.running.get(&(child, generation)) {
                    drop(running.drain.try_send(Drain { hurry }));
                }
            }
            Effect::Restarting { child, falls, wait } => {
                warn!(log, "child.restarting"; "child" => child, "falls" => falls, "wait_ms" => wait.as_millis());
            }
            Effect::GaveUp { child, essential } => {
                crit!(log, "child.gave_up"; "child" => child, "essential" => essential);
                if essential {
                    self.gave_up = Some(child);
                    self.step(Event::Shutdown { hurry: true }, ctx);
                }
            }
            Effect::Drained { in_time } => {
                let asked = if self.abandoned { Ended::Abandoned } else { Ended::Drained { in_time } };
                let ended = self.gave_up.map_or(asked, Ended::GaveUp);
                if let Some(place) = self.ended.take() {
                    // Nobody listens any more: then nobody has to be told.
                    let _ = place.send(ended);
                }
            }
        }
    }

    fn start(&mut self, child: ChildName, generation: Generation, ctx: &mut Context<Self>) {
        let Some(spec) = self.specs.iter().find(|spec| spec.name == child) else { return };
        info!(self.deps.log, "child.starting"; "child" => child, "generation" => generation.0);
        let seat = Seat::new(&ctx.address(), child, generation, self.deps.beat_every);
        // A panic in the factory drops the seat, and the seat tells of it.
        if let Ok(running) = catch_unwind(AssertUnwindSafe(|| (spec.start)(seat))) {
            self.running.insert((child, generation), running);
        }
    }

    fn tell_service_manager(&mut self) {
        let picture = self.picture();
        if picture.is_started() && !self.announced_start {
            self.announced_start = true;
            self.deps.notifier.ready();
        }
        if picture.ready && !self.announced_ready {
            self.announced_ready = true;
            info!(self.deps.log, "daemon.ready"; "uptime_ms" => self.deps.clock.now().0);
        }
        let status = picture.summary();
        if status != self.status {
            self.deps.notifier.status(&status);
            self.status = status;
        }
    }

    fn picture(&self) -> HealthPicture {
        let now = self.deps.clock.now();
        HealthPicture {
            live: self.machine.is_live(now),
            ready: self.machine.is_ready(),
            draining: self.machine.is_draining(),
            warnings: self.deps.warnings.clone(),
            parts: self.machine.parts(now).into_iter().chain(self.deps.off.iter().cloned()).collect(),
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.step(Event::Begin, ctx);
    }
}

impl Handler<Beat> for Supervisor {
    type Result = ();

    fn handle(&mut self, beat: Beat, ctx: &mut Self::Context) {
        let Beat { child, generation, complaints } = beat;
        self.step(Event::Beat { child, generation, complaints }, ctx);
    }
}

impl Handler<ChildDown> for Supervisor {
    type Result = ();

    fn handle(&mut self, down: ChildDown, ctx: &mut Self::Context) {
        let ChildDown { child, generation, exit } = down;
        info!(self.deps.log, "child.down"; "child" => child, "generation" => generation.0, "exit" => ?exit);
        self.step(Event::Down { child, generation, exit }, ctx);
    }
}

impl Handler<GetHealth> for Supervisor {
    type Result = MessageResult<GetHealth>;

    fn handle(&mut self, _: GetHealth, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.picture())
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ();

    fn handle(&mut self, shutdown: Shutdown, ctx: &mut Self::Context) {
        self.deps.notifier.stopping();
        self.step(Event::Shutdown { hurry: shutdown.hurry }, ctx);
    }
}

impl Handler<Abandon> for Supervisor {
    type Result = ();

    fn handle(&mut self, abandon: Abandon, ctx: &mut Self::Context) {
        crit!(self.deps.log, "daemon.abandoned"; "reason" => abandon.reason);
        // A daemon that was already told to stop ends as it was told to.
        self.abandoned |= !self.machine.is_draining();
        self.deps.notifier.stopping();
        self.step(Event::Shutdown { hurry: false }, ctx);
    }
}
