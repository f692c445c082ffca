//! The guard against a model that knows every admission there ever was.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(600);
const NOON: WallTime = WallTime(1_700_000_000_000);
const RING: Kid = Kid([1; 8]);
const DEAD: Kid = Kid([2; 8]);

fn job(name: &str) -> JobId {
    name.parse().unwrap()
}

fn guard(room: usize) -> Guard {
    Guard::new(Policy { window: WINDOW, room })
}

fn asked(question: Question, tag: u8, name: &str, sealed_at: Option<WallTime>) -> Event {
    Event::Asked { question, tag: ReplayTag([tag; 32]), kid: RING, job: job(name), sealed_at }
}

fn written(question: Question, tag: u8) -> Event {
    Event::Written { question, tag: ReplayTag([tag; 32]) }
}

fn not_written(question: Question, tag: u8) -> Event {
    Event::NotWritten { question, tag: ReplayTag([tag; 32]) }
}

/// Asks, and lets the write succeed.
fn ask(guard: &mut Guard, tag: u8, name: &str, sealed_at: Option<WallTime>, now: WallTime) -> Effect {
    match guard.step(asked(1, tag, name, sealed_at), now).remove(0) {
        Effect::Remember { question, .. } => guard.step(written(question, tag), now).remove(0),
        other => other,
    }
}

#[test]
fn a_request_runs_under_one_job_and_comes_again_under_the_same() {
    let mut guard = guard(10);
    assert_eq!(ask(&mut guard, 1, "a", None, NOON), Effect::Admit(1));
    assert_eq!(ask(&mut guard, 1, "a", None, NOON), Effect::Admit(1));
    assert_eq!(ask(&mut guard, 1, "b", None, NOON.plus_seconds(1_000_000)), Effect::Refuse(1, Refusal::Replayed));
    assert_eq!(ask(&mut guard, 2, "b", None, NOON), Effect::Admit(1));
}

#[test]
fn the_time_of_a_request_must_be_in_the_window_but_for_one_that_is_known() {
    let mut guard = guard(10);
    let stale = Effect::Refuse(1, Refusal::Stale);
    for (tag, seconds, expected) in [(1, 0, Effect::Admit(1)), (2, 600, Effect::Admit(1)), (3, 601, stale.clone())] {
        assert_eq!(ask(&mut guard, tag, "a", Some(NOON), NOON.plus_seconds(seconds)), expected, "{seconds} s late");
        let ahead = WallTime(NOON.0 + i64::try_from(seconds).unwrap() * 1000);
        assert_eq!(ask(&mut guard, tag + 10, "a", Some(ahead), NOON), expected, "{seconds} s ahead");
    }
    let later = NOON.plus_seconds(80_000);
    guard.step(Event::Tick { ring: vec![RING] }, later);
    assert_eq!(ask(&mut guard, 1, "a", Some(NOON), later), Effect::Admit(1), "a redelivery");
    assert_eq!(ask(&mut guard, 1, "b", Some(NOON), later), Effect::Refuse(1, Refusal::Replayed));
}

#[test]
fn nothing_is_admitted_before_it_is_written_and_a_failed_write_leaves_nothing() {
    let mut guard = guard(10);
    assert!(matches!(guard.step(asked(1, 1, "a", None), NOON)[..], [Effect::Remember { question: 1, .. }]));
    assert!(matches!(guard.step(asked(2, 1, "a", None), NOON)[..], [Effect::Remember { question: 2, .. }]));
    assert_eq!(guard.step(asked(3, 1, "b", None), NOON), [Effect::Refuse(3, Refusal::Replayed)]);
    assert_eq!(guard.step(not_written(1, 1), NOON), [Effect::Refuse(1, Refusal::Unwritten)]);
    assert_eq!(guard.remembered(), 1, "the second write is under way");
    assert_eq!(guard.step(not_written(2, 1), NOON), [Effect::Refuse(2, Refusal::Unwritten)]);
    assert_eq!(guard.remembered(), 0);
    assert_eq!(ask(&mut guard, 1, "b", None, NOON), Effect::Admit(1));
}

#[test]
fn a_full_guard_refuses_and_a_quarter_is_left_to_those_that_are_forgotten() {
    let mut guard = guard(4);
    for tag in 0..3 {
        assert_eq!(ask(&mut guard, tag, "a", None, NOON), Effect::Admit(1));
    }
    assert_eq!(ask(&mut guard, 9, "a", None, NOON), Effect::Refuse(1, Refusal::Full));
    assert_eq!(ask(&mut guard, 10, "a", Some(NOON), NOON), Effect::Admit(1));
    assert_eq!(ask(&mut guard, 11, "a", Some(NOON), NOON), Effect::Refuse(1, Refusal::Full));
    let later = NOON.plus_seconds(601);
    assert_eq!(ask(&mut guard, 11, "a", Some(later), later), Effect::Admit(1), "the old one's time was over");
    assert_eq!(ask(&mut guard, 0, "a", None, later), Effect::Admit(1), "a redelivery needs no room");
}

#[test]
fn requests_of_a_key_that_died_are_forgotten_and_those_of_an_empty_ring_are_not() {
    let mut guard = guard(10);
    assert_eq!(ask(&mut guard, 1, "a", None, NOON), Effect::Admit(1));
    guard.step(Event::Tick { ring: vec![] }, NOON);
    guard.step(Event::Tick { ring: vec![RING, DEAD] }, NOON);
    assert_eq!(guard.remembered(), 1);
    assert_eq!(guard.step(Event::Tick { ring: vec![DEAD] }, NOON), [Effect::Forget]);
    assert_eq!(guard.remembered(), 0);
}

