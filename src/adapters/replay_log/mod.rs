//! The replay guard's log: one small SQLite file of its own, beside the store.
//!
//! It is in WAL mode with `synchronous = NORMAL`: what was committed lies in the kernel's hands, so that a kill -9 of
//! the daemon loses nothing, and an insert waits for no disk. A power cut may lose the last seconds; v2 requests have
//! their own time against that, and the store's `FULL` would cost each job a flush. It holds hashes, the names of keys
//! and job ids, nothing that was sent.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Row as _};

use crate::domain::envelope::{Kid, ReplayTag};
use crate::domain::job::{InvalidJobId, JobId};
use crate::domain::replay::Seen;
use crate::domain::time::WallTime;
use crate::ports::replay::{ReplayError, ReplayLog};

#[cfg(test)]
mod tests;

/// How long a lock of another process, or a turn, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The layout below; a file of another one is refused.
const VERSION: i64 = 1;
const LAYOUT: &str = "
    CREATE TABLE seen (
        tag   BLOB PRIMARY KEY, -- SHA-256 of the box's key and nonce
        kid   BLOB NOT NULL,
        job   TEXT NOT NULL,
        until INTEGER           -- milliseconds since 1970; NULL: as long as the key lives
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX seen_until ON seen (until) WHERE until IS NOT NULL;
    PRAGMA user_version = 1;";
const REMEMBER: &str = "INSERT INTO seen (tag, kid, job, until) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
/// Rows that are forgotten at a time, so that requests get their turns in between.
const BATCH: u64 = 1000;
const FORGET: &str = "DELETE FROM seen WHERE tag IN (SELECT tag FROM seen WHERE until < ?1 LIMIT 1000)";
const FORGET_KEY: &str =
    "DELETE FROM seen WHERE tag IN (SELECT tag FROM seen WHERE until IS NULL AND kid = ?1 LIMIT 1000)";
const KIDS: &str = "SELECT DISTINCT kid FROM seen WHERE until IS NULL";

/// The log in one file.
#[derive(Debug)]
pub struct SqliteReplayLog {
    pool: SqlitePool,
}

/// The file is there and cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("its layout is {0}, and this program writes {VERSION}: it was made by another version")]
    Version(i64),
    #[error("it is damaged; moved away, it begins anew, and requests of the last minutes could come again")]
    Row(#[source] InvalidJobId),
    #[error("it is damaged; moved away, it begins anew, and requests of the last minutes could come again")]
    Lengths,
}

fn failed<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> ReplayError {
    move |source| ReplayError { doing, source: Box::new(source) }
}

impl SqliteReplayLog {
    /// Opens the file at `path`, or makes it (mode 0600) where its directory exists.
    ///
    /// # Errors
    /// It cannot be made or read, or another version wrote it.
    pub async fn open(path: &Path) -> Result<Self, ReplayError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(failed("open"))?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("open"))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(PATIENCE)
            .pragma("cache_size", "-200")
            .pragma("journal_size_limit", "4194304")
            .thread_name(|number| format!("replay-{number}"))
            .log_statements(log::LevelFilter::Trace)
            .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1));
        let pool = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(failed("open"))?;
        let log = Self { pool };
        log.lay_out().await?;
        Ok(log)
    }

    async fn lay_out(&self) -> Result<(), ReplayError> {
        let version: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&self.pool).await.map_err(failed("open"))?;
        match version {
            0 => sqlx::raw_sql(LAYOUT).execute(&self.pool).await.map(drop).map_err(failed("lay out")),
            VERSION => Ok(()),
            other => Err(failed("open")(Unusable::Version(other))),
        }
    }

    /// Folds the write-ahead log into the file and closes it. Not needed for safety.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs a deletion until there is nothing left for it.
    async fn delete(&self, sql: &'static str, until: Option<WallTime>, kid: Option<Kid>) -> Result<u64, ReplayError> {
        let mut forgotten = 0;
        loop {
            let query = match (until, kid) {
                (Some(until), _) => sqlx::query(sql).bind(until.0),
                (None, kid) => sqlx::query(sql).bind(kid.map(|kid| kid.0.to_vec())),
            };
            let rows = query.execute(&self.pool).await.map_err(failed("forget in"))?.rows_affected();
            forgotten += rows;
            if rows < BATCH {
                return Ok(forgotten);
            }
        }
    }
}

#[async_trait]
impl ReplayLog for SqliteReplayLog {
    async fn load(&self) -> Result<Vec<Seen>, ReplayError> {
        let rows = sqlx::query("SELECT tag, kid, job, until FROM seen").fetch_all(&self.pool).await;
        rows.map_err(failed("read"))?.iter().map(seen).collect()
    }

    async fn remember(&self, seen: &Seen) -> Result<(), ReplayError> {
        sqlx::query(REMEMBER)
            .bind(seen.tag.0.as_slice())
            .bind(seen.kid.0.as_slice())
            .bind(seen.job.as_str())
            .bind(seen.until.map(|until| until.0))
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("write"))
    }

    async fn forget(&self, now: WallTime, ring: &[Kid]) -> Result<u64, ReplayError> {
        let mut forgotten = self.delete(FORGET, Some(now), None).await?;
        if ring.is_empty() {
            return Ok(forgotten);
        }
        let kids: Vec<Vec<u8>> = sqlx::query_scalar(KIDS).fetch_all(&self.pool).await.map_err(failed("read"))?;
        for kid in kids {
            let kid = Kid(kid.try_into().map_err(|_| failed("read")(Unusable::Lengths))?);
            if !ring.contains(&kid) {
                forgotten += self.delete(FORGET_KEY, None, Some(kid)).await?;
            }
        }
        Ok(forgotten)
    }
}

fn seen(row: &SqliteRow) -> Result<Seen, ReplayError> {
    let damaged = failed("read");
    let bytes = |name| row.try_get::<Vec<u8>, _>(name).map_err(failed("read"));
    let (Ok(tag), Ok(kid)) = (bytes("tag")?.try_into(), bytes("kid")?.try_into()) else {
        return Err(damaged(Unusable::Lengths));
    };
    let job: String = row.try_get("job").map_err(failed("read"))?;
    let job: JobId = job.parse().map_err(|error| failed("read")(Unusable::Row(error)))?;
    let until = row.try_get::<Option<i64>, _>("until").map_err(failed("read"))?.map(WallTime);
    Ok(Seen { tag: ReplayTag(tag), kid: Kid(kid), job, until })
}
