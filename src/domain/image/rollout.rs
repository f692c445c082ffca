//! When an image takes traffic: found, put on trial, and recorded as the one that serves.
//!
//! ```text
//!            Found (new)          Passed × needed            Recorded
//!   Asking ─────────────► OnTrial ───────────────► Recording ─────────► Settled ── Check ──► Asking
//!     │ ▲                    │ Failed: the former serves on                ▲
//!     │ └── later ── Asleep  └────────────────────────────────────────────┘
//!     └── NotFound, or found by what was pulled last ──► Asleep
//! ```
//!
//! Invariants, held by the property tests: an image serves only after as many good starts in this life as are needed; one
//! trial runs at a time, whatever runtimes there are; one that failed is not tried again before it is asked for again;
//! what serves is never taken away.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::domain::environment::Runtime;
use crate::domain::time::Moment;

/// How soon an image that could not be found is looked for again: at first, and at most.
const AGAIN_FIRST: Duration = Duration::from_secs(30);
const AGAIN_MOST: Duration = Duration::from_secs(600);
/// The rest after a start is as long as the start took, within these: a trial takes half a core at most.
const REST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// The rest after something on this host disturbed a start, at first and at most.
const DISTURBED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What happened to a runtime's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Ask what the setting stands for now.
    Check,
    /// The image is in the store. `stale`: its place could not be asked, and this is what was found there last.
    Found {
        digest: Digest,
        stale: Option<String>,
    },
    /// There is none. `again`: another try may find it.
    NotFound {
        reason: String,
        again: bool,
    },
    /// A sandbox of the image started, answered and is gone, after so long.
    Passed {
        took: Duration,
    },
    /// The image is at fault.
    Failed {
        reason: String,
    },
    /// This host is at fault, or somebody else ended the sandbox.
    Disturbed {
        reason: String,
    },
    /// The image is written down as the one that serves, and serves from now on.
    Recorded,
    NotRecorded {
        reason: String,
    },
    /// Time has passed; for whichever runtime.
    Tick,
}

/// What the shell has to do, each answered by one event for the same runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look what the setting stands for, and bring it into the store.
    Find { runtime: Runtime },
    /// Start one sandbox of the image.
    Try { runtime: Runtime, digest: Digest },
    /// Write it down as the one that serves, then let it serve.
    Record { runtime: Runtime, digest: Digest },
    /// A tick is due then.
    WakeIn(Duration),
}

/// A runtime's image, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPicture {
    pub runtime: Runtime,
    /// The digest that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<String>,
    /// The digest on trial, with its good starts so far and how many it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_trial: Option<String>,
    pub passed: u32,
    pub needed: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Asking,
    Asleep { until: Moment },
    OnTrial { digest: Digest, passed: u32, disturbed: u32, rest_until: Moment },
    Recording { digest: Digest },
    Settled,
}

#[derive(Debug)]
struct Rollout {
    stage: Stage,
    serving: Option<Digest>,
    /// Failed its trial since the last [`Event::Check`].
    rejected: Option<Digest>,
    /// Asked for while something else was under way.
    check_again: bool,
    /// Looks in a row that found nothing, or nothing new.
    misses: u32,
    /// Why what was found may be out of date.
    stale: Option<String>,
    problem: Option<String>,
}

/// All runtimes that come from images.
#[derive(Debug)]
pub struct Rollouts {
    soak: u32,
    runtimes: BTreeMap<Runtime, Rollout>,
    /// Whose sandbox is being started.
    trying: Option<Runtime>,
}

impl Rollouts {
    /// `serving`: each runtime that comes from an image, with what served when the last life ended. `soak`: good starts
    /// that a new image needs before it takes the place of another.
    pub fn new(serving: impl IntoIterator<Item = (Runtime, Option<Digest>)>, soak: u32) -> Self {
        let rollout = |serving| Rollout {
            stage: Stage::Settled,
            serving,
            rejected: None,
            check_again: false,
            misses: 0,
            stale: None,
            problem: None,
        };
        let runtimes = serving.into_iter().map(|(runtime, serving)| (runtime, rollout(serving))).collect();
        Self { soak, runtimes, trying: None }
    }

