//! A QueueIngress: one source's jobs are taken, opened, run, answered and posted here.
//!
//! ```text
//!   source.take ─► domain::admission ◄─ room ─ domain::lease ◄─ InstanceStood, JobProgressed, Stop, Drain
//!                                                   │ effects
//!       Open ─► images ─► RunJob | Execute ─► body ─► Seal | upload ─► source.settle
//!                 each a future that ends in one event ◄┘
//! ```
//!
//! What the machines decide by is small; a job's own things (its input, its report, its answer) stay in `works` until it
//! is forgotten. Nothing of them is logged: a line names the job's id as `requestId`, and codes.

mod answers;
mod opening;
mod posting;
mod progress;
mod runs;
mod taking;
#[cfg(test)]
mod tests;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{Logger, info};
use tokio::sync::Semaphore;

use crate::actors::seat::Seat;
use crate::domain::admission::{Admission, AdmissionPolicy};
use crate::domain::bucket::Bucket;
use crate::domain::execution::{ExecutionReport, LimitPolicy};
use crate::domain::instance::InstanceName;
use crate::domain::job::{JobId, JobView, QueueRefusal};
use crate::domain::lease::{Effect, Event, Fate, LeasePolicy, Leases};
use crate::domain::time::WallTime;
use crate::messages::child::Drain;
use crate::messages::comfy_process::{InstanceStood, InterruptJob, JobProgressed, RunJob};
use crate::messages::crypto::{Open, Seal};
use crate::messages::handle::Handle;
use crate::messages::queue_ingress::{CancelJob, GetIngress, IngressPicture, SubmitJob};
use crate::messages::sandbox_pool::{CancelExecution, Execute};
use crate::messages::supervisor::Abandon;
use crate::ports::bucket::ObjectStore;
use crate::ports::clock::Clock;
use crate::ports::fetch::Fetcher;
use crate::ports::job_queue::JobQueue;
use crate::ports::job_source::JobSource;

use work::Work;

/// Places in the mailbox. What is told again may be lost: how instances stand, and progress.
const MAILBOX: usize = 4096;
/// How long a report of being unwell, or a heartbeat, may take.
const CALL_DEADLINE: Duration = Duration::from_secs(20);

/// One instance, as an ingress reaches it.
#[derive(Clone)]
pub struct Instance {
    pub name: InstanceName,
    pub run: Handle<RunJob>,
    pub interrupt: Handle<InterruptJob>,
}

/// What an ingress works with.
#[derive(Clone)]
pub struct Deps {
    pub source: Arc<dyn JobSource>,
    /// The source's other side, when it is this host's own queue.
    pub queue: Option<Arc<dyn JobQueue>>,
    pub open: Handle<Open>,
    pub seal: Handle<Seal>,
    pub instances: Vec<Instance>,
    pub execute: Handle<Execute>,
    pub cancel: Handle<CancelExecution>,
    /// Writes a call's report as the HTTP route's body, in JSON.
    pub render: fn(ExecutionReport, WallTime) -> String,
    pub fetcher: Arc<dyn Fetcher>,
    pub objects: Arc<dyn ObjectStore>,
    /// Where large outputs go when a job brings no bucket of its own.
    pub bucket: Option<Bucket>,
    /// Ends the daemon when no instance starts any more.
    pub abandon: Handle<Abandon>,
    pub clock: Arc<dyn Clock>,
    pub log: Logger,
    pub settings: Settings,
}

/// How an ingress works.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub leases: LeasePolicy,
    pub admission: AdmissionPolicy,
    /// For handlers.
    pub limits: LimitPolicy,
    /// No job is run (`DRY_RUN`); `leases.without_instances` is then set, too.
    pub dry_run: bool,
    /// No history in any answer (`NO_HISTORY`).
    pub no_history: bool,
    /// Ask the platform to recycle this worker after each job (`runpod.refresh_worker`).
    pub refresh_worker: bool,
    /// How long an uploaded output can be read by its address.
    pub link_lasts: Duration,
    /// Feeds the jitter; different on each host.
    pub seed: u64,
}

