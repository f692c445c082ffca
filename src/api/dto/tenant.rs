//! Tenants and their tokens, as the health socket shows them to whoever runs the daemon.

use serde::{Deserialize, Serialize};

pub use crate::domain::quota::{Allowance, Rate};
pub use crate::domain::tenant::{Scopes, TenantName};
use crate::domain::tenant::{TenantView, Token};

/// A tenant: what it was given, what is in force, what it uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantBody {
    pub name: TenantName,
    pub created_at: String,
    /// Its own settings; what is absent is left to the configuration.
    pub allowance: Allowance,
    pub quotas: QuotasBody,
    pub usage: UsageBody,
    pub tokens: usize,
}

/// What is in force. What is absent has no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotasBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environments: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
}

/// What is used: CPU time of today (UTC), calls at the moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageBody {
    pub environments: u64,
    pub calls: u64,
    pub cpu_seconds: f64,
    pub storage_bytes: u64,
}

impl From<TenantView> for TenantBody {
    fn from(view: TenantView) -> Self {
        let TenantView { tenant, quotas, usage, tokens } = view;
        Self {
            name: tenant.name,
            created_at: tenant.created_at.to_rfc3339(),
            allowance: tenant.allowance,
            quotas: QuotasBody {
                environments: quotas.environments,
                concurrency: quotas.concurrency,
                rate: quotas.rate,
                cpu_seconds: quotas.cpu_seconds,
                storage_bytes: quotas.storage_bytes,
            },
            usage: UsageBody {
                environments: usage.environments,
                calls: usage.calls,
                cpu_seconds: usage.cpu.as_secs_f64(),
                storage_bytes: usage.storage_bytes,
            },
            tokens,
        }
    }
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenOrderBody {
    pub tenant: TenantName,
    pub scopes: Scopes,
    /// Seconds; absent: it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lives_for: Option<u64>,
}

/// A token. Times are RFC 3339 in UTC.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenBody {
    pub id: String,
    pub tenant: TenantName,
    pub scopes: Scopes,
    pub created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The token itself, in the answer that made it and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl TokenBody {
    /// A token, with its text when it was just made.
    pub fn new(token: Token, text: Option<String>) -> Self {
        Self {
            id: token.id.to_string(),
            tenant: token.tenant,
            scopes: token.scopes,
            created_at: token.created_at.to_rfc3339(),
            expires_at: token.expires_at.map(|end| end.to_rfc3339()),
            token: text,
        }
    }
}
