//! P1, P2 and P13: calls in sandboxes that stand ready, and the memory of these.

use std::time::{Duration, Instant};

use super::bare::{self, Bundle};
use super::calls::{SOURCE, bare_bundle, hot, timed, where_stand};
use super::daemon::Daemon;
use super::table::{Row, median, millis, ninetieth, ninety_ninth, worst};

/// Calls of a tier, with a bare run between each few of them.
const CALLS: usize = 100;
const CALLS_A_ROUND: usize = 10;
const STAND: usize = 8;
/// One that nobody calls is laid to rest within half a second, and stretches once when it is eleven seconds old.
const RESTS: Duration = Duration::from_millis(700);
const HAS_STRETCHED: Duration = Duration::from_secs(13);
const OLD_CALLS: usize = 6;
const FLAT_CALLS: usize = 25;

/// The rows that are asked for.
pub async fn rows(runtime: &'static str, picks: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if picks("P1") {
        rows.extend(warm_environment(runtime).await);
        rows.extend(flatness(runtime).await);
    }
    if picks("P2") {
        rows.push(warm_runtime(runtime).await);
    }
    if picks("P13") {
        rows.push(memory(runtime).await);
    }
    rows
}

/// Waits until so many stand ready, and rest.
async fn rest(daemon: &Daemon, count: u64) {
    daemon.stands(count).await;
    tokio::time::sleep(RESTS).await;
}

/// Calls of a tier and bare runs, in turns. `ready` prepares each call and says which environment it is for.
async fn in_turns(
    daemon: &Daemon,
    bundle: &Bundle,
    start: &str,
    mut ready: impl AsyncFnMut() -> String,
) -> (Vec<Duration>, Vec<Duration>, usize) {
    let (mut ours, mut floor, mut failed) = (Vec::new(), Vec::new(), 0);
    for round in 0..CALLS {
        let id = ready().await;
        match timed(daemon, &id, start).await {
            Some(span) => ours.push(span),
            None => failed += 1,
        }
        if round % CALLS_A_ROUND == 0 {
            rest(daemon, 1).await;
            let began = Instant::now();
            bundle.run(daemon, &id);
            floor.push(began.elapsed());
        }
    }
    (ours, floor, failed)
}

fn tier_row(name: &'static str, runtime: &str, measured: (Vec<Duration>, Vec<Duration>, usize)) -> Row {
    let (ours, floor, failed) = measured;
    let first = name == "P1";
    let (most, p99) = if first { (3, 15) } else { (8, u64::MAX) };
    let fast = median(&ours) <= Duration::from_millis(most) && ninety_ninth(&ours) <= Duration::from_millis(p99);
    let ahead = !first || median(&ours) * 80 <= median(&floor);
    Row {
        name,
        what: format!(
            "execute in a fresh sandbox, {}, {runtime}",
            if first { "warm-environment" } else { "warm-runtime" }
        ),
        measure: format!(
            "request sent → answer read, HTTP kept alive, one at a time, each in a sandbox that rested; p99 {:.1} ms; floor: a cold runsc run of the same handler",
            millis(ninety_ninth(&ours))
        ),
        ours: millis(median(&ours)),
        p90: Some(millis(ninetieth(&ours))),
        worst: millis(worst(&ours)),
        floor: Some(millis(median(&floor))),
        floor_is: "bare runsc run",
        unit: "ms",
        goal: if first { "p50 ≤ 3 ms, p99 ≤ 15 ms, ≥ 80 ×" } else { "p50 ≤ 8 ms" },
        met: fast && ahead,
        tried: CALLS,
        failed,
    }
}

/// P1: the module is imported, the sandbox frozen.
async fn warm_environment(runtime: &'static str) -> [Row; 2] {
    let daemon = where_stand(0, 1).await;
    let (bundle, _maker) = bare_bundle(runtime).await;
    let id = hot(&daemon, runtime).await;
    let ready = async || {
        rest(&daemon, 1).await;
        id.clone()
    };
    let row = tier_row("P1", runtime, in_turns(&daemon, &bundle, "warm-environment", ready).await);
    let (mut old, mut failed) = (Vec::new(), 0);
    for _ in 0..OLD_CALLS {
        daemon.stands(1).await;
        tokio::time::sleep(HAS_STRETCHED).await;
        match timed(&daemon, &id, "warm-environment").await {
            Some(span) => old.push(span),
            None => failed += 1,
        }
    }
    let old = Row {
        what: format!("the same after {} s, {runtime}", HAS_STRETCHED.as_secs()),
        measure: "as P1, each in a sandbox that stood for so long".to_owned(),
        ours: millis(median(&old)),
        p90: Some(millis(ninetieth(&old))),
        worst: millis(worst(&old)),
        goal: "p50 ≤ 3 ms",
        met: median(&old) <= Duration::from_millis(3),
        tried: OLD_CALLS,
        failed,
        ..row
    };
    [row, old]
}

