//! The recorded dialogues between RunPod's SDK and a platform, played again with this adapter in the SDK's place: every
//! request is compared. What differs on purpose stands in the tables below, with its reason.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use crate::adapters::doubles::{Request, answer, cut};
use crate::domain::job::{Answer, JobId};
use crate::domain::secret::Secret;
use crate::ports::job_source::{JobSource, Update};

/// Headers that are not compared: on which calls (empty: on all), and why.
const HEADERS_APART: [(&str, &[&str], &str); 6] = [
    ("host", &[], "the recorder listened on another port"),
    ("user-agent", &[], "each names itself; no answer in the recordings goes by it"),
    ("accept-encoding", &[], "nothing here inflates an answer"),
    ("x-request-id", &["job-take", "job-take-batch", "job-stop"], "the SDK repeats the last job's id, which is stale"),
    ("connection", &["ping"], "HTTP/1.1 keeps connections without being told"),
    ("content-length", &["job-done"], "the SDK puts blanks after its separators; the length is compared with the body"),
];

/// Results that are never sent as they were recorded, by a part of their body.
const BODIES_APART: [(&str, &str); 3] = [
    ("NaN", "it is no JSON"),
    ("{\"error\": {", "the platform takes an error that is no text for a success"),
    ("{}", "an answer has an output or an error"),
];

/// Calls that are not made, by a part of their address.
const CALLS_APART: [(&str, &str); 2] = [
    ("/job-stream/", "answers are whole; progress goes to job-done"),
    ("isStream=true", "so there is no end of a stream"),
];

#[derive(Deserialize)]
struct Line {
    meta: Option<Meta>,
    kind: Option<String>,
    request: Option<Asked>,
    response: Option<Replied>,
}

#[derive(Deserialize)]
struct Meta {
    worker_env: BTreeMap<String, String>,
}

#[derive(Deserialize, Clone)]
struct Asked {
    method: String,
    target: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: String,
}

impl Asked {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Deserialize, Clone)]
struct Replied {
    status: u16,
    content_type: Option<String>,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A result's body, its values as they were written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    status: Option<String>,
    #[serde(borrow, default, deserialize_with = "crate::adapters::runpod::jobs::also_null")]
    output: Option<&'a RawValue>,
    error: Option<String>,
    #[serde(default)]
    stop_pod: bool,
}

/// What the platform says next: none closes the connection.
type Script = Arc<Mutex<VecDeque<Option<Replied>>>>;

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/runpod");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("recordings").flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| std::fs::read_to_string(path).expect("text").contains("\"worker-start\""));
    paths.sort();
    paths
}

fn platform(script: &Script) -> Server {
    let script = Arc::clone(script);
    Server::start(move |request, wire| {
        let host = request.header("host").unwrap_or_default();
        match script.lock().expect("no panic").pop_front().flatten() {
            None => cut(wire),
            Some(reply) => {
                let there = |value: &str| match value.split_once("/v2/") {
                    Some((_, path)) => format!("http://{host}/v2/{path}"),
                    None => value.to_owned(),
                };
                let mut headers: Vec<(String, String)> =
                    reply.headers.iter().map(|(name, value)| (name.clone(), there(value))).collect();
                headers.extend(reply.content_type.map(|kind| ("Content-Type".to_owned(), kind)));
                let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                answer(wire, reply.status, &headers, reply.body.as_bytes());
            }
        }
    })
}

fn worker(server: &Server, environment: &BTreeMap<String, String>, key: Option<&str>) -> RunPod {
    let here = |name: &str| {
        let template = environment.get(name).expect("it was recorded");
        let (_, path) = template.split_once("/v2/").expect("a path");
        format!("http://{}/v2/{path}", server.address)
    };
    let mut settings = settings(server.address);
    settings.templates = Templates {
        take: here("RUNPOD_WEBHOOK_GET_JOB"),
        done: here("RUNPOD_WEBHOOK_POST_OUTPUT"),
        ping: Some(here("RUNPOD_WEBHOOK_PING")),
        gpu_type: None,
    };
    settings.pod_id = environment.get("RUNPOD_POD_ID").cloned();
    settings.api_key = key.map(SecretString::from);
    source_with(settings)
}

/// The request that this adapter is to make where the SDK made `asked`.
fn expected(kind: &str, asked: &Asked) -> (String, BTreeMap<String, String>, Vec<u8>) {
    // The SDK joins with `&` where there is no query yet.
    let target = if asked.target.contains('?') { asked.target.clone() } else { asked.target.replacen('&', "?", 1) };
    let headers = asked.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    (target, compared(kind, headers), our_body(&asked.body))
}

fn compared(kind: &str, mut headers: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for (name, on, _why) in HEADERS_APART {
        if on.is_empty() || on.contains(&kind) {
            headers.remove(name);
        }
    }
    headers
}

