//! P3 to P6: calls of handlers in sandboxes that are made for them, in bursts, steadily, and where they share one.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::bare::{self, Bundle};
use super::daemon::Daemon;
use super::standing;
use super::table::{Row, median, millis, ninetieth, worst};

pub const SOURCE: &str = "export const handler = (event) => event.data";
const RUNTIMES: [&str; 2] = ["deno", "bun"];
const BURST: usize = 100;
const STEADY: Duration = Duration::from_secs(20);
const STEADY_CALLERS: usize = 4;

/// The rows that are asked for.
pub async fn rows(picks: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for runtime in RUNTIMES {
        rows.extend(standing::rows(runtime, &picks).await);
        if picks("P3") {
            rows.push(cold(runtime).await);
        }
        if picks("P4") {
            rows.push(burst(runtime).await);
        }
        if picks("P5") {
            rows.push(steady(runtime).await);
        }
        if picks("P6") {
            rows.extend(reused(runtime).await);
        }
    }
    rows
}

/// A daemon on which this many stand for each runtime and for each environment.
pub async fn where_stand(runtimes: u64, environment: u64) -> Daemon {
    Daemon::start_with(&[
        ("CLOISTER__SANDBOX__STANDING__MEMORY_MIB", "4096".to_owned()),
        ("CLOISTER__SANDBOX__STANDING__RUNTIMES", runtimes.to_string()),
        ("CLOISTER__SANDBOX__STANDING__ENVIRONMENT", environment.to_string()),
        ("CLOISTER__SANDBOX__STANDING__COMPILERS", "0".to_owned()),
        ("CLOISTER__SANDBOX__STANDING__REUSES", "100000".to_owned()),
        ("CLOISTER__SANDBOX__QUEUE_WAIT", "10 min".to_owned()),
    ])
    .await
}

async fn nothing_stands() -> Daemon {
    Daemon::start_with(&[
        ("CLOISTER__SANDBOX__STANDING__ENABLED", "false".to_owned()),
        ("CLOISTER__SANDBOX__QUEUE_WAIT", "10 min".to_owned()),
    ])
    .await
}

/// The bundle of a cold call, from a daemon of its own, on which nothing else runs; its runners lie in that daemon's directories.
pub async fn bare_bundle(runtime: &str) -> (Bundle, Daemon) {
    let maker = nothing_stands().await;
    (bare::capture(&maker, runtime).await, maker)
}

/// An environment that was called often enough for one to stand for it.
pub async fn hot(daemon: &Daemon, runtime: &str) -> String {
    let id = daemon.environment(runtime, SOURCE).await;
    for _ in 0..2 {
        assert!(daemon.execute(&id).await, "a first call failed");
    }
    id
}

/// One call, timed from outside; None when it failed or did not start as it should.
pub async fn timed(daemon: &Daemon, id: &str, start: &str) -> Option<Duration> {
    let began = Instant::now();
    let answer = daemon.call(id).await;
    let span = began.elapsed();
    (answer["outcome"] == "ok" && answer["start"] == start).then_some(span)
}

/// P3: a cold call through HTTP beside a bare `runsc run` of the very bundle that the daemon made.
async fn cold(runtime: &'static str) -> Row {
    const ROUNDS: usize = 15;
    let daemon = nothing_stands().await;
    let id = daemon.environment(runtime, SOURCE).await;
    let (bundle, _maker) = bare_bundle(runtime).await;
    let (mut ours, mut floor, mut failed) = (Vec::new(), Vec::new(), 0);
    // The first pair fills the page cache.
    for round in 0..=ROUNDS {
        let span = timed(&daemon, &id, "cold").await;
        daemon.idle().await;
        let began = Instant::now();
        bundle.run(&daemon, &id);
        let bare = began.elapsed();
        if let Some(span) = span.filter(|_| round > 0) {
            ours.push(span);
            floor.push(bare);
        }
        failed += usize::from(span.is_none());
    }
    Row {
        name: "P3",
        what: format!("cold execute through HTTP, {runtime}"),
        measure: "request sent → answer read; floor: spawn of runsc → its exit; one at a time, page cache warm"
            .to_owned(),
        ours: millis(median(&ours)),
        p90: None,
        worst: millis(worst(&ours)),
        floor: Some(millis(median(&floor))),
        floor_is: "bare runsc run",
        unit: "ms",
        goal: "≤ 1.15 × the floor",
        met: median(&ours).as_secs_f64() <= 1.15 * median(&floor).as_secs_f64(),
        tried: ROUNDS + 1,
        failed,
    }
}

/// How long the whole machine works for one bare run, over its cores: the time that no scheduling can go below.
fn share_of_a_run(daemon: &Daemon, bundle: &Bundle, id: &str) -> Duration {
    const RUNS: u32 = 10;
    bundle.run(daemon, id);
    let before = machine_time();
    for _ in 0..RUNS {
        bundle.run(daemon, id);
    }
    let cores = u32::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1);
    (machine_time() - before) / RUNS / cores
}

/// The time that all cores of the machine have worked so far (proc_stat(5)).
fn machine_time() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<u64> =
        text.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    // user, nice, system, idle, iowait, irq, softirq
    let ticks: u64 = [0, 1, 2, 5, 6].iter().map(|at| fields[*at]).sum();
    Duration::from_millis(ticks * 10)
}

