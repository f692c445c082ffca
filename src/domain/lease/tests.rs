//! One job at a time as a story, then all orders of everything as a property.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::domain::time::Moment;

const INSTANCES: [InstanceName; 2] = ["comfy-0", "comfy-1"];

fn policy() -> LeasePolicy {
    LeasePolicy { spool_bytes: 1_000, sandbox_slots: 2, max_failed_starts: Some(3), ..LeasePolicy::default() }
}

fn id(n: u32) -> JobId {
    format!("job-{n}").parse().unwrap()
}

fn ready() -> Standing {
    Standing::Ready { models: Vec::new() }
}

fn stood(instance: InstanceName, standing: Standing) -> Event {
    Event::Stood { instance, standing }
}

fn on_an_instance(n: u32) -> Event {
    Event::Opened { job: id(n), need: Need::Instance { models: Vec::new() } }
}

/// A machine with one instance that is ready.
fn one_ready() -> Leases {
    let mut leases = Leases::new(policy(), &INSTANCES[..1], 1);
    leases.step(stood("comfy-0", ready()), Moment(0));
    leases
}

/// … and a job that runs on it.
fn running() -> Leases {
    let mut leases = one_ready();
    leases.step(Event::Came { job: id(1) }, Moment(0));
    let effects = leases.step(on_an_instance(1), Moment(0));
    assert_eq!(effects, [Effect::Run { job: id(1), on: "comfy-0" }]);
    leases
}

#[test]
fn a_job_is_opened_run_concluded_posted_and_forgotten() {
    let mut leases = one_ready();
    assert_eq!(leases.slots(), 1);
    assert_eq!(leases.step(Event::Came { job: id(1) }, Moment(0)), [Effect::Open { job: id(1) }]);
    assert_eq!((leases.slots(), leases.ids()), (0, vec![id(1)]));
    assert_eq!(leases.step(on_an_instance(1), Moment(1)), [Effect::Run { job: id(1), on: "comfy-0" }]);
    let concluded = [Effect::Conclude { job: id(1), end: End::Ran }];
    assert_eq!(leases.step(Event::RunEnded { job: id(1) }, Moment(2)), concluded);
    assert_eq!(leases.slots(), 0, "the instance has not said that it is ready again");
    leases.step(stood("comfy-0", ready()), Moment(2));
    assert_eq!(leases.slots(), 1, "a job is asked for while the answer is still being made");
    assert_eq!(leases.step(Event::Answered { job: id(1), bytes: 9 }, Moment(3)), [Effect::Post { job: id(1) }]);
    assert_eq!(leases.ids(), [id(1)], "named until the answer is off");
    let gone = [Effect::Forget { job: id(1), fate: Fate::Settled }];
    assert_eq!(leases.step(Event::Posted { job: id(1) }, Moment(4)), gone);
    assert!(!leases.is_busy());
}

#[test]
fn an_id_that_is_held_runs_once_and_one_that_was_settled_runs_again() {
    let mut leases = running();
    assert_eq!(leases.step(Event::Came { job: id(1) }, Moment(0)), [Effect::Duplicate { job: id(1) }]);
    leases.step(Event::RunEnded { job: id(1) }, Moment(1));
    leases.step(Event::Answered { job: id(1), bytes: 9 }, Moment(1));
    leases.step(Event::Posted { job: id(1) }, Moment(1));
    assert_eq!(leases.step(Event::Came { job: id(1) }, Moment(2)), [Effect::Open { job: id(1) }]);
}

#[test]
fn a_stop_interrupts_and_posts_nothing_and_a_retry_of_it_waits_for_the_end() {
    let mut leases = running();
    let interrupt = [Effect::Interrupt { job: id(1), on: Some("comfy-0") }];
    assert_eq!(leases.step(Event::Stopped { job: id(1) }, Moment(1)), interrupt);
    assert_eq!(leases.ids(), []);
    assert_eq!(leases.step(Event::Came { job: id(1) }, Moment(2)), []);
    assert_eq!(leases.step(Event::Came { job: id(1) }, Moment(2)), [Effect::Duplicate { job: id(1) }]);
    let effects = leases.step(Event::RunEnded { job: id(1) }, Moment(3));
    assert_eq!(effects, [Effect::Forget { job: id(1), fate: Fate::Stopped }, Effect::Open { job: id(1) }]);
    assert_eq!(leases.step(Event::Stopped { job: id(9) }, Moment(3)), [], "an id that is not held");
}

