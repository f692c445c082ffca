//! The log: slog, to stderr, as lines for people on a terminal and as JSON elsewhere.
//!
//! Loggers are passed, never looked up: `start` makes the root, and each actor gets a child of it with its own keys.
//! `slog_scope` serves the bridge only, by which the `log` and `tracing` records of dependencies arrive.
//!
//! A record is handed to a thread of its own and the caller never waits: when the channel is full, records are
//! dropped and their number is logged.

mod bridge;
mod drain;
mod error_chain;
mod escape;

use std::io::{self, LineWriter};

use slog::{Drain, Level, LevelFilter, Logger, Never, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};
use slog_term::TermDecorator;

pub use error_chain::{error_chain, innermost, transport_cause};

/// Records that can wait for the writing thread.
const CHANNEL: usize = 2048;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// [`Format::Pretty`] on a terminal, else [`Format::Json`].
    Auto,
    /// One line for people: time, level, message, key-values; in colour on a terminal.
    Pretty,
    /// One object on each line: `ts` (RFC 3339, milliseconds, UTC), `level`, `msg`, then the key-values.
    Json,
}

/// Keeps the log alive. Dropping it writes what is still waiting; later records are lost. Hold it in `main`, and return
/// from there: `process::exit` loses lines.
#[must_use]
pub struct Guard {
    _writing: AsyncGuard,
}

/// Starts the log on stderr; records below `level` are not written. `is_terminal` says whether stderr is one.
///
/// Dependencies' records join in from then on, for the whole process: call it once.
pub fn start(level: Level, format: Format, is_terminal: bool) -> (Logger, Guard) {
    let pretty = match format {
        Format::Auto => is_terminal,
        Format::Pretty => true,
        Format::Json => false,
    };
    let (root, guard) = if pretty {
        let decorator = TermDecorator::new().stderr();
        let decorator = if is_terminal { decorator } else { decorator.force_plain() };
        in_background(drain::pretty(decorator.build()), level)
    } else {
        in_background(drain::json(LineWriter::new(io::stderr())), level)
    };
    bridge::install(&root, level);
    (root, guard)
}

fn in_background<D>(drain: D, level: Level) -> (Logger, Guard)
where
    D: Drain<Ok = (), Err = Never> + Send + 'static,
{
    let background = Async::new(drain)
        .chan_size(CHANNEL)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned());
    let (background, writing) = background.build_with_guard();
    // After the guard's end the channel is closed: records are lost then, and nothing panics.
    let root = Logger::root(LevelFilter::new(background.ignore_res(), level).ignore_res(), o!());
    (root, Guard { _writing: writing })
}

#[cfg(test)]
mod tests;
