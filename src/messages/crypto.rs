//! The Crypto actor's contract.

use actix::prelude::*;

use crate::domain::envelope::Kid;
use crate::domain::job::{JobId, OpenError, ReplyAddress, Request, SealedPart};
use crate::domain::secret::Secret;

/// Reads a job's input, opens it where it is sealed, and says what it asks for. Remembers it against replay.
#[derive(Message)]
#[rtype(result = "Result<Request, OpenError>")]
pub struct Open {
    pub job: JobId,
    /// JSON text of the job's `input`.
    pub input: Secret,
}

/// Seals a text for the caller of a request.
#[derive(Message)]
#[rtype(result = "Result<SealedPart, SealError>")]
pub struct Seal {
    pub to: ReplyAddress,
    pub plaintext: Secret,
}

/// Why nothing was sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the key {0} was destroyed before the answer was sealed")]
    KeyGone(Kid),
    #[error("{0}")]
    Host(String),
}

/// Read the keys' sources again: a new current key, the old one kept for the overlap.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ReloadKeys;

/// Which keys are in the ring?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "CryptoPicture")]
pub struct GetCrypto;

/// The ring and the guard, without a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, MessageResponse)]
#[serde(rename_all = "camelCase")]
pub struct CryptoPicture {
    /// The current key's kid first.
    pub kids: Vec<String>,
    /// Standard base64 of the current public key.
    pub public_key: Option<String>,
    /// Requests that the replay guard remembers.
    pub remembered: usize,
    pub opened: u64,
    pub refused: u64,
}
