//! What an instance prints: read without end, so that it never blocks, and kept only until it serves prompts.
//!
//! ComfyUI quotes prompts in its log (validation and execution errors). So after readiness nothing is kept, and lines
//! are passed on only where the operator asked for that (LOG_SILENT=0).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slog::{Logger, info};
use tokio::sync::watch;

/// Lines kept from before readiness, and the longest.
const LINES: usize = 40;
const LONGEST: u64 = 500;
/// How long an ended process's last lines are waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The lines of one process.
pub(super) struct Printed {
    kept: Arc<Kept>,
    over: watch::Receiver<bool>,
}

#[derive(Default)]
struct Kept {
    serves: AtomicBool,
    lines: Mutex<VecDeque<String>>,
}

impl Printed {
    /// Reads a pipe on a thread of its own, which ends with the last process that holds the other end.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn read(pipe: File, name: &str, silent: bool, log: Logger) -> std::io::Result<Self> {
        let kept = Arc::new(Kept::default());
        let (end, over) = watch::channel(false);
        let (shared, log) = (kept.clone(), if silent { None } else { Some(log) });
        std::thread::Builder::new().name(format!("{name}-log")).spawn(move || {
            drain(pipe, &shared, log.as_ref());
            // Nobody may be waiting.
            let _ = end.send(true);
        })?;
        Ok(Self { kept, over })
    }

    /// From now on it serves prompts: nothing is kept any more, and what was is dropped.
    pub(super) fn serves(&self) {
        self.kept.serves.store(true, Ordering::Release);
        self.kept.lines().clear();
    }

    /// The last lines from before it served, once all are read.
    pub(super) async fn last_words(&self) -> String {
        let mut over = self.over.clone();
        // A grandchild may hold the pipe open.
        let _ = tokio::time::timeout(LAST_WORDS, over.wait_for(|over| *over)).await;
        self.kept.lines().iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

impl Kept {
    fn lines(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: String) {
        let mut lines = self.lines();
        // Asked under the lock, so that `serves` leaves nothing behind.
        if self.serves.load(Ordering::Acquire) {
            return;
        }
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

fn drain(pipe: File, kept: &Kept, log: Option<&Logger>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A longer line comes in pieces.
        match pipe.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        if let Some(log) = log {
            info!(log, "comfy.printed"; "line" => text);
        }
        kept.take(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
        (reader.into(), writer.into())
    }

    #[tokio::test]
    async fn the_last_lines_before_readiness_are_kept_and_none_after_it() {
        let (reader, mut writer) = pipe();
        let log = Logger::root(slog::Discard, slog::o!());
        let printed = Printed::read(reader, "test", true, log).expect("reads");
        for number in 0..100 {
            writeln!(writer, "line {number}").expect("write");
        }
        write!(writer, "\n{}", "x".repeat(700)).expect("write");
        drop(writer);
        let words = printed.last_words().await;
        assert!(
            words.starts_with("line 62 | line 63")
                && words.ends_with(&format!("{} | {}", "x".repeat(500), "x".repeat(200))),
            "{words}"
        );

        let (reader, mut writer) = pipe();
        let log = Logger::root(slog::Discard, slog::o!());
        let printed = Printed::read(reader, "test", true, log).expect("reads");
        writeln!(writer, "before").expect("write");
        printed.serves();
        writeln!(writer, "a prompt").expect("write");
        drop(writer);
        let words = printed.last_words().await;
        assert!(!words.contains("prompt"), "{words}");
    }
}