#[test]
fn a_refused_job_waits_in_front_and_is_placed_again() {
    let mut leases = running();
    leases.step(Event::Came { job: id(2) }, Moment(0));
    leases.step(on_an_instance(2), Moment(0));
    let fault = RunFault::NotRun(NotRun::Busy);
    assert_eq!(leases.step(Event::RunFailed { job: id(1), fault }, Moment(1)), []);
    let effects = leases.step(stood("comfy-0", ready()), Moment(2));
    assert_eq!(effects, [Effect::Run { job: id(1), on: "comfy-0" }]);
}

#[test]
fn a_job_that_loses_two_instances_is_given_to_no_third() {
    let mut leases = running();
    let lost = || Event::RunFailed { job: id(1), fault: RunFault::Lost };
    leases.step(lost(), Moment(1));
    leases.step(stood("comfy-0", ready()), Moment(2));
    assert_eq!(leases.step(lost(), Moment(3)), [Effect::Conclude { job: id(1), end: End::Lost }]);
}

#[test]
fn a_wait_for_an_instance_ends() {
    let mut leases = running();
    leases.step(Event::Came { job: id(2) }, Moment(0));
    let effects = leases.step(on_an_instance(2), Moment(0));
    assert_eq!(effects, [Effect::WakeIn(policy().instance_wait)]);
    let effects = leases.step(Event::Tick, Moment(900_000));
    assert_eq!(effects, [Effect::Conclude { job: id(2), end: End::NoInstance }]);
}

#[test]
fn updates_are_throttled_one_at_a_time_and_before_the_answer() {
    let mut leases = running();
    let progressed = || Event::Progressed { job: id(1) };
    let update = Effect::Update { job: id(1) };
    assert_eq!(leases.step(progressed(), Moment(0)), std::slice::from_ref(&update));
    assert_eq!(leases.step(progressed(), Moment(800)), [], "one is under way");
    assert_eq!(leases.step(Event::UpdateEnded { job: id(1) }, Moment(900)), [update]);
    assert_eq!(leases.step(progressed(), Moment(901)), []);
    leases.step(Event::RunEnded { job: id(1) }, Moment(902));
    assert_eq!(leases.step(Event::Answered { job: id(1), bytes: 9 }, Moment(903)), [], "it waits for the update");
    assert_eq!(leases.step(Event::UpdateEnded { job: id(1) }, Moment(904)), [Effect::Post { job: id(1) }]);
    assert_eq!(leases.step(progressed(), Moment(5_000)), []);
}

#[test]
fn a_post_is_retried_without_end_replaced_once_and_given_up_on_a_lasting_refusal() {
    let mut leases = running();
    leases.step(Event::RunEnded { job: id(1) }, Moment(0));
    leases.step(Event::Answered { job: id(1), bytes: 9 }, Moment(0));
    let failed = |fault| Event::PostFailed { job: id(1), fault };
    let mut now = 0;
    for _ in 0..50 {
        let effects = leases.step(failed(PostFault::Later { after: Some(Duration::from_secs(7)) }), Moment(now));
        let [Effect::Retrying { wait, .. }, Effect::WakeIn(_)] = effects[..] else { panic!("{effects:?}") };
        assert!(wait >= Duration::from_secs(7) && wait <= Duration::from_millis(37_500), "{wait:?}");
        now += 40_000;
        assert_eq!(leases.step(Event::Tick, Moment(now)), [Effect::Post { job: id(1) }]);
    }
    let again = [Effect::Replace { job: id(1) }, Effect::Post { job: id(1) }];
    assert_eq!(leases.step(failed(PostFault::Rejected), Moment(now)), again);
    let gone = [Effect::Forget { job: id(1), fate: Fate::GivenUp }];
    assert_eq!(leases.step(failed(PostFault::Rejected), Moment(now)), gone);
}

#[test]
fn answers_that_are_not_off_stop_the_taking_when_they_are_too_many_bytes() {
    let mut leases = running();
    leases.step(Event::RunEnded { job: id(1) }, Moment(0));
    leases.step(stood("comfy-0", ready()), Moment(0));
    leases.step(Event::Answered { job: id(1), bytes: 1_000 }, Moment(0));
    assert_eq!((leases.slots(), leases.is_full()), (0, true));
    leases.step(Event::Posted { job: id(1) }, Moment(0));
    assert_eq!((leases.slots(), leases.is_full()), (1, false));
}

