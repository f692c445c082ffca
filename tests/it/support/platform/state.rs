//! Everything the platform knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::exchange::{Call, Exchange};
use super::job::{Job, Status};
use super::script::Script;

/// Jobs, queue, log and script, under one lock.
pub struct State {
    pub began: Instant,
    pub jobs: BTreeMap<String, Job>,
    /// Ids that wait; one may wait twice.
    pub queue: VecDeque<String>,
    /// Ids that the next open job-stop gets.
    pub to_stop: Vec<String>,
    pub log: Vec<Exchange>,
    pub script: Script,
    /// Workers that called.
    pub workers: BTreeSet<String>,
    /// Workers that reported themselves unhealthy: check and reason.
    pub unhealthy: Vec<(String, String)>,
    /// Jobs whose result asked for a new pod.
    pub stop_pod: Vec<String>,
    pub retried: u32,
}

impl State {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            to_stop: Vec::new(),
            log: Vec::new(),
            script: Script::default(),
            workers: BTreeSet::new(),
            unhealthy: Vec::new(),
            stop_pod: Vec::new(),
            retried: 0,
        }
    }

    /// Queues a job; the id is the client's own, or a new one with the prefix and the region's ending.
    pub fn submit(&mut self, mut posted: Value, prefix: &str) -> String {
        let id = posted["id"].as_str().map_or_else(|| format!("{prefix}{}-u1", Uuid::new_v4()), str::to_owned);
        posted["id"] = json!(id);
        self.jobs.insert(id.clone(), Job::new(id.clone(), posted));
        self.queue.push_back(id.clone());
        id
    }

    /// Hands out up to so many jobs.
    pub fn hand_out(&mut self, worker: &str, most: usize) -> Vec<Value> {
        let now = Instant::now();
        let mut handed = Vec::new();
        while handed.len() < most {
            let Some(id) = self.queue.pop_front() else { break };
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if job.status == Status::Cancelled {
                continue;
            }
            if !job.status.is_final() {
                job.status = Status::InProgress;
            }
            job.worker = Some(worker.to_owned());
            job.deliveries.push((now, worker.to_owned()));
            job.alive = now;
            handed.push(job.handed.clone());
        }
        handed
    }

    /// Queues the jobs again whose worker fell silent.
    pub fn redeliver(&mut self, after: Duration) -> usize {
        let silent = |job: &&mut Job| job.status == Status::InProgress && job.alive.elapsed() > after;
        let mut lost = Vec::new();
        for job in self.jobs.values_mut().filter(silent) {
            job.status = Status::InQueue;
            job.retries += 1;
            lost.push(job.id.clone());
        }
        self.retried += lost.len() as u32;
        let count = lost.len();
        self.queue.extend(lost);
        count
    }

    /// The exchanges of one call, in the order of their arrival.
    pub fn calls(&self, call: Call) -> impl Iterator<Item = &Exchange> {
        self.log.iter().filter(move |exchange| exchange.call == call)
    }

    /// The last exchanges, a line each.
    pub fn summary(&self) -> String {
        let line = |exchange: &Exchange| {
            let at = exchange.arrived.duration_since(self.began).as_millis();
            let body: String = String::from_utf8_lossy(&exchange.body).chars().take(120).collect();
            format!("{at:>7} ms {} {} → {:?} {body}", exchange.method, exchange.target, exchange.status())
        };
        let from = self.log.len().saturating_sub(60);
        self.log[from..].iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
