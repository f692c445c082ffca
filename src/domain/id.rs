//! Identifiers. Each is a type of its own, so that one cannot stand in for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// Names an environment, in the API and in the store.
    EnvironmentId
);
uuid_id!(
    /// Names one call of a handler.
    ExecutionId
);
uuid_id!(
    /// Names one sandbox, from its creation until nothing of it is left on the host.
    SlotId
);

/// The prefix of every volume's name, as the first system wrote it.
pub const VOLUME_PREFIX: &str = "tee-env-";

impl EnvironmentId {
    /// The name of this environment's volume: `tee-env-<uuid>`.
    pub fn volume_name(self) -> String {
        format!("{VOLUME_PREFIX}{self}")
    }

    /// The name of the volume of a later revision: `tee-env-<uuid>.<32 hex digits>`, of which `nonce` makes the latter.
    /// A name is never used twice, so that what is left of one revision is never taken for another.
    pub fn revised_volume_name(self, nonce: Uuid) -> String {
        format!("{VOLUME_PREFIX}{self}.{}", nonce.simple())
    }

    /// The environment that a volume's name stands for, whatever its revision, if it is such a name.
    pub fn from_volume_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix(VOLUME_PREFIX)?;
        name.split_once('.').map_or(name, |(id, _)| id).parse().ok()
    }
}

/// The caller's name for a request (`X-Request-ID`), taken or made by the API, and echoed.
///
/// At most 128 visible ASCII characters, so that it can stand in a log line and in a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// Takes a caller's own id, unless it is empty, too long or holds anything but visible ASCII.
    pub fn accept(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// Names a request that came without an id.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id.to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_name_leads_back_to_its_environment() {
        let id = EnvironmentId(Uuid::from_u128(7));
        assert_eq!(EnvironmentId::from_volume_name(&id.volume_name()), Some(id));
        assert_eq!(EnvironmentId::from_volume_name("tee-env-nonsense"), None);
        assert_eq!(EnvironmentId::from_volume_name("other"), None);
        let revised = id.revised_volume_name(Uuid::from_u128(9));
        assert_eq!(revised, format!("{}.00000000000000000000000000000009", id.volume_name()));
        assert_eq!(EnvironmentId::from_volume_name(&revised), Some(id));
    }

    #[test]
    fn a_request_id_cannot_break_a_header_or_a_log_line() {
        assert!(RequestId::accept("abc-123").is_some());
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(129)] {
            assert!(RequestId::accept(bad).is_none(), "{bad:?}");
        }
    }
}
