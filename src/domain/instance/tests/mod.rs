//! What an instance promises: every rung of the ladder as an example.

mod properties;

use uuid::Uuid;

use super::*;
use crate::domain::time::Moment;

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn policy() -> InstancePolicy {
    InstancePolicy {
        start_deadline: secs(100),
        job_deadline: secs(300),
        no_progress: secs(60),
        interrupt_grace: secs(5),
        abort_grace: secs(3),
        stop_grace: secs(10),
        probe_every: secs(10),
        probe_misses: 3,
        recycle_after_jobs: None,
        recycle_above: None,
        wedged_retry: secs(30),
    }
}

fn prompt(number: u128) -> PromptId {
    PromptId(Uuid::from_u128(number))
}

fn job(number: u128) -> JobId {
    JobId::local(Uuid::from_u128(number))
}

/// A machine with its clock.
struct Played {
    machine: Instance,
    now: Moment,
}

impl Played {
    fn fresh(policy: InstancePolicy) -> Self {
        Self { machine: Instance::new(policy, StartRecord::default()), now: Moment(0) }
    }

    fn ready(policy: InstancePolicy) -> Self {
        let mut played = Self::fresh(policy);
        played.step(Event::GpuLooked { unfit: None, faults: 0 });
        played.step(Event::Spawning);
        played.step(Event::Ready);
        played
    }

    fn busy(policy: InstancePolicy) -> Self {
        let mut played = Self::ready(policy);
        played.ask(1);
        played
    }

    /// What is to be done; what is to be told is left out.
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.machine.step(event, self.now);
        effects.retain(|effect| !matches!(effect, Effect::Tell(_)));
        effects
    }

    fn ask(&mut self, number: u128) -> Vec<Effect> {
        self.step(asked(number))
    }

    fn after(&mut self, span: Duration) -> Vec<Effect> {
        self.now = self.now.after(span);
        self.step(Event::Tick)
    }

    fn ended(&mut self, number: u128, failure: Option<FailureCode>) -> Vec<Effect> {
        self.step(Event::RunEnded { prompt: prompt(number), failure })
    }

    fn cleaned(&mut self, number: u128, memory: Option<u64>) -> Vec<Effect> {
        self.step(Event::Cleaned { prompt: prompt(number), memory })
    }
}

fn asked(number: u128) -> Event {
    Event::RunAsked { prompt: prompt(number), job: job(number), models: vec![format!("m{number}")], deadline: None }
}

/// The answer's code, when the machine decided it.
fn code(effects: &[Effect]) -> Option<FailureCode> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer { failure, .. } => failure.as_ref().map(|verdict| verdict.code),
        _ => None,
    })
}

fn as_it_ended(number: u128) -> Effect {
    Effect::Answer { prompt: prompt(number), failure: None }
}

fn stop(grace: u64) -> Effect {
    Effect::Stop { grace: secs(grace) }
}

fn down(reason: &str) -> Standing {
    Standing::Down { reason: reason.to_owned() }
}

#[test]
fn a_job_is_answered_before_it_is_swept_and_the_next_one_waits_for_the_sweep() {
    let mut played = Played::ready(policy());
    assert_eq!(played.ask(1), [Effect::Run { prompt: prompt(1) }]);
    assert_eq!(played.ask(2), [Effect::Refuse(RunRefused::Busy)]);
    assert_eq!(played.ended(1, None), [as_it_ended(1), Effect::Clean { prompt: prompt(1) }]);
    assert_eq!(played.ask(2), [Effect::Refuse(RunRefused::Busy)]);
    assert_eq!(played.cleaned(1, None), []);
    assert_eq!(played.machine.standing(), Standing::Ready { models: vec!["m1".into()] });
    assert_eq!(played.ask(2), [Effect::Run { prompt: prompt(2) }]);
}

#[test]
fn each_change_of_standing_is_told_once() {
    let mut machine = Instance::new(policy(), StartRecord::default());
    let mut told = Vec::new();
    let looked = Event::GpuLooked { unfit: None, faults: 0 };
    let events = [looked.clone(), Event::Spawning, Event::Ready, looked, asked(1), Event::Sign { prompt: prompt(1) }];
    for event in events {
        told.extend(machine.step(event, Moment(1)).into_iter().filter_map(|effect| match effect {
            Effect::Tell(standing) => Some(standing),
            _ => None,
        }));
    }
    assert_eq!(told, [down("it starts"), Standing::Ready { models: Vec::new() }, Standing::Busy]);
}

