//! Compilers that stand ready for set-ups, as sandboxes stand ready for calls: used once, by a set-up that needs nothing else.

use super::machine::{Held, Pool};
use super::{Effect, StandsFor};
use crate::domain::id::{EnvironmentId, SlotId};
use crate::domain::sandbox::SlotEvent;

impl Pool {
    /// The one that has stood longest.
    pub(super) fn free_compiler(&self) -> Option<SlotId> {
        let stands = |held: &Held| held.is_free() && held.stands_for == Some(StandsFor::SetUps);
        let free = self.slots.iter().filter(|(_, held)| stands(held));
        free.min_by_key(|(_, held)| held.since).map(|(slot, _)| *slot)
    }

    /// Whether one is on its way.
    pub(super) fn makes_a_compiler(&self) -> bool {
        self.slots.values().any(|held| held.is_warming() && held.stands_for == Some(StandsFor::SetUps))
    }

    /// Its compiler goes with it, used or not.
    pub(super) fn set_up_ended(&mut self, environment: EnvironmentId, effects: &mut Vec<Effect>) {
        if let Some(slot) = self.set_ups.remove(&environment).and_then(|running| running.compiler) {
            self.step_slot(slot, SlotEvent::Settled, effects);
        }
    }
}
