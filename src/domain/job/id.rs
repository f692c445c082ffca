//! The names of a job and of its prompt.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest id of a job, in bytes.
const LONGEST: usize = 128;

/// A job's id, given by its source. RunPod's look like `<uuid>-u1` or `sync-<uuid>-e1`. It goes into URLs and logs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct JobId(Arc<str>);

/// A text that is no job's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job's id has 1 to {LONGEST} letters, digits and -_.:")]
pub struct InvalidJobId;

impl JobId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A new id for a job of this host.
    pub fn local(uuid: Uuid) -> Self {
        Self(Arc::from(uuid.hyphenated().to_string()))
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(fine) || text.bytes().all(|byte| byte == b'.') {
            return Err(InvalidJobId);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// ComfyUI's name for one run of a job, chosen by us before it is posted. Lower-case and hyphenated on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PromptId(pub Uuid);

impl fmt::Display for PromptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_ids_are_taken_and_what_could_steer_a_url_is_not() {
        for good in ["00000000-0000-4000-8000-000000000000-u1", "sync-8f-e1", "test-1", "a", "local_test"] {
            assert_eq!(good.parse::<JobId>().map(|id| id.to_string()), Ok(good.to_owned()));
        }
        let long = "a".repeat(129);
        for bad in ["", "a/b", "a?b", "a b", "..", ".", "a\n", "é", "%2e", &long] {
            assert_eq!(bad.parse::<JobId>(), Err(InvalidJobId), "{bad:?}");
        }
    }
}