#[test]
fn the_models_of_the_last_jobs_are_told_with_the_newest_first() {
    let mut played = Played::ready(policy());
    for number in [1, 2, 1] {
        played.ask(number);
        played.ended(number, None);
        played.cleaned(number, None);
    }
    assert_eq!(played.machine.standing(), Standing::Ready { models: vec!["m1".into(), "m2".into()] });
}

#[test]
fn a_cancelled_job_is_interrupted_and_the_process_lives_on() {
    let mut played = Played::busy(policy());
    assert_eq!(played.step(Event::InterruptAsked { job: job(9) }), []);
    let cancel = Event::InterruptAsked { job: job(1) };
    assert_eq!(played.step(cancel.clone()), [Effect::Interrupt { prompt: prompt(1) }]);
    assert_eq!(played.step(cancel), [], "once is enough");
    let effects = played.ended(1, Some(FailureCode::Interrupted));
    assert_eq!(code(&effects), Some(FailureCode::Interrupted));
    assert!(effects.contains(&Effect::Clean { prompt: prompt(1) }));
    assert_eq!(played.cleaned(1, None), []);
    assert!(matches!(played.machine.standing(), Standing::Ready { .. }));
}

#[test]
fn an_interrupt_that_came_before_the_prompt_was_taken_is_sent_again() {
    let mut played = Played::busy(policy());
    played.step(Event::InterruptAsked { job: job(1) });
    assert_eq!(played.step(Event::Accepted { prompt: prompt(1) }), [Effect::Interrupt { prompt: prompt(1) }]);
}

#[test]
fn a_job_that_ends_in_the_moment_of_its_cancel_is_answered_once_as_it_ended() {
    for failure in [None, Some(FailureCode::NodeError)] {
        let mut played = Played::busy(policy());
        played.step(Event::InterruptAsked { job: job(1) });
        assert_eq!(played.ended(1, failure), [as_it_ended(1), Effect::Clean { prompt: prompt(1) }]);
        assert_eq!(played.ended(1, failure), []);
        assert_eq!(played.step(Event::InterruptAsked { job: job(1) }), []);
    }
}

#[test]
fn a_job_over_its_limit_climbs_every_rung_and_is_settled_as_a_timeout() {
    let mut played = Played::busy(policy());
    for _ in 0..29 {
        played.after(secs(10));
        played.step(Event::ProbeAnswered);
        played.step(Event::Sign { prompt: prompt(1) });
    }
    assert_eq!(played.after(secs(10)).last(), Some(&Effect::Interrupt { prompt: prompt(1) }));
    assert_eq!(played.after(secs(4)), []);
    assert_eq!(played.after(secs(1)), [Effect::Abort]);
    assert_eq!(played.after(secs(2)), []);
    assert_eq!(played.after(secs(1)), [stop(0)]);
    assert_eq!(played.machine.standing(), down("a job does not end"));
    let effects = played.step(Event::Stopped);
    assert_eq!(code(&effects), Some(FailureCode::Timeout));
    assert_eq!(effects.last(), Some(&Effect::Leave(Leaving::Recycled)));
}

#[test]
fn a_callers_limit_below_the_hosts_is_kept_and_one_above_is_not() {
    for (own, limit) in [(20, 20), (900, 300)] {
        let mut played = Played::ready(InstancePolicy { no_progress: secs(9000), ..policy() });
        let RunAsked { event } = RunAsked::with_deadline(own);
        played.step(event);
        let mut passed = 0;
        let effects = loop {
            passed += 1;
            let effects = played.after(secs(1));
            played.step(Event::ProbeAnswered);
            if effects.contains(&Effect::Interrupt { prompt: prompt(1) }) {
                break effects;
            }
        };
        assert_eq!(passed, limit, "{effects:?}");
    }
}

struct RunAsked {
    event: Event,
}

impl RunAsked {
    fn with_deadline(seconds: u64) -> Self {
        let deadline = Some(secs(seconds));
        Self { event: Event::RunAsked { prompt: prompt(1), job: job(1), models: Vec::new(), deadline } }
    }
}

#[test]
fn slow_work_that_shows_progress_is_left_alone_and_a_silent_node_is_a_hang() {
    let mut played = Played::busy(policy());
    for _ in 0..5 {
        played.after(secs(50));
        played.step(Event::ProbeAnswered);
        played.step(Event::Sign { prompt: prompt(1) });
    }
    assert_eq!(played.machine.state_name(), "busy");
    let mut played = Played::busy(policy());
    for _ in 0..5 {
        assert_eq!(played.after(secs(10)), [Effect::Probe]);
        played.step(Event::ProbeAnswered);
    }
    assert_eq!(played.after(secs(10)).last(), Some(&Effect::Interrupt { prompt: prompt(1) }));
    assert_eq!(code(&played.ended(1, Some(FailureCode::Interrupted))), Some(FailureCode::Hang));
}