/// P2: an environment that was never called, in a sandbox that stood for its runtime.
async fn warm_runtime(runtime: &'static str) -> Row {
    let daemon = where_stand(1, 0).await;
    let (bundle, _maker) = bare_bundle(runtime).await;
    let ready = async || {
        let id = daemon.environment(runtime, SOURCE).await;
        rest(&daemon, 2).await;
        id
    };
    tier_row("P2", runtime, in_turns(&daemon, &bundle, "warm-runtime", ready).await)
}

/// P1 again where there is much: 10,000 environments in the store, 100 MB of dependencies in the volume.
async fn flatness(runtime: &'static str) -> Vec<Row> {
    let many: usize = std::env::var("CLOISTER_BENCH_ENVIRONMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let daemon = where_stand(0, 1).await;
    let id = hot(&daemon, runtime).await;
    let large = daemon.environment(runtime, SOURCE).await;
    daemon.add_dependencies(&large, 100 << 20);
    for _ in 0..2 {
        assert!(daemon.execute(&large).await, "a first call failed");
    }
    let (mut few, mut heavy) = (Vec::new(), Vec::new());
    let mut failed = 0;
    for _ in 0..FLAT_CALLS {
        for (id, spans) in [(&id, &mut few), (&large, &mut heavy)] {
            rest(&daemon, 2).await;
            match timed(&daemon, id, "warm-environment").await {
                Some(span) => spans.push(span),
                None => failed += 1,
            }
        }
    }
    for _ in 0..many {
        daemon.environment(runtime, SOURCE).await;
    }
    let mut crowded = Vec::new();
    for _ in 0..FLAT_CALLS {
        assert!(daemon.execute(&id).await);
        rest(&daemon, 1).await;
        match timed(&daemon, &id, "warm-environment").await {
            Some(span) => crowded.push(span),
            None => failed += 1,
        }
    }
    let row = |what: String, ours: &[Duration]| Row {
        name: "P1",
        what,
        measure: "as P1; floor: P1 of the same daemon with two small environments".to_owned(),
        ours: millis(median(ours)),
        p90: Some(millis(ninetieth(ours))),
        worst: millis(worst(ours)),
        floor: Some(millis(median(&few))),
        floor_is: "two environments",
        unit: "ms",
        goal: "≤ 1.1 × the floor",
        met: median(ours).as_secs_f64() <= 1.1 * median(&few).as_secs_f64(),
        tried: FLAT_CALLS,
        failed,
    };
    vec![
        row(format!("flat: {many} environments stored, {runtime}"), &crowded),
        row(format!("flat: 100 MB of dependencies, {runtime}"), &heavy),
    ]
}

/// P13: what one of several that stand takes of the host's memory, by the proportional share of all its processes.
async fn memory(runtime: &'static str) -> Row {
    let daemon = where_stand(0, 1).await;
    let (bundle, _maker) = bare_bundle(runtime).await;
    let mut ids = Vec::new();
    for _ in 0..STAND {
        ids.push(daemon.environment(runtime, SOURCE).await);
    }
    let floor = bundle.resting(&daemon, &ids);
    // Twice each: that is when one stands for it.
    for id in ids.iter().chain(&ids) {
        assert!(daemon.execute(id).await, "a call failed");
    }
    let count = u64::try_from(STAND).unwrap();
    rest(&daemon, count).await;
    tokio::time::sleep(HAS_STRETCHED).await;
    assert_eq!(daemon.pool().await["standing"], count);
    let each = bare::shares(&daemon.run.to_string_lossy()) / bare::as_count(STAND);
    Row {
        name: "P13",
        what: format!("memory of a sandbox that stands, {runtime}"),
        measure: format!(
            "sum of PSS of all processes of {STAND} that stand, divided; floor: as many bare sandboxes that wait"
        ),
        ours: each,
        p90: None,
        worst: each,
        floor: Some(floor),
        floor_is: "bare sandboxes",
        unit: "MiB",
        goal: "≤ 1.11 × the floor",
        met: each <= floor / 0.9,
        tried: STAND,
        failed: 0,
    }
}