/// The SDK's body without the blanks after its outermost separators; that nothing else changes is checked.
fn our_body(theirs: &str) -> Vec<u8> {
    if theirs.is_empty() {
        return Vec::new();
    }
    let posted: Posted<'_> = serde_json::from_str(theirs).expect("a result");
    let fields = [
        ("status", posted.status.map(|status| format!("\"{status}\""))),
        ("output", posted.output.map(|raw| raw.get().to_owned())),
        ("error", posted.error.map(|error| serde_json::Value::from(error).to_string())),
        ("stopPod", posted.stop_pod.then(|| "true".to_owned())),
    ];
    let present: Vec<(&str, String)> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let joined = |colon: &str, comma: &str| {
        let fields: Vec<String> = present.iter().map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
        format!("{{{}}}", fields.join(comma))
    };
    assert_eq!(joined(": ", ", "), theirs);
    joined(":", ",").into_bytes()
}

/// Makes the call that the SDK made. What comes of it is asserted elsewhere.
async fn call(worker: &RunPod, server: &mut Server, kind: &str, asked: &Asked) -> Vec<Request> {
    let job = || -> JobId {
        let path = asked.target.split(['?', '&']).next().expect("a path");
        path.rsplit('/').next().expect("an id").parse().expect("an id")
    };
    match kind {
        "job-take" | "job-take-batch" => {
            let slots = asked.query("batch_size").map_or(1, |slots| slots.parse().expect("a number"));
            let busy = asked.target.ends_with("job_in_progress=1");
            let _taken = worker.take(slots, busy).await;
        }
        "job-stop" => tokio::select! {
            _ = worker.stops() => {}
            request = server.next() => return vec![request],
        },
        "ping" if asked.query("status").is_some() => {
            let word = |name: &str| asked.query(name).expect("it was recorded");
            worker.report_unhealthy(word("check"), word("reason")).await;
        }
        "ping" => {
            let held = asked.query("job_id").unwrap_or_default();
            let held: Vec<JobId> = held.split(',').filter_map(|id| id.parse().ok()).collect();
            let _told = worker.heartbeat(&held).await;
        }
        "job-done" => {
            let posted: Posted<'_> = serde_json::from_str(&asked.body).expect("a result");
            let output = posted.output.map(|raw| Secret::from(raw.get().to_owned()));
            if posted.status.is_some() {
                let _posted = worker.update(&job(), &Update { output: output.expect("progress") }).await;
            } else {
                let answer = Answer { output, error: posted.error };
                let _posted = worker.settle(&job(), &answer, posted.stop_pod).await;
            }
        }
        other => panic!("{other} is not known"),
    }
    let mut seen = vec![server.next().await];
    while let Ok(request) = server.seen.try_recv() {
        seen.push(request);
    }
    seen
}

async fn replay(path: &Path) -> usize {
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
    let text = std::fs::read_to_string(path).expect("text");
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let environment = &lines.iter().find_map(|line| line.meta.as_ref()).expect("the environment").worker_env;
    let exchanges =
        lines.iter().filter_map(|line| Some((line.kind.as_deref()?, line.request.as_ref()?, &line.response)));
    let mut exchanges: VecDeque<_> =
        exchanges.filter(|(_, asked, _)| CALLS_APART.iter().all(|(part, _)| !asked.target.contains(part))).collect();
    let script = Script::default();
    let mut server = platform(&script);
    // The environment was written down with a key in every case; whether there was one is seen on the wire.
    let sent = exchanges.iter().flat_map(|(_, asked, _)| &asked.headers).find(|(name, _)| name == "Authorization");
    let key = sent.map(|(_, key)| key.as_str()).filter(|key| !key.is_empty());
    let worker = worker(&server, environment, key);
    let mut compared_calls = 0;
    while let Some((kind, asked, response)) = exchanges.pop_front() {
        if BODIES_APART
            .iter()
            .any(|(part, _)| if *part == "{}" { asked.body == "{}" } else { asked.body.contains(part) })
        {
            continue;
        }
        let mut expects = vec![expected(kind, asked)];
        let mut replies = VecDeque::from([response.clone()]);
        if response.as_ref().is_some_and(|reply| reply.status == 301) {
            let at = exchanges.iter().position(|(next, ..)| *next == kind).expect("the second hop");
            let (_, asked, response) = exchanges.remove(at).expect("the second hop");
            expects.push(expected(kind, asked));
            replies.push_back(response.clone());
        }
        *script.lock().expect("no panic") = replies;
        let seen = call(&worker, &mut server, kind, asked).await;
        assert_eq!(seen.len(), expects.len(), "{name}: calls of {kind}");
        for (seen, (target, headers, body)) in seen.into_iter().zip(expects) {
            assert_eq!((&seen.method, &seen.target), (&asked.method, &target), "{name}");
            if kind == "job-done" {
                assert_eq!(seen.header("content-length"), Some(body.len().to_string().as_str()), "{name}");
            }
            let ours = compared(kind, seen.headers.into_iter().collect());
            assert_eq!(ours, headers, "{name}: {kind}");
            assert_eq!(String::from_utf8_lossy(&seen.body), String::from_utf8_lossy(&body), "{name}: {kind}");
            compared_calls += 1;
        }
    }
    compared_calls
}

#[tokio::test]
async fn every_recorded_request_of_the_sdk_is_made_alike() {
    let recordings = recordings();
    assert!(recordings.len() >= 32, "{recordings:?}");
    let mut calls = 0;
    for path in &recordings {
        calls += replay(path).await;
    }
    assert!(calls > 450, "only {calls} calls were compared");
}