#[test]
fn a_clock_that_jumps_ahead_and_back_lets_nothing_in_again() {
    let mut guard = guard(10);
    assert_eq!(ask(&mut guard, 1, "a", Some(NOON), NOON), Effect::Admit(1));
    guard.step(Event::Tick { ring: vec![RING] }, NOON.plus_seconds(87_000));
    assert_eq!(guard.remembered(), 1);
    guard.step(Event::Tick { ring: vec![RING] }, NOON.plus_seconds(87_001));
    assert_eq!(guard.remembered(), 0);
    assert_eq!(ask(&mut guard, 1, "b", Some(NOON), NOON), Effect::Refuse(1, Refusal::Stale));
    let next = WallTime(NOON.0 + 1);
    assert_eq!(ask(&mut guard, 2, "b", Some(next), next), Effect::Admit(1), "what is newer is not concerned");
}

#[derive(Debug, Clone)]
enum Act {
    Ask { request: u8, job: u8 },
    Finish { nth: usize, fine: bool },
    Wait(i64),
    Tick,
    Kill,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..12_u8, 0..3_u8).prop_map(|(request, job)| Act::Ask { request, job }),
        6 => (0..4_usize, prop::bool::weighted(0.8)).prop_map(|(nth, fine)| Act::Finish { nth, fine }),
        2 => (-700_000..700_000_i64).prop_map(Act::Wait),
        1 => Just(Act::Tick),
        1 => Just(Act::Kill),
    ];
    prop::collection::vec(act, 1..120)
}

/// Even requests are v1; odd ones are v2 and were sealed some minutes apart: the time is part of the box.
fn sealed_at(request: u8) -> Option<WallTime> {
    (request % 2 == 1).then(|| WallTime(NOON.0 + i64::from(request) * 60_000))
}

proptest! {
    #[test]
    fn what_was_admitted_under_one_job_is_never_admitted_under_another(acts in acts(), room in 3..10_usize) {
        let mut guard = guard(room);
        let (mut now, mut next, mut most) = (NOON, 0, room);
        let mut log: BTreeMap<ReplayTag, Seen> = BTreeMap::new();
        let mut under_way: Vec<(Question, Seen)> = Vec::new();
        let mut open: BTreeSet<Question> = BTreeSet::new();
        let mut of_question: BTreeMap<Question, (u8, u8)> = BTreeMap::new();
        let mut admitted: BTreeMap<u8, u8> = BTreeMap::new();
        for act in acts {
            let effects = match act {
                Act::Ask { request, job } => {
                    next += 1;
                    open.insert(next);
                    of_question.insert(next, (request, job));
                    guard.step(asked(next, request, &format!("job-{job}"), sealed_at(request)), now)
                }
                Act::Finish { nth, fine } => {
                    if under_way.is_empty() { continue }
                    let (question, seen) = under_way.remove(nth % under_way.len());
                    let tag = seen.tag;
                    if fine {
                        log.entry(tag).or_insert(seen);
                        guard.step(Event::Written { question, tag }, now)
                    } else {
                        guard.step(Event::NotWritten { question, tag }, now)
                    }
                }
                // The clock goes back, too, but not below what a restart would not know to be over.
                Act::Wait(millis) => { now = WallTime(now.0 + millis.max(0)); Vec::new() }
                Act::Tick => guard.step(Event::Tick { ring: vec![RING] }, now),
                Act::Kill => {
                    // A write that was under way may have been done or not; nobody was told.
                    for (nth, (_, seen)) in under_way.drain(..).enumerate() {
                        if nth % 2 == 0 { log.entry(seen.tag).or_insert(seen); }
                    }
                    open.clear();
                    guard = Guard::new(Policy { window: WINDOW, room });
                    // What was written beyond the room is remembered, too.
                    most = most.max(log.len());
                    guard.step(Event::Loaded(log.values().cloned().collect()), now)
                }
            };
            for effect in effects {
                match effect {
                    Effect::Remember { question, seen } => under_way.push((question, seen)),
                    Effect::Admit(question) => {
                        prop_assert!(open.remove(&question), "answered twice");
                        let (request, job) = of_question[&question];
                        let first = *admitted.entry(request).or_insert(job);
                        prop_assert_eq!(first, job, "request {} ran under two jobs", request);
                        prop_assert!(log.contains_key(&ReplayTag([request; 32])) || sealed_at(request).is_some());
                    }
                    Effect::Refuse(question, _) => prop_assert!(open.remove(&question), "answered twice"),
                    Effect::Forget => log.retain(|_, seen| seen.until.is_none_or(|until| until >= now)),
                }
            }
            prop_assert!(guard.remembered() <= most);
            let waiting: BTreeSet<Question> = under_way.iter().map(|(question, _)| *question).collect();
            prop_assert_eq!(&waiting, &open, "a question waits for a write, or is answered");
        }
    }

    #[test]
    fn a_clock_that_goes_to_and_fro_does_not_help(steps in prop::collection::vec((0..12_u8, 0..3_u8, -700_000..700_000_i64), 1..80)) {
        let mut guard = guard(100);
        let mut now = NOON;
        let mut admitted: BTreeMap<u8, u8> = BTreeMap::new();
        for (request, job, millis) in steps {
            now = WallTime(now.0 + millis);
            guard.step(Event::Tick { ring: vec![RING] }, now);
            if ask(&mut guard, request, &format!("job-{job}"), sealed_at(request), now) == Effect::Admit(1) {
                prop_assert_eq!(*admitted.entry(request).or_insert(job), job);
            }
        }
    }
}
