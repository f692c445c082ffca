//! The two looks of a record.

use std::io::{self, Write};

use slog::{Drain, FnValue, Level, Never, OwnedKVList, PushFnValue, Record, o};
use slog_json::Json;
use slog_term::{Decorator, FullFormat, RecordDecorator};

use super::escape;

/// Lines for people.
pub(super) fn pretty<D: Decorator>(decorator: D) -> impl Drain<Ok = (), Err = Never> {
    FullFormat::new(Careful(decorator))
        .use_original_order()
        .use_custom_timestamp(|io: &mut dyn Write| write!(io, "{}", now()))
        .build()
        .ignore_res()
}

/// One JSON object on each line.
pub(super) fn json<W: Write>(writer: W) -> impl Drain<Ok = (), Err = Never> {
    Json::new(escape::JsonWriter(writer))
        .add_key_value(o!("ts" => FnValue(|_: &Record<'_>| now())))
        .add_key_value(o!("level" => FnValue(|record: &Record<'_>| name(record.level()))))
        .add_key_value(o!("msg" => PushFnValue(|record: &Record<'_>, value| value.emit(record.msg()))))
        .set_flush(true)
        .build()
        .ignore_res()
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Writes everything through the wrapped decorator with hostile characters escaped, except the line's own end. Errors
/// of the terminal are swallowed, since slog-term panics when a record breaks off in the middle.
struct Careful<D>(D);

impl<D: Decorator> Decorator for Careful<D> {
    fn with_record<F>(&self, record: &Record<'_>, values: &OwnedKVList, write: F) -> io::Result<()>
    where
        F: FnOnce(&mut dyn RecordDecorator) -> io::Result<()>,
    {
        self.0.with_record(record, values, |inner| {
            write(&mut CarefulRecord {
                inner,
                in_whitespace: false,
            })
        })
    }
}

struct CarefulRecord<'a> {
    inner: &'a mut dyn RecordDecorator,
    /// Between the parts of a record, where the line's own end stands.
    in_whitespace: bool,
}

impl Write for CarefulRecord<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = match self.in_whitespace {
            true => self.inner.write_all(bytes),
            false => self
                .inner
                .write_all(escape::for_people(&String::from_utf8_lossy(bytes)).as_bytes()),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.inner.flush();
        Ok(())
    }
}

macro_rules! delegate {
    ($($part:ident),*) => {
        $(fn $part(&mut self) -> io::Result<()> {
            self.in_whitespace = false;
            let _ = self.inner.$part();
            Ok(())
        })*
    };
}

impl RecordDecorator for CarefulRecord<'_> {
    delegate!(
        reset,
        start_msg,
        start_timestamp,
        start_level,
        start_comma,
        start_key,
        start_value,
        start_location,
        start_separator
    );

    fn start_whitespace(&mut self) -> io::Result<()> {
        self.in_whitespace = true;
        let _ = self.inner.start_whitespace();
        Ok(())
    }
}
