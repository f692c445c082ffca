//! `Idempotency-Key`: a request that comes twice is done once.

use actix_web::http::header::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use crate::api::DeskHandles;
use crate::api::error::ApiError;
use crate::domain::desk::{Answer, Fingerprint, IdempotencyKey, KeyId, Subject};
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::tenant::TenantName;
use crate::messages::call_desk::{Claim, ClaimKey, ReleaseKey, SettleKey};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// What a key stands for already.
#[derive(Debug)]
pub enum Before {
    Answered(Answer),
    Accepted(ExecutionId),
    Made(EnvironmentId),
}

/// What a key's work came to.
pub enum Work<T> {
    /// It is done; `answer` is what whoever asks again is told, where the subject does not say it.
    Done { told: T, answer: Option<Answer> },
    /// It is not: the key is free again, and those who wait for it are told the same.
    Undone { told: T, answer: Answer },
}

/// Done now, or done before.
pub enum Once<T> {
    Now(T),
    Before(Before),
}

/// The key that a request has.
pub fn of(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    Ok(Some(IdempotencyKey::accept(value.as_bytes())?))
}

/// Where a key is used: each tenant's keys are its own.
pub fn place(tenant: &TenantName, what: &str) -> String {
    // No name of a tenant has a space.
    format!("{tenant} {what}")
}

/// Asks for the key of a request whose body is `body`. Equal keys for different `places` have nothing to do with one
/// another; `way` tells apart what is asked for beside the body.
pub fn claim(key: &IdempotencyKey, place: &str, way: &str, body: &[u8], subject: Subject) -> ClaimKey {
    ClaimKey {
        key: KeyId(digest(&[place.as_bytes(), key.as_str().as_bytes()])),
        fingerprint: Fingerprint(digest(&[way.as_bytes(), body])),
        subject,
    }
}

/// Does the work unless it was done before. To be run in a task of its own: a key must not be held by nobody.
pub async fn once<T>(
    desk: DeskHandles,
    claim: ClaimKey,
    work: impl Future<Output = Work<T>>,
) -> Result<Once<T>, ApiError> {
    let key = claim.key.clone();
    let before = match desk.claim.ask(claim).await?? {
        Claim::Held => {
            let told = match work.await {
                Work::Done { told, answer } => {
                    // A desk that is gone meanwhile finds in the records what was done.
                    let _ = desk.settle.ask(SettleKey { key, answer }).await;
                    told
                }
                Work::Undone { told, answer } => {
                    let _ = desk.release.ask(ReleaseKey { key, answer }).await;
                    told
                }
            };
            return Ok(Once::Now(told));
        }
        Claim::Answered(answer) => Before::Answered(answer),
        Claim::Accepted(execution) => Before::Accepted(execution),
        Claim::Made(environment) => Before::Made(environment),
        Claim::Other => return Err(ApiError::KeyReused),
        Claim::Unkept(execution) => return Err(ApiError::AnswerNotKept(execution)),
        Claim::CutOff(execution) => return Err(ApiError::CutOff(execution)),
    };
    Ok(Once::Before(before))
}

/// SHA-256 over the parts, each with its length before it.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_key_is_bound_to_its_place_and_a_request_to_its_way_and_body() {
        let key = IdempotencyKey::accept(b"k").unwrap();
        let subject = Subject::SetUp(EnvironmentId(Uuid::nil()));
        let of = |place: &str, way: &str, body: &[u8]| claim(&key, place, way, body, subject);
        let first = of("a", "", b"{}");
        assert_eq!((first.key.0.len(), first.fingerprint.0.len()), (64, 64));
        assert_ne!(first.key, of("b", "", b"{}").key);
        let tenants: [TenantName; 2] = ["acme", "umbrella"].map(|name| name.parse().unwrap());
        let [ours, theirs] = tenants.map(|tenant| place(&tenant, "setup"));
        assert_ne!(of(ours.as_str(), "", b"{}").key, of(theirs.as_str(), "", b"{}").key);
        let other = of("a", "{", b"}");
        assert!(first.key == other.key && first.fingerprint != other.fingerprint);
    }
}
