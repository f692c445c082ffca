//! What supervision promises, first as examples, then as properties over arbitrary histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [ChildName; 4] = ["a", "b", "c", "d"];

fn exact() -> RestartPolicy {
    RestartPolicy { jitter: 0.0, ..RestartPolicy::default() }
}

fn single(policy: RestartPolicy) -> Supervision {
    Supervision::new(policy, &[("a", true)], 7)
}

fn beat(generation: u64) -> Event {
    Event::Beat { child: "a", generation: Generation(generation), complaints: Vec::new() }
}

fn crash(generation: u64) -> Event {
    Event::Down { child: "a", generation: Generation(generation), exit: Exit::Crashed }
}

fn wait_of(effects: &[Effect]) -> Option<Duration> {
    effects.iter().find_map(|effect| match effect {
        Effect::Restarting { wait, .. } => Some(*wait),
        _ => None,
    })
}

#[test]
fn waits_grow_geometrically_from_half_a_second_to_a_minute() {
    let policy = exact();
    let waits: Vec<f64> = (1..=8).map(|falls| (policy.backoff(falls).as_secs_f64() * 10.0).round() / 10.0).collect();
    assert_eq!(waits, [0.5, 1.1, 2.5, 5.5, 12.2, 27.0, 60.0, 60.0]);
}

#[test]
fn a_crashed_child_is_started_again_after_its_wait_and_not_before() {
    let mut machine = single(exact());
    assert_eq!(machine.step(Event::Begin, Moment(0)), [Effect::Start { child: "a", generation: Generation(1) }]);
    machine.step(beat(1), Moment(10));
    assert!(machine.is_ready());
    let effects = machine.step(crash(1), Moment(20));
    assert_eq!(wait_of(&effects), Some(Duration::from_millis(500)));
    assert!(!machine.is_ready());
    assert_eq!(machine.step(Event::Tick, Moment(519)), []);
    let restarted = machine.step(Event::Tick, Moment(520));
    assert_eq!(restarted, [Effect::Start { child: "a", generation: Generation(2) }]);
}

#[test]
fn facts_of_an_earlier_life_change_nothing() {
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    machine.step(beat(1), Moment(1));
    machine.step(crash(1), Moment(2));
    machine.step(Event::Tick, Moment(1000));
    assert_eq!(machine.step(crash(1), Moment(1001)), []);
    machine.step(beat(1), Moment(1002));
    assert!(!machine.is_ready(), "an old beat must not make the new life ready");
}

#[test]
fn a_crash_loop_waits_longest_then_the_child_is_given_up_and_named() {
    let mut machine = single(exact());
    let mut now = Moment(0);
    machine.step(Event::Begin, now);
    let mut waits = Vec::new();
    let gave_up = loop {
        let generation = machine.children[0].generation.0;
        let effects = machine.step(crash(generation), now);
        if effects.contains(&Effect::GaveUp { child: "a", essential: true }) {
            break true;
        }
        let wait = wait_of(&effects).unwrap();
        waits.push(wait.as_secs());
        now = now.after(wait);
        machine.step(Event::Tick, now);
    };
    assert!(gave_up);
    assert_eq!(waits, [0, 1, 2, 5, 12, 60, 60, 60]);
    assert!(!machine.is_live(now));
    assert_eq!(machine.parts(now)[0].reasons, ["given up: it crashed"]);
    assert_eq!(machine.step(Event::Tick, now.after(Duration::from_secs(3600))), []);
}

#[test]
fn long_health_forgives_earlier_falls() {
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    machine.step(crash(1), Moment(0));
    machine.step(Event::Tick, Moment(500));
    machine.step(beat(2), Moment(501));
    for second in 1..=600 {
        machine.step(beat(2), Moment(501 + second * 1000));
    }
    let effects = machine.step(crash(2), Moment(700_000));
    assert_eq!(wait_of(&effects), Some(Duration::from_millis(500)));
}

fn recycled(generation: u64) -> Event {
    Event::Down { child: "a", generation: Generation(generation), exit: Exit::Recycled }
}

