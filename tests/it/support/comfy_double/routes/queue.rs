//! The queue, the history, and what acts on the running job.

use std::collections::HashMap;

use actix_web::web::{self, Bytes, Data, Path, Query, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde_json::{Value, json};

use super::{json as answer, trouble};
use crate::server::Server;

pub fn routes(service: &mut ServiceConfig) {
    service
        .route("/queue", web::get().to(queue))
        .route("/queue", web::post().to(edit_queue))
        .route("/history", web::get().to(history))
        .route("/history", web::post().to(edit_history))
        .route("/history/{id}", web::get().to(entry))
        .route("/interrupt", web::post().to(interrupt))
        .route("/free", web::post().to(free));
}

async fn queue(server: Data<Server>) -> impl Responder {
    let queue = server.queue();
    let running: Vec<Value> = queue.running.iter().map(|job| job.as_tuple()).collect();
    let pending: Vec<Value> = queue.pending.iter().map(|job| job.as_tuple()).collect();
    answer(&json!({"queue_running": running, "queue_pending": pending}))
}

/// The ids to delete; bad JSON is trouble.
fn deletions(body: &[u8]) -> Option<(bool, Vec<String>)> {
    let wanted: Value = serde_json::from_slice(body).ok()?;
    let ids = wanted["delete"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    Some((wanted["clear"] == true, ids.collect()))
}

async fn edit_queue(server: Data<Server>, body: Bytes) -> impl Responder {
    let Some((clear, ids)) = deletions(&body) else { return trouble() };
    let mut changes = 0;
    {
        let mut queue = server.queue();
        if clear {
            queue.pending.clear();
            changes += 1;
        }
        changes += ids.iter().filter(|id| queue.delete(id)).count();
    }
    for _ in 0..changes {
        server.send_status();
    }
    HttpResponse::Ok().finish()
}

async fn history(server: Data<Server>, query: Query<HashMap<String, String>>) -> impl Responder {
    let number = |name: &str| query.get(name).map(|text| text.parse::<i64>()).transpose();
    let (Ok(most), Ok(offset)) = (number("max_items"), number("offset")) else { return trouble() };
    let positive = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
    answer(&server.queue().history(positive(most), positive(offset)))
}

async fn entry(server: Data<Server>, id: Path<String>) -> impl Responder {
    let queue = server.queue();
    let found = queue.history.iter().find(|past| past.id == *id);
    answer(&found.map_or(json!({}), |past| json!({past.id.as_str(): past.entry})))
}

async fn edit_history(server: Data<Server>, body: Bytes) -> impl Responder {
    let Some((clear, ids)) = deletions(&body) else { return trouble() };
    server.queue().history.retain(|past| !clear && !ids.contains(&past.id));
    HttpResponse::Ok().finish()
}

/// With an id: only if that one runs. Always 200.
async fn interrupt(server: Data<Server>, body: Bytes) -> impl Responder {
    let wanted: Value = serde_json::from_slice(&body).unwrap_or_default();
    let hits = wanted["prompt_id"].as_str().is_none_or(|id| server.queue().is_running(id));
    if hits {
        server.interrupt();
    }
    HttpResponse::Ok().finish()
}

/// Answers at once; the worker acts when it is idle.
async fn free(server: Data<Server>, body: Bytes) -> impl Responder {
    let Ok(wanted) = serde_json::from_slice::<Value>(&body) else { return trouble() };
    if wanted["free_memory"] == true {
        server.queue().free_memory = true;
        server.wake();
    }
    HttpResponse::Ok().finish()
}
