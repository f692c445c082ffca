//! The call book in the same file as the store.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::failure::while_it;
use super::rows::{execution, get, parsed, signed, unsigned};
use super::{SqliteStore, call_sql, sql};
use crate::domain::desk::{Answer, Claimed, ExecutionView, Fingerprint, HookState, HookView, KeyId, Subject};
use crate::domain::environment::EnvironmentStatus;
use crate::domain::execution::Call;
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;
use crate::ports::call_book::{AcceptedCall, CallBook, CallEnd, DueHook, Unended};
use crate::ports::store::{Store as _, StoreError};

const CALL: &str = "call";
const ACCEPTED: &str = "accepted";
const SET_UP: &str = "set_up";

#[async_trait]
impl CallBook for SqliteStore {
    async fn accept(&self, accepted: &AcceptedCall) -> Result<(), StoreError> {
        let AcceptedCall { call, tenant, accepted_at, webhook } = accepted;
        let webhook = webhook.as_ref().map(serde_json::to_string).transpose().map_err(unwritable)?;
        sqlx::query(call_sql::ACCEPT)
            .bind(call.execution.to_string())
            .bind(call.environment.to_string())
            .bind(accepted_at.0)
            .bind(serde_json::to_string(call).map_err(unwritable)?)
            .bind(webhook)
            .bind(tenant.as_str())
            .execute(&self.writer)
            .await
            .map_err(while_it("write an accepted call"))?;
        Ok(())
    }

    async fn unended(&self) -> Result<Vec<Unended>, StoreError> {
        let failed = while_it("list the accepted calls");
        let rows = sqlx::query(call_sql::UNENDED).fetch_all(&self.readers).await.map_err(failed)?;
        rows.iter().map(unended).collect()
    }

