//! This host's own queue: a [`JobSource`] for its ingress, a [`JobQueue`] for its door.
//!
//! ```text
//!   door ─submit─► waiting ─take─► in progress ─settle─► kept for a while ─► forgotten
//!             cancel ─┴──────────────┴─ a stop for the ingress
//! ```
//!
//! Everything is in memory. What is decided is in `ledger`; here is the lock around it, and who waits for what: all
//! waiters look again whenever anything changed, and nobody sleeps.

mod ledger;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::domain::job::{Answer, Job, JobCounts, JobId, JobView, QueueRefusal};
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;
use crate::ports::clock::Clock;
use crate::ports::job_queue::JobQueue;
use crate::ports::job_source::{JobSource, SourceError, Taken, Update};

pub use ledger::Bounds;
use ledger::Ledger;

/// How often the ingress says what it holds. A job that it does not name twice in a row is lost.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The queue. One value, shared by its door and its ingress.
pub struct LocalQueue {
    ledger: Mutex<Ledger>,
    /// Counts changes; whoever waits looks again.
    changes: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

impl LocalQueue {
    /// An empty queue.
    pub fn new(bounds: Bounds, clock: Arc<dyn Clock>) -> Self {
        Self { ledger: Mutex::new(Ledger::new(bounds)), changes: watch::Sender::new(0), clock }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.forget_old(self.clock.now());
        ledger
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Asks `look` after each change, until it finds something.
    async fn until<T>(&self, look: impl Fn(&mut Ledger) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = look(&mut self.ledger()) {
                return found;
            }
            if changes.changed().await.is_err() {
                // The sender lives as long as this value.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[async_trait]
impl JobQueue for LocalQueue {
    fn submit(&self, job: Job) -> Result<(), QueueRefusal> {
        self.ledger().submit(job, self.clock.now())?;
        self.changed();
        Ok(())
    }

    fn admits(&self, bytes: usize) -> Result<(), QueueRefusal> {
        self.ledger().admits(bytes)
    }

    fn view(&self, job: &JobId) -> Option<JobView> {
        self.ledger().view(job)
    }

    fn chunks(&self, job: &JobId) -> Option<Vec<Secret>> {
        self.ledger().chunks(job)
    }

    async fn settled(&self, job: &JobId, wait: Duration) -> Option<JobView> {
        let settled = self.until(|ledger| match ledger.view(job) {
            None => Some(None),
            Some(view) if view.status.is_final() => Some(Some(view)),
            Some(_) => None,
        });
        match timeout(wait, settled).await {
            Ok(view) => view,
            Err(_) => self.view(job),
        }
    }

    fn cancel(&self, job: &JobId) -> Option<JobView> {
        let view = self.ledger().cancel(job, self.clock.now());
        self.changed();
        view
    }

    fn counts(&self, tenant: &TenantName) -> JobCounts {
        self.ledger().counts(tenant)
    }

    fn close(&self) {
        self.ledger().close();
    }
}

#[async_trait]
impl JobSource for LocalQueue {
    fn name(&self) -> &'static str {
        "local"
    }

    fn answer_limit(&self, _: &JobId) -> usize {
        self.ledger().answer_limit()
    }

    async fn take(&self, slots: usize, _: bool) -> Result<Taken, SourceError> {
        let polls_ended = self.ledger().polls_ended();
        let jobs = self.until(|ledger| {
            let jobs = ledger.take(slots, self.clock.now());
            (!jobs.is_empty() || ledger.polls_ended() != polls_ended).then_some(jobs)
        });
        Ok(Taken { jobs: jobs.await, ..Taken::default() })
    }

    async fn stop_taking(&self) -> Taken {
        self.ledger().end_polls();
        self.changed();
        Taken::default()
    }

    async fn settle(&self, job: &JobId, answer: &Answer, _: bool) -> Result<(), SourceError> {
        self.ledger().settle(job, answer, self.clock.now());
        self.changed();
        Ok(())
    }

    async fn update(&self, job: &JobId, update: &Update) -> Result<(), SourceError> {
        self.ledger().update(job, update.output.clone());
        Ok(())
    }

    async fn heartbeat(&self, held: &[JobId]) -> Result<(), SourceError> {
        if self.ledger().end_lost(held, self.clock.now()) {
            self.changed();
        }
        Ok(())
    }

    fn heartbeat_every(&self) -> Option<Duration> {
        Some(HEARTBEAT)
    }

    async fn stops(&self) -> Result<Vec<JobId>, SourceError> {
        Ok(self.until(|ledger| Some(ledger.stops()).filter(|stops| !stops.is_empty())).await)
    }

    async fn report_unhealthy(&self, _: &str, _: &str) {}
}
