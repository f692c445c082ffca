//! What stands ready: who gets it, what spoils it, and what is made next.

use super::*;

fn made(effects: &[Effect]) -> Vec<(SlotId, StandsFor)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Stand { slot, stands_for } => Some((*slot, *stands_for)),
            _ => None,
        })
        .collect()
}

pub(super) fn started(effects: &[Effect]) -> Vec<(SlotId, Start)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Run { slot, start, .. } => Some((*slot, *start)),
            _ => None,
        })
        .collect()
}

/// A pool whose stock of runtimes stands.
pub(super) fn stocked(policy: PoolPolicy) -> Pool {
    let mut pool = Pool::new(policy, Uuid::from_u128(7 << 64));
    stock(&mut pool);
    pool
}

fn stock(pool: &mut Pool) {
    let mut making = made(&pool.step(Event::Swept, Moment(0)));
    while let Some((slot, _)) = making.pop() {
        making.extend(stands(pool, slot, 100));
    }
}

/// One that was made stands, and rests; what is made next.
fn stands(pool: &mut Pool, slot: SlotId, now: u64) -> Vec<(SlotId, StandsFor)> {
    let events = [Event::Stood { slot }, Event::Rests { slot, memory_mb: 90 }];
    events.into_iter().flat_map(|event| made(&pool.step(event, Moment(now)))).collect()
}

/// Runs a call to its end; says how it started. What stands next is made.
fn serve(pool: &mut Pool, execution: u128, environment: u128, now: u64) -> Start {
    serve_with(pool, execution, environment, WANTS, now)
}

pub(super) fn serve_with(pool: &mut Pool, execution: u128, environment: u128, wants: Wants, now: u64) -> Start {
    pool.step(came(execution, environment), Moment(now));
    let mut effects = pool.step(Event::LookedUp { execution: call(execution), wants: Some(wants) }, Moment(now));
    if let Some((slot, _)) = boots(&effects).first().copied() {
        effects = pool.step(Event::Booted { slot }, Moment(now));
    }
    let (slot, start) = started(&effects)[0];
    let mut making = made(&effects);
    let ended = if wants.shares { Event::Released { slot, memory_mb: 0 } } else { Event::Settled { slot } };
    for event in [ended, Event::Destroyed { slot }] {
        making.extend(made(&pool.step(event, Moment(now))));
    }
    while let Some((slot, _)) = making.pop() {
        making.extend(stands(pool, slot, now + 200));
    }
    start
}

#[test]
fn the_first_calls_take_what_stands_for_the_runtime_and_the_next_what_stands_for_them() {
    let mut pool = stocked(standing());
    assert_eq!(pool.picture().standing, 2);
    let starts: Vec<Start> = (1..=4).map(|n| serve(&mut pool, n, 10, u64::try_from(n).unwrap() * 1000)).collect();
    assert_eq!(starts[..2], [Start::WarmRuntime, Start::WarmRuntime]);
    assert_eq!(starts[2..], [Start::WarmEnvironment, Start::WarmEnvironment]);
}

#[test]
fn a_call_takes_nothing_that_it_does_not_fit() {
    for (wants, expected) in [
        (Wants { bare: false, ..WANTS }, Start::WarmRuntime),
        (Wants { plain: false, ..WANTS }, Start::WarmEnvironment),
        (Wants { plain: false, bare: false, ..WANTS }, Start::Cold),
        (Wants { runtime: Runtime::Deno, plain: false, memory_mb: 256, ..WANTS }, Start::Cold),
    ] {
        let mut pool = stocked(standing());
        for n in 1..=3 {
            serve(&mut pool, n, 10, 1000);
        }
        pool.step(came(9, 10), Moment(2000));
        let effects = pool.step(Event::LookedUp { execution: call(9), wants: Some(wants) }, Moment(2000));
        let start = started(&effects).first().map_or(Start::Cold, |(_, start)| *start);
        assert_eq!(start, expected, "{wants:?}");
    }
}

