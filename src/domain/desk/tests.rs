//! The desk, driven with everything that can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::time::Moment;

const POLICY: DeskPolicy = DeskPolicy { at_once: 2, queue: 5, queue_bytes: 50 };

fn id(n: u128) -> ExecutionId {
    ExecutionId(Uuid::from_u128(n))
}

fn call(n: u128, environment: u128, bytes: usize) -> Recovered {
    Recovered { execution: id(n), environment: EnvironmentId(Uuid::from_u128(environment)), bytes }
}

fn at(millis: u64) -> Moment {
    Moment(millis)
}

fn accepted(desk: &mut Desk, call: Recovered) -> Vec<Effect> {
    let execution = call.execution;
    assert_eq!(desk.step(Event::Asked(call), at(0)), [Effect::Record { execution }]);
    desk.step(Event::Recorded { execution, stored: true }, at(0))
}

#[test]
fn nothing_starts_before_what_an_earlier_life_left_is_known() {
    let mut desk = Desk::new(POLICY);
    assert_eq!(accepted(&mut desk, call(3, 1, 1)), [Effect::Accept { execution: id(3) }]);
    let effects = desk.step(Event::Recovered(vec![call(1, 2, 1), call(3, 1, 1)]), at(0));
    assert_eq!(effects, [Effect::Start { execution: id(3) }, Effect::Start { execution: id(1) }]);
}

#[test]
fn a_burst_of_one_environment_does_not_keep_another_waiting() {
    let mut desk = Desk::new(DeskPolicy { at_once: 1, ..POLICY });
    let mut effects =
        desk.step(Event::Recovered(vec![call(1, 1, 1), call(2, 1, 1), call(3, 1, 1), call(4, 2, 1)]), at(0));
    for expected in [1, 4, 2, 3] {
        let execution = id(expected);
        assert_eq!(effects, [Effect::Start { execution }]);
        effects = desk.step(Event::Told { execution }, at(0));
        assert_eq!(desk.step(Event::Ended { execution }, at(0)), []);
    }
    assert_eq!((effects, desk.counts()), (vec![], (0, 0)));
}

#[test]
fn a_full_desk_refuses_by_number_and_by_size() {
    let mut desk = Desk::new(POLICY);
    accepted(&mut desk, call(1, 1, 40));
    let full = Refusal::QueueFull { retry_after: Duration::from_secs(5) };
    let refused = desk.step(Event::Asked(call(2, 1, 11)), at(0));
    assert_eq!(refused, [Effect::Refuse { execution: id(2), refusal: full }]);
    (3..7).for_each(|n| drop(accepted(&mut desk, call(n, 1, 1))));
    let refused = desk.step(Event::Asked(call(7, 1, 0)), at(0));
    assert_eq!(refused, [Effect::Refuse { execution: id(7), refusal: full }]);
}

#[test]
fn a_call_that_is_put_off_is_the_first_again_when_the_time_has_come() {
    let mut desk = Desk::new(DeskPolicy { at_once: 1, ..POLICY });
    desk.step(Event::Recovered(vec![call(1, 1, 1), call(2, 1, 1)]), at(0));
    let wait = Duration::from_millis(100);
    assert_eq!(desk.step(Event::PutOff { execution: id(1), wait }, at(0)), [Effect::WakeIn(wait)]);
    assert_eq!(desk.step(Event::Tick, at(99)), []);
    assert_eq!(desk.step(Event::Tick, at(100)), [Effect::Start { execution: id(1) }]);
}

#[test]
fn an_environment_that_is_held_up_keeps_no_other_waiting() {
    let mut desk = Desk::new(DeskPolicy { at_once: 1, ..POLICY });
    desk.step(Event::Recovered(vec![call(1, 1, 1), call(2, 1, 1), call(3, 2, 1)]), at(0));
    let wait = Duration::from_millis(100);
    let effects = desk.step(Event::HeldUp { execution: id(1), wait }, at(0));
    assert_eq!(effects, [Effect::WakeIn(wait), Effect::Start { execution: id(3) }]);
    assert_eq!(desk.step(Event::Told { execution: id(3) }, at(50)), []);
    assert_eq!(desk.step(Event::Tick, at(100)), [Effect::Start { execution: id(1) }]);
}

