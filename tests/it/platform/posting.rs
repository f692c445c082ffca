//! Results on their way to the platform: each arrives, once, whatever the line does.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gpu::{Gpu, workflow};
use crate::support::platform::{Call, Options, Reply, State, job::Status};

const PING: Duration = Duration::from_millis(200);

async fn pinging() -> Gpu {
    Gpu::double().on(Options { ping_interval: PING, ..Options::default() }).start().await
}

fn submit(gpu: &Gpu) -> String {
    gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input)
}

#[tokio::test]
async fn a_result_is_posted_until_it_is_taken_and_named_in_the_heartbeats_until_then() {
    let gpu = pinging().await;
    let faults = [
        ("a reset before the body", Reply::ResetBeforeBody),
        ("a reset after the body", Reply::ResetAfterBody { kept: false }),
        ("500", Reply::status(500)),
        ("502", Reply::raw(502, "text/html", "<html>")),
        ("503", Reply::status(503)),
        ("429", Reply::retry_after(429, 2)),
        ("408", Reply::status(408)),
    ];
    for (what, fault) in faults {
        let before = gpu.platform().look(|state| state.calls(Call::Done).count());
        gpu.platform().next(Call::Done, fault.clone());
        gpu.platform().next(Call::Done, fault);
        let job = gpu.platform().settled(&submit(&gpu)).await;
        assert_eq!((job.status, job.finals.len()), (Status::Completed, 1), "{what}: {:?}", job.error);
        let posts = gpu.platform().look(|state| {
            let posts = state.calls(Call::Done).skip(before);
            posts.map(|post| (post.arrived, post.body.clone())).collect::<Vec<_>>()
        });
        assert_eq!(posts.len(), 3, "{what}");
        let bodies: Vec<_> = posts.iter().map(|(_, body)| body).filter(|body| !body.is_empty()).collect();
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{what}: the same result each time");
        // A request that is cut off before it is all written goes out anew at once, by HTTP's own rules.
        let took = posts[2].0 - posts[0].0;
        let is_paced = took > Duration::from_millis(500) || what == "a reset before the body";
        assert!(is_paced, "{what}: three posts in {took:?}");
    }
    gpu.platform().look(|state| {
        state.assert_settled_once();
        state.assert_heartbeats(PING, Duration::from_millis(700));
    });
    let (_, picture) = gpu.daemon.health("/healthz").await.unwrap();
    assert!(!picture.to_string().contains("were not taken"), "{picture}");
}

#[tokio::test]
async fn a_post_that_hangs_is_given_up_in_half_a_minute_and_repeated() {
    let gpu = pinging().await;
    gpu.platform().next(Call::Done, Reply::Hang);
    let job = gpu.platform().settled(&submit(&gpu)).await;
    assert_eq!((job.status, job.finals.len()), (Status::Completed, 1), "{:?}", job.error);
    gpu.platform().look(|state| state.assert_heartbeats(PING, Duration::from_millis(700)));
}

#[tokio::test]
async fn a_result_that_is_kept_and_then_cut_off_is_sent_again_the_same() {
    let gpu = pinging().await;
    gpu.platform().next(Call::Done, Reply::ResetAfterBody { kept: true });
    let id = submit(&gpu);
    gpu.platform().until("the second post", |state| (state.jobs.get(&id)?.finals.len() == 2).then_some(())).await;
    gpu.platform().look(State::assert_settled_once);
    gpu.logged("job.settled").await;
}

#[tokio::test]
async fn a_listener_that_is_gone_when_the_result_is_ready_gets_it_when_it_is_back() {
    let gpu = pinging().await;
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::steps(10, 0.05)).input);
    gpu.platform().arrived(Call::Progress, 1).await;
    gpu.platform().refuse().await;
    gpu.logged_times("job.post_failed", 2).await;
    gpu.platform().accept().await;
    let job = gpu.platform().settled(&id).await;
    assert_eq!((job.status, job.finals.len(), job.deliveries.len()), (Status::Completed, 1, 1));
}