    /// Takes in what happened to one runtime's image. Facts that fit nothing under way change nothing.
    pub fn step(&mut self, runtime: Runtime, event: Event, now: Moment) -> Vec<Effect> {
        let is_trial = matches!(event, Event::Passed { .. } | Event::Failed { .. } | Event::Disturbed { .. });
        if is_trial && self.trying.take_if(|trying| *trying == runtime).is_none() {
            return Vec::new();
        }
        let soak = self.soak;
        if let Some(rollout) = self.runtimes.get_mut(&runtime) {
            rollout.take(event, soak, now);
        }
        self.proceed(now)
    }

    /// Whatever is due.
    fn proceed(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut wake: Option<Duration> = None;
        let soak = self.soak;
        let wait = |until: Moment, wake: &mut Option<Duration>| {
            let span = until.since(now);
            *wake = Some(wake.map_or(span, |earlier| earlier.min(span)));
        };
        for (runtime, rollout) in &mut self.runtimes {
            let runtime = *runtime;
            if rollout.check_again && matches!(rollout.stage, Stage::Settled | Stage::Asleep { .. }) {
                rollout.check_again = false;
                (rollout.rejected, rollout.misses) = (None, 0);
                rollout.stage = Stage::Asking;
                effects.push(Effect::Find { runtime });
            }
            let needed = rollout.needed(soak);
            match &rollout.stage {
                Stage::Asleep { until } if *until <= now => {
                    rollout.stage = Stage::Asking;
                    effects.push(Effect::Find { runtime });
                }
                Stage::Asleep { until } => wait(*until, &mut wake),
                Stage::OnTrial { digest, passed, .. } if *passed >= needed => {
                    let digest = digest.clone();
                    effects.push(Effect::Record { runtime, digest: digest.clone() });
                    rollout.stage = Stage::Recording { digest };
                }
                Stage::OnTrial { rest_until, .. } if *rest_until > now => wait(*rest_until, &mut wake),
                Stage::OnTrial { digest, .. } if self.trying.is_none() => {
                    self.trying = Some(runtime);
                    effects.push(Effect::Try { runtime, digest: digest.clone() });
                }
                Stage::OnTrial { .. } | Stage::Asking | Stage::Recording { .. } | Stage::Settled => {}
            }
        }
        effects.extend(wake.map(|span| Effect::WakeIn(span.max(Duration::from_millis(1)))));
        effects
    }

    /// What serves, of each runtime of which something does.
    pub fn serving(&self) -> impl Iterator<Item = (Runtime, &Digest)> {
        self.runtimes.iter().filter_map(|(runtime, rollout)| Some((*runtime, rollout.serving.as_ref()?)))
    }

    /// How each runtime's image stands.
    pub fn pictures(&self) -> Vec<RolloutPicture> {
        let picture = |(runtime, rollout): (&Runtime, &Rollout)| {
            let (on_trial, passed) = match &rollout.stage {
                Stage::OnTrial { digest, passed, .. } => (Some(digest.to_string()), *passed),
                _ => (None, 0),
            };
            let serving = rollout.serving.as_ref().map(ToString::to_string);
            let needed = if on_trial.is_some() { rollout.needed(self.soak) } else { 0 };
            RolloutPicture { runtime: *runtime, serving, on_trial, passed, needed, problem: rollout.told() }
        };
        self.runtimes.iter().map(picture).collect()
    }

