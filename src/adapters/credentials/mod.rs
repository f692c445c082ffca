//! The secrets that sandboxes use and never see: sealed in the store, sealed in memory, open for one request at a time.
//!
//! ```text
//!   put ─► seal (key.rs) ─► ports::credentials::SealedCredentials ─► memory ─► told
//!   a request's header ─► open ─► value ─► the header            (what is freed is wiped: sys::wipe)
//! ```
//!
//! What is sealed is name, hosts and value together: who can write to the store and has no key can send none elsewhere.

mod key;
mod registry_tokens;
mod sealing;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use slog::{Logger, warn};

pub use self::key::{KeyError, KeySources, look};
pub use self::registry_tokens::{TokensError, registry_tokens};
use self::sealing::{seal, unseal};
use crate::domain::credential::{Credential, CredentialFacts, CredentialName};
use crate::domain::egress::Rule;
use crate::domain::time::WallTime;
use crate::ports::credentials::{Credentials, CredentialsError, SealedCredential, SealedCredentials};
use crate::ports::store::StoreError;
use crate::sys::secret::Secret;
use crate::telemetry::error_chain;

/// The most secrets of one host.
const MOST: usize = 1000;

type Key = Secret<32>;
type Records = BTreeMap<CredentialName, Kept>;

/// One secret as it lies in memory.
struct Kept {
    sealed: SealedCredential,
    /// Whether the key opens it; looked at once.
    opens: bool,
}

/// The secrets of this host.
pub struct HostCredentials {
    records: Arc<dyn SealedCredentials>,
    key: Result<Key, KeyError>,
    kept: RwLock<Records>,
    /// Changes are made one after the other, so that memory and store see them in one order.
    changing: tokio::sync::Mutex<()>,
}

impl HostCredentials {
    /// Reads what is kept, and the key. A key is made where there is none and nothing that it could open. Without one, or
    /// with a wrong one, the rest of the daemon lives on; see [`Credentials::trouble`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(
        records: Arc<dyn SealedCredentials>,
        sources: &KeySources,
        log: &Logger,
    ) -> Result<Self, StoreError> {
        let kept = records.sealed_credentials().await?;
        let key = key::read_or_make(sources, kept.is_empty());
        if let Err(problem) = &key {
            warn!(log, "secrets.no_key"; "error" => error_chain(problem), "kept" => kept.len());
        }
        let opens = |sealed: &SealedCredential| key.as_ref().is_ok_and(|key| unseal(key, sealed).is_some());
        let kept = kept.into_iter().map(|sealed| {
            let opens = opens(&sealed);
            (sealed.facts.name.clone(), Kept { sealed, opens })
        });
        let kept = kept.collect();
        Ok(Self { records, key, kept: RwLock::new(kept), changing: tokio::sync::Mutex::default() })
    }

    fn read<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Records)) {
        change(&mut self.kept.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[async_trait]
impl Credentials for HostCredentials {
    fn hosts(&self, name: &CredentialName) -> Option<Vec<Rule>> {
        self.read(|kept| kept.get(name).map(|kept| kept.sealed.facts.hosts.clone()))
    }

    fn open(&self, name: &CredentialName) -> Option<Credential> {
        let key = self.key.as_ref().ok()?;
        self.read(|kept| unseal(key, &kept.get(name)?.sealed))
    }

    fn list(&self) -> Vec<CredentialFacts> {
        self.read(|kept| kept.values().map(|kept| kept.sealed.facts.clone()).collect())
    }

    fn trouble(&self) -> Option<String> {
        if let Err(problem) = &self.key {
            return Some(error_chain(problem).to_string());
        }
        let closed = self.read(|kept| kept.values().filter(|kept| !kept.opens).count());
        (closed > 0).then(|| {
            format!("{closed} secrets cannot be opened with the key of this host: put its former key back, or set or remove them")
        })
    }

    async fn put(&self, credential: Credential, now: WallTime) -> Result<CredentialFacts, CredentialsError> {
        let key = self.key.as_ref().map_err(|problem| CredentialsError::NoKey(error_chain(problem).to_string()))?;
        let _alone = self.changing.lock().await;
        let (former, count) =
            self.read(|kept| (kept.get(&credential.name).map(|kept| kept.sealed.facts.created_at), kept.len()));
        if former.is_none() && count >= MOST {
            return Err(CredentialsError::Full(count));
        }
        let sealed = seal(key, &credential).ok_or(CredentialsError::Sealing)?;
        let Credential { name, hosts, .. } = credential;
        let facts = CredentialFacts { name, hosts, created_at: former.unwrap_or(now), updated_at: now };
        let sealed = SealedCredential { facts: facts.clone(), sealed };
        self.records.keep_credential(&sealed).await?;
        self.change(|kept| drop(kept.insert(facts.name.clone(), Kept { sealed, opens: true })));
        Ok(facts)
    }

    async fn remove(&self, name: &CredentialName) -> Result<bool, CredentialsError> {
        let _alone = self.changing.lock().await;
        let was_there = self.records.forget_credential(name).await?;
        self.change(|kept| drop(kept.remove(name)));
        Ok(was_there)
    }
}
