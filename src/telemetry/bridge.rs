//! Dependencies log by the `log` and `tracing` crates; their records join ours, less the noise.
//!
//! `tracing` hands its events to `log` while no subscriber is set, which we never do.

use slog::{Drain, Filter, FnValue, Level, Logger, Record, o};

/// Targets that are heard from `warn` on: a line for each statement or connection says nothing new.
const QUIET: [&str; 4] = ["sqlx", "actix", "hyper", "reqwest"];

/// Sends all `log` records of the process to `root`, with the target as a key.
pub(super) fn install(root: &Logger, level: Level) {
    // The guard's drop would put a drain in place that panics.
    slog_scope::set_global_logger(foreign(root)).cancel_reset();
    // Dependencies below info are never heard; this cap also makes their calls cheap.
    let cap = match level {
        Level::Critical | Level::Error => log::Level::Error,
        Level::Warning => log::Level::Warn,
        Level::Info | Level::Debug | Level::Trace => log::Level::Info,
    };
    if slog_stdlog::init_with_level(cap).is_err() {
        slog::warn!(root, "log.dependencies_elsewhere"; "hint" => "a logger was installed before this one: what dependencies log goes there");
    }
}

/// A logger for records that are not ours.
pub(super) fn foreign(root: &Logger) -> Logger {
    let admitted = Filter::new(root.clone(), |record: &Record<'_>| admits(record.tag(), record.level()));
    Logger::root(admitted.ignore_res(), o!("target" => FnValue(|record: &Record<'_>| record.tag().to_owned())))
}

fn admits(target: &str, level: Level) -> bool {
    if target.starts_with("tracing::span") {
        return false;
    }
    let quiet = QUIET.iter().any(|name| target.starts_with(name));
    level.is_at_least(if quiet { Level::Warning } else { Level::Info })
}
