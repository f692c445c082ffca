//! What a record looks like, what may not get through, and the end of the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use log::Log;
use slog::{crit, debug, error, info, warn};
use slog_term::PlainDecorator;

use super::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// What was written, with timestamps as `TS`.
    fn text(&self) -> String {
        let text = String::from_utf8(self.0.lock().expect("whole").clone()).expect("UTF-8");
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            match line.find("20").and_then(|at| Some((at, line.get(at..at + 24)?))) {
                Some((at, stamp)) if stamp.ends_with('Z') => {
                    out.push_str(&line.replacen(line.get(at..at + 24).unwrap_or_default(), "TS", 1));
                }
                _ => out.push_str(line),
            }
        }
        out
    }
}

fn as_json(level: Level) -> (Logger, Guard, Sink) {
    let sink = Sink::default();
    let (logger, guard) = in_background(drain::json(sink.clone()), level);
    (logger, guard, sink)
}

fn as_pretty() -> (Logger, Guard, Sink) {
    let sink = Sink::default();
    let (logger, guard) = in_background(drain::pretty(PlainDecorator::new(sink.clone())), Level::Debug);
    (logger, guard, sink)
}

#[test]
fn json_has_the_time_the_level_and_the_message_first() {
    let (logger, guard, sink) = as_json(Level::Info);
    let child = logger.new(o!("actor" => "pool"));
    info!(child, "slot.ready"; "slot" => 7, "took_ms" => 1.5, "secret" => Redacted::new("abc"));
    debug!(child, "below the level");
    error!(child, "store.failed"; "error" => error_chain(&io::Error::other("no\nluck \u{1b}[31m \u{9b}2J \u{202e}")));
    crit!(child, "end");
    drop(guard);
    insta::assert_snapshot!(sink.text(), @r#"
    {"ts":"TS","level":"info","msg":"slot.ready","actor":"pool","secret":"[redacted 3 bytes]","took_ms":1.5,"slot":7}
    {"ts":"TS","level":"error","msg":"store.failed","actor":"pool","error":"no\nluck \u001b[31m \u009b2J \u202e"}
    {"ts":"TS","level":"critical","msg":"end","actor":"pool"}
    "#);
    for line in sink.text().lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON");
    }
}

#[test]
fn pretty_lines_cannot_steer_a_terminal_or_forge_a_second_line() {
    let (logger, guard, sink) = as_pretty();
    let child = logger.new(o!("actor" => "pool"));
    info!(child, "slot.ready"; "slot" => 7);
    let attack = "x\u{1b}[2J\r\nTS CRIT forged\u{9b}31m\u{202e}";
    warn!(child, "{}", attack; "value" => attack);
    drop(guard);
    insta::assert_snapshot!(sink.text(), @r#"
    TS INFO slot.ready, actor: pool, slot: 7
    TS WARN x\u{1b}[2J\r\nTS CRIT forged\u{9b}31m\u{202e}, actor: pool, value: x\u{1b}[2J\r\nTS CRIT forged\u{9b}31m\u{202e}
    "#);
    assert!(sink.text().chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn dependencies_are_heard_by_target_and_without_their_noise() {
    let (logger, guard, sink) = as_json(Level::Debug);
    let foreign = bridge::foreign(&logger);
    slog_scope::scope(&foreign, || {
        for (target, level) in [
            ("sqlx::query", log::Level::Info),
            ("sqlx::query", log::Level::Warn),
            ("actix_server::worker", log::Level::Info),
            ("tracing::span::active", log::Level::Error),
            ("other", log::Level::Debug),
            ("other", log::Level::Info),
        ] {
            let record = log::Record::builder()
                .target(target)
                .level(level)
                .args(format_args!("hello"))
                .build();
            slog_stdlog_logger().log(&record);
        }
    });
    drop(guard);
    insta::assert_snapshot!(sink.text(), @r#"
    {"ts":"TS","level":"warn","msg":"hello","target":"sqlx::query"}
    {"ts":"TS","level":"info","msg":"hello","target":"other"}
    "#);
}

/// The bridge's own logger is private; it is the one that `init` installs.
fn slog_stdlog_logger() -> &'static dyn Log {
    let _ = slog_stdlog::init_with_level(log::Level::Info);
    log::logger()
}

#[test]
fn after_the_guard_a_record_is_lost_and_nothing_panics() {
    let sink = Sink::default();
    let (logger, guard) = in_background(drain::json(sink.clone()), Level::Info);
    for number in 0..100 {
        info!(logger, "before"; "number" => number);
    }
    drop(guard);
    assert_eq!(sink.text().lines().count(), 100, "dropping the guard writes what waits");
    info!(logger, "after");
    assert_eq!(sink.text().lines().count(), 100);
}

#[test]
fn a_burst_beyond_the_channel_neither_waits_nor_goes_untold() {
    let (logger, _guard, sink) = as_json(Level::Info);
    let held = sink.0.lock().expect("whole");
    for _ in 0..CHANNEL * 2 {
        info!(logger, "burst");
    }
    drop(held);
    let told = (0..100_000).any(|_| {
        info!(logger, "the first record that finds room brings the count along");
        std::thread::yield_now();
        sink.text().contains("logger dropped messages")
    });
    assert!(told);
}

#[test]
fn what_dependencies_say_by_tracing_arrives_too() {
    let (logger, guard, sink) = as_json(Level::Info);
    let _ = slog_stdlog_logger();
    slog_scope::scope(&bridge::foreign(&logger), || {
        tracing::warn!(target: "sqlx::query", rows = 3, "slow statement");
        tracing::info!(target: "sqlx::query", "unheard");
    });
    drop(guard);
    insta::assert_snapshot!(sink.text(), @r#"{"ts":"TS","level":"warn","msg":"slow statement rows=3","target":"sqlx::query"}"#);
}
