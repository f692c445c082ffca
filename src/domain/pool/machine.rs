//! The pool's machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::shares::gives_way;
use super::turns::Turns;
use super::{Answer, Effect, Event, Found, PoolPicture, PoolPolicy, Refusal};
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::sandbox::{Slot, SlotEffect, SlotEvent, SlotState};
use crate::domain::tenant::TenantName;
use crate::domain::time::Moment;

/// A boot that fails is tried once more: the handler has not begun, so nothing happens twice.
const BOOT_ATTEMPTS: u32 = 2;
/// Set-ups that may wait, for each that may run.
const SET_UP_QUEUE_FACTOR: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Arriving,
    Queued,
    InSlot(SlotId),
}

#[derive(Debug)]
struct Waiting {
    environment: EnvironmentId,
    tenant: TenantName,
    since: Moment,
    attempts: u32,
    place: Place,
    /// From its environment, once that is looked up.
    found: Option<Found>,
}

#[derive(Debug)]
struct WaitingSetUp {
    environment: EnvironmentId,
    tenant: TenantName,
    transpiles: bool,
    since: Moment,
}

#[derive(Debug)]
struct RunningSetUp {
    tenant: TenantName,
    transpiles: bool,
}

#[derive(Debug)]
struct Held {
    slot: Slot,
    environment: EnvironmentId,
    /// The call it serves, until that is answered.
    call: Option<ExecutionId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    Clearing,
    Removing,
}

/// Starts one thing if it may; false when there is nothing to start.
type Grant = fn(&mut Pool, &mut Vec<Effect>) -> bool;

/// All calls, slots, set-ups and deletions of one daemon.
#[derive(Debug)]
pub struct Pool {
    policy: PoolPolicy,
    calls: BTreeMap<ExecutionId, Waiting>,
    slots: BTreeMap<SlotId, Held>,
    turns: Turns,
    set_ups: BTreeMap<EnvironmentId, RunningSetUp>,
    set_up_queue: VecDeque<WaitingSetUp>,
    deletions: BTreeMap<EnvironmentId, Deletion>,
    set_ups_turn: bool,
    swept: bool,
    draining: bool,
    drained: bool,
    executions_total: u64,
}

impl Pool {
    /// An empty pool that boots nothing before [`Event::Swept`].
    pub fn new(policy: PoolPolicy) -> Self {
        Self {
            policy,
            calls: BTreeMap::new(),
            slots: BTreeMap::new(),
            turns: Turns::default(),
            set_ups: BTreeMap::new(),
            set_up_queue: VecDeque::new(),
            deletions: BTreeMap::new(),
            set_ups_turn: true,
            swept: false,
            draining: false,
            drained: false,
            executions_total: 0,
        }
    }

