//! The pool's machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::shares::gives_way;
use super::standing::Standing;
use super::turns::Turns;
use super::{Answer, Effect, Event, Needs, PoolPicture, PoolPolicy, Refusal, StandsFor, Wants};
use crate::domain::execution::Start;
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::sandbox::{Slot, SlotEffect, SlotEvent, SlotState};
use crate::domain::tenant::TenantName;
use crate::domain::time::Moment;

/// A boot that fails is tried once more: the handler has not begun, so nothing happens twice.
const BOOT_ATTEMPTS: u32 = 2;
/// Set-ups that may wait, for each that may run.
const SET_UP_QUEUE_FACTOR: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Arriving,
    Queued,
    InSlot(SlotId),
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) environment: EnvironmentId,
    tenant: TenantName,
    pub(super) since: Moment,
    pub(super) attempts: u32,
    pub(super) place: Place,
    /// Known once it is looked up.
    pub(super) wants: Option<Wants>,
    /// What stood ready for it was of no use: it gets a sandbox of its own.
    pub(super) disappointed: bool,
}

#[derive(Debug)]
pub(super) struct WaitingSetUp {
    pub(super) environment: EnvironmentId,
    pub(super) tenant: TenantName,
    pub(super) needs: Needs,
    since: Moment,
}

#[derive(Debug)]
pub(super) struct RunningSetUp {
    pub(super) tenant: TenantName,
    /// It has a sandbox that was booted for it.
    pub(super) boots: bool,
    /// It has one that stood.
    pub(super) compiler: Option<SlotId>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) slot: Slot,
    /// Whose files it has; None until one that stands for a runtime is claimed.
    pub(super) environment: Option<EnvironmentId>,
    /// The call it serves, until that is answered.
    pub(super) call: Option<ExecutionId>,
    /// Whom it stood for before it was claimed; None for one that was booted for its call.
    pub(super) stands_for: Option<StandsFor>,
    /// Since when it is being made, then since when it stands.
    pub(super) since: Moment,
    /// It was booted for a call or is claimed by one.
    pub(super) serves: bool,
    /// It has booted, and imports its module.
    pub(super) imports: bool,
    /// How many calls it has begun.
    pub(super) uses: u32,
    /// It may stand again after the call that it serves.
    pub(super) keeps: bool,
    /// What its calls hold in it, beside the idle runtime.
    pub(super) holds_mb: u64,
    /// What it was made of has changed: after its call it is ended.
    pub(super) stale: bool,
}

impl Held {
    /// One that is made now, to serve a call or to stand.
    pub(super) fn new(since: Moment) -> Self {
        Self {
            slot: Slot::default(),
            environment: None,
            call: None,
            stands_for: None,
            since,
            serves: false,
            imports: false,
            uses: 0,
            keeps: false,
            holds_mb: 0,
            stale: false,
        }
    }

    /// Its environment's next call may be served by it before long.
    pub(super) fn comes_free_for(&self, environment: EnvironmentId) -> bool {
        let comes_free = match self.slot.state() {
            SlotState::Booting | SlotState::Ready => true,
            SlotState::Running => self.keeps,
            SlotState::Destroying | SlotState::Wedged | SlotState::Gone => false,
        };
        comes_free && self.environment == Some(environment) && !self.stale
    }

    /// It is being made to stand.
    pub(super) fn is_warming(&self) -> bool {
        self.slot.state() == SlotState::Booting && !self.serves
    }

