//! Keys that change while jobs run, requests that come a second time, and a daemon that is killed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::eventually;
use crate::support::gpu::sealed::Keys;
use crate::support::gpu::{Gpu, left, workflow};
use crate::support::platform::{Call, Options, State, job::Status};

fn write_key(path: &Path, keys: &Keys) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, keys.private_base64()).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn a_new_key_is_taken_up_by_sighup_while_jobs_run_and_the_former_one_still_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.key");
    let setup = Gpu::double().instances(2).on_platform().key_file(&path);
    let (former, current) = (setup.keys().clone(), Keys::generate());
    write_key(&path, &former);
    let gpu = setup.start().await;
    let running = former.workflow(&workflow::steps(40, 0.05));
    let running_id = gpu.platform().submit(running.input.clone());
    gpu.platform().arrived(Call::Progress, 1).await;

    write_key(&path, &current);
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_cloister"))
        .arg("reload")
        .arg("--socket")
        .arg(gpu.daemon.health_socket())
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    // A request to a key that nobody holds yet is told which one is current: that is the event to wait for.
    eventually("the new key", Duration::from_secs(20), async || {
        let id = gpu.platform().submit(current.workflow(&workflow::save_one()).input);
        let job = gpu.platform().settled(&id).await;
        if job.status == Status::Completed { Ok(()) } else { Err(format!("{:?}", job.error)) }
    })
    .await;
    for (keys, kid) in [(&former, former.kid()), (&current, current.kid())] {
        let request = keys.workflow(&workflow::save_one());
        let id = gpu.platform().submit(request.input.clone());
        let output = gpu.platform().settled(&id).await.output.expect("an output");
        assert_eq!(output["kid"], kid);
        request.reply(&output, &id);
        let without_kid = keys.v1(&workflow::save_one());
        let id = gpu.platform().submit(without_kid.input.clone());
        without_kid.reply(&gpu.platform().settled(&id).await.output.expect("an output"), &id);
    }
    let job = gpu.platform().settled(&running_id).await;
    running.reply(&job.output.expect("the job that ran meanwhile is answered with its own key"), &running_id);
    gpu.platform().look(State::assert_settled_once);
}

#[tokio::test]
async fn a_request_under_a_second_job_id_is_refused_also_after_kill_9() {
    let mut gpu = Gpu::double().on_platform().start().await;
    let requests = [gpu.keys.workflow(&workflow::save_one()), gpu.keys.v1(&workflow::save_one())];
    let mut ids = Vec::new();
    for request in &requests {
        let id = gpu.platform().submit(request.input.clone());
        assert_eq!(gpu.platform().settled(&id).await.status, Status::Completed);
        ids.push(id);
    }
    for round in ["while it runs", "after kill -9"] {
        for (request, id) in requests.iter().zip(&ids) {
            let job = gpu.platform().settled(&gpu.platform().submit(request.input.clone())).await;
            let error = job.error.as_ref().and_then(Value::as_str).unwrap_or_default();
            assert!(error.contains("received before, under another job id"), "{round}: {error} {:?}", job.status);
            // The platform's own retry keeps the id.
            let before = gpu.platform().look(|state| state.jobs[id].finals.len());
            gpu.platform().hand_out_again(id);
            let again = gpu.platform().until("the retry", |state| state.jobs[id].finals.get(before).cloned()).await;
            request.reply(&again.body["output"], id);
        }
        if round == "while it runs" {
            gpu = gpu.killed_and_started_again(|settings| settings).await;
        }
    }
}

#[tokio::test]
async fn after_kill_9_with_jobs_running_nothing_is_left_and_the_jobs_are_served() {
    let options = Options {
        ping_interval: Duration::from_millis(200),
        redeliver_after: Some(Duration::from_secs(2)),
        ..Options::default()
    };
    let gpu = Gpu::double().instances(2).switch("CHILDREN", "2:detached").on(options).start().await;
    let requests = [0; 2].map(|_| gpu.keys.workflow(&workflow::steps(30, 0.05)));
    let ids = gpu.platform().submit_all(requests.iter().map(|request| request.input.clone()).collect());
    gpu.platform().until("two that run", |state| (state.calls(Call::Progress).count() >= 2).then_some(())).await;
    let before = left::processes(&gpu.daemon.home);
    assert!(before.len() >= 6, "two ComfyUIs with two children each: {before:?}");

    let gpu = gpu.killed_and_started_again(|settings| settings).await;
    let after = left::processes(&gpu.daemon.home);
    assert!(before.is_disjoint(&after), "of the former life: {:?}", before.intersection(&after));
    assert_eq!((left::rooms(&gpu.daemon.home).len(), left::cgroups(&gpu.daemon.home).len()), (2, 2));
    for (id, request) in ids.iter().zip(&requests) {
        let job = gpu.platform().settled(id).await;
        request.reply(&job.output.unwrap_or_else(|| panic!("{:?}", job.error)), id);
    }
    gpu.platform().look(State::assert_settled_once);

    // A life with fewer instances, and one without any, finds what the earlier ones left, too.
    let gpu = gpu.killed_and_started_again(|settings| settings.set("comfy.instances", "1")).await;
    assert_eq!((left::rooms(&gpu.daemon.home).len(), left::cgroups(&gpu.daemon.home).len()), (1, 1));
    assert!(left::processes_of(&gpu.daemon.home, 1).is_empty());
    let without = |settings: crate::support::Settings| settings.env("COMFYUI_DIR", "").without_waiting();
    let gpu = gpu.killed_and_started_again(without).await;
    assert_eq!(left::beyond(&gpu.daemon.home, 0), Ok(()));
}
