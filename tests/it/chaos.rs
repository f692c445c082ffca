//! Ten thousand jobs while ComfyUI, its children and the platform are killed at random: each is settled once.
//!
//! `CLOISTER_TEST_JOBS` is the number of jobs, `CLOISTER_TEST_SEED` the seed of what goes wrong and when; a failure names
//! the seed. The order in which a loaded host gets to things is not in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::dice::{Dice, number};
use crate::support::gpu::sealed::Sealed;
use crate::support::gpu::{Gpu, left, sealed};
use crate::support::host::{Footprint, footprint};
use crate::support::platform::{Call, Reply, State, job::Status};

const JOBS: usize = 10_000;
const INSTANCES: usize = 6;
/// So many jobs without a settled one for so long are a standstill.
const STANDSTILL: Duration = Duration::from_secs(60);

#[derive(Default, Debug)]
struct Mischief {
    processes: usize,
    children: usize,
    results: usize,
    polls: usize,
    listeners: usize,
}

/// Does one thing that is not nice.
async fn strike(gpu: &Gpu, dice: &mut Dice, done: &mut Mischief) {
    let instance = dice.below(INSTANCES as u64) as usize;
    match dice.below(20) {
        0..=4 => {
            let Some(main) = left::main_process(&gpu.daemon.home, instance) else { return };
            // It may have ended by itself since.
            let _ = kill(Pid::from_raw(main), Signal::SIGKILL);
            done.processes += 1;
        }
        5..=7 => {
            let main = left::main_process(&gpu.daemon.home, instance);
            let children = left::processes_of(&gpu.daemon.home, instance).into_iter().filter(|pid| Some(*pid) != main);
            for child in children {
                let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
                done.children += 1;
            }
        }
        8..=17 => {
            let replies = [
                Reply::ResetBeforeBody,
                Reply::ResetAfterBody { kept: false },
                Reply::ResetAfterBody { kept: true },
                Reply::status(500),
                Reply::raw(502, "text/html", "<html>"),
                Reply::status(503),
                Reply::retry_after(429, 1),
            ];
            let reply = dice.one_of(&replies);
            // Not more than is used up: the last results would never get through.
            gpu.platform().forgive(Call::Done);
            for _ in 0..=dice.below(3) {
                gpu.platform().next(Call::Done, reply.clone());
                done.results += 1;
            }
        }
        18 => {
            let replies = Reply::nothing_to_do();
            gpu.platform().next(Call::Take, dice.one_of(&replies).1.clone());
            done.polls += 1;
        }
        _ => {
            gpu.platform().refuse().await;
            tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
            gpu.platform().accept().await;
            done.listeners += 1;
        }
    }
}

/// A request whose answer says which one it was.
fn request(gpu: &Gpu, number: usize) -> Sealed {
    let inputs = json!({
        "key": "files", "filename": "job.txt", "subfolder": "", "type": "output", "text": format!("job {number}"), "bytes": 0,
    });
    let workflow = json!({"1": {"class_type": "DoubleSave", "inputs": inputs}});
    gpu.keys.v2(&json!({"workflow": workflow, "reply": {"history": false, "progress": false}}))
}

fn settled(state: &State) -> usize {
    state.jobs.values().filter(|job| job.status.is_final()).count()
}

/// Strikes until all is settled; the footprint once a tenth of it was.
async fn until_all_is_settled(gpu: &Gpu, jobs: usize, dice: &mut Dice) -> (Mischief, Footprint) {
    let mut done = Mischief::default();
    let mut early = None;
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let count = gpu.platform().look(settled);
        if count > last {
            (last, since) = (count, Instant::now());
        }
        assert!(
            since.elapsed() < STANDSTILL,
            "{count} of {jobs} and no more\n{}\n{}",
            gpu.platform().look(State::summary),
            gpu.daemon.log_text()
        );
        if count >= jobs / 10 && early.is_none() {
            early = Some(footprint(gpu.daemon.pid()));
        }
        if count == jobs {
            return (done, early.expect("a footprint"));
        }
        if count < jobs - jobs / 20 {
            strike(gpu, dice, &mut done).await;
        } else {
            gpu.platform().forgive(Call::Done);
        }
        tokio::time::sleep(Duration::from_millis(100 + dice.below(300))).await;
    }
}

