//! Changes of environments in the same file as the store.

use async_trait::async_trait;

use super::failure::while_it;
use super::rows::signed;
use super::{SqliteStore, sql};
use crate::domain::environment::Environment;
use crate::domain::id::EnvironmentId;
use crate::ports::revisions::Revisions;
use crate::ports::store::StoreError;

#[async_trait]
impl Revisions for SqliteStore {
    async fn set_ttl(&self, id: EnvironmentId, seconds: u64) -> Result<bool, StoreError> {
        let done = sqlx::query(sql::SET_TTL)
            .bind(id.to_string())
            .bind(signed(seconds))
            .execute(&self.writer)
            .await
            .map_err(while_it("set an environment's time to live"))?;
        Ok(done.rows_affected() > 0)
    }

    async fn switch(&self, next: &Environment) -> Result<bool, StoreError> {
        let metadata = serde_json::to_string(&next.metadata).map_err(|error| StoreError::Query {
            action: "write an environment's metadata as JSON",
            source: Box::new(error),
        })?;
        let done = sqlx::query(sql::SWITCH)
            .bind(next.id.to_string())
            .bind(&next.volume_name)
            .bind(&next.main_module)
            .bind(metadata)
            .bind(signed(next.revision))
            .execute(&self.writer)
            .await
            .map_err(while_it("switch an environment to its next revision"))?;
        Ok(done.rows_affected() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::sqlite::tests::{environment, housed};
    use crate::domain::environment::EnvironmentStatus;
    use crate::domain::quota::Quotas;
    use crate::ports::store::Store as _;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_switch_is_made_from_the_revision_before_and_of_a_ready_environment_only() {
        let housed = housed().await;
        let first = environment(2);
        housed.insert_environment(&first, &Quotas::default()).await.unwrap();
        let next = |revision| Environment {
            volume_name: first.id.revised_volume_name(Uuid::from_u128(u128::from(revision))),
            main_module: "other.js".into(),
            revision,
            ..first.clone()
        };
        let revisions = housed.revisions();
        assert!(!revisions.switch(&next(3)).await.unwrap() && !revisions.switch(&next(1)).await.unwrap());
        assert!(revisions.switch(&next(2)).await.unwrap() && !revisions.switch(&next(2)).await.unwrap());
        assert!(revisions.set_ttl(first.id, 7).await.unwrap());
        let read = housed.environment(first.id).await.unwrap();
        assert_eq!(read, Some(Environment { ttl_seconds: 7, ..next(2) }));
        housed.set_status(first.id, EnvironmentStatus::Deleting).await.unwrap();
        assert!(!revisions.switch(&next(3)).await.unwrap() && !revisions.set_ttl(first.id, 8).await.unwrap());
    }
}
