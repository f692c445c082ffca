//! What the pool promises, first as examples, then over arbitrary histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::machine::Held;
use super::*;
use crate::domain::environment::Runtime;
use crate::domain::execution::Start;
use crate::domain::image::Digest;
use crate::domain::sandbox::SlotState;
use crate::domain::tenant::TenantName;
use crate::domain::time::Moment;

mod reuse;
mod standing;
mod turns;

fn policy() -> PoolPolicy {
    let standing = StandingPolicy::default();
    PoolPolicy {
        max_executions: 3,
        queue: 4,
        queue_wait: Duration::from_secs(10),
        set_ups: 2,
        boots_at_once: 2,
        standing,
    }
}

/// Two of Bun stand, and as many of an environment as four.
fn standing() -> PoolPolicy {
    let standing = StandingPolicy {
        memory_mb: 700,
        runtimes: [(Runtime::Bun, 2)].into(),
        per_environment: 4,
        compilers: 0,
        age: Duration::from_secs(600),
        call_memory_mb: 128,
        reuses: 3,
        reuse_idle: Duration::from_secs(60),
    };
    PoolPolicy { standing, ..policy() }
}

const WANTS: Wants =
    Wants { runtime: Runtime::Bun, memory_mb: 128, plain: true, bare: true, concurrency: None, shares: false };

fn call(n: u128) -> ExecutionId {
    ExecutionId(Uuid::from_u128(n))
}

fn env(n: u128) -> EnvironmentId {
    EnvironmentId(Uuid::from_u128(n))
}

fn tenant(n: u128) -> TenantName {
    format!("t{n}").parse().unwrap()
}

fn image(fill: u8) -> Digest {
    Digest::of_bytes(&[fill; 32])
}

/// Environments from 30 on allow one call at once. Those with an odd number share their sandboxes among their calls.
fn wants(environment: u128) -> Wants {
    Wants { concurrency: (environment >= 30).then_some(1), shares: environment % 2 == 1, ..WANTS }
}

/// Each ten environments are a tenant's.
fn came(execution: u128, environment: u128) -> Event {
    Event::CallCame { execution: call(execution), environment: env(environment), tenant: tenant(environment / 10) }
}

/// One that compiles needs nothing but a compiler where its number is even.
fn set_up_came(environment: u128, transpiles: bool) -> Event {
    let needs = match (transpiles, environment % 2) {
        (false, _) => Needs::Nothing,
        (true, 0) => Needs::Compiler,
        (true, _) => Needs::Boot,
    };
    Event::SetUpCame { environment: env(environment), tenant: tenant(environment / 10), needs }
}

fn open(policy: PoolPolicy) -> Pool {
    let mut pool = Pool::new(policy, Uuid::from_u128(7 << 64));
    pool.step(Event::Swept, Moment(0));
    pool
}

fn arrive(pool: &mut Pool, execution: u128, environment: u128) -> Vec<Effect> {
    pool.step(came(execution, environment), Moment(0));
    pool.step(Event::LookedUp { execution: call(execution), wants: Some(wants(environment)) }, Moment(0))
}

fn boots(effects: &[Effect]) -> Vec<(SlotId, ExecutionId)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Boot { slot, execution } => Some((*slot, *execution)),
            _ => None,
        })
        .collect()
}

