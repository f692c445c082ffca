//! The supervision machine.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ChildName, Effect, Event, Exit, Generation, RestartPolicy};
use crate::domain::health::{Part, PartState};
use crate::domain::time::{Moment, whole_millis};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Starting { since: Moment },
    Running { last_beat: Moment },
    Waiting { until: Moment },
    GivenUp,
    Stopping,
    Stopped,
}

#[derive(Debug)]
struct Child {
    name: ChildName,
    essential: bool,
    generation: Generation,
    state: State,
    up_since: Moment,
    falls_in_a_row: u32,
    recent_falls: VecDeque<Moment>,
    falls_in_loop: u32,
    restarts: u32,
    complaints: Vec<String>,
    last_cause: &'static str,
}

impl Child {
    fn in_crash_loop(&self, policy: &RestartPolicy) -> bool {
        self.recent_falls.len() > policy.max_restarts
    }

    fn is_alive(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Running { .. } | State::Stopping)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Draining { since: Moment, hurry: bool },
    Done,
}

/// All children of one Supervisor.
#[derive(Debug)]
pub struct Supervision {
    policy: RestartPolicy,
    children: Vec<Child>,
    phase: Phase,
    dice: u64,
}

impl Supervision {
    /// Children in their start order; `seed` feeds the jitter.
    pub fn new(policy: RestartPolicy, children: &[(ChildName, bool)], seed: u64) -> Self {
        let children = children
            .iter()
            .map(|&(name, essential)| Child {
                name,
                essential,
                generation: Generation(0),
                state: State::Idle,
                up_since: Moment(0),
                falls_in_a_row: 0,
                recent_falls: VecDeque::new(),
                falls_in_loop: 0,
                restarts: 0,
                complaints: Vec::new(),
                last_cause: "",
            })
            .collect();
        Self { policy, children, phase: Phase::Up, dice: seed | 1 }
    }

