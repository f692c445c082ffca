//! Where a command reads and writes.

use std::io::{IsTerminal as _, Read, Write, stderr, stdin, stdout};

/// The three streams of a command.
pub struct Streams<'a> {
    pub input: Box<dyn Read + 'a>,
    pub out: Box<dyn Write + 'a>,
    pub err: Box<dyn Write + 'a>,
    /// Whether a terminal shows `out`: then it must not be steered by what a handler printed.
    pub terminal: bool,
}

impl Streams<'static> {
    /// The process's own.
    pub fn of_process() -> Self {
        Self {
            input: Box::new(stdin()),
            out: Box::new(stdout()),
            err: Box::new(stderr()),
            terminal: stdout().is_terminal(),
        }
    }
}
