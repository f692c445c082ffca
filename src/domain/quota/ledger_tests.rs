//! The limits one by one, and all orders of everything.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NOON: WallTime = WallTime(DAY * 3 + DAY / 2);

fn name(n: u8) -> TenantName {
    format!("t{n}").parse().unwrap()
}

fn rate(per_second: f64, burst: u64) -> Rate {
    Rate::new(per_second, Some(burst)).unwrap()
}

#[test]
fn calls_at_once_are_counted_until_they_leave() {
    let mut ledger = Ledger::default();
    let quotas = Quotas { concurrency: Some(2), ..Quotas::default() };
    let admit = |ledger: &mut Ledger, work| ledger.admit(&name(1), work, &quotas, Moment(0), NOON);
    assert!(admit(&mut ledger, Work::Call).is_ok() && admit(&mut ledger, Work::QueuedCall).is_ok());
    let refused = admit(&mut ledger, Work::Call).unwrap_err();
    assert_eq!((refused.quota, refused.limit, refused.used), (Quota::Concurrency, 2, 2));
    assert!(refused.retry_after.is_some());
    assert!(admit(&mut ledger, Work::SetUp).is_ok(), "a set-up is no call");
    ledger.leave(&name(1));
    assert!(admit(&mut ledger, Work::Call).is_ok());
    assert_eq!(ledger.of(&name(1), NOON).0, 2);
    assert_eq!(ledger.counts(), Counts { calls: 2, refused_concurrency: 1, ..Counts::default() });
}

#[test]
fn a_days_cpu_time_is_used_up_until_midnight_in_utc_and_after_a_restart() {
    let quotas = Quotas { cpu_seconds: Some(10), ..Quotas::default() };
    let mut ledger = Ledger::default();
    ledger.charge(&name(1), Duration::from_millis(9_999), NOON);
    assert!(ledger.admit(&name(1), Work::Call, &quotas, Moment(0), NOON).is_ok());
    ledger.charge(&name(1), Duration::from_millis(2), NOON);
    let refused = ledger.admit(&name(1), Work::Call, &quotas, Moment(0), NOON).unwrap_err();
    assert_eq!((refused.quota, refused.limit, refused.used), (Quota::Cpu, 10, 10));
    assert_eq!(refused.retry_after, Some(Duration::from_secs(12 * 3600)));
    assert!(ledger.admit(&name(1), Work::SetUp, &quotas, Moment(0), NOON).is_ok());

    let mut next_life = Ledger::default();
    for charge in ledger.take_unwritten() {
        next_life.restore(charge);
    }
    assert_eq!(ledger.take_unwritten(), []);
    assert!(next_life.admit(&name(1), Work::Call, &quotas, Moment(0), NOON).is_err());
    let tomorrow = WallTime(DAY * 4);
    assert_eq!(next_life.of(&name(1), tomorrow).1, Duration::ZERO);
    assert!(next_life.admit(&name(1), Work::Call, &quotas, Moment(0), tomorrow).is_ok());
    next_life.charge(&name(1), Duration::from_secs(11), tomorrow);
    assert!(next_life.admit(&name(1), Work::Call, &quotas, Moment(0), NOON).is_err(), "a clock that goes back");
}

#[test]
fn a_queued_calls_rate_was_counted_when_it_was_queued() {
    let mut ledger = Ledger::default();
    let quotas = Quotas { rate: Some(rate(1.0, 1)), ..Quotas::default() };
    let mut admit = |work| ledger.admit(&name(1), work, &quotas, Moment(0), NOON);
    assert!(admit(Work::Job).is_ok());
    assert!(admit(Work::QueuedCall).is_ok());
    let refused = admit(Work::SetUp).unwrap_err();
    assert_eq!((refused.quota, refused.retry_after), (Quota::Rate, Some(Duration::from_secs(1))));
}

