//! What the signals do that do not simply kill.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::server::Server;
use crate::switches::Switches;

/// Signals that work even while the interpreter's lock is held: a thread and a runtime of their own.
///
/// SIGABRT prints a stack of every thread before it kills, as with `--debug-hang`; SIGTERM is only caught when it shall be
/// ignored, else it kills at once and cleans nothing.
pub fn on_main(switches: &Switches) {
    let ignore_sigterm = switches.ignore_sigterm;
    let debug_hang = std::env::args().any(|word| word == "--debug-hang");
    if !ignore_sigterm && !debug_hang {
        return;
    }
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let _terminations = ignore_sigterm.then(|| signal(SignalKind::terminate()).expect("SIGTERM"));
            let mut aborts = signal(SignalKind::from_raw(libc::SIGABRT)).expect("SIGABRT");
            ready.send(()).expect("main waits");
            aborts.recv().await;
            if debug_hang {
                eprintln!("Fatal Python error: Aborted\n\nThread 0x00007f0000000000 (most recent call first):");
                eprintln!("  File \"/opt/test_nodes/__init__.py\", line 46 in run");
            }
            std::process::abort();
        });
    });
    is_ready.recv().expect("the signals are watched");
}

/// SIGINT stops cleanly, but only when the event loop gets to it.
pub async fn on_loop(server: Arc<Server>) {
    let mut interrupts = signal(SignalKind::interrupt()).expect("SIGINT");
    interrupts.recv().await;
    let _ = std::fs::remove_dir_all(&server.arguments.temp);
    std::process::exit(0);
}
