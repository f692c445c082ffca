//! The step of the desk.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{DeskPolicy, Effect, Event, Recovered};
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::pool::Refusal;
use crate::domain::time::Moment;

/// What a caller is told to wait when the desk is full.
const FULL_FOR: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Recording,
    Waiting,
    Running,
    Ending,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    environment: EnvironmentId,
    bytes: usize,
    place: Place,
}

/// Every accepted call that has not ended.
#[derive(Debug)]
pub struct Desk {
    policy: DeskPolicy,
    calls: BTreeMap<ExecutionId, Held>,
    queues: BTreeMap<EnvironmentId, VecDeque<ExecutionId>>,
    /// Environments with waiting calls, in the order of their turns.
    turns: VecDeque<EnvironmentId>,
    /// The pool said that it has no place until then.
    closed_until: Option<Moment>,
    /// Environments whose calls are not let in until then.
    held_up: BTreeMap<EnvironmentId, Moment>,
    recovered: bool,
    draining: bool,
    drained: bool,
}

impl Desk {
    /// An empty desk, which starts nothing until it is told what an earlier life left.
    pub fn new(policy: DeskPolicy) -> Self {
        Self {
            policy,
            calls: BTreeMap::new(),
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            closed_until: None,
            held_up: BTreeMap::new(),
            recovered: false,
            draining: false,
            drained: false,
        }
    }

