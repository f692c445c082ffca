//! From the answer to its being off: after the last update, again and again, at most once in a smaller shape.

use std::time::Duration;

use super::machine::{Leases, Stage};
use super::{Effect, Fate, PostFault};
use crate::domain::job::JobId;
use crate::domain::time::Moment;

/// What a small plain error takes.
const SMALL: usize = 512;
/// A source's word on when to come back counts up to here.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

impl Leases {
    pub(super) fn answered(&mut self, job: &JobId, bytes: usize, out: &mut Vec<Effect>) {
        let Some(lease) = self.held.get_mut(job) else { return };
        if !matches!(lease.stage, Stage::Opening | Stage::Concluding) {
            return;
        }
        if lease.stopped {
            return self.forget(job, Fate::Stopped, out);
        }
        lease.bytes = bytes;
        if lease.updates.under_way {
            lease.stage = Stage::Ready;
            return;
        }
        lease.stage = Stage::Posting;
        out.push(Effect::Post { job: job.clone() });
    }

    pub(super) fn update_ended(&mut self, job: &JobId, out: &mut Vec<Effect>) {
        let Some(lease) = self.held.get_mut(job) else { return };
        lease.updates.under_way = false;
        match lease.stage {
            Stage::Ready => {
                lease.stage = Stage::Posting;
                out.push(Effect::Post { job: job.clone() });
            }
            Stage::Leaving { fate } => self.forget(job, fate, out),
            _ => {}
        }
    }

    pub(super) fn posted(&mut self, job: &JobId, out: &mut Vec<Effect>) {
        if self.is_posting(job) {
            self.forget(job, Fate::Settled, out);
        }
    }

    pub(super) fn post_failed(&mut self, job: &JobId, fault: PostFault, now: Moment, out: &mut Vec<Effect>) {
        if !self.is_posting(job) {
            return;
        }
        let hurries = self.hurries();
        let Some(lease) = self.held.get_mut(job) else { return };
        if lease.stopped {
            return self.forget(job, Fate::Stopped, out);
        }
        match fault {
            PostFault::Rejected if !lease.replaced => {
                lease.replaced = true;
                lease.bytes = SMALL;
                out.push(Effect::Replace { job: job.clone() });
                out.push(Effect::Post { job: job.clone() });
            }
            PostFault::Later { after } if !hurries => {
                lease.failures = lease.failures.saturating_add(1);
                let asked = after.unwrap_or_default().min(LONGEST_PAUSE);
                let wait = self.policy.retry.wait(lease.failures, &mut self.dice).max(asked);
                lease.stage = Stage::Retrying { until: now.after(wait) };
                out.push(Effect::Retrying { job: job.clone(), wait });
            }
            PostFault::Rejected | PostFault::Later { .. } | PostFault::Never => {
                self.forget(job, Fate::GivenUp, out);
            }
        }
    }

    pub(super) fn retry_due(&mut self, now: Moment, out: &mut Vec<Effect>) {
        for (job, lease) in &mut self.held {
            if matches!(lease.stage, Stage::Retrying { until } if now >= until) {
                lease.stage = Stage::Posting;
                out.push(Effect::Post { job: job.clone() });
            }
        }
    }

    fn is_posting(&self, job: &JobId) -> bool {
        self.held.get(job).is_some_and(|lease| matches!(lease.stage, Stage::Posting))
    }
}
