//! What holds for every history of an instance.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Gpu(bool, u64),
    Spawning,
    Ready,
    StartFailed,
    Ask(Option<u64>),
    /// An event of the newest run, or of an earlier one.
    Accepted(u128),
    Sign(u128),
    Ended(u128, Option<FailureCode>),
    Interrupt(u128),
    Probed(bool),
    Cleaned(u128, bool),
    ProcessEnded(bool),
    StopOver(bool),
    Pass(u64),
    Drain(bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    let code = prop_oneof![
        3 => Just(None),
        1 => Just(Some(FailureCode::NodeError)),
        1 => Just(Some(FailureCode::Interrupted)),
        1 => Just(Some(FailureCode::Crashed)),
    ];
    let age = || prop_oneof![4 => Just(0u128), 1 => 0..3u128];
    prop_oneof![
        4 => (prop::bool::weighted(0.1), 0..3u64).prop_map(|(unfit, faults)| Act::Gpu(unfit, faults / 2)),
        3 => Just(Act::Spawning),
        5 => Just(Act::Ready),
        1 => Just(Act::StartFailed),
        8 => prop::option::of(0..400u64).prop_map(Act::Ask),
        1 => age().prop_map(Act::Accepted),
        3 => age().prop_map(Act::Sign),
        5 => (age(), code).prop_map(|(age, code)| Act::Ended(age, code)),
        2 => age().prop_map(Act::Interrupt),
        4 => prop::bool::weighted(0.6).prop_map(Act::Probed),
        5 => (age(), prop::bool::weighted(0.9)).prop_map(|(age, good)| Act::Cleaned(age, good)),
        1 => any::<bool>().prop_map(Act::ProcessEnded),
        3 => any::<bool>().prop_map(Act::StopOver),
        5 => (0..40_000u64).prop_map(Act::Pass),
        1 => any::<bool>().prop_map(Act::Drain),
    ]
}

/// Watches the effects for what must never be.
#[derive(Default)]
struct Watcher {
    asked: u128,
    taken: BTreeMap<PromptId, usize>,
    unanswered: Option<PromptId>,
    unswept: Option<PromptId>,
    stopping: bool,
    /// The process was stopped, or it ended.
    stopped_once: bool,
    probing: bool,
    spawned: bool,
    left: bool,
    draining: bool,
    refused: BTreeSet<PromptId>,
}

impl Watcher {
    fn event(&mut self, act: &Act) -> Option<Event> {
        let newest = |age: u128| prompt(self.asked.saturating_sub(age));
        Some(match act {
            Act::Gpu(unfit, faults) => Event::GpuLooked { unfit: unfit.then(|| "lost".to_owned()), faults: *faults },
            Act::Spawning => Event::Spawning,
            Act::Ready => Event::Ready,
            Act::StartFailed => Event::StartFailed { reason: "no".into() },
            Act::Ask(limit) => {
                self.asked += 1;
                let deadline = limit.map(secs);
                Event::RunAsked { prompt: prompt(self.asked), job: job(self.asked), models: Vec::new(), deadline }
            }
            Act::Accepted(age) => Event::Accepted { prompt: newest(*age) },
            Act::Sign(age) => Event::Sign { prompt: newest(*age) },
            Act::Ended(age, failure) => Event::RunEnded { prompt: newest(*age), failure: *failure },
            Act::Interrupt(age) => Event::InterruptAsked { job: job(self.asked.saturating_sub(*age)) },
            Act::Probed(answered) if self.probing => {
                self.probing = false;
                if *answered { Event::ProbeAnswered } else { Event::ProbeSilent }
            }
            Act::Cleaned(age, true) => Event::Cleaned { prompt: newest(*age), memory: Some(1) },
            Act::Cleaned(age, false) => Event::CleanFailed { prompt: newest(*age), reason: "no".into() },
            Act::ProcessEnded(out_of_memory) => Event::ProcessEnded { end: "?".into(), out_of_memory: *out_of_memory },
            Act::StopOver(good) if self.stopping => {
                self.stopping = false;
                if *good { Event::Stopped } else { Event::StopFailed { reason: "it survives".into() } }
            }
            Act::Drain(hurry) => {
                self.draining = true;
                Event::Drain { hurry: *hurry }
            }
            Act::Pass(_) => Event::Tick,
            Act::Probed(_) | Act::StopOver(_) => return None,
        })
    }

