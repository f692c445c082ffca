//! The key ring: the only place of the server's private keys.

use crate::domain::envelope::{Envelope, Kid, ReplayTag};
use crate::domain::job::{ReplyAddress, SealedPart};
use crate::domain::secret::Secret;
use crate::domain::time::Moment;

/// A request that opened.
pub struct Unsealed {
    pub plaintext: Secret,
    /// The key it was sealed to.
    pub kid: Kid,
    pub tag: ReplayTag,
}

/// Why a box stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// One error for all reasons: a refused `epk`, a wrong key, a changed byte.
    #[error("invalid ciphertext")]
    Unopenable,
    #[error("no key of the ring has the kid {0}")]
    UnknownKey(Kid),
    #[error("the ring is empty")]
    NoKey,
    #[error("the kernel gives no random numbers")]
    NoRandom,
}

/// A key of the ring, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub kid: Kid,
    /// Standard base64 of the public key.
    pub public_key: String,
    pub current: bool,
    /// Whether the secret half is in memory that is never swapped out.
    pub locked: bool,
    /// When a former key is destroyed.
    pub until: Option<Moment>,
}

/// Opens and seals. Its methods compute and block: a box of megabytes belongs on a blocking thread.
pub trait Vault: Send + Sync {
    /// The ring, the current key first. Empty: nothing can be opened.
    fn keys(&self) -> Vec<KeyInfo>;

    /// Opens a request in place. Without a `kid` the current key is tried, then the former ones.
    ///
    /// # Errors
    /// See [`VaultError`]; the time taken tells nothing about the reason.
    fn open(&self, envelope: Envelope) -> Result<Unsealed, VaultError>;

    /// Seals for the caller of a request, from the key that it was sealed to.
    ///
    /// # Errors
    /// `UnknownKey` when that key was destroyed in the meantime.
    fn seal(&self, to: &ReplyAddress, plaintext: Vec<u8>) -> Result<SealedPart, VaultError>;

    /// Reads the sources of keys again. A new current key makes the old one a former key until `overlap` from `now`.
    ///
    /// # Errors
    /// What could not be read, in words; the ring stays as it is.
    fn reload(&self, now: Moment) -> Result<Vec<KeyInfo>, String>;

    /// Destroys former keys whose time is over. Says how many.
    fn retire(&self, now: Moment) -> usize;
}
