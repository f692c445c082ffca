//! The machine; its diagram and invariants stand in the module's head.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::{Effect, Event, Policy, Question, Refusal, Seen};
use crate::domain::envelope::{Kid, ReplayTag};
use crate::domain::job::JobId;
use crate::domain::time::{WallTime, whole_millis};

/// How long a request is known beyond its time: its job may wait that long in a queue before it is opened again.
const HELD: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known of one request. There are many of them, and they are kept small.
#[derive(Debug)]
struct Known {
    job: Fingerprint,
    kid: Kid,
    until: Until,
    /// Writes that are under way.
    writing: u32,
    written: bool,
}

/// Of a job's id, under a key that this process alone knows: two ids that share one cannot be made on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint(u64);

/// [`Seen::until`] in half the space: the end of time is no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Until(i64);

impl Until {
    fn of(until: Option<WallTime>) -> Self {
        Self(until.map_or(i64::MAX, |until| until.0))
    }

    fn end(self) -> Option<WallTime> {
        (self.0 < i64::MAX).then_some(WallTime(self.0))
    }
}

/// The guard.
#[derive(Debug)]
pub struct Guard {
    policy: Policy,
    fingerprints: RandomState,
    /// A tree: a table of a million would be moved as a whole each time it doubles.
    known: BTreeMap<ReplayTag, Known>,
    /// How many of them have no end.
    endless: usize,
    /// The latest end of anything that was forgotten. What would have ended by then may have been known.
    horizon: WallTime,
}

impl Guard {
    /// A guard that remembers nothing yet.
    pub fn new(policy: Policy) -> Self {
        let fingerprints = RandomState::new();
        Self { policy, fingerprints, known: BTreeMap::new(), endless: 0, horizon: WallTime(i64::MIN) }
    }

    /// How many requests are remembered.
    pub fn remembered(&self) -> usize {
        self.known.len()
    }

    /// Takes an event at a wall time.
    pub fn step(&mut self, event: Event, now: WallTime) -> Vec<Effect> {
        match event {
            Event::Loaded(seen) => {
                seen.into_iter().for_each(|seen| self.load(seen));
                Vec::new()
            }
            Event::Asked { question, tag, kid, job, sealed_at } => {
                vec![self.ask(question, Seen { tag, kid, job, until: None }, sealed_at, now)]
            }
            Event::Written { question, tag } => {
                if let Some(known) = self.known.get_mut(&tag) {
                    known.written = true;
                    known.writing = known.writing.saturating_sub(1);
                }
                vec![Effect::Admit(question)]
            }
            Event::NotWritten { question, tag } => {
                self.unwritten(tag);
                vec![Effect::Refuse(question, Refusal::Unwritten)]
            }
            Event::Tick { ring } => self.forget(&ring, now),
        }
    }

    fn load(&mut self, seen: Seen) {
        let Seen { tag, kid, job, until } = seen;
        let job = self.fingerprint(&job);
        if let Place::Vacant(place) = self.known.entry(tag) {
            self.endless += usize::from(until.is_none());
            place.insert(Known { job, kid, until: Until::of(until), written: true, writing: 0 });
        }
    }

    fn fingerprint(&self, job: &JobId) -> Fingerprint {
        Fingerprint(self.fingerprints.hash_one(job))
    }

    fn ask(&mut self, question: Question, mut seen: Seen, sealed_at: Option<WallTime>, now: WallTime) -> Effect {
        let job = self.fingerprint(&seen.job);
        if let Some(known) = self.known.get_mut(&seen.tag) {
            if known.job != job {
                return Effect::Refuse(question, Refusal::Replayed);
            }
            if known.written {
                return Effect::Admit(question);
            }
            known.writing += 1;
            seen.until = known.until.end();
            return Effect::Remember { question, seen };
        }
        if let Some(sealed_at) = sealed_at {
            let window = i64::try_from(whole_millis(self.policy.window)).unwrap_or(i64::MAX);
            let until = WallTime(sealed_at.0.saturating_add(window));
            if sealed_at.0.abs_diff(now.0) > window.unsigned_abs() || until <= self.horizon {
                return Effect::Refuse(question, Refusal::Stale);
            }
            seen.until = Some(until);
        }
        if !self.has_room(seen.until.is_none(), now) {
            return Effect::Refuse(question, Refusal::Full);
        }
        self.endless += usize::from(seen.until.is_none());
        let known = Known { job, kid: seen.kid, until: Until::of(seen.until), written: false, writing: 1 };
        self.known.insert(seen.tag, known);
        Effect::Remember { question, seen }
    }

    fn has_room(&mut self, endless: bool, now: WallTime) -> bool {
        let Policy { room, .. } = self.policy;
        if self.known.len() >= room {
            self.drop_where(|known| known.until.end().is_some_and(|until| until < now));
        }
        self.known.len() < room && !(endless && self.endless >= room - room / 4)
    }

    fn unwritten(&mut self, tag: ReplayTag) {
        let Place::Occupied(mut place) = self.known.entry(tag) else { return };
        let known = place.get_mut();
        known.writing = known.writing.saturating_sub(1);
        if !known.written && known.writing == 0 {
            self.endless -= usize::from(known.until.end().is_none());
            place.remove();
        }
    }

    fn forget(&mut self, ring: &[Kid], now: WallTime) -> Vec<Effect> {
        let is_dead = |kid: &Kid| !ring.is_empty() && !ring.contains(kid);
        let held = i64::try_from(whole_millis(HELD)).unwrap_or(i64::MAX);
        self.drop_where(|known| match known.until.end() {
            Some(until) => until < now && (is_dead(&known.kid) || until.0.saturating_add(held) < now.0),
            None => is_dead(&known.kid),
        });
        vec![Effect::Forget]
    }

    /// Forgets what is over; what is being written stays until that is told.
    fn drop_where(&mut self, is_over: impl Fn(&Known) -> bool) {
        let (endless, horizon) = (&mut self.endless, &mut self.horizon);
        self.known.retain(|_, known| {
            let goes = known.writing == 0 && is_over(known);
            if goes {
                *endless -= usize::from(known.until.end().is_none());
                *horizon = (*horizon).max(known.until.end().unwrap_or(WallTime(i64::MIN)));
            }
            !goes
        });
    }
}
