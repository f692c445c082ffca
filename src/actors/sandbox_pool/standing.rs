//! Sandboxes that stand ready: made, their module imported, laid to rest, watched.

use std::sync::Arc;

use actix::prelude::*;
use slog::{debug, info, warn};

use super::{Deps, SandboxPool};
use crate::domain::environment::EnvironmentStatus;
use crate::domain::id::SlotId;
use crate::domain::pool::{Event, StandsFor};
use crate::ports::sandbox::{Preparation, Purpose, SandboxError, SlotSpec};
use crate::ports::store::StoreError;
use crate::telemetry::error_chain;

/// Why a sandbox does not stand ready.
#[derive(Debug, thiserror::Error)]
enum NotStanding {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its environment is not ready")]
    Absent,
}

impl SandboxPool {
    pub(super) fn stand(&mut self, slot: SlotId, stands_for: StandsFor, ctx: &mut Context<Self>) {
        self.spawn(ctx, stand(self.deps.clone(), slot, stands_for), move |pool, stood, ctx| match stood {
            Ok(memory) => {
                debug!(pool.deps.log, "slot.stands"; "slot" => %slot, "for" => ?stands_for, "memory" => memory);
                pool.watch_standing(slot, ctx);
                pool.step(Event::Stood { slot, memory_mb: memory >> 20 }, ctx);
            }
            Err(error) => {
                pool.note_not_standing(slot, stands_for, &error);
                pool.step(Event::StandFailed { slot }, ctx);
            }
        });
    }

    fn note_not_standing(&mut self, slot: SlotId, stands_for: StandsFor, error: &NotStanding) {
        let log = &self.deps.log;
        match error {
            // It was given up meanwhile.
            NotStanding::Absent | NotStanding::Sandbox(SandboxError::Unknown(_)) => {}
            // The module's own affair: its calls say so.
            NotStanding::Sandbox(SandboxError::TaskFailed(outcome)) => {
                info!(log, "slot.not_prepared"; "slot" => %slot, "for" => ?stands_for, "outcome" => outcome);
            }
            NotStanding::Sandbox(_) | NotStanding::Store(_) => {
                warn!(log, "slot.not_standing"; "slot" => %slot, "for" => ?stands_for, "error" => error_chain(error));
                self.suspect_host = true;
            }
        }
    }

    fn watch_standing(&self, slot: SlotId, ctx: &mut Context<Self>) {
        let engine = Arc::clone(&self.deps.engine);
        self.spawn(ctx, async move { engine.lost(slot).await }, move |pool, lost, ctx| {
            if lost {
                warn!(pool.deps.log, "slot.lost"; "slot" => %slot);
                pool.step(Event::Lost { slot }, ctx);
            }
        });
    }
}

/// Makes one that stands. Answers with the memory that it is charged, in bytes.
async fn stand(deps: Deps, slot: SlotId, stands_for: StandsFor) -> Result<u64, NotStanding> {
    let memory_mb = deps.usual_limits.memory_mb;
    match stands_for {
        StandsFor::Runtime(runtime) => {
            deps.engine.create(SlotSpec { slot, runtime, purpose: Purpose::StandForRuntime, memory_mb }).await?;
        }
        StandsFor::Environment(id) => {
            let found = deps.store.environment(id).await?;
            let ready = found.filter(|environment| environment.status == EnvironmentStatus::Ready);
            let environment = ready.ok_or(NotStanding::Absent)?;
            let permissions = environment.metadata.permissions;
            let purpose = Purpose::StandForEnvironment { environment: id, permissions };
            deps.engine.create(SlotSpec { slot, runtime: environment.runtime, purpose, memory_mb }).await?;
            let preparation = Preparation { main_module: environment.main_module, limits: deps.usual_limits };
            deps.engine.prepare(slot, preparation).await?;
        }
    }
    Ok(deps.engine.rest(slot).await?)
}
