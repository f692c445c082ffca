//! The instance's machine.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Effect, Event, InstancePolicy, Leaving, RunRefused, Standing, StartRecord, Verdict};
use crate::domain::job::{FailureCode, JobId, PromptId};
use crate::domain::time::Moment;

/// How much longer than the engine the machine waits for a start; sweeping up after an earlier life is part of it.
const START_MARGIN: Duration = Duration::from_secs(60);
/// For the end of a run to be told after its process ended: it may have finished just before.
const COLLAPSE: Duration = Duration::from_secs(2);
/// For sweeping a job away.
const CLEAN_WITHIN: Duration = Duration::from_secs(30);
/// For each rung of a hurried drain: the Supervisor does not wait long.
const HURRY: Duration = Duration::from_secs(2);
/// Names of models that are remembered.
const MODELS: usize = 16;
/// So many processes in a row that ended under their jobs are worth a word.
const FELLED_OFTEN: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing is spawned; `reason` says what it waits for.
    Held {
        reason: String,
    },
    /// `since` its turn came.
    Starting {
        since: Option<Moment>,
    },
    Ready,
    Busy,
    Interrupting {
        until: Moment,
    },
    Aborting {
        until: Moment,
    },
    /// The process ended, and its job's end is still to be told.
    Collapsed {
        until: Moment,
    },
    Cleaning {
        prompt: PromptId,
        until: Moment,
    },
    Stopping {
        reason: String,
    },
    Wedged {
        reason: String,
        retry: Moment,
    },
    Gone,
}

#[derive(Debug)]
struct Run {
    prompt: PromptId,
    job: JobId,
    began: Moment,
    last_sign: Moment,
    limit: Duration,
    verdict: Option<Verdict>,
}

/// One life of an instance.
#[derive(Debug)]
pub struct Instance {
    policy: InstancePolicy,
    state: State,
    /// The job that is not answered yet.
    run: Option<Run>,
    record: StartRecord,
    models: VecDeque<String>,
    jobs: u64,
    next_probe: Moment,
    probing: bool,
    misses: u32,
    unfit: Option<String>,
    /// Errors of the GPU that the process was not there for.
    faults_before: u64,
    /// Why the process is to be replaced as soon as it is idle.
    worn: Option<String>,
    leaving: Leaving,
    drain: Option<bool>,
    told: Option<Standing>,
}

impl Instance {
    /// A life that begins; `record` is what the earlier ones left. It waits for a first look at its GPU.
    pub fn new(policy: InstancePolicy, record: StartRecord) -> Self {
        Self {
            policy,
            state: State::Held { reason: "the GPU is looked at".to_owned() },
            run: None,
            record,
            models: VecDeque::new(),
            jobs: 0,
            next_probe: Moment(0),
            probing: false,
            misses: 0,
            unfit: None,
            faults_before: 0,
            worn: None,
            leaving: Leaving::Crashed,
            drain: None,
            told: None,
        }
    }