/// The actor.
pub struct QueueIngress {
    deps: Deps,
    seat: Seat,
    leases: Leases,
    admission: Admission,
    works: HashMap<JobId, Work>,
    /// The turn of a large answer: one at a time is made.
    large: Arc<Semaphore>,
    /// Counts polls: what an earlier one brings is taken, but is no news to the admission.
    poll: u64,
    /// A poll is under way, also one that was told to end.
    polls_open: usize,
    beating: bool,
    /// Waits before the source is asked again what to stop, in a row.
    stop_failures: u32,
    taken: u64,
    settled: u64,
    failed: u64,
    duplicates: u64,
    /// Answers that the source did not take, for readiness: told until one is taken.
    given_up: u64,
}

impl QueueIngress {
    /// An ingress for one life.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        let names: Vec<InstanceName> = deps.instances.iter().map(|instance| instance.name).collect();
        let Settings { leases, admission, seed, .. } = deps.settings;
        Self {
            seat,
            leases: Leases::new(leases, &names, seed),
            admission: Admission::new(admission, seed.rotate_left(17)),
            works: HashMap::new(),
            large: Arc::new(Semaphore::new(1)),
            poll: 0,
            polls_open: 0,
            beating: false,
            stop_failures: 0,
            taken: 0,
            settled: 0,
            failed: 0,
            duplicates: 0,
            given_up: 0,
            deps,
        }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now = self.deps.clock.now();
        for effect in self.leases.step(event, now) {
            self.perform(effect, ctx);
        }
        // In the same turn: a place that became free is asked for before anything else is waited for.
        self.tell_room(ctx);
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Open { job } => self.open(job, ctx),
            Effect::Run { job, on } => self.run(job, on, ctx),
            Effect::Execute { job } => self.execute(job, ctx),
            Effect::Interrupt { job, on } => self.interrupt(&job, on, ctx),
            Effect::Conclude { job, end } => self.conclude(job, end, ctx),
            Effect::Post { job } => self.post(job, ctx),
            Effect::Replace { job } => self.replace(&job),
            Effect::Update { job } => self.update(job, ctx),
            Effect::Duplicate { job } => {
                self.duplicates += 1;
                info!(self.deps.log, "job.duplicate"; "requestId" => job.as_str());
            }
            Effect::Retrying { job, wait } => {
                info!(self.deps.log, "job.unsent"; "requestId" => job.as_str(), "again_in_ms" => wait.as_millis());
            }
            Effect::Forget { job, fate } => self.forget(&job, fate),
            Effect::WakeIn(after) => drop(ctx.run_later(after, |ingress, ctx| ingress.step(Event::Tick, ctx))),
            Effect::Abandon { reason } => self.abandon(reason, ctx),
            Effect::StopTaking => self.stop_taking_for_good(ctx),
            Effect::Drained => {
                info!(self.deps.log, "ingress.drained");
                self.seat.leave();
                ctx.stop();
            }
        }
    }

    fn forget(&mut self, job: &JobId, fate: Fate) {
        let Some(work) = self.works.remove(job) else { return };
        let ms = self.deps.clock.uptime().saturating_sub(work.taken).as_millis();
        match fate {
            Fate::Settled => {
                self.settled += 1;
                self.given_up = 0;
                let failed = work.answer.as_ref().is_some_and(|answer| answer.error.is_some());
                self.failed += u64::from(failed);
                let outcome = if failed { "failed" } else { "ok" };
                info!(self.deps.log, "job.settled"; "requestId" => job.as_str(), "outcome" => outcome,
                    "code" => work.code, "ms" => ms);
            }
            Fate::Stopped => info!(self.deps.log, "job.stopped"; "requestId" => job.as_str(), "ms" => ms),
            Fate::GivenUp => {
                self.given_up += 1;
                slog::error!(self.deps.log, "job.lost"; "requestId" => job.as_str(), "ms" => ms,
                    "reason" => "its source does not take the answer");
            }
        }
        if let Some(again) = work.again {
            self.works.insert(job.clone(), Work::new(again, self.deps.clock.uptime()));
        }
    }

    fn abandon(&mut self, reason: String, ctx: &mut Context<Self>) {
        slog::error!(self.deps.log, "ingress.abandoned"; "reason" => &reason);
        let (source, abandon) = (Arc::clone(&self.deps.source), self.deps.abandon.clone());
        let work = async move {
            let report = source.report_unhealthy("comfyui_start", &reason);
            let _ = tokio::time::timeout(CALL_DEADLINE, report).await;
            // Should the Supervisor be gone, the daemon ends already.
            let _ = abandon.ask(Abandon { reason }).await;
        };
        ctx.spawn(work.into_actor(self));
    }

    /// Runs a piece of outside work; what it comes to is handled on the actor.
    fn spawn<T: 'static>(
        &self,
        ctx: &mut Context<Self>,
        work: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        ctx.spawn(work.into_actor(self).map(|outcome, ingress, ctx| then(ingress, outcome, ctx)));
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.leases.complaints();
        if let (true, Some(trouble)) = (self.admission.is_in_trouble(), self.admission.trouble()) {
            let circuit = self.admission.circuit().as_str();
            complaints.push(format!("{}: {trouble} (circuit {circuit})", self.deps.source.name()));
        }
        if self.leases.is_full() {
            complaints.push("nothing is taken: the answers that are not off fill jobs.spool_mib".to_owned());
        }
        if self.given_up > 0 {
            complaints.push(format!("{} answers were not taken by {}", self.given_up, self.deps.source.name()));
        }
        complaints
    }

    fn picture(&self) -> IngressPicture {
        let counts = self.leases.counts();
        IngressPicture {
            source: self.deps.source.name().to_owned(),
            circuit: self.admission.circuit().as_str(),
            opening: counts.opening,
            waiting: counts.waiting,
            running: counts.running,
            unsent: counts.unsent,
            unsent_bytes: counts.unsent_bytes,
            taken: self.taken,
            settled: self.settled,
            failed: self.failed,
            duplicates: self.duplicates,
            trouble: self.admission.trouble().map(str::to_owned),
            instances_ready: counts.instances.ready,
            instances_busy: counts.instances.busy,
            instances_starting: counts.instances.starting,
            instances_unwell: counts.instances.unwell,
        }
    }
}

