//! Opening the file: its mode, the two pools' settings, the migrations and a look at its health.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlSafeStr, SqlStr, SqliteConnection};

use super::failure::Failure;

/// How long a connection waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for its turn at the writer.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// An unused reader is closed after this: each is a thread and a page cache.
const READER_IDLE: Duration = Duration::from_secs(60);
/// Up to this size the whole file is checked at every start: about 0.1 s.
const CHECKED_BYTES: u64 = 64 * 1024 * 1024;

/// The schema's history; the number is the version, and versions only grow.
pub(super) const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "environments and executions", include_str!("../../../migrations/sqlite/0001_environments_and_executions.sql")),
    (3, "accepted calls", include_str!("../../../migrations/sqlite/0003_accepted_calls.sql")),
    (5, "tenants", include_str!("../../../migrations/sqlite/0005_tenants.sql")),
    (6, "secrets", include_str!("../../../migrations/sqlite/0006_secrets.sql")),
    (7, "calls count themselves", include_str!("../../../migrations/sqlite/0007_calls_count_themselves.sql")),
];

/// The one writer, with the schema brought up to date.
pub(super) async fn writer(path: &Path) -> Result<SqlitePool, Failure> {
    let bytes = prepare_file(path)?;
    let options = writing(path).synchronous(SqliteSynchronous::Full).pragma("cache_size", "-2000");
    let pool =
        one_connection().before_acquire(|connection, _| Box::pin(is_sound(connection))).connect_with(options).await?;
    if let Err(failure) = make_ready(&pool, bytes).await {
        pool.close().await;
        return Err(failure);
    }
    Ok(pool)
}

/// The writer of what a power cut may take back: no commit waits for the disk. Its statements are transactions by themselves, each one
/// trip to the connection's thread: calls wait for them. The file is folded by the other writer, or by
/// this one where that has nothing to do for long.
pub(super) fn ledger(path: &Path) -> SqlitePool {
    let options = writing(path)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", "-512")
        .pragma("wal_autocheckpoint", "8192");
    one_connection().connect_lazy_with(options)
}

fn writing(path: &Path) -> SqliteConnectOptions {
    common(path).journal_mode(SqliteJournalMode::Wal).pragma("journal_size_limit", "4194304")
}

fn one_connection() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(0)
        .max_connections(1)
        .acquire_timeout(TURN_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// False for a connection whose transaction is still counted although nobody holds it: the pool opens a new one then.
/// It happens when SQLite ends a transaction by itself, as it does on a full disk: sqlx's own rollback then fails,
/// its count stays at one, and every later `BEGIN IMMEDIATE` would be refused for ever.
async fn is_sound(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    connection.ping().await?; // what was queued before, such as the rollback of a dropped transaction, is done now
    Ok(!connection.is_in_transaction())
}

/// The readers, opened when they are needed.
pub(super) fn readers(path: &Path, connections: u32) -> SqlitePool {
    let options = common(path).read_only(true).pragma("cache_size", "-512");
    SqlitePoolOptions::new()
        .min_connections(0)
        .max_connections(connections.max(1))
        .acquire_timeout(TURN_TIMEOUT)
        .idle_timeout(READER_IDLE)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

fn common(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .statement_cache_capacity(16)
        .row_buffer_size(16)
        .thread_name(|number| format!("sqlite-{number}"))
        .log_statements(log::LevelFilter::Trace)
        .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1))
}

/// Makes the file if it is not there, readable by its owner only; SQLite gives its -wal and -shm files the same mode.
/// Returns the file's size.
fn prepare_file(path: &Path) -> Result<u64, Failure> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty())
        && !directory.exists()
    {
        return Err(Failure::NoDirectory(directory.to_owned()));
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(metadata.len())
}

async fn make_ready(pool: &SqlitePool, bytes: u64) -> Result<(), Failure> {
    if bytes <= CHECKED_BYTES {
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(pool).await?;
        if verdict != "ok" {
            return Err(Failure::Damaged);
        }
    }
    let known = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    migrator().run(pool).await.map_err(|error| Failure::migrating(error, known))
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, description, sql)| {
        let sql: SqlStr = (*sql).into_sql_str();
        Migration::new(*version, (*description).into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}