fn answers(effects: &[Effect]) -> Vec<(ExecutionId, Answer)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Answer { execution, answer } => Some((*execution, *answer)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_call_boots_runs_answers_and_only_then_its_slot_is_destroyed() {
    let mut pool = open(policy());
    let (slot, execution) = boots(&arrive(&mut pool, 1, 10))[0];
    assert_eq!(
        pool.step(Event::Booted { slot }, Moment(1)),
        [Effect::Run { slot, execution, start: Start::Cold, keep: false }]
    );
    assert_eq!(
        pool.step(Event::Settled { slot }, Moment(2)),
        [Effect::Answer { execution, answer: Answer::Settled }, Effect::Destroy { slot }]
    );
    assert!(pool.is_in_use(env(10)));
    pool.step(Event::Destroyed { slot }, Moment(3));
    assert!(!pool.is_in_use(env(10)));
}

#[test]
fn nothing_boots_before_the_leftovers_are_swept() {
    let mut pool = Pool::new(policy(), Uuid::nil());
    assert_eq!(boots(&arrive(&mut pool, 1, 10)), []);
    assert_eq!(boots(&pool.step(Event::Swept, Moment(1))).len(), 1);
}

#[test]
fn a_full_queue_refuses_and_a_long_wait_is_refused() {
    let mut pool = open(policy());
    for execution in 1..=7 {
        arrive(&mut pool, execution, 10);
    }
    let full = arrive(&mut pool, 8, 10);
    assert_eq!(answers(&full), []);
    assert!(matches!(answers(&pool.step(came(9, 10), Moment(0)))[0].1, Answer::Refused(Refusal::QueueFull { .. })));
    let late = answers(&pool.step(Event::Tick, Moment(10_000)));
    assert!(!late.is_empty());
    assert!(late.iter().all(|(_, answer)| matches!(answer, Answer::Refused(Refusal::WaitedTooLong { .. }))));
}

#[test]
fn a_failed_boot_is_tried_once_more_in_a_fresh_slot() {
    let mut pool = open(policy());
    let (first, _) = boots(&arrive(&mut pool, 1, 10))[0];
    let effects = pool.step(Event::BootFailed { slot: first }, Moment(1));
    let (second, _) = boots(&effects)[0];
    assert_ne!(first, second);
    let effects = pool.step(Event::BootFailed { slot: second }, Moment(2));
    assert_eq!(answers(&effects), [(call(1), Answer::BootFailed)]);
}

#[test]
fn a_sandbox_that_was_booted_and_is_spoiled_before_its_call_ran_is_a_boot_that_failed() {
    let mut pool = open(policy());
    let (first, _) = boots(&arrive(&mut pool, 1, 10))[0];
    pool.step(Event::Booted { slot: first }, Moment(1));
    let effects = pool.step(Event::Spoiled { slot: first }, Moment(2));
    assert!(effects.contains(&Effect::Destroy { slot: first }), "{effects:?}");
    let (second, _) = boots(&effects)[0];
    pool.step(Event::Booted { slot: second }, Moment(3));
    let effects = pool.step(Event::Spoiled { slot: second }, Moment(4));
    assert_eq!(answers(&effects), [(call(1), Answer::BootFailed)]);
}

#[test]
fn a_deletion_ends_its_calls_and_removes_only_when_no_slot_is_left() {
    let mut pool = open(policy());
    let (slot, _) = boots(&arrive(&mut pool, 1, 10))[0];
    pool.step(Event::Booted { slot }, Moment(1));
    let effects = pool.step(Event::DeleteCame { environment: env(10) }, Moment(2));
    assert_eq!(answers(&effects), [(call(1), Answer::Cancelled)]);
    assert!(!effects.contains(&Effect::RemoveEnvironment { environment: env(10) }));
    let late = arrive(&mut pool, 2, 10);
    assert_eq!(answers(&late), [(call(2), Answer::Absent)]);
    let effects = pool.step(Event::Destroyed { slot }, Moment(4));
    assert_eq!(effects, [Effect::RemoveEnvironment { environment: env(10) }]);
}

#[test]
fn a_drain_finishes_what_was_accepted_and_a_hurried_one_cancels_it() {
    for hurry in [false, true] {
        let mut pool = open(policy());
        let (slot, _) = boots(&arrive(&mut pool, 1, 10))[0];
        pool.step(Event::Booted { slot }, Moment(1));
        let effects = pool.step(Event::Drain { hurry }, Moment(2));
        assert_eq!(answers(&effects).len(), usize::from(hurry));
        let refused = pool.step(came(2, 10), Moment(2));
        assert_eq!(answers(&refused), [(call(2), Answer::Refused(Refusal::Draining))]);
        pool.step(Event::Settled { slot }, Moment(3));
        assert_eq!(pool.step(Event::Destroyed { slot }, Moment(4)), [Effect::Drained]);
    }
}

#[test]
fn a_set_up_that_waits_too_long_is_refused() {
    let mut pool = open(policy());
    for n in 1..=2 {
        pool.step(set_up_came(n, true), Moment(0));
    }
    let effects = pool.step(Event::Tick, Moment(10_000));
    let refused = |effect: &Effect| matches!(effect, Effect::RefuseSetUp { environment, .. } if *environment == env(2));
    assert!(effects.iter().any(refused), "{effects:?}");
}

#[derive(Debug, Clone)]
enum Act {
    Call(u128, u128),
    Found(usize, bool),
    Import(usize),
    Stand(usize, bool),
    Rest(usize),
    Lose(usize),
    Spoil(usize),
    Cancel(usize),
    Boot(usize, bool),
    Settle(usize),
    Release(usize),
    Destroy(usize, bool),
    Retry(usize),
    SetUp(u128, bool),
    SetUpEnd(usize),
    Delete(u128),
    DeleteEnd(usize),
    Image(bool),
    Pass(u64),
    Drain(bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    let index = 0..64usize;
    prop_oneof![
        6 => (0..40u128, 28..32u128).prop_map(|(c, e)| Act::Call(c, e)),
        6 => (index.clone(), prop::bool::weighted(0.9)).prop_map(|(i, f)| Act::Found(i, f)),
        5 => (index.clone(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| Act::Stand(i, ok)),
        3 => index.clone().prop_map(Act::Import),
        2 => index.clone().prop_map(Act::Rest),
        1 => index.clone().prop_map(Act::Lose),
        1 => index.clone().prop_map(Act::Spoil),
        1 => index.clone().prop_map(Act::Cancel),
        5 => (index.clone(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| Act::Boot(i, ok)),
        5 => index.clone().prop_map(Act::Settle),
        4 => index.clone().prop_map(Act::Release),
        5 => (index.clone(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| Act::Destroy(i, ok)),
        2 => index.clone().prop_map(Act::Retry),
        2 => (100..120u128, any::<bool>()).prop_map(|(e, t)| Act::SetUp(e, t)),
        2 => index.clone().prop_map(Act::SetUpEnd),
        1 => (28..32u128).prop_map(Act::Delete),
        2 => index.prop_map(Act::DeleteEnd),
        1 => any::<bool>().prop_map(Act::Image),
        2 => (0..6000u64).prop_map(Act::Pass),
        1 => any::<bool>().prop_map(Act::Drain),
    ]
}

/// The world around the pool: what it was asked to do and has not yet done.
#[derive(Default)]
struct World {
    now: u64,
    asked: BTreeSet<ExecutionId>,
    answered: BTreeSet<ExecutionId>,
    looking: Vec<ExecutionId>,
    booting: Vec<SlotId>,
    warming: Vec<SlotId>,
    importing: BTreeSet<SlotId>,
    standing: Vec<SlotId>,
    running: Vec<SlotId>,
    destroying: Vec<SlotId>,
    wedged: Vec<SlotId>,
    slot_env: BTreeMap<SlotId, EnvironmentId>,
    stands_for: BTreeMap<SlotId, StandsFor>,
    claimed: BTreeSet<SlotId>,
    /// Those that run may be released, and how many calls each has had.
    keeps: BTreeSet<SlotId>,
    uses: BTreeMap<SlotId, usize>,
    call_env: BTreeMap<ExecutionId, EnvironmentId>,
    set_ups: Vec<EnvironmentId>,
    compiling: BTreeSet<SlotId>,
    set_ups_seen: BTreeSet<EnvironmentId>,
    removing: Vec<EnvironmentId>,
    deleting: BTreeSet<EnvironmentId>,
    /// What sandboxes are made of, and what it was when each of those that stand was begun.
    image: u8,
    made_of: BTreeMap<SlotId, u8>,
    drained: usize,
}

fn take<T>(list: &mut Vec<T>, index: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list.remove(index % list.len())) }
}

impl World {
    fn event(&mut self, act: Act) -> Option<Event> {
        Some(match act {
            Act::Call(c, e) => {
                if !self.asked.insert(call(c)) {
                    return None;
                }
                self.call_env.insert(call(c), env(e));
                came(c, e)
            }
            Act::Found(i, is_there) => {
                let execution = take(&mut self.looking, i)?;
                let number = self.call_env[&execution].0.as_u128();
                Event::LookedUp { execution, wants: is_there.then(|| wants(number)) }
            }
            Act::Stand(i, ok) => {
                let slot = take(&mut self.warming, i)?;
                if !ok {
                    return Some(Event::StandFailed { slot });
                }
                self.standing.push(slot);
                Event::Stood { slot }
            }
            Act::Import(i) => {
                let slot = *self.warming.get(i % self.warming.len().max(1))?;
                self.importing.insert(slot);
                Event::Imports { slot }
            }
            Act::Rest(i) => Event::Rests { slot: *self.standing.get(i % self.standing.len().max(1))?, memory_mb: 90 },
            Act::Lose(i) => Event::Lost { slot: take(&mut self.standing, i)? },
            Act::Spoil(i) => Event::Spoiled { slot: *self.running.get(i % self.running.len().max(1))? },
            Act::Cancel(i) => Event::CallCancelled { execution: *self.asked.iter().nth(i % self.asked.len().max(1))? },
            Act::Boot(i, ok) => {
                let slot = take(&mut self.booting, i)?;
                if ok { Event::Booted { slot } } else { Event::BootFailed { slot } }
            }
            Act::Settle(i) => Event::Settled { slot: take(&mut self.running, i)? },
            Act::Release(i) => {
                let keeps: Vec<SlotId> =
                    self.running.iter().copied().filter(|slot| self.keeps.contains(slot)).collect();
                let slot = *keeps.get(i % keeps.len().max(1))?;
                self.running.retain(|s| *s != slot);
                self.claimed.remove(&slot);
                self.stands_for.insert(slot, StandsFor::Environment(self.slot_env[&slot]));
                self.standing.push(slot);
                Event::Released { slot, memory_mb: 0 }
            }
            Act::Destroy(i, ok) => {
                let slot = take(&mut self.destroying, i)?;
                if ok { Event::Destroyed { slot } } else { Event::DestroyFailed { slot } }
            }
            Act::Retry(i) => Event::RetryDue { slot: take(&mut self.wedged, i)? },
            Act::SetUp(e, transpiles) => {
                if !self.set_ups_seen.insert(env(e)) {
                    return None;
                }
                set_up_came(e, transpiles)
            }
            Act::SetUpEnd(i) => Event::SetUpEnded { environment: take(&mut self.set_ups, i)? },
            Act::Delete(e) => {
                self.deleting.insert(env(e));
                Event::DeleteCame { environment: env(e) }
            }
            Act::DeleteEnd(i) => {
                let environment = take(&mut self.removing, i)?;
                self.deleting.remove(&environment);
                Event::DeleteEnded { environment }
            }
            Act::Image(is_new) => {
                self.image += u8::from(is_new);
                Event::ImageServes { runtime: Runtime::Bun, image: image(self.image) }
            }
            Act::Pass(millis) => {
                self.now += millis;
                Event::Tick
            }
            Act::Drain(hurry) => Event::Drain { hurry },
        })
    }

    /// Sandboxes of its calls, until nothing of them is left; not those that only stood.
    fn is_within_its_limit(&self, environment: EnvironmentId) -> Result<(), TestCaseError> {
        let held = [&self.booting, &self.running, &self.destroying, &self.wedged].into_iter().flatten();
        let serves = |slot: &SlotId| !self.stands_for.contains_key(slot) || self.claimed.contains(slot);
        let of_it = held.filter(|slot| serves(slot) && self.slot_env.get(*slot) == Some(&environment));
        let limit = wants(environment.0.as_u128()).concurrency.unwrap_or(usize::MAX);
        prop_assert!(of_it.count() <= limit, "more sandboxes of an environment than its limit");
        Ok(())
    }

    fn stands_with_the_image_that_serves(&self) -> Result<(), TestCaseError> {
        // The images are Bun's, the compilers Deno's.
        let of_images = |slot: &&SlotId| self.stands_for[*slot] != StandsFor::SetUps;
        let mut stand = self.warming.iter().chain(&self.standing).filter(of_images);
        prop_assert!(stand.all(|slot| self.made_of[slot] == self.image), "one stands with a former image");
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), TestCaseError> {
        match effect {
            Effect::LookUp { execution, .. } => self.looking.push(execution),
            Effect::Boot { slot, execution } => {
                let environment = self.call_env[&execution];
                prop_assert!(!self.deleting.contains(&environment), "no call begins once its deletion has");
                prop_assert!(self.slot_env.insert(slot, environment).is_none(), "a slot's number is used once");
                self.booting.push(slot);
                self.made_of.insert(slot, self.image);
                self.is_within_its_limit(environment)?;
            }
            Effect::Stand { slot, stands_for } => {
                if let StandsFor::Environment(environment) = stands_for {
                    prop_assert!(!self.deleting.contains(&environment), "nothing is made for what is being deleted");
                    self.slot_env.insert(slot, environment);
                }
                prop_assert!(self.stands_for.insert(slot, stands_for).is_none(), "a slot's number is used once");
                self.warming.push(slot);
                self.made_of.insert(slot, self.image);
            }
            Effect::Run { slot, execution, start, keep } => {
                let environment = self.call_env[&execution];
                prop_assert!(!self.deleting.contains(&environment), "no call begins once its deletion has");
                prop_assert!(self.claimed.insert(slot), "claimed twice");
                let uses = self.uses.entry(slot).or_default();
                *uses += 1;
                let shares = wants(environment.0.as_u128()).shares;
                prop_assert!(*uses == 1 || shares && self.slot_env.get(&slot) == Some(&environment), "not its own");
                prop_assert!(*uses <= 3 && (!keep || shares && *uses < 3), "more calls than a shared one may serve");
                prop_assert_eq!(start == Start::Reused, *uses > 1);
                if keep {
                    self.keeps.insert(slot)
                } else {
                    self.keeps.remove(&slot)
                };
                match self.stands_for.get(&slot) {
                    _ if *uses > 1 => {}
                    None => prop_assert_eq!(start, Start::Cold),
                    Some(StandsFor::Runtime(_)) => prop_assert_eq!(start, Start::WarmRuntime),
                    Some(StandsFor::Environment(of)) => prop_assert_eq!(*of, environment),
                    Some(StandsFor::SetUps) => prop_assert!(false, "a compiler runs no call"),
                }
                if self.stands_for.contains_key(&slot) {
                    prop_assert!(self.standing.contains(&slot), "it stands");
                    self.standing.retain(|s| *s != slot);
                }
                self.slot_env.insert(slot, environment);
                self.running.push(slot);
                self.is_within_its_limit(environment)?;
            }
            Effect::Destroy { slot } => {
                self.booting.retain(|s| *s != slot);
                self.warming.retain(|s| *s != slot);
                self.standing.retain(|s| *s != slot);
                self.running.retain(|s| *s != slot);
                self.compiling.remove(&slot);
                self.destroying.push(slot);
            }
            Effect::RetryDestroy { slot, .. } => self.wedged.push(slot),
            Effect::Answer { execution, .. } => {
                prop_assert!(self.answered.insert(execution), "answered twice");
            }
            Effect::BeginSetUp { environment, compiler } => {
                self.set_ups.push(environment);
                if let Some(slot) = compiler {
                    prop_assert!(self.standing.contains(&slot), "it stands");
                    prop_assert_eq!(self.stands_for[&slot], StandsFor::SetUps);
                    self.standing.retain(|s| *s != slot);
                    self.compiling.insert(slot);
                }
            }
            Effect::RemoveEnvironment { environment } => {
                let busy = [&self.booting, &self.warming, &self.standing, &self.running, &self.destroying];
                let of_it = |slot| self.slot_env.get(slot) == Some(&environment);
                let held = busy.iter().flat_map(|slots| slots.iter()).any(of_it);
                prop_assert!(!held, "removed while a slot of it was left");
                self.removing.push(environment);
            }
            Effect::Drained => self.drained += 1,
            Effect::Await { slot } => prop_assert!(self.standing.contains(&slot), "it stands"),
            Effect::RefuseSetUp { .. } | Effect::WakeIn(_) => {}
        }
        Ok(())
    }

    /// Everything under way comes to its end: what is wedged is tried again, for it may hold all the places.
    fn finish(&mut self, pool: &mut Pool) -> Result<(), TestCaseError> {
        for round in 0..500 {
            let act = match round % 8 {
                0 => Act::Found(0, true),
                1 => Act::Boot(0, true),
                2 => Act::Settle(0),
                3 => Act::Destroy(0, true),
                4 => Act::SetUpEnd(0),
                5 => Act::Retry(0),
                6 => Act::Stand(0, true),
                _ => Act::DeleteEnd(0),
            };
            if let Some(event) = self.event(act) {
                for effect in pool.step(event, Moment(self.now)) {
                    self.perform(effect)?;
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants(acts in prop::collection::vec(any_act(), 1..250), stands in any::<bool>()) {
        let mut policy_of_it = if stands { standing() } else { policy() };
        policy_of_it.standing.compilers = usize::from(stands);
        let mut pool = Pool::new(policy_of_it, Uuid::from_u128(7 << 64));
        let mut world = World::default();
        for effect in pool.step(Event::Swept, Moment(0)) {
            world.perform(effect)?;
        }
        for act in acts {
            let Some(event) = world.event(act) else { continue };
            for effect in pool.step(event, Moment(world.now)) {
                world.perform(effect)?;
            }
            world.stands_with_the_image_that_serves()?;
            let picture = pool.picture();
            prop_assert!(pool.serving() <= policy().max_executions);
            let importing = world.warming.iter().filter(|slot| world.importing.contains(slot)).count();
            prop_assert!(world.booting.len() + world.warming.len() - importing <= policy().boots_at_once);
            prop_assert!(picture.booting - world.booting.len() <= policy().transpiles_at_once());
            prop_assert_eq!((picture.standing, picture.warming), (world.standing.len(), world.warming.len()));
            prop_assert!((picture.standing + picture.warming) * 90 <= 700);
            prop_assert!(picture.set_ups <= policy().set_ups);
        }
        for effect in pool.step(Event::Drain { hurry: false }, Moment(world.now)) {
            world.perform(effect)?;
        }
        world.finish(&mut pool)?;
        prop_assert_eq!(&world.asked, &world.answered, "every call is answered");
        prop_assert_eq!(world.drained, 1);
        prop_assert!(world.compiling.is_empty(), "a compiler goes with its set-up");
    }
}
