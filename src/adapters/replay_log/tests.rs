//! The log's contract on SQLite, and what is the file's own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

use crate::adapters::replay_contract::{self as contract, seen};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("replay.db");
    (directory, path)
}

/// A log whose directory lives as long as it does.
struct Housed(SqliteReplayLog, #[expect(dead_code, reason = "kept for its drop")] TempDir);

#[async_trait]
impl ReplayLog for Housed {
    async fn load(&self) -> Result<Vec<Seen>, ReplayError> {
        self.0.load().await
    }
    async fn remember(&self, seen: &Seen) -> Result<(), ReplayError> {
        self.0.remember(seen).await
    }
    async fn forget(&self, now: WallTime, ring: &[Kid]) -> Result<u64, ReplayError> {
        self.0.forget(now, ring).await
    }
}

#[tokio::test]
async fn sqlite_holds_the_contract() {
    contract::hold(async || {
        let (directory, path) = place();
        Housed(SqliteReplayLog::open(&path).await.expect("opens"), directory)
    })
    .await;
}

#[tokio::test]
async fn what_was_remembered_is_there_without_an_orderly_end() {
    let (_directory, path) = place();
    let first = SqliteReplayLog::open(&path).await.expect("opens");
    let known = seen(1, Kid([1; 8]), "a", None);
    first.remember(&known).await.expect("remembers");
    // The first one is neither closed nor dropped: what a second one sees is what a kill would leave.
    let second = SqliteReplayLog::open(&path).await.expect("opens");
    assert_eq!(second.load().await.expect("loads"), [known]);
    let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
}

/// The writer of the test below: it is killed while it writes.
#[tokio::test]
#[ignore = "started and killed by another test"]
async fn writes_until_it_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "the test's own second process")]
    let Ok(path) = std::env::var("CLOISTER_TEST_REPLAY") else { return };
    let log = SqliteReplayLog::open(path.as_ref()).await.expect("opens");
    for number in 0..u64::MAX {
        let mut known = seen(0, Kid([1; 8]), &format!("job-{number}"), None);
        known.tag.0[..8].copy_from_slice(&number.to_be_bytes());
        log.remember(&known).await.expect("remembers");
        println!("remembered {number}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_remembered() {
    use std::io::BufRead as _;
    let (_directory, path) = place();
    #[expect(clippy::disallowed_methods, reason = "the test's own second process")]
    let mut writer = std::process::Command::new("/proc/self/exe")
        .args(["adapters::replay_log::tests::writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
        .env("CLOISTER_TEST_REPLAY", &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let told = std::io::BufReader::new(writer.stdout.take().expect("its output"));
    let mut last = None;
    for line in told.lines().map_while(Result::ok) {
        let Some(number) = line.split("remembered ").nth(1).and_then(|text| text.trim().parse::<usize>().ok()) else {
            continue;
        };
        last = Some(number);
        if number == 200 {
            writer.kill().expect("is killed");
        }
    }
    writer.wait().expect("is gone");
    let last = last.expect("it wrote");
    assert!(last >= 200);
    let log = SqliteReplayLog::open(&path).await.expect("opens");
    let all = log.load().await.expect("loads");
    for number in 0..=last {
        let name = format!("job-{number}");
        assert!(all.iter().any(|seen| seen.job.as_str() == name), "{name} of {last} is lost");
    }
}

#[tokio::test]
async fn a_file_of_another_version_and_a_file_that_is_none_are_refused() {
    let (_directory, path) = place();
    let log = SqliteReplayLog::open(&path).await.expect("opens");
    sqlx::raw_sql("PRAGMA user_version = 7").execute(&log.pool).await.expect("set");
    log.close().await;
    let error = SqliteReplayLog::open(&path).await.expect_err("refused");
    assert!(format!("{error:?}").contains("Version(7)"), "{error:?}");
    std::fs::write(&path, "x".repeat(8192)).expect("written");
    assert!(SqliteReplayLog::open(&path).await.is_err());
}
