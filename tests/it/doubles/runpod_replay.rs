//! What the real RunPod SDK sent, against the platform double: its answers are those of the recording.
//!
//! What the recorder made up to see what the SDK does (statuses, broken bodies, resets) is scripted first; everything
//! else is the double's own doing.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, redirect::Policy};
use serde_json::{Value, json};

use super::dialogue::{lines, names, put_in};
use crate::support::http;
use crate::support::platform::{Call, Options, Platform, Reply};

/// How a worker's recordings name the key.
const WORKER_KEY: &str = "<RUNPOD_AI_API_KEY>";
const CLIENT_KEY: &str = "<RUNPOD_API_KEY>";

/// A platform that says soon that there is nothing.
fn platform(api_key: &str) -> Platform {
    let options =
        Options { api_key: api_key.to_owned(), hold: Duration::from_millis(30), overfill: 8, ..Options::default() };
    Platform::start_with(options)
}

/// The exchanges of a recording that had an answer, or were cut by the recorder.
fn exchanges(name: &str) -> Vec<Value> {
    let parsed = lines(name).into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let abandoned = |entry: &Value| entry["note"].as_str().is_some_and(|note| note.starts_with("client closed"));
    parsed.filter(|entry| entry["request"].is_object() && !abandoned(entry)).collect()
}

/// Status, type and body of an answer; nothing for a reset.
type Seen = Option<(u64, Option<String>, String)>;

async fn send(platform: &Platform, client: &reqwest::Client, request: &Value) -> Seen {
    let method = Method::from_bytes(request["method"].as_str().unwrap().as_bytes()).unwrap();
    let base = platform.url();
    let target = request["target"].as_str().unwrap().strip_prefix("/v2").unwrap();
    let mut sent = client.request(method, format!("{base}{target}"));
    for header in request["headers"].as_array().unwrap() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        if !["Host", "Content-Length", "Accept-Encoding", "Connection"].contains(&name) {
            sent = sent.header(name, value);
        }
    }
    let answer = sent.body(request["body"].as_str().unwrap().to_owned()).send().await.ok()?;
    let content_type = answer.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    Some((u64::from(answer.status().as_u16()), content_type, answer.text().await.unwrap()))
}

/// The jobs of an answer, if it is one that the platform gives of itself.
fn jobs(body: &Value) -> Option<Vec<Value>> {
    let jobs = body.as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
    let whole = |job: &Value| job["id"].is_string() && job.get("input").is_some_and(|input| !input.is_null());
    (!jobs.is_empty() && jobs.iter().all(whole)).then_some(jobs)
}

/// Brings the platform to where it gives the recorded answer; false when it must be told to.
fn prepare(platform: &Platform, call: Call, entry: &Value) -> bool {
    let body = body_of(&entry["response"]);
    match (call, entry["response"]["status"].as_u64()) {
        (Call::Take | Call::Stop, Some(204)) => true,
        (Call::Take, Some(200)) => match jobs(&body) {
            Some(jobs) => {
                let ids: BTreeSet<String> = jobs.iter().map(|job| platform.submit_whole(job.clone())).collect();
                // One id with two inputs is the recorder's invention.
                ids.len() == jobs.len()
            }
            None => false,
        },
        (Call::Stop, Some(200)) => {
            let ids = body["jobsToStop"].as_array().into_iter().flatten().filter_map(Value::as_str);
            platform.stop(&ids.collect::<Vec<_>>());
            body["jobsToStop"].as_array().is_some_and(|ids| ids.iter().all(Value::is_string))
        }
        (Call::Done | Call::Stream | Call::Ping, Some(200)) => true,
        _ => false,
    }
}

fn body_of(response: &Value) -> Value {
    response["body"].as_str().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default()
}

fn scripted(response: &Value) -> Reply {
    let Some(status) = response["status"].as_u64() else { return Reply::ResetAfterBody { kept: false } };
    let content_type = response["content_type"].as_str().unwrap_or_default();
    Reply::raw(status as u16, content_type, response["body"].as_str().unwrap())
}

fn call_of(kind: &str) -> Call {
    match kind {
        "job-take" | "job-take-batch" => Call::Take,
        "job-stop" => Call::Stop,
        "job-done" => Call::Done,
        "job-stream" => Call::Stream,
        _ => Call::Ping,
    }
}

async fn replay_worker(name: &str) {
    let platform = platform(if name.contains("no-api-key") { "" } else { WORKER_KEY });
    let client = http().redirect(Policy::none()).pool_max_idle_per_host(0).build().unwrap();
    for entry in exchanges(name) {
        let place = format!("{name}, {}", entry["seq"]);
        let call = call_of(entry["kind"].as_str().unwrap());
        let is_natural = prepare(&platform, call, &entry);
        if !is_natural {
            platform.empty_queue();
            platform.next(call, scripted(&entry["response"]));
        }
        let seen = send(&platform, &client, &entry["request"]).await;
        let recorded = &entry["response"];
        let Some((status, content_type, body)) = seen else {
            assert!(recorded["status"].is_null(), "{place}: a reset instead of {recorded}");
            continue;
        };
        assert_eq!(recorded["status"], status, "{place}: {body}");
        assert_eq!(recorded["content_type"].as_str(), content_type.as_deref(), "{place}");
        match (jobs(&body_of(recorded)), serde_json::from_str::<Value>(&body)) {
            // A single job may come as an object or as a list.
            (Some(jobs_recorded), Ok(body)) if is_natural => assert_eq!(Some(jobs_recorded), jobs(&body), "{place}"),
            (_, Ok(body)) if is_natural => assert_eq!(body_of(recorded), body, "{place}"),
            _ => assert_eq!(recorded["body"], body, "{place}"),
        }
    }
    platform.look(|state| {
        let posted = state.calls(Call::Done).filter(|done| done.status() == Some(200)).filter_map(|done| done.job());
        let open = posted.filter_map(|id| state.jobs.get(id)).find(|job| job.finals.is_empty());
        assert!(open.is_none(), "{name}: {open:?} has no result");
    });
}

