//! What the platform says to a client of the endpoint.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::exchange::Exchange;
use super::http::Answer;
use super::job::{Job, Status};
use super::state::State;
use super::{Core, Platform};

/// How long `/runsync` waits when nothing else is said.
const WAIT: Duration = Duration::from_secs(90);
/// Bytes of what is posted to `/run` and to `/runsync`.
const MOST: usize = 10 << 20;
const MOST_SYNC: usize = 20 << 20;

/// The answer to one of the client's routes.
pub async fn answer(core: &Core, exchange: &Exchange) -> Answer {
    let key = exchange.header("authorization").unwrap_or_default();
    if key.strip_prefix("Bearer ").unwrap_or(key) != core.options.api_key {
        return Answer::json(401, &json!({"error": "unauthorized"}));
    }
    let wait = exchange.parameter("wait").and_then(|text| text.parse().ok()).map_or(WAIT, Duration::from_millis);
    match (exchange.method.as_str(), exchange.segments().as_slice()) {
        ("POST", ["run"]) => run(core, exchange, MOST, "").unwrap_or_else(|refused| refused),
        ("POST", ["runsync"]) => match run(core, exchange, MOST_SYNC, "sync-") {
            Ok(queued) => {
                let queued: Value = serde_json::from_slice(&queued.body).unwrap_or_default();
                ended(core, queued["id"].as_str().unwrap_or_default(), wait).await
            }
            Err(refused) => refused,
        },
        ("GET" | "POST", ["status", id]) => of_job(core, id, Job::shown),
        ("GET" | "POST", ["status-sync", id]) => ended(core, id, wait).await,
        ("GET" | "POST", ["stream", id]) => change_job(core, id, |_, job| stream(job)),
        ("POST", ["cancel", id]) => change_job(core, id, cancel),
        ("POST", ["retry", id]) => retry(core, id),
        ("POST", ["purge-queue"]) => purge(core),
        ("GET", ["health"]) => Answer::json(200, &health(&core.state())),
        _ => not_found(),
    }
}

fn not_found() -> Answer {
    Answer::json(404, &json!({"error": "not found"}))
}

fn of_job(core: &Core, id: &str, show: impl FnOnce(&Job) -> Value) -> Answer {
    core.state().jobs.get(id).map_or_else(not_found, |job| Answer::json(200, &show(job)))
}

/// Changes a job; what else of the state is touched comes back as ids to stop.
fn change_job(core: &Core, id: &str, act: impl FnOnce(&mut Vec<String>, &mut Job) -> Value) -> Answer {
    core.change(|state| match state.jobs.get_mut(id) {
        Some(job) => Answer::json(200, &act(&mut state.to_stop, job)),
        None => not_found(),
    })
}

fn run(core: &Core, exchange: &Exchange, most: usize, prefix: &str) -> Result<Answer, Answer> {
    if exchange.body.len() > most {
        return Err(Answer::json(413, &json!({"error": "payload too large"})));
    }
    let posted: Option<Value> = serde_json::from_slice(&exchange.body).ok();
    let Some(mut posted) = posted.filter(|posted| posted.get("input").is_some_and(Value::is_object)) else {
        return Err(Answer::json(400, &json!({"error": "input is required"})));
    };
    if let Some(fields) = posted.as_object_mut() {
        fields.remove("id");
    }
    let id = core.change(|state| state.submit(posted, prefix));
    Ok(Answer::json(200, &json!({"id": id, "status": "IN_QUEUE"})))
}

/// The job when it has ended, or where it is when the wait is over.
async fn ended(core: &Core, id: &str, wait: Duration) -> Answer {
    let mut changes = core.changes.subscribe();
    let watching = async {
        loop {
            let is_open = core.state().jobs.get(id).is_some_and(|job| !job.status.is_final());
            if !is_open || changes.changed().await.is_err() {
                return;
            }
        }
    };
    match tokio::time::timeout(wait, watching).await {
        Ok(()) => of_job(core, id, Job::shown),
        Err(_) => of_job(core, id, |job| json!({"id": job.id, "status": job.status.name()})),
    }
}

/// The chunks since the last call.
fn stream(job: &mut Job) -> Value {
    let fresh: Vec<Value> = job.chunks[job.chunks_read..].iter().map(|chunk| json!({"output": chunk})).collect();
    job.chunks_read = job.chunks.len();
    json!({"id": job.id, "status": job.status.name(), "stream": fresh})
}

fn cancel(to_stop: &mut Vec<String>, job: &mut Job) -> Value {
    if !job.status.is_final() {
        if job.status == Status::InProgress {
            to_stop.push(job.id.clone());
        }
        job.status = Status::Cancelled;
        job.ended = Some(Instant::now());
    }
    json!({"id": job.id, "status": job.status.name()})
}

fn retry(core: &Core, id: &str) -> Answer {
    core.change(|state| {
        let Some(job) = state.jobs.get_mut(id) else { return not_found() };
        if !matches!(job.status, Status::Failed | Status::TimedOut) {
            return Answer::json(400, &json!({"error": "only failed or timed out jobs can be retried"}));
        }
        let retries = job.retries + 1;
        *job = Job { retries, ..Job::new(job.id.clone(), job.handed.clone()) };
        state.queue.push_back(id.to_owned());
        Answer::json(200, &json!({"id": id, "status": "IN_QUEUE"}))
    })
}

fn purge(core: &Core) -> Answer {
    core.change(|state| {
        let waiting: Vec<String> = state.queue.drain(..).collect();
        for id in &waiting {
            state.jobs.remove(id);
        }
        Answer::json(200, &json!({"removed": waiting.len(), "status": "completed"}))
    })
}

fn health(state: &State) -> Value {
    let count = |status: Status| state.jobs.values().filter(|job| job.status == status).count();
    let running = count(Status::InProgress).min(state.workers.len());
    let idle = state.workers.len() - running;
    json!({
        "jobs": {
            "completed": count(Status::Completed), "failed": count(Status::Failed),
            "inProgress": count(Status::InProgress), "inQueue": count(Status::InQueue), "retried": state.retried,
        },
        "workers": {
            "idle": idle, "initializing": 0, "ready": idle, "running": running, "throttled": 0,
            "unhealthy": state.unhealthy.len(),
        },
    })
}

impl Platform {
    /// The key as a client sends it.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.options().api_key)
    }
}
