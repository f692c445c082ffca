//! The source's side: polls, heartbeats, stops.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{debug, info, warn};
use tokio::time::{sleep, timeout};

use super::work::Work;
use super::{CALL_DEADLINE, QueueIngress};
use crate::domain::admission::{self, Poll};
use crate::domain::job::Job;
use crate::domain::lease::Event;
use crate::ports::job_source::{Empty, SourceError, Taken};

/// Between two tries to ask what is to be stopped, after a failure; doubled up to the longest.
const STOPS_FIRST: Duration = Duration::from_secs(1);
const STOPS_LONGEST: Duration = Duration::from_secs(30);
/// After "slow down", at least.
const STOPS_PAUSE: Duration = Duration::from_secs(5);

impl QueueIngress {
    /// Says how much room there is; a poll may follow from it.
    pub(super) fn tell_room(&mut self, ctx: &mut Context<Self>) {
        let slots = self.leases.slots();
        self.admit(admission::Event::Room { slots }, ctx);
    }

    fn admit(&mut self, event: admission::Event, ctx: &mut Context<Self>) {
        let now = self.deps.clock.now();
        for effect in self.admission.step(event, now) {
            match effect {
                admission::Effect::Take { slots } => self.take(slots, ctx),
                admission::Effect::Abort => self.end_poll(ctx),
                admission::Effect::WakeIn(after) => {
                    ctx.run_later(after, |ingress, ctx| ingress.admit(admission::Event::Tick, ctx));
                }
                admission::Effect::CircuitOpened { reason, wait } => {
                    warn!(self.deps.log, "source.down"; "reason" => reason, "again_in_ms" => wait.as_millis());
                }
                admission::Effect::CircuitClosed => info!(self.deps.log, "source.up"),
            }
        }
    }

    fn take(&mut self, slots: usize, ctx: &mut Context<Self>) {
        self.poll += 1;
        self.polls_open += 1;
        let (poll, busy, source) = (self.poll, self.leases.is_busy(), Arc::clone(&self.deps.source));
        let work = async move { source.take(slots, busy).await };
        self.spawn(ctx, work, move |ingress, taken, ctx| {
            ingress.polls_open -= 1;
            ingress.took(poll, taken, ctx);
        });
    }

    fn took(&mut self, poll: u64, taken: Result<Taken, SourceError>, ctx: &mut Context<Self>) {
        let ended = match taken {
            Ok(taken) => match self.came(taken, ctx) {
                0 => Poll::Empty,
                _ => Poll::Jobs,
            },
            Err(SourceError::Throttled { retry_after }) => Poll::Throttled { retry_after },
            Err(error) => Poll::Failed { reason: error.to_string() },
        };
        if let Poll::Failed { reason } = &ended {
            debug!(self.deps.log, "source.poll_failed"; "reason" => reason);
        }
        if poll == self.poll {
            // The room first: the next poll asks for what is left.
            let slots = self.leases.slots();
            self.admission.note_room(slots);
            self.admit(admission::Event::Ended(ended), ctx);
        } else {
            self.tell_room(ctx);
        }
    }

    /// Takes what was handed out, and says how many of it are new.
    fn came(&mut self, taken: Taken, ctx: &mut Context<Self>) -> usize {
        if taken.malformed > 0 {
            warn!(self.deps.log, "source.malformed"; "entries" => taken.malformed);
        }
        if let Some(why @ (Empty::Parked | Empty::Unreadable)) = taken.empty {
            debug!(self.deps.log, "source.no_jobs"; "why" => ?why);
        }
        taken.jobs.into_iter().map(|job| usize::from(self.came_one(job, ctx))).sum()
    }

    fn came_one(&mut self, job: Job, ctx: &mut Context<Self>) -> bool {
        let id = job.id.clone();
        let new = match self.works.get_mut(&id) {
            // The machine decides whether it is a duplicate, or runs after the stopped one.
            Some(work) => {
                let waits = self.leases.runs_again(&id);
                if waits {
                    work.again = Some(job);
                }
                waits
            }
            None => {
                self.works.insert(id.clone(), Work::new(job, self.deps.clock.uptime()));
                true
            }
        };
        if new {
            self.taken += 1;
            info!(self.deps.log, "job.taken"; "requestId" => id.as_str());
        }
        let now = self.deps.clock.now();
        for effect in self.leases.step(Event::Came { job: id }, now) {
            self.perform(effect, ctx);
        }
        new
    }

    /// Ends the open poll: no instance is ready any more. What was handed out in that instant is taken all the same.
    fn end_poll(&mut self, ctx: &mut Context<Self>) {
        self.poll += 1;
        let source = Arc::clone(&self.deps.source);
        self.spawn(ctx, async move { source.stop_taking().await }, |ingress, taken, ctx| {
            ingress.came(taken, ctx);
            ingress.tell_room(ctx);
        });
    }

    /// Ends the open poll for the drain. The machine hears of it when no poll can bring a job any more.
    pub(super) fn stop_taking_for_good(&mut self, ctx: &mut Context<Self>) {
        self.admit(admission::Event::Close, ctx);
        let source = Arc::clone(&self.deps.source);
        self.spawn(ctx, async move { source.stop_taking().await }, |ingress, taken, ctx| {
            ingress.came(taken, ctx);
            ingress.await_last_poll(ctx);
        });
    }

    fn await_last_poll(&mut self, ctx: &mut Context<Self>) {
        if self.polls_open == 0 {
            return self.step(Event::TakingEnded, ctx);
        }
        // The poll has been told to end, and what it brings is still on its way through this actor.
        ctx.run_later(Duration::from_millis(5), |ingress, ctx| ingress.await_last_poll(ctx));
    }

    pub(super) fn begin_heartbeats(&mut self, ctx: &mut Context<Self>) {
        let Some(every) = self.deps.source.heartbeat_every() else { return };
        self.heartbeat(ctx);
        ctx.run_interval(every, |ingress, ctx| ingress.heartbeat(ctx));
    }

    /// One at a time: a slow platform must not pile them up.
    fn heartbeat(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.beating, true) {
            return;
        }
        let (source, held) = (Arc::clone(&self.deps.source), self.leases.ids());
        let work = async move { timeout(CALL_DEADLINE, source.heartbeat(&held)).await };
        self.spawn(ctx, work, |ingress, beaten, _| {
            ingress.beating = false;
            if let Ok(Err(error)) = beaten {
                debug!(ingress.deps.log, "source.heartbeat_failed"; "reason" => error.to_string());
            }
        });
    }

    pub(super) fn await_stops(&mut self, ctx: &mut Context<Self>) {
        let (source, failures) = (Arc::clone(&self.deps.source), self.stop_failures);
        let work = async move {
            let stops = source.stops().await;
            let wait = match &stops {
                Ok(ids) if !ids.is_empty() => Duration::ZERO,
                Ok(_) => STOPS_FIRST,
                Err(SourceError::Throttled { retry_after }) => {
                    retry_after.unwrap_or_default().clamp(STOPS_PAUSE, STOPS_LONGEST)
                }
                Err(_) => STOPS_FIRST.saturating_mul(1 << failures.min(5)).min(STOPS_LONGEST),
            };
            (stops, wait)
        };
        self.spawn(ctx, work, |ingress, (stops, wait), ctx| {
            ingress.stop_failures = if stops.is_ok() { 0 } else { ingress.stop_failures.saturating_add(1) };
            for job in stops.unwrap_or_default() {
                ingress.step(Event::Stopped { job }, ctx);
            }
            ingress.spawn(ctx, sleep(wait), |ingress, (), ctx| ingress.await_stops(ctx));
        });
    }
}
