//! Tenants, tokens and quotas. What a quota bounds is counted and written in one transaction of the one writer, so that
//! no two requests pass it together.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::failure::while_it;
use super::rows::{get, parsed, signed, unsigned};
use super::{SqliteStore, sql};
use crate::domain::environment::Environment;
use crate::domain::id::EnvironmentId;
use crate::domain::quota::{Charge, Quotas};
use crate::domain::tenant::{Tenant, Token, TokenId};
use crate::domain::time::WallTime;
use crate::ports::store::StoreError;
use crate::ports::tenant_store::{Holding, TenantStore, TokenDigest};

/// Days of CPU time that are kept, for whoever looks at the database.
const KEPT_DAYS: i64 = 31;

impl SqliteStore {
    pub(super) async fn insert_within(&self, environment: &Environment, quotas: &Quotas) -> Result<(), StoreError> {
        const WRITING: &str = "write an environment";
        let as_json = |error: serde_json::Error| StoreError::Query {
            action: "write an environment's metadata as JSON",
            source: Box::new(error),
        };
        let metadata = serde_json::to_string(&environment.metadata).map_err(as_json)?;
        let has_limits = environment.limits != Default::default();
        let limits = has_limits.then(|| serde_json::to_string(&environment.limits)).transpose().map_err(as_json)?;
        let mut transaction = self.writer.begin_with(sql::BEGIN).await.map_err(while_it(WRITING))?;
        if quotas.environments.is_some() {
            let count = sqlx::query_scalar(sql::COUNT_ENVIRONMENTS).bind(environment.tenant.as_str());
            let present: i64 = count.fetch_one(&mut *transaction).await.map_err(while_it(WRITING))?;
            quotas.admit_environment(present.unsigned_abs())?;
        }
        sqlx::query(sql::INSERT_ENVIRONMENT)
            .bind(environment.id.to_string())
            .bind(&environment.volume_name)
            .bind(&environment.main_module)
            .bind(environment.runtime.as_str())
            .bind(environment.created_at.0)
            .bind(environment.last_executed_at.map(|at| at.0))
            .bind(signed(environment.execution_count))
            .bind(environment.status.as_str())
            .bind(metadata)
            .bind(signed(environment.ttl_seconds))
            .bind(environment.tenant.as_str())
            .bind(limits)
            .execute(&mut *transaction)
            .await
            .map_err(while_it(WRITING))?;
        transaction.commit().await.map_err(while_it(WRITING))
    }

    pub(super) async fn claim_within(&self, id: EnvironmentId, bytes: u64, quotas: &Quotas) -> Result<(), StoreError> {
        const WRITING: &str = "note what an environment takes on disk";
        let mut transaction = self.writer.begin_with(sql::BEGIN).await.map_err(while_it(WRITING))?;
        if quotas.storage_bytes.is_some() {
            let sum = sqlx::query_scalar(sql::SUM_OTHER_BYTES).bind(id.to_string());
            let present: i64 = sum.fetch_one(&mut *transaction).await.map_err(while_it(WRITING))?;
            quotas.admit_bytes(present.unsigned_abs(), bytes)?;
        }
        let set = sqlx::query(sql::SET_BYTES).bind(id.to_string()).bind(signed(bytes));
        set.execute(&mut *transaction).await.map_err(while_it(WRITING))?;
        transaction.commit().await.map_err(while_it(WRITING))
    }
}