#[test]
fn a_drain_finishes_what_is_held_and_a_hurried_one_ends_it_with_an_error() {
    for hurry in [false, true] {
        let mut leases = running();
        leases.step(Event::Came { job: id(2) }, Moment(0));
        leases.step(on_an_instance(2), Moment(0));
        let effects = leases.step(Event::Drain { hurry }, Moment(1));
        assert!(effects.contains(&Effect::StopTaking));
        assert_eq!(effects.contains(&Effect::Interrupt { job: id(1), on: Some("comfy-0") }), hurry);
        assert_eq!(effects.contains(&Effect::Conclude { job: id(2), end: End::Stopping }), hurry);
        let late = leases.step(Event::Came { job: id(3) }, Moment(1));
        let explicit = Effect::Conclude { job: id(3), end: End::Stopping };
        assert_eq!(late, [if hurry { explicit } else { Effect::Open { job: id(3) } }], "run, or failed by a post");
        leases.step(Event::TakingEnded, Moment(1));
        if !hurry {
            continue;
        }
        leases.step(Event::RunEnded { job: id(1) }, Moment(2));
        for n in 1..=3 {
            leases.step(Event::Answered { job: id(n), bytes: 9 }, Moment(3));
        }
        leases.step(Event::Posted { job: id(1) }, Moment(4));
        leases.step(Event::Posted { job: id(2) }, Moment(4));
        let later = Event::PostFailed { job: id(3), fault: PostFault::Later { after: None } };
        let gone = Effect::Forget { job: id(3), fate: Fate::GivenUp };
        assert_eq!(leases.step(later, Moment(5)), [gone, Effect::Drained]);
    }
}

#[test]
fn a_host_on_which_nothing_starts_is_abandoned_once() {
    let mut leases = Leases::new(policy(), &INSTANCES, 1);
    let failed = |in_a_row| Standing::FailedStart { in_a_row, reason: "exit code 1".to_owned() };
    assert_eq!(leases.step(stood("comfy-0", failed(3)), Moment(0)), []);
    let effects = leases.step(stood("comfy-1", failed(3)), Moment(0));
    assert!(matches!(effects[..], [Effect::Abandon { .. }]), "{effects:?}");
    assert_eq!(leases.step(stood("comfy-1", failed(4)), Moment(0)), []);
}

#[test]
fn without_instances_there_is_room_for_so_many_jobs_in_hand() {
    let mut leases = Leases::new(LeasePolicy { without_instances: true, ..policy() }, &[], 1);
    assert_eq!((leases.slots(), leases.complaints()), (2, Vec::new()));
    leases.step(Event::Came { job: id(1) }, Moment(0));
    let effects = leases.step(Event::Opened { job: id(1), need: Need::Handler }, Moment(0));
    assert_eq!((effects, leases.slots()), (vec![Effect::Execute { job: id(1) }], 1));
    leases.step(Event::Came { job: id(2) }, Moment(0));
    let effects = leases.step(Event::Opened { job: id(2), need: Need::Nothing }, Moment(0));
    assert_eq!((effects, leases.slots()), (vec![Effect::Conclude { job: id(2), end: End::Dry }], 1));
}

#[derive(Debug, Clone)]
enum Act {
    Come(u32),
    Open(usize, u8),
    Run(usize, u8),
    Conclude(usize),
    Post(usize, u8),
    Progress(u32),
    UpdateEnd(usize),
    Stop(u32),
    Stand(usize, u8),
    Pass(u64),
    Drain(bool),
    TakingEnd,
}

fn any_act() -> impl Strategy<Value = Act> {
    let index = 0..64usize;
    prop_oneof![
        8 => (0..8u32).prop_map(Act::Come),
        8 => (index.clone(), 0..5u8).prop_map(|(i, k)| Act::Open(i, k)),
        6 => (index.clone(), 0..6u8).prop_map(|(i, k)| Act::Run(i, k)),
        6 => index.clone().prop_map(Act::Conclude),
        8 => (index.clone(), 0..6u8).prop_map(|(i, k)| Act::Post(i, k)),
        6 => (0..8u32).prop_map(Act::Progress),
        5 => index.clone().prop_map(Act::UpdateEnd),
        2 => (0..8u32).prop_map(Act::Stop),
        8 => (0..2usize, 0..5u8).prop_map(|(i, k)| Act::Stand(i, k)),
        5 => prop_oneof![0..1_000u64, 0..100_000u64].prop_map(Act::Pass),
        1 => any::<bool>().prop_map(Act::Drain),
        1 => Just(Act::TakingEnd),
    ]
}