    /// It stands, and waits for a call.
    pub(super) fn is_free(&self) -> bool {
        self.slot.state() == SlotState::Ready && !self.serves
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    Clearing,
    Removing,
}

/// All calls, slots, set-ups and deletions of one daemon.
#[derive(Debug)]
pub struct Pool {
    pub(super) policy: PoolPolicy,
    pub(super) calls: BTreeMap<ExecutionId, Waiting>,
    pub(super) slots: BTreeMap<SlotId, Held>,
    pub(super) turns: Turns,
    pub(super) set_ups: BTreeMap<EnvironmentId, RunningSetUp>,
    pub(super) set_up_queue: VecDeque<WaitingSetUp>,
    deletions: BTreeMap<EnvironmentId, Deletion>,
    pub(super) set_ups_turn: bool,
    pub(super) swept: bool,
    pub(super) draining: bool,
    drained: bool,
    executions_total: u64,
    pub(super) standing: Standing,
    /// The names of slots that stand: no two, in no life of the daemon.
    seed: u128,
    stood: u128,
    /// When a call that waits for a sandbox in use is looked at next.
    pub(super) widens_at: Option<Moment>,
}

impl Pool {
    /// An empty pool that boots nothing before [`Event::Swept`]. `seed` is a fresh random number.
    pub fn new(policy: PoolPolicy, seed: Uuid) -> Self {
        Self {
            standing: Standing::new(policy.standing.clone()),
            seed: seed.as_u128(),
            stood: 0,
            widens_at: None,
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
        // What stands next is made a moment later, when the slot is gone: not beside a call or a set-up, or beside an answer.
        let begins = matches!(event, Event::LookedUp { .. } | Event::SetUpCame { .. });
        let refills = !begins && !matches!(event, Event::Settled { .. } | Event::Released { .. });
        let released = if let Event::Released { slot, .. } = event { Some(slot) } else { None };
        match event {
            Event::Swept => self.swept = true,
            Event::CallCame { execution, environment, tenant } => {
                self.call_came(execution, environment, tenant, now, &mut effects);
            }
            Event::LookedUp { execution, wants } => self.looked_up(execution, wants, now, &mut effects),
            Event::CallCancelled { execution } => self.end_call(execution, Answer::Cancelled, &mut effects),
            Event::Booted { slot } => self.booted(slot, &mut effects),
            Event::BootFailed { slot } => self.boot_failed(slot, &mut effects),
            Event::Imports { slot } => {
                if let Some(held) = self.slots.get_mut(&slot).filter(|held| !held.serves) {
                    held.imports = true;
                }
            }
            Event::Stood { slot } => self.stood(slot, now),
            Event::Rests { slot, memory_mb } => self.rests(slot, memory_mb),
            Event::StandFailed { slot } | Event::Lost { slot } => self.lost(slot, now, &mut effects),
            Event::Spoiled { slot } => self.spoiled(slot, &mut effects),
            Event::Settled { slot } => self.settled(slot, &mut effects),
            Event::Released { slot, memory_mb } => self.released(slot, memory_mb, now, &mut effects),
            Event::Destroyed { slot } => self.step_slot(slot, SlotEvent::Destroyed, &mut effects),
            Event::DestroyFailed { slot } => self.step_slot(slot, SlotEvent::DestroyFailed, &mut effects),
            Event::RetryDue { slot } => self.step_slot(slot, SlotEvent::RetryDue, &mut effects),
            Event::SetUpCame { environment, tenant, needs } => {
                self.set_up_came(WaitingSetUp { environment, tenant, needs, since: now }, &mut effects);
            }
            Event::SetUpEnded { environment } => self.set_up_ended(environment, &mut effects),
            Event::ModulesChanged { environment } => {
                self.retire(|_, stands_for| stands_for == StandsFor::Environment(environment), &mut effects);
            }
            Event::ImageServes { runtime, image } => {
                if self.standing.note_image(runtime, image) {
                    self.retire(|standing, stands_for| standing.may_be_of(stands_for, runtime), &mut effects);
                }
            }
            Event::DeleteCame { environment } => self.delete_came(environment, &mut effects),
            Event::DeleteEnded { environment } => drop(self.deletions.remove(&environment)),
            Event::Tick => {
                self.refuse_overdue(now, &mut effects);
                self.standing.count(now);
                self.end_idle(now, &mut effects);
                self.replace_one(now, &mut effects);
            }
            Event::Drain { hurry } => self.drain(hurry, &mut effects),
        }
        self.grant(refills, now, &mut effects);
        self.await_if_free(released, &mut effects);
        self.wake_to_widen(now, &mut effects);
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
        let place = Place::Arriving;
        let waiting = Waiting { environment, tenant, since: now, attempts: 0, place, wants: None, disappointed: false };
        self.calls.insert(execution, waiting);
        effects.push(Effect::LookUp { execution, environment });
    }

    /// An environment that is being deleted is looked up as well, so that it answers no sooner than one that never was.
    fn looked_up(&mut self, execution: ExecutionId, wants: Option<Wants>, now: Moment, effects: &mut Vec<Effect>) {
        let Some(call) = self.calls.get_mut(&execution) else { return };
        if call.place != Place::Arriving {
            return;
        }
        let wants = wants.filter(|_| !self.deletions.contains_key(&call.environment));
        let Some(known) = wants else {
            self.calls.remove(&execution);
            effects.push(Effect::Answer { execution, answer: Answer::Absent });
            return;
        };
        call.place = Place::Queued;
        self.turns.push(&call.tenant, call.environment, execution, false);
        call.wants = wants;
        let patience = self.policy.queue_wait.saturating_sub(now.since(call.since));
        self.standing.note_call(call.environment, &known, now);
        effects.push(Effect::WakeIn(patience));
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

    /// A slot that stands ready waits for its call.
    fn stood(&mut self, slot: SlotId, now: Moment) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        let Some(stands_for) = held.stands_for.filter(|_| held.slot.state() == SlotState::Booting) else { return };
        let took = now.since(held.since);
        held.since = now;
        held.slot.step(SlotEvent::Booted);
        self.standing.note_stood(stands_for, took);
    }

    /// What calls left in a sandbox says nothing about those that have served none.
    fn rests(&mut self, slot: SlotId, memory_mb: u64) {
        let held = self.slots.get(&slot).filter(|held| held.is_free() && held.uses == 0);
        if let Some(stands_for) = held.and_then(|held| held.stands_for) {
            self.standing.note_memory(stands_for, memory_mb);
        }
    }

    /// A slot that should stand, or stood, is no more.
    fn lost(&mut self, slot: SlotId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(held) = self.slots.get(&slot).filter(|held| held.is_warming() || held.is_free()) else { return };
        if let Some(stands_for) = held.stands_for {
            self.standing.note_failed(stands_for, now);
        }
        self.step_slot(slot, SlotEvent::Cancelled, effects);
    }

    /// Its call waits again, and takes nothing more that stood.
    fn spoiled(&mut self, slot: SlotId, effects: &mut Vec<Effect>) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        if held.slot.state() != SlotState::Running {
            return;
        }
        let (call, stood) = (held.call.take(), held.stands_for.is_some());
        self.step_slot(slot, SlotEvent::Settled, effects);
        let Some(execution) = call else { return };
        if let Some(waiting) = self.calls.get_mut(&execution) {
            waiting.disappointed |= stood;
        }
        self.wait_again(execution, effects);
    }

