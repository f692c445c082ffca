//! What must hold of every worker, asserted from the platform's log.

use std::time::{Duration, Instant};

use super::exchange::Call;
use super::job::{Job, Status};
use super::state::State;

impl State {
    /// Each job ended, with one result: not lost, and no second result that differs from the first.
    #[track_caller]
    pub fn assert_settled_once(&self) {
        for job in self.jobs.values().filter(|job| job.status != Status::Cancelled) {
            assert!(job.status.is_final(), "{} is {}\n{}", job.id, job.status.name(), self.summary());
            let first = job.finals.first().map(|result| &result.body);
            assert!(first.is_some(), "{} has no result\n{}", job.id, self.summary());
            let differs = job.finals.iter().find(|result| Some(&result.body) != first);
            assert!(differs.is_none(), "{} was settled twice: {first:?}, then {differs:?}", job.id);
        }
    }

    /// No update of a job arrived after its result had.
    #[track_caller]
    pub fn assert_progress_before_done(&self) {
        for progress in self.calls(Call::Progress) {
            let late = |done: &&super::Exchange| done.job() == progress.job() && done.arrived < progress.arrived;
            let done = self.calls(Call::Done).find(late);
            assert!(done.is_none(), "{:?} got an update after its result", progress.job());
        }
    }

    /// Every heartbeat names the jobs that the worker holds, and comes in time while it holds one.
    ///
    /// `slack` is what may lie between the hand-out and the first heartbeat that knows of it.
    #[track_caller]
    pub fn assert_heartbeats(&self, interval: Duration, slack: Duration) {
        for job in self.jobs.values() {
            let (Some((handed, _)), Some(ended)) = (job.deliveries.first(), end_of_duty(job)) else { continue };
            let mut last = *handed;
            for ping in self.calls(Call::Ping).filter(|ping| ping.arrived > *handed + slack && ping.arrived < ended) {
                let named = ping.pinged().contains(&job.id.as_str());
                assert!(named, "a heartbeat does not name {}: {}\n{}", job.id, ping.target, self.summary());
                let pause = ping.arrived - last;
                assert!(pause < interval * 2 + slack, "no heartbeat of {} for {pause:?}", job.id);
                last = ping.arrived;
            }
            let pause = ended.saturating_duration_since(last);
            assert!(pause < interval * 2 + slack, "no heartbeat of {} for {pause:?} before its end", job.id);
        }
    }

    /// No second saw more than so many attempts of a call.
    #[track_caller]
    pub fn assert_no_spin(&self, call: Call, most_per_second: usize) {
        let times: Vec<Instant> = self.calls(call).map(|exchange| exchange.arrived).collect();
        for (at, start) in times.iter().enumerate() {
            let end = *start + Duration::from_secs(1);
            let count = times[at..].iter().take_while(|time| **time < end).count();
            assert!(count <= most_per_second, "{count} of {call:?} within a second\n{}", self.summary());
        }
    }
}

/// Until when a worker must name a job: its result arrived, or it was cancelled.
fn end_of_duty(job: &Job) -> Option<Instant> {
    job.finals.first().map(|result| result.at).or(job.ended)
}
