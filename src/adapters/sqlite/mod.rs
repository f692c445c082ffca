//! The embedded store: one SQLite file, two writer connections, a few readers.
//!
//! ```text
//!   writes ──► writer (1 connection, FULL)           ───┐
//!   calls' rows ──► ledger (1 connection, NORMAL)    ───┼─► cloister.db  (WAL, mode 0600)
//!   reads  ──► readers (N connections, read-only)    ───┘
//! ```
//!
//! One connection each, because SQLite has one write lock anyway: callers then wait in the pool's fair queue instead of in
//! SQLite's busy loop. A reader sees everything that was committed before its statement began, so a caller reads its
//! own writes.
//!
//! The writer's `synchronous` is FULL: after a power cut every environment a client was told of is still there. The ledger's is
//! NORMAL: a power cut may take back the last rows of calls, which it has ended anyway, and no call waits for the disk
//! twice ([ADR 25](../../../docs/adr/0025-calls-rows-do-not-wait-for-the-disk.md)). A kill of the daemon loses nothing of either, and the file stays
//! consistent with both.
//!
//! A future that is dropped mid-way leaves its write done or undone, never half done: sqlx rolls the transaction
//! back before it hands the connection to the next caller.

mod call_book;
mod call_sql;
mod credentials;
mod failure;
mod open;
mod revisions;
mod rows;
mod sql;
mod tenants;

use std::path::Path;

use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqlitePool};

use failure::while_it;

use crate::domain::environment::{Environment, EnvironmentStatus};
use crate::domain::execution::{ExecutionRecord, Outcome};
use crate::domain::id::EnvironmentId;
use crate::domain::quota::Quotas;
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;
use crate::ports::store::{Store, StoreError};

/// Call records deleted at a time, so that calls get their turns at the writer in between.
const FORGET_BATCH: u32 = 500;

/// The store in one SQLite file. It is meant for one daemon on a local disk: WAL does not work over network file
/// systems.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    ledger: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it (mode 0600) where its directory exists, and brings its schema up to date.
    /// `read_connections` is the most that are open at once, at least 1; they are opened on demand.
    ///
    /// # Errors
    /// [`StoreError::Open`] whose source says what to do: no directory, not a database, damaged,
    /// read-only, full, locked, or written by a newer version.
    pub async fn open(path: &Path, read_connections: u32) -> Result<Self, StoreError> {
        let writer = open::writer(path).await.map_err(|failure| failure.opening(path))?;
        Ok(Self { writer, ledger: open::ledger(path), readers: open::readers(path, read_connections) })
    }

    /// Runs a statement that ends with what is known of a call's end.
    async fn write_execution<'q>(
        &self,
        statement: Query<'q, Sqlite, SqliteArguments>,
        record: &'q ExecutionRecord,
    ) -> Result<(), sqlx::Error> {
        let whole = statement
            .bind(record.completed_at.map(|at| at.0))
            .bind(record.exit_code)
            .bind(&record.stdout)
            .bind(&record.stderr)
            .bind(record.duration_ms)
            .bind(&record.outcome);
        whole.execute(&self.ledger).await.map(drop)
    }

    /// Waits for the statements that are running, folds the write-ahead log into the file and closes it. Later calls
    /// fail. Not needed for safety: a killed daemon loses nothing.
    pub async fn close(&self) {
        self.readers.close().await;
        self.ledger.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn insert_environment(&self, environment: &Environment, quotas: &Quotas) -> Result<(), StoreError> {
        self.insert_within(environment, quotas).await
    }

    async fn claim_storage(&self, id: EnvironmentId, bytes: u64, quotas: &Quotas) -> Result<(), StoreError> {
        self.claim_within(id, bytes, quotas).await
    }

    async fn try_write(&self) -> Result<(), StoreError> {
        sqlx::query(sql::TRY_WRITE).execute(&self.writer).await.map_err(while_it("write to its file"))?;
        Ok(())
    }

    async fn set_status(&self, id: EnvironmentId, status: EnvironmentStatus) -> Result<bool, StoreError> {
        let done = sqlx::query(sql::SET_STATUS)
            .bind(id.to_string())
            .bind(status.as_str())
            .execute(&self.writer)
            .await
            .map_err(while_it("set an environment's status"))?;
        Ok(done.rows_affected() > 0)
    }

    async fn environment(&self, id: EnvironmentId) -> Result<Option<Environment>, StoreError> {
        let row = sqlx::query(sql::ENVIRONMENT)
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(while_it("read an environment"))?;
        row.as_ref().map(rows::environment).transpose()
    }

    async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        let rows =
            sqlx::query(sql::ENVIRONMENTS).fetch_all(&self.readers).await.map_err(while_it("list the environments"))?;
        rows.iter().map(rows::environment).collect()
    }

    async fn environments_of(&self, tenant: &TenantName) -> Result<Vec<Environment>, StoreError> {
        let query = sqlx::query(sql::ENVIRONMENTS_OF).bind(tenant.as_str());
        let rows = query.fetch_all(&self.readers).await.map_err(while_it("list a tenant's environments"))?;
        rows.iter().map(rows::environment).collect()
    }

    async fn delete_environment(&self, id: EnvironmentId) -> Result<bool, StoreError> {
        let done = sqlx::query(sql::DELETE_ENVIRONMENT)
            .bind(id.to_string())
            .execute(&self.writer)
            .await
            .map_err(while_it("delete an environment"))?;
        Ok(done.rows_affected() > 0)
    }

    async fn begin_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError> {
        let insert = sqlx::query(sql::INSERT_EXECUTION)
            .bind(record.id.to_string())
            .bind(record.environment.to_string())
            .bind(record.started_at.0);
        self.write_execution(insert, record).await.map_err(while_it("record the beginning of a call"))
    }

    /// A record that is gone, because its environment was deleted in the meantime, is no error.
    async fn finish_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError> {
        let update = sqlx::query(sql::FINISH_EXECUTION).bind(record.id.to_string());
        self.write_execution(update, record).await.map_err(while_it("record the end of a call"))
    }

    /// Their duration stays unknown: nobody measured it.
    async fn close_unfinished(&self, now: WallTime) -> Result<u64, StoreError> {
        let done = sqlx::query(sql::CLOSE_UNFINISHED)
            .bind(now.0)
            .bind(Outcome::Cancelled.exit_code())
            .bind(Outcome::Cancelled.as_str())
            .execute(&self.writer)
            .await
            .map_err(while_it("close the calls of an earlier life"))?;
        Ok(done.rows_affected())
    }

    async fn executions(&self, environment: EnvironmentId, limit: u32) -> Result<Vec<ExecutionRecord>, StoreError> {
        let rows = sqlx::query(sql::EXECUTIONS)
            .bind(environment.to_string())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(while_it("list an environment's calls"))?;
        rows.iter().map(rows::execution).collect()
    }

    async fn forget_executions(&self, before: WallTime) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let done = sqlx::query(sql::FORGET_EXECUTIONS)
                .bind(before.0)
                .bind(FORGET_BATCH)
                .execute(&self.writer)
                .await
                .map_err(while_it("forget old calls"))?;
            forgotten += done.rows_affected();
            if done.rows_affected() < u64::from(FORGET_BATCH) {
                return Ok(forgotten);
            }
        }
    }
}

#[cfg(test)]
mod tests;
