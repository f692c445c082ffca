//! The pool's first act: what an earlier life left is destroyed before anything new is made.

use std::sync::Arc;

use actix::prelude::*;
use slog::{info, warn};

use super::{Deps, SandboxPool};
use crate::domain::id::SlotId;
use crate::domain::pool::Event;
use crate::ports::store::StoreError;
use crate::telemetry::error_chain;

struct Swept {
    problems: Vec<String>,
    store: Result<u64, StoreError>,
    destroyed: usize,
}

impl SandboxPool {
    /// Ends what an earlier life began, learns what the host can do, and starts to beat.
    pub(super) fn sweep(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(self.seat.beat_every(), |pool, _| pool.seat.beat(pool.complaints()));
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
