//! Sealed secrets as rows. What is sealed stays so here: this file has no key.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::failure::while_it;
use super::sql;
use crate::domain::credential::{CredentialFacts, CredentialName};
use crate::domain::egress::Rule;
use crate::domain::time::WallTime;
use crate::ports::credentials::{SealedCredential, SealedCredentials};
use crate::ports::store::StoreError;

#[async_trait]
impl SealedCredentials for SqliteStore {
    async fn sealed_credentials(&self) -> Result<Vec<SealedCredential>, StoreError> {
        let rows = sqlx::query(sql::SECRETS).fetch_all(&self.readers).await.map_err(while_it("list the secrets"))?;
        rows.iter().map(sealed).collect()
    }

    async fn keep_credential(&self, sealed: &SealedCredential) -> Result<(), StoreError> {
        let hosts: Vec<String> = sealed.facts.hosts.iter().map(ToString::to_string).collect();
        sqlx::query(sql::KEEP_SECRET)
            .bind(sealed.facts.name.as_str())
            .bind(serde_json::Value::from(hosts).to_string())
            .bind(&sealed.sealed)
            .bind(sealed.facts.created_at.0)
            .bind(sealed.facts.updated_at.0)
            .execute(&self.writer)
            .await
            .map_err(while_it("write a secret"))?;
        Ok(())
    }

    async fn forget_credential(&self, name: &CredentialName) -> Result<bool, StoreError> {
        let done = sqlx::query(sql::FORGET_SECRET)
            .bind(name.as_str())
            .execute(&self.writer)
            .await
            .map_err(while_it("delete a secret"))?;
        Ok(done.rows_affected() > 0)
    }
}

fn sealed(row: &SqliteRow) -> Result<SealedCredential, StoreError> {
    let get = |column| row.try_get::<String, _>(column).map_err(while_it("read a secret"));
    let time = |column| row.try_get(column).map(WallTime).map_err(while_it("read a secret"));
    let (name, hosts) = (get("name")?, get("hosts")?);
    let facts = CredentialFacts {
        hosts: rules(&hosts).ok_or(StoreError::Corrupt { what: "secret's hosts", found: hosts })?,
        name: name.parse().map_err(|_| StoreError::Corrupt { what: "secret's name", found: name })?,
        created_at: time("created_at")?,
        updated_at: time("updated_at")?,
    };
    Ok(SealedCredential { facts, sealed: row.try_get("sealed").map_err(while_it("read a secret"))? })
}

fn rules(hosts: &str) -> Option<Vec<Rule>> {
    let entries: Vec<String> = serde_json::from_str(hosts).ok()?;
    entries.iter().map(|entry| entry.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_kept_replaced_listed_by_name_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cloister.db");
        let store = SqliteStore::open(&path, 2).await.unwrap();
        let sealed = |name: &str, bytes: &[u8], updated| SealedCredential {
            facts: CredentialFacts {
                name: name.parse().unwrap(),
                hosts: vec!["a.example".parse().unwrap(), "*.b.example:8443".parse().unwrap()],
                created_at: WallTime(1),
                updated_at: WallTime(updated),
            },
            sealed: bytes.to_vec(),
        };
        for one in [sealed("B", &[0, 255], 1), sealed("A", b"old", 1), sealed("A", b"new", 2)] {
            store.keep_credential(&one).await.unwrap();
        }
        drop(store);
        let store = SqliteStore::open(&path, 2).await.unwrap();
        assert_eq!(store.sealed_credentials().await.unwrap(), [sealed("A", b"new", 2), sealed("B", &[0, 255], 1)]);
        let name = "A".parse().unwrap();
        assert!(store.forget_credential(&name).await.unwrap() && !store.forget_credential(&name).await.unwrap());
        assert_eq!(store.sealed_credentials().await.unwrap().len(), 1);
    }
}
