//! A platform, and instances, on bad days.

use std::time::Duration;

use super::world::{Mode, Plan, World, job};
use crate::domain::instance::Standing;
use crate::messages::child::Drain;
use crate::messages::queue_ingress::GetIngress;
use crate::ports::job_source::{SourceError, Taken};

#[actix_rt::test]
async fn a_platform_that_answers_at_once_with_nothing_is_not_asked_in_a_spin() {
    tokio::time::pause();
    let world = World::build(Plan::default());
    *world.platform.always.lock().unwrap() = Some(Ok(()));
    world.gpus[0].is_ready();
    world.pass(10_000).await;
    let takes = world.platform.takes();
    assert!((30..=44).contains(&takes), "{takes} polls in 10 s");
}

#[actix_rt::test]
async fn a_platform_that_fails_is_asked_ever_less_and_readiness_says_so_until_it_is_back() {
    tokio::time::pause();
    for error in [SourceError::Refused(401), SourceError::Unreachable("connection refused".into())] {
        let world = World::build(Plan::default());
        *world.platform.always.lock().unwrap() = Some(Err(error.clone()));
        world.gpus[0].is_ready();
        world.pass(60_000).await;
        let takes = world.platform.takes();
        assert!((5..=9).contains(&takes), "{takes} polls in a minute");
        let complaints = world.complaints().join("; ");
        assert!(complaints.starts_with(&format!("runpod: {error} (circuit ")), "{complaints}");
        *world.platform.always.lock().unwrap() = None;
        world.platform.hand_out(&[job("a", "plain")]);
        world.pass(100_000).await;
        assert_eq!(world.complaints(), Vec::<String>::new());
        assert!(world.platform.posts().iter().any(|line| line.starts_with("a done - ")));
    }
}

#[actix_rt::test]
async fn slow_down_means_five_seconds_or_as_long_as_it_says() {
    tokio::time::pause();
    for (retry_after, takes) in [(None, 2), (Some(Duration::from_secs(30)), 1)] {
        let world = World::ready(1).await;
        world.platform.answer(Err(SourceError::Throttled { retry_after }));
        world.pass(4_900).await;
        assert_eq!(world.platform.takes(), 1);
        world.pass(3_000).await;
        assert_eq!(world.platform.takes(), takes);
        world.pass(40_000).await;
        assert_eq!(world.platform.takes(), 2);
    }
}

#[actix_rt::test]
async fn a_result_outlives_resets_and_errors_of_the_platform() {
    tokio::time::pause();
    let world = World::ready(1).await;
    let reset = || SourceError::Unreachable("connection reset".into());
    world.platform.posts.lock().unwrap().extend([
        reset(),
        SourceError::Throttled { retry_after: Some(Duration::from_secs(20)) },
        SourceError::Unreachable("status 502".into()),
        reset(),
    ]);
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(3_000).await;
    assert_eq!(world.platform.held.lock().unwrap().len(), 1);
    world.pass(200_000).await;
    let done: Vec<String> = world.platform.answers();
    assert_eq!(done.len(), 5, "{done:?}");
    assert!(done[4].starts_with("a done - {\"status\":\"ok\""));
    assert_eq!(world.platform.held.lock().unwrap().len(), 0);
}

#[actix_rt::test]
async fn a_refused_body_is_replaced_once_by_a_small_plain_error() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.platform.posts.lock().unwrap().extend([SourceError::Rejected(400), SourceError::Rejected(400)]);
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(100_000).await;
    let done: Vec<String> = world.platform.answers();
    assert_eq!(done.len(), 2, "no loop: {done:?}");
    assert!(done[1].contains("result_too_large") && done[1].ends_with(" -"), "{done:?}");
    assert_eq!(world.complaints(), ["1 answers were not taken by runpod"]);
}

#[actix_rt::test]
async fn duplicates_run_once_and_garbage_is_no_job() {
    tokio::time::pause();
    let world = World::ready(2).await;
    let twice = [job("a", "plain"), job("a", "plain")];
    world.platform.answer(Ok(Taken { jobs: twice.to_vec(), malformed: 2, ..Taken::default() }));
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(3_000).await;
    let ran: Vec<String> = world.gpus.iter().flat_map(|gpu| gpu.ran()).collect();
    assert_eq!(ran, ["a"]);
    assert_eq!(world.platform.answers().len(), 1);
    assert_eq!(world.ingress.send(GetIngress).await.unwrap().duplicates, 2);
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(3_000).await;
    assert_eq!(world.platform.answers().len(), 2, "a retry by the platform");
}

