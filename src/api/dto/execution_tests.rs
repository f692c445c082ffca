//! The rules for stdout, stderr, times and sizes.

use std::time::Duration;

use super::*;
use crate::domain::execution::{FilesForm, Limits, LogEntry, OutFile};

const NOW: WallTime = WallTime(1_700_000_000_123);

fn report(outcome: Outcome) -> ExecutionReport {
    ExecutionReport {
        execution: ExecutionId(uuid::Uuid::from_u128(1)),
        outcome,
        phase: None,
        result: None,
        error: None,
        stdout: Captured::default(),
        stderr: Captured::default(),
        logs: Vec::new(),
        files: Vec::new(),
        files_form: FilesForm::None,
        timings: Timings::default(),
        peak_memory_bytes: 0,
        cpu: Duration::ZERO,
        start: Start::Cold,
        limits: Limits { timeout: Duration::from_secs(5), memory_mb: 128 },
        isolated: true,
    }
}

fn captured(text: &str, dropped_bytes: u64) -> Captured {
    Captured { text: text.to_owned(), dropped_bytes }
}

fn error() -> Option<ErrorReport> {
    Some(ErrorReport { name: "Error".into(), message: "boom".into(), stack: "at x".into() })
}

#[test]
fn a_result_takes_the_place_of_stdout_which_moves_into_the_logs() {
    let body = ExecutionBody::new(
        ExecutionReport { result: Some("[1]".into()), stdout: captured("printed\n", 3), ..report(Outcome::Ok) },
        NOW,
    );
    assert_eq!(body.stdout, "[1]");
    let [log] = body.logs.as_slice() else { panic!("one entry") };
    assert_eq!((log.level.as_str(), log.message.as_str()), ("stdout", "printed\n\n[truncated: 3 bytes dropped]"));
    assert_eq!(log.timestamp, "2023-11-14T22:13:20.123Z");
}

#[test]
fn without_a_result_stdout_is_what_was_printed() {
    let body = ExecutionBody::new(ExecutionReport { stdout: captured("a", 0), ..report(Outcome::NoResult) }, NOW);
    assert_eq!((body.stdout.as_str(), body.logs.len()), ("a", 0));
}

#[test]
fn an_error_ends_stderr_on_a_line_of_its_own_unless_all_is_well() {
    let stderr = |text: &str, outcome| {
        ExecutionBody::new(ExecutionReport { stderr: captured(text, 0), error: error(), ..report(outcome) }, NOW).stderr
    };
    assert_eq!(stderr("", Outcome::HandlerError), "Error: boom");
    assert_eq!(stderr("x", Outcome::HandlerError), "x\nError: boom");
    assert_eq!(stderr("x\n", Outcome::HandlerError), "x\nError: boom");
    assert_eq!(stderr("x", Outcome::Ok), "x");
}

#[test]
fn a_null_result_is_a_result_on_both_ends() {
    let body = ExecutionBody::new(ExecutionReport { result: Some("null".into()), ..report(Outcome::Ok) }, NOW);
    let text = serde_json::to_string(&body).unwrap();
    assert!(text.contains(r#""result":null"#), "{text}");
    let read: ExecutionBody = serde_json::from_str(&text).unwrap();
    assert_eq!(read.result.map(|raw| raw.get().to_owned()), Some("null".to_owned()));
    let none = serde_json::to_string(&ExecutionBody::new(report(Outcome::NoResult), NOW)).unwrap();
    assert!(!none.contains("result\":"), "{none}");
}

#[test]
fn times_that_no_calendar_knows_become_the_answers_own() {
    for timestamp in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let logs = vec![LogEntry { level: "log".into(), message: String::new(), timestamp }];
        let body = ExecutionBody::new(ExecutionReport { logs, ..report(Outcome::Ok) }, NOW);
        assert_eq!(body.logs[0].timestamp, "2023-11-14T22:13:20.123Z");
    }
    let last = written(LAST_WRITABLE_MILLI, NOW);
    assert_eq!(last, "9999-12-30T21:59:59.999Z");
}

#[test]
fn numbers_are_rounded_and_never_break_the_json() {
    let timings = Timings { queue_ms: 0.123_456, total_ms: f64::NAN, ..Timings::default() };
    let body = ExecutionBody::new(
        ExecutionReport {
            timings,
            peak_memory_bytes: 1_500_000,
            cpu: Duration::from_nanos(1_234_567),
            ..report(Outcome::Ok)
        },
        NOW,
    );
    assert_eq!((body.timings.queue_ms, body.peak_memory_mb, body.cpu_ms), (0.123, 1.431, 1.235));
    assert_eq!(body.duration_ms, 0);
    assert!(serde_json::to_string(&body).is_ok());
}

#[test]
fn files_come_one_by_one_or_as_an_archive_with_a_result_and_an_empty_one_is_one_too() {
    let told = |form, files: &[&str], outcome| {
        let files = files.iter().map(|name| OutFile { path: (*name).to_owned(), content: b"x".to_vec() }).collect();
        let body = ExecutionBody::new(ExecutionReport { files, files_form: form, ..report(outcome) }, NOW);
        let archive = body.files_archive.map(|text| base64::decode(&text).unwrap());
        let names = archive.map(|bytes| {
            let mut archive = tar::Archive::new(bytes.as_slice());
            let entries = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
            entries.collect::<Vec<_>>()
        });
        (body.files.into_iter().map(|file| file.path).collect::<Vec<_>>(), names)
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(told(FilesForm::List, &["b", "a"], Outcome::Ok), (names(&["b", "a"]), None));
    assert_eq!(told(FilesForm::Tar, &["b", "a"], Outcome::Ok), (names(&[]), Some(names(&["a", "b"]))));
    assert_eq!(told(FilesForm::Tar, &[], Outcome::Ok), (names(&[]), Some(names(&[]))));
    assert_eq!(told(FilesForm::Tar, &[], Outcome::HandlerError), (names(&[]), None));
    assert_eq!(told(FilesForm::None, &[], Outcome::Ok), (names(&[]), None));
}
