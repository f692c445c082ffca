//! What goes wrong with a database file, told so that a person knows what to do.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

use crate::ports::store::StoreError;

/// Why SQLite did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("its directory {} does not exist; create it, or set store.path or daemon.state_dir", .0.display())]
    NoDirectory(PathBuf),
    #[error("it is a directory; set store.path to a file")]
    IsDirectory,
    #[error("permission is denied; run the daemon as the user who owns the file and its directory")]
    Denied(#[source] io::Error),
    #[error(
        "the file, its directory or its file system cannot be written; make it writable or set store.path elsewhere"
    )]
    ReadOnly,
    #[error("the disk is full; free some space on its file system")]
    DiskFull,
    #[error(
        "it is not an SQLite database; set store.path elsewhere, or move the file away to start with an empty store"
    )]
    NotADatabase,
    #[error("it is damaged; restore a copy, or move it and its -wal file away to start with an empty store")]
    Damaged,
    #[error("it is locked by another process; is a second daemon running on the same state_dir?")]
    Locked,
    #[error("its schema is at version {found}, and this program knows versions up to {known}; install a newer one")]
    NewerSchema { found: i64, known: i64 },
    #[error("its schema {version} is not the one that this program writes; it was made by an unreleased version")]
    ForeignSchema { version: i64 },
    #[error("no turn came within 30 s; the disk is too slow for the load, or another process holds the file")]
    NoTurn,
    #[error("it is closed: the daemon is stopping")]
    Closed,
    #[error("the file cannot be used")]
    File(#[source] io::Error),
    #[error("its schema cannot be brought up to date")]
    Migration(#[source] MigrateError),
    #[error("SQLite reports an error")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => return Failure::NoTurn,
            sqlx::Error::PoolClosed => return Failure::Closed,
            _ => {}
        }
        match primary_code(&error) {
            Some(5 | 6) => Failure::Locked,
            Some(8) => Failure::ReadOnly,
            Some(11) => Failure::Damaged,
            Some(13) => Failure::DiskFull,
            Some(26) => Failure::NotADatabase,
            _ => Failure::Database(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::IsADirectory => Failure::IsDirectory,
            io::ErrorKind::PermissionDenied => Failure::Denied(error),
            io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnly,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::DiskFull,
            _ => Failure::File(error),
        }
    }
}

impl Failure {
    /// Tells a migration's failure; `known` is the newest version this program carries.
    pub(super) fn migrating(error: MigrateError, known: i64) -> Self {
        match error {
            MigrateError::VersionMissing(found) if found > known => Failure::NewerSchema { found, known },
            MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
                Failure::ForeignSchema { version }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Failure::Migration(other),
        }
    }

    /// This failure as the port's error about the file at `path`.
    pub(super) fn opening(self, path: &Path) -> StoreError {
        StoreError::Open {
            path: path.display().to_string(),
            source: Box::new(self),
        }
    }
}

/// Makes the port's error about `action` out of sqlx's.
pub(super) fn while_it(action: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |error| StoreError::Query {
        action,
        source: Box::new(Failure::from(error)),
    }
}

/// SQLite's primary result code (<https://sqlite.org/rescode.html>), without the extension in the higher bits.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
