//! Several jobs at once: batches, what is handed out twice, and one that is stopped among others.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::support::gpu::{Gpu, workflow};
use crate::support::platform::{Call, Options, Reply, State, job::Status};

/// A job that runs until it is told to stop, or for a minute.
fn long() -> Value {
    workflow::steps(1200, 0.05)
}

async fn busy(gpu: &Gpu, count: usize) {
    let what = format!("{count} jobs that run");
    let running = |state: &State| {
        let told: BTreeSet<_> = state.calls(Call::Progress).filter_map(|update| update.job()).collect();
        (told.len() >= count).then_some(())
    };
    gpu.platform().until(&what, running).await;
}

#[tokio::test]
async fn two_free_instances_ask_for_two_jobs_and_one_for_one() {
    let gpu = Gpu::double().instances(2).on_platform().start().await;
    let jobs = [0; 2].map(|_| gpu.keys.workflow(&workflow::steps(20, 0.05)).input);
    gpu.platform().arrived(Call::Take, 1).await;
    let ids = gpu.platform().submit_all(jobs.to_vec());
    for id in &ids {
        assert_eq!(gpu.platform().settled(id).await.status, Status::Completed);
    }
    let (sizes, plain) = gpu.platform().look(|state| {
        let is_batch = |take: &&_| crate::support::platform::Exchange::segments(take)[0] == "job-take-batch";
        let sizes: Vec<String> = state
            .calls(Call::Take)
            .filter(is_batch)
            .filter_map(|take| Some(take.parameter("batch_size")?.into()))
            .collect();
        let plain = state.calls(Call::Take).filter(|take| take.segments()[0] == "job-take");
        (sizes, plain.map(|take| take.parameter("job_in_progress").unwrap().to_owned()).collect::<Vec<_>>())
    });
    assert!(sizes.iter().any(|size| size == "2") && sizes.iter().all(|size| size == "2"), "{sizes:?}");
    assert!(plain.iter().any(|busy| busy == "1") || plain.is_empty(), "{plain:?}");
    gpu.platform().look(State::assert_settled_once);
}

#[tokio::test]
async fn more_jobs_than_asked_for_are_all_run_and_settled_once() {
    let gpu = Gpu::double().instances(2).on(Options { overfill: 7, ..Options::default() }).start().await;
    gpu.platform().arrived(Call::Take, 1).await;
    let jobs = (0..9).map(|_| gpu.keys.workflow(&workflow::steps(2, 0.05)).input).collect();
    let ids = gpu.platform().submit_all(jobs);
    for id in &ids {
        let job = gpu.platform().settled(id).await;
        assert_eq!((job.status, job.finals.len()), (Status::Completed, 1), "{:?}", job.error);
    }
    let handed: BTreeSet<_> =
        gpu.platform().look(|state| ids.iter().map(|id| state.jobs[id].deliveries[0].0).collect());
    assert!(handed.len() <= 3, "{} answers held nine jobs", handed.len());
}

#[tokio::test]
async fn an_id_that_comes_twice_while_it_is_held_runs_once() {
    let gpu = Gpu::double().instances(3).on_platform().start().await;
    gpu.platform().arrived(Call::Take, 1).await;
    let input = gpu.keys.workflow(&workflow::steps(30, 0.05)).input;
    let twice = serde_json::json!({"id": "in-one-batch-u1", "input": input});
    let ids = gpu.platform().submit_all_whole(vec![twice.clone(), twice]);
    busy(&gpu, 1).await;
    gpu.platform().hand_out_again(&ids[0]);
    gpu.logged_times("job.duplicate", 2).await;
    let job = gpu.platform().settled(&ids[0]).await;
    assert_eq!((job.status, job.finals.len(), job.deliveries.len()), (Status::Completed, 1, 3));
    gpu.logged("job.settled").await;
    let runs =
        |gpu: &Gpu| (gpu.log_of("job.taken").len(), gpu.platform().look(|state| state.calls(Call::Done).count()));
    assert_eq!(runs(&gpu), (1, 1));

    // After its end it is the platform's own retry, and runs anew.
    gpu.platform().hand_out_again(&ids[0]);
    gpu.logged_times("job.settled", 2).await;
    assert_eq!(runs(&gpu), (2, 2));
}

#[tokio::test]
async fn one_of_three_is_stopped_and_the_others_finish() {
    let gpu = Gpu::double().instances(3).on_platform().start().await;
    let short = || gpu.keys.workflow(&workflow::steps(60, 0.05)).input;
    gpu.platform().arrived(Call::Take, 1).await;
    let ids = gpu.platform().submit_all(vec![short(), gpu.keys.workflow(&long()).input, short()]);
    busy(&gpu, 3).await;
    gpu.platform().stop(&["unknown-u1", &ids[1]]);
    let stopped = gpu.logged("job.stopped").await;
    assert_eq!(stopped["requestId"], ids[1].as_str());
    let next = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    for id in [&next, &ids[0], &ids[2]] {
        assert_eq!(gpu.platform().settled(id).await.status, Status::Completed);
    }
    gpu.platform().look(|state| {
        let posts = state.calls(Call::Done).filter(|done| done.job() == Some(&ids[1])).count();
        assert_eq!((posts, state.jobs[&ids[1]].status), (0, Status::InProgress), "nothing is posted for it");
        let last = state.calls(Call::Ping).last().unwrap();
        assert!(!last.pinged().contains(&ids[1].as_str()), "it is not named any more: {}", last.target);
    });
    assert_eq!(gpu.log_of("comfy.ended").len(), 0, "no process had to be ended for it");
}

#[tokio::test]
async fn a_job_that_is_stopped_while_its_result_is_refused_is_not_posted_again() {
    let gpu = Gpu::double().on_platform().start().await;
    gpu.platform().always(Call::Done, Reply::status(503));
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    gpu.platform().arrived(Call::Done, 1).await;
    gpu.platform().stop(&[&id]);
    gpu.logged("job.stopped").await;
    let posts = gpu.platform().look(|state| state.calls(Call::Done).count());
    gpu.platform().forgive(Call::Done);
    let next = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    gpu.platform().settled(&next).await;
    assert_eq!(gpu.platform().look(|state| state.calls(Call::Done).count()), posts + 1);
    gpu.platform().look(|state| state.assert_no_spin(Call::Stop, 3));
    assert!(Duration::ZERO < gpu.platform().options().ping_interval);
}