    /// A call that nothing has come of yet waits again, in front of all of its environment's, unless it had all its boots.
    fn wait_again(&mut self, execution: ExecutionId, effects: &mut Vec<Effect>) {
        let Some(waiting) = self.calls.get_mut(&execution) else { return };
        if waiting.attempts >= BOOT_ATTEMPTS {
            self.calls.remove(&execution);
            effects.push(Effect::Answer { execution, answer: Answer::BootFailed });
            return;
        }
        waiting.place = Place::Queued;
        self.turns.push(&waiting.tenant, waiting.environment, execution, true);
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
        if let Some(execution) = call {
            self.wait_again(execution, effects);
        }
    }

    fn settled(&mut self, slot: SlotId, effects: &mut Vec<Effect>) {
        if self.answer_settled(slot, effects) {
            self.step_slot(slot, SlotEvent::Settled, effects);
        }
    }

    /// False for a slot that runs nothing.
    pub(super) fn answer_settled(&mut self, slot: SlotId, effects: &mut Vec<Effect>) -> bool {
        let Some(held) = self.slots.get_mut(&slot).filter(|held| held.slot.state() == SlotState::Running) else {
            return false;
        };
        if let Some(execution) = held.call.take() {
            self.calls.remove(&execution);
            effects.push(Effect::Answer { execution, answer: Answer::Settled });
        }
        true
    }

