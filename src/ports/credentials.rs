//! Where named secrets are kept: sealed on disk, and in clear for no longer than it takes to put one into a header.

use async_trait::async_trait;

use crate::domain::credential::{Credential, CredentialFacts, CredentialName};
use crate::domain::egress::Rule;
use crate::domain::time::WallTime;
use crate::ports::store::StoreError;

/// Why a secret is not kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{0} secrets are kept already, and no more may be: remove one first")]
    Full(usize),
    /// The text says what to do.
    #[error("{0}")]
    NoKey(String),
    #[error("a secret cannot be sealed")]
    Sealing,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The secrets of this host. What is asked is answered from memory; a change is in force as soon as it is answered.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Where a secret may go; None when there is none of that name.
    fn hosts(&self, name: &CredentialName) -> Option<Vec<Rule>>;

    /// A secret in clear. None when there is none, or none that can be opened.
    fn open(&self, name: &CredentialName) -> Option<Credential>;

    /// All of them, by name. Never a value.
    fn list(&self) -> Vec<CredentialFacts>;

    /// What a person must do so that all of them can be used; None: nothing.
    fn trouble(&self) -> Option<String>;

    /// Keeps one, in place of a former one of its name.
    ///
    /// # Errors
    /// When there is no room or no key for it, or the store does not take it; what was there before stays.
    async fn put(&self, credential: Credential, now: WallTime) -> Result<CredentialFacts, CredentialsError>;

    /// False when there is none of that name.
    ///
    /// # Errors
    /// When the store does not forget it; it is there still.
    async fn remove(&self, name: &CredentialName) -> Result<bool, CredentialsError>;
}

/// A secret as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCredential {
    pub facts: CredentialFacts,
    /// Opaque to the store.
    pub sealed: Vec<u8>,
}

/// The durable record of sealed secrets. Every write is on disk when its future is done.
#[async_trait]
pub trait SealedCredentials: Send + Sync {
    async fn sealed_credentials(&self) -> Result<Vec<SealedCredential>, StoreError>;
    /// Writes one, in place of a former one of its name.
    async fn keep_credential(&self, sealed: &SealedCredential) -> Result<(), StoreError>;
    /// False when there is none.
    async fn forget_credential(&self, name: &CredentialName) -> Result<bool, StoreError>;
}