    fn check(&mut self, event: &Event, effects: &[Effect]) -> Result<(), TestCaseError> {
        prop_assert!(!self.left || effects.iter().all(|effect| matches!(effect, Effect::Refuse(_))), "{effects:?}");
        if let Event::Cleaned { prompt, .. } = event
            && self.unswept == Some(*prompt)
            && self.unanswered.is_none()
        {
            self.unswept = None;
        }
        for effect in effects {
            match effect {
                Effect::Spawn => {
                    prop_assert!(!self.spawned, "one process in one life");
                    self.spawned = true;
                }
                Effect::Run { prompt } => {
                    let its_own = matches!(event, Event::RunAsked { prompt: asked, .. } if asked == prompt);
                    prop_assert!(its_own);
                    prop_assert!(self.unanswered.is_none() && self.unswept.is_none(), "one job at a time");
                    prop_assert!(self.spawned && !self.stopped_once && !self.draining);
                    self.taken.insert(*prompt, 0);
                    (self.unanswered, self.unswept) = (Some(*prompt), Some(*prompt));
                }
                Effect::Refuse(_) => {
                    let Event::RunAsked { prompt, .. } = event else { panic!("{event:?} was refused") };
                    self.refused.insert(*prompt);
                }
                Effect::Answer { prompt, .. } => {
                    prop_assert_eq!(self.unanswered, Some(*prompt));
                    self.unanswered = None;
                    *self.taken.entry(*prompt).or_default() += 1;
                }
                Effect::Interrupt { prompt } => prop_assert_eq!(self.unanswered, Some(*prompt)),
                Effect::Clean { prompt } => {
                    prop_assert!(self.unanswered.is_none() && self.unswept == Some(*prompt), "answered first");
                }
                Effect::Abort => prop_assert!(!self.stopped_once && self.unanswered.is_some()),
                Effect::Probe => {
                    prop_assert!(!self.probing && !self.stopped_once);
                    self.probing = true;
                }
                Effect::Stop { .. } => {
                    prop_assert!(!self.stopping, "one stop at a time");
                    (self.stopping, self.stopped_once) = (true, true);
                }
                Effect::Leave(leaving) => {
                    let verified = matches!(event, Event::Stopped | Event::StopFailed { .. });
                    prop_assert!(verified);
                    prop_assert!(self.unanswered.is_none(), "answered before the end");
                    prop_assert_eq!(*leaving == Leaving::Requested, self.draining);
                    self.left = true;
                }
                Effect::Tell(standing) => {
                    let takes = matches!(standing, Standing::Ready { .. });
                    prop_assert!(!takes || (self.unswept.is_none() && !self.stopped_once && !self.draining));
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_invariants_and_every_job_is_answered_once(
        acts in prop::collection::vec(any_act(), 1..120),
        recycle_after_jobs in prop::option::of(1..4u64),
        stops_well: bool,
    ) {
        let policy = InstancePolicy { recycle_after_jobs, ..policy() };
        let mut machine = Instance::new(policy, StartRecord::default());
        let (mut watcher, mut now) = (Watcher::default(), Moment(0));
        for act in &acts {
            if let Act::Pass(millis) = act {
                now = now.after(Duration::from_millis(*millis));
            }
            let Some(event) = watcher.event(act) else { continue };
            let effects = machine.step(event.clone(), now);
            watcher.check(&event, &effects)?;
        }
        // From here on nobody says anything but the clock and the stops.
        let began = now;
        while watcher.unanswered.is_some() {
            let wait = machine.next_tick(now).unwrap_or(policy.stop_grace);
            now = now.after(wait);
            let act = if watcher.stopping { Act::StopOver(stops_well) } else { Act::Pass(0) };
            let Some(event) = watcher.event(&act) else { continue };
            let effects = machine.step(event.clone(), now);
            watcher.check(&event, &effects)?;
            let bound = policy.no_progress + policy.interrupt_grace + policy.abort_grace + policy.stop_grace * 2;
            prop_assert!(now.since(began) <= bound, "unanswered after {:?}", now.since(began));
        }
        prop_assert!(watcher.taken.values().all(|answers| *answers == 1), "{:?}", watcher.taken);
        let asked: BTreeSet<PromptId> = (1..=watcher.asked).map(prompt).collect();
        let heard: BTreeSet<PromptId> = watcher.taken.keys().chain(&watcher.refused).copied().collect();
        prop_assert_eq!(asked, heard, "each one is run or refused");
    }
}
