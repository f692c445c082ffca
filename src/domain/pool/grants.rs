//! What may start now: a call in what stands ready for it, calls and set-ups that boot, and then, when no call waits,
//! what shall stand ready for the next.

use super::machine::{Held, Place, Pool, RunningSetUp, WaitingSetUp, slot_for};
use super::standing::{Have, Next, Standing};
use super::{Effect, Needs, StandsFor};
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::sandbox::{SlotEvent, SlotState};
use crate::domain::tenant::TenantName;
use crate::domain::time::Moment;

/// Starts one thing if it may; false when there is nothing to start.
type Grant = fn(&mut Pool, Moment, &mut Vec<Effect>) -> bool;

impl Pool {
    /// Starts what may start, set-ups and calls in turns.
    pub(super) fn grant(&mut self, refills: bool, now: Moment, effects: &mut Vec<Effect>) {
        if !self.swept {
            return;
        }
        self.claim_what_stands(now, effects);
        loop {
            let (first, second): (Grant, Grant) = if self.set_ups_turn {
                (Self::grant_set_up, Self::grant_call)
            } else {
                (Self::grant_call, Self::grant_set_up)
            };
            if !first(self, now, effects) && !second(self, now, effects) {
                break;
            }
            self.set_ups_turn = !self.set_ups_turn;
        }
        if refills {
            self.refill(now, effects);
        }
    }

    /// Gives what stands ready to waiting calls, in their turns.
    fn claim_what_stands(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        while self.claim_one(now, effects) {}
    }

    /// Gives the next call that a slot stands ready for that slot, if there is one.
    fn claim_one(&mut self, now: Moment, effects: &mut Vec<Effect>) -> bool {
        if self.serving() >= self.policy.max_executions {
            return false;
        }
        let fits = |pool: &Self, environment, execution| {
            pool.may_start(environment, execution) && pool.fitting(environment, execution, now).is_some()
        };
        let Some((environment, execution)) = self.take_turn(fits) else { return false };
        let Some(slot) = self.fitting(environment, execution, now) else { return true };
        if let Some(call) = self.calls.get_mut(&execution) {
            call.place = Place::InSlot(slot);
        }
        if let Some(held) = self.slots.get_mut(&slot) {
            held.environment = Some(environment);
            held.call = Some(execution);
            held.serves = true;
        }
        self.step_slot(slot, SlotEvent::Claimed, effects);
        true
    }

    /// The slot that has stood longest of those that fit best: the environment's own before the runtime's. Of those that
    /// calls share, the one that was used last: the others may be ended.
    fn fitting(&self, environment: EnvironmentId, execution: ExecutionId, now: Moment) -> Option<SlotId> {
        let call = self.calls.get(&execution).filter(|call| !call.disappointed)?;
        let wants = call.wants?;
        let widens = self.may_widen(environment, execution, now);
        let free = self.slots.iter().filter(|(_, held)| held.is_free() && (wants.shares || held.uses == 0));
        let fits = free.filter_map(|(slot, held)| {
            let stands_for = held.stands_for.filter(|kind| self.standing.fits(*kind, environment, &wants))?;
            let of_runtime = matches!(stands_for, StandsFor::Runtime(_));
            let since = if wants.shares { u64::MAX - held.since.0 } else { held.since.0 };
            (widens || !of_runtime).then_some((of_runtime, since, *slot))
        });
        fits.min().map(|(_, _, slot)| slot)
    }

    /// Takes the call off the queue whose turn it is, of those that `may` start.
    fn take_turn(
        &mut self,
        may: impl Fn(&Self, EnvironmentId, ExecutionId) -> bool,
    ) -> Option<(EnvironmentId, ExecutionId)> {
        let mut turns = std::mem::take(&mut self.turns);
        let next = turns.next(|environment, execution| may(self, environment, execution));
        self.turns = turns;
        next
    }