#[test]
fn a_process_that_answers_nothing_is_not_asked_to_interrupt_but_ended() {
    let mut played = Played::busy(policy());
    for _ in 0..2 {
        assert_eq!(played.after(secs(10)), [Effect::Probe]);
        assert_eq!(played.step(Event::ProbeSilent), []);
    }
    played.after(secs(10));
    assert_eq!(played.step(Event::ProbeSilent), [Effect::Abort]);
    let effects = played.step(Event::ProcessEnded { end: "signal 6 (SIGABRT)".into(), out_of_memory: false });
    assert_eq!(effects, []);
    let effects = played.ended(1, Some(FailureCode::Crashed));
    assert_eq!(code(&effects), Some(FailureCode::Hang));
    assert_eq!(effects.last(), Some(&stop(0)));
    assert_eq!(played.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);
}

#[test]
fn progress_forgives_missed_probes() {
    let mut played = Played::busy(policy());
    for _ in 0..6 {
        played.after(secs(10));
        played.step(Event::ProbeSilent);
        played.step(Event::Sign { prompt: prompt(1) });
    }
    assert_eq!(played.machine.state_name(), "busy");
}

#[test]
fn an_idle_process_that_answers_nothing_is_replaced() {
    let mut played = Played::ready(policy());
    for wait in [10, 1] {
        assert_eq!(played.after(secs(wait)), [Effect::Probe]);
        assert_eq!(played.after(secs(9)), [], "one probe at a time");
        assert_eq!(played.step(Event::ProbeSilent), []);
    }
    assert_eq!(played.after(secs(1)), [Effect::Probe]);
    assert_eq!(played.step(Event::ProbeSilent), [stop(10)]);
    assert_eq!(played.step(Event::Stopped), [Effect::Leave(Leaving::Crashed)]);
    assert_eq!(played.machine.record().last_failure.as_deref(), Some("ComfyUI gives no answer"));
}

#[test]
fn a_crash_under_a_job_waits_a_moment_for_its_report_and_then_answers_itself() {
    for (out_of_memory, expected) in [(false, FailureCode::Crashed), (true, FailureCode::OutOfMemory)] {
        let end = Event::ProcessEnded { end: "signal 9 (SIGKILL)".into(), out_of_memory };
        let mut played = Played::busy(policy());
        assert_eq!(played.step(end.clone()), []);
        assert_eq!(played.ask(2), [Effect::Refuse(RunRefused::Busy)]);
        let effects = played.after(secs(2));
        assert_eq!((code(&effects), effects.last()), (Some(expected), Some(&stop(0))));
        assert_eq!(played.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);

        let mut finished = Played::busy(policy());
        finished.step(end);
        assert_eq!(finished.ended(1, None), [as_it_ended(1), stop(0)]);
    }
}

#[test]
fn lives_that_jobs_ended_in_a_row_are_told_until_a_job_leaves_its_process_alive() {
    let mut record = StartRecord::default();
    let often = |played: &Played| {
        played.machine.complaints(played.now).iter().any(|text| text.contains("processes ended under their jobs"))
    };
    for life in 1..=4 {
        let mut played = Played { machine: Instance::new(policy(), record.clone()), now: Moment(0) };
        played.step(Event::GpuLooked { unfit: None, faults: 0 });
        played.step(Event::Spawning);
        played.step(Event::Ready);
        assert_eq!(often(&played), life > 3, "life {life}");
        played.ask(1);
        played.step(Event::ProcessEnded { end: "signal 11 (SIGSEGV)".into(), out_of_memory: false });
        played.after(secs(2));
        assert_eq!(played.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);
        record = played.machine.record().clone();
    }
    let mut played = Played { machine: Instance::new(policy(), record), now: Moment(0) };
    played.step(Event::GpuLooked { unfit: None, faults: 0 });
    played.step(Event::Spawning);
    played.step(Event::Ready);
    played.ask(1);
    played.ended(1, None);
    played.cleaned(1, None);
    assert!(!often(&played));
}

#[test]
fn a_crash_while_idle_or_while_a_job_is_swept_ends_the_life() {
    let end = || Event::ProcessEnded { end: "exit code 3".into(), out_of_memory: false };
    let mut idle = Played::ready(policy());
    assert_eq!(idle.step(end()), [stop(10)]);
    let mut cleaning = Played::busy(policy());
    cleaning.ended(1, None);
    assert_eq!(cleaning.step(end()), [stop(10)]);
    assert_eq!(cleaning.cleaned(1, None), []);
    assert_eq!(cleaning.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);
}

