//! A credential's name: that of the variable that sandboxes see it under.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::execution::{EnvInvalid, validate_env_name};

/// Letters, digits and `_`, none of them steering a runtime or a loader.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialName(String);

impl CredentialName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialName {
    type Err = EnvInvalid;

    fn from_str(text: &str) -> Result<Self, EnvInvalid> {
        validate_env_name(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for CredentialName {
    type Error = EnvInvalid;

    fn try_from(text: String) -> Result<Self, EnvInvalid> {
        text.parse()
    }
}

impl From<CredentialName> for String {
    fn from(name: CredentialName) -> Self {
        name.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
