//! Whose turn it is: waiting calls by tenant, then by environment, then as they came.
//!
//! ```text
//!   next ─► tenants in turn ─► the environments of one in turn ─► the longest waiting call of that
//! ```
//!
//! A tenant with many environments gets no more turns than one with a single one, and an environment with many calls no
//! more than its neighbour. Whoever may not start now keeps its place.
//!
//! Invariants, held by the property tests: every call that was pushed comes out once, or was taken out; the calls of an
//! environment come in their order; while several tenants wait, none gets a second turn before each of the others had
//! one, unless it may not start.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::tenant::TenantName;

/// The waiting calls of one tenant.
#[derive(Debug, Default)]
struct Lane {
    queues: BTreeMap<EnvironmentId, VecDeque<ExecutionId>>,
    /// Its environments with waiting calls, in the order of their turns.
    turns: VecDeque<EnvironmentId>,
}

/// All waiting calls.
#[derive(Debug, Default)]
pub struct Turns {
    lanes: BTreeMap<TenantName, Lane>,
    /// Tenants with waiting calls, in the order of their turns.
    turns: VecDeque<TenantName>,
}

impl Turns {
    /// Puts a call at the end of its environment's queue; `in_front`: it has waited before, and is next.
    pub fn push(&mut self, tenant: &TenantName, environment: EnvironmentId, execution: ExecutionId, in_front: bool) {
        let is_new = !self.lanes.contains_key(tenant);
        let lane = self.lanes.entry(tenant.clone()).or_default();
        let queue = lane.queues.entry(environment).or_default();
        let has_no_turn = queue.is_empty();
        if in_front {
            queue.push_front(execution);
            lane.turns.retain(|turn| *turn != environment);
            lane.turns.push_front(environment);
            self.turns.retain(|turn| turn != tenant);
            self.turns.push_front(tenant.clone());
            return;
        }
        queue.push_back(execution);
        if has_no_turn {
            lane.turns.push_back(environment);
        }
        if is_new {
            self.turns.push_back(tenant.clone());
        }
    }

    /// Takes a call out that waits no longer.
    pub fn remove(&mut self, tenant: &TenantName, environment: EnvironmentId, execution: ExecutionId) {
        let Some(lane) = self.lanes.get_mut(tenant) else { return };
        let Some(queue) = lane.queues.get_mut(&environment) else { return };
        queue.retain(|waiting| *waiting != execution);
        if queue.is_empty() {
            lane.queues.remove(&environment);
            lane.turns.retain(|turn| *turn != environment);
        }
        if lane.queues.is_empty() {
            self.lanes.remove(tenant);
            self.turns.retain(|turn| turn != tenant);
        }
    }

    /// Whether a call waits that `may` start.
    pub fn any(&self, may: impl Fn(EnvironmentId, ExecutionId) -> bool) -> bool {
        self.first(may).is_some()
    }

