//! The machine of all leases: from being taken to being run. What follows the answer is in `posting`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Effect, End, Event, Fate, LeaseCounts, LeasePolicy, Need, RunFault};
use crate::domain::admission::Dice;
use crate::domain::instance::InstanceName;
use crate::domain::job::JobId;
use crate::domain::placement::Placement;
use crate::domain::time::Moment;

/// An instance that is lost under a job may have been lost because of it: it is given to a second one only.
const MOST_LOSSES: u32 = 2;
/// Answers that are not off, however small.
const MOST_UNSENT: usize = 1_000;

pub(super) enum Stage {
    Opening,
    Waiting {
        models: Vec<String>,
    },
    Running {
        on: Option<InstanceName>,
    },
    Concluding,
    /// The answer is made, and waits for an update that is under way.
    Ready,
    Posting,
    Retrying {
        until: Moment,
    },
    /// All is over but an update that is under way.
    Leaving {
        fate: Fate,
    },
}

#[derive(Default)]
pub(super) struct Updates {
    last: Option<Moment>,
    pub(super) under_way: bool,
    fresh: bool,
}

pub(super) struct Lease {
    pub(super) stage: Stage,
    /// Its models, kept for a second placement.
    models: Vec<String>,
    /// Since when it waits for an instance; a refused run does not begin the wait anew.
    waits_since: Moment,
    pub(super) stopped: bool,
    /// It came again after it was stopped, and runs anew when the stopped run is over.
    again: bool,
    losses: u32,
    /// Failed posts in a row.
    pub(super) failures: u32,
    pub(super) replaced: bool,
    pub(super) bytes: usize,
    pub(super) updates: Updates,
}

impl Lease {
    fn new() -> Self {
        Self {
            stage: Stage::Opening,
            models: Vec::new(),
            waits_since: Moment(0),
            stopped: false,
            again: false,
            losses: 0,
            failures: 0,
            replaced: false,
            bytes: 0,
            updates: Updates::default(),
        }
    }
}

/// All jobs that one ingress holds.
pub struct Leases {
    pub(super) policy: LeasePolicy,
    pub(super) dice: Dice,
    pub(super) held: BTreeMap<JobId, Lease>,
    placement: Placement,
    waiting: VecDeque<JobId>,
    /// Some once a drain has begun: whether it hurries.
    pub(super) draining: Option<bool>,
    taking_ended: bool,
    drained: bool,
    abandoned: bool,
    /// When a `Tick` is due already.
    wake_at: Option<Moment>,
}

impl Leases {
    /// Nothing held; `seed` feeds the jitter.
    pub fn new(policy: LeasePolicy, instances: &[InstanceName], seed: u64) -> Self {
        Self {
            policy,
            dice: Dice::new(seed),
            held: BTreeMap::new(),
            placement: Placement::new(instances),
            waiting: VecDeque::new(),
            draining: None,
            taking_ended: false,
            drained: false,
            abandoned: false,
            wake_at: None,
        }
    }