#[test]
fn environments_have_rates_of_their_own_and_idle_ones_are_forgotten() {
    let mut ledger = Ledger::default();
    let id = |n: usize| EnvironmentId(Uuid::from_u128(n as u128));
    for n in 0..SWEPT_AT {
        assert!(ledger.admit_by(id(n), rate(1.0, 1), Moment(0)).is_ok());
    }
    assert_eq!(ledger.admit_by(id(3), rate(1.0, 1), Moment(0)).unwrap_err().quota, Quota::EnvironmentRate);
    assert!(ledger.admit_by(id(SWEPT_AT), rate(1.0, 1), Moment(0)).is_ok());
    assert_eq!(ledger.environments.len(), SWEPT_AT + 1, "what is not full again is remembered");
    for n in SWEPT_AT + 1..=2 * SWEPT_AT {
        assert!(ledger.admit_by(id(n), rate(1.0, 1), Moment(5_000)).is_ok());
    }
    assert_eq!(ledger.environments.len(), SWEPT_AT, "those of the first moment are full again");
}

#[derive(Debug, Clone)]
enum Act {
    Admit(u8, Work),
    Leave(u8),
    Charge(u8, u64),
    Pass(u64),
    Write(bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    let work = prop_oneof![Just(Work::Call), Just(Work::QueuedCall), Just(Work::SetUp), Just(Work::Job)];
    prop_oneof![
        6 => (0..3u8, work).prop_map(|(n, work)| Act::Admit(n, work)),
        3 => (0..3u8).prop_map(Act::Leave),
        2 => (0..3u8, 0..4_000u64).prop_map(|(n, millis)| Act::Charge(n, millis)),
        2 => (0..20_000u64).prop_map(Act::Pass),
        2 => any::<bool>().prop_map(Act::Write),
    ]
}

fn quotas() -> Quotas {
    Quotas { concurrency: Some(3), rate: Some(rate(2.0, 4)), cpu_seconds: Some(20), ..Quotas::default() }
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants(acts in prop::collection::vec(any_act(), 1..300)) {
        let mut ledger = Ledger::default();
        // Each tenant beside it alone: what the others do must not show.
        let mut alone: Vec<Ledger> = (0..3).map(|_| Ledger::default()).collect();
        let (mut now, mut under_way, mut charged) = (0_u64, [0_u64; 3], Duration::ZERO);
        let mut written = Duration::ZERO;
        for act in acts {
            let (moment, wall) = (Moment(now), WallTime(i64::try_from(now).unwrap()));
            match act {
                Act::Admit(n, work) => {
                    let index = usize::from(n);
                    let before = ledger.of(&name(n), wall);
                    let answer = ledger.admit(&name(n), work, &quotas(), moment, wall);
                    prop_assert_eq!(answer, alone[index].admit(&name(n), work, &quotas(), moment, wall));
                    if answer.is_err() {
                        prop_assert_eq!(ledger.of(&name(n), wall), before, "a refusal takes nothing");
                        prop_assert!(answer.unwrap_err().retry_after.is_some_and(|after| !after.is_zero()));
                    } else if work.is_call() {
                        prop_assert!(before.1 < Duration::from_secs(20));
                        under_way[index] += 1;
                    }
                    prop_assert!(under_way[index] <= 3);
                }
                Act::Leave(n) => {
                    let index = usize::from(n);
                    under_way[index] = under_way[index].saturating_sub(1);
                    ledger.leave(&name(n));
                    alone[index].leave(&name(n));
                }
                Act::Charge(n, millis) => {
                    charged += Duration::from_millis(millis);
                    ledger.charge(&name(n), Duration::from_millis(millis), wall);
                    alone[usize::from(n)].charge(&name(n), Duration::from_millis(millis), wall);
                }
                Act::Pass(millis) => now += millis,
                Act::Write(works) => {
                    let charges = ledger.take_unwritten();
                    if works {
                        written += charges.iter().map(|charge| charge.cpu).sum::<Duration>();
                    } else {
                        ledger.give_back(charges);
                    }
                }
            }
            for (index, many) in under_way.iter().enumerate() {
                prop_assert_eq!(ledger.of(&name(u8::try_from(index).unwrap()), wall).0, *many);
            }
            prop_assert_eq!(ledger.counts().calls, under_way.iter().sum::<u64>());
        }
        written += ledger.take_unwritten().iter().map(|charge| charge.cpu).sum::<Duration>();
        prop_assert_eq!(written, charged, "every charge is written once");
    }
}