    /// The call whose turn it is, of those that `may` start, with its environment.
    pub fn next(&mut self, may: impl Fn(EnvironmentId, ExecutionId) -> bool) -> Option<(EnvironmentId, ExecutionId)> {
        let (at, inner) = self.first(may)?;
        let tenant = self.turns.remove(at)?;
        let lane = self.lanes.get_mut(&tenant)?;
        let environment = lane.turns.remove(inner)?;
        let queue = lane.queues.get_mut(&environment)?;
        let execution = queue.pop_front()?;
        if queue.is_empty() {
            lane.queues.remove(&environment);
        } else {
            lane.turns.push_back(environment);
        }
        if lane.queues.is_empty() {
            self.lanes.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        Some((environment, execution))
    }

    /// The places of the next call's tenant and environment in their turns.
    fn first(&self, may: impl Fn(EnvironmentId, ExecutionId) -> bool) -> Option<(usize, usize)> {
        let first = |queue: &VecDeque<ExecutionId>| queue.front().copied();
        let of_lane = |lane: &Lane| {
            lane.turns.iter().position(|environment| {
                lane.queues.get(environment).and_then(first).is_some_and(|execution| may(*environment, execution))
            })
        };
        self.turns.iter().enumerate().find_map(|(at, tenant)| Some((at, self.lanes.get(tenant).and_then(of_lane)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn tenant(n: u8) -> TenantName {
        format!("t{n}").parse().unwrap()
    }

    fn env(n: u8) -> EnvironmentId {
        EnvironmentId(Uuid::from_u128(u128::from(n)))
    }

    fn call(n: u128) -> ExecutionId {
        ExecutionId(Uuid::from_u128(n))
    }

    #[test]
    fn a_tenant_with_many_environments_gets_no_more_turns_than_one_with_one() {
        let mut turns = Turns::default();
        for n in 0..6_u8 {
            turns.push(&tenant(1), env(n), call(u128::from(n)), false);
        }
        turns.push(&tenant(2), env(100), call(100), false);
        turns.push(&tenant(2), env(100), call(101), false);
        let order: Vec<ExecutionId> = std::iter::from_fn(|| turns.next(|_, _| true)).map(|(_, call)| call).collect();
        assert_eq!(order, [0, 100, 1, 101, 2, 3, 4, 5].map(call));
    }

    #[test]
    fn who_may_not_start_keeps_its_place_and_who_comes_back_is_next() {
        let mut turns = Turns::default();
        turns.push(&tenant(1), env(1), call(1), false);
        turns.push(&tenant(1), env(2), call(2), false);
        turns.push(&tenant(2), env(3), call(3), false);
        let busy = |environment, _| environment != env(1);
        assert_eq!(turns.next(busy), Some((env(2), call(2))));
        assert_eq!(turns.next(busy), Some((env(3), call(3))));
        assert_eq!(turns.next(busy), None);
        turns.push(&tenant(2), env(3), call(4), false);
        turns.push(&tenant(2), env(3), call(3), true);
        assert_eq!(turns.next(|_, _| true), Some((env(3), call(3))));
        assert_eq!(turns.next(|_, _| true), Some((env(1), call(1))));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Push(u8, u8, bool),
        Remove(usize),
        Next(BTreeSet<u8>),
    }

    fn any_act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0..3u8, 0..3u8, prop::bool::weighted(0.1)).prop_map(|(t, e, front)| Act::Push(t, e, front)),
            1 => (0..64usize).prop_map(Act::Remove),
            3 => prop::collection::btree_set(0..9u8, 0..4).prop_map(Act::Next),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_out_of_order(acts in prop::collection::vec(any_act(), 1..200)) {
            let mut turns = Turns::default();
            // By environment, whose number says whose it is.
            let mut model: BTreeMap<u8, VecDeque<ExecutionId>> = BTreeMap::new();
            let mut made = 0;
            for act in acts {
                match act {
                    Act::Push(t, e, front) => {
                        made += 1;
                        turns.push(&tenant(t), env(t * 3 + e), call(made), front);
                        let queue = model.entry(t * 3 + e).or_default();
                        if front { queue.push_front(call(made)) } else { queue.push_back(call(made)) }
                    }
                    Act::Remove(n) => {
                        let all: Vec<(u8, ExecutionId)> =
                            model.iter().flat_map(|(e, queue)| queue.iter().map(|call| (*e, *call))).collect();
                        if let Some((e, gone)) = all.get(n % all.len().max(1)) {
                            turns.remove(&tenant(e / 3), env(*e), *gone);
                            model.entry(*e).or_default().retain(|call| call != gone);
                        }
                    }
                    Act::Next(busy) => {
                        let next = turns.next(|environment, _| !busy.iter().any(|e| env(*e) == environment));
                        let able = model.iter().any(|(e, queue)| !busy.contains(e) && !queue.is_empty());
                        prop_assert_eq!(next.is_some(), able);
                        if let Some((environment, execution)) = next {
                            let e = (0..9).find(|e| env(*e) == environment).unwrap();
                            prop_assert!(!busy.contains(&e));
                            prop_assert_eq!(model.get_mut(&e).unwrap().pop_front(), Some(execution));
                        }
                    }
                }
                let waiting: usize = turns.lanes.values().flat_map(|lane| lane.queues.values()).map(VecDeque::len).sum();
                prop_assert_eq!(waiting, model.values().map(VecDeque::len).sum::<usize>());
                prop_assert_eq!(turns.lanes.len(), turns.turns.len());
            }
        }

        /// With calls of everybody waiting, the turns of any two tenants differ by one at most, and so do those of two
        /// environments of one tenant.
        #[test]
        fn turns_are_even(queues in prop::collection::vec((0..3u8, 0..3u8, 20..40usize), 1..9), rounds in 1..20usize) {
            let mut turns = Turns::default();
            let (mut made, mut waiting) = (0, BTreeSet::new());
            for (t, e, many) in queues {
                waiting.insert((t, t * 3 + e));
                for _ in 0..many {
                    made += 1;
                    turns.push(&tenant(t), env(t * 3 + e), call(made), false);
                }
            }
            let mut of_tenant: BTreeMap<u8, usize> = waiting.iter().map(|(t, _)| (*t, 0)).collect();
            let mut of_env: BTreeMap<u8, usize> = waiting.iter().map(|(_, e)| (*e, 0)).collect();
            for _ in 0..rounds {
                let (environment, _) = turns.next(|_, _| true).unwrap();
                let e = (0..9).find(|e| env(*e) == environment).unwrap();
                *of_tenant.get_mut(&(e / 3)).unwrap() += 1;
                *of_env.get_mut(&e).unwrap() += 1;
                let spread = |counts: Vec<usize>| counts.iter().max().unwrap() - counts.iter().min().unwrap();
                prop_assert!(spread(of_tenant.values().copied().collect()) <= 1);
                for t in of_tenant.keys() {
                    let envs: Vec<usize> = of_env.iter().filter(|(e, _)| *e / 3 == *t).map(|(_, n)| *n).collect();
                    prop_assert!(spread(envs) <= 1);
                }
            }
        }
    }
}