/// What the world knows of one job that is held.
#[derive(Debug, Default)]
struct Known {
    stopped: bool,
    /// The post that is or was last under way was begun.
    post_begun: bool,
    updating: bool,
    runs: u32,
}

/// The world around the machine: what it was asked to do and has not yet done.
#[derive(Default)]
struct World {
    now: u64,
    held: BTreeMap<JobId, Known>,
    again: BTreeSet<JobId>,
    opening: Vec<JobId>,
    running: Vec<(JobId, Option<InstanceName>)>,
    concluding: Vec<JobId>,
    posting: Vec<JobId>,
    updating: Vec<JobId>,
    taken: u64,
    settled: u64,
    ended_otherwise: u64,
    draining: bool,
    taking: bool,
    drained: usize,
}

fn pick<T>(list: &mut Vec<T>, index: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list.remove(index % list.len())) }
}

impl World {
    fn event(&mut self, act: Act) -> Option<Event> {
        Some(match act {
            Act::Come(n) => {
                if !self.taking {
                    return None;
                }
                let job = id(n);
                match self.held.get(&job) {
                    None => {
                        self.taken += 1;
                        self.held.insert(job.clone(), Known::default());
                    }
                    Some(known) if known.stopped => drop(self.again.insert(job.clone())),
                    Some(_) => {}
                }
                Event::Came { job }
            }
            Act::Open(i, kind) => {
                let job = pick(&mut self.opening, i)?;
                match kind {
                    0 => Event::Answered { job, bytes: 80 },
                    1 => Event::Opened { job, need: Need::Handler },
                    2 => Event::Opened { job, need: Need::Nothing },
                    _ => Event::Opened { job, need: Need::Instance { models: Vec::new() } },
                }
            }
            Act::Run(i, kind) => {
                let (job, on) = pick(&mut self.running, i)?;
                match (kind, on) {
                    (0, Some(_)) => Event::RunFailed { job, fault: RunFault::NotRun(NotRun::Busy) },
                    (1, Some(_)) => Event::RunFailed { job, fault: RunFault::NotRun(NotRun::Absent) },
                    (2, Some(_)) => Event::RunFailed { job, fault: RunFault::Lost },
                    _ => Event::RunEnded { job },
                }
            }
            Act::Conclude(i) => Event::Answered { job: pick(&mut self.concluding, i)?, bytes: 300 },
            Act::Post(i, kind) => {
                let job = pick(&mut self.posting, i)?;
                match kind {
                    0 | 1 => Event::PostFailed { job, fault: PostFault::Later { after: None } },
                    2 => Event::PostFailed { job, fault: PostFault::Rejected },
                    3 => Event::PostFailed { job, fault: PostFault::Never },
                    _ => Event::Posted { job },
                }
            }
            Act::Progress(n) => Event::Progressed { job: id(n) },
            Act::UpdateEnd(i) => {
                let job = pick(&mut self.updating, i)?;
                if let Some(known) = self.held.get_mut(&job) {
                    known.updating = false;
                }
                Event::UpdateEnded { job }
            }
            Act::Stop(n) => {
                if let Some(known) = self.held.get_mut(&id(n)) {
                    known.stopped = true;
                }
                self.again.remove(&id(n));
                Event::Stopped { job: id(n) }
            }
            Act::Stand(i, kind) => {
                let standing = match kind {
                    0 => Standing::Down { reason: "it loads".to_owned() },
                    1 => Standing::Busy,
                    _ => ready(),
                };
                stood(INSTANCES[i], standing)
            }
            Act::Pass(millis) => {
                self.now += millis;
                Event::Tick
            }
            Act::Drain(hurry) => {
                self.draining = true;
                Event::Drain { hurry }
            }
            Act::TakingEnd => {
                if !self.draining {
                    return None;
                }
                self.taking = false;
                Event::TakingEnded
            }
        })
    }

