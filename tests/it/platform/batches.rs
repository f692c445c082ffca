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

/// A platform that ends each idle poll soon, and whose worker asks for as many jobs as it has instances.
async fn asking_for(instances: usize, overfill: usize) -> Gpu {
    let options = Options { hold: Duration::from_millis(500), overfill, ..Options::default() };
    let gpu = Gpu::double().instances(instances).on(options).start().await;
    let size = instances.to_string();
    let asked = |state: &State| {
        let open = state.calls(Call::Take).last().filter(|take| take.answered.is_none())?;
        (open.parameter("batch_size") == Some(&size)).then_some(())
    };
    gpu.platform().until("a poll for all instances", asked).await;
    gpu
}

#[tokio::test]
async fn two_free_instances_ask_for_two_jobs_and_one_for_one() {
    let gpu = asking_for(2, 0).await;
    let jobs = [60, 3].map(|count| gpu.keys.workflow(&workflow::steps(count, 0.05)).input);
    let ids = gpu.platform().submit_all(jobs.to_vec());
    for id in &ids {
        assert_eq!(gpu.platform().settled(id).await.status, Status::Completed);
    }
    gpu.platform().look(|state| {
        let handed: Vec<_> = ids.iter().map(|id| state.jobs[id].deliveries[0].0).collect();
        let batch =
            state.calls(Call::Take).position(|take| take.answered.is_some_and(|(at, _)| at >= handed[0])).unwrap();
        let takes: Vec<_> = state.calls(Call::Take).collect();
        assert_eq!(
            (takes[batch].segments()[0], takes[batch].parameter("job_in_progress")),
            ("job-take-batch", Some("0"))
        );
        assert_eq!(handed[0], handed[1], "in one answer");
        let next = takes[batch + 1];
        assert_eq!((next.segments()[0], next.parameter("job_in_progress")), ("job-take", Some("1")), "{}", next.target);
        assert!(next.arrived > handed[1] && next.parameter("batch_size").is_none());
        state.assert_settled_once();
    });
}

#[tokio::test]
async fn more_jobs_than_asked_for_are_all_run_and_settled_once() {
    let gpu = asking_for(2, 7).await;
    let jobs = (0..9).map(|_| gpu.keys.workflow(&workflow::steps(2, 0.05)).input).collect();
    let ids = gpu.platform().submit_all(jobs);
    for id in &ids {
        let job = gpu.platform().settled(id).await;
        assert_eq!((job.status, job.finals.len()), (Status::Completed, 1), "{:?}", job.error);
    }
    let handed: BTreeSet<_> =
        gpu.platform().look(|state| ids.iter().map(|id| state.jobs[id].deliveries[0].0).collect());
    assert_eq!(handed.len(), 1, "one answer held all nine");
}

#[tokio::test]
async fn an_id_that_comes_twice_while_it_is_held_runs_once() {
    let gpu = asking_for(3, 0).await;
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
}