    /// Takes one event and says what follows from it.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Swept => self.swept = true,
            Event::CallCame { execution, environment, tenant } => {
                self.call_came(execution, environment, tenant, now, &mut effects);
            }
            Event::LookedUp { execution, found } => self.looked_up(execution, found, now, &mut effects),
            Event::CallCancelled { execution } => self.end_call(execution, Answer::Cancelled, &mut effects),
            Event::Booted { slot } => self.booted(slot, &mut effects),
            Event::BootFailed { slot } => self.boot_failed(slot, &mut effects),
            Event::Settled { slot } => self.settled(slot, &mut effects),
            Event::Destroyed { slot } => self.step_slot(slot, SlotEvent::Destroyed, &mut effects),
            Event::DestroyFailed { slot } => self.step_slot(slot, SlotEvent::DestroyFailed, &mut effects),
            Event::RetryDue { slot } => self.step_slot(slot, SlotEvent::RetryDue, &mut effects),
            Event::SetUpCame { environment, tenant, transpiles } => {
                self.set_up_came(WaitingSetUp { environment, tenant, transpiles, since: now }, &mut effects);
            }
            Event::SetUpEnded { environment } => drop(self.set_ups.remove(&environment)),
            Event::DeleteCame { environment } => self.delete_came(environment, &mut effects),
            Event::DeleteEnded { environment } => drop(self.deletions.remove(&environment)),
            Event::Tick => self.refuse_overdue(now, &mut effects),
            Event::Drain { hurry } => self.drain(hurry, &mut effects),
        }
        self.grant(&mut effects);
        self.remove_cleared(&mut effects);
        self.finish_drain(&mut effects);
        effects
    }

    fn call_came(
        &mut self,
        execution: ExecutionId,
        environment: EnvironmentId,
        tenant: TenantName,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if self.calls.contains_key(&execution) {
            return;
        }
        self.executions_total += 1;
        let refusal = if self.draining {
            Some(Answer::Refused(Refusal::Draining))
        } else if self.calls.len() >= self.policy.queue.saturating_add(self.policy.max_executions)
            && !self.make_room(&tenant, effects)
        {
            Some(Answer::Refused(Refusal::QueueFull { retry_after: self.retry_after() }))
        } else {
            None
        };
        if let Some(answer) = refusal {
            effects.push(Effect::Answer { execution, answer });
            return;
        }
        self.calls.insert(
            execution,
            Waiting { environment, tenant, since: now, attempts: 0, place: Place::Arriving, found: None },
        );
        effects.push(Effect::LookUp { execution, environment });
    }

    /// An environment that is being deleted is looked up as well, so that it answers no sooner than one that never was.
    fn looked_up(&mut self, execution: ExecutionId, found: Option<Found>, now: Moment, effects: &mut Vec<Effect>) {
        let Some(call) = self.calls.get_mut(&execution) else { return };
        if call.place != Place::Arriving {
            return;
        }
        let found = found.filter(|_| !self.deletions.contains_key(&call.environment));
        let Some(found) = found else {
            self.calls.remove(&execution);
            effects.push(Effect::Answer { execution, answer: Answer::Absent });
            return;
        };
        call.place = Place::Queued;
        self.turns.push(&call.tenant, call.environment, execution, false);
        call.found = Some(found);
        effects.push(Effect::WakeIn(self.policy.queue_wait.saturating_sub(now.since(call.since))));
    }

    /// Answers a call now, wherever it is, and lets go of what it held.
    fn end_call(&mut self, execution: ExecutionId, answer: Answer, effects: &mut Vec<Effect>) {
        let Some(call) = self.calls.remove(&execution) else { return };
        effects.push(Effect::Answer { execution, answer });
        match call.place {
            Place::Arriving => {}
            Place::Queued => self.turns.remove(&call.tenant, call.environment, execution),
            Place::InSlot(slot) => {
                if let Some(held) = self.slots.get_mut(&slot) {
                    held.call = None;
                }
                self.step_slot(slot, SlotEvent::Cancelled, effects);
            }
        }
    }

    fn booted(&mut self, slot: SlotId, effects: &mut Vec<Effect>) {
        self.step_slot(slot, SlotEvent::Booted, effects);
        self.step_slot(slot, SlotEvent::Claimed, effects);
    }

    fn boot_failed(&mut self, slot: SlotId, effects: &mut Vec<Effect>) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        if held.slot.state() != SlotState::Booting {
            return;
        }
        let call = held.call.take();
        self.step_slot(slot, SlotEvent::BootFailed, effects);
        let Some(execution) = call else { return };
        let Some(waiting) = self.calls.get_mut(&execution) else { return };
        if waiting.attempts >= BOOT_ATTEMPTS {
            self.calls.remove(&execution);
            effects.push(Effect::Answer { execution, answer: Answer::BootFailed });
            return;
        }
        waiting.place = Place::Queued;
        self.turns.push(&waiting.tenant, waiting.environment, execution, true);
    }

    fn settled(&mut self, slot: SlotId, effects: &mut Vec<Effect>) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        if held.slot.state() != SlotState::Running {
            return;
        }
        if let Some(execution) = held.call.take() {
            self.calls.remove(&execution);
            effects.push(Effect::Answer { execution, answer: Answer::Settled });
        }
        self.step_slot(slot, SlotEvent::Settled, effects);
    }

    fn step_slot(&mut self, slot: SlotId, event: SlotEvent, effects: &mut Vec<Effect>) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        match held.slot.step(event) {
            Some(SlotEffect::Run) => {
                if let Some(execution) = held.call {
                    effects.push(Effect::Run { slot, execution });
                }
            }
            Some(SlotEffect::Destroy) => effects.push(Effect::Destroy { slot }),
            Some(SlotEffect::RetryAfter(after)) => effects.push(Effect::RetryDestroy { slot, after }),
            Some(SlotEffect::Retire) => drop(self.slots.remove(&slot)),
            None => {}
        }
    }

    fn set_up_came(&mut self, waiting: WaitingSetUp, effects: &mut Vec<Effect>) {
        let refusal = if self.draining {
            Refusal::Draining
        } else if self.set_up_queue.len() >= self.policy.set_ups.saturating_mul(SET_UP_QUEUE_FACTOR)
            && !self.make_room_for_set_up(&waiting.tenant, effects)
        {
            Refusal::QueueFull { retry_after: self.retry_after() }
        } else {
            self.set_up_queue.push_back(waiting);
            effects.push(Effect::WakeIn(self.policy.queue_wait));
            return;
        };
        effects.push(Effect::RefuseSetUp { environment: waiting.environment, refusal });
    }

    /// Sends the newest waiting call away of whoever has most of them, for one who has less. False when there is none.
    fn make_room(&mut self, comer: &TenantName, effects: &mut Vec<Effect>) -> bool {
        let waiting = || self.calls.iter().filter(|(_, call)| !matches!(call.place, Place::InSlot(_)));
        let Some(tenant) = gives_way(comer, waiting().map(|(_, call)| &call.tenant)) else { return false };
        let newest = waiting().filter(|(_, call)| call.tenant == *tenant).max_by_key(|(_, call)| call.since);
        let Some(execution) = newest.map(|(execution, _)| *execution) else { return false };
        let refusal = Refusal::QueueFull { retry_after: self.retry_after() };
        self.end_call(execution, Answer::Refused(refusal), effects);
        true
    }

    /// The same for set-ups.
    fn make_room_for_set_up(&mut self, comer: &TenantName, effects: &mut Vec<Effect>) -> bool {
        let waiting = || self.set_up_queue.iter();
        let Some(tenant) = gives_way(comer, waiting().map(|set_up| &set_up.tenant)) else { return false };
        let newest = self.set_up_queue.iter().rposition(|set_up| set_up.tenant == *tenant);
        let Some(gone) = newest.and_then(|at| self.set_up_queue.remove(at)) else { return false };
        let refusal = Refusal::QueueFull { retry_after: self.retry_after() };
        effects.push(Effect::RefuseSetUp { environment: gone.environment, refusal });
        true
    }

    fn delete_came(&mut self, environment: EnvironmentId, effects: &mut Vec<Effect>) {
        if self.deletions.contains_key(&environment) {
            return;
        }
        self.deletions.insert(environment, Deletion::Clearing);
        let of_it = |(execution, call): (&ExecutionId, &Waiting)| {
            (call.environment == environment).then_some((*execution, matches!(call.place, Place::InSlot(_))))
        };
        let calls: Vec<(ExecutionId, bool)> = self.calls.iter().filter_map(of_it).collect();
        for (execution, begun) in calls {
            self.end_call(execution, if begun { Answer::Cancelled } else { Answer::Absent }, effects);
        }
    }

    fn refuse_overdue(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let retry_after = self.retry_after();
        let overdue: Vec<ExecutionId> = self
            .calls
            .iter()
            .filter(|(_, call)| call.place == Place::Queued && now.since(call.since) >= self.policy.queue_wait)
            .map(|(execution, _)| *execution)
            .collect();
        for execution in overdue {
            self.end_call(execution, Answer::Refused(Refusal::WaitedTooLong { retry_after }), effects);
        }
        let late = |waiting: &WaitingSetUp| now.since(waiting.since) >= self.policy.queue_wait;
        let (overdue, waiting) = std::mem::take(&mut self.set_up_queue).into_iter().partition::<Vec<_>, _>(late);
        self.set_up_queue = waiting.into();
        for WaitingSetUp { environment, .. } in overdue {
            effects.push(Effect::RefuseSetUp { environment, refusal: Refusal::WaitedTooLong { retry_after } });
        }
    }

    fn drain(&mut self, hurry: bool, effects: &mut Vec<Effect>) {
        self.draining = true;
        for WaitingSetUp { environment, .. } in std::mem::take(&mut self.set_up_queue) {
            effects.push(Effect::RefuseSetUp { environment, refusal: Refusal::Draining });
        }
        if hurry {
            for execution in self.calls.keys().copied().collect::<Vec<_>>() {
                self.end_call(execution, Answer::Cancelled, effects);
            }
        }
    }

    /// Starts what may start, set-ups and calls in turns.
    fn grant(&mut self, effects: &mut Vec<Effect>) {
        if !self.swept {
            return;
        }
        loop {
            let (first, second): (Grant, Grant) = if self.set_ups_turn {
                (Self::grant_set_up, Self::grant_call)
            } else {
                (Self::grant_call, Self::grant_set_up)
            };
            if !first(self, effects) && !second(self, effects) {
                return;
            }
            self.set_ups_turn = !self.set_ups_turn;
        }
    }

    fn grant_set_up(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.set_ups.len() >= self.policy.set_ups.max(1) {
            return false;
        }
        // One that boots nothing passes those that wait for a boot.
        let may_boot = self.transpiling() < self.policy.transpiles_at_once();
        let able = self.set_up_queue.iter().enumerate().filter(|(_, waiting)| may_boot || !waiting.transpiles);
        // Whoever has the fewest under way is next; of those, who waits longest.
        let under_way = |tenant: &TenantName| self.set_ups.values().filter(|running| running.tenant == *tenant).count();
        let next = able.min_by_key(|(at, waiting)| (under_way(&waiting.tenant), *at)).map(|(at, _)| at);
        let Some(WaitingSetUp { environment, tenant, transpiles, .. }) =
            next.and_then(|at| self.set_up_queue.remove(at))
        else {
            return false;
        };
        self.set_ups.insert(environment, RunningSetUp { tenant, transpiles });
        effects.push(Effect::BeginSetUp { environment });
        true
    }

    fn grant_call(&mut self, effects: &mut Vec<Effect>) -> bool {
        // Set-ups that transpile take boots away, but never the last one: a slow compiler must not stop the calls.
        let boots = self.policy.boots_at_once.max(1);
        let taken = self.transpiling().min(boots - 1) + self.count(SlotState::Booting);
        if self.slots.len() >= self.policy.max_executions || taken >= boots {
            return false;
        }
        let (calls, slots) = (&self.calls, &self.slots);
        let next = self.turns.next(|environment, execution| {
            let limit = calls.get(&execution).and_then(|call| call.found.as_ref()?.concurrency);
            limit.is_none_or(|limit| under_way(slots, environment) < limit)
        });
        let Some((environment, execution)) = next else { return false };
        let Some(call) = self.calls.get_mut(&execution) else { return true };
        let slot = slot_for(execution, call.attempts);
        call.attempts += 1;
        call.place = Place::InSlot(slot);
        self.slots.insert(slot, Held { slot: Slot::default(), environment, call: Some(execution) });
        effects.push(Effect::Boot { slot, execution });
        true
    }

    /// Set-ups that have a sandbox of their own, for as long as they last.
    fn transpiling(&self) -> usize {
        self.set_ups.values().filter(|running| running.transpiles).count()
    }

    fn count(&self, state: SlotState) -> usize {
        self.slots.values().filter(|held| held.slot.state() == state).count()
    }

    fn remove_cleared(&mut self, effects: &mut Vec<Effect>) {
        for (&environment, deletion) in &mut self.deletions {
            let held = |held: &Held| held.environment == environment && held.slot.state() != SlotState::Wedged;
            if *deletion == Deletion::Clearing && !self.slots.values().any(held) {
                *deletion = Deletion::Removing;
                effects.push(Effect::RemoveEnvironment { environment });
            }
        }
    }

    fn finish_drain(&mut self, effects: &mut Vec<Effect>) {
        let idle = self.calls.is_empty() && self.set_ups.is_empty() && self.deletions.is_empty();
        let clear = self.slots.values().all(|held| held.slot.state() == SlotState::Wedged);
        if self.draining && !self.drained && idle && clear {
            self.drained = true;
            effects.push(Effect::Drained);
        }
    }

    /// A guess at when there will be room: the waiting calls over the slots, a second each, at most half a minute.
    fn retry_after(&self) -> Duration {
        let rounds = self.calls.len() / self.policy.max_executions.max(1);
        Duration::from_secs(u64::try_from(rounds).unwrap_or(30).clamp(1, 30))
    }

    /// True while a call, a set-up or a deletion of the environment is under way.
    pub fn is_in_use(&self, environment: EnvironmentId) -> bool {
        self.environments().contains(&environment)
    }

    /// Every environment with a call, a slot, a set-up or a deletion under way.
    pub fn environments(&self) -> BTreeSet<EnvironmentId> {
        let calls = self.calls.values().map(|call| call.environment);
        let slots = self.slots.values().map(|held| held.environment);
        let set_ups = self.set_ups.keys().chain(self.set_up_queue.iter().map(|waiting| &waiting.environment));
        calls.chain(slots).chain(set_ups.copied()).chain(self.deletions.keys().copied()).collect()
    }

    /// Every slot that is not gone, those of running set-ups included.
    pub fn slots(&self) -> BTreeSet<SlotId> {
        self.slots.keys().copied().chain(self.set_ups.keys().map(|environment| set_up_slot(*environment))).collect()
    }

    /// How full the pool is.
    pub fn picture(&self) -> PoolPicture {
        PoolPicture {
            running: self.count(SlotState::Running),
            queued: self.calls.values().filter(|call| !matches!(call.place, Place::InSlot(_))).count(),
            booting: self.count(SlotState::Booting) + self.transpiling(),
            destroying: self.count(SlotState::Destroying),
            wedged: self.count(SlotState::Wedged),
            set_ups: self.set_ups.len(),
            set_ups_queued: self.set_up_queue.len(),
            executions_total: self.executions_total,
        }
    }
}

/// Sandboxes of an environment's calls. One counts until nothing of it is left, as for `max_executions`: a handler of an
/// environment that allows one call at once has no other beside it, not even one that was cancelled.
fn under_way(slots: &BTreeMap<SlotId, Held>, environment: EnvironmentId) -> usize {
    slots.values().filter(|held| held.environment == environment).count()
}

/// The slot of a set-up's transpile task bears its environment's number.
pub fn set_up_slot(environment: EnvironmentId) -> SlotId {
    SlotId(environment.0)
}

/// The slot of a call's n-th boot bears its execution's number, the attempt mixed in.
fn slot_for(execution: ExecutionId, attempt: u32) -> SlotId {
    SlotId(Uuid::from_u128(execution.0.as_u128() ^ (u128::from(attempt) << 32)))
}