    /// Takes one event and says what follows from it.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let out = &mut effects;
        match event {
            Event::Came { job } => self.came(job, out),
            Event::Opened { job, need } => self.opened(&job, need, now, out),
            Event::RunEnded { job } => self.run_ended(&job, out),
            Event::RunFailed { job, fault } => self.run_failed(&job, &fault, out),
            Event::Answered { job, bytes } => self.answered(&job, bytes, out),
            Event::Posted { job } => self.posted(&job, out),
            Event::PostFailed { job, fault } => self.post_failed(&job, fault, now, out),
            Event::Progressed { job } => self.progressed(&job),
            Event::UpdateEnded { job } => self.update_ended(&job, out),
            Event::Stopped { job } => self.stopped(&job, out),
            Event::Stood { instance, standing } => self.placement.stood(instance, standing),
            Event::Tick => {}
            Event::Drain { hurry } => self.drain(hurry, out),
            Event::TakingEnded => self.taking_ended = true,
        }
        if self.wake_at.is_some_and(|at| now >= at) {
            self.wake_at = None;
        }
        self.expire(now, out);
        self.dispatch(out);
        self.retry_due(now, out);
        self.pump_updates(now, out);
        self.give_up_host(out);
        self.finish_drain(out);
        self.wake(now, out);
        effects
    }

    fn came(&mut self, job: JobId, out: &mut Vec<Effect>) {
        match self.held.get_mut(&job) {
            Some(lease) if lease.stopped && !lease.again => lease.again = true,
            Some(_) => out.push(Effect::Duplicate { job }),
            None => self.begin(job, out),
        }
    }

    fn begin(&mut self, job: JobId, out: &mut Vec<Effect>) {
        self.held.insert(job.clone(), Lease::new());
        if self.hurries() {
            self.conclude(&job, End::Stopping, out);
        } else {
            out.push(Effect::Open { job });
        }
    }

    fn opened(&mut self, job: &JobId, need: Need, now: Moment, out: &mut Vec<Effect>) {
        let hurries = self.hurries();
        let Some(lease) = self.held.get_mut(job).filter(|lease| matches!(lease.stage, Stage::Opening)) else { return };
        if lease.stopped {
            return self.forget(job, Fate::Stopped, out);
        }
        match need {
            _ if hurries => self.conclude(job, End::Stopping, out),
            Need::Nothing => self.conclude(job, End::Dry, out),
            Need::Handler => {
                lease.stage = Stage::Running { on: None };
                out.push(Effect::Execute { job: job.clone() });
            }
            Need::Instance { models } => {
                lease.models = models;
                lease.waits_since = now;
                self.wait(job, false);
            }
        }
    }

    fn wait(&mut self, job: &JobId, in_front: bool) {
        let Some(lease) = self.held.get_mut(job) else { return };
        lease.stage = Stage::Waiting { models: lease.models.clone() };
        if in_front { self.waiting.push_front(job.clone()) } else { self.waiting.push_back(job.clone()) }
    }

    fn dispatch(&mut self, out: &mut Vec<Effect>) {
        while let Some(job) = self.waiting.front().cloned() {
            let Some(lease) = self.held.get_mut(&job) else {
                self.waiting.pop_front();
                continue;
            };
            let Stage::Waiting { models } = &lease.stage else {
                self.waiting.pop_front();
                continue;
            };
            let Some(on) = self.placement.give(models) else { return };
            lease.stage = Stage::Running { on: Some(on) };
            self.waiting.pop_front();
            out.push(Effect::Run { job, on });
        }
    }

    fn run_ended(&mut self, job: &JobId, out: &mut Vec<Effect>) {
        let Some(lease) = self.held.get(job) else { return };
        let Stage::Running { on } = lease.stage else { return };
        if let Some(name) = on {
            self.placement.ended(name);
        }
        if lease.stopped { self.forget(job, Fate::Stopped, out) } else { self.conclude(job, End::Ran, out) }
    }

    fn run_failed(&mut self, job: &JobId, fault: &RunFault, out: &mut Vec<Effect>) {
        let hurries = self.hurries();
        let Some(lease) = self.held.get_mut(job) else { return };
        let Stage::Running { on: Some(name) } = lease.stage else { return };
        match fault {
            RunFault::NotRun(why) => self.placement.refused(name, why),
            RunFault::Lost => {
                lease.losses += 1;
                self.placement.ended(name);
            }
        }
        let (stopped, losses) = (lease.stopped, lease.losses);
        match () {
            () if stopped => self.forget(job, Fate::Stopped, out),
            () if hurries => self.conclude(job, End::Stopping, out),
            () if losses >= MOST_LOSSES => self.conclude(job, End::Lost, out),
            () => self.wait(job, true),
        }
    }

    pub(super) fn conclude(&mut self, job: &JobId, end: End, out: &mut Vec<Effect>) {
        let Some(lease) = self.held.get_mut(job) else { return };
        lease.stage = Stage::Concluding;
        lease.models = Vec::new();
        lease.updates.fresh = false;
        out.push(Effect::Conclude { job: job.clone(), end });
    }

    fn stopped(&mut self, job: &JobId, out: &mut Vec<Effect>) {
        let Some(lease) = self.held.get_mut(job) else { return };
        // A stop is for all that came under this id.
        lease.again = false;
        if lease.stopped {
            return;
        }
        lease.stopped = true;
        match lease.stage {
            Stage::Running { on } => out.push(Effect::Interrupt { job: job.clone(), on }),
            Stage::Waiting { .. } | Stage::Ready | Stage::Retrying { .. } => self.forget(job, Fate::Stopped, out),
            // What is under way ends first. A post that is out cannot be called back; it is not repeated.
            Stage::Opening | Stage::Concluding | Stage::Posting | Stage::Leaving { .. } => {}
        }
    }

    /// Lets go of a job, once no update of it is under way.
    pub(super) fn forget(&mut self, job: &JobId, fate: Fate, out: &mut Vec<Effect>) {
        self.waiting.retain(|waiting| waiting != job);
        let Some(lease) = self.held.get_mut(job) else { return };
        if lease.updates.under_way {
            lease.stage = Stage::Leaving { fate };
            return;
        }
        let again = lease.again;
        self.held.remove(job);
        out.push(Effect::Forget { job: job.clone(), fate });
        if again {
            self.begin(job.clone(), out);
        }
    }

    fn progressed(&mut self, job: &JobId) {
        if let Some(lease) = self.held.get_mut(job) {
            lease.updates.fresh = matches!(lease.stage, Stage::Running { .. }) && !lease.stopped;
        }
    }

    fn pump_updates(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let every = self.policy.progress_every;
        for (job, lease) in &mut self.held {
            let due = lease.updates.last.is_none_or(|last| now.since(last) >= every);
            let wanted = matches!(lease.stage, Stage::Running { .. }) && !lease.stopped && lease.updates.fresh;
            if due && wanted && !lease.updates.under_way {
                lease.updates = Updates { last: Some(now), under_way: true, fresh: false };
                out.push(Effect::Update { job: job.clone() });
            }
        }
    }

    fn expire(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let patience = self.policy.instance_wait;
        let held = &self.held;
        let over = |job: &&JobId| held.get(*job).is_some_and(|lease| now.since(lease.waits_since) >= patience);
        let late: Vec<JobId> = self.waiting.iter().filter(over).cloned().collect();
        for job in late {
            self.waiting.retain(|waiting| *waiting != job);
            self.conclude(&job, End::NoInstance, out);
        }
    }

    fn give_up_host(&mut self, out: &mut Vec<Effect>) {
        let Some(most) = self.policy.max_failed_starts else { return };
        if self.abandoned || self.draining.is_some() {
            return;
        }
        if let Some(reason) = self.placement.hopeless(most) {
            self.abandoned = true;
            out.push(Effect::Abandon { reason });
        }
    }

    fn drain(&mut self, hurry: bool, out: &mut Vec<Effect>) {
        if self.draining.is_none() {
            out.push(Effect::StopTaking);
        }
        self.draining = Some(hurry || self.hurries());
        if !hurry {
            return;
        }
        for job in std::mem::take(&mut self.waiting) {
            self.conclude(&job, End::Stopping, out);
        }
        for (job, lease) in &mut self.held {
            match lease.stage {
                Stage::Running { on } if !lease.stopped => out.push(Effect::Interrupt { job: job.clone(), on }),
                Stage::Retrying { .. } => {
                    lease.stage = Stage::Posting;
                    out.push(Effect::Post { job: job.clone() });
                }
                _ => {}
            }
        }
    }

    pub(super) fn hurries(&self) -> bool {
        self.draining == Some(true)
    }

    fn finish_drain(&mut self, out: &mut Vec<Effect>) {
        if self.draining.is_some() && self.taking_ended && self.held.is_empty() && !self.drained {
            self.drained = true;
            out.push(Effect::Drained);
        }
    }

    fn wake(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let every = self.policy.progress_every;
        let due = self.held.values().filter_map(|lease| match lease.stage {
            Stage::Retrying { until } => Some(until),
            Stage::Waiting { .. } => Some(lease.waits_since.after(self.policy.instance_wait)),
            Stage::Running { .. } if lease.updates.fresh && !lease.updates.under_way => {
                lease.updates.last.map(|last| last.after(every))
            }
            _ => None,
        });
        let Some(next) = due.min() else { return };
        if self.wake_at.is_none_or(|at| next < at) {
            self.wake_at = Some(next);
            out.push(Effect::WakeIn(next.since(now).max(Duration::from_millis(1))));
        }
    }

    /// For how many jobs there is room: what is ready and not spoken for.
    pub fn slots(&self) -> usize {
        let counts = self.counts();
        let places = if self.policy.without_instances { self.policy.sandbox_slots } else { self.placement.len() };
        let concluding = self.held.values().filter(|lease| matches!(lease.stage, Stage::Concluding)).count();
        let full = counts.unsent_bytes >= self.policy.spool_bytes || counts.unsent >= MOST_UNSENT;
        if self.draining.is_some() || self.abandoned || full || concluding > places.max(1).saturating_mul(2) {
            return 0;
        }
        let not_run = counts.opening + counts.waiting;
        let handlers = self.held.values().filter(|lease| matches!(lease.stage, Stage::Running { on: None })).count();
        if self.policy.without_instances {
            return self.policy.sandbox_slots.saturating_sub(not_run + handlers);
        }
        if handlers >= self.policy.sandbox_slots { 0 } else { counts.instances.ready.saturating_sub(not_run) }
    }

    /// The jobs that a heartbeat names: all but those that the source has stopped.
    pub fn ids(&self) -> Vec<JobId> {
        self.held.iter().filter(|(_, lease)| !lease.stopped || lease.again).map(|(job, _)| job.clone()).collect()
    }

    /// Whether a job that comes under this id runs when the stopped one is over.
    pub fn runs_again(&self, job: &JobId) -> bool {
        self.held.get(job).is_some_and(|lease| lease.stopped && !lease.again)
    }

    /// Whether anything is held.
    pub fn is_busy(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the answers that are not off take all the room that they may.
    pub fn is_full(&self) -> bool {
        let counts = self.counts();
        counts.unsent_bytes >= self.policy.spool_bytes || counts.unsent >= MOST_UNSENT
    }

    /// Why no instance works, by name.
    pub fn complaints(&self) -> Vec<String> {
        if self.policy.without_instances { Vec::new() } else { self.placement.complaints() }
    }

    /// How many jobs are where.
    pub fn counts(&self) -> LeaseCounts {
        let mut counts = LeaseCounts { instances: self.placement.counts(), ..LeaseCounts::default() };
        for lease in self.held.values() {
            counts.unsent_bytes += lease.bytes;
            match lease.stage {
                Stage::Opening => counts.opening += 1,
                Stage::Waiting { .. } => counts.waiting += 1,
                Stage::Running { .. } => counts.running += 1,
                _ => counts.unsent += 1,
            }
        }
        counts
    }
}
