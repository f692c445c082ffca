//! Sandboxes that an environment's calls share.

use super::standing::{serve_with, started, stocked};
use super::*;

const SHARES: Wants = Wants { shares: true, plain: false, ..WANTS };

fn come(pool: &mut Pool, execution: u128, now: u64) -> Vec<Effect> {
    pool.step(came(execution, 11), Moment(now));
    pool.step(Event::LookedUp { execution: call(execution), wants: Some(SHARES) }, Moment(now))
}

/// A first call under way, in a sandbox of its own.
fn in_work(pool: &mut Pool) -> SlotId {
    let (slot, execution) = boots(&come(pool, 1, 1000))[0];
    let run = Effect::Run { slot, execution, start: Start::Cold, keep: true };
    assert_eq!(pool.step(Event::Booted { slot }, Moment(1000)), [run]);
    slot
}

#[test]
fn calls_follow_each_other_in_one_sandbox_until_it_has_served_its_share() {
    let mut pool = stocked(standing());
    let starts: Vec<Start> = (1..=4).map(|n| serve_with(&mut pool, n, 11, SHARES, 1000)).collect();
    assert_eq!(starts, [Start::Cold, Start::Reused, Start::Reused, Start::Cold]);
}

#[test]
fn one_that_ended_badly_serves_nobody_else() {
    let mut pool = stocked(standing());
    let slot = in_work(&mut pool);
    assert!(pool.step(Event::Settled { slot }, Moment(1001)).contains(&Effect::Destroy { slot }));
    pool.step(Event::Destroyed { slot }, Moment(1002));
    assert_eq!(boots(&come(&mut pool, 2, 1003)).len(), 1);
}

#[test]
fn a_call_that_waits_gets_the_one_in_use_at_once_and_another_when_it_has_waited_long() {
    let mut pool = stocked(standing());
    let slot = in_work(&mut pool);
    let wake = Effect::WakeIn(Duration::from_millis(250));
    assert_eq!(come(&mut pool, 2, 1000), [Effect::WakeIn(policy().queue_wait), wake], "it waits");
    let effects = pool.step(Event::Released { slot, memory_mb: 0 }, Moment(1010));
    assert_eq!(started(&effects), [(slot, Start::Reused)]);
    assert!(!effects.contains(&Effect::Await { slot }));
    assert_eq!(boots(&come(&mut pool, 3, 1020)), []);
    assert_eq!(boots(&pool.step(Event::Tick, Moment(1270))).len(), 1, "the one before takes long");
}

#[test]
fn it_rests_when_nobody_waits_and_ends_when_nobody_comes() {
    let mut pool = stocked(standing());
    let slot = in_work(&mut pool);
    assert!(pool.step(Event::Released { slot, memory_mb: 0 }, Moment(2000)).contains(&Effect::Await { slot }));
    assert!(!pool.is_in_use(env(11)));
    assert!(!pool.step(Event::Tick, Moment(61_999)).contains(&Effect::Destroy { slot }));
    assert!(pool.step(Event::Tick, Moment(62_000)).contains(&Effect::Destroy { slot }));
}

#[test]
fn one_that_serves_while_its_modules_change_serves_nobody_else() {
    for change in [Event::ModulesChanged { environment: env(11) }, Event::Drain { hurry: false }] {
        let mut pool = stocked(standing());
        let slot = in_work(&mut pool);
        pool.step(change, Moment(1001));
        assert!(pool.step(Event::Released { slot, memory_mb: 0 }, Moment(1002)).contains(&Effect::Destroy { slot }));
    }
}

#[test]
fn one_that_boots_while_its_modules_change_serves_its_call_alone() {
    let mut pool = stocked(standing());
    let (slot, execution) = boots(&come(&mut pool, 1, 1000))[0];
    pool.step(Event::ModulesChanged { environment: env(11) }, Moment(1001));
    let run = Effect::Run { slot, execution, start: Start::Cold, keep: false };
    assert_eq!(pool.step(Event::Booted { slot }, Moment(1002)), [run]);
}

#[test]
fn a_call_that_shares_nothing_gets_none_that_was_used() {
    let mut pool = stocked(standing());
    let alone = Wants { shares: false, ..SHARES };
    let calls = [(1, SHARES), (2, alone), (3, SHARES)];
    let starts = calls.map(|(n, wants)| serve_with(&mut pool, n, 11, wants, 1000));
    assert_eq!(starts, [Start::Cold, Start::Cold, Start::Reused]);
}

#[test]
fn what_a_call_holds_counts_against_the_room() {
    for (holds, kept) in [(100, true), (500, false)] {
        let mut pool = stocked(standing());
        let slot = in_work(&mut pool);
        let effects = pool.step(Event::Released { slot, memory_mb: holds }, Moment(1002));
        assert_eq!(effects.contains(&Effect::Await { slot }), kept, "{holds}");
    }
}

#[test]
fn a_call_that_may_not_share_waits_for_none() {
    let mut pool = stocked(standing());
    in_work(&mut pool);
    pool.step(came(2, 11), Moment(1000));
    let wants = Wants { bare: false, ..SHARES };
    let effects = pool.step(Event::LookedUp { execution: call(2), wants: Some(wants) }, Moment(1000));
    assert_eq!(boots(&effects).len(), 1);
}

#[test]
fn without_room_for_what_stands_nothing_is_shared() {
    let full = StandingPolicy { memory_mb: 200, ..standing().standing };
    let mut pool = stocked(PoolPolicy { standing: full, ..policy() });
    let slot = in_work(&mut pool);
    assert!(pool.step(Event::Released { slot, memory_mb: 0 }, Moment(1002)).contains(&Effect::Destroy { slot }));
}