    /// Whether its environment allows another call beside those that it has. A sandbox counts until nothing of it is
    /// left, as for `max_executions`: a handler of an environment that allows one call at once has no other beside it,
    /// not even one that was cancelled.
    fn may_start(&self, environment: EnvironmentId, execution: ExecutionId) -> bool {
        let limit = self.calls.get(&execution).and_then(|call| call.wants?.concurrency);
        let of_it = |held: &&Held| held.serves && held.environment == Some(environment);
        limit.is_none_or(|limit| self.slots.values().filter(of_it).count() < limit)
    }

    fn grant_set_up(&mut self, _: Moment, effects: &mut Vec<Effect>) -> bool {
        if self.set_ups.len() >= self.policy.set_ups.max(1) {
            return false;
        }
        // One that boots nothing passes those that wait for a boot.
        let may_boot = self.transpiling() < self.policy.transpiles_at_once();
        let compiler = self.free_compiler();
        let able = self.set_up_queue.iter().enumerate().filter(|(_, waiting)| match waiting.needs {
            Needs::Nothing => true,
            // One that is being made is there sooner than another.
            Needs::Compiler => compiler.is_some() || may_boot && !self.makes_a_compiler(),
            Needs::Boot => may_boot,
        });
        // Whoever has the fewest under way is next; of those, who waits longest.
        let under_way = |tenant: &TenantName| self.set_ups.values().filter(|running| running.tenant == *tenant).count();
        let next = able.min_by_key(|(at, waiting)| (under_way(&waiting.tenant), *at)).map(|(at, _)| at);
        let Some(WaitingSetUp { environment, tenant, needs, .. }) = next.and_then(|at| self.set_up_queue.remove(at))
        else {
            return false;
        };
        let compiler = compiler.filter(|_| needs == Needs::Compiler);
        if let Some(slot) = compiler {
            self.step_slot(slot, SlotEvent::Claimed, effects);
        }
        let boots = needs != Needs::Nothing && compiler.is_none();
        self.set_ups.insert(environment, RunningSetUp { tenant, boots, compiler });
        effects.push(Effect::BeginSetUp { environment, compiler });
        true
    }

    fn grant_call(&mut self, now: Moment, effects: &mut Vec<Effect>) -> bool {
        // Set-ups that transpile take boots away, but never the last one: a slow compiler must not stop the calls.
        let boots = self.policy.boots_at_once.max(1);
        let taken = self.transpiling().min(boots - 1) + self.boots();
        if self.serving() >= self.policy.max_executions || taken >= boots {
            return false;
        }
        let may = |pool: &Self, environment, execution| {
            pool.may_start(environment, execution) && pool.may_widen(environment, execution, now)
        };
        let Some((environment, execution)) = self.take_turn(may) else { return false };
        let Some(call) = self.calls.get_mut(&execution) else { return true };
        let slot = slot_for(execution, call.attempts);
        call.attempts += 1;
        call.place = Place::InSlot(slot);
        let held = Held { environment: Some(environment), call: Some(execution), serves: true, ..Held::new(now) };
        self.slots.insert(slot, held);
        effects.push(Effect::Boot { slot, execution });
        true
    }

