//! What the pool does later, behind one timer.
//!
//! actix polls all that is in an actor's context each time that the actor wakes. Each call asks to be looked at when it has waited too
//! long, and most have their answer by then: as timers of the context, 10,000 of them cost each step a millisecond
//! (`docs/performance.md`).

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;

use super::SandboxPool;
use super::rest::Waiter;
use crate::actors::timer::Timer;
use crate::domain::pool::Event;
use crate::domain::time::Moment;

/// What is due at a time.
#[derive(Debug)]
pub(super) enum Alarm {
    Step(Event),
    LayToRest(Waiter),
    LetStretch(Waiter),
    /// An older revision's volume is remembered no more.
    Forget {
        volume: String,
    },
}

/// What is to be done, by when; what is due at the same moment in the order in which it came.
#[derive(Default)]
pub(super) struct Alarms {
    due: BTreeMap<(Moment, u64), Alarm>,
    set: u64,
    timer: Timer,
}

impl Alarms {
    fn add(&mut self, due: Moment, alarm: Alarm) {
        self.set += 1;
        self.due.insert((due, self.set), alarm);
    }

    fn first(&self) -> Option<Moment> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    fn take_due(&mut self, now: Moment) -> Vec<Alarm> {
        let later = self.due.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.due, later).into_values().collect()
    }
}

impl SandboxPool {
    pub(super) fn set_alarm(&mut self, after: Duration, alarm: Alarm, ctx: &mut Context<Self>) {
        self.alarms.add(self.deps.clock.now().after(after), alarm);
        self.wind(ctx);
    }

    /// Sees to it that the timer goes off for the first.
    fn wind(&mut self, ctx: &mut Context<Self>) {
        let Some(first) = self.alarms.first() else { return };
        let now = self.deps.clock.now();
        self.alarms.timer.put_forward(now, first.since(now), ctx, Self::ring);
    }

    fn ring(&mut self, ctx: &mut Context<Self>) {
        self.alarms.timer.went_off();
        for alarm in self.alarms.take_due(self.deps.clock.now()) {
            match alarm {
                Alarm::Step(event) => self.step(event, ctx),
                Alarm::LayToRest(waiter) => self.lay_to_rest(waiter, ctx),
                Alarm::LetStretch(waiter) => self.let_stretch(waiter, ctx),
                Alarm::Forget { volume } => drop(self.retired.remove(&volume)),
            }
        }
        self.wind(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::SlotId;

    #[test]
    fn what_is_due_comes_by_its_time_and_then_in_the_order_in_which_it_was_set() {
        let mut alarms = Alarms::default();
        let event = |n: u128| Event::RetryDue { slot: SlotId(uuid::Uuid::from_u128(n)) };
        for (n, due) in [(1, 30), (2, 10), (3, 10), (4, 20)] {
            alarms.add(Moment(due), Alarm::Step(event(n)));
        }
        assert_eq!(alarms.first(), Some(Moment(10)));
        let mut taken = |now| -> Vec<Event> {
            let due = alarms.take_due(Moment(now)).into_iter();
            due.map(|alarm| if let Alarm::Step(event) = alarm { event } else { panic!("{alarm:?}") }).collect()
        };
        assert_eq!(taken(9), []);
        assert_eq!(taken(20), [event(2), event(3), event(4)]);
        assert_eq!(taken(1000), [event(1)]);
        assert_eq!(alarms.first(), None);
    }
}