    /// What readiness should name.
    pub fn complaints(&self) -> Vec<String> {
        let lines = |(runtime, rollout): (&Runtime, &Rollout)| {
            let until = rollout.serving.as_ref().map_or_else(
                || "nothing serves until then".to_owned(),
                |serving| format!("{} serves until then", serving.short()),
            );
            let going_on = match &rollout.stage {
                Stage::OnTrial { digest, passed, .. } => {
                    let needed = rollout.needed(self.soak);
                    Some(format!("image {} is on trial, {passed} of {needed} starts; {until}", digest.short()))
                }
                Stage::Asking if rollout.serving.is_none() => Some("its image is being fetched".to_owned()),
                _ => None,
            };
            let told = going_on.into_iter().chain(rollout.told());
            told.map(|line| format!("{runtime}: {line}")).collect::<Vec<_>>()
        };
        self.runtimes.iter().flat_map(lines).collect()
    }
}

impl Rollout {
    /// One start shows that an image works at all, where nothing could serve instead.
    fn needed(&self, soak: u32) -> u32 {
        if self.serving.is_some() { soak } else { 1 }
    }

    fn told(&self) -> Option<String> {
        let lines: Vec<&str> = self.problem.iter().chain(&self.stale).map(String::as_str).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    fn take(&mut self, event: Event, soak: u32, now: Moment) {
        let needed = self.needed(soak);
        match (event, &mut self.stage) {
            (Event::Check, _) => self.check_again = true,
            (Event::Found { digest, stale }, Stage::Asking) => {
                self.stale = stale;
                if self.serving.as_ref() == Some(&digest) {
                    self.problem = None;
                    self.rest(now);
                } else if self.rejected.as_ref() == Some(&digest) {
                    self.rest(now);
                } else {
                    self.problem = None;
                    self.stage = Stage::OnTrial { digest, passed: 0, disturbed: 0, rest_until: now };
                }
            }
            (Event::NotFound { reason, again }, Stage::Asking) => {
                let serves = self.serving.as_ref().map(|serving| format!("; {} serves on", serving.short()));
                self.problem = Some(format!("{reason}{}", serves.unwrap_or_default()));
                self.stage = if again { Stage::Asleep { until: now.after(self.miss()) } } else { Stage::Settled };
            }
            (Event::Passed { took }, Stage::OnTrial { passed, disturbed, rest_until, .. }) => {
                *passed += 1;
                *disturbed = 0;
                *rest_until = now.after(took.clamp(REST.0, REST.1));
                self.problem = None;
            }
            (Event::Failed { reason }, Stage::OnTrial { digest, passed, .. }) => {
                let (digest, start) = (digest.clone(), *passed + 1);
                let serves = self.serving.as_ref().map_or("nothing", |serving| serving.short());
                let short = digest.short();
                self.problem =
                    Some(format!("image {short} failed at start {start} of {needed} ({reason}); {serves} serves on"));
                self.rejected = Some(digest);
                self.rest(now);
            }
            (Event::Disturbed { reason }, Stage::OnTrial { disturbed, rest_until, .. }) => {
                let rest = DISTURBED.0.saturating_mul(1 << (*disturbed).min(8)).min(DISTURBED.1);
                *disturbed += 1;
                *rest_until = now.after(rest);
                self.problem = Some(format!("the trial waits for this host: {reason}"));
            }
            (Event::Recorded, Stage::Recording { digest }) => {
                self.serving = Some(digest.clone());
                self.problem = None;
                self.rest(now);
            }
            (Event::NotRecorded { reason }, Stage::Recording { .. }) => {
                self.problem = Some(reason);
                self.stage = Stage::Asleep { until: now.after(self.miss()) };
            }
            _ => {}
        }
    }

    /// Nothing more to do: until somebody asks, or until a place that did not answer may answer again.
    fn rest(&mut self, now: Moment) {
        if self.stale.is_some() {
            self.stage = Stage::Asleep { until: now.after(self.miss()) };
        } else {
            self.misses = 0;
            self.stage = Stage::Settled;
        }
    }

    fn miss(&mut self) -> Duration {
        let wait = AGAIN_FIRST.saturating_mul(1 << self.misses.min(8)).min(AGAIN_MOST);
        self.misses += 1;
        wait
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