#[test]
fn what_was_spoiled_is_destroyed_and_its_call_gets_a_sandbox_of_its_own() {
    let mut pool = stocked(standing());
    let (slot, _) = started(&arrive(&mut pool, 1, 10))[0];
    let effects = pool.step(Event::Spoiled { slot }, Moment(1));
    assert!(effects.contains(&Effect::Destroy { slot }) && started(&effects).is_empty(), "{effects:?}");
    let (own, execution) = boots(&effects)[0];
    assert_eq!(execution, call(1));
    let effects = pool.step(Event::Booted { slot: own }, Moment(2));
    assert_eq!(started(&effects), [(own, Start::Cold)]);
}

#[test]
fn what_cannot_be_made_is_tried_less_and_less_often() {
    let one_at_a_time = PoolPolicy { boots_at_once: 1, ..standing() };
    let mut pool = Pool::new(one_at_a_time, Uuid::nil());
    let (slot, _) = made(&pool.step(Event::Swept, Moment(0)))[0];
    assert_eq!(made(&pool.step(Event::StandFailed { slot }, Moment(0))), []);
    pool.step(Event::Destroyed { slot }, Moment(10));
    assert_eq!(made(&pool.step(Event::Tick, Moment(999))), []);
    let (slot, _) = made(&pool.step(Event::Tick, Moment(1000)))[0];
    pool.step(Event::StandFailed { slot }, Moment(1000));
    assert_eq!(made(&pool.step(Event::Tick, Moment(2999))), []);
    assert_eq!(made(&pool.step(Event::Tick, Moment(3000))).len(), 1);
}

#[test]
fn a_module_that_takes_long_to_be_imported_takes_no_boot_from_the_calls() {
    let mut pool = stocked(PoolPolicy {
        standing: StandingPolicy { runtimes: [(Runtime::Bun, 0)].into(), ..standing().standing },
        ..policy()
    });
    let mut warming = Vec::new();
    for n in 0..4 {
        pool.step(Event::CallCame { execution: call(n), environment: env(10), tenant: tenant(0) }, Moment(1000));
        let mut effects = pool.step(Event::LookedUp { execution: call(n), wants: Some(WANTS) }, Moment(1000));
        let (slot, _) = boots(&effects)[0];
        for event in [Event::Booted { slot }, Event::Settled { slot }, Event::Destroyed { slot }] {
            effects.extend(pool.step(event, Moment(1000)));
        }
        for (slot, _) in made(&effects) {
            warming.push(slot);
            pool.step(Event::Imports { slot }, Moment(1001));
        }
    }
    assert!(!warming.is_empty() && pool.picture().warming >= 1);
    let booted = [5, 6].map(|n| boots(&arrive(&mut pool, n, 20)).len());
    assert_eq!(booted, [1, 1], "both boots are the calls'");
}

#[test]
fn what_has_stood_long_is_replaced_one_at_a_time() {
    let mut pool = stocked(standing());
    let effects = pool.step(Event::Tick, Moment(600_200));
    let destroyed = effects.iter().filter(|effect| matches!(effect, Effect::Destroy { .. })).count();
    assert_eq!((destroyed, made(&effects).len()), (1, 1));
}

fn destroyed(effects: &[Effect]) -> BTreeSet<SlotId> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Destroy { slot } => Some(*slot),
            _ => None,
        })
        .collect()
}

