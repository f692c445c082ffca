//! What a platform may answer to a poll for jobs: nothing of it is a storm, and none of it is the end.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gpu::{Gpu, workflow};
use crate::support::platform::{Call, Options, Reply, State, job::Status};

/// Polls within any second: four that brought nothing, and the few between them that brought a test's jobs.
const MOST_A_SECOND: usize = 10;

fn takes(state: &State) -> usize {
    state.calls(Call::Take).count()
}

async fn run_one(gpu: &Gpu) {
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    let job = gpu.platform().settled(&id).await;
    assert_eq!((job.status, job.finals.len()), (Status::Completed, 1), "{:?}", job.error);
}

#[tokio::test]
async fn after_each_answer_that_is_no_job_the_next_job_is_taken() {
    let gpu = Gpu::double().on_platform().start().await;
    for (what, reply) in Reply::nothing_to_do() {
        let before = gpu.platform().look(takes);
        gpu.platform().next(Call::Take, reply);
        // The first goes to the poll that is open, the second waits behind the odd answer.
        run_one(&gpu).await;
        run_one(&gpu).await;
        let after = gpu.platform().look(takes);
        assert!((2..=5).contains(&(after - before)), "{what}: {} polls for two jobs", after - before);
    }
    gpu.platform().look(State::assert_settled_once);
    gpu.logged_times("job.settled", 2 * Reply::nothing_to_do().len()).await;
}

#[tokio::test]
async fn a_platform_that_answers_nothing_else_is_not_stormed() {
    let gpu = Gpu::double().on_platform().start().await;
    let replies = [
        Reply::status(204),
        Reply::status(400),
        Reply::raw(200, "application/json", "null"),
        Reply::raw(200, "application/json", "{}"),
        Reply::raw(200, "application/json", r#"{"id": "half", "inp"#),
    ];
    for reply in replies {
        gpu.platform().always(Call::Take, reply);
        // The poll that is open is answered by this job.
        let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
        let before = gpu.platform().look(takes);
        gpu.platform().arrived(Call::Take, before + 8).await;
        gpu.platform().forgive(Call::Take);
        gpu.platform().settled(&id).await;
        run_one(&gpu).await;
    }
    gpu.platform().look(|state| state.assert_no_spin(Call::Take, MOST_A_SECOND));
}

#[tokio::test]
async fn a_platform_that_fails_for_long_opens_the_circuit_and_closes_it_when_it_is_back() {
    let gpu = Gpu::double().on_platform().start().await;
    gpu.platform().always(Call::Take, Reply::status(500));
    run_one_if_open(&gpu).await;
    let down = gpu.logged("source.down").await;
    assert!(down["reason"].as_str().unwrap().contains("500"), "{down}");
    gpu.is_unready_for("circuit open").await;
    gpu.platform().look(|state| state.assert_no_spin(Call::Take, 4));

    gpu.platform().forgive(Call::Take);
    run_one(&gpu).await;
    gpu.logged("source.up").await;
    gpu.daemon.wait_ready().await;
}

/// A poll that was open before the script changed is answered by this job, or the script has it.
async fn run_one_if_open(gpu: &Gpu) {
    gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    gpu.platform().arrived(Call::Take, 2).await;
}

#[tokio::test]
async fn retry_after_is_kept_to() {
    let gpu = Gpu::double().on_platform().start().await;
    gpu.platform().next(Call::Take, Reply::retry_after(429, 6));
    run_one(&gpu).await;
    run_one(&gpu).await;
    let pause = gpu.platform().look(|state| {
        let takes: Vec<_> = state.calls(Call::Take).collect();
        let at = takes.iter().position(|take| take.status() == Some(429)).expect("a 429");
        takes[at + 1].arrived - takes[at].arrived
    });
    assert!((Duration::from_secs(6)..Duration::from_secs(9)).contains(&pause), "{pause:?}");
}

#[tokio::test]
async fn a_listener_that_is_gone_and_comes_back_is_found_again() {
    let gpu = Gpu::double().on_platform().set("log.level", "debug").start().await;
    run_one(&gpu).await;
    gpu.platform().refuse().await;
    let began = Instant::now();
    gpu.logged_times("source.poll_failed", 4).await;
    assert!(began.elapsed() > Duration::from_secs(1), "four attempts in {:?}", began.elapsed());
    gpu.platform().accept().await;
    run_one(&gpu).await;
    gpu.platform().look(State::assert_settled_once);
}

#[tokio::test]
async fn a_platform_that_hangs_is_asked_again_when_the_polls_time_is_over() {
    let options = Options { ping_interval: Duration::from_millis(200), ..Options::default() };
    let gpu = Gpu::double().on(options).set("runpod.poll", "1 s").start().await;
    gpu.platform().always(Call::Take, Reply::Hang);
    let before = gpu.platform().look(takes);
    gpu.platform().arrived(Call::Take, before + 4).await;
    let pings = gpu.platform().look(|state| state.calls(Call::Ping).count());
    assert!(pings > 5, "{pings} heartbeats beside polls that hang");
    gpu.platform().forgive(Call::Take);
    run_one(&gpu).await;
    gpu.platform().look(|state| state.assert_no_spin(Call::Take, 4));
}

#[tokio::test]
async fn an_endpoint_without_job_stop_or_heartbeats_is_served_all_the_same() {
    let gpu = Gpu::double().on_platform().start().await;
    gpu.platform().always(Call::Stop, Reply::status(404));
    gpu.platform().always(Call::Ping, Reply::status(500));
    run_one(&gpu).await;
    gpu.platform().always(Call::Ping, Reply::Hang);
    gpu.platform().always(Call::Stop, Reply::json(200, &json!({"jobsToStop": "no list"})));
    run_one(&gpu).await;
    gpu.platform().look(|state| state.assert_no_spin(Call::Stop, 3));
}
