//! Sandboxes that serve one call after another, where an environment's calls share them (`isolation: "environment"`).
//!
//! ```text
//!   Running ──ended well, may be kept, room──► Ready, for its environment ──the next call──► Running
//!      │ otherwise                               │ idle, too old, retired
//!      ▼                                         ▼
//!   Destroying ◄─────────────────────────────────┘
//! ```
//!
//! While one of them serves or is being made, a call waits for it; one that has waited as long as it takes to make another
//! gets another. What stands between calls takes its room from what stands ready, and is the first to give it back.

use std::time::Duration;

use super::machine::{Place, Pool};
use super::{Effect, StandsFor};
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::sandbox::SlotEvent;
use crate::domain::time::Moment;

/// How long a call waits for a sandbox in use: a boot takes longer (`docs/performance.md`, P3).
const PATIENCE: Duration = Duration::from_millis(250);

impl Pool {
    /// Its call ended well. It stands for the next, unless it was retired meanwhile or there is no room.
    pub(super) fn released(&mut self, slot: SlotId, memory_mb: u64, now: Moment, effects: &mut Vec<Effect>) {
        if !self.answer_settled(slot, effects) {
            return;
        }
        let (have, held_mb) = (self.have(|_| true), self.held_mb() + memory_mb);
        let Some(held) = self.slots.get_mut(&slot) else { return };
        let stands_for = held.environment.filter(|_| held.keeps && !held.stale).map(StandsFor::Environment);
        let Some(stands_for) = stands_for.filter(|stands_for| self.standing.has_room(*stands_for, &have, held_mb))
        else {
            return self.step_slot(slot, SlotEvent::Settled, effects);
        };
        (held.stands_for, held.since, held.serves, held.holds_mb) = (Some(stands_for), now, false, memory_mb);
        self.step_slot(slot, SlotEvent::Released, effects);
    }

    /// One that was just released and that no call has claimed.
    pub(super) fn await_if_free(&self, released: Option<SlotId>, effects: &mut Vec<Effect>) {
        let is_free = |slot: &SlotId| self.slots.get(slot).is_some_and(|held| held.is_free());
        effects.extend(released.filter(is_free).map(|slot| Effect::Await { slot }));
    }

    /// What calls left in those that stand, beside the idle runtimes.
    pub(super) fn held_mb(&self) -> u64 {
        self.slots.values().filter(|held| held.is_free()).map(|held| held.holds_mb).sum()
    }

    /// Since when the slot stands and waits for a call.
    pub fn free_since(&self, slot: SlotId) -> Option<Moment> {
        self.slots.get(&slot).filter(|held| held.is_free()).map(|held| held.since)
    }

    /// Whether the call may have a sandbox that has served none of its environment's.
    pub(super) fn may_widen(&self, environment: EnvironmentId, execution: ExecutionId, now: Moment) -> bool {
        let Some(call) = self.calls.get(&execution) else { return false };
        let shares = call.wants.is_some_and(|wants| self.standing.may_share(environment, &wants));
        !shares
            || now.since(call.since) >= PATIENCE
            || !self.slots.values().any(|held| held.comes_free_for(environment))
    }

    /// Sees to it that calls that wait for a sandbox in use are looked at when they have waited long enough for another.
    pub(super) fn wake_to_widen(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.widens_at.is_some_and(|at| now < at) {
            return;
        }
        let waits = self.calls.values().filter(|call| call.place == Place::Queued);
        let sharing =
            waits.filter(|call| call.wants.is_some_and(|wants| self.standing.may_share(call.environment, &wants)));
        self.widens_at = sharing.map(|call| call.since.after(PATIENCE)).filter(|at| *at > now).min();
        effects.extend(self.widens_at.map(|at| Effect::WakeIn(at.since(now))));
    }

    /// Ends those that nobody has called for long.
    pub(super) fn end_idle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let idle = self.standing.reuse_idle();
        let waits = self.slots.iter().filter(|(_, held)| held.uses > 0 && held.is_free());
        let over: Vec<SlotId> =
            waits.filter(|(_, held)| now.since(held.since) >= idle).map(|(slot, _)| *slot).collect();
        for slot in over {
            self.step_slot(slot, SlotEvent::Cancelled, effects);
        }
    }
}
