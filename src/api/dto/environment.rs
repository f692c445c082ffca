//! An environment as it is asked for and as it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::environment::Environment;
pub use crate::domain::environment::{Dependencies, EnvironmentStatus, Isolation, Metadata, Permissions, Runtime};
use crate::domain::id::EnvironmentId;
pub use crate::domain::quota::EnvironmentLimits;

/// The body of `POST /environments/setup`, as a client writes it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetUpBody {
    pub main_module: String,
    /// Source text by module name. User data.
    pub modules: BTreeMap<String, String>,
    #[serde(default)]
    pub runtime: Runtime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    /// Names of secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Seconds; 0 or absent is an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<EnvironmentLimits>,
    /// Absent: each call has a sandbox of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// An environment. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentBody {
    pub id: EnvironmentId,
    pub volume_name: String,
    pub main_module: String,
    pub runtime: Runtime,
    pub created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_executed_at: Option<String>,
    pub execution_count: u64,
    pub status: EnvironmentStatus,
    pub metadata: Metadata,
    pub ttl_seconds: u64,
    /// Absent where the set-up named none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<EnvironmentLimits>,
    /// From 1; rises with each change of its modules.
    #[serde(default = "first")]
    pub revision: u64,
}

fn first() -> u64 {
    1
}

/// The body of `PUT /environments/{id}/modules`, as a client writes it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModulesBody {
    /// Absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_module: Option<String>,
    /// Source text by module name; those that are not named are gone. User data.
    pub modules: BTreeMap<String, String>,
    /// Absent: the installed packages stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,
}

/// The body of `PATCH /environments/{id}`, and of `POST /environments/{id}/clone`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TtlBody {
    /// Seconds from the creation on; 0 is an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

impl From<Environment> for EnvironmentBody {
    fn from(environment: Environment) -> Self {
        Self {
            id: environment.id,
            volume_name: environment.volume_name,
            main_module: environment.main_module,
            runtime: environment.runtime,
            created_at: environment.created_at.to_rfc3339(),
            last_executed_at: environment.last_executed_at.map(|time| time.to_rfc3339()),
            execution_count: environment.execution_count,
            status: environment.status,
            metadata: environment.metadata,
            ttl_seconds: environment.ttl_seconds,
            limits: Some(environment.limits).filter(|limits| *limits != EnvironmentLimits::default()),
            revision: environment.revision,
        }
    }
}
