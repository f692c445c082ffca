//! What the platform says to a worker.

use std::time::Instant;

use serde_json::{Value, json};

use super::Core;
use super::exchange::{Call, Exchange};
use super::http::Answer;
use super::job::Status;

/// The answer to one of the worker's calls; take and stop wait for something to say.
pub async fn answer(core: &Core, exchange: &Exchange) -> Answer {
    if exchange.header("authorization").unwrap_or_default() != core.options.api_key {
        return Answer::json(401, &json!({"error": "unauthorized"}));
    }
    let segments = exchange.segments();
    let worker = segments.get(1).copied().unwrap_or_default();
    core.state().workers.insert(worker.to_owned());
    match exchange.call {
        Call::Take => take(core, exchange, worker).await,
        Call::Stop => stop(core).await,
        Call::Ping => ping(core, exchange),
        Call::Progress => progress(core, exchange),
        Call::Stream => stream(core, exchange),
        _ => done(core, exchange),
    }
}

async fn take(core: &Core, exchange: &Exchange, worker: &str) -> Answer {
    let is_batch = exchange.segments().first() == Some(&"job-take-batch");
    let size = exchange.parameter("batch_size").and_then(|size| size.parse().ok()).unwrap_or(1);
    let most = if is_batch { size + core.options.overfill } else { 1 };
    let jobs = held(core, || {
        let jobs = core.state().hand_out(worker, most);
        (!jobs.is_empty()).then_some(jobs)
    });
    match jobs.await {
        None => Answer::empty(204),
        Some(jobs) if is_batch => Answer::json(200, &json!(jobs)),
        Some(jobs) => Answer::json(200, &jobs[0]),
    }
}

async fn stop(core: &Core) -> Answer {
    let ids = held(core, || {
        let ids = std::mem::take(&mut core.state().to_stop);
        (!ids.is_empty()).then_some(ids)
    });
    match ids.await {
        None => Answer::empty(204),
        Some(ids) => Answer::json(200, &json!({"jobsToStop": ids})),
    }
}

/// Looks at every change until there is something, or the time to hold is over.
async fn held<T>(core: &Core, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut changes = core.changes.subscribe();
    let watching = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::time::timeout(core.options.hold, watching).await.ok()
}

fn ping(core: &Core, exchange: &Exchange) -> Answer {
    core.change(|state| {
        if exchange.parameter("status") == Some("unhealthy") {
            let told = |name: &str| exchange.parameter(name).unwrap_or_default().to_owned();
            state.unhealthy.push((told("check"), told("reason")));
        }
        for id in exchange.pinged() {
            if let Some(job) = state.jobs.get_mut(id) {
                job.alive = Instant::now();
            }
        }
    });
    Answer::json(200, &json!({}))
}

/// A final result.
fn done(core: &Core, exchange: &Exchange) -> Answer {
    let id = exchange.job().unwrap_or_default();
    let too_big = exchange.body.len() > core.options.result_limit;
    let body = leniently(&exchange.body);
    core.change(|state| {
        let Some(job) = state.jobs.get_mut(id) else {
            return Answer::json(404, &json!({"error": "job not found"}));
        };
        let (Some(body), false) = (body, too_big) else {
            if too_big {
                job.refuse_result();
            }
            return Answer::json(400, &json!({"error": "bad request"}));
        };
        job.finish(&body);
        if body["stopPod"] == true {
            state.stop_pod.push(id.to_owned());
        }
        Answer::json(200, &json!({}))
    })
}

/// JSON as Python writes it, with bare `NaN` and `Infinity`.
fn leniently(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    let without =
        || ["NaN", "-Infinity", "Infinity"].iter().fold(text.to_owned(), |text, word| text.replace(word, "null"));
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&without())).ok()
}

/// An update; one that comes after the end opens the job again.
fn progress(core: &Core, exchange: &Exchange) -> Answer {
    let id = exchange.job().unwrap_or_default();
    core.change(|state| {
        if let Some(job) = state.jobs.get_mut(id) {
            job.progress.push((Instant::now(), exchange.json()["output"].clone()));
            job.status = Status::InProgress;
        }
    });
    Answer::json(200, &json!({}))
}

fn stream(core: &Core, exchange: &Exchange) -> Answer {
    let id = exchange.job().unwrap_or_default();
    core.change(|state| {
        if let Some(job) = state.jobs.get_mut(id) {
            job.chunks.push(exchange.json()["output"].clone());
        }
    });
    Answer::json(200, &json!({}))
}