impl Actor for QueueIngress {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.seat.beat(self.complaints());
        ctx.run_interval(self.seat.beat_every(), |ingress, _| ingress.seat.beat(ingress.complaints()));
        self.begin_heartbeats(ctx);
        self.await_stops(ctx);
        self.tell_room(ctx);
    }
}

impl Handler<InstanceStood> for QueueIngress {
    type Result = ();

    fn handle(&mut self, message: InstanceStood, ctx: &mut Self::Context) {
        let InstanceStood { instance, standing } = message;
        self.step(Event::Stood { instance, standing }, ctx);
        // Readiness need not wait for the next beat.
        self.seat.beat(self.complaints());
    }
}

impl Handler<JobProgressed> for QueueIngress {
    type Result = ();

    fn handle(&mut self, message: JobProgressed, ctx: &mut Self::Context) {
        self.note_progress(message, ctx);
    }
}

impl Handler<SubmitJob> for QueueIngress {
    type Result = Result<(), QueueRefusal>;

    fn handle(&mut self, message: SubmitJob, _: &mut Self::Context) -> Self::Result {
        // Only the ingress of a queue is published for this; another one refuses.
        self.deps.queue.as_ref().map_or(Err(QueueRefusal::Draining), |queue| queue.submit(message.job))
    }
}

impl Handler<CancelJob> for QueueIngress {
    type Result = MessageResult<CancelJob>;

    fn handle(&mut self, message: CancelJob, _: &mut Self::Context) -> Self::Result {
        let view: Option<JobView> = self.deps.queue.as_ref().and_then(|queue| queue.cancel(&message.job));
        MessageResult(view)
    }
}

impl Handler<GetIngress> for QueueIngress {
    type Result = MessageResult<GetIngress>;

    fn handle(&mut self, _: GetIngress, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.picture())
    }
}

impl Handler<Drain> for QueueIngress {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        info!(self.deps.log, "ingress.draining"; "hurry" => drain.hurry);
        if let Some(queue) = &self.deps.queue {
            queue.close();
        }
        self.step(Event::Drain { hurry: drain.hurry }, ctx);
    }
}