    /// Takes what happened, and says what is to be done.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Recovered(calls) => self.recover(calls),
            Event::Asked(call) => self.asked(call, &mut effects),
            Event::Recorded { execution, stored } => self.note_recorded(execution, stored, &mut effects),
            Event::Cancelled { execution } => self.cancel(execution, &mut effects),
            Event::PutOff { execution, wait } => {
                if self.take_back(execution).is_some() {
                    let until = now.after(wait);
                    self.closed_until = Some(self.closed_until.map_or(until, |known| known.max(until)));
                    effects.push(Effect::WakeIn(wait));
                }
            }
            Event::HeldUp { execution, wait } => {
                if let Some(environment) = self.take_back(execution) {
                    let until = self.held_up.entry(environment).or_insert(now);
                    *until = now.after(wait).max(*until);
                    effects.push(Effect::WakeIn(wait));
                }
            }
            Event::Told { execution } => self.move_on(execution, Place::Running, Place::Ending),
            Event::Ended { execution } => {
                if self.place_of(execution) == Some(Place::Ending) {
                    self.calls.remove(&execution);
                }
            }
            Event::Tick => {}
            Event::Drain { hurry } => self.drain(hurry, &mut effects),
        }
        self.start(now, &mut effects);
        let under_way = self.calls.values().any(|held| held.place != Place::Waiting);
        if self.draining && !self.drained && !under_way {
            self.drained = true;
            effects.push(Effect::Drained);
        }
        effects
    }

    /// Accepted calls that wait, and that are with the pool.
    pub fn counts(&self) -> (usize, usize) {
        (self.count(Place::Waiting), self.count(Place::Running))
    }

    /// Whether the desk holds the call.
    pub fn holds(&self, execution: ExecutionId) -> bool {
        self.calls.contains_key(&execution)
    }

    fn recover(&mut self, calls: Vec<Recovered>) {
        self.recovered = true;
        for Recovered { execution, environment, bytes } in calls {
            // One that was asked for meanwhile is known already.
            if let Entry::Vacant(free) = self.calls.entry(execution) {
                free.insert(Held { environment, bytes, place: Place::Waiting });
                self.enqueue(environment, execution, false);
            }
        }
    }

    fn asked(&mut self, call: Recovered, effects: &mut Vec<Effect>) {
        let Recovered { execution, environment, bytes } = call;
        let held: usize = self.calls.values().map(|held| held.bytes).sum();
        let full = self.calls.len() >= self.policy.queue || held.saturating_add(bytes) > self.policy.queue_bytes;
        let refusal = match () {
            () if self.draining => Refusal::Draining,
            () if full => Refusal::QueueFull { retry_after: FULL_FOR },
            () if self.calls.contains_key(&execution) => return,
            () => {
                self.calls.insert(execution, Held { environment, bytes, place: Place::Recording });
                effects.push(Effect::Record { execution });
                return;
            }
        };
        effects.push(Effect::Refuse { execution, refusal });
    }

    fn note_recorded(&mut self, execution: ExecutionId, stored: bool, effects: &mut Vec<Effect>) {
        let Some(held) = self.calls.get_mut(&execution).filter(|held| held.place == Place::Recording) else { return };
        if !stored {
            self.calls.remove(&execution);
            return;
        }
        held.place = Place::Waiting;
        let environment = held.environment;
        self.enqueue(environment, execution, false);
        effects.push(Effect::Accept { execution });
    }

    fn cancel(&mut self, execution: ExecutionId, effects: &mut Vec<Effect>) {
        let Some(held) = self.calls.get_mut(&execution) else { return };
        match held.place {
            Place::Waiting => {
                held.place = Place::Ending;
                let environment = held.environment;
                self.dequeue(environment, execution);
                effects.push(Effect::EndCancelled { execution });
            }
            Place::Running => effects.push(Effect::CancelRunning { execution }),
            // Nobody was told its id yet, or it is over.
            Place::Recording | Place::Ending => {}
        }
    }

    /// A call that has not begun after all is the first of its environment again.
    fn take_back(&mut self, execution: ExecutionId) -> Option<EnvironmentId> {
        let held = self.calls.get_mut(&execution).filter(|held| held.place == Place::Running)?;
        held.place = Place::Waiting;
        let environment = held.environment;
        self.enqueue(environment, execution, true);
        Some(environment)
    }

    fn drain(&mut self, hurry: bool, effects: &mut Vec<Effect>) {
        self.draining = true;
        if hurry {
            let running = self.calls.iter().filter(|(_, held)| held.place == Place::Running);
            effects.extend(running.map(|(execution, _)| Effect::CancelRunning { execution: *execution }));
        }
    }

    fn start(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.closed_until.is_some_and(|until| until <= now) {
            self.closed_until = None;
        }
        self.held_up.retain(|_, until| *until > now);
        if !self.recovered || self.draining || self.closed_until.is_some() {
            return;
        }
        let mut running = self.count(Place::Running);
        while running < self.policy.at_once.max(1) {
            let Some(execution) = self.next() else { return };
            self.move_on(execution, Place::Waiting, Place::Running);
            running += 1;
            effects.push(Effect::Start { execution });
        }
    }

    fn next(&mut self) -> Option<ExecutionId> {
        let turn = self.turns.iter().position(|environment| !self.held_up.contains_key(environment))?;
        let environment = self.turns.remove(turn)?;
        let queue = self.queues.get_mut(&environment)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&environment);
        } else {
            self.turns.push_back(environment);
        }
        next
    }

    fn enqueue(&mut self, environment: EnvironmentId, execution: ExecutionId, in_front: bool) {
        let queue = self.queues.entry(environment).or_default();
        if queue.is_empty() {
            if in_front { self.turns.push_front(environment) } else { self.turns.push_back(environment) }
        }
        if in_front { queue.push_front(execution) } else { queue.push_back(execution) }
    }

    fn dequeue(&mut self, environment: EnvironmentId, execution: ExecutionId) {
        let Some(queue) = self.queues.get_mut(&environment) else { return };
        queue.retain(|waiting| *waiting != execution);
        if queue.is_empty() {
            self.queues.remove(&environment);
            self.turns.retain(|turn| *turn != environment);
        }
    }

    fn place_of(&self, execution: ExecutionId) -> Option<Place> {
        self.calls.get(&execution).map(|held| held.place)
    }

    fn move_on(&mut self, execution: ExecutionId, from: Place, to: Place) {
        if let Some(held) = self.calls.get_mut(&execution).filter(|held| held.place == from) {
            held.place = to;
        }
    }

    fn count(&self, place: Place) -> usize {
        self.calls.values().filter(|held| held.place == place).count()
    }
}
