//! Turns, shares and limits: what tenants, environments and set-ups have beside one another.

use super::*;

#[test]
fn boots_are_bounded_and_environments_take_turns() {
    let mut pool = open(policy());
    let mut order = Vec::new();
    for (execution, environment) in [(1, 10), (2, 10), (3, 10), (4, 10), (5, 20)] {
        order.extend(boots(&arrive(&mut pool, execution, environment)));
    }
    assert_eq!(order.len(), 2, "two boots at once");
    let effects = pool.step(Event::Booted { slot: order[0].0 }, Moment(1));
    assert_eq!(boots(&effects)[0].1, call(3));
    pool.step(Event::Booted { slot: order[1].0 }, Moment(2));
    pool.step(Event::Settled { slot: order[0].0 }, Moment(3));
    let effects = pool.step(Event::Destroyed { slot: order[0].0 }, Moment(4));
    assert_eq!(boots(&effects)[0].1, call(5), "environment 20 does not wait behind all of 10's calls");
}

#[test]
fn set_ups_that_boot_leave_a_boot_to_the_calls_and_are_passed_by_those_that_do_not() {
    let mut pool = open(policy());
    let begin = |n| Effect::BeginSetUp { environment: env(n), compiler: None };
    assert!(pool.step(set_up_came(1, true), Moment(0)).contains(&begin(1)));
    assert!(!pool.step(set_up_came(2, true), Moment(0)).contains(&begin(2)), "half of two boots is one");
    assert!(pool.step(set_up_came(3, false), Moment(0)).contains(&begin(3)), "it needs no boot");
    assert_eq!(boots(&arrive(&mut pool, 1, 10)).len(), 1, "the other boot is the calls'");
    assert_eq!(boots(&arrive(&mut pool, 2, 10)), []);
    pool.step(Event::SetUpEnded { environment: env(3) }, Moment(1));
    let effects = pool.step(Event::SetUpEnded { environment: env(1) }, Moment(1));
    assert_eq!(effects.len(), 2, "a call and the second set-up");
}

#[test]
fn a_set_up_that_compiles_takes_a_compiler_that_stands_and_ends_it() {
    let with_one = StandingPolicy { compilers: 1, runtimes: BTreeMap::new(), ..standing().standing };
    let mut pool = super::standing::stocked(PoolPolicy { standing: with_one, ..policy() });
    let compiler = *pool.slots().first().unwrap();
    let effects = pool.step(set_up_came(2, true), Moment(200));
    assert_eq!(effects[1..], [Effect::BeginSetUp { environment: env(2), compiler: Some(compiler) }], "{effects:?}");
    let effects = pool.step(set_up_came(4, true), Moment(200));
    assert!(
        effects.contains(&Effect::BeginSetUp { environment: env(4), compiler: None }),
        "the other boots: {effects:?}"
    );
    let effects = pool.step(Event::SetUpEnded { environment: env(2) }, Moment(300));
    assert!(effects.contains(&Effect::Destroy { slot: compiler }), "{effects:?}");
    pool.step(Event::Destroyed { slot: compiler }, Moment(320));
    assert!(!pool.slots().contains(&compiler));
}

#[test]
fn a_tenant_does_not_wait_behind_another_ones_environments() {
    let mut pool = open(policy());
    let mut order = Vec::new();
    for (execution, environment) in [(1, 10), (2, 11), (3, 12), (4, 13), (5, 20)] {
        order.extend(boots(&arrive(&mut pool, execution, environment)));
    }
    let effects = pool.step(Event::Booted { slot: order[0].0 }, Moment(1));
    assert_eq!(boots(&effects)[0].1, call(3));
    pool.step(Event::Booted { slot: order[1].0 }, Moment(2));
    pool.step(Event::Settled { slot: order[0].0 }, Moment(3));
    let effects = pool.step(Event::Destroyed { slot: order[0].0 }, Moment(4));
    assert_eq!(boots(&effects)[0].1, call(5));
}

#[test]
fn an_environment_that_allows_one_call_at_once_lets_the_next_wait_and_others_pass() {
    let mut pool = open(policy());
    let (slot, _) = boots(&arrive(&mut pool, 1, 30))[0];
    assert_eq!(boots(&arrive(&mut pool, 2, 30)), []);
    assert_eq!(boots(&arrive(&mut pool, 3, 31)).len(), 1);
    pool.step(Event::Booted { slot }, Moment(1));
    assert_eq!(boots(&pool.step(Event::Settled { slot }, Moment(2))), [], "its sandbox is not gone yet");
    assert_eq!(boots(&pool.step(Event::Destroyed { slot }, Moment(3)))[0].1, call(2));
    arrive(&mut pool, 4, 30);
    let late = answers(&pool.step(Event::Tick, Moment(10_000)));
    assert!(matches!(late[..], [(execution, Answer::Refused(Refusal::WaitedTooLong { .. }))] if execution == call(4)));
}

#[test]
fn a_tenant_who_fills_the_queue_gives_way_to_another() {
    let mut pool = open(policy());
    for execution in 1..=7 {
        arrive(&mut pool, execution, 10);
    }
    let gone = answers(&pool.step(came(8, 20), Moment(5)));
    assert!(matches!(gone[..], [(_, Answer::Refused(Refusal::QueueFull { .. }))]), "{gone:?}");
    assert_eq!(pool.picture().queued, 5, "as many as before: two boot");
    let gone = answers(&pool.step(came(9, 21), Moment(6)));
    assert_eq!(gone.len(), 1);
    let refused = answers(&pool.step(came(10, 22), Moment(7)));
    let is_late = matches!(refused[..], [(late, Answer::Refused(Refusal::QueueFull { .. }))] if late == call(10));
    assert!(is_late, "three to two is even, so who comes is refused: {refused:?}");
}

#[test]
fn set_ups_are_served_in_turns_by_tenant_and_their_queue_is_shared_as_well() {
    let mut pool = open(policy());
    let begin = |n| Effect::BeginSetUp { environment: env(n), compiler: None };
    for n in 100..122 {
        let crowd = Event::SetUpCame { environment: env(n), tenant: tenant(1), needs: Needs::Nothing };
        pool.step(crowd, Moment(0));
    }
    let effects = pool.step(set_up_came(200, false), Moment(1));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::RefuseSetUp { .. })), "{effects:?}");
    let effects = pool.step(Event::SetUpEnded { environment: env(100) }, Moment(2));
    assert!(effects.contains(&begin(200)), "{effects:?}");
}