    /// Takes one event and says what follows from it.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Begin | Event::Tick => {}
            Event::Beat { child, generation, complaints } => self.beat(child, generation, complaints, now),
            Event::Down { child, generation, exit } => self.down(child, generation, exit, now, &mut effects),
            Event::Shutdown { hurry } => self.shutdown(hurry, now, &mut effects),
        }
        match self.phase {
            Phase::Up => {
                self.find_hung(now, &mut effects);
                self.start_due(now, &mut effects);
            }
            Phase::Draining { since, hurry } => self.drain(since, hurry, now, &mut effects),
            Phase::Done => {}
        }
        effects
    }

    fn find(&mut self, name: ChildName, generation: Generation) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.name == name && child.generation == generation && child.is_alive())
    }

    fn beat(&mut self, name: ChildName, generation: Generation, complaints: Vec<String>, now: Moment) {
        let policy = self.policy;
        let Some(child) = self.find(name, generation) else { return };
        child.complaints = complaints;
        match child.state {
            State::Starting { .. } => {
                child.up_since = now;
                child.state = State::Running { last_beat: now };
            }
            State::Running { .. } => {
                child.state = State::Running { last_beat: now };
                if now.since(child.up_since) >= policy.forget_after {
                    child.falls_in_a_row = 0;
                    child.falls_in_loop = 0;
                    child.recent_falls.clear();
                }
            }
            _ => {}
        }
    }

    fn down(&mut self, name: ChildName, generation: Generation, exit: Exit, now: Moment, effects: &mut Vec<Effect>) {
        let draining = self.phase != Phase::Up;
        let shortest_life = self.policy.shortest_life;
        let Some(child) = self.find(name, generation) else { return };
        effects.push(Effect::Dismiss { child: name, generation, hung: false });
        if draining {
            child.state = State::Stopped;
            return;
        }
        let lived = match child.state {
            State::Running { .. } => Some(now.since(child.up_since)),
            _ => None,
        };
        let cause = match exit {
            Exit::Recycled if lived.is_some_and(|lived| lived >= shortest_life) => {
                child.complaints.clear();
                child.state = State::Idle;
                return;
            }
            Exit::Recycled if lived.is_some() => return self.recycled_soon(name, now, effects),
            Exit::Recycled => "it was recycled before it was up",
            Exit::Crashed => "it crashed",
            Exit::Requested => "it stopped by itself",
        };
        self.fell(name, cause, now, effects);
    }

    /// It waits like one that fell, so that it cannot spin, and is never given up for it.
    fn recycled_soon(&mut self, name: ChildName, now: Moment, effects: &mut Vec<Effect>) {
        let policy = self.policy;
        let Some(child) = self.children.iter_mut().find(|child| child.name == name) else { return };
        child.complaints.clear();
        child.falls_in_a_row = child.falls_in_a_row.saturating_add(1);
        let wait = policy.backoff(child.falls_in_a_row);
        child.state = State::Waiting { until: now.after(wait) };
        effects.push(Effect::Restarting { child: name, falls: child.falls_in_a_row, wait });
    }

    fn fell(&mut self, name: ChildName, cause: &'static str, now: Moment, effects: &mut Vec<Effect>) {
        let policy = self.policy;
        let roll = self.roll();
        let Some(child) = self.children.iter_mut().find(|child| child.name == name) else { return };
        child.last_cause = cause;
        child.complaints.clear();
        child.falls_in_a_row = child.falls_in_a_row.saturating_add(1);
        child.recent_falls.push_back(now);
        while child.recent_falls.front().is_some_and(|&fall| now.since(fall) > policy.window) {
            child.recent_falls.pop_front();
        }
        let looping = child.in_crash_loop(&policy) || child.falls_in_loop > 0;
        if looping {
            child.falls_in_loop += 1;
        }
        if child.falls_in_loop > policy.give_up_after {
            child.state = State::GivenUp;
            effects.push(Effect::GaveUp { child: name, essential: child.essential });
            return;
        }
        let plain = if looping { policy.backoff_max } else { policy.backoff(child.falls_in_a_row) };
        let wait = plain.mul_f64((1.0 + policy.jitter * (2.0 * roll - 1.0)).max(0.0));
        child.state = State::Waiting { until: now.after(wait) };
        effects.push(Effect::Restarting { child: name, falls: child.falls_in_a_row, wait });
    }

    fn find_hung(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let deadline = self.policy.beat_deadline;
        let hung: Vec<(ChildName, Generation)> = self
            .children
            .iter()
            .filter(|child| match child.state {
                State::Starting { since } => now.since(since) > deadline,
                State::Running { last_beat } => now.since(last_beat) > deadline,
                _ => false,
            })
            .map(|child| (child.name, child.generation))
            .collect();
        for (child, generation) in hung {
            effects.push(Effect::Dismiss { child, generation, hung: true });
            self.fell(child, "it gave no sign of progress", now, effects);
        }
    }

    fn start_due(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let mut starting = self.children.iter().filter(|child| matches!(child.state, State::Starting { .. })).count();
        for child in &mut self.children {
            let due = match child.state {
                State::Idle => true,
                State::Waiting { until } => now >= until,
                _ => false,
            };
            if !due || starting >= self.policy.spawns_at_once.max(1) {
                continue;
            }
            if child.generation.0 > 0 {
                child.restarts = child.restarts.saturating_add(1);
            }
            child.generation.0 += 1;
            child.state = State::Starting { since: now };
            starting += 1;
            effects.push(Effect::Start { child: child.name, generation: child.generation });
        }
    }

    fn shutdown(&mut self, hurry: bool, now: Moment, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Up => self.phase = Phase::Draining { since: now, hurry },
            Phase::Draining { since, hurry: already } if !already => self.hasten(since, effects),
            Phase::Draining { .. } | Phase::Done => {}
        }
    }

    fn hasten(&mut self, since: Moment, effects: &mut Vec<Effect>) {
        self.phase = Phase::Draining { since, hurry: true };
        for child in self.children.iter().filter(|child| child.state == State::Stopping) {
            effects.push(Effect::Stop { child: child.name, generation: child.generation, hurry: true });
        }
    }

    /// Stops the children one after the other, the last started first.
    fn drain(&mut self, since: Moment, hurry: bool, now: Moment, effects: &mut Vec<Effect>) {
        let spent = now.since(since);
        if !hurry && spent >= self.policy.drain_deadline {
            self.hasten(since, effects);
            return self.drain(since, true, now, effects);
        }
        if spent >= self.policy.drain_deadline.mul_f64(1.5) {
            self.phase = Phase::Done;
            effects.push(Effect::Drained { in_time: false });
            return;
        }
        for child in self.children.iter_mut().rev() {
            match child.state {
                State::Idle | State::Waiting { .. } | State::GivenUp => child.state = State::Stopped,
                State::Starting { .. } | State::Running { .. } => {
                    child.state = State::Stopping;
                    effects.push(Effect::Stop { child: child.name, generation: child.generation, hurry });
                    return;
                }
                State::Stopping => return,
                State::Stopped => {}
            }
        }
        self.phase = Phase::Done;
        effects.push(Effect::Drained { in_time: true });
    }

    /// When the machine next wants a `Tick`.
    pub fn next_tick(&self, now: Moment) -> Duration {
        let waits = self.children.iter().filter_map(|child| match child.state {
            State::Waiting { until } => Some(until.since(now)),
            _ => None,
        });
        waits.min().unwrap_or(Duration::from_secs(1)).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    /// True while every child that runs has beaten within its deadline and no essential one has given up:
    /// only then does the service manager's watchdog hear from us.
    pub fn is_live(&self, now: Moment) -> bool {
        self.children.iter().all(|child| match child.state {
            State::Running { last_beat } => now.since(last_beat) <= self.policy.beat_deadline,
            State::GivenUp => !child.essential,
            _ => true,
        })
    }

    /// True when every essential child runs without complaint and no drain has begun.
    pub fn is_ready(&self) -> bool {
        let well = |child: &Child| matches!(child.state, State::Running { .. }) && child.complaints.is_empty();
        self.phase == Phase::Up && self.children.iter().all(|child| !child.essential || well(child))
    }

    /// True from the first `Shutdown` on.
    pub fn is_draining(&self) -> bool {
        self.phase != Phase::Up
    }

    /// Every child as readiness shows it.
    pub fn parts(&self, now: Moment) -> Vec<Part> {
        self.children.iter().map(|child| self.part(child, now)).collect()
    }

    fn part(&self, child: &Child, now: Moment) -> Part {
        let looping = child.in_crash_loop(&self.policy) || child.falls_in_loop > 0;
        let (state, mut reasons) = match child.state {
            State::Idle | State::Starting { .. } => (PartState::Starting, Vec::new()),
            State::Running { .. } if child.complaints.is_empty() => (PartState::Running, Vec::new()),
            State::Running { .. } => (PartState::Degraded, child.complaints.clone()),
            State::Waiting { until } => {
                let state = if looping { PartState::CrashLoop } else { PartState::Restarting };
                let wait = until.since(now).as_secs_f64();
                (state, vec![format!("{}; next start in {wait:.1} s", child.last_cause)])
            }
            State::GivenUp => (PartState::CrashLoop, vec![format!("given up: {}", child.last_cause)]),
            State::Stopping => (PartState::Draining, Vec::new()),
            State::Stopped => (PartState::Stopped, Vec::new()),
        };
        if looping && matches!(child.state, State::Starting { .. } | State::Running { .. }) {
            reasons.push(format!("fell {} times lately: {}", child.recent_falls.len(), child.last_cause));
        }
        let beat_age_ms = match child.state {
            State::Running { last_beat } => Some(whole_millis(now.since(last_beat))),
            _ => None,
        };
        Part {
            name: child.name.to_owned(),
            state,
            essential: child.essential,
            restarts: child.restarts,
            beat_age_ms,
            reasons,
        }
    }

    /// A fraction in 0..1 from a splitmix step: jitter needs no better, and tests need it repeatable.
    fn roll(&mut self) -> f64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let top = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