    async fn request(&self, execution: ExecutionId) -> Result<Option<(TenantName, Call)>, StoreError> {
        let row = sqlx::query(call_sql::REQUEST)
            .bind(execution.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(while_it("read an accepted call"))?;
        let request = |row: &SqliteRow| Ok((tenant(row)?, json(row, "request", "accepted call")?));
        row.as_ref().map(request).transpose()
    }

    async fn end(&self, end: &CallEnd) -> Result<(), StoreError> {
        let ended: Result<(), sqlx::Error> = async {
            let mut transaction = self.writer.begin_with(sql::BEGIN).await?;
            sqlx::query(call_sql::END)
                .bind(end.execution.to_string())
                .bind(end.at.0)
                .bind(&end.outcome)
                .execute(&mut *transaction)
                .await?;
            if let Some(answer) = &end.answer {
                let id = end.execution.to_string();
                keep(&mut transaction, call_sql::ANSWER_OF_CALL, &id, answer, end.at).await?;
            }
            transaction.commit().await
        }
        .await;
        ended.map_err(while_it("record the end of an accepted call"))
    }

    async fn view(&self, execution: ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
        let row = sqlx::query(call_sql::VIEW)
            .bind(execution.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(while_it("read a call"))?;
        row.as_ref().map(view).transpose()
    }

    async fn views(
        &self,
        tenant: &TenantName,
        environment: Option<EnvironmentId>,
        limit: u32,
    ) -> Result<Vec<ExecutionView>, StoreError> {
        let rows = sqlx::query(call_sql::VIEWS)
            .bind(tenant.as_str())
            .bind(environment.map(|id| id.to_string()))
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(while_it("list the accepted calls"))?;
        rows.iter().map(view).collect()
    }

    async fn due_hooks(&self, now: WallTime, limit: u32) -> Result<Vec<DueHook>, StoreError> {
        let rows = sqlx::query(call_sql::DUE_HOOKS)
            .bind(now.0)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(while_it("list the webhooks that are due"))?;
        let due = |row: &SqliteRow| {
            Ok(DueHook {
                execution: parsed(row, "id", "execution id")?,
                webhook: json(row, "webhook", "webhook")?,
                attempts: attempts(row)?,
            })
        };
        rows.iter().map(due).collect()
    }

    async fn note_hook(
        &self,
        execution: ExecutionId,
        attempts: u32,
        state: HookState,
        again: Option<WallTime>,
    ) -> Result<(), StoreError> {
        sqlx::query(call_sql::NOTE_HOOK)
            .bind(execution.to_string())
            .bind(attempts)
            .bind(state.as_str())
            .bind(again.map(|at| at.0))
            .execute(&self.writer)
            .await
            .map_err(while_it("record a webhook's try"))?;
        Ok(())
    }

    async fn claim_key(
        &self,
        key: &KeyId,
        fingerprint: &Fingerprint,
        subject: Subject,
        now: WallTime,
        most: u32,
    ) -> Result<Claimed, StoreError> {
        let (kind, environment, execution) = match subject {
            Subject::Call(environment, execution) => (CALL, environment, Some(execution)),
            Subject::Accepted(environment, execution) => (ACCEPTED, environment, Some(execution)),
            Subject::SetUp(environment) => (SET_UP, environment, None),
        };
        let claimed: Result<Option<SqliteRow>, sqlx::Error> = async {
            let mut transaction = self.writer.begin_with(sql::BEGIN).await?;
            let known = sqlx::query(call_sql::KEY).bind(&key.0).fetch_optional(&mut *transaction).await?;
            if known.is_some() {
                return Ok(known);
            }
            sqlx::query(call_sql::INSERT_KEY)
                .bind(&key.0)
                .bind(&fingerprint.0)
                .bind(kind)
                .bind(environment.to_string())
                .bind(execution.map(|id| id.to_string()))
                .bind(now.0)
                .execute(&mut *transaction)
                .await?;
            sqlx::query(call_sql::TRIM_KEYS).bind(most).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(None)
        }
        .await;
        match claimed.map_err(while_it("claim an idempotency key"))? {
            None => Ok(Claimed::New),
            Some(row) => known(&row),
        }
    }

    async fn settle_key(&self, key: &KeyId, answer: Option<&Answer>, now: WallTime) -> Result<(), StoreError> {
        let settled: Result<(), sqlx::Error> = async {
            let mut transaction = self.writer.begin_with(sql::BEGIN).await?;
            sqlx::query(call_sql::SETTLE_KEY).bind(&key.0).execute(&mut *transaction).await?;
            if let Some(answer) = answer {
                keep(&mut transaction, call_sql::ANSWER_OF_KEY, &key.0, answer, now).await?;
            }
            transaction.commit().await
        }
        .await;
        settled.map_err(while_it("settle an idempotency key"))
    }

    async fn release_key(&self, key: &KeyId) -> Result<(), StoreError> {
        let failed = while_it("release an idempotency key");
        sqlx::query(call_sql::RELEASE_KEY).bind(&key.0).execute(&self.writer).await.map_err(failed)?;
        Ok(())
    }

    async fn is_ready(&self, environment: EnvironmentId) -> Result<bool, StoreError> {
        let found = self.environment(environment).await?;
        Ok(found.is_some_and(|environment| environment.status == EnvironmentStatus::Ready))
    }

    async fn forget(&self, before: WallTime, most_answer_bytes: u64) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for statement in [call_sql::FORGET_KEYS, call_sql::FORGET_CALLS, call_sql::FORGET_ANSWERS] {
            let done = sqlx::query(statement).bind(before.0).execute(&self.writer).await;
            forgotten += done.map_err(while_it("forget accepted calls and keys"))?.rows_affected();
        }
        let trimmed = sqlx::query(call_sql::TRIM_ANSWERS).bind(signed(most_answer_bytes)).execute(&self.writer).await;
        Ok(forgotten + trimmed.map_err(while_it("forget old answers"))?.rows_affected())
    }
}

async fn keep(
    transaction: &mut Transaction<'_, Sqlite>,
    statement: &'static str,
    id: &str,
    answer: &Answer,
    now: WallTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(statement)
        .bind(id)
        .bind(answer.status)
        .bind(&*answer.body)
        .bind(signed(u64::try_from(answer.body.len()).unwrap_or(u64::MAX)))
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn unended(row: &SqliteRow) -> Result<Unended, StoreError> {
    let begun: Option<String> = get(row, "id")?;
    Ok(Unended {
        execution: parsed(row, "accepted_id", "execution id")?,
        environment: parsed(row, "accepted_environment", "environment id")?,
        bytes: usize::try_from(get::<Option<i64>>(row, "bytes")?.unwrap_or(0)).unwrap_or(0),
        record: begun.map(|_| execution(row)).transpose()?,
    })
}

fn view(row: &SqliteRow) -> Result<ExecutionView, StoreError> {
    let status: Option<u16> = get(row, "answer_status")?;
    let body: Option<String> = get(row, "answer_body")?;
    Ok(ExecutionView {
        execution: parsed(row, "id", "execution id")?,
        tenant: tenant(row)?,
        environment: parsed(row, "environment_id", "environment id")?,
        accepted_at: time(row, "accepted_at")?,
        started_at: time(row, "started_at")?,
        ended_at: time(row, "ended_at")?,
        outcome: get(row, "outcome")?,
        answer: status.zip(body).map(|(status, body)| Answer { status, body: body.into() }),
        webhook: hook(row)?,
    })
}

fn tenant(row: &SqliteRow) -> Result<TenantName, StoreError> {
    parsed(row, "tenant", "tenant's name")
}

fn hook(row: &SqliteRow) -> Result<Option<HookView>, StoreError> {
    let Some(found) = get::<Option<String>>(row, "hook_state")? else { return Ok(None) };
    let state = [HookState::Owed, HookState::Delivered, HookState::Failed].into_iter();
    let state = state.clone().find(|state| state.as_str() == found);
    let state = state.ok_or(StoreError::Corrupt { what: "webhook's state", found })?;
    Ok(Some(HookView { state, attempts: attempts(row)? }))
}

fn known(row: &SqliteRow) -> Result<Claimed, StoreError> {
    let environment: EnvironmentId = parsed(row, "environment_id", "environment id")?;
    let kind: String = get(row, "kind")?;
    let subject = match kind.as_str() {
        CALL => Subject::Call(environment, parsed(row, "execution_id", "execution id")?),
        ACCEPTED => Subject::Accepted(environment, parsed(row, "execution_id", "execution id")?),
        SET_UP => Subject::SetUp(environment),
        _ => return Err(StoreError::Corrupt { what: "idempotency key's kind", found: kind }),
    };
    Ok(Claimed::Known { fingerprint: Fingerprint(get(row, "fingerprint")?), subject, settled: get(row, "settled")? })
}

fn attempts(row: &SqliteRow) -> Result<u32, StoreError> {
    Ok(u32::try_from(unsigned(row, "hook_attempts", "webhook's tries")?).unwrap_or(u32::MAX))
}

fn time(row: &SqliteRow, column: &str) -> Result<Option<WallTime>, StoreError> {
    Ok(get::<Option<i64>>(row, column)?.map(WallTime))
}

/// The text is user data: it is not quoted.
fn json<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str, what: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column).map_err(while_it("read a row"))?;
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what, found: format!("{} bytes", text.len()) })
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Query { action: "write an accepted call as JSON", source: Box::new(error) }
}

#[cfg(test)]
#[path = "call_book_tests.rs"]
mod tests;
