//! A secret as it is sent in, and as it is told: never with its value.

use serde::{Deserialize, Serialize};

use crate::domain::credential::CredentialFacts;

/// The body of `PUT /secrets/{name}`, as a client writes it.
#[derive(Serialize)]
pub struct PutSecretBody {
    pub value: String,
    /// `host`, `host:port`, `*.suffix`.
    pub hosts: Vec<String>,
}

/// A secret that is kept. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretBody {
    pub name: String,
    pub hosts: Vec<String>,
    pub created_at: String,
    pub updated_at: String,
}

impl From<CredentialFacts> for SecretBody {
    fn from(facts: CredentialFacts) -> Self {
        Self {
            name: facts.name.to_string(),
            hosts: facts.hosts.iter().map(ToString::to_string).collect(),
            created_at: facts.created_at.to_rfc3339(),
            updated_at: facts.updated_at.to_rfc3339(),
        }
    }
}
