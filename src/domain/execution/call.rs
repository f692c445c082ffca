//! What a caller may ask for: limits within caps, and an environment that steers nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FilesForm;
use crate::domain::id::{EnvironmentId, ExecutionId, RequestId};

/// What one call may use. Times on the host's clock, memory above the idle runtime's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub timeout: Duration,
    pub memory_mb: u64,
}

/// The defaults and the caps that callers' limits are held to.
#[derive(Debug, Clone, Copy)]
pub struct LimitPolicy {
    pub default: Limits,
    pub cap: Limits,
}

/// The least memory a call can ask for, in MiB: below it no engine starts.
pub const MIN_MEMORY_MB: u64 = 16;

impl LimitPolicy {
    /// The limits of a call: what it asked for (0 counts as not asked), never above the caps.
    pub fn resolve(&self, timeout_ms: Option<u64>, memory_mb: Option<u64>) -> Limits {
        let timeout = match timeout_ms {
            None | Some(0) => self.default.timeout,
            Some(millis) => Duration::from_millis(millis),
        };
        let memory = match memory_mb {
            None | Some(0) => self.default.memory_mb,
            Some(megabytes) => megabytes.max(MIN_MEMORY_MB),
        };
        Limits { timeout: timeout.min(self.cap.timeout), memory_mb: memory.min(self.cap.memory_mb) }
    }
}

/// What a caller sends to be run. `data` is JSON text, passed on untouched; user data, never logged.
#[derive(Clone, Serialize, Deserialize)]
pub struct Call {
    pub execution: ExecutionId,
    pub environment: EnvironmentId,
    pub request: RequestId,
    pub data: String,
    pub env: BTreeMap<String, String>,
    pub limits: Limits,
    /// Whether what the handler leaves in its sandbox's `/tmp/out` comes back with its result, and how.
    #[serde(default)]
    pub files: FilesForm,
}

/// Why an `env` entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvInvalid {
    #[error(
        "env name {0:?} is not a variable name: use letters, digits and _, not starting with a digit, at most 128 bytes"
    )]
    Name(String),
    #[error("env name {0:?} is reserved: it would steer the runtime or the loader")]
    Reserved(String),
    #[error("env value of {0:?} holds a NUL or is longer than 32768 bytes")]
    Value(String),
    #[error("env has {0} entries: at most 256 are allowed")]
    TooMany(usize),
}

const RESERVED_ENV: [&str; 14] = [
    "PATH",
    "HOME",
    "SHELL",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "IFS",
    "ENV",
    "BASH_ENV",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
const RESERVED_ENV_PREFIXES: [&str; 6] = ["LD_", "DENO_", "BUN_", "NPM_CONFIG_", "GLIBC_", "MALLOC_"];

/// Checks a call's `env`.
///
/// # Errors
/// The first entry that is refused, with the reason.
pub fn validate_env(env: &BTreeMap<String, String>) -> Result<(), EnvInvalid> {
    if env.len() > 256 {
        return Err(EnvInvalid::TooMany(env.len()));
    }
    for (name, value) in env {
        validate_env_name(name)?;
        if value.contains('\0') || value.len() > 32_768 {
            return Err(EnvInvalid::Value(name.clone()));
        }
    }
    Ok(())
}

/// Checks the name of a variable.
///
/// # Errors
/// `Name` for one that no shell would take, `Reserved` for one that would steer the runtime.
pub fn validate_env_name(name: &str) -> Result<(), EnvInvalid> {
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let reads_well = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !starts_well || !reads_well || name.len() > 128 {
        return Err(EnvInvalid::Name(name.chars().take(64).collect()));
    }
    let upper = name.to_ascii_uppercase();
    let reserved =
        RESERVED_ENV.contains(&upper.as_str()) || RESERVED_ENV_PREFIXES.iter().any(|prefix| upper.starts_with(prefix));
    if reserved { Err(EnvInvalid::Reserved(name.to_owned())) } else { Ok(()) }
}
