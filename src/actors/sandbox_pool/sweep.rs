//! The pool's first act: what an earlier life left is destroyed before anything new is made.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{info, warn};

use super::{Deps, SandboxPool};
use crate::domain::id::SlotId;
use crate::domain::pool::Event;
use crate::ports::store::StoreError;
use crate::telemetry::error_chain;

/// How often a host with a problem is looked at again.
const PROBE_AGAIN: Duration = Duration::from_secs(10);

struct Swept {
    problems: Vec<String>,
    store: Result<u64, StoreError>,
    destroyed: usize,
}

impl SandboxPool {
    /// Ends what an earlier life began, learns what the host can do, and starts to beat.
    pub(super) fn sweep(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(self.seat.beat_every(), Self::beat);
        ctx.run_interval(PROBE_AGAIN, Self::probe_again);
        let work = sweep(self.deps.clone());
        self.spawn(ctx, work, |pool, swept, ctx| {
            pool.note_store(&swept.store);
            pool.problems = swept.problems;
            let calls = swept.store.unwrap_or(0);
            info!(pool.deps.log, "pool.swept"; "slots" => swept.destroyed, "unfinished_calls" => calls);
            pool.step(Event::Swept, ctx);
            pool.seat.beat(pool.complaints());
        });
    }
}

impl SandboxPool {
    /// Beats, and asks a store that did not answer whether it does again: a daemon that is not ready gets no calls
    /// that could find out.
    fn beat(&mut self, ctx: &mut Context<Self>) {
        self.seat.beat(self.complaints());
        self.write_charges(ctx);
        self.step(Event::Tick, ctx);
        if self.store_trouble.is_some() {
            let store = Arc::clone(&self.deps.store);
            let ask = async move { store.try_write().await };
            self.spawn(ctx, ask, |pool, answer, _| pool.note_store(&answer));
        }
    }

    /// Looks again at a host that something was wrong with, or on which a sandbox did not boot: what was installed or
    /// removed meanwhile is found.
    fn probe_again(&mut self, ctx: &mut Context<Self>) {
        if self.problems.is_empty() && !self.suspect_host {
            return;
        }
        self.suspect_host = false;
        let engine = Arc::clone(&self.deps.engine);
        self.spawn(ctx, async move { engine.probe().await }, |pool, probe, _| pool.problems = probe.problems);
    }
}

async fn sweep(deps: Deps) -> Swept {
    let store = deps.store.close_unfinished(deps.clock.wall()).await;
    let probe = deps.engine.probe().await;
    let mut problems = probe.problems;
    let mut destroyed = 0;
    match deps.engine.leftovers().await {
        Ok(leftovers) => {
            let mut slots: Vec<SlotId> = leftovers.into_iter().map(|leftover| leftover.slot).collect();
            slots.sort_unstable();
            slots.dedup();
            for slot in slots {
                match Arc::clone(&deps.engine).destroy(slot).await {
                    Ok(()) => destroyed += 1,
                    // The Reaper will come back to it.
                    Err(error) => warn!(deps.log, "sweep.left"; "slot" => %slot, "error" => error_chain(&error)),
                }
            }
        }
        Err(error) => problems.push(format!("leftovers cannot be listed: {}", error_chain(&error))),
    }
    Swept { problems, store, destroyed }
}
