//! Runs that go wrong under the prompt, over the double: each ends, and says honestly how.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::super::collect::{collect, items};
use super::super::room::Room;
use super::support::{World, failure, job, new_prompt, run, through, workflow};
use crate::adapters::cgroup::HostCgroups;
use crate::domain::job::FailureCode;
use crate::ports::cgroup::Cgroups;
use crate::ports::comfy::RunEvent;

#[tokio::test]
async fn a_process_that_goes_under_a_job_is_told_with_its_end() {
    for (kind, end) in [("os_exit", "exit code 3"), ("segv", "signal 11 (SIGSEGV)"), ("abort", "signal 6 (SIGABRT)")] {
        let world = World::of_double(&[], |_| {});
        let instance = world.ready().await;
        let prompt = through("TestFail", json!({"kind": kind, "text": "", "amount": 3}));
        let report = run(&instance, &job(&prompt)).await;
        let (code, summary) = failure(&report);
        assert!(code == FailureCode::Crashed && summary.ends_with(end), "{summary}");
        let after = run(&instance, &job(&workflow("01"))).await;
        assert_ne!(failure(&after).0, FailureCode::Validation);
        world.end(&instance).await;
    }
}

#[tokio::test]
async fn a_dropped_socket_loses_neither_the_end_nor_an_output() {
    for switch in ["WS=drop:3", "WS=drop:8", "WS=silent:3"] {
        let world = World::of_double(&[switch, "HISTORY_DELAY_MS=50"], |_| {});
        let instance = world.ready().await;
        for _ in 0..3 {
            let mut wanted = job(&workflow("03"));
            wanted.wants.history = true;
            let report = run(&instance, &wanted).await;
            assert!(report.failure.is_none(), "{switch}: {:?}", failure(&report));
            assert_eq!(report.outputs.len(), 2, "{switch}");
            assert!(report.history.is_some(), "{switch}");
            instance.clean(report.prompt_id).await.expect("cleaned");
        }
        let fail = through("TestFail", json!({"kind": "raise", "text": "x", "amount": 1}));
        assert_eq!(failure(&run(&instance, &job(&fail)).await).0, FailureCode::NodeError, "{switch}");
        world.end(&instance).await;
    }
}

#[tokio::test]
async fn pictures_that_went_with_the_socket_are_not_passed_over() {
    let world = World::of_double(&["WS=drop:5"], |_| {});
    let instance = world.ready().await;
    let report = run(&instance, &job(&workflow("05"))).await;
    let (code, summary) = failure(&report);
    assert!(code == FailureCode::Unsendable && summary.contains("WebSocket"), "{summary}");
    world.end(&instance).await;
}

#[tokio::test]
async fn a_slow_socket_and_a_late_history_only_delay() {
    let world = World::of_double(&["WS=slow:30", "HISTORY_DELAY_MS=200"], |_| {});
    let instance = world.ready().await;
    let mut wanted = job(&workflow("01"));
    wanted.wants.history = true;
    for _ in 0..2 {
        let report = run(&instance, &wanted).await;
        assert!(report.failure.is_none() && report.outputs.len() == 1 && report.history.is_some());
    }
    world.end(&instance).await;
}

#[tokio::test]
async fn a_standing_socket_that_broke_in_the_meantime_is_opened_anew() {
    // The second job finds its connection cut after the first one's messages.
    let world = World::of_double(&["WS=drop:14"], |_| {});
    let instance = world.ready().await;
    for _ in 0..6 {
        let report = run(&instance, &job(&workflow("01"))).await;
        assert!(report.failure.is_none() && report.outputs.len() == 1);
    }
    world.end(&instance).await;
}

#[test]
fn an_output_that_is_gone_is_an_honest_error_beside_what_is_there() {
    let ram = tempfile::tempdir_in("/dev/shm").expect("folder");
    let path = ram.path().join("room");
    let room = Room::make(path.clone(), 1 << 20).expect("room");
    std::fs::write(path.join("out/here.png"), "x").expect("file");
    let output =
        json!({"images": [{"filename": "gone.png"}, {"filename": "here.png", "subfolder": "", "type": "output"}]});
    let (outputs, failure) = collect(&room, items(&[("2".to_owned(), output)]), Vec::new(), 100);
    assert_eq!(outputs.iter().map(|output| output.filename.as_str()).collect::<Vec<_>>(), ["here.png"]);
    let failure = failure.expect("told");
    assert!(failure.code == FailureCode::Unsendable && failure.summary.contains("not there"), "{}", failure.summary);
    drop(room);
    super::super::room::remove(&path).expect("removed");
}

#[tokio::test]
async fn an_instance_that_grows_over_its_limit_is_told_as_out_of_memory() {
    let cgroups = Arc::new(HostCgroups::detect(None, &format!("test-{}", Uuid::new_v4().simple())).expect("cgroups"));
    let world = World::of_double_in(cgroups.clone(), |settings| settings.memory_mib = Some(64));
    let instance = world.ready().await;
    assert!(instance.memory().is_some_and(|bytes| bytes < 64 << 20));
    assert!(run(&instance, &job(&workflow("01"))).await.failure.is_none());
    let grow = json!({"1": {"class_type": "DoubleGrow", "inputs": {"mib": 500}}});
    let report = run(&instance, &job(&grow)).await;
    assert_eq!(failure(&report).0, FailureCode::OutOfMemory);
    assert!(instance.ended().await.out_of_memory);
    world.end(&instance).await;
    assert_eq!(cgroups.list().await.expect("list"), Vec::<String>::new());
    cgroups.dissolve();
}

#[tokio::test]
async fn a_frozen_process_and_a_zombie_are_followed_until_they_are_ended() {
    for switch in ["FAULT_AFTER=0:stop", "FAULT_AFTER=0:zombie"] {
        let world = World::of_double(&[switch], |_| {});
        let instance = world.ready().await;
        let (events, mut heard) = mpsc::channel(100);
        let prompt = new_prompt();
        let long = job(&workflow("01"));
        let ending = async {
            // One that stops at once may say nothing at all.
            let _ = tokio::time::timeout(Duration::from_millis(500), async {
                while !matches!(heard.recv().await, Some(RunEvent::Accepted)) {}
            })
            .await;
            instance.stop(Duration::ZERO).await.expect("stops");
        };
        let (report, ()) = tokio::join!(instance.run(&long, prompt, events), ending);
        assert_eq!(failure(&report).0, FailureCode::Crashed, "{switch}");
        world.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_full_ram_directory_is_told_and_the_next_job_is_served() {
    let world = World::of_double(&[], |settings| settings.ram_mib = 1);
    let instance = world.ready().await;
    let fill = json!({"1": {"class_type": "DoubleFill", "inputs": {"filename": "fill", "bytes": 4 << 20}}});
    let report = run(&instance, &job(&fill)).await;
    assert_eq!(failure(&report).0, FailureCode::NoSpace);
    instance.clean(report.prompt_id).await.expect("cleaned");
    assert!(run(&instance, &job(&workflow("01"))).await.failure.is_none());
    world.end(&instance).await;
}
