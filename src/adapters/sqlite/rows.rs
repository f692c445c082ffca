//! Rows to domain types and back.

use std::str::FromStr;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::failure::while_it;
use crate::domain::environment::{Environment, EnvironmentStatus};
use crate::domain::execution::ExecutionRecord;
use crate::domain::quota::EnvironmentLimits;
use crate::domain::time::WallTime;
use crate::ports::store::StoreError;

const READING: &str = "read a row";

/// An unsigned count as SQLite keeps it. No count comes near the limit.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn environment(row: &SqliteRow) -> Result<Environment, StoreError> {
    Ok(Environment {
        id: parsed(row, "id", "environment id")?,
        tenant: parsed(row, "tenant", "tenant's name")?,
        volume_name: get(row, "volume_name")?,
        main_module: get(row, "main_module")?,
        runtime: parsed(row, "runtime", "runtime")?,
        created_at: WallTime(get(row, "created_at")?),
        last_executed_at: get::<Option<i64>>(row, "last_executed_at")?.map(WallTime),
        execution_count: unsigned(row, "execution_count", "execution count")?,
        status: status(row)?,
        metadata: serde_json::from_str(&get::<String>(row, "metadata")?)
            .map_err(|error| StoreError::Corrupt { what: "environment's metadata", found: error.to_string() })?,
        ttl_seconds: unsigned(row, "ttl_seconds", "time to live")?,
        limits: limits(row)?,
        revision: unsigned(row, "revision", "revision")?,
    })
}

pub(super) fn execution(row: &SqliteRow) -> Result<ExecutionRecord, StoreError> {
    Ok(ExecutionRecord {
        id: parsed(row, "id", "execution id")?,
        environment: parsed(row, "environment_id", "environment id")?,
        started_at: WallTime(get(row, "started_at")?),
        completed_at: get::<Option<i64>>(row, "completed_at")?.map(WallTime),
        exit_code: get(row, "exit_code")?,
        stdout: get(row, "stdout")?,
        stderr: get(row, "stderr")?,
        duration_ms: get(row, "duration_ms")?,
        outcome: get(row, "outcome")?,
    })
}

fn limits(row: &SqliteRow) -> Result<EnvironmentLimits, StoreError> {
    let Some(text) = get::<Option<String>>(row, "limits")? else { return Ok(EnvironmentLimits::default()) };
    let corrupt =
        |error: serde_json::Error| StoreError::Corrupt { what: "environment's limits", found: error.to_string() };
    serde_json::from_str(&text).map_err(corrupt)
}

fn status(row: &SqliteRow) -> Result<EnvironmentStatus, StoreError> {
    let found: String = get(row, "status")?;
    [EnvironmentStatus::SettingUp, EnvironmentStatus::Ready, EnvironmentStatus::Deleting]
        .into_iter()
        .find(|status| status.as_str() == found)
        .ok_or(StoreError::Corrupt { what: "environment's status", found })
}

pub(super) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(while_it(READING))
}

pub(super) fn parsed<T: FromStr>(row: &SqliteRow, column: &str, what: &'static str) -> Result<T, StoreError> {
    let found: String = get(row, column)?;
    found.parse().map_err(|_| StoreError::Corrupt { what, found })
}

pub(super) fn unsigned(row: &SqliteRow, column: &str, what: &'static str) -> Result<u64, StoreError> {
    let found: i64 = get(row, column)?;
    u64::try_from(found).map_err(|_| StoreError::Corrupt { what, found: found.to_string() })
}
