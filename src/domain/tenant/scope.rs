//! What a token lets its bearer do.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One thing that a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// See environments and their calls.
    EnvironmentsRead,
    /// Make, change and delete environments.
    EnvironmentsWrite,
    /// Call handlers.
    Execute,
    /// Put jobs into this host's queue, and cancel them.
    JobsSubmit,
    /// See how jobs stand, and their answers.
    JobsRead,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Scope; 5] =
        [Scope::EnvironmentsRead, Scope::EnvironmentsWrite, Scope::Execute, Scope::JobsSubmit, Scope::JobsRead];

    /// The name on the command line, in the store and in refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::EnvironmentsRead => "environments:read",
            Scope::EnvironmentsWrite => "environments:write",
            Scope::Execute => "execute",
            Scope::JobsSubmit => "jobs:submit",
            Scope::JobsRead => "jobs:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no list of scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no scope: use all, or some of environments:read, environments:write, execute, jobs:submit, jobs:read, \
     divided by commas"
)]
pub struct UnknownScope(pub String);

/// A set of scopes, never empty. Written with commas; `all` stands for those that there are at the time, so that a
/// token does not grow with a later version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Every scope there is.
    pub fn all() -> Self {
        Self(BTreeSet::from(Scope::ALL))
    }

    /// Whether `scope` is among them.
    pub fn hold(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        if text.trim() == "all" {
            return Ok(Self::all());
        }
        let named = |word: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        let unknown = |word: &str| UnknownScope(word.chars().take(64).collect());
        let words = text.split(',').map(str::trim);
        words.map(|word| named(word).ok_or_else(|| unknown(word))).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|scope| scope.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

impl Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|scope| scope.as_str()))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<String>::deserialize(deserializer)?.join(",").parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written_and_nothing_else_is_one() {
        let two: Scopes = "execute, environments:read".parse().unwrap();
        assert_eq!(two.to_string(), "environments:read,execute");
        assert_eq!(two.to_string().parse(), Ok(two.clone()));
        assert!(two.hold(Scope::Execute) && !two.hold(Scope::JobsSubmit));
        assert_eq!("all".parse(), Ok(Scopes::all()));
        for bad in ["", "execute,", "Execute", "*", "execute;jobs:read", "all,execute"] {
            assert!(bad.parse::<Scopes>().is_err(), "{bad:?}");
        }
        assert_eq!(serde_json::to_string(&two).unwrap(), r#"["environments:read","execute"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(r#"["environments:read","execute"]"#).unwrap(), two);
        assert!(serde_json::from_str::<Scopes>("[]").is_err(), "a token that opens nothing is none");
    }
}