    pub(super) fn step_slot(&mut self, slot: SlotId, event: SlotEvent, effects: &mut Vec<Effect>) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        match held.slot.step(event) {
            Some(SlotEffect::Run) => {
                if let Some(execution) = held.call {
                    let start = match held.stands_for {
                        _ if held.uses > 0 => Start::Reused,
                        None | Some(StandsFor::SetUps) => Start::Cold,
                        Some(StandsFor::Runtime(_)) => Start::WarmRuntime,
                        Some(StandsFor::Environment(_)) => Start::WarmEnvironment,
                    };
                    held.uses = held.uses.saturating_add(1);
                    let wants = self.calls.get(&execution).and_then(|call| call.wants);
                    let keep = held.environment.zip(wants).is_some_and(|(environment, wants)| {
                        !self.draining && !held.stale && self.standing.may_keep(environment, &wants, held.uses)
                    });
                    held.keeps = keep;
                    effects.push(Effect::Run { slot, execution, start, keep });
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
        self.standing.forget(environment);
        self.retire(|_, stands_for| stands_for == StandsFor::Environment(environment), effects);
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
        self.retire(|_, _| true, effects);
        if hurry {
            for execution in self.calls.keys().copied().collect::<Vec<_>>() {
                self.end_call(execution, Answer::Cancelled, effects);
            }
        }
    }

    fn remove_cleared(&mut self, effects: &mut Vec<Effect>) {
        for (&environment, deletion) in &mut self.deletions {
            let held = |held: &Held| held.environment == Some(environment) && held.slot.state() != SlotState::Wedged;
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

    /// True while a call, a set-up or a deletion of the environment is under way. What only stands ready for it is no use.
    pub fn is_in_use(&self, environment: EnvironmentId) -> bool {
        self.environments_where(|held| held.serves).contains(&environment)
    }

    /// Every environment with a call, a slot, a set-up or a deletion under way.
    pub fn environments(&self) -> BTreeSet<EnvironmentId> {
        self.environments_where(|_| true)
    }

    fn environments_where(&self, counts: fn(&&Held) -> bool) -> BTreeSet<EnvironmentId> {
        let calls = self.calls.values().map(|call| call.environment);
        let slots = self.slots.values().filter(counts).filter_map(|held| held.environment);
        let set_ups = self.set_ups.keys().chain(self.set_up_queue.iter().map(|waiting| &waiting.environment));
        calls.chain(slots).chain(set_ups.copied()).chain(self.deletions.keys().copied()).collect()
    }

    /// Every slot that is not gone, those of running set-ups included.
    pub fn slots(&self) -> BTreeSet<SlotId> {
        self.slots.keys().copied().chain(self.set_ups.keys().map(|environment| set_up_slot(*environment))).collect()
    }

    /// A name for a slot that shall stand.
    pub(super) fn fresh_slot(&mut self) -> SlotId {
        self.stood += 1;
        SlotId(Uuid::from_u128(self.seed ^ self.stood))
    }

    /// How full the pool is.
    pub fn picture(&self) -> PoolPicture {
        PoolPicture {
            running: self.slots.values().filter(|held| held.serves && held.slot.state() == SlotState::Running).count(),
            queued: self.calls.values().filter(|call| !matches!(call.place, Place::InSlot(_))).count(),
            booting: self.count(SlotState::Booting) - self.warming() + self.transpiling(),
            standing: self.count(SlotState::Ready),
            warming: self.warming(),
            destroying: self.count(SlotState::Destroying),
            wedged: self.count(SlotState::Wedged),
            set_ups: self.set_ups.len(),
            set_ups_queued: self.set_up_queue.len(),
            executions_total: self.executions_total,
        }
    }
}

/// The slot of a set-up's transpile task bears its environment's number.
pub fn set_up_slot(environment: EnvironmentId) -> SlotId {
    SlotId(environment.0)
}

/// The slot of a call's n-th boot bears its execution's number, the attempt mixed in.
pub(super) fn slot_for(execution: ExecutionId, attempt: u32) -> SlotId {
    SlotId(Uuid::from_u128(execution.0.as_u128() ^ (u128::from(attempt) << 32)))
}