/// P4: a hundred calls at once, when what should stand does.
async fn burst(runtime: &'static str) -> Row {
    let daemon = where_stand(2, 8).await;
    let (bundle, _maker) = bare_bundle(runtime).await;
    let id = hot(&daemon, runtime).await;
    daemon.stands(5).await;
    let floor = share_of_a_run(&daemon, &bundle, &id) * u32::try_from(BURST).unwrap();
    let (mut ours, mut failed) = (Vec::new(), 0);
    for _ in 0..3 {
        daemon.stands(5).await;
        let began = Instant::now();
        let calls = (0..BURST).map(|_| daemon.call(&id));
        let answers: Vec<Value> = futures_util::future::join_all(calls).await;
        ours.push(began.elapsed());
        failed += answers.iter().filter(|answer| answer["outcome"] != "ok").count();
    }
    Row {
        name: "P4",
        what: format!("burst of {BURST} calls at once, {runtime}"),
        measure: "first request sent → last answer read, pool full before; floor: 100 × the machine's work for a bare run ÷ cores".to_owned(),
        ours: millis(median(&ours)),
        p90: None,
        worst: millis(worst(&ours)),
        floor: Some(millis(floor)),
        floor_is: "100 bare runs' work",
        unit: "ms",
        goal: "≤ 1.3 × the floor",
        met: median(&ours).as_secs_f64() <= 1.3 * floor.as_secs_f64(),
        tried: 3 * BURST,
        failed,
    }
}

/// P5: callers that ask again as soon as they are answered. The figure is the time for each call, so that less is better.
async fn steady(runtime: &'static str) -> Row {
    let daemon = where_stand(2, 8).await;
    let (bundle, _maker) = bare_bundle(runtime).await;
    let id = hot(&daemon, runtime).await;
    daemon.stands(5).await;
    let floor = share_of_a_run(&daemon, &bundle, &id);
    daemon.stands(5).await;
    let began = Instant::now();
    let callers = (0..STEADY_CALLERS).map(|_| async {
        let (mut served, mut failed) = (0_usize, 0_usize);
        while began.elapsed() < STEADY {
            let whole = daemon.execute(&id).await;
            served += usize::from(whole);
            failed += usize::from(!whole);
        }
        (served, failed)
    });
    let counts = futures_util::future::join_all(callers).await;
    let span = began.elapsed();
    let served: usize = counts.iter().map(|(served, _)| served).sum();
    let each = span / u32::try_from(served.max(1)).unwrap();
    Row {
        name: "P5",
        what: format!("steady calls, each in a fresh sandbox, {runtime}"),
        measure: format!(
            "{STEADY_CALLERS} callers for {} s: time for each call ({:.1} a second); floor: the machine's work for a bare run ÷ cores",
            STEADY.as_secs(),
            1.0 / each.as_secs_f64()
        ),
        ours: millis(each),
        p90: None,
        worst: millis(each),
        floor: Some(millis(floor)),
        floor_is: "a bare run's work",
        unit: "ms",
        goal: "≥ 85 % of the floor's rate",
        met: floor.as_secs_f64() >= 0.85 * each.as_secs_f64(),
        tried: served,
        failed: counts.iter().map(|(_, failed)| failed).sum(),
    }
}

/// P6: the calls of an environment that share a sandbox, beside the runner driven over its pipes. Each round measures all
/// three, in turns.
async fn reused(runtime: &'static str) -> [Row; 2] {
    const ROUNDS: usize = 5;
    const ALONE: usize = 200;
    const CALLERS: usize = 16;
    const EACH: usize = 25;
    let daemon = where_stand(0, 0).await;
    let (bundle, _maker) = bare_bundle(runtime).await;
    let id = daemon.sharing(runtime, SOURCE).await;
    assert!(daemon.execute(&id).await, "a first call failed");
    let (mut pipe, mut alone, mut crowd, mut failed) = (Vec::new(), Vec::new(), Vec::new(), [0, 0]);
    for _ in 0..ROUNDS {
        // The first also imports the module.
        pipe.extend(bundle.turns(&daemon, &id, ALONE).into_iter().skip(1));
        assert!(daemon.execute(&id).await, "a first call failed");
        for _ in 0..ALONE {
            match timed(&daemon, &id, "reused").await {
                Some(span) => alone.push(span),
                None => failed[0] += 1,
            }
        }
        let began = Instant::now();
        let callers = (0..CALLERS).map(|_| async {
            let mut failed = 0;
            for _ in 0..EACH {
                failed += usize::from(timed(&daemon, &id, "reused").await.is_none());
            }
            failed
        });
        failed[1] += futures_util::future::join_all(callers).await.iter().sum::<usize>();
        crowd.push(began.elapsed() / u32::try_from(CALLERS * EACH).unwrap());
    }
    let row = |what: &str, measure: &str, spans: &[Duration], goal, met, tried, failed| Row {
        name: "P6",
        what: format!("execute in a reused sandbox, {what}, {runtime}"),
        measure: measure.to_owned(),
        ours: millis(median(spans)),
        p90: Some(millis(ninetieth(spans))),
        worst: millis(worst(spans)),
        floor: Some(millis(median(&pipe))),
        floor_is: "the runner over its pipes",
        unit: "ms",
        goal,
        met,
        tried,
        failed,
    };
    let quick = median(&alone) <= Duration::from_millis(2);
    let dense = median(&pipe).as_secs_f64() >= 0.7 * median(&crowd).as_secs_f64();
    [
        row("one caller", "request sent → answer read", &alone, "p50 ≤ 2 ms", quick, ROUNDS * ALONE, failed[0]),
        row(
            "16 callers",
            "time of a round ÷ its calls; those that started otherwise count as failed",
            &crowd,
            "≥ 70 % of the floor's rate",
            dense,
            ROUNDS * CALLERS * EACH,
            failed[1],
        ),
    ]
}
