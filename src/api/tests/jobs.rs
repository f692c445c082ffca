//! RunPod's client API, on a queue whose jobs a test takes itself.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use actix_web::http::Method;
use uuid::Uuid;

use super::harness::{BEARER, House, Plan};
use crate::adapters::clock::SystemClock;
use crate::adapters::local_queue::{Bounds, LocalQueue};
use crate::domain::envelope::Kid;
use crate::domain::job::{Answer, Job, JobId, JobView, OpenError, QueueRefusal, Request};
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;
use crate::messages::crypto::Open;
use crate::messages::queue_ingress::{CancelJob, GetIngress, IngressPicture, SubmitJob};
use crate::ports::job_queue::JobQueue as _;
use crate::ports::job_source::{JobSource as _, Update};

/// Crypto and the ingress: what is refused is named by the input.
pub struct JobsDouble(pub Arc<LocalQueue>);

impl Actor for JobsDouble {
    type Context = Context<Self>;
}

impl Handler<Open> for JobsDouble {
    type Result = Result<Request, OpenError>;

    fn handle(&mut self, message: Open, _: &mut Self::Context) -> Self::Result {
        let current = Kid([0xab; 8]);
        Err(match message.input.text().unwrap_or_default() {
            "1" => OpenError::Malformed("input must be an object"),
            "2" => OpenError::MissingFields,
            "3" => OpenError::Unopenable,
            "4" => OpenError::PlaintextRefused,
            "5" => OpenError::Replayed,
            "6" => OpenError::UnknownKey { current },
            "7" => OpenError::NoWorkflow { graph_export: false },
            "8" => OpenError::NoKey,
            _ => {
                return Ok(Request::Execute(Box::new(crate::domain::job::ExecuteInput {
                    environment: super::harness::any_environment(),
                    data: String::new(),
                    env: Default::default(),
                    timeout_ms: None,
                    memory_mb: None,
                    reply: crate::domain::job::ReplyTo::Plain,
                })));
            }
        })
    }
}

impl Handler<SubmitJob> for JobsDouble {
    type Result = Result<(), QueueRefusal>;

    fn handle(&mut self, message: SubmitJob, _: &mut Self::Context) -> Self::Result {
        self.0.submit(message.job)
    }
}

impl Handler<CancelJob> for JobsDouble {
    type Result = MessageResult<CancelJob>;

    fn handle(&mut self, message: CancelJob, _: &mut Self::Context) -> Self::Result {
        let view: Option<JobView> = self.0.cancel(&message.job);
        MessageResult(view)
    }
}

impl Handler<GetIngress> for JobsDouble {
    type Result = MessageResult<GetIngress>;

    fn handle(&mut self, _: GetIngress, _: &mut Self::Context) -> Self::Result {
        MessageResult(IngressPicture { instances_ready: 1, instances_busy: 2, ..IngressPicture::default() })
    }
}

fn house() -> (House, Arc<LocalQueue>) {
    let bounds = Bounds {
        waiting: 2,
        waiting_bytes: 64 << 20,
        keep: Duration::from_secs(60),
        kept_bytes: 1 << 20,
        answer_bytes: 1 << 20,
    };
    let queue = Arc::new(LocalQueue::new(bounds, Arc::new(SystemClock::start())));
    (House::build(Plan { jobs: Some(Arc::clone(&queue)), ..Plan::default() }), queue)
}

async fn take(queue: &LocalQueue) -> Job {
    queue.take(1, false).await.unwrap().jobs.remove(0)
}

/// The body with its id and its times taken out.
async fn shown(house: &House, method: Method, path: &str, id: &str) -> String {
    let answer = house.ask(method, path, "").await;
    let mut text = format!("{} {}", answer.status.as_u16(), answer.text.replace(id, "<id>"));
    for name in ["delayTime", "executionTime"] {
        if let Some(at) = text.find(&format!("\"{name}\":")) {
            let from = at + name.len() + 3;
            let end = from + text[from..].find([',', '}']).unwrap();
            text.replace_range(from..end, "0");
        }
    }
    text
}