    /// Makes what shall stand ready, when no call waits for a boot that it may have. A call that comes meanwhile takes what is ready first, or
    /// the next boot.
    fn refill(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let most = self.policy.boots_at_once.max(1);
        let may = |environment, execution| {
            self.may_start(environment, execution) && self.may_widen(environment, execution, now)
        };
        if self.turns.any(may) {
            return;
        }
        while !self.draining && self.transpiling() + self.boots() < most && self.imports() < most {
            match self.standing.next(&self.have(|_| true), self.held_mb(), now) {
                Some(Next::Make(stands_for)) => self.make(stands_for, now, effects),
                Some(Next::MakeRoom(stands_for)) => {
                    if !self.retire_oldest(stands_for, effects) {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    fn make(&mut self, stands_for: StandsFor, now: Moment, effects: &mut Vec<Effect>) {
        let slot = self.fresh_slot();
        let environment = match stands_for {
            StandsFor::Environment(environment) => Some(environment),
            StandsFor::Runtime(_) | StandsFor::SetUps => None,
        };
        self.slots.insert(slot, Held { environment, stands_for: Some(stands_for), ..Held::new(now) });
        effects.push(Effect::Stand { slot, stands_for });
    }

    /// Ends one that has stood too long, or that is more than should stand. One at a time: what replaces it takes a boot.
    pub(super) fn replace_one(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let have = self.have(|held| held.uses == 0);
        let surplus = have.iter().find(|(stands_for, count)| **count > self.standing.stock(**stands_for));
        if let Some((stands_for, _)) = surplus
            && self.retire_oldest(*stands_for, effects)
        {
            return;
        }
        let age = self.standing.age();
        let stands = self.slots.iter().filter(|(_, held)| held.is_free());
        let oldest = stands.min_by_key(|(_, held)| held.since).filter(|(_, held)| now.since(held.since) >= age);
        if let Some(slot) = oldest.map(|(slot, _)| *slot) {
            self.step_slot(slot, SlotEvent::Cancelled, effects);
        }
    }

    /// False when none stands for it that could be ended.
    fn retire_oldest(&mut self, stands_for: StandsFor, effects: &mut Vec<Effect>) -> bool {
        let of_it = |held: &Held| held.stands_for == Some(stands_for) && held.is_free();
        let stands = self.slots.iter().filter(|(_, held)| of_it(held));
        let oldest = stands.min_by_key(|(_, held)| held.since).map(|(slot, _)| *slot);
        if let Some(slot) = oldest {
            self.step_slot(slot, SlotEvent::Cancelled, effects);
        }
        oldest.is_some()
    }

    /// Ends all that stand, or are being made, for whom `whose` holds; those that serve a call of theirs end with it.
    pub(super) fn retire(&mut self, whose: impl Fn(&Standing, StandsFor) -> bool, effects: &mut Vec<Effect>) {
        for held in self.slots.values_mut() {
            let of = held.environment.map(StandsFor::Environment);
            held.stale |= of.is_some_and(|of| whose(&self.standing, of));
        }
        let wanted = |stands_for| whose(&self.standing, stands_for);
        let of_it = |held: &Held| (held.is_warming() || held.is_free()) && held.stands_for.is_some_and(wanted);
        let slots: Vec<SlotId> = self.slots.iter().filter(|(_, held)| of_it(held)).map(|(slot, _)| *slot).collect();
        for slot in slots {
            self.step_slot(slot, SlotEvent::Cancelled, effects);
        }
    }

    /// Those that stand or are being made, and `count`.
    pub(super) fn have(&self, counts: impl Fn(&Held) -> bool) -> Have {
        let mut have = Have::new();
        let stands = |held: &&Held| (held.is_warming() || held.is_free()) && counts(held);
        for stands_for in self.slots.values().filter(stands).filter_map(|held| held.stands_for) {
            *have.entry(stands_for).or_default() += 1;
        }
        have
    }

    /// Slots of calls, those being destroyed and wedged ones included.
    pub(super) fn serving(&self) -> usize {
        self.slots.values().filter(|held| held.serves).count()
    }

    /// Slots that boot, for whomever. A module that takes long to be imported holds up no boot.
    fn boots(&self) -> usize {
        self.slots.values().filter(|held| held.slot.state() == SlotState::Booting && !held.imports).count()
    }

    fn imports(&self) -> usize {
        self.slots.values().filter(|held| held.slot.state() == SlotState::Booting && held.imports).count()
    }

    /// True while the slot is wanted that is being made to stand.
    pub fn is_warming(&self, slot: SlotId) -> bool {
        self.slots.get(&slot).is_some_and(Held::is_warming)
    }

    /// Slots that are being made to stand.
    pub(super) fn warming(&self) -> usize {
        self.slots.values().filter(|held| held.is_warming()).count()
    }

    /// Set-ups that have a sandbox that was booted for them, for as long as they last.
    pub(super) fn transpiling(&self) -> usize {
        self.set_ups.values().filter(|running| running.boots).count()
    }

    pub(super) fn count(&self, state: SlotState) -> usize {
        self.slots.values().filter(|held| held.slot.state() == state).count()
    }
}