    fn perform(&mut self, effect: Effect) -> Result<(), TestCaseError> {
        match effect {
            Effect::Open { job } => {
                prop_assert!(self.held.contains_key(&job));
                self.opening.push(job);
            }
            Effect::Run { job, on } => {
                let busy = self.running.iter().any(|(_, other)| *other == Some(on));
                prop_assert!(!busy, "an instance is given one job at a time");
                self.begin_run(&job)?;
                self.running.push((job, Some(on)));
            }
            Effect::Execute { job } => {
                self.begin_run(&job)?;
                self.running.push((job, None));
            }
            Effect::Interrupt { job, .. } => {
                prop_assert!(self.running.iter().any(|(running, _)| *running == job), "only what runs");
            }
            Effect::Conclude { job, .. } => self.concluding.push(job),
            Effect::Replace { job } => prop_assert!(self.held.contains_key(&job)),
            Effect::Post { job } => {
                let known = &mut self.held.get_mut(&job).unwrap();
                prop_assert!(!known.stopped, "nothing is posted for a stopped job");
                prop_assert!(!known.updating, "the answer comes after every update");
                known.post_begun = true;
                prop_assert!(!self.posting.contains(&job), "one post at a time");
                self.posting.push(job);
            }
            Effect::Update { job } => {
                let known = &mut self.held.get_mut(&job).unwrap();
                prop_assert!(!known.stopped && !known.post_begun && !known.updating);
                known.updating = true;
                self.updating.push(job);
            }
            Effect::Forget { job, fate } => {
                let known = self.held.remove(&job).unwrap();
                match fate {
                    Fate::Settled => self.settled += 1,
                    Fate::Stopped => {
                        prop_assert!(known.stopped);
                        self.ended_otherwise += 1;
                    }
                    Fate::GivenUp => self.ended_otherwise += 1,
                }
                prop_assert!(!known.updating && !self.posting.contains(&job));
                if self.again.remove(&job) {
                    self.taken += 1;
                    self.held.insert(job, Known::default());
                }
            }
            Effect::Drained => {
                prop_assert!(self.held.is_empty() && self.draining && !self.taking);
                self.drained += 1;
            }
            Effect::Duplicate { .. } | Effect::Retrying { .. } | Effect::WakeIn(_) => {}
            Effect::Abandon { .. } | Effect::StopTaking => {}
        }
        Ok(())
    }

    fn begin_run(&mut self, job: &JobId) -> Result<(), TestCaseError> {
        let runs_now = self.running.iter().any(|(running, _)| running == job);
        prop_assert!(!runs_now, "never twice at once");
        let known = self.held.get_mut(job).unwrap();
        known.runs += 1;
        prop_assert!(!known.stopped && !known.post_begun);
        Ok(())
    }

    fn check(&self, leases: &Leases) -> Result<(), TestCaseError> {
        let named: Vec<JobId> = leases.ids();
        for (job, known) in &self.held {
            prop_assert!(known.stopped || named.contains(job), "a heartbeat names what is held");
        }
        prop_assert!(named.iter().all(|job| self.held.contains_key(job)), "and nothing else");
        let counts = leases.counts();
        prop_assert_eq!(counts.opening, self.opening.len());
        prop_assert_eq!(counts.running, self.running.len());
        if counts.unsent_bytes >= policy().spool_bytes || self.draining {
            prop_assert_eq!(leases.slots(), 0);
        }
        prop_assert!(leases.slots() + counts.opening + counts.waiting <= INSTANCES.len() || leases.slots() == 0);
        Ok(())
    }

    fn turn(&mut self, leases: &mut Leases, act: Act) -> Result<(), TestCaseError> {
        let Some(event) = self.event(act) else { return Ok(()) };
        for effect in leases.step(event, Moment(self.now)) {
            self.perform(effect)?;
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants(acts in prop::collection::vec(any_act(), 1..300)) {
        let mut leases = Leases::new(policy(), &INSTANCES, 1);
        let mut world = World { taking: true, ..World::default() };
        for act in acts {
            world.turn(&mut leases, act)?;
            world.check(&leases)?;
        }
        world.turn(&mut leases, Act::Drain(false))?;
        world.turn(&mut leases, Act::TakingEnd)?;
        for round in 0..600 {
            let act = match round % 8 {
                0 => Act::Open(0, 3),
                1 => Act::Run(0, 5),
                2 => Act::Conclude(0),
                3 => Act::Post(0, 5),
                4 => Act::UpdateEnd(0),
                5 => Act::Stand(0, 4),
                6 => Act::Stand(1, 4),
                _ => Act::Pass(40_000),
            };
            world.turn(&mut leases, act)?;
        }
        prop_assert_eq!(world.taken, world.settled + world.ended_otherwise, "each has its end, once");
        prop_assert_eq!(world.drained, 1);
    }
}