#[async_trait]
impl TenantStore for SqliteStore {
    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let rows = sqlx::query(sql::TENANTS).fetch_all(&self.readers).await.map_err(while_it("list the tenants"))?;
        rows.iter().map(tenant).collect()
    }

    async fn write_tenant(&self, tenant: &Tenant) -> Result<(), StoreError> {
        let allowance = serde_json::to_string(&tenant.allowance)
            .map_err(|error| StoreError::Query { action: "write an allowance as JSON", source: Box::new(error) })?;
        sqlx::query(sql::WRITE_TENANT)
            .bind(tenant.name.as_str())
            .bind(tenant.created_at.0)
            .bind(allowance)
            .execute(&self.writer)
            .await
            .map_err(while_it("write a tenant"))?;
        Ok(())
    }

    async fn tokens(&self) -> Result<Vec<(Token, TokenDigest)>, StoreError> {
        let rows = sqlx::query(sql::TOKENS).fetch_all(&self.readers).await.map_err(while_it("list the tokens"))?;
        rows.iter().map(token).collect()
    }

    async fn insert_token(&self, token: &Token, digest: &TokenDigest) -> Result<(), StoreError> {
        sqlx::query(sql::INSERT_TOKEN)
            .bind(token.id.as_str())
            .bind(token.tenant.as_str())
            .bind(digest.as_slice())
            .bind(token.scopes.to_string())
            .bind(token.created_at.0)
            .bind(token.expires_at.map(|at| at.0))
            .execute(&self.writer)
            .await
            .map_err(while_it("write a token"))?;
        Ok(())
    }

    async fn delete_token(&self, id: &TokenId) -> Result<bool, StoreError> {
        let delete = sqlx::query(sql::DELETE_TOKEN).bind(id.as_str());
        let done = delete.execute(&self.writer).await.map_err(while_it("delete a token"))?;
        Ok(done.rows_affected() > 0)
    }

    async fn cpu_of(&self, day: i64) -> Result<Vec<Charge>, StoreError> {
        let query = sqlx::query(sql::CPU_OF).bind(day);
        let rows = query.fetch_all(&self.readers).await.map_err(while_it("read the tenants' CPU time"))?;
        let charge = |row: &SqliteRow| {
            let micros = unsigned(row, "micros", "CPU time")?;
            Ok(Charge { tenant: parsed(row, "tenant", "tenant's name")?, day, cpu: Duration::from_micros(micros) })
        };
        rows.iter().map(charge).collect()
    }

    async fn add_cpu(&self, charges: &[Charge]) -> Result<(), StoreError> {
        let added: Result<(), sqlx::Error> = async {
            let mut transaction = self.writer.begin_with(sql::BEGIN).await?;
            for charge in charges {
                sqlx::query(sql::ADD_CPU)
                    .bind(charge.tenant.as_str())
                    .bind(charge.day)
                    .bind(i64::try_from(charge.cpu.as_micros()).unwrap_or(i64::MAX))
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(sql::FORGET_CPU).bind(charge.day - KEPT_DAYS).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        }
        .await;
        added.map_err(while_it("write the tenants' CPU time"))
    }

    async fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        let rows =
            sqlx::query(sql::HOLDINGS).fetch_all(&self.readers).await.map_err(while_it("add up environments"))?;
        let holding = |row: &SqliteRow| {
            Ok(Holding {
                tenant: parsed(row, "tenant", "tenant's name")?,
                environments: unsigned(row, "environments", "count of environments")?,
                bytes: unsigned(row, "bytes", "count of bytes")?,
            })
        };
        rows.iter().map(holding).collect()
    }
}

fn tenant(row: &SqliteRow) -> Result<Tenant, StoreError> {
    let allowance: String = get(row, "allowance")?;
    let corrupt = |error: serde_json::Error| StoreError::Corrupt { what: "allowance", found: error.to_string() };
    Ok(Tenant {
        name: parsed(row, "name", "tenant's name")?,
        created_at: WallTime(get(row, "created_at")?),
        allowance: serde_json::from_str(&allowance).map_err(corrupt)?,
    })
}

fn token(row: &SqliteRow) -> Result<(Token, TokenDigest), StoreError> {
    let digest: Vec<u8> = row.try_get("digest").map_err(while_it("read a token"))?;
    let token = Token {
        id: parsed(row, "id", "token's id")?,
        tenant: parsed(row, "tenant", "tenant's name")?,
        scopes: parsed(row, "scopes", "list of scopes")?,
        created_at: WallTime(get(row, "created_at")?),
        expires_at: get::<Option<i64>>(row, "expires_at")?.map(WallTime),
    };
    let wrong = |bytes: Vec<u8>| StoreError::Corrupt { what: "digest", found: format!("{} bytes", bytes.len()) };
    Ok((token, digest.try_into().map_err(wrong)?))
}