/// What each request came to: its own file, or an honest failure.
fn outcomes(gpu: &Gpu, requests: &BTreeMap<String, (usize, Sealed)>) -> BTreeMap<String, usize> {
    let jobs = gpu.platform().look(|state| state.jobs.clone());
    let mut outcomes = BTreeMap::new();
    for (id, (number, request)) in requests {
        let job = &jobs[id];
        let reply = job.output.as_ref().map(|output| request.reply(output, id));
        let outcome = match (job.status, &job.error, reply) {
            (Status::Completed, None, Some(reply)) => {
                let text = sealed::bytes(&reply["outputs"][0]["data"]);
                assert_eq!(String::from_utf8_lossy(&text), format!("job {number}"), "another job's file: {id}");
                "ok".to_owned()
            }
            (Status::Failed, Some(Value::String(error)), Some(reply)) => {
                let code = reply["error"]["code"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
                // Twice in a row given to a ComfyUI that was just being killed.
                let public =
                    if code == "unavailable" { "comfy_init_failed: " } else { &format!("execution_failed: {code}: ") };
                assert!(error.starts_with(public), "{error}");
                code
            }
            other => panic!("{id}: {other:?}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    outcomes
}

#[tokio::test]
async fn each_of_ten_thousand_jobs_is_settled_once_whatever_is_killed() {
    let jobs = number("CLOISTER_TEST_JOBS", JOBS as u64) as usize;
    let mut dice = Dice::of_this_run();
    let setup = Gpu::double().instances(INSTANCES).switch("CHILDREN", "1:detached").on_platform();
    let gpu = setup
        .set("supervision.backoff_first", "10 ms")
        .set("supervision.backoff_max", "100 ms")
        .set("supervision.max_restarts", "1000")
        .set("supervision.window", "1 s")
        .set("runpod.max_failed_starts", "1000")
        .set("comfy.ram_mib", "16")
        .start()
        .await;
    let began = Instant::now();
    let requests: Vec<Sealed> = (0..jobs).map(|number| request(&gpu, number)).collect();
    let ids = gpu.platform().submit_all(requests.iter().map(|request| request.input.clone()).collect());
    let requests = ids.into_iter().zip(requests.into_iter().enumerate()).collect();

    let (mischief, early) = until_all_is_settled(&gpu, jobs, &mut dice).await;
    let took = began.elapsed();
    gpu.logged_times("job.settled", jobs).await;
    let outcomes = outcomes(&gpu, &requests);
    println!("{jobs} jobs in {took:?}: {outcomes:?}, under {mischief:?}");

    gpu.platform().look(|state| {
        state.assert_settled_once();
        state.assert_no_spin(Call::Ping, 3);
        let twice = state.jobs.values().find(|job| job.deliveries.len() != 1);
        assert!(twice.is_none(), "handed out again: {twice:?}");
    });
    let lines = ["job.taken", "job.settled", "job.lost", "job.duplicate"].map(|line| gpu.log_of(line).len());
    assert_eq!(lines, [jobs, jobs, 0, 0], "taken, settled, lost, duplicates");
    assert!(outcomes.get("ok").is_some_and(|ok| *ok * 100 >= jobs * 90), "{outcomes:?}");

    // Nothing of all this stays.
    let late = footprint(gpu.daemon.pid());
    assert!(
        late.descriptors <= early.descriptors + 16 && late.threads <= early.threads + 8,
        "{early:?}, then {late:?}"
    );
    assert!(late.resident_kib <= early.resident_kib + (48 << 10), "{early:?}, then {late:?}");
    crate::support::eventually("six instances and no more", Duration::from_secs(30), async || {
        match left::rooms(&gpu.daemon.home).len() {
            INSTANCES => Ok(()),
            rooms => Err(format!("{rooms} rooms")),
        }
    })
    .await;
}