#[tokio::test]
async fn runpod_workers_get_the_recorded_answers() {
    for name in names("runpod").iter().filter(|name| !name.contains("client-")) {
        replay_worker(name).await;
    }
}

/// The client's dialogues: the test plays the worker between the client's looks.
struct Clients {
    platform: Platform,
    http: reqwest::Client,
    learned: Vec<(String, String)>,
}

impl Clients {
    /// Does as a worker what the recorded answer knows of.
    async fn work(&self, id: &str, wanted: &Value) {
        let queued = self.platform.look(|state| state.jobs.get(id).is_some_and(|job| job.deliveries.is_empty()));
        if wanted["status"] == "IN_QUEUE" || wanted["status"] == "CANCELLED" {
            return;
        }
        if queued {
            self.call("GET", "job-take/w1?gpu=x", "").await;
        }
        for chunk in wanted["stream"].as_array().into_iter().flatten() {
            self.call("POST", &format!("job-stream/w1/{id}?gpu=x"), &chunk.to_string()).await;
        }
        let body = match wanted["status"].as_str() {
            Some("IN_PROGRESS") if wanted.get("output").is_some() => {
                json!({"status": "IN_PROGRESS", "output": wanted["output"]})
            }
            Some("COMPLETED") => json!({"output": wanted["output"]}),
            Some("FAILED") => json!({"error": wanted["error"]}),
            _ => return,
        };
        self.call("POST", &format!("job-done/w1/{id}?gpu=x"), &body.to_string()).await;
    }

    async fn call(&self, method: &str, path: &str, body: &str) {
        let request = json!({
            "method": method, "target": format!("/v2/ep/{path}"), "headers": [["Authorization", CLIENT_KEY]], "body": body,
        });
        let seen = send(&self.platform, &self.http, &request).await;
        assert_eq!(seen.map(|(status, ..)| status), Some(200), "{method} {path}");
    }

    async fn replay(&mut self, name: &str, entry: &Value) {
        let place = format!("{name}, {}", entry["seq"]);
        let mut request: Value = serde_json::from_str(&put_in(&entry["request"].to_string(), &self.learned)).unwrap();
        let recorded: Value =
            serde_json::from_str(&put_in(entry["response"]["body"].as_str().unwrap(), &self.learned)).unwrap();
        let target = request["target"].as_str().unwrap().to_owned();
        if entry["response"]["status"] != 200 {
            self.platform.next(Call::Client, scripted(&entry["response"]));
        }
        if let Some(id) = ["/status/", "/stream/"].iter().find_map(|route| target.split(route).nth(1)) {
            self.work(id, &recorded).await;
        }
        let waits_in_vain = target.ends_with("/runsync") && recorded["status"] == "IN_PROGRESS";
        if waits_in_vain {
            request["target"] = json!(format!("{target}?wait=1"));
        }
        let before = self.platform.look(|state| state.jobs.len());
        let working = async {
            if target.ends_with("/runsync") && entry["response"]["status"] == 200 && !waits_in_vain {
                let newest = |state: &crate::support::platform::State| {
                    let newest = state.jobs.values().max_by_key(|job| job.submitted)?;
                    (state.jobs.len() > before).then(|| newest.id.clone())
                };
                let id = self.platform.until("the job of runsync", newest).await;
                self.work(&id, &recorded).await;
            }
        };
        let (seen, ()) = tokio::join!(send(&self.platform, &self.http, &request), working);
        let (status, _, body) = seen.unwrap();
        assert_eq!(entry["response"]["status"], status, "{place}: {body}");
        let own: Value = serde_json::from_str(&body).unwrap();
        if let (true, Some(recorded), Some(own)) =
            (target.contains("/run"), recorded["id"].as_str(), own["id"].as_str())
        {
            self.learned.push((recorded.to_owned(), own.to_owned()));
        }
        let mut recorded: Value = serde_json::from_str(&put_in(&recorded.to_string(), &self.learned)).unwrap();
        if waits_in_vain {
            // Nobody has taken it meanwhile.
            recorded["status"] = json!("IN_QUEUE");
        }
        assert_eq!(counted(&recorded), counted(&own), "{place}");
    }
}

/// The answer with every count and time the same.
fn counted(answer: &Value) -> Value {
    match answer {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), counted(value))).collect(),
        Value::Number(_) => json!(0),
        other => other.clone(),
    }
}

#[tokio::test]
async fn runpod_clients_get_the_recorded_answers() {
    for name in names("runpod").iter().filter(|name| name.contains("client-")) {
        let http = http().redirect(Policy::none()).build().unwrap();
        let mut clients = Clients { platform: platform(CLIENT_KEY), http, learned: Vec::new() };
        for entry in exchanges(name) {
            clients.replay(name, &entry).await;
        }
    }
}
