//! The Reaper: collects what nobody owns any more.
//!
//! ```text
//!   every interval, or Reconcile ──► look around (round.rs) ──► domain::garbage::sort_out ──► collect, count
//!   every few seconds            ──► zombies, where this process is the one that must reap
//! ```
//!
//! It never fails, it counts: what could not be collected is named in its picture and tried again next time.

mod round;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{Logger, debug, info, warn};
use tokio::sync::oneshot;

use crate::actors::seat::Seat;
use crate::domain::garbage::ReaperPicture;
use crate::domain::package_set::KeepSets;
use crate::messages::child::Drain;
use crate::messages::handle::Handle;
use crate::messages::reaper::{GetReaper, Reconcile};
use crate::messages::sandbox_pool::{ExpireEnvironment, GetHoldings, RetireVolume};
use crate::ports::clock::Clock;
use crate::ports::packages::Packages;
use crate::ports::process::Zombies;
use crate::ports::sandbox::SandboxEngine;
use crate::ports::store::Store;
use crate::ports::volumes::Volumes;

#[cfg(test)]
mod tests;

/// How often zombies are looked for.
const ZOMBIES_EVERY: Duration = Duration::from_secs(5);

/// What the Reaper works with.
#[derive(Clone)]
pub struct Deps {
    pub engine: Arc<dyn SandboxEngine>,
    pub volumes: Arc<dyn Volumes>,
    pub packages: Arc<dyn Packages>,
    pub keep_sets: KeepSets,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub zombies: Arc<dyn Zombies>,
    pub holdings: Handle<GetHoldings>,
    pub expire: Handle<ExpireEnvironment>,
    pub retire: Handle<RetireVolume>,
    pub interval: Duration,
    /// Seconds without a call after which an environment expires; 0 turns that off.
    pub idle_ttl_seconds: u64,
    /// How long records of finished calls are kept.
    pub keep_executions: Duration,
    pub log: Logger,
}

/// The actor.
pub struct Reaper {
    deps: Deps,
    seat: Seat,
    picture: ReaperPicture,
    at_work: bool,
    waiting: Vec<oneshot::Sender<ReaperPicture>>,
}

impl Reaper {
    /// A Reaper for one life.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        Self { deps, seat, picture: ReaperPicture::default(), at_work: false, waiting: Vec::new() }
    }

    /// Begins a round, unless one is under way already.
    fn begin_round(&mut self, ctx: &mut Context<Self>) {
        if self.at_work {
            return;
        }
        self.at_work = true;
        let work = round::round(self.deps.clone()).into_actor(self);
        // Whoever asks from now on may mean something newer than this round will see.
        let asked = std::mem::take(&mut self.waiting);
        ctx.spawn(work.map(move |counts, reaper, ctx| {
            reaper.at_work = false;
            reaper.note(counts);
            for reply in asked {
                drop(reply.send(reaper.picture.clone()));
            }
            if !reaper.waiting.is_empty() {
                reaper.begin_round(ctx);
            }
        }));
    }

    fn note(&mut self, counts: ReaperPicture) {
        let log = &self.deps.log;
        let collected = counts.expired_environments
            + counts.broken_records
            + counts.orphan_volumes
            + counts.orphan_slots
            + counts.package_sets;
        if collected > 0 || counts.forgotten_executions > 0 {
            info!(log, "reaper.collected"; "expired" => counts.expired_environments,
                "broken_records" => counts.broken_records, "volumes" => counts.orphan_volumes,
                "slots" => counts.orphan_slots, "package_sets" => counts.package_sets, "executions" => counts.forgotten_executions);
        }
        for failure in &counts.last_failures {
            warn!(log, "reaper.failed"; "reason" => failure);
        }
        let total = &mut self.picture;
        total.rounds += 1;
        total.expired_environments += counts.expired_environments;
        total.broken_records += counts.broken_records;
        total.orphan_volumes += counts.orphan_volumes;
        total.orphan_slots += counts.orphan_slots;
        total.package_sets += counts.package_sets;
        total.forgotten_executions += counts.forgotten_executions;
        total.last_failures = counts.last_failures;
    }

    fn reap_zombies(&mut self, ctx: &mut Context<Self>) {
        let zombies = Arc::clone(&self.deps.zombies);
        let work = tokio::task::spawn_blocking(move || zombies.collect());
        ctx.spawn(work.into_actor(self).map(|reaped, reaper, _| {
            let reaped = u64::try_from(reaped.unwrap_or(0)).unwrap_or(0);
            if reaped > 0 {
                debug!(reaper.deps.log, "reaper.zombies"; "reaped" => reaped);
                reaper.picture.reaped_zombies += reaped;
            }
        }));
    }
}

impl Actor for Reaper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.seat.beat(Vec::new());
        ctx.run_interval(self.seat.beat_every(), |reaper, _| reaper.seat.beat(Vec::new()));
        ctx.run_interval(ZOMBIES_EVERY, Self::reap_zombies);
        ctx.run_interval(self.deps.interval, Self::begin_round);
        self.begin_round(ctx);
    }
}

impl Handler<Drain> for Reaper {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        // A round that is cut off is taken up by the next one.
        self.seat.leave();
        ctx.stop();
    }
}

impl Handler<Reconcile> for Reaper {
    type Result = ResponseFuture<ReaperPicture>;

    fn handle(&mut self, _: Reconcile, ctx: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.waiting.push(reply);
        self.begin_round(ctx);
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

impl Handler<GetReaper> for Reaper {
    type Result = MessageResult<GetReaper>;

    fn handle(&mut self, _: GetReaper, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.picture.clone())
    }
}