#[tokio::test]
async fn a_result_that_is_refused_is_replaced_once_by_a_small_error() {
    let gpu = pinging().await;
    for status in [400, 413] {
        let before = gpu.platform().look(|state| state.calls(Call::Done).count());
        gpu.platform().next(Call::Done, Reply::status(status));
        let job = gpu.platform().settled(&submit(&gpu)).await;
        let error = job.error.as_ref().and_then(Value::as_str).unwrap_or_default();
        assert!(error.starts_with("result_too_large: "), "{status}: {error}");
        assert_eq!((job.status, job.finals.len()), (Status::Failed, 1));
        assert!(job.finals[0].body.to_string().len() < 500);
        assert_eq!(gpu.platform().look(|state| state.calls(Call::Done).count()) - before, 2);
    }
}

#[tokio::test]
async fn a_result_that_nobody_wants_is_given_up_aloud_and_the_next_job_is_served() {
    let gpu = pinging().await;
    for (status, posts) in [(400, 2), (401, 1), (404, 1)] {
        let before = gpu.platform().look(|state| state.calls(Call::Done).count());
        gpu.platform().always(Call::Done, Reply::status(status));
        let id = submit(&gpu);
        gpu.logged_times("job.lost", usize::from(before > 0) * gpu.log_of("job.lost").len() + 1).await;
        assert!(gpu.log_of("job.lost").last().unwrap()["requestId"] == json!(id));
        assert_eq!(gpu.platform().look(|state| state.calls(Call::Done).count()) - before, posts, "{status}");
        gpu.is_unready_for("were not taken by runpod").await;
        gpu.platform().forgive(Call::Done);
        assert_eq!(gpu.platform().settled(&submit(&gpu)).await.status, Status::Completed);
        gpu.daemon.wait_ready().await;
    }
}

#[tokio::test]
async fn a_result_over_the_limit_is_a_small_error_and_not_a_post_that_vanishes() {
    let gpu = Gpu::double().on_platform().set("runpod.result_kib", "100").start().await;
    let request = gpu.keys.workflow(&workflow::file_of(200_000));
    let job = gpu.platform().settled(&gpu.platform().submit(request.input)).await;
    let error = job.error.as_ref().and_then(Value::as_str).unwrap_or_default();
    assert!(error.starts_with("result_too_large: ") && error.contains("BUCKET_ENDPOINT_URL"), "{error}");
    let sync = gpu.keys.workflow(&workflow::file_of(200_000));
    let id = gpu.platform().submit_whole(json!({"id": "sync-1-u1", "input": sync.input}));
    let job = gpu.platform().settled(&id).await;
    let reply = sync.reply(&job.output.unwrap_or_else(|| panic!("{:?}", job.error)), &id);
    assert!(reply["outputs"][0]["data"].as_str().unwrap().len() > 200_000, "the larger limit of /runsync holds");
}

#[tokio::test]
async fn progress_is_sealed_in_order_and_strictly_before_the_result() {
    let options = Options { ping_interval: PING, ..Options::default() };
    let gpu = Gpu::double().on(options).set("jobs.progress_every", "10 ms").start().await;
    gpu.platform().always(Call::Progress, Reply::Slow(Duration::from_millis(150)));
    let request = gpu.keys.workflow(&workflow::steps(30, 0.02));
    let id = gpu.platform().submit(request.input.clone());
    let job = gpu.platform().settled(&id).await;
    assert!(job.progress.len() >= 3, "{} updates", job.progress.len());
    let mut before = None;
    for (_, update) in &job.progress {
        let opened = request.open(update);
        assert_eq!((&opened["type"], &opened["id"]), (&json!("progress"), &json!(request.id)));
        let at = Some(opened["seq"].as_u64().unwrap());
        assert!(at > before, "{before:?}, then {at:?}");
        before = at;
    }
    gpu.platform().next(Call::Progress, Reply::ResetAfterBody { kept: false });
    gpu.platform().next(Call::Progress, Reply::status(500));
    let second = gpu.platform().submit(gpu.keys.workflow(&workflow::steps(10, 0.02)).input);
    assert_eq!(gpu.platform().settled(&second).await.status, Status::Completed);
    gpu.platform().look(|state| {
        state.assert_progress_before_done();
        state.assert_settled_once();
    });
}