    /// Takes one event and says what follows from it.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.state == State::Gone {
            if let Event::RunAsked { .. } = event {
                effects.push(Effect::Refuse(RunRefused::NotReady));
            }
            return effects;
        }
        self.take(event, now, &mut effects);
        self.pass(now, &mut effects);
        let standing = self.standing();
        if self.told.as_ref() != Some(&standing) && self.state != State::Gone {
            self.told = Some(standing.clone());
            effects.push(Effect::Tell(standing));
        }
        effects
    }

    fn take(&mut self, event: Event, now: Moment, effects: &mut Vec<Effect>) {
        match event {
            Event::GpuLooked { unfit, faults } => self.gpu_looked(unfit, faults, effects),
            Event::Spawning => {
                if self.state == (State::Starting { since: None }) {
                    self.state = State::Starting { since: Some(now) };
                }
            }
            Event::Ready => self.ready(now),
            Event::StartFailed { reason } => self.start_failed(reason, effects),
            Event::RunAsked { prompt, job, models, deadline } => {
                if self.state != State::Ready {
                    let busy = self.run.is_some() || matches!(self.state, State::Cleaning { .. });
                    let why = if busy { RunRefused::Busy } else { RunRefused::NotReady };
                    return effects.push(Effect::Refuse(why));
                }
                let limit = deadline.map_or(self.policy.job_deadline, |asked| asked.min(self.policy.job_deadline));
                self.remember(models);
                self.run = Some(Run { prompt, job, began: now, last_sign: now, limit, verdict: None });
                self.state = State::Busy;
                effects.push(Effect::Run { prompt });
            }
            Event::Accepted { prompt } => {
                self.sign(prompt, now);
                // One that was sent before there was anything to interrupt is lost.
                if matches!(self.state, State::Interrupting { .. }) && self.runs(prompt) {
                    effects.push(Effect::Interrupt { prompt });
                }
            }
            Event::Sign { prompt } => self.sign(prompt, now),
            Event::RunEnded { prompt, failure } => self.run_ended(prompt, failure, now, effects),
            Event::InterruptAsked { job } => {
                if self.state == State::Busy && self.run.as_ref().is_some_and(|run| run.job == job) {
                    self.interrupt(FailureCode::Interrupted, "the job was cancelled".to_owned(), now, effects);
                }
            }
            Event::ProbeAnswered => (self.probing, self.misses) = (false, 0),
            Event::ProbeSilent => self.silent(now, effects),
            Event::Cleaned { prompt, memory } => self.cleaned(prompt, memory, now, effects),
            Event::CleanFailed { prompt, reason } => {
                if matches!(&self.state, State::Cleaning { prompt: swept, .. } if *swept == prompt) {
                    self.fail(format!("a job could not be swept away: {reason}"), effects);
                }
            }
            Event::ProcessEnded { end, out_of_memory } => self.process_ended(&end, out_of_memory, now, effects),
            Event::Stopped => {
                if matches!(self.state, State::Stopping { .. }) {
                    self.give_verdict(effects);
                    self.leave(effects);
                }
            }
            Event::StopFailed { reason } => {
                if matches!(self.state, State::Stopping { .. }) {
                    self.give_verdict(effects);
                    if self.drain.is_some() {
                        return self.leave(effects);
                    }
                    self.record.last_failure = Some(format!("wedged: {reason}"));
                    self.state = State::Wedged { reason, retry: now.after(self.policy.wedged_retry) };
                }
            }
            Event::Tick => {}
            Event::Drain { hurry } => self.drain(hurry, now, effects),
        }
    }

    /// What the clock alone decides.
    fn pass(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        match self.state {
            State::Starting { since: Some(since) } => {
                let limit = self.policy.start_deadline + START_MARGIN;
                if now.since(since) >= limit {
                    let reason = format!("ComfyUI did not start within {} s", limit.as_secs());
                    self.start_failed(reason, effects);
                }
            }
            State::Ready => self.probe_if_due(now, effects),
            State::Busy => {
                self.probe_if_due(now, effects);
                let Some(run) = &self.run else { return };
                if now.since(run.began) >= run.limit {
                    let summary = format!("the job ran over its limit of {} s", run.limit.as_secs_f64());
                    self.interrupt(FailureCode::Timeout, summary, now, effects);
                } else if now.since(run.last_sign) >= self.policy.no_progress {
                    let summary = format!("no progress within {} s", self.policy.no_progress.as_secs_f64());
                    self.interrupt(FailureCode::Hang, summary, now, effects);
                }
            }
            State::Interrupting { until } if now >= until => {
                if self.drain == Some(true) {
                    self.stop("a job does not end", Leaving::Requested, self.policy.stop_grace.min(HURRY), effects);
                } else {
                    self.abort(now, effects);
                }
            }
            State::Aborting { until } if now >= until => {
                self.record.last_failure = Some("a job did not end".to_owned());
                self.fell_with_job("a job does not end", Duration::ZERO, effects);
            }
            State::Collapsed { until } if now >= until => {
                self.give_verdict(effects);
                self.fell_with_job("its process ended", Duration::ZERO, effects);
            }
            State::Cleaning { until, .. } if now >= until => {
                self.fail("a job could not be swept away in time".to_owned(), effects);
            }
            State::Wedged { ref reason, retry } if now >= retry => {
                self.state = State::Stopping { reason: format!("wedged: {reason}") };
                effects.push(Effect::Stop { grace: Duration::ZERO });
            }
            _ => {}
        }
    }

    fn gpu_looked(&mut self, unfit: Option<String>, faults: u64, effects: &mut Vec<Effect>) {
        self.unfit = unfit;
        match (&self.state, &self.unfit) {
            (State::Held { .. }, Some(reason)) => self.state = State::Held { reason: reason.clone() },
            (State::Held { .. }, None) => {
                self.faults_before = faults;
                self.state = State::Starting { since: None };
                effects.push(Effect::Spawn);
            }
            (State::Starting { .. } | State::Ready, Some(reason)) => {
                let reason = reason.clone();
                self.stop(&reason, Leaving::Recycled, self.policy.stop_grace, effects);
            }
            (State::Starting { .. }, None) => self.faults_before = faults,
            (_, None) if faults > self.faults_before && self.worn.is_none() => {
                let reason = "the GPU reported an error (XID) that a restart cures";
                self.worn = Some(reason.to_owned());
                if self.state == State::Ready {
                    self.stop(reason, Leaving::Recycled, self.policy.stop_grace, effects);
                }
            }
            _ => {}
        }
    }

    fn ready(&mut self, now: Moment) {
        if matches!(self.state, State::Starting { since: Some(_) }) {
            let felled_in_a_row = self.record.felled_in_a_row;
            self.record = StartRecord { felled_in_a_row, ..StartRecord::default() };
            self.become_ready(now);
        }
    }

    fn become_ready(&mut self, now: Moment) {
        self.state = State::Ready;
        self.misses = 0;
        self.next_probe = now.after(self.policy.probe_every);
    }

    fn start_failed(&mut self, reason: String, effects: &mut Vec<Effect>) {
        if matches!(self.state, State::Starting { .. }) {
            self.record.failed_in_a_row = self.record.failed_in_a_row.saturating_add(1);
            self.record.last_failure = Some(reason);
            self.stop("its start failed", Leaving::Crashed, Duration::ZERO, effects);
        }
    }

    fn remember(&mut self, models: Vec<String>) {
        for model in models.into_iter().rev() {
            self.models.retain(|known| *known != model);
            self.models.push_front(model);
        }
        self.models.truncate(MODELS);
    }

    fn runs(&self, prompt: PromptId) -> bool {
        self.run.as_ref().is_some_and(|run| run.prompt == prompt)
    }

    fn sign(&mut self, prompt: PromptId, now: Moment) {
        if let Some(run) = self.run.as_mut().filter(|run| run.prompt == prompt) {
            run.last_sign = now;
            self.misses = 0;
        }
    }

    fn run_ended(&mut self, prompt: PromptId, failure: Option<FailureCode>, now: Moment, effects: &mut Vec<Effect>) {
        let Some(run) = self.run.take_if(|run| run.prompt == prompt) else { return };
        // A run that ended well, or of itself, in the very moment of its interrupt is told as it ended.
        let ours = [FailureCode::Interrupted, FailureCode::Crashed, FailureCode::Hang];
        let failure = run.verdict.filter(|_| failure.is_some_and(|code| ours.contains(&code)));
        effects.push(Effect::Answer { prompt, failure });
        self.jobs += 1;
        match self.state {
            // Nothing comes after it, and the end of the process takes all of the job with it.
            State::Busy | State::Interrupting { .. } if self.drain.is_some() => {
                self.stop("the daemon stops", Leaving::Requested, self.policy.stop_grace, effects);
            }
            State::Busy | State::Interrupting { .. } => {
                self.state = State::Cleaning { prompt, until: now.after(CLEAN_WITHIN) };
                effects.push(Effect::Clean { prompt });
            }
            State::Aborting { .. } => {
                self.record.last_failure = Some("a job did not end".to_owned());
                self.fell_with_job("a job did not end", Duration::ZERO, effects);
            }
            State::Collapsed { .. } => self.fell_with_job("its process ended", Duration::ZERO, effects),
            _ => {}
        }
    }

    /// Answers the job whose end nobody told.
    fn give_verdict(&mut self, effects: &mut Vec<Effect>) {
        let Some(run) = self.run.take() else { return };
        let gone = || Verdict { code: FailureCode::Crashed, summary: "ComfyUI ended under the job".to_owned() };
        self.jobs += 1;
        effects.push(Effect::Answer { prompt: run.prompt, failure: Some(run.verdict.unwrap_or_else(gone)) });
    }

    /// The first rung: asks ComfyUI to stop the job.
    fn interrupt(&mut self, code: FailureCode, summary: String, now: Moment, effects: &mut Vec<Effect>) {
        let Some(run) = &mut self.run else { return };
        run.verdict = Some(Verdict { code, summary });
        effects.push(Effect::Interrupt { prompt: run.prompt });
        let grace = self.policy.interrupt_grace;
        let grace = if self.drain == Some(true) { grace.min(HURRY) } else { grace };
        self.state = State::Interrupting { until: now.after(grace) };
    }

    /// The second rung: the process is to print its stacks and end.
    fn abort(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        effects.push(Effect::Abort);
        self.state = State::Aborting { until: now.after(self.policy.abort_grace) };
    }

    fn probe_if_due(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if !self.probing && now >= self.next_probe {
            self.probing = true;
            self.next_probe = now.after(self.policy.probe_every);
            effects.push(Effect::Probe);
        }
    }

    fn silent(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.probing = false;
        self.misses = self.misses.saturating_add(1);
        if self.misses < self.policy.probe_misses {
            return;
        }
        match self.state {
            State::Ready => self.fail("ComfyUI gives no answer".to_owned(), effects),
            State::Busy => {
                if let Some(run) = &mut self.run {
                    run.verdict = Some(Verdict {
                        code: FailureCode::Hang,
                        summary: "ComfyUI gave no answer any more".to_owned(),
                    });
                }
                // An interrupt would not be heard either.
                self.abort(now, effects);
            }
            _ => {}
        }
    }

    fn cleaned(&mut self, prompt: PromptId, memory: Option<u64>, now: Moment, effects: &mut Vec<Effect>) {
        if !matches!(&self.state, State::Cleaning { prompt: swept, .. } if *swept == prompt) {
            return;
        }
        self.record.felled_in_a_row = 0;
        let InstancePolicy { recycle_after_jobs, recycle_above, stop_grace, .. } = self.policy;
        let used_up = || recycle_after_jobs.filter(|most| self.jobs >= *most).map(|most| format!("it ran {most} jobs"));
        let grown = || {
            let (most, has) = (recycle_above?, memory?);
            (has > most).then(|| format!("it holds {} MiB, above {}", has >> 20, most >> 20))
        };
        if self.drain.is_some() {
            self.stop("the daemon stops", Leaving::Requested, stop_grace, effects);
        } else if let Some(reason) = self.unfit.clone().or_else(|| self.worn.clone()).or_else(used_up).or_else(grown) {
            self.stop(&reason, Leaving::Recycled, stop_grace, effects);
        } else {
            self.become_ready(now);
        }
    }

    fn process_ended(&mut self, end: &str, out_of_memory: bool, now: Moment, effects: &mut Vec<Effect>) {
        match self.state {
            State::Stopping { .. } | State::Wedged { .. } | State::Collapsed { .. } | State::Gone => return,
            State::Held { .. } => return,
            State::Starting { .. } => {
                return self.start_failed(format!("ComfyUI ended before it was ready ({end})"), effects);
            }
            _ => {}
        }
        let Some(run) = &mut self.run else {
            return self.fail(format!("ComfyUI ended ({end})"), effects);
        };
        self.record.last_failure = Some(format!("ComfyUI ended under a job ({end})"));
        if run.verdict.is_none() {
            let (code, what) = match out_of_memory {
                true => (FailureCode::OutOfMemory, "ComfyUI ran out of the host's memory"),
                false => (FailureCode::Crashed, "ComfyUI ended under the job"),
            };
            run.verdict = Some(Verdict { code, summary: format!("{what} ({end})") });
        }
        self.state = State::Collapsed { until: now.after(COLLAPSE) };
    }

    fn drain(&mut self, hurry: bool, now: Moment, effects: &mut Vec<Effect>) {
        self.drain = Some(hurry || self.drain == Some(true));
        self.leaving = Leaving::Requested;
        match self.state {
            State::Held { .. } | State::Starting { .. } | State::Ready | State::Cleaning { .. } => {
                self.stop("the daemon stops", Leaving::Requested, self.policy.stop_grace, effects);
            }
            State::Busy if hurry => {
                let summary = "the daemon stops, and the job was interrupted".to_owned();
                self.interrupt(FailureCode::Interrupted, summary, now, effects);
            }
            State::Wedged { ref reason, .. } => {
                self.state = State::Stopping { reason: format!("wedged: {reason}") };
                effects.push(Effect::Stop { grace: Duration::ZERO });
            }
            _ => {}
        }
    }

    fn fail(&mut self, reason: String, effects: &mut Vec<Effect>) {
        let grace = self.policy.stop_grace;
        self.record.last_failure = Some(reason.clone());
        match self.state {
            State::Cleaning { .. } => self.fell_with_job(&reason, grace, effects),
            _ => self.stop(&reason, Leaving::Crashed, grace, effects),
        }
    }

    /// A job took the process with it. That is the job's doing and no fall of the instance: whoever may send jobs could
    /// have it given up otherwise.
    fn fell_with_job(&mut self, reason: &str, grace: Duration, effects: &mut Vec<Effect>) {
        self.record.felled_in_a_row = self.record.felled_in_a_row.saturating_add(1);
        self.stop(reason, Leaving::Recycled, grace, effects);
    }

    fn stop(&mut self, reason: &str, leaving: Leaving, grace: Duration, effects: &mut Vec<Effect>) {
        self.leaving = if self.drain.is_some() { Leaving::Requested } else { leaving };
        self.state = State::Stopping { reason: reason.to_owned() };
        effects.push(Effect::Stop { grace });
    }

    fn leave(&mut self, effects: &mut Vec<Effect>) {
        self.state = State::Gone;
        effects.push(Effect::Leave(self.leaving));
    }

    /// How it stands, for those who give it work.
    pub fn standing(&self) -> Standing {
        let down = |reason: &str| match self.record.failed_in_a_row {
            0 => Standing::Down { reason: reason.to_owned() },
            in_a_row => {
                let last = self.record.last_failure.clone();
                Standing::FailedStart { in_a_row, reason: last.unwrap_or_else(|| reason.to_owned()) }
            }
        };
        match &self.state {
            State::Held { reason } => Standing::Down { reason: reason.clone() },
            State::Starting { .. } => down("it starts"),
            State::Ready => Standing::Ready { models: self.models.iter().cloned().collect() },
            State::Busy | State::Interrupting { .. } | State::Aborting { .. } | State::Cleaning { .. } => {
                Standing::Busy
            }
            State::Collapsed { .. } => Standing::Down { reason: "its process ended".to_owned() },
            State::Stopping { reason } => down(reason),
            State::Wedged { reason, .. } => Standing::Down { reason: format!("wedged: {reason}") },
            State::Gone => Standing::Down { reason: "it is gone".to_owned() },
        }
    }

    /// What is wrong in its own eyes; empty when it works or waits for work.
    pub fn complaints(&self, now: Moment) -> Vec<String> {
        let mut complaints = match &self.state {
            State::Held { reason } => vec![reason.clone()],
            State::Starting { since: None } => vec!["it waits for its turn to start".to_owned()],
            State::Starting { since: Some(since) } => vec![format!("starting ({} s)", now.since(*since).as_secs())],
            State::Aborting { .. } => vec!["a job does not end".to_owned()],
            State::Collapsed { .. } => vec!["its process ended".to_owned()],
            State::Stopping { reason } => vec![format!("stopping: {reason}")],
            State::Wedged { reason, .. } => vec![format!("wedged: {reason}")],
            State::Ready | State::Busy | State::Interrupting { .. } | State::Cleaning { .. } | State::Gone => {
                Vec::new()
            }
        };
        if let (State::Busy | State::Interrupting { .. } | State::Cleaning { .. }, Some(unfit)) =
            (&self.state, &self.unfit)
        {
            complaints.push(unfit.clone());
        }
        if self.record.felled_in_a_row >= FELLED_OFTEN {
            complaints.push(format!("its last {} processes ended under their jobs", self.record.felled_in_a_row));
        }
        let shown = matches!(self.state, State::Starting { .. } | State::Stopping { .. });
        if let Some(last) = self.record.last_failure.as_ref().filter(|_| shown) {
            complaints.push(match self.record.failed_in_a_row {
                0 | 1 => format!("last failure: {last}"),
                many => format!("last failure: {last} ({many} failed starts in a row)"),
            });
        }
        complaints
    }

    /// The state's name, as the health door shows it.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Held { .. } => "held",
            State::Starting { .. } => "starting",
            State::Ready => "ready",
            State::Busy | State::Interrupting { .. } | State::Aborting { .. } | State::Cleaning { .. } => "busy",
            State::Collapsed { .. } | State::Stopping { .. } | State::Gone => "stopping",
            State::Wedged { .. } => "wedged",
        }
    }

    /// Jobs that were answered in this life.
    pub fn jobs(&self) -> u64 {
        self.jobs
    }

    /// The job in hand.
    pub fn job(&self) -> Option<&JobId> {
        self.run.as_ref().map(|run| &run.job)
    }

    /// What the next life is to know.
    pub fn record(&self) -> &StartRecord {
        &self.record
    }

    /// When the machine next wants a `Tick`; none: only an event helps.
    pub fn next_tick(&self, now: Moment) -> Option<Duration> {
        let probe = (!self.probing).then_some(self.next_probe);
        let due = match self.state {
            State::Starting { since } => since.map(|since| since.after(self.policy.start_deadline + START_MARGIN)),
            State::Ready => probe,
            State::Busy => {
                let limits = self
                    .run
                    .as_ref()
                    .map(|run| run.began.after(run.limit).min(run.last_sign.after(self.policy.no_progress)));
                limits.into_iter().chain(probe).min()
            }
            State::Interrupting { until }
            | State::Aborting { until }
            | State::Collapsed { until }
            | State::Cleaning { until, .. } => Some(until),
            State::Wedged { retry, .. } => Some(retry),
            State::Held { .. } | State::Stopping { .. } | State::Gone => None,
        };
        due.map(|due| due.since(now).max(Duration::from_millis(1)))
    }
}
