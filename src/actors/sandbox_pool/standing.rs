//! Sandboxes that stand ready: made, their module imported, laid to rest, watched.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{debug, info, warn};

use super::{SandboxPool, begun};
use crate::domain::environment::{Environment, EnvironmentStatus, Metadata, Runtime};
use crate::domain::id::SlotId;
use crate::domain::pool::{Event, StandsFor};
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::ImageServes;
use crate::ports::sandbox::{Preparation, Purpose, SandboxError, SlotSpec};
use crate::ports::store::StoreError;
use crate::telemetry::error_chain;

/// How long a sandbox that was used stays awake for the next call.
const BEFORE_REST: Duration = Duration::from_millis(50);

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

impl Handler<ImageServes> for SandboxPool {
    type Result = ();

    fn handle(&mut self, ImageServes { runtime, image }: ImageServes, ctx: &mut Self::Context) {
        self.step(Event::ImageServes { runtime, image }, ctx);
    }
}

impl SandboxPool {
    pub(super) fn stand(&mut self, slot: SlotId, stands_for: StandsFor, ctx: &mut Context<Self>) {
        match stands_for {
            StandsFor::Runtime(runtime) => {
                let memory_mb = self.deps.usual_limits.memory_mb;
                let spec = SlotSpec { slot, runtime, purpose: Purpose::StandForRuntime, memory_mb };
                self.make_standing(spec, None, stands_for, ctx);
            }
            StandsFor::SetUps => {
                let purpose = Purpose::Transpile { dependencies: Vec::new() };
                let memory_mb = self.deps.transpile_limits.memory_mb;
                self.make_standing(
                    SlotSpec { slot, runtime: Runtime::Deno, purpose, memory_mb },
                    None,
                    stands_for,
                    ctx,
                );
            }
            StandsFor::Environment(id) => {
                let store = Arc::clone(&self.deps.store);
                self.spawn(ctx, async move { store.environment(id).await }, move |pool, found, ctx| {
                    let found = found.map_err(NotStanding::from).and_then(|found| {
                        let ready = found.filter(|environment| environment.status == EnvironmentStatus::Ready);
                        ready.ok_or(NotStanding::Absent)
                    });
                    // A change or a deletion may have come before the answer: then the slot is gone, and nothing is made.
                    match found.map(|environment| pool.newest(environment)) {
                        Ok(environment) if pool.machine.is_warming(slot) => pool.stand_for(slot, environment, ctx),
                        Ok(_) => {}
                        Err(error) => pool.end_standing(slot, stands_for, &error, ctx),
                    }
                });
            }
        }
    }

    /// The volume is the slot's from here on, so that it outlives a change of the modules.
    fn stand_for(&mut self, slot: SlotId, environment: Environment, ctx: &mut Context<Self>) {
        let Environment { id, tenant, runtime, main_module, volume_name, metadata, .. } = environment;
        self.trees.insert(slot, volume_name.clone());
        let Metadata { permissions, secrets, .. } = metadata;
        let purpose = Purpose::StandForEnvironment { environment: id, volume: volume_name, permissions, secrets };
        let limits = self.deps.usual_limits;
        let spec = SlotSpec { slot, runtime, purpose, memory_mb: limits.memory_mb };
        self.make_standing(spec, Some((Preparation { main_module, limits }, tenant)), StandsFor::Environment(id), ctx);
    }

    fn make_standing(
        &mut self,
        spec: SlotSpec,
        preparation: Option<(Preparation, TenantName)>,
        stands_for: StandsFor,
        ctx: &mut Context<Self>,
    ) {
        let (slot, engine) = (spec.slot, Arc::clone(&self.deps.engine));
        let creating = begun(async move { engine.create(spec).await });
        self.spawn(ctx, creating, move |pool, created, ctx| match (created, preparation) {
            (Err(error), _) => pool.end_standing(slot, stands_for, &error.into(), ctx),
            (Ok(()), Some((preparation, tenant))) => {
                pool.step(Event::Imports { slot }, ctx);
                pool.import(slot, preparation, tenant, stands_for, ctx);
            }
            (Ok(()), None) => pool.lay_to_rest(slot, stands_for, ctx),
        });
    }

    /// The environment's own code runs: its tenant is charged.
    fn import(
        &mut self,
        slot: SlotId,
        preparation: Preparation,
        tenant: TenantName,
        stands_for: StandsFor,
        ctx: &mut Context<Self>,
    ) {
        let (engine, began) = (Arc::clone(&self.deps.engine), self.deps.clock.uptime());
        let work = async move { engine.prepare(slot, preparation).await };
        self.spawn(ctx, work, move |pool, prepared, ctx| {
            // Of one that failed nobody read the count: it is charged the most that it can have used.
            let most = || pool.deps.clock.uptime().saturating_sub(began).mul_f64(pool.deps.cores);
            let used = prepared.as_ref().map_or_else(|_| most(), |used| *used);
            pool.deps.tenants.charge(&tenant, used);
            match prepared {
                Ok(_) => pool.lay_to_rest(slot, stands_for, ctx),
                Err(error) => pool.end_standing(slot, stands_for, &error.into(), ctx),
            }
        });
    }

    fn lay_to_rest(&mut self, slot: SlotId, stands_for: StandsFor, ctx: &mut Context<Self>) {
        let engine = Arc::clone(&self.deps.engine);
        self.spawn(ctx, async move { engine.rest(slot).await }, move |pool, rests, ctx| match rests {
            Ok(memory) => {
                debug!(pool.deps.log, "slot.stands"; "slot" => %slot, "for" => ?stands_for, "memory" => memory);
                pool.watch_standing(slot, ctx);
                pool.step(Event::Stood { slot, memory_mb: memory >> 20 }, ctx);
            }
            Err(error) => pool.end_standing(slot, stands_for, &error.into(), ctx),
        });
    }

    /// A sandbox that has just served a call is often wanted again at once: it is laid to rest when it was not.
    pub(super) fn rest_later(&self, slot: SlotId, ctx: &mut Context<Self>) {
        let Some(released) = self.machine.free_since(slot) else { return };
        ctx.run_later(BEFORE_REST, move |pool, ctx| {
            if pool.machine.free_since(slot) != Some(released) {
                return;
            }
            let engine = Arc::clone(&pool.deps.engine);
            pool.spawn(ctx, async move { engine.rest(slot).await }, move |pool, rests, ctx| match rests {
                Ok(_) => pool.watch_standing(slot, ctx),
                // It was claimed or given up meanwhile.
                Err(SandboxError::Unknown(_)) => {}
                Err(error) => {
                    warn!(pool.deps.log, "slot.not_resting"; "slot" => %slot, "error" => error_chain(&error));
                    pool.step(Event::Lost { slot }, ctx);
                }
            });
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