#[test]
fn a_job_that_cannot_be_swept_away_ends_the_process_with_all_that_it_holds() {
    let mut told = Played::busy(policy());
    told.ended(1, None);
    assert_eq!(told.step(Event::CleanFailed { prompt: prompt(1), reason: "no answer".into() }), [stop(10)]);
    let mut hung = Played::busy(policy());
    hung.ended(1, None);
    assert_eq!(hung.after(secs(29)), []);
    assert_eq!(hung.after(secs(1)), [stop(10)]);
    assert_eq!(hung.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);
}

#[test]
fn a_wedged_process_takes_no_work_and_is_tried_again_until_it_is_gone() {
    let mut played = Played::busy(policy());
    played.step(Event::ProcessEnded { end: "?".into(), out_of_memory: false });
    played.after(secs(2));
    assert_eq!(played.step(Event::StopFailed { reason: "a process in D state".into() }), []);
    assert_eq!(played.machine.standing(), down("wedged: a process in D state"));
    assert_eq!(played.machine.complaints(played.now), ["wedged: a process in D state"]);
    assert_eq!(played.ask(2), [Effect::Refuse(RunRefused::NotReady)]);
    for _ in 0..5 {
        assert_eq!(played.after(secs(29)), []);
        assert_eq!(played.after(secs(1)), [stop(0)]);
        assert_eq!(played.ask(2), [Effect::Refuse(RunRefused::NotReady)]);
        played.step(Event::StopFailed { reason: "a process in D state".into() });
    }
    played.after(secs(30));
    assert_eq!(played.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);
}

#[test]
fn a_stop_that_fails_answers_the_job_at_once() {
    let mut played = Played::busy(policy());
    played.step(Event::InterruptAsked { job: job(1) });
    played.after(secs(5));
    played.after(secs(3));
    let effects = played.step(Event::StopFailed { reason: "it survives".into() });
    assert_eq!(code(&effects), Some(FailureCode::Interrupted));
    assert_eq!(played.ended(1, None), []);
}

#[test]
fn a_failed_start_is_counted_over_lives_until_one_succeeds() {
    let mut record = StartRecord::default();
    for failed in 1..=3 {
        let mut played = Played { machine: Instance::new(policy(), record.clone()), now: Moment(0) };
        played.step(Event::GpuLooked { unfit: None, faults: 0 });
        played.step(Event::Spawning);
        assert_eq!(played.step(Event::StartFailed { reason: "exit code 1".into() }), [stop(0)]);
        let standing = Standing::FailedStart { in_a_row: failed, reason: "exit code 1".into() };
        assert_eq!(played.machine.standing(), standing);
        assert_eq!(played.step(Event::Stopped), [Effect::Leave(Leaving::Crashed)]);
        record = played.machine.record().clone();
    }
    let mut played = Played { machine: Instance::new(policy(), record), now: Moment(0) };
    played.step(Event::GpuLooked { unfit: None, faults: 0 });
    played.step(Event::Spawning);
    played.now = Moment(12_000);
    let told = ["starting (12 s)", "last failure: exit code 1 (3 failed starts in a row)"];
    assert_eq!(played.machine.complaints(played.now), told);
    assert!(matches!(played.machine.standing(), Standing::FailedStart { in_a_row: 3, .. }));
    played.step(Event::Ready);
    assert_eq!(played.machine.record(), &StartRecord::default());
}

#[test]
fn a_start_that_never_ends_fails_by_the_machines_own_clock() {
    let mut played = Played::fresh(policy());
    assert_eq!(played.step(Event::GpuLooked { unfit: None, faults: 0 }), [Effect::Spawn]);
    assert_eq!(played.after(secs(10_000)), [], "waiting for its turn is no fault of its own");
    played.step(Event::Spawning);
    assert_eq!(played.after(secs(159)), []);
    assert_eq!(played.after(secs(1)), [stop(0)]);
    assert_eq!(played.machine.record().failed_in_a_row, 1);
}

#[test]
fn the_process_is_replaced_after_so_many_jobs_or_above_so_much_memory() {
    let many = InstancePolicy { recycle_after_jobs: Some(2), ..policy() };
    let mut played = Played::busy(many);
    played.ended(1, None);
    assert_eq!(played.cleaned(1, None), []);
    played.ask(2);
    played.ended(2, None);
    assert_eq!(played.cleaned(2, None), [stop(10)]);
    assert_eq!(played.machine.standing(), down("it ran 2 jobs"));
    assert_eq!(played.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);

    let big = InstancePolicy { recycle_above: Some(100 << 20), ..policy() };
    for (memory, recycled) in [(None, false), (Some(100 << 20), false), (Some((100 << 20) + 1), true)] {
        let mut played = Played::busy(big);
        played.ended(1, None);
        assert_eq!(!played.cleaned(1, memory).is_empty(), recycled);
    }
}

