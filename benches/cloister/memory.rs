//! P11 for a GPU worker: resident memory when it stands ready, and what ten thousand jobs add.

use super::rival::{self, Comfy};
use super::support::gpu::Gpu;
use super::support::platform::{Call, Platform};
use super::table::Row;
use super::worker::run_many;

/// Shortened by `CLOISTER_BENCH_JOBS`.
const JOBS: usize = 10_000;
/// The first of them fill what is only filled once.
const WARM: usize = 100;

pub async fn rows() -> Vec<Row> {
    let jobs = std::env::var("CLOISTER_BENCH_JOBS").ok().and_then(|text| text.parse().ok()).unwrap_or(JOBS);
    let gpu = Gpu::double().on_platform().start().await;
    gpu.platform().arrived(Call::Take, 1).await;
    let idle = resident_mib(gpu.daemon.pid());
    let sdk = sdk_idle().await;
    let warm_failed = run_many(gpu.platform(), &gpu.keys, WARM.min(jobs)).await;
    let warm = resident_mib(gpu.daemon.pid());
    let failed = run_many(gpu.platform(), &gpu.keys, jobs).await;
    let after = resident_mib(gpu.daemon.pid());
    let row = |what: &str, measure: String, ours: f64| Row {
        name: "P11",
        what: what.to_owned(),
        measure,
        ours,
        p90: None,
        worst: after,
        floor: Some(sdk),
        floor_is: "RunPod SDK, idle",
        unit: "MiB",
        goal: "≤ 20 MiB",
        met: ours <= 20.0,
        tried: jobs + WARM,
        failed: failed + warm_failed,
    };
    let mut growth = row(
        "what 10,000 jobs add",
        format!("VmRSS after {jobs} sealed jobs ({after:.1} MiB) less that after the first {WARM} ({warm:.1} MiB)"),
        after - warm,
    );
    (growth.goal, growth.met, growth.floor, growth.floor_is) = ("≤ 2 MiB", after - warm <= 2.0, None, "");
    vec![row("resident memory of an idle GPU worker", "VmRSS when it waits for its first job".to_owned(), idle), growth]
}

async fn sdk_idle() -> f64 {
    let (platform, comfy) = (Platform::start(), Comfy::start().await);
    let worker = rival::sdk(&platform, comfy.port);
    platform.arrived(Call::Take, 1).await;
    resident_mib(i32::try_from(worker.child.id()).unwrap())
}

fn resident_mib(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
