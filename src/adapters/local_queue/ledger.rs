//! Who waits, who runs, and what is kept: no lock, no clock, no waiting.
//!
//! Invariants, held by the property test: the waiting jobs and the kept answers stay within their bounds; each job is
//! handed out once at most; an end never changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::job::{Answer, Job, JobCounts, JobId, JobStatus, JobView, QueueRefusal};
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;
use crate::domain::time::{Moment, whole_millis};

/// What a queue may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Jobs that wait, and the bytes of their inputs.
    pub waiting: usize,
    pub waiting_bytes: usize,
    /// How long an ended job is known, and the bytes of all that is known of ended jobs.
    pub keep: Duration,
    pub kept_bytes: usize,
    /// The largest answer.
    pub answer_bytes: usize,
}

/// Updates of one job that are kept for who asks for a stream, and their bytes.
const CHUNKS: usize = 64;
const CHUNK_BYTES: usize = 4 << 20;
/// What an ended job takes beside its answer, about.
const ENTRY_BYTES: usize = 512;
/// When to come again after the queue was full.
const FULL_FOR: Duration = Duration::from_secs(5);
/// Heartbeats in a row that do not name a job which was handed out.
const MISSES: u32 = 2;
/// The end of a job that its ingress lost.
const LOST: &str = "execution_failed: crashed: the part of the daemon that held this job was restarted";

struct Entry {
    tenant: TenantName,
    status: JobStatus,
    came: Moment,
    taken: Option<Moment>,
    ended: Option<Moment>,
    /// Until it is handed out.
    job: Option<Job>,
    progress: Option<Secret>,
    chunks: VecDeque<Secret>,
    answer: Option<Arc<Answer>>,
    /// Heartbeats that did not name it.
    misses: u32,
}

impl Entry {
    fn kept_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(Secret::len).sum();
        ENTRY_BYTES + chunks + self.answer.as_ref().map_or(0, |answer| answer.size())
    }
}

/// All jobs of one queue.
pub(super) struct Ledger {
    bounds: Bounds,
    jobs: BTreeMap<JobId, Entry>,
    waiting: VecDeque<JobId>,
    waiting_bytes: usize,
    /// Ended jobs, the oldest first.
    ended: VecDeque<JobId>,
    kept_bytes: usize,
    /// Running jobs that were cancelled, until the ingress hears of it.
    stops: Vec<JobId>,
    /// What ended since the start, by tenant; the counts of jobs that are not ended stay 0.
    ends: BTreeMap<TenantName, JobCounts>,
    closed: bool,
    polls_ended: u64,
}

