//! `[log]`: how much is logged, and how it looks.

use super::Reader;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    Pretty,
    Json,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// Records below this level are not written.
    pub level: slog::Level,
    pub format: LogFormat,
}

impl Log {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let levels = &["trace", "debug", "info", "warn", "error"];
        let level = reader.choice("log.level", levels, &[("warning", "warn"), ("critical", "error")]);
        let format = reader.choice("log.format", &["auto", "pretty", "json"], &[]);
        Self {
            level: match level.as_str() {
                "trace" => slog::Level::Trace,
                "debug" => slog::Level::Debug,
                "warn" => slog::Level::Warning,
                "error" => slog::Level::Error,
                _ => slog::Level::Info,
            },
            format: match format.as_str() {
                "pretty" => LogFormat::Pretty,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
        }
    }
}
