//! How the double comes to harm.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

use crate::server::Server;
use crate::switches::{Children, Fault};

/// What is left of the worker thread after a fault.
#[derive(PartialEq)]
pub enum Worker {
    Lives,
    Dead,
}

/// What the real one takes at least from the answer to a prompt to its nodes: the answer goes out before the end.
const ON_THE_WAY: Duration = Duration::from_millis(20);

/// Lets a fault befall the process.
pub fn befall(server: &Server, fault: &Fault) -> Worker {
    std::thread::sleep(ON_THE_WAY);
    match fault {
        Fault::Exit(code) => std::process::exit(*code),
        Fault::Segv => die_by(Signal::SIGSEGV),
        Fault::Abort => std::process::abort(),
        Fault::Kill => die_by(Signal::SIGKILL),
        Fault::Stop => raise(Signal::SIGSTOP).expect("it stops"),
        Fault::Freeze(pause) => {
            server.freeze(*pause);
            std::thread::sleep(*pause);
        }
        Fault::Zombie => return Worker::Dead,
    }
    Worker::Lives
}

/// Raised twice: Rust's own handler of SIGSEGV only steps aside at the first.
fn die_by(signal: Signal) {
    for _ in 0..2 {
        raise(signal).expect("a signal to itself");
    }
}

/// Starts processes that only sleep, and that nobody here waits for.
#[allow(clippy::zombie_processes, reason = "left behind on purpose")]
pub fn spawn_children(children: &Children) {
    for _ in 0..children.count {
        let mut command = Command::new(if children.detached { "setsid" } else { "sleep" });
        if children.detached {
            command.args(["--fork", "sleep"]);
        }
        command.arg("3600").spawn().expect("a child that sleeps");
    }
}
