//! What a source sees of us, in good days and bad.

use proptest::prelude::*;

use super::*;
use crate::domain::time::Moment;

fn open() -> Admission {
    Admission::new(AdmissionPolicy::default(), 1)
}

fn takes(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Take { .. })).count()
}

fn failed() -> Event {
    Event::Ended(Poll::Failed { reason: "connection refused".to_owned() })
}

#[test]
fn a_poll_is_open_whenever_there_is_room_and_the_next_goes_in_the_same_turn() {
    let mut admission = open();
    assert_eq!(admission.step(Event::Room { slots: 2 }, Moment(0)), [Effect::Take { slots: 2 }]);
    assert_eq!(admission.step(Event::Room { slots: 1 }, Moment(5)), []);
    assert_eq!(admission.step(Event::Ended(Poll::Jobs), Moment(9)), [Effect::Take { slots: 1 }]);
    assert_eq!(admission.step(Event::Room { slots: 0 }, Moment(9)), [Effect::Abort]);
    assert_eq!(admission.step(Event::Room { slots: 1 }, Moment(9)), [Effect::Take { slots: 1 }]);
}

#[test]
fn a_source_that_answers_nothing_at_once_is_asked_a_few_times_a_second() {
    let mut admission = open();
    let mut polls = takes(&admission.step(Event::Room { slots: 1 }, Moment(0)));
    for millis in 0..10_000 {
        polls += takes(&admission.step(Event::Ended(Poll::Empty), Moment(millis)));
        polls += takes(&admission.step(Event::Tick, Moment(millis)));
    }
    assert!((36..=44).contains(&polls), "{polls} polls in 10 s");
}

#[test]
fn a_pause_is_at_least_five_seconds_and_as_long_as_it_was_asked_for() {
    for (asked, least, most) in [(None, 5_000, 6_250), (Some(1), 5_000, 6_250), (Some(20), 20_000, 25_000)] {
        let mut admission = open();
        admission.step(Event::Room { slots: 1 }, Moment(0));
        let retry_after = asked.map(Duration::from_secs);
        let effects = admission.step(Event::Ended(Poll::Throttled { retry_after }), Moment(0));
        let [Effect::WakeIn(wait)] = effects[..] else { panic!("{effects:?}") };
        assert!((least..=most).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(takes(&admission.step(Event::Tick, Moment(least as u64 - 1))), 0);
        assert_eq!(takes(&admission.step(Event::Tick, Moment(most as u64))), 1);
    }
}

#[test]
fn failures_in_a_row_open_the_circuit_and_one_probe_closes_it() {
    let mut admission = open();
    let mut now = 0;
    admission.step(Event::Room { slots: 3 }, Moment(now));
    for failure in 1..=5 {
        let effects = admission.step(failed(), Moment(now));
        assert_eq!(effects.iter().any(|effect| matches!(effect, Effect::CircuitOpened { .. })), failure == 5);
        now += 20_000;
        let asked = admission.step(Event::Tick, Moment(now));
        let slots = if failure == 5 { 1 } else { 3 };
        assert_eq!(asked, [Effect::Take { slots }], "failure {failure}");
    }
    assert_eq!(admission.circuit(), Circuit::HalfOpen);
    let effects = admission.step(failed(), Moment(now));
    assert!(matches!(effects[0], Effect::CircuitOpened { .. }), "a failed probe opens it again");
    now += 60_000;
    admission.step(Event::Tick, Moment(now));
    let effects = admission.step(Event::Ended(Poll::Empty), Moment(now));
    assert_eq!(effects, [Effect::CircuitClosed, Effect::Take { slots: 3 }]);
    assert_eq!((admission.circuit(), admission.trouble()), (Circuit::Closed, None));
}

#[derive(Debug, Clone)]
enum Act {
    Room(usize),
    End(u8),
    Pass(u64),
    Close,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..4usize).prop_map(Act::Room),
        8 => (0..4u8).prop_map(Act::End),
        8 => prop_oneof![0..50u64, 0..30_000u64].prop_map(Act::Pass),
        1 => Just(Act::Close),
    ]
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants(acts in prop::collection::vec(any_act(), 1..400)) {
        let policy = AdmissionPolicy::default();
        let mut admission = open();
        let (mut now, mut room, mut polling, mut closed) = (0, 0, false, false);
        let mut rest_until = 0;
        let mut empties: Vec<u64> = Vec::new();
        for act in acts {
            let event = match act {
                Act::Room(slots) => { room = slots; Event::Room { slots } }
                Act::End(kind) => {
                    if !polling { continue }
                    polling = false;
                    Event::Ended(match kind {
                        0 => Poll::Jobs,
                        1 => { empties.push(now); Poll::Empty }
                        2 => { rest_until = now + 5_000; Poll::Throttled { retry_after: None } }
                        _ => { rest_until = now + 375; Poll::Failed { reason: String::new() } }
                    })
                }
                Act::Pass(millis) => { now += millis; Event::Tick }
                Act::Close => { closed = true; Event::Close }
            };
            for effect in admission.step(event, Moment(now)) {
                match effect {
                    Effect::Take { slots } => {
                        prop_assert!(!polling && !closed && room > 0 && now >= rest_until);
                        prop_assert!(slots <= room && (slots == 1 || admission.circuit() == Circuit::Closed));
                        let lately = empties.iter().filter(|at| now < **at + 1_000).count();
                        prop_assert!(lately < policy.empties_a_second, "{} empty polls within a second", lately + 1);
                        polling = true;
                    }
                    Effect::Abort => { prop_assert!(polling && room == 0); polling = false; empties.push(now); }
                    Effect::WakeIn(wait) => prop_assert!(!wait.is_zero()),
                    Effect::CircuitOpened { .. } | Effect::CircuitClosed => {}
                }
            }
            let due = !closed && room > 0 && now >= rest_until + 80_000;
            prop_assert!(polling || !due || empties.iter().any(|at| now < at + 1_000), "a poll is open when there is room");
        }
    }
}