#[test]
fn a_drain_starts_nothing_and_leaves_what_waits_to_the_next_life() {
    let mut desk = Desk::new(DeskPolicy { at_once: 1, ..POLICY });
    desk.step(Event::Recovered(vec![call(1, 1, 1), call(2, 1, 1)]), at(0));
    assert_eq!(desk.step(Event::Drain { hurry: false }, at(0)), []);
    assert_eq!(
        desk.step(Event::Asked(call(3, 1, 1)), at(0)),
        [Effect::Refuse { execution: id(3), refusal: Refusal::Draining }]
    );
    assert_eq!(desk.step(Event::Drain { hurry: true }, at(0)), [Effect::CancelRunning { execution: id(1) }]);
    assert_eq!(desk.step(Event::Told { execution: id(1) }, at(0)), []);
    assert_eq!(desk.step(Event::Ended { execution: id(1) }, at(0)), [Effect::Drained]);
    assert_eq!(desk.counts(), (1, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Ask { environment: u128, bytes: usize },
    Stored(bool),
    PutOff,
    HeldUp,
    Told,
    Ended,
    Cancel(prop::sample::Index),
    Tick(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_u128, 0..30_usize).prop_map(|(environment, bytes)| Step::Ask { environment, bytes }),
        4 => prop::bool::weighted(0.9).prop_map(Step::Stored),
        1 => Just(Step::PutOff),
        1 => Just(Step::HeldUp),
        4 => Just(Step::Told),
        4 => Just(Step::Ended),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        2 => (0..200_u64).prop_map(Step::Tick),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    #[test]
    fn every_call_is_accepted_or_refused_once_and_an_accepted_one_ends_once(steps in steps(), recover_at in 0..20_usize) {
        let mut desk = Desk::new(POLICY);
        let (mut recording, mut running, mut ending) = (Vec::new(), Vec::new(), Vec::new());
        let (mut accepted, mut refused, mut ended) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut sizes, mut asked, mut now) = (BTreeMap::new(), 0_u128, 0_u64);
        let end = [Step::Stored(true), Step::Told, Step::Ended, Step::Tick(1000)];
        let settle = std::iter::repeat_n(end, 400).flatten();
        for (n, step) in steps.into_iter().chain(settle).enumerate() {
            let mut events = Vec::new();
            if n == recover_at {
                events.push(Event::Recovered(Vec::new()));
            }
            match step {
                Step::Ask { environment, bytes } => {
                    asked += 1;
                    sizes.insert(id(asked), bytes);
                    events.push(Event::Asked(call(asked, environment, bytes)));
                }
                Step::Stored(stored) => {
                    if let Some(execution) = recording.pop() {
                        if !stored {
                            refused.insert(execution);
                        }
                        events.push(Event::Recorded { execution, stored });
                    }
                }
                Step::PutOff => events.extend(running.pop().map(|execution| Event::PutOff { execution, wait: Duration::from_millis(50) })),
                Step::HeldUp => events.extend(running.pop().map(|execution| Event::HeldUp { execution, wait: Duration::from_millis(70) })),
                Step::Told => events.extend(running.pop().map(|execution| { ending.push(execution); Event::Told { execution } })),
                Step::Ended => events.extend(ending.pop().map(|execution| { assert!(ended.insert(execution)); Event::Ended { execution } })),
                Step::Cancel(index) => if asked > 0 { events.push(Event::Cancelled { execution: id(1 + index.index(asked as usize) as u128) }) },
                Step::Tick(span) => { now += span; events.push(Event::Tick) }
            }
            for event in events {
                for effect in desk.step(event, at(now)) {
                    match effect {
                        Effect::Record { execution } => recording.push(execution),
                        Effect::Refuse { execution, .. } => prop_assert!(refused.insert(execution)),
                        Effect::Accept { execution } => prop_assert!(accepted.insert(execution)),
                        Effect::Start { execution } => {
                            prop_assert!(accepted.contains(&execution) && !ended.contains(&execution));
                            running.push(execution);
                        }
                        Effect::EndCancelled { execution } => ending.push(execution),
                        Effect::CancelRunning { execution } => prop_assert!(running.contains(&execution)),
                        Effect::WakeIn(_) => {}
                        Effect::Drained => prop_assert!(false, "nobody drains"),
                    }
                }
            }
            prop_assert!(running.len() <= POLICY.at_once && desk.calls_held() <= POLICY.queue);
        }
        prop_assert!(accepted.is_disjoint(&refused));
        prop_assert_eq!(accepted.len() + refused.len(), asked as usize);
        prop_assert_eq!(accepted, ended);
        prop_assert_eq!(desk.step(Event::Drain { hurry: false }, at(now)), [Effect::Drained]);
    }
}

impl Desk {
    fn calls_held(&self) -> usize {
        (1..200).filter(|n| self.holds(id(*n))).count()
    }
}
