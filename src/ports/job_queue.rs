//! This host's own queue of jobs, as its door and its ingress use it. It lives in memory: a job is as lasting as its
//! daemon.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::job::{Job, JobCounts, JobId, JobView, QueueRefusal};
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;

/// The queue. Results are kept for a while after the end, then forgotten; both in number and in bytes bounded.
#[async_trait]
pub trait JobQueue: Send + Sync {
    fn submit(&self, job: Job) -> Result<(), QueueRefusal>;
    /// Whether a job whose input has so many bytes would be taken in now; it keeps no place.
    fn admits(&self, bytes: usize) -> Result<(), QueueRefusal>;
    fn view(&self, job: &JobId) -> Option<JobView>;
    /// The updates since the last call, the oldest first; a caller who asks seldom misses some. None: no such job.
    fn chunks(&self, job: &JobId) -> Option<Vec<Secret>>;
    /// Waits until the job's status is final, at most so long. None: there is no such job.
    async fn settled(&self, job: &JobId, wait: Duration) -> Option<JobView>;
    /// Cancels a job that waits or runs. None: there is no such job.
    fn cancel(&self, job: &JobId) -> Option<JobView>;
    /// A tenant's jobs.
    fn counts(&self, tenant: &TenantName) -> JobCounts;
    /// From now on nothing is taken in.
    fn close(&self);
}
