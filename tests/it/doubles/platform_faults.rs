//! The platform double's own mischief, and that its checks can fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http;
use crate::support::platform::{Call, Options, Platform, Reply, State, job::Status};

const SOON: Duration = Duration::from_millis(30);

/// A worker of one's own: each call by hand.
struct Hand<'a> {
    platform: &'a Platform,
    http: reqwest::Client,
}

impl<'a> Hand<'a> {
    fn of(platform: &'a Platform) -> Self {
        let http = http().timeout(Duration::from_secs(5)).build().unwrap();
        Self { platform, http }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = self.platform.client_url(path);
        self.http.request(method, url).header("Authorization", self.platform.options().api_key.clone())
    }

    async fn take(&self) -> Option<Value> {
        let answer = self.request("GET", "job-take/w1?gpu=x&job_in_progress=0").send().await.unwrap();
        answer.json().await.ok()
    }

    async fn batch(&self, size: usize) -> Vec<Value> {
        let path = format!("job-take-batch/w1?gpu=x&batch_size={size}&job_in_progress=0");
        self.request("GET", &path).send().await.unwrap().json().await.unwrap()
    }

    async fn done(&self, id: &str, body: &Value) -> Result<u16, reqwest::Error> {
        let path = format!("job-done/w1/{id}?gpu=x&isStream=false");
        Ok(self.request("POST", &path).body(body.to_string()).send().await?.status().as_u16())
    }

    async fn ping(&self, query: &str) {
        self.request("GET", &format!("ping/w1?{query}")).send().await.unwrap();
    }
}

fn with(options: Options) -> Platform {
    Platform::start_with(Options { hold: SOON, ..options })
}

fn fails(platform: &Platform, check: impl Fn(&State)) -> bool {
    platform.look(|state| catch_unwind(AssertUnwindSafe(|| check(state))).is_err())
}

#[tokio::test]
async fn a_refused_port_opens_again() {
    let platform = with(Options::default());
    let hand = Hand::of(&platform);
    platform.refuse().await;
    assert!(hand.done("x", &json!({})).await.is_err_and(|error| error.is_connect()));
    platform.accept().await;
    assert!(hand.take().await.is_none());
}

#[tokio::test]
async fn resets_keep_or_lose_a_result_and_hangs_end_with_the_caller() {
    let platform = with(Options::default());
    let hand = Hand::of(&platform);
    let id = platform.submit(json!({}));
    hand.take().await.unwrap();
    let output = json!({"output": 1});

    platform.next(Call::Done, Reply::ResetBeforeBody);
    platform.next(Call::Done, Reply::ResetAfterBody { kept: false });
    for _ in 0..2 {
        assert!(hand.done(&id, &output).await.is_err());
        assert_eq!(platform.look(|state| state.jobs[&id].finals.len()), 0);
    }
    platform.next(Call::Done, Reply::ResetAfterBody { kept: true });
    assert!(hand.done(&id, &output).await.is_err());
    assert_eq!(platform.settled(&id).await.output, Some(json!(1)));

    platform.next(Call::Ping, Reply::Hang);
    let ping = hand.request("GET", "ping/w1").timeout(SOON).send().await;
    assert!(ping.is_err_and(|error| error.is_timeout()));
    platform
        .until("the caller's leave", |state| state.calls(Call::Ping).next().filter(|ping| ping.abandoned).map(drop))
        .await;
}

#[tokio::test]
async fn a_silent_workers_job_is_handed_out_again() {
    let platform = with(Options { redeliver_after: Some(Duration::from_millis(200)), ..Options::default() });
    let hand = Hand::of(&platform);
    let id = platform.submit(json!({}));
    hand.take().await.unwrap();
    platform.until("the redelivery", |state| (state.retried == 1).then_some(())).await;
    assert_eq!(hand.take().await.unwrap()["id"], json!(id));
    assert_eq!(platform.look(|state| state.jobs[&id].deliveries.len()), 2);
}

#[tokio::test]
async fn duplicates_overfull_batches_and_results_that_are_too_big() {
    let platform = with(Options { overfill: 1, result_limit: 100, ..Options::default() });
    let hand = Hand::of(&platform);
    let id = platform.submit(json!({}));
    platform.hand_out_again(&id);
    platform.submit(json!({}));
    let batch = hand.batch(2).await;
    assert_eq!((batch.len(), &batch[0]), (3, &batch[1]));

    assert_eq!(hand.done(&id, &json!({"output": "x".repeat(200)})).await.unwrap(), 400);
    assert_eq!(
        platform.look(|state| (state.jobs[&id].status, state.jobs[&id].output.clone())),
        (Status::Completed, None)
    );
    assert_eq!(hand.done(&id, &json!({"error": "too big"})).await.unwrap(), 200);
    assert_eq!(platform.look(|state| state.jobs[&id].status), Status::Failed);
}

#[tokio::test]
async fn statuses_garbage_and_unhealthy_workers() {
    let platform = with(Options::default());
    let hand = Hand::of(&platform);
    let nothing = Reply::nothing_to_do();
    let count = nothing.len();
    for (_, reply) in nothing {
        platform.next(Call::Take, reply);
    }
    platform.next(Call::Take, Reply::retry_after(429, 7));
    for _ in 0..count {
        let _any = hand.request("GET", "job-take/w1?gpu=x").send().await;
    }
    let limited = hand.request("GET", "job-take/w1?gpu=x").send().await.unwrap();
    assert_eq!((limited.status().as_u16(), &limited.headers()["retry-after"]), (429, &"7".parse().unwrap()));

    hand.ping("status=unhealthy&check=comfyui&reason=three+starts+failed&runpod_version=1.12.0").await;
    let reported = ("comfyui".to_owned(), "three starts failed".to_owned());
    assert_eq!(platform.look(|state| state.unhealthy.clone()), [reported]);
}

#[tokio::test]
async fn the_checks_find_what_is_wrong() {
    let platform = with(Options::default());
    let hand = Hand::of(&platform);
    let id = platform.submit(json!({}));
    assert!(fails(&platform, State::assert_settled_once), "a lost job");
    hand.take().await.unwrap();
    hand.done(&id, &json!({"output": 1})).await.unwrap();
    platform.look(State::assert_settled_once);
    platform.look(State::assert_progress_before_done);

    hand.done(&id, &json!({"status": "IN_PROGRESS", "output": 0})).await.unwrap();
    assert!(fails(&platform, State::assert_progress_before_done), "a late update");
    hand.done(&id, &json!({"output": 2})).await.unwrap();
    assert!(fails(&platform, State::assert_settled_once), "two results");

    let named = platform.submit(json!({}));
    hand.take().await.unwrap();
    hand.ping(&format!("job_id={id}%2C{named}")).await;
    platform.look(|state| state.assert_heartbeats(Duration::from_secs(9), Duration::ZERO));
    hand.ping("runpod_version=1.12.0").await;
    hand.done(&named, &json!({"output": 3})).await.unwrap();
    let check = |state: &State| state.assert_heartbeats(Duration::from_secs(9), Duration::ZERO);
    assert!(fails(&platform, check), "a heartbeat without the job");

    platform.look(|state| state.assert_no_spin(Call::Take, 9));
    assert!(fails(&platform, |state| state.assert_no_spin(Call::Done, 1)), "a spin");
}
