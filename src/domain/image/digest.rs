//! A digest as images are named by it: `sha256:` and 64 lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// SHA-256 of a manifest, a config or a layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest such as sha256:<64 hexadecimal digits>; other algorithms are not known")]
pub struct DigestError(String);

const ALGORITHM: &str = "sha256:";

impl Digest {
    /// The digest whose 32 bytes these are.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }

    /// As a directory is named after it.
    pub fn directory(&self) -> String {
        format!("sha256-{}", self.0)
    }

    /// The digest that a directory is named after.
    pub fn of_directory(name: &str) -> Option<Self> {
        format!("{ALGORITHM}{}", name.strip_prefix("sha256-")?).parse().ok()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text
            .strip_prefix(ALGORITHM)
            .filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        hex.map(|hex| Self(hex.to_owned())).ok_or_else(|| DigestError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_in_lower_case_and_names_a_directory() {
        let digest = Digest::of_bytes(&[0xab; 32]);
        assert_eq!(digest.to_string(), format!("sha256:{}", "ab".repeat(32)));
        assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
        assert_eq!(Digest::of_directory(&digest.directory()), Some(digest));
        let (upper, other) = (format!("sha256:{}", "AB".repeat(32)), format!("sha512:{}", "ab".repeat(64)));
        for wrong in ["", "sha256:", "ab", "sha256:../../etc", &upper, &other] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        assert_eq!(Digest::of_directory(".making-x"), None);
    }
}
