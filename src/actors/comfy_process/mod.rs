//! ComfyProcess: one life of this actor is one ComfyUI process.
//!
//! ```text
//!   RunJob, InterruptJob, Drain ──► domain::instance::Instance ──► effects (effects.rs) ──► ComfyEngine, ComfyUi
//!        ▲                                   ▲                                                    │
//!        └── answers, InstanceStood          └── events: started, progress, ended, probed, gone ◄─┘
//! ```
//!
//! When the process ends, so does the actor, and the Supervisor decides when there is a next life. What a life leaves
//! behind, also by a panic, `ComfyEngine::start` of the next one sweeps away. What lives tell each other is in
//! [`Deps::record`].

mod effects;
mod gpu;
mod pending;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use slog::{Logger, info};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::actors::seat::Seat;
use crate::actors::timer::Timer;
use crate::domain::instance::{Effect, Event, Instance, InstancePolicy, InstanceSpec, RunRefused, StartRecord};
use crate::domain::job::{ComfyReport, PromptId};
use crate::messages::child::Drain;
use crate::messages::comfy_process::{GetInstance, InstancePicture, InstanceStood, InterruptJob, RunJob};
use crate::messages::handle::Handle;
use crate::ports::clock::Clock;
use crate::ports::comfy::{ComfyEngine, ComfyUi};
use crate::ports::gpu::Gpus;

use pending::{Pending, Reply};

#[cfg(test)]
mod tests;

/// How often the GPU is looked at.
const GPU_EVERY: Duration = Duration::from_secs(5);
/// Places in the mailbox: jobs come one at a time.
const MAILBOX: usize = 64;

/// What one instance works with, for each of its lives.
#[derive(Clone)]
pub struct Deps {
    pub spec: InstanceSpec,
    pub engine: Arc<dyn ComfyEngine>,
    pub gpus: Arc<dyn Gpus>,
    pub clock: Arc<dyn Clock>,
    pub policy: InstancePolicy,
    /// Shared by all instances: how many may load at once.
    pub starts: Arc<Semaphore>,
    /// Of this instance alone, shared by its lives.
    pub record: Arc<Mutex<StartRecord>>,
    /// Everyone who gives work.
    pub ingresses: Vec<Handle<InstanceStood>>,
    pub log: Logger,
}

/// The actor.
pub struct ComfyProcess {
    deps: Deps,
    seat: Seat,
    machine: Instance,
    /// The process, once it is spawned.
    ui: Option<Arc<dyn ComfyUi>>,
    /// The wait for the turn, the spawn, or the wait until it answers.
    starting: Option<SpawnHandle>,
    pending: Option<Pending>,
    /// The report of the run that has just ended, for the answer that follows.
    report: Option<ComfyReport>,
    tick: Timer,
    looking: bool,
    /// Looks in a row that the GPU driver did not answer.
    unwell: u32,
}

impl ComfyProcess {
    /// One life.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        let record = deps.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self {
            machine: Instance::new(deps.policy, record),
            deps,
            seat,
            ui: None,
            starting: None,
            pending: None,
            report: None,
            tick: Timer::default(),
            looking: false,
            unwell: 0,
        }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now = self.deps.clock.now();
        for effect in self.machine.step(event, now) {
            self.perform(effect, ctx);
        }
        self.deps.record.lock().unwrap_or_else(PoisonError::into_inner).clone_from(self.machine.record());
        self.arm_tick(ctx);
    }

    fn arm_tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.deps.clock.now();
        let Some(wait) = self.machine.next_tick(now) else { return };
        self.tick.put_forward(now, wait, ctx, |actor, ctx| {
            actor.tick.went_off();
            actor.step(Event::Tick, ctx);
        });
    }

    fn beat(&mut self) {
        self.seat.beat(self.machine.complaints(self.deps.clock.now()));
        // Facts can be lost, and a new life of an ingress has heard none.
        self.tell(&self.machine.standing());
    }

    fn tell(&self, standing: &crate::domain::instance::Standing) {
        for ingress in &self.deps.ingresses {
            ingress.tell(InstanceStood { instance: self.deps.spec.name, standing: standing.clone() });
        }
    }
}

impl Actor for ComfyProcess {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.beat();
        ctx.run_interval(self.seat.beat_every(), |actor, _| actor.beat());
        ctx.run_interval(GPU_EVERY, Self::look_at_gpu);
        self.look_at_gpu(ctx);
    }
}

impl Handler<RunJob> for ComfyProcess {
    type Result = ResponseFuture<Result<ComfyReport, RunRefused>>;

    fn handle(&mut self, RunJob { job, progress }: RunJob, ctx: &mut Self::Context) -> Self::Result {
        let prompt = PromptId(Uuid::new_v4());
        let asked = Event::RunAsked { prompt, job: job.id.clone(), models: job.models.clone(), deadline: job.deadline };
        let now = self.deps.clock.now();
        let effects = self.machine.step(asked, now);
        if let Some(why) = effects.iter().find_map(|effect| match effect {
            Effect::Refuse(why) => Some(*why),
            _ => None,
        }) {
            return Box::pin(std::future::ready(Err(why)));
        }
        info!(self.deps.log, "instance.job_taken"; "job" => %job.id, "prompt" => %prompt);
        let (reply, answer) = Reply::new(prompt);
        self.pending = Some(Pending { prompt, job: Some(job), progress, reply, run: None, began: now });
        for effect in effects {
            self.perform(effect, ctx);
        }
        self.arm_tick(ctx);
        Box::pin(async move { Ok(answer.await) })
    }
}

impl Handler<InterruptJob> for ComfyProcess {
    type Result = ();

    fn handle(&mut self, InterruptJob { job }: InterruptJob, ctx: &mut Self::Context) {
        self.step(Event::InterruptAsked { job }, ctx);
    }
}

impl Handler<GetInstance> for ComfyProcess {
    type Result = InstancePicture;

    fn handle(&mut self, _: GetInstance, _: &mut Self::Context) -> InstancePicture {
        let memory = self.ui.as_ref().and_then(|ui| ui.memory());
        InstancePicture {
            name: self.deps.spec.name.to_owned(),
            state: self.machine.state_name(),
            device: self.deps.spec.device.clone(),
            port: self.deps.spec.port,
            jobs: self.machine.jobs(),
            memory_mib: memory.map(|bytes| bytes >> 20),
            job: self.machine.job().map(ToString::to_string),
            complaints: self.machine.complaints(self.deps.clock.now()),
        }
    }
}

impl Handler<Drain> for ComfyProcess {
    type Result = ();

    fn handle(&mut self, Drain { hurry }: Drain, ctx: &mut Self::Context) {
        self.step(Event::Drain { hurry }, ctx);
    }
}
