//! One slot's life: a sandbox from its creation until nothing of it is left on the host.
//!
//! ```text
//!            booted            claimed           settled
//!  Booting ─────────► Ready ─────────► Running ─────────┐
//!     │                    │ ◄─────────────┤             │
//!     │                    │    released   │             │
//!     │ failed, cancelled  │ cancelled     │ cancelled   ▼
//!     └────────────────────┴──────────────┴─────► Destroying ──verified──► Gone
//!                                                    ▲   │ something survives
//!                                               retry└── Wedged
//! ```
//!
//! Invariants, held by the property tests: a slot runs at most one task at a time; once it is being destroyed it never runs;
//! it is gone only after a verified destruction; exactly one destruction is under way at a time.

use std::time::Duration;

/// The wait before the first repeated destruction; it doubles up to [`RETRY_MAX`].
pub const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait between two destructions of a wedged slot.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// Where a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    Booting,
    Ready,
    Running,
    Destroying,
    /// Something survived its destruction; the slot's place stays taken until a later one succeeds.
    Wedged,
    Gone,
}

/// What happened to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotEvent {
    Booted,
    BootFailed,
    Claimed,
    /// Its task ended, in whatever way.
    Settled,
    /// Its task ended well, and another may follow.
    Released,
    /// Nobody wants it any more.
    Cancelled,
    Destroyed,
    DestroyFailed,
    RetryDue,
}

/// What has to be done for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotEffect {
    Run,
    Destroy,
    RetryAfter(Duration),
    Retire,
}

/// The machine of one slot.
#[derive(Debug, Clone)]
pub struct Slot {
    state: SlotState,
    failed_destructions: u32,
}

impl Default for Slot {
    fn default() -> Self {
        Self { state: SlotState::Booting, failed_destructions: 0 }
    }
}

impl Slot {
    /// Where it stands.
    pub fn state(&self) -> SlotState {
        self.state
    }

    /// Takes one event; an event that does not fit the state changes nothing.
    pub fn step(&mut self, event: SlotEvent) -> Option<SlotEffect> {
        use SlotState::{Booting, Destroying, Gone, Ready, Running, Wedged};
        let (state, effect) = match (self.state, event) {
            (Booting, SlotEvent::Booted) | (Running, SlotEvent::Released) => (Ready, None),
            (Ready, SlotEvent::Claimed) => (Running, Some(SlotEffect::Run)),
            (Booting, SlotEvent::BootFailed)
            | (Running, SlotEvent::Settled)
            | (Booting | Ready | Running, SlotEvent::Cancelled) => (Destroying, Some(SlotEffect::Destroy)),
            (Destroying, SlotEvent::Destroyed) => (Gone, Some(SlotEffect::Retire)),
            (Destroying, SlotEvent::DestroyFailed) => {
                let wait = RETRY_FIRST.saturating_mul(1 << self.failed_destructions.min(8)).min(RETRY_MAX);
                self.failed_destructions = self.failed_destructions.saturating_add(1);
                (Wedged, Some(SlotEffect::RetryAfter(wait)))
            }
            (Wedged, SlotEvent::RetryDue) => (Destroying, Some(SlotEffect::Destroy)),
            (state, _) => (state, None),
        };
        self.state = state;
        effect
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_event() -> impl Strategy<Value = SlotEvent> {
        prop_oneof![
            Just(SlotEvent::Booted),
            Just(SlotEvent::BootFailed),
            Just(SlotEvent::Claimed),
            Just(SlotEvent::Settled),
            Just(SlotEvent::Released),
            Just(SlotEvent::Cancelled),
            Just(SlotEvent::Destroyed),
            Just(SlotEvent::DestroyFailed),
            Just(SlotEvent::RetryDue),
        ]
    }

    #[test]
    fn a_wedged_slot_is_tried_again_less_and_less_often() {
        let mut slot = Slot::default();
        slot.step(SlotEvent::Cancelled);
        let mut waits = Vec::new();
        for _ in 0..9 {
            if let Some(SlotEffect::RetryAfter(wait)) = slot.step(SlotEvent::DestroyFailed) {
                waits.push(wait.as_millis());
            }
            slot.step(SlotEvent::RetryDue);
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    }

    proptest! {
        #[test]
        fn every_history_keeps_the_invariants(events in prop::collection::vec(any_event(), 0..60)) {
            let mut slot = Slot::default();
            let (mut running, mut destroying, mut ever_destroyed) = (false, false, false);
            for event in events {
                let effect = slot.step(event);
                running &= slot.state() == SlotState::Running;
                match effect {
                    Some(SlotEffect::Run) => {
                        prop_assert!(!running, "one task at a time");
                        running = true;
                        prop_assert!(!ever_destroyed, "a slot never runs after its destruction began");
                    }
                    Some(SlotEffect::Destroy) => {
                        prop_assert!(!destroying, "one destruction at a time");
                        destroying = true;
                        ever_destroyed = true;
                    }
                    Some(SlotEffect::RetryAfter(_)) => destroying = false,
                    Some(SlotEffect::Retire) => {
                        prop_assert_eq!(event, SlotEvent::Destroyed);
                        prop_assert!(destroying);
                        destroying = false;
                    }
                    None => {}
                }
            }
        }
    }
}