#[test]
fn a_recycled_child_is_started_at_once_and_has_not_fallen() {
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    for life in 1..=20 {
        machine.step(beat(life), Moment(life * 10_000));
        let effects = machine.step(recycled(life), Moment((life + 1) * 10_000));
        let again = Effect::Start { child: "a", generation: Generation(life + 1) };
        assert_eq!(effects, [Effect::Dismiss { child: "a", generation: Generation(life), hung: false }, again]);
    }
    machine.step(beat(21), Moment(220_000));
    assert_eq!(wait_of(&machine.step(crash(21), Moment(300_000))), Some(Duration::from_millis(500)));
}

#[test]
fn a_child_that_recycles_itself_right_after_its_start_waits_and_is_never_given_up() {
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    machine.step(beat(1), Moment(1));
    assert_eq!(wait_of(&machine.step(recycled(1), Moment(10_000))), Some(Duration::from_millis(500)));
    machine.step(Event::Tick, Moment(10_500));
    assert!(wait_of(&machine.step(recycled(2), Moment(90_000))) > Some(Duration::from_secs(1)), "it never beat");
    assert_eq!(machine.parts(Moment(90_000))[0].state, PartState::Restarting);
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    let mut now = 0;
    for life in 1..=100 {
        machine.step(beat(life), Moment(now));
        let wait = wait_of(&machine.step(recycled(life), Moment(now + 1_000))).expect("a wait, for ever");
        now += 1_000 + u64::try_from(wait.as_millis()).unwrap();
        machine.step(Event::Tick, Moment(now));
    }
}

#[test]
fn a_child_that_recycles_itself_during_a_drain_is_not_started_again() {
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    machine.step(beat(1), Moment(1));
    machine.step(Event::Shutdown { hurry: false }, Moment(20_000));
    let effects = machine.step(recycled(1), Moment(20_001));
    assert!(effects.contains(&Effect::Drained { in_time: true }), "{effects:?}");
}

#[test]
fn a_child_that_stops_beating_is_dismissed_and_replaced() {
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    machine.step(beat(1), Moment(0));
    assert_eq!(machine.step(Event::Tick, Moment(15_000)), []);
    let effects = machine.step(Event::Tick, Moment(15_001));
    assert_eq!(effects[0], Effect::Dismiss { child: "a", generation: Generation(1), hung: true });
    assert!(wait_of(&effects).is_some());
}

#[test]
fn a_shutdown_stops_the_last_started_first_and_waits_for_each() {
    let mut machine = Supervision::new(exact(), &[("a", true), ("b", false)], 1);
    machine.step(Event::Begin, Moment(0));
    let stop = |child, hurry| Effect::Stop { child, generation: Generation(1), hurry };
    assert_eq!(machine.step(Event::Shutdown { hurry: false }, Moment(1)), [stop("b", false)]);
    assert_eq!(machine.step(Event::Tick, Moment(2)), []);
    let b_down = Event::Down { child: "b", generation: Generation(1), exit: Exit::Requested };
    assert!(machine.step(b_down, Moment(3)).contains(&stop("a", false)));
    assert_eq!(machine.step(Event::Shutdown { hurry: true }, Moment(4)), [stop("a", true)]);
    let a_down = Event::Down { child: "a", generation: Generation(1), exit: Exit::Requested };
    assert!(machine.step(a_down, Moment(5)).contains(&Effect::Drained { in_time: true }));
}

#[test]
fn a_shutdown_during_a_restarts_wait_starts_nothing() {
    let mut machine = single(exact());
    machine.step(Event::Begin, Moment(0));
    machine.step(crash(1), Moment(1));
    assert_eq!(machine.step(Event::Shutdown { hurry: false }, Moment(2)), [Effect::Drained { in_time: true }]);
    assert_eq!(machine.step(Event::Tick, Moment(10_000)), []);
}

