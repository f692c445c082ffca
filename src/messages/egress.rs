//! The Egress actor's contract.

use actix::prelude::*;

use crate::domain::credential::{Credential, CredentialFacts, CredentialName};
use crate::domain::egress::EgressPicture;
use crate::domain::failure::FailureKind;

/// What went out of the sandboxes so far?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "EgressPicture")]
pub struct GetEgress;

/// Keeps a secret, in place of a former one of its name; in force for the next request.
#[derive(Debug, Message)]
#[rtype(result = "Result<CredentialFacts, CredentialRefused>")]
pub struct PutCredential {
    pub credential: Credential,
}

/// Forgets a secret: from now on it is put into nothing.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), CredentialRefused>")]
pub struct RemoveCredential {
    pub name: CredentialName,
}

/// Which secrets are there, by name?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<CredentialFacts>")]
pub struct GetCredentials;

/// Why a secret is not kept, or not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialRefused {
    #[error("there is no secret {0}")]
    Absent(CredentialName),
    #[error("{0} secrets are kept already, and no more may be: remove one first")]
    Full(usize),
    #[error("{doing} failed: {cause}")]
    Host { doing: &'static str, cause: String, kind: FailureKind },
}
