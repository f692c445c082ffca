//! The admission machine.

use std::collections::VecDeque;
use std::time::Duration;

use super::{AdmissionPolicy, Circuit, Dice, Effect, Event, Poll};
use crate::domain::time::Moment;

const SECOND: Duration = Duration::from_secs(1);

/// Asks one source.
#[derive(Debug)]
pub struct Admission {
    policy: AdmissionPolicy,
    dice: Dice,
    slots: usize,
    polling: bool,
    closed: bool,
    not_before: Moment,
    failures: u32,
    /// How often the circuit opened in a row.
    openings: u32,
    circuit: Circuit,
    trouble: Option<String>,
    /// When the last polls that brought nothing ended.
    empties: VecDeque<Moment>,
    /// When a `Tick` is due already.
    wake_at: Option<Moment>,
}

impl Admission {
    /// Nothing is asked for until there is room; `seed` feeds the jitter.
    pub fn new(policy: AdmissionPolicy, seed: u64) -> Self {
        Self {
            policy,
            dice: Dice::new(seed),
            slots: 0,
            polling: false,
            closed: false,
            not_before: Moment(0),
            failures: 0,
            openings: 0,
            circuit: Circuit::Closed,
            trouble: None,
            empties: VecDeque::new(),
            wake_at: None,
        }
    }

    /// Takes one event and says what follows from it.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Room { slots } => self.room(slots, now, &mut effects),
            Event::Ended(poll) => self.ended(poll, now, &mut effects),
            Event::Tick => {}
            Event::Close => self.closed = true,
        }
        if self.wake_at.is_some_and(|at| now >= at) {
            self.wake_at = None;
        }
        self.ask(now, &mut effects);
        effects
    }

    fn room(&mut self, slots: usize, now: Moment, effects: &mut Vec<Effect>) {
        self.slots = slots;
        if slots == 0 && self.polling && !self.closed {
            self.polling = false;
            // Room that comes and goes must not become a storm of polls that are given up.
            self.note_empty(now);
            effects.push(Effect::Abort);
        }
    }

    fn ended(&mut self, poll: Poll, now: Moment, effects: &mut Vec<Effect>) {
        if !self.polling {
            return;
        }
        self.polling = false;
        match poll {
            Poll::Jobs => self.recovered(effects),
            Poll::Empty => {
                self.recovered(effects);
                self.note_empty(now);
            }
            Poll::Throttled { retry_after } => {
                let asked = retry_after.unwrap_or_default().clamp(self.policy.pause_least, self.policy.pause_most);
                let pause = asked.mul_f64(1.0 + self.policy.backoff.jitter * self.dice.roll());
                self.trouble = Some(format!("the source asked for a pause of {} s", asked.as_secs()));
                self.not_before = now.after(pause);
            }
            Poll::Failed { reason } => self.failed(reason, now, effects),
        }
    }

    fn recovered(&mut self, effects: &mut Vec<Effect>) {
        if self.circuit != Circuit::Closed {
            self.circuit = Circuit::Closed;
            effects.push(Effect::CircuitClosed);
        }
        (self.failures, self.openings, self.trouble) = (0, 0, None);
    }

    fn failed(&mut self, reason: String, now: Moment, effects: &mut Vec<Effect>) {
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(reason.clone());
        let opens = self.circuit == Circuit::HalfOpen || self.failures >= self.policy.circuit_after;
        let wait = if opens {
            self.openings = self.openings.saturating_add(1);
            self.circuit = Circuit::Open;
            self.policy.circuit.wait(self.openings, &mut self.dice)
        } else {
            self.policy.backoff.wait(self.failures, &mut self.dice)
        };
        if opens {
            effects.push(Effect::CircuitOpened { reason, wait });
        }
        self.not_before = now.after(wait);
    }

    fn note_empty(&mut self, now: Moment) {
        self.empties.push_back(now);
        let most = self.policy.empties_a_second.max(1);
        while self.empties.len() > most {
            self.empties.pop_front();
        }
        if let (true, Some(&oldest)) = (self.empties.len() == most, self.empties.front()) {
            self.not_before = self.not_before.max(oldest.after(SECOND));
        }
    }

    fn ask(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.closed || self.polling || self.slots == 0 {
            return;
        }
        if now < self.not_before {
            if self.wake_at.is_none_or(|at| at > self.not_before) {
                self.wake_at = Some(self.not_before);
                effects.push(Effect::WakeIn(self.not_before.since(now)));
            }
            return;
        }
        if self.circuit == Circuit::Open {
            self.circuit = Circuit::HalfOpen;
        }
        self.polling = true;
        let slots = if self.circuit == Circuit::Closed { self.slots } else { 1 };
        effects.push(Effect::Take { slots });
    }

    /// Takes note of the room before the end of a poll is told: the next poll asks for what is left.
    pub fn note_room(&mut self, slots: usize) {
        self.slots = slots;
    }

    /// Whether the source has been in trouble for longer than a failure or two.
    pub fn is_in_trouble(&self) -> bool {
        self.circuit != Circuit::Closed
    }

    /// The circuit before the source.
    pub fn circuit(&self) -> Circuit {
        self.circuit
    }

    /// The last trouble with the source, until a poll succeeds.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}
