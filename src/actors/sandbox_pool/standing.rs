//! Sandboxes that stand ready: how they are made, and their module imported.

use std::sync::Arc;

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
        self.trees.hold_for(slot, &environment);
        let Environment { id, tenant, runtime, main_module, volume_name, metadata, .. } = environment;
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
            (Ok(()), None) => pool.stands(slot, stands_for, None, ctx),
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
                Ok(_) => pool.stands(slot, stands_for, Some(tenant), ctx),
                Err(error) => pool.end_standing(slot, stands_for, &error.into(), ctx),
            }
        });
    }

    fn stands(&mut self, slot: SlotId, stands_for: StandsFor, tenant: Option<TenantName>, ctx: &mut Context<Self>) {
        debug!(self.deps.log, "slot.stands"; "slot" => %slot, "for" => ?stands_for);
        self.step(Event::Stood { slot }, ctx);
        self.await_call(slot, tenant, ctx);
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
}