#[actix_web::test]
async fn a_job_is_followed_from_the_queue_to_its_answer() {
    let (house, queue) = house();
    let body = r#"{"input":{"b" : 1e400, "a":[1,2]},"policy":{"ttl":1000}}"#;
    let ticket = house.ask(Method::POST, "/v2/any-name/run", body).await.json();
    let id = ticket["id"].as_str().unwrap();
    assert_eq!(ticket["status"], "IN_QUEUE");
    let status = format!("/v2/other/status/{id}");
    insta::assert_snapshot!(shown(&house, Method::GET, &status, id).await, @r#"200 {"id":"<id>","status":"IN_QUEUE"}"#);
    let job = take(&queue).await;
    assert_eq!(job.input.text(), Some(r#"{"b" : 1e400, "a":[1,2]}"#), "passed on as it was written");
    queue.update(&job.id, &Update { output: Secret::from(r#"{"seq":0}"#.to_owned()) }).await.unwrap();
    queue.update(&job.id, &Update { output: Secret::from(r#"{"seq":1}"#.to_owned()) }).await.unwrap();
    insta::assert_snapshot!(shown(&house, Method::POST, &status, id).await, @r#"200 {"id":"<id>","status":"IN_PROGRESS","delayTime":0,"output":{"seq":1}}"#);
    let stream = format!("/v2/e/stream/{id}");
    insta::assert_snapshot!(shown(&house, Method::GET, &stream, id).await, @r#"200 {"status":"IN_PROGRESS","stream":[{"output":{"seq":0}},{"output":{"seq":1}}]}"#);
    let raw = r#"{"x" :  0.10}"#.to_owned();
    queue.settle(&job.id, &Answer { output: Some(raw.into()), error: None }, false).await.unwrap();
    insta::assert_snapshot!(shown(&house, Method::GET, &status, id).await, @r#"200 {"id":"<id>","status":"COMPLETED","delayTime":0,"executionTime":0,"output":{"x" :  0.10}}"#);
    let sync = format!("/v2/e/status-sync/{id}?wait=1000");
    insta::assert_snapshot!(shown(&house, Method::POST, &sync, id).await, @r#"200 {"id":"<id>","status":"COMPLETED","delayTime":0,"executionTime":0,"output":{"x" :  0.10}}"#);
    insta::assert_snapshot!(shown(&house, Method::GET, &stream, id).await, @r#"200 {"status":"COMPLETED","stream":[]}"#);
}

#[actix_web::test]
async fn runsync_waits_for_the_answer_or_to_the_end_of_its_wait() {
    let (house, queue) = house();
    let settle = async {
        let job = take(&queue).await;
        queue.settle(&job.id, &Answer::failed("execution_failed: \"x\""), false).await.unwrap();
    };
    let (answer, ()) = tokio::join!(house.ask(Method::POST, "/v2/e/runsync", r#"{"input":{}}"#), settle);
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("sync-"));
    assert_eq!((answer.status.as_u16(), &body["status"]), (200, &"FAILED".into()));
    assert_eq!((&body["error"], body.get("output")), (&"execution_failed: \"x\"".into(), None));
    tokio::time::pause();
    let answer = house.ask(Method::POST, "/v2/e/runsync?wait=1", r#"{"input":{}}"#).await;
    assert_eq!(answer.json()["status"], "IN_QUEUE");
}

#[actix_web::test]
async fn a_cancelled_job_says_so_and_an_unknown_one_is_a_404() {
    let (house, _queue) = house();
    let ticket = house.ask(Method::POST, "/v2/e/run", r#"{"input":{}}"#).await.json();
    let id = ticket["id"].as_str().unwrap();
    let cancel = format!("/v2/e/cancel/{id}");
    insta::assert_snapshot!(shown(&house, Method::POST, &cancel, id).await, @r#"200 {"id":"<id>","status":"CANCELLED"}"#);
    for (method, path) in [
        (Method::GET, "/v2/e/status/nothing"),
        (Method::GET, "/v2/e/status-sync/nothing"),
        (Method::POST, "/v2/e/stream/nothing"),
        (Method::POST, "/v2/e/cancel/nothing"),
        (Method::GET, "/v2/e/status/a%2Fb"),
    ] {
        let refusal = house.ask(method, path, "").await.refusal();
        assert!(refusal.starts_with("404 not_found: there is no such job"), "{path}: {refusal}");
    }
    assert_eq!(house.ask(Method::GET, "/v2/e/retry/x", "").await.status.as_u16(), 404);
    assert_eq!(house.ask(Method::DELETE, "/v2/e/run", "").await.status.as_u16(), 405);
    assert_eq!(house.ask_with(Method::GET, "/v2/e/health", vec![], &[]).await.status.as_u16(), 401);
}

#[actix_web::test]
async fn what_is_wrong_with_a_job_is_said_at_the_door() {
    let (house, queue) = house();
    let mut refusals = Vec::new();
    for n in 1..=8 {
        refusals.push(house.ask(Method::POST, "/v2/e/run", &format!(r#"{{"input":{n}}}"#)).await.refusal());
    }
    for body in
        ["{}", r#"{"input":null}"#, "[", r#"{"input":{},"webhook":"https://x"}"#, r#"{"input":{},"s3Config":1}"#]
    {
        refusals.push(house.ask(Method::POST, "/v2/e/run", body).await.refusal());
    }
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    400 invalid_request: input must be an object
    400 invalid_request: missing encrypted fields
    400 invalid_ciphertext: invalid ciphertext
    403 encryption_required: encryption_required: set ENCRYPTION_REQUIRED=0 to allow plaintext for testing
    409 replayed: this request was received before, under another job id
    422 unknown_kid: unknown kid: this worker's current key is abababababababab
    422 invalid_workflow: Missing or invalid workflow: expected an API prompt mapping (id->node)
    503 no_key: this worker has no private key: set WORKER_PRIVATE_KEY_B64, or crypto.private_key_file (`cloister keygen` makes one)
    400 validation_error: input is required
    400 validation_error: input is required
    400 invalid_request: the body must be an object
    400 validation_error: webhooks are not sent from this queue: ask /status-sync instead
    400 invalid_request: s3Config must be an object of accessId, accessSecret, …
    "#);
    assert_eq!(queue.counts(&TenantName::operator()).in_queue, 0);
    let unknown = house.ask(Method::POST, "/v2/e/run", r#"{"input":6}"#).await;
    assert_eq!(unknown.json()["details"]["kid"], "abababababababab");
}

#[actix_web::test]
async fn bodies_and_the_queue_are_bounded() {
    let (house, _queue) = house();
    let large = |mib: usize| format!(r#"{{"input":"{}"}}"#, "a".repeat(mib << 20)).into_bytes();
    let sizes = [("run", 10, 413), ("run", 9, 200), ("runsync?wait=1", 20, 413)];
    for (route, mib, status) in sizes {
        let answer = house.ask_with(Method::POST, &format!("/v2/e/{route}"), large(mib), &[BEARER]).await;
        assert_eq!(answer.status.as_u16(), status, "{route} with {mib} MiB");
    }
    house.ask(Method::POST, "/v2/e/run", r#"{"input":{}}"#).await;
    let full = house.ask(Method::POST, "/v2/e/run", r#"{"input":{}}"#).await;
    assert_eq!(
        (full.refusal().as_str(), full.header("retry-after")),
        ("429 too_many_requests: the queue of jobs is full", Some("5"))
    );
    // It was not opened, and so can come again.
    let unopened = house.ask(Method::POST, "/v2/e/run", r#"{"input":5}"#).await;
    assert_eq!(unopened.status.as_u16(), 429);
}

#[actix_web::test]
async fn health_has_all_eleven_counters_and_a_host_without_a_queue_says_so() {
    let (house, queue) = house();
    house.ask(Method::POST, "/v2/e/run", r#"{"input":{}}"#).await;
    take(&queue).await;
    house.ask(Method::POST, "/v2/e/run", r#"{"input":{}}"#).await;
    let answer = house.ask(Method::GET, "/v2/e/health", "").await;
    insta::assert_snapshot!(answer.text, @r#"{"jobs":{"completed":0,"failed":0,"inProgress":1,"inQueue":1,"retried":0},"workers":{"idle":1,"initializing":0,"ready":3,"running":2,"throttled":0,"unhealthy":0}}"#);
    let refusal = House::plain().ask(Method::GET, "/v2/e/health", "").await.refusal();
    assert_eq!(refusal, "503 no_queue: this host takes no jobs over HTTP");
}

#[actix_web::test]
async fn a_poll_of_a_job_is_logged_for_those_who_look_closely_only() {
    let (house, queue) = house();
    let id = JobId::local(Uuid::new_v4());
    queue
        .submit(Job {
            id: id.clone(),
            tenant: TenantName::operator(),
            input: Secret::from("{}".to_owned()),
            bucket: None,
        })
        .unwrap();
    let path = format!("/v2/any/status/{id}");
    for (method, path) in [(Method::GET, path.as_str()), (Method::POST, &path), (Method::GET, "/v2/any/status/x")] {
        house.ask(method, path, "").await;
    }
    let log = house.log.text();
    let level = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["level"].to_string();
    assert_eq!(log.lines().map(level).collect::<Vec<_>>(), ["\"DEBG\"", "\"INFO\"", "\"INFO\""], "{log}");
    assert!(log.lines().all(|line| line.contains(crate::api::jobs::STATUS)), "{log}");
}