#[test]
fn an_unfit_gpu_holds_the_start_and_replaces_nothing_until_it_is_fit_again() {
    let unfit = || Event::GpuLooked { unfit: Some("GPU 0 fell off the bus".into()), faults: 0 };
    let mut played = Played::fresh(policy());
    assert_eq!(played.step(unfit()), []);
    assert_eq!(played.step(unfit()), []);
    assert_eq!(played.machine.complaints(played.now), ["GPU 0 fell off the bus"]);
    assert_eq!(played.ask(1), [Effect::Refuse(RunRefused::NotReady)]);
    assert_eq!(played.step(Event::GpuLooked { unfit: None, faults: 0 }), [Effect::Spawn]);
    assert_eq!(played.step(unfit()), [stop(10)], "also while it starts");

    let mut idle = Played::ready(policy());
    assert_eq!(idle.step(unfit()), [stop(10)]);
    assert_eq!(idle.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);

    let mut busy = Played::busy(policy());
    assert_eq!(busy.step(unfit()), [], "the job may yet end");
    assert_eq!(busy.machine.complaints(busy.now), ["GPU 0 fell off the bus"]);
    busy.ended(1, None);
    assert_eq!(busy.cleaned(1, None), [stop(10)]);
    assert_eq!(busy.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);
}

#[test]
fn an_error_that_a_restart_cures_replaces_the_process_once_and_not_under_a_job() {
    let fault = |faults| Event::GpuLooked { unfit: None, faults };
    let mut idle = Played::fresh(policy());
    idle.step(fault(7));
    idle.step(Event::Spawning);
    idle.step(Event::Ready);
    assert_eq!(idle.step(fault(7)), [], "that was before its time");
    assert_eq!(idle.step(fault(8)), [stop(10)]);
    assert_eq!(idle.step(Event::Stopped), [Effect::Leave(Leaving::Recycled)]);
    let mut busy = Played::busy(policy());
    assert_eq!(busy.step(fault(1)), []);
    busy.ended(1, Some(FailureCode::NodeError));
    assert_eq!(busy.cleaned(1, None), [stop(10)]);
}

#[test]
fn a_drain_stops_what_is_idle_and_lets_a_job_finish() {
    for mut idle in [Played::fresh(policy()), Played::ready(policy())] {
        assert_eq!(idle.step(Event::Drain { hurry: false }), [stop(10)]);
        assert_eq!(idle.ask(1), [Effect::Refuse(RunRefused::NotReady)]);
        assert_eq!(idle.step(Event::Stopped), [Effect::Leave(Leaving::Requested)]);
    }
    let mut starting = Played::fresh(policy());
    starting.step(Event::GpuLooked { unfit: None, faults: 0 });
    assert_eq!(starting.step(Event::Drain { hurry: false }), [stop(10)]);
    assert_eq!(starting.step(Event::Ready), []);
    assert_eq!(starting.step(Event::StartFailed { reason: "gone".into() }), []);
    let mut busy = Played::busy(policy());
    assert_eq!(busy.step(Event::Drain { hurry: false }), []);
    assert_eq!(busy.ended(1, None), [as_it_ended(1), stop(10)]);
    assert_eq!(busy.step(Event::Stopped), [Effect::Leave(Leaving::Requested)]);
}

#[test]
fn a_hurried_drain_interrupts_and_does_not_wait_for_stacks() {
    let mut played = Played::busy(policy());
    played.step(Event::Drain { hurry: false });
    assert_eq!(played.step(Event::Drain { hurry: true }), [Effect::Interrupt { prompt: prompt(1) }]);
    assert_eq!(played.after(secs(2)), [stop(2)]);
    let effects = played.step(Event::Stopped);
    assert_eq!(code(&effects), Some(FailureCode::Interrupted));
    assert_eq!(effects.last(), Some(&Effect::Leave(Leaving::Requested)));
}

#[test]
fn a_drain_of_a_wedged_process_tries_once_more_and_leaves() {
    let mut played = Played::ready(policy());
    played.step(Event::ProcessEnded { end: "?".into(), out_of_memory: false });
    played.step(Event::StopFailed { reason: "it survives".into() });
    assert_eq!(played.step(Event::Drain { hurry: false }), [stop(0)]);
    assert_eq!(played.step(Event::StopFailed { reason: "it survives".into() }), [Effect::Leave(Leaving::Requested)]);
}
