//! What becomes of a sandbox that waits for a call: watched, laid to rest when none comes, woken once to stretch.
//!
//! ```text
//!   waits ──BEFORE_REST──► rests ──STRETCHES_AFTER──► awake ──BEFORE_REST──► rests
//! ```
//!
//! What a runtime has put off falls due all at once when its sandbox goes on, and the call that woke it would wait for it.
//! So it is given the time to do that while nobody waits.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::warn;

use super::SandboxPool;
use super::alarms::Alarm;
use crate::domain::id::SlotId;
use crate::domain::pool::Event;
use crate::domain::tenant::TenantName;
use crate::domain::time::Moment;
use crate::ports::sandbox::SandboxError;
use crate::telemetry::error_chain;

/// How long it stays awake. It is often wanted again at once; and Bun's allocator gives back what is free some 200 ms later, which costs the
/// call that it would meet 10 ms (`docs/performance.md`).
const BEFORE_REST: Duration = Duration::from_millis(500);
/// Deno's threads, and Bun's, end when they had nothing to do for 10 s.
const STRETCHES_AFTER: Duration = Duration::from_secs(11);

/// One that waits, until it is claimed or given up.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    slot: SlotId,
    since: Moment,
    /// Who is charged for what its module does meanwhile; None: the call that comes.
    tenant: Option<TenantName>,
    stretched: bool,
}

impl SandboxPool {
    /// It stands, and waits for its first call or for another.
    pub(super) fn await_call(&mut self, slot: SlotId, tenant: Option<TenantName>, ctx: &mut Context<Self>) {
        let Some(since) = self.machine.free_since(slot) else { return };
        self.watch(slot, ctx);
        let waiter = Waiter { slot, since, tenant, stretched: false };
        self.set_alarm(BEFORE_REST, Alarm::LayToRest(waiter), ctx);
    }

    fn waits(&self, waiter: &Waiter) -> bool {
        self.machine.free_since(waiter.slot) == Some(waiter.since)
    }

    pub(super) fn lay_to_rest(&self, waiter: Waiter, ctx: &mut Context<Self>) {
        if !self.waits(&waiter) {
            return;
        }
        let (slot, engine) = (waiter.slot, Arc::clone(&self.deps.engine));
        self.spawn(ctx, async move { engine.rest(slot).await }, move |pool, rests, ctx| match rests {
            Ok(rested) => {
                if let Some(tenant) = &waiter.tenant {
                    pool.deps.tenants.charge(tenant, rested.cpu);
                }
                if !pool.waits(&waiter) {
                    return;
                }
                pool.step(Event::Rests { slot, memory_mb: rested.memory_bytes >> 20 }, ctx);
                if !waiter.stretched {
                    pool.set_alarm(STRETCHES_AFTER, Alarm::LetStretch(waiter), ctx);
                }
            }
            Err(error) => pool.not_resting(slot, &error, ctx),
        });
    }

    pub(super) fn let_stretch(&self, waiter: Waiter, ctx: &mut Context<Self>) {
        if !self.waits(&waiter) {
            return;
        }
        let (slot, engine) = (waiter.slot, Arc::clone(&self.deps.engine));
        self.spawn(ctx, async move { engine.wake(slot).await }, move |pool, woken, ctx| match woken {
            Ok(()) => pool.set_alarm(BEFORE_REST, Alarm::LayToRest(Waiter { stretched: true, ..waiter }), ctx),
            Err(error) => pool.not_resting(slot, &error, ctx),
        });
    }

    fn not_resting(&mut self, slot: SlotId, error: &SandboxError, ctx: &mut Context<Self>) {
        // It was claimed or given up meanwhile.
        if !matches!(error, SandboxError::Unknown(_)) {
            warn!(self.deps.log, "slot.not_resting"; "slot" => %slot, "error" => error_chain(error));
            self.step(Event::Lost { slot }, ctx);
        }
    }

    fn watch(&self, slot: SlotId, ctx: &mut Context<Self>) {
        let engine = Arc::clone(&self.deps.engine);
        self.spawn(ctx, async move { engine.lost(slot).await }, move |pool, lost, ctx| {
            if lost {
                warn!(pool.deps.log, "slot.lost"; "slot" => %slot);
                pool.step(Event::Lost { slot }, ctx);
            }
        });
    }
}