#[test]
fn another_image_of_a_runtime_ends_what_stands_or_is_being_made_for_it_and_for_its_environments_and_nothing_else() {
    let both = [(Runtime::Bun, 2), (Runtime::Deno, 1)].into();
    let standing = StandingPolicy { memory_mb: 5000, runtimes: both, ..standing().standing };
    let mut pool = Pool::new(PoolPolicy { standing, ..policy() }, Uuid::from_u128(7 << 64));
    let serves = |runtime, fill| Event::ImageServes { runtime, image: image(fill) };
    for runtime in [Runtime::Bun, Runtime::Deno] {
        pool.step(serves(runtime, 1), Moment(0));
    }
    stock(&mut pool);
    for n in 1..=4 {
        serve(&mut pool, n, 10, 1000);
    }
    pool.step(came(5, 10), Moment(2000));
    let effects = pool.step(Event::LookedUp { execution: call(5), wants: Some(WANTS) }, Moment(2000));
    let (running, _) = started(&effects)[0];
    assert_eq!(made(&pool.step(Event::Tick, Moment(2000))).len(), 1, "what takes its place is being made");

    let stands = |pool: &Pool, runtime| -> BTreeSet<SlotId> {
        let of_it = |held: &Held| held.stands_for.is_some_and(|kind| pool.standing.may_be_of(kind, runtime));
        let is_there = |held: &Held| matches!(held.slot.state(), SlotState::Booting | SlotState::Ready);
        let there = pool.slots.iter().filter(|(_, held)| of_it(held) && !held.serves && is_there(held));
        there.map(|(slot, _)| *slot).collect()
    };
    let (bun, deno) = (stands(&pool, Runtime::Bun), stands(&pool, Runtime::Deno));
    assert!(bun.len() >= 3 && deno.len() == 1, "{bun:?} {deno:?}");
    assert_eq!(destroyed(&pool.step(serves(Runtime::Bun, 1), Moment(2001))), [].into(), "it is told again");
    assert_eq!(destroyed(&pool.step(serves(Runtime::Bun, 2), Moment(2001))), bun);
    assert_eq!(stands(&pool, Runtime::Deno), deno);
    let effects = pool.step(Event::Settled { slot: running }, Moment(2002));
    assert_eq!(answers(&effects), [(call(5), Answer::Settled)], "a call that runs keeps its sandbox");
}

#[test]
fn what_could_not_be_made_of_one_image_is_tried_at_once_with_another() {
    let mut pool = Pool::new(PoolPolicy { boots_at_once: 1, ..standing() }, Uuid::nil());
    let (slot, _) = made(&pool.step(Event::Swept, Moment(0)))[0];
    pool.step(Event::StandFailed { slot }, Moment(0));
    assert_eq!(made(&pool.step(Event::Destroyed { slot }, Moment(1))), []);
    let serves = Event::ImageServes { runtime: Runtime::Bun, image: image(1) };
    assert_eq!(made(&pool.step(serves, Moment(2))).len(), 1);
}

#[test]
fn a_hotter_environment_takes_the_room_of_a_colder_one() {
    let room_for_three = StandingPolicy { memory_mb: 280, ..standing().standing };
    let mut pool = stocked(PoolPolicy { standing: room_for_three, ..policy() });
    let stands = |pool: &Pool, n| {
        let of_it = |held: &&Held| {
            held.slot.state() == SlotState::Ready && held.stands_for == Some(StandsFor::Environment(env(n)))
        };
        pool.slots.values().filter(of_it).count()
    };
    for n in 0..4 {
        serve(&mut pool, n, 10, 1000);
    }
    assert_eq!((stands(&pool, 10), stands(&pool, 20)), (1, 0));
    for n in 100..112 {
        serve(&mut pool, n, 20, 2000);
    }
    assert_eq!((stands(&pool, 10), stands(&pool, 20)), (0, 1));
    serve(&mut pool, 200, 10, 2000);
    assert_eq!((stands(&pool, 10), stands(&pool, 20)), (0, 1), "the colder one does not take it back");
}

#[test]
fn what_stands_for_a_deleted_environment_goes_with_it_and_does_not_keep_it_in_use() {
    let mut pool = stocked(standing());
    for n in 1..=3 {
        serve(&mut pool, n, 10, 1000);
    }
    assert!(!pool.is_in_use(env(10)) && pool.environments().contains(&env(10)));
    let effects = pool.step(Event::DeleteCame { environment: env(10) }, Moment(2000));
    let slots: Vec<SlotId> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Destroy { slot } => Some(*slot),
            _ => None,
        })
        .collect();
    assert!(!slots.is_empty() && !effects.contains(&Effect::RemoveEnvironment { environment: env(10) }));
    let last = slots.into_iter().map(|slot| pool.step(Event::Destroyed { slot }, Moment(2001))).last().unwrap();
    assert!(last.contains(&Effect::RemoveEnvironment { environment: env(10) }));
}