impl Ledger {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            jobs: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            ended: VecDeque::new(),
            kept_bytes: 0,
            stops: Vec::new(),
            ends: BTreeMap::new(),
            closed: false,
            polls_ended: 0,
        }
    }

    /// Whether a job of so many bytes would be taken in.
    pub(super) fn admits(&self, bytes: usize) -> Result<(), QueueRefusal> {
        if self.closed {
            return Err(QueueRefusal::Draining);
        }
        let crowded = !self.waiting.is_empty() && self.waiting_bytes.saturating_add(bytes) > self.bounds.waiting_bytes;
        if self.waiting.len() >= self.bounds.waiting || crowded {
            return Err(QueueRefusal::Full { retry_after: FULL_FOR });
        }
        Ok(())
    }

    pub(super) fn submit(&mut self, job: Job, now: Moment) -> Result<(), QueueRefusal> {
        if !self.closed && self.jobs.contains_key(&job.id) {
            return Ok(());
        }
        self.admits(job.input.len())?;
        self.waiting_bytes = self.waiting_bytes.saturating_add(job.input.len());
        self.waiting.push_back(job.id.clone());
        let entry = Entry {
            tenant: job.tenant.clone(),
            status: JobStatus::InQueue,
            came: now,
            taken: None,
            ended: None,
            progress: None,
            chunks: VecDeque::new(),
            answer: None,
            misses: 0,
            job: Some(job.clone()),
        };
        self.jobs.insert(job.id, entry);
        Ok(())
    }

    pub(super) fn take(&mut self, slots: usize, now: Moment) -> Vec<Job> {
        let mut taken = Vec::new();
        let mut running: BTreeMap<TenantName, usize> = BTreeMap::new();
        for entry in self.jobs.values().filter(|entry| entry.status == JobStatus::InProgress) {
            *running.entry(entry.tenant.clone()).or_default() += 1;
        }
        while taken.len() < slots {
            let Some(id) = self.next(&running) else { break };
            let Some(entry) = self.jobs.get_mut(&id) else { continue };
            let Some(job) = entry.job.take() else { continue };
            *running.entry(job.tenant.clone()).or_default() += 1;
            self.waiting_bytes -= job.input.len();
            entry.status = JobStatus::InProgress;
            entry.taken = Some(now);
            taken.push(job);
        }
        taken
    }

    /// Of the tenant with the fewest jobs under way, the one that waits longest.
    fn next(&mut self, running: &BTreeMap<TenantName, usize>) -> Option<JobId> {
        let many = |id: &JobId| self.jobs.get(id).and_then(|entry| running.get(&entry.tenant)).copied().unwrap_or(0);
        let at = self.waiting.iter().enumerate().min_by_key(|(at, id)| (many(id), *at)).map(|(at, _)| at)?;
        self.waiting.remove(at)
    }

    pub(super) fn settle(&mut self, id: &JobId, answer: &Answer, now: Moment) {
        let status = if answer.error.is_none() { JobStatus::Completed } else { JobStatus::Failed };
        self.end(id, status, Some(answer.clone()), now);
    }

    /// Ends a job, unless it has ended already.
    fn end(&mut self, id: &JobId, status: JobStatus, answer: Option<Answer>, now: Moment) {
        let Some(entry) = self.jobs.get_mut(id).filter(|entry| !entry.status.is_final()) else { return };
        entry.status = status;
        entry.ended = Some(now);
        entry.progress = None;
        entry.answer = answer.map(Arc::new);
        if let Some(job) = entry.job.take() {
            self.waiting_bytes -= job.input.len();
            self.waiting.retain(|waiting| waiting != id);
        }
        let ends = self.ends.entry(entry.tenant.clone()).or_default();
        let counter = match status {
            JobStatus::Completed => &mut ends.completed,
            JobStatus::Cancelled => &mut ends.cancelled,
            _ => &mut ends.failed,
        };
        *counter += 1;
        self.kept_bytes += entry.kept_bytes();
        self.ended.push_back(id.clone());
        self.forget_old(now);
    }

    /// Forgets the ended jobs whose time is over, and as many more as the bound on bytes wants: the newest stays.
    pub(super) fn forget_old(&mut self, now: Moment) {
        while let Some(id) = self.ended.front() {
            let over = |entry: &Entry| entry.ended.is_some_and(|ended| now.since(ended) >= self.bounds.keep);
            let crowded = self.ended.len() > 1 && self.kept_bytes > self.bounds.kept_bytes;
            if !crowded && !self.jobs.get(id).is_none_or(over) {
                return;
            }
            if let Some(entry) = self.jobs.remove(id) {
                self.kept_bytes -= entry.kept_bytes();
            }
            self.ended.pop_front();
        }
    }

    pub(super) fn update(&mut self, id: &JobId, output: Secret) {
        let Some(entry) = self.jobs.get_mut(id).filter(|entry| entry.status == JobStatus::InProgress) else { return };
        entry.progress = Some(output.clone());
        entry.chunks.push_back(output);
        let too_many = |chunks: &VecDeque<Secret>| {
            chunks.len() > CHUNKS || chunks.len() > 1 && chunks.iter().map(Secret::len).sum::<usize>() > CHUNK_BYTES
        };
        while too_many(&entry.chunks) {
            entry.chunks.pop_front();
        }
    }

    pub(super) fn chunks(&mut self, id: &JobId) -> Option<Vec<Secret>> {
        let entry = self.jobs.get_mut(id)?;
        let chunks: Vec<Secret> = entry.chunks.drain(..).collect();
        if entry.status.is_final() {
            self.kept_bytes -= chunks.iter().map(Secret::len).sum::<usize>();
        }
        Some(chunks)
    }

    pub(super) fn cancel(&mut self, id: &JobId, now: Moment) -> Option<JobView> {
        if self.jobs.get(id)?.status == JobStatus::InProgress {
            self.stops.push(id.clone());
        }
        // The view is taken before the end may push it out.
        let view = self.view(id)?;
        self.end(id, JobStatus::Cancelled, None, now);
        Some(self.view(id).unwrap_or(view))
    }

    pub(super) fn stops(&mut self) -> Vec<JobId> {
        std::mem::take(&mut self.stops)
    }

    /// Ends the jobs that were handed out and that nobody holds any more. True when there were any.
    pub(super) fn end_lost(&mut self, held: &[JobId], now: Moment) -> bool {
        let mut lost = Vec::new();
        for (id, entry) in self.jobs.iter_mut().filter(|(_, entry)| entry.status == JobStatus::InProgress) {
            entry.misses = if held.contains(id) { 0 } else { entry.misses + 1 };
            if entry.misses >= MISSES {
                lost.push(id.clone());
            }
        }
        for id in &lost {
            self.end(id, JobStatus::Failed, Some(Answer::failed(LOST)), now);
        }
        !lost.is_empty()
    }

    pub(super) fn view(&self, id: &JobId) -> Option<JobView> {
        let entry = self.jobs.get(id)?;
        let began = entry.taken.or(entry.ended);
        Some(JobView {
            id: id.clone(),
            tenant: entry.tenant.clone(),
            status: entry.status,
            delay_ms: began.map(|began| whole_millis(began.since(entry.came))),
            execution_ms: entry.taken.zip(entry.ended).map(|(taken, ended)| whole_millis(ended.since(taken))),
            progress: entry.progress.clone(),
            answer: entry.answer.clone(),
        })
    }

    pub(super) fn counts(&self, tenant: &TenantName) -> JobCounts {
        let mut counts = self.ends.get(tenant).copied().unwrap_or_default();
        for entry in self.jobs.values().filter(|entry| entry.tenant == *tenant) {
            match entry.status {
                JobStatus::InQueue => counts.in_queue += 1,
                JobStatus::InProgress => counts.in_progress += 1,
                _ => {}
            }
        }
        counts
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn answer_limit(&self) -> usize {
        self.bounds.answer_bytes
    }

    pub(super) fn polls_ended(&self) -> u64 {
        self.polls_ended
    }

    pub(super) fn end_polls(&mut self) {
        self.polls_ended = self.polls_ended.wrapping_add(1);
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
