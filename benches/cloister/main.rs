//! `make bench`: every row against its floor, measured in the same run, in turns (A B A B), medians.
//!
//! A benchmark is not a timed test: nothing fails here for being slow, but a call that fails counts as failed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a benchmark ends where its assumption does, and it measures from outside the house"
)]

mod bare;
mod boxes;
mod calls;
mod daemon;
mod memory;
mod rival;
mod set_up;
mod standing;
mod start;
mod table;
mod worker;

#[allow(dead_code, unused_imports, unused_macros, reason = "each benchmark needs another part of it")]
#[path = "../../tests/it/support/mod.rs"]
mod support;

/// The daemon's boxes, as they are compiled into it, without their tests.
#[allow(dead_code, unused_imports, reason = "P12 opens and seals; it reads and shows no key")]
#[path = "../../src/sealed"]
mod sealed {
    mod agreement;
    mod boxes;
    mod epk;
    mod keys;
    mod stream;

    pub use boxes::{BoxKey, Nonce, TAG_BYTES};
    pub use epk::Epk;
    pub use keys::SecretKey;
}
#[allow(dead_code, unused_imports, reason = "the boxes need half of it")]
#[path = "../../src/domain"]
mod domain {
    pub mod base64;
    pub mod envelope {
        mod names;
        pub use names::{Kid, ReplayTag};
    }
}
#[allow(dead_code, unused_imports, reason = "the boxes need half of it")]
#[path = "../../src/sys"]
mod sys {
    pub mod salsa;
    pub mod secret;
    pub mod wipe;
}

use std::time::{Duration, Instant};

use daemon::Daemon;
use table::{Row, Table, median, millis};

/// The daemon's own: P12 compares what it does with its memory, too.
#[global_allocator]
static MEMORY: sys::wipe::Wiping = sys::wipe::Wiping;

const ROUNDS: usize = 15;
const STARTS: usize = 11;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Cargo passes `--bench`; a word beside it picks rows.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let picks = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let mut table = Table::default();
    calls::rows(picks).await.into_iter().for_each(|row| table.add(row));
    if picks("P7") {
        set_up::rows().await.into_iter().for_each(|row| table.add(row));
    }
    if picks("P8") || picks("P9") {
        worker::rows().await.into_iter().for_each(|row| table.add(row));
    }
    if picks("P10") {
        table.add(start::row().await);
        table.add(start_to_ready().await);
    }
    if picks("P11") {
        table.add(idle_memory().await);
        memory::rows().await.into_iter().for_each(|row| table.add(row));
    }
    if picks("P12") {
        boxes::rows().into_iter().for_each(|row| table.add(row));
    }
    table.print();
    table.write();
}

/// P10, second half: process start to a 200 from `/readyz`.
async fn start_to_ready() -> Row {
    let mut spans = Vec::new();
    let home = daemon::Home::new();
    for round in 0..=STARTS {
        let began = Instant::now();
        let daemon = Daemon::start_in(&home).await;
        let span = began.elapsed();
        // The first start also makes the store and looks at runsc for the first time.
        if round > 0 {
            spans.push(span);
        }
        daemon.stop();
    }
    Row {
        name: "P10",
        what: "process start → /readyz".to_owned(),
        measure: "spawn → first 200 on the health socket, asked every millisecond; state directory in use before"
            .to_owned(),
        ours: millis(median(&spans)),
        p90: None,
        worst: millis(spans.iter().copied().max().unwrap_or_default()),
        floor: None,
        floor_is: "",
        unit: "ms",
        goal: "≤ 150 ms",
        met: median(&spans) <= Duration::from_millis(150),
        tried: STARTS + 1,
        failed: 0,
    }
}

/// P11, idle: resident memory of a daemon that stands ready.
async fn idle_memory() -> Row {
    let daemon = Daemon::start().await;
    let started = daemon.resident_mib();
    let id = daemon.environment("bun", "export const handler = (event) => event.data").await;
    let mut failed = 0;
    for _ in 0..ROUNDS {
        failed += usize::from(!daemon.execute(&id).await);
    }
    daemon.stands(0).await;
    Row {
        name: "P11",
        what: "resident memory, idle".to_owned(),
        measure: "VmRSS when ready; worst: after a set-up and 15 calls".to_owned(),
        ours: started,
        p90: None,
        worst: daemon.resident_mib(),
        floor: None,
        floor_is: "",
        unit: "MiB",
        goal: "≤ 20 MiB",
        met: daemon.resident_mib() <= 20.0,
        tried: ROUNDS,
        failed,
    }
}
