//! Idempotency keys (the IETF's draft-ietf-httpapi-idempotency-key-header-07): a request that is made twice is done once.

use std::fmt;

use crate::domain::id::{EnvironmentId, ExecutionId};

/// A caller's key, as it came. It is kept as a hash only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID")]
pub struct KeyInvalid;

impl IdempotencyKey {
    /// Takes a header's value. The draft's quotes around it are part of no key.
    ///
    /// # Errors
    /// When it is empty, too long, or holds anything but visible ASCII.
    pub fn accept(value: &[u8]) -> Result<Self, KeyInvalid> {
        let text = std::str::from_utf8(value).map_err(|_| KeyInvalid)?.trim();
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let fits = (1..=255).contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(bare.to_owned())) } else { Err(KeyInvalid) }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SHA-256 in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub String);

/// A SHA-256, in hexadecimal, of what was asked under a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint(pub String);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({:.8})", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:.8})", self.0)
    }
}

/// What a key was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A call whose caller waits.
    Call(EnvironmentId, ExecutionId),
    /// A call that is accepted, and answered later.
    Accepted(EnvironmentId, ExecutionId),
    /// An environment that is made.
    SetUp(EnvironmentId),
}

/// What the store says of a key that somebody wants to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is his.
    New,
    /// It was used before, for that; `settled`: and answered.
    Known { fingerprint: Fingerprint, subject: Subject, settled: bool },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_with_or_without_quotes() {
        let key = IdempotencyKey::accept(b"\"8e03978e-40d5\"").unwrap();
        assert_eq!(Ok(key), IdempotencyKey::accept(b" 8e03978e-40d5 "));
        for bad in ["", "\"\"", "a b", "é", "a\u{7f}", &"x".repeat(256)] {
            assert_eq!(IdempotencyKey::accept(bad.as_bytes()), Err(KeyInvalid), "{bad:?}");
        }
    }
}