#[actix_rt::test]
async fn jobs_are_asked_for_only_while_an_instance_is_ready() {
    tokio::time::pause();
    let world = World::build(Plan { instances: 2, ..Plan::default() });
    world.pass(2_000).await;
    assert_eq!(world.platform.takes(), 0);
    assert_eq!(world.complaints().len(), 2);
    world.gpus[0].is_ready();
    world.pass(1_500).await;
    assert_eq!((world.platform.takes(), world.complaints()), (1, Vec::new()));
    world.platform.late.lock().unwrap().push(job("late", "plain"));
    world.gpus[0].stands(Standing::Down { reason: "it loads".into() });
    world.pass(1_500).await;
    assert_eq!(world.platform.told().last().map(String::as_str), Some("end of poll"));
    assert_eq!(world.complaints()[0], "comfy-0: it loads");
    world.gpus[1].is_ready();
    world.pass(3_000).await;
    assert_eq!(world.gpus[1].ran(), ["late"], "what was handed out in that instant is run");
}

#[actix_rt::test]
async fn a_wait_for_an_instance_ends_with_its_reason() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.gpus[0].behaves(Mode::Busy);
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(100).await;
    world.gpus[0].stands(Standing::Down { reason: "it loads".into() });
    world.pass(61_000).await;
    let posts = world.platform.posts();
    let reason = "a done comfy_init_failed: no instance of ComfyUI was free within 60 s: comfy-0: it loads -";
    assert_eq!(posts, [reason]);
}

#[actix_rt::test]
async fn a_job_that_comfyui_never_took_is_given_once_more_and_then_told_why() {
    tokio::time::pause();
    for (times, answer) in
        [(1, "a done - "), (2, "a done comfy_init_failed: ComfyUI ended before it was given the job: signal 9 ")]
    {
        let world = World::ready(1).await;
        world.gpus[0].behaves(Mode::NeverTakes { times });
        world.platform.hand_out(&[job("a", "plain")]);
        world.pass(5_000).await;
        let answers = world.platform.answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers[0].starts_with(answer), "{answers:?}");
    }
}

#[actix_rt::test]
async fn an_instance_that_is_taken_by_another_is_given_the_job_again_later() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.gpus[0].behaves(Mode::Busy);
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(500).await;
    assert_eq!(world.gpus[0].ran(), Vec::<String>::new());
    world.gpus[0].is_ready();
    world.pass(2_000).await;
    assert_eq!(world.gpus[0].ran(), ["a"]);
    assert!(world.platform.posts().last().is_some_and(|line| line.starts_with("a done - ")));
}

#[actix_rt::test]
async fn a_drain_runs_what_was_handed_out_in_that_instant_and_then_leaves() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(100).await;
    world.platform.late.lock().unwrap().push(job("b", "plain"));
    world.ingress.send(Drain { hurry: false }).await.unwrap();
    world.pass(5_000).await;
    let done: Vec<String> = world.platform.answers();
    assert_eq!(done.len(), 2, "{done:?}");
    assert_eq!((world.complaints(), world.platform.takes()), (vec!["down: Requested".to_owned()], 1));
}

#[actix_rt::test]
async fn a_hurried_drain_interrupts_and_settles_with_an_error() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.gpus[0].behaves(Mode::Hold);
    world.platform.hand_out(&[job("a", "plain"), job("b", "plain")]);
    world.pass(100).await;
    world.ingress.send(Drain { hurry: false }).await.unwrap();
    world.pass(1_000).await;
    assert_eq!(world.platform.posts(), Vec::<String>::new());
    world.ingress.send(Drain { hurry: true }).await.unwrap();
    world.pass(5_000).await;
    let mut done: Vec<String> = world.platform.answers();
    done.sort();
    assert_eq!(
        done,
        [
            "a done execution_failed: interrupted: it was interrupted -",
            "b done execution_failed: interrupted: the worker is being stopped -",
        ]
    );
    assert_eq!(world.complaints(), ["down: Requested"]);
}

#[actix_rt::test]
async fn an_idle_drain_ends_at_once() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.ingress.send(Drain { hurry: false }).await.unwrap();
    world.pass(20).await;
    assert_eq!(world.complaints(), ["down: Requested"]);
}

#[actix_rt::test]
async fn a_host_on_which_nothing_starts_is_reported_and_then_given_up() {
    tokio::time::pause();
    let world = World::build(Plan { instances: 2, ..Plan::default() });
    for gpu in &world.gpus {
        gpu.stands(Standing::FailedStart { in_a_row: 3, reason: "exit code 1".into() });
    }
    world.pass(100).await;
    let reason = "comfy-0: start 3 in a row failed: exit code 1; comfy-1: start 3 in a row failed: exit code 1";
    assert_eq!(world.platform.told(), [format!("unhealthy comfyui_start: {reason}")]);
    assert_eq!(*world.others.lock().unwrap(), [format!("abandon: {reason}")]);
}

#[actix_rt::test]
async fn an_instance_that_is_lost_under_a_job_gives_it_back_once() {
    tokio::time::pause();
    let world = World::ready(2).await;
    world.gpus[0].behaves(Mode::Panic);
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(3_000).await;
    assert_eq!(world.gpus[1].ran(), ["a"]);
    assert!(world.platform.posts().last().is_some_and(|line| line.starts_with("a done - ")));
}
