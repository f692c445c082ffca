//! A double of ComfyUI: started, spoken to and killed exactly like the real one, but ready at once and broken on demand.
//!
//! It is started as the daemon starts ComfyUI: the program stands in for the Python interpreter, its first argument is
//! `main.py`, with or without its folder, then come ComfyUI's own flags (unknown ones are accepted). Without switches it behaves as ComfyUI 0.30/0.33
//! did in the recorded dialogues, and `tests/it/doubles.rs` holds it to them. It prints nothing by default.
//!
//! Nodes do most of the mischief, prompt by prompt: `TestSteps`, `TestBlock` and `TestFail` as in the recorded test
//! nodes, and, of the double's own, `DoubleSave` (any file, name and output key), `DoubleSpawn` (child processes),
//! `DoubleFill` (a file of so many bytes that nobody lists) and `DoubleGrow` (memory that stays).
//!
//! # Switches
//!
//! Read at start from the environment and from a file `comfy_double.env` in the folder of `main.py` (ComfyUI's own;
//! lines of `NAME=value`, which win), so that a test can change them between two starts. A prefix `COMFY_DOUBLE_` each:
//!
//! | name | value | what happens |
//! |---|---|---|
//! | `STARTS` | comma list of `ok`, `never`, `exit:CODE`, `delay:MS` | the n-th start takes the n-th entry, the last one stays; starts are counted in `comfy_double.starts` there |
//! | `FAULT_AFTER` | `N:exit:CODE`, `N:segv`, `N:abort`, `N:kill`, `N:freeze:MS`, `N:zombie`, `N:stop` | while job N+1 of this process runs: it exits, dies by that signal, answers no HTTP for so long, loses its worker, or stops itself (SIGSTOP) |
//! | `WS` | `drop:N`, `slow:MS`, `silent:N` | each socket is cut after N messages, gets each message so late, or hears nothing after N messages |
//! | `HTTP_500` | path prefix, or `N:prefix` | requests under that path (the first N of them) answer 500 |
//! | `HISTORY_DELAY_MS` | milliseconds | between `execution_success` and the entry in `/history` |
//! | `IGNORE_SIGTERM` | `1` | SIGTERM does nothing |
//! | `CHILDREN` | `N`, or `N:detached` | so many processes that sleep are started at start; detached ones leave the session, and their parent is gone |
//! | `FILL_OUTPUT` | bytes | each job leaves an unlisted file of that size in the output directory |
//! | `GROW_MIB` | mebibytes | each job leaves that much memory behind |
//! | `LOG` | `1` | prints what the real one prints: "got prompt", validation errors, tracebacks |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::large_futures,
    reason = "a test's own program: it ends where its assumption does"
)]

mod arguments;
mod catalogue;
mod executor;
mod faults;
mod files;
mod hub;
mod nodes;
mod order;
mod progress;
mod prompt;
mod queue;
mod routes;
mod server;
mod signals;
mod switches;
mod validate;

use std::sync::Arc;

use crate::arguments::Arguments;
use crate::server::Server;
use crate::switches::{Start, Switches};

fn main() {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let switches = Switches::read();
    arguments.make_directories();
    signals::on_main(&switches);
    faults::spawn_children(&switches.children);
    match switches.start {
        Start::Ok => {}
        Start::Never => loop {
            std::thread::park();
        },
        Start::Exit(code) => std::process::exit(code),
        Start::Delay(pause) => std::thread::sleep(pause),
    }
    let address = (arguments.listen.clone(), arguments.port);
    let listener = match std::net::TcpListener::bind(&address) {
        Ok(listener) => listener,
        Err(_) => std::process::exit(1),
    };
    let (server, wires) = Server::new(arguments, switches);
    let worker = Arc::clone(&server);
    std::thread::spawn(move || executor::work(&worker));
    routes::serve(server, wires, listener).expect("the HTTP server runs");
}