#[derive(Debug, Clone)]
enum Act {
    Beat(usize, u64),
    Crash(usize, u64),
    Recycle(usize, u64),
    Pass(u64),
    Shutdown(bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..NAMES.len(), 0..3u64).prop_map(|(child, age)| Act::Beat(child, age)),
        4 => (0..NAMES.len(), 0..3u64).prop_map(|(child, age)| Act::Crash(child, age)),
        2 => (0..NAMES.len(), 0..3u64).prop_map(|(child, age)| Act::Recycle(child, age)),
        4 => (0..90_000u64).prop_map(Act::Pass),
        1 => any::<bool>().prop_map(Act::Shutdown),
    ]
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants(acts in prop::collection::vec(any_act(), 1..200), seed: u64) {
        let policy = RestartPolicy::default();
        let rules: Vec<(ChildName, bool)> = NAMES.iter().map(|&name| (name, name == "a")).collect();
        let mut machine = Supervision::new(policy, &rules, seed);
        let mut now = Moment(0);
        let mut shutting = false;
        let mut newest: BTreeMap<ChildName, u64> = BTreeMap::new();
        let mut alive: BTreeMap<ChildName, u64> = BTreeMap::new();
        let started = std::iter::once(None).chain(acts.into_iter().map(Some));
        for act in started {
            let Some(act) = act else {
                for effect in machine.step(Event::Begin, now) {
                    let Effect::Start { child, generation } = effect else { continue };
                    alive.insert(child, generation.0);
                    newest.insert(child, generation.0);
                }
                continue;
            };
            let event = match act {
                Act::Beat(child, age) => {
                    let generation = Generation(newest.get(NAMES[child]).copied().unwrap_or(0).saturating_sub(age));
                    Event::Beat { child: NAMES[child], generation, complaints: Vec::new() }
                }
                Act::Crash(child, age) => {
                    let generation = Generation(newest.get(NAMES[child]).copied().unwrap_or(0).saturating_sub(age));
                    Event::Down { child: NAMES[child], generation, exit: Exit::Crashed }
                }
                Act::Recycle(child, age) => {
                    let generation = Generation(newest.get(NAMES[child]).copied().unwrap_or(0).saturating_sub(age));
                    Event::Down { child: NAMES[child], generation, exit: Exit::Recycled }
                }
                Act::Pass(millis) => { now = Moment(now.0 + millis); Event::Tick }
                Act::Shutdown(hurry) => { shutting = true; Event::Shutdown { hurry } }
            };
            for effect in machine.step(event, now) {
                match effect {
                    Effect::Start { child, generation } => {
                        prop_assert!(!shutting, "nothing starts after a shutdown began");
                        prop_assert!(alive.insert(child, generation.0).is_none(), "two lives of {child} at once");
                        prop_assert_eq!(generation.0, newest.get(child).copied().unwrap_or(0) + 1);
                        newest.insert(child, generation.0);
                    }
                    Effect::Dismiss { child, generation, .. } => {
                        prop_assert_eq!(alive.remove(child), Some(generation.0));
                    }
                    Effect::Restarting { wait, .. } => {
                        prop_assert!(wait <= policy.backoff_max.mul_f64(1.0 + policy.jitter + 1e-9));
                    }
                    _ => {}
                }
            }
            let starting = machine.children.iter().filter(|c| matches!(c.state, State::Starting { .. })).count();
            prop_assert!(starting <= policy.spawns_at_once);
        }
    }

    #[test]
    fn every_shutdown_ends(crashes in prop::collection::vec(0..NAMES.len(), 0..20), hurry: bool) {
        let policy = RestartPolicy::default();
        let rules: Vec<(ChildName, bool)> = NAMES.iter().map(|&name| (name, false)).collect();
        let mut machine = Supervision::new(policy, &rules, 3);
        machine.step(Event::Begin, Moment(0));
        for child in crashes {
            let generation = machine.children[child].generation;
            machine.step(Event::Down { child: NAMES[child], generation, exit: Exit::Crashed }, Moment(1));
        }
        let mut effects = machine.step(Event::Shutdown { hurry }, Moment(2));
        effects.extend(machine.step(Event::Tick, Moment(2 + 30_000)));
        effects.extend(machine.step(Event::Tick, Moment(2 + 45_000)));
        prop_assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Drained { .. })).count(), 1);
    }
}
