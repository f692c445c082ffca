//! `/api/jobs`: the queue and the history in one form.

use std::collections::HashMap;

use actix_web::Responder;
use actix_web::web::{self, Bytes, Data, Path, Query, ServiceConfig};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{json as answer, json_with, trouble};
use crate::queue::{Job, Past, Queue};
use crate::server::Server;

pub fn routes(service: &mut ServiceConfig) {
    service
        .route("/jobs", web::get().to(list))
        .route("/jobs/cancel", web::post().to(cancel_many))
        .route("/jobs/{id}", web::get().to(show))
        .route("/jobs/{id}/cancel", web::post().to(cancel));
}

async fn list(server: Data<Server>, query: Query<HashMap<String, String>>) -> impl Responder {
    let wanted: Option<Vec<&str>> = query.get("status").map(|list| list.split(',').collect());
    let is_wanted = |job: &Value| wanted.as_ref().is_none_or(|list| list.iter().any(|one| job["status"] == *one));
    let queue = server.queue();
    let open = queue.pending.iter().map(|job| unfinished(job, "pending"));
    let open = open.chain(queue.running.iter().map(|job| unfinished(job, "in_progress")));
    let jobs: Vec<Value> = open.chain(queue.history.iter().rev().map(finished)).filter(is_wanted).collect();
    let pagination = json!({"offset": 0, "limit": null, "total": jobs.len(), "has_more": false});
    answer(&json!({"jobs": jobs, "pagination": pagination}))
}

async fn show(server: Data<Server>, id: Path<String>) -> impl Responder {
    let queue = server.queue();
    let found = (queue.history.iter().find(|past| past.id == *id).map(with_workflow))
        .or_else(|| queue.running.iter().find(|job| job.id == *id).map(|job| unfinished(job, "in_progress")))
        .or_else(|| queue.pending.iter().find(|job| job.id == *id).map(|job| unfinished(job, "pending")));
    found.map_or_else(|| json_with(404, &json!({"error": "Job not found"})), |job| answer(&job))
}

async fn cancel(server: Data<Server>, id: Path<String>) -> impl Responder {
    answer(&json!({"cancelled": cancel_one(&server, &id)}))
}

async fn cancel_many(server: Data<Server>, body: Bytes) -> impl Responder {
    let Ok(wanted) = serde_json::from_slice::<Value>(&body) else { return trouble() };
    let ids: Vec<&str> = wanted["job_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let invalid: Vec<&&str> = ids.iter().filter(|id| Uuid::try_parse(id).is_err()).collect();
    if !invalid.is_empty() {
        return json_with(400, &json!({"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}));
    }
    let cancelled = ids.iter().filter(|id| cancel_one(&server, id)).count() > 0;
    answer(&json!({"cancelled": cancelled}))
}

/// Takes a waiting job away, or interrupts a running one.
fn cancel_one(server: &Server, id: &str) -> bool {
    let (deleted, running) = {
        let mut queue: std::sync::MutexGuard<'_, Queue> = server.queue();
        (queue.delete(id), queue.is_running(id))
    };
    if deleted {
        server.send_status();
        server.send_status();
    }
    if running {
        server.interrupt();
    }
    deleted || running
}

fn unfinished(job: &std::sync::Arc<Job>, status: &str) -> Value {
    json!({
        "id": job.id, "status": status, "priority": job.number, "create_time": job.extra_data["create_time"],
        "outputs_count": 0,
    })
}

/// A settled job without its workflow.
fn finished(past: &Past) -> Value {
    let entry = &past.entry;
    let messages = entry["status"]["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let end = messages.last().cloned().unwrap_or_default();
    let status = match end[0].as_str() {
        Some("execution_success") => "completed",
        Some("execution_interrupted") => "cancelled",
        _ => "failed",
    };
    let (files, others): (Vec<Value>, Vec<Value>) =
        shown(&entry["outputs"]).into_iter().partition(|item| item["filename"].is_string());
    let mut job = json!({
        "id": past.id, "status": status, "priority": entry["prompt"][0],
        "create_time": entry["prompt"][3]["create_time"], "execution_start_time": messages[0][1]["timestamp"],
        "execution_end_time": end[1]["timestamp"], "outputs_count": files.len(),
    });
    if status == "failed" {
        job["execution_error"] = end[1].clone();
    }
    if let Some(preview) = files.into_iter().chain(others).find(|item| item["mediaType"] != "latents") {
        job["preview_output"] = preview;
    }
    job
}

fn with_workflow(past: &Past) -> Value {
    let mut job = finished(past);
    let entry = &past.entry;
    let graph = &entry["prompt"][3]["extra_pnginfo"]["workflow"]["id"];
    if graph.is_string() {
        job["workflow_id"] = graph.clone();
    }
    job["outputs"] = entry["outputs"].clone();
    job["execution_status"] = entry["status"].clone();
    job["workflow"] = json!({"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]});
    job
}

/// Every file and text of the outputs, with its node and the key it was under.
fn shown(outputs: &Value) -> Vec<Value> {
    let nodes = outputs.as_object().into_iter().flatten();
    let lists = nodes.flat_map(|(node, keys)| keys.as_object().into_iter().flatten().map(move |list| (node, list)));
    let mut shown = Vec::new();
    for (node, (key, list)) in lists {
        for item in list.as_array().into_iter().flatten() {
            let mut item = match item {
                Value::Object(file) => file.clone(),
                Value::String(text) => Map::from_iter([("content".to_owned(), json!(text))]),
                _ => continue,
            };
            item.insert("nodeId".to_owned(), json!(node));
            item.insert("mediaType".to_owned(), json!(key));
            shown.push(Value::Object(item));
        }
    }
    shown
}
