//! Sandboxes that stand ready: made, their module imported, laid to rest, watched.

use std::sync::Arc;

use actix::prelude::*;
use slog::{debug, info, warn};

use super::{Deps, SandboxPool};
use crate::domain::environment::{Environment, EnvironmentStatus, Metadata};
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
        match stands_for {
            StandsFor::Runtime(runtime) => {
                let memory_mb = self.deps.usual_limits.memory_mb;
                let spec = SlotSpec { slot, runtime, purpose: Purpose::StandForRuntime, memory_mb };
                self.make_standing(spec, None, stands_for, ctx);
            }
            StandsFor::Environment(id) => {
                let store = Arc::clone(&self.deps.store);
                self.spawn(ctx, async move { store.environment(id).await }, move |pool, found, ctx| {
                    let found = found.map_err(NotStanding::from).and_then(|found| {
                        let ready = found.filter(|environment| environment.status == EnvironmentStatus::Ready);
                        ready.ok_or(NotStanding::Absent)
                    });
                    match found.map(|environment| pool.newest(environment)) {
                        Ok(environment) => pool.stand_for(slot, environment, ctx),
                        Err(error) => pool.end_standing(slot, stands_for, &error, ctx),
                    }
                });
            }
        }
    }

    /// The volume is the slot's from here on, so that it outlives a change of the modules.
    fn stand_for(&mut self, slot: SlotId, environment: Environment, ctx: &mut Context<Self>) {
        let Environment { id, runtime, main_module, volume_name, metadata, .. } = environment;
        self.trees.insert(slot, volume_name.clone());
        let Metadata { permissions, secrets, .. } = metadata;
        let purpose = Purpose::StandForEnvironment { environment: id, volume: volume_name, permissions, secrets };
        let limits = self.deps.usual_limits;
        let spec = SlotSpec { slot, runtime, purpose, memory_mb: limits.memory_mb };
        self.make_standing(spec, Some(Preparation { main_module, limits }), StandsFor::Environment(id), ctx);
    }

    fn make_standing(
        &mut self,
        spec: SlotSpec,
        preparation: Option<Preparation>,
        stands_for: StandsFor,
        ctx: &mut Context<Self>,
    ) {
        let slot = spec.slot;
        self.spawn(ctx, stand(self.deps.clone(), spec, preparation), move |pool, stood, ctx| match stood {
            Ok(memory) => {
                debug!(pool.deps.log, "slot.stands"; "slot" => %slot, "for" => ?stands_for, "memory" => memory);
                pool.watch_standing(slot, ctx);
                pool.step(Event::Stood { slot, memory_mb: memory >> 20 }, ctx);
            }
            Err(error) => pool.end_standing(slot, stands_for, &error, ctx),
        });
    }

    fn end_standing(&mut self, slot: SlotId, stands_for: StandsFor, error: &NotStanding, ctx: &mut Context<Self>) {
        self.note_not_standing(slot, stands_for, error);
        self.step(Event::StandFailed { slot }, ctx);
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
async fn stand(deps: Deps, spec: SlotSpec, preparation: Option<Preparation>) -> Result<u64, NotStanding> {
    let slot = spec.slot;
    deps.engine.create(spec).await?;
    if let Some(preparation) = preparation {
        deps.engine.prepare(slot, preparation).await?;
    }
    Ok(deps.engine.rest(slot).await?)
}
