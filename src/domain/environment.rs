//! An environment: one set-up module tree, its runtime and its permissions; and the request that makes one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::credential::{CredentialName, MOST_NAMED};
use crate::domain::egress;
use crate::domain::execution::EnvInvalid;
use crate::domain::id::EnvironmentId;
use crate::domain::module_name::{self, ModuleNameError};
use crate::domain::module_specifier::SpecifierError;
use crate::domain::package::PackageError;
use crate::domain::quota::EnvironmentLimits;
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;

/// Seconds an environment lives when its request does not say, or says 0.
pub const DEFAULT_TTL_SECONDS: u64 = 3600;
/// The longest life that can be asked for: ten years.
pub const MAX_TTL_SECONDS: u64 = 10 * 365 * 24 * 3600;
/// The most modules one environment may hold.
pub const MAX_MODULES: usize = 2000;

/// The JavaScript engine an environment's handler runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    #[default]
    Deno,
    Bun,
}

impl Runtime {
    /// Every runtime there is.
    pub const ALL: [Runtime; 2] = [Runtime::Deno, Runtime::Bun];

    /// The lower-case name that the API, the store and the file system use.
    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Deno => "deno",
            Runtime::Bun => "bun",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Runtime {
    type Err = SetUpInvalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "deno" => Ok(Runtime::Deno),
            "bun" => Ok(Runtime::Bun),
            other => Err(SetUpInvalid::UnknownRuntime(other.to_owned())),
        }
    }
}

/// A permission that may be a switch or a list, as the first system's clients write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Grant {
    Switch(bool),
    Only(Vec<String>),
}

/// What the handler may do inside its sandbox. On Deno these become its own flags; the sandbox stands below them either way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Permissions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_net: Option<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_env: Option<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_read: Option<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_write: Option<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_run: Option<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_ffi: Option<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_hrtime: Option<bool>,
}

impl Permissions {
    fn lists(&self) -> [(&'static str, &Option<Grant>); 6] {
        [
            ("allowNet", &self.allow_net),
            ("allowEnv", &self.allow_env),
            ("allowRead", &self.allow_read),
            ("allowWrite", &self.allow_write),
            ("allowRun", &self.allow_run),
            ("allowFfi", &self.allow_ffi),
        ]
    }

    /// True where nothing is asked for beyond what a sandbox has that was made before its environment was known. Bun's
    /// has no permissions but the way out.
    pub fn are_plain(&self, runtime: Runtime) -> bool {
        let refused = |grant: &Option<Grant>| matches!(grant, None | Some(Grant::Switch(false)));
        let deno = || {
            let others = [&self.allow_read, &self.allow_write, &self.allow_run, &self.allow_ffi];
            self.allow_env.is_none() && others.into_iter().all(refused)
        };
        refused(&self.allow_net) && (runtime == Runtime::Bun || deno())
    }

    /// Refuses entries that could not stand in a comma-separated flag.
    fn validate(&self) -> Result<(), SetUpInvalid> {
        for (name, grant) in self.lists() {
            let Some(Grant::Only(entries)) = grant else { continue };
            let broken = entries.iter().any(|entry| {
                entry.is_empty() || entry.len() > 255 || entry.contains(',') || entry.chars().any(char::is_control)
            });
            if broken || entries.len() > 256 {
                return Err(SetUpInvalid::Permission(name));
            }
        }
        if let Some(Grant::Only(entries)) = &self.allow_net {
            for entry in entries {
                let rule = entry.parse::<egress::Rule>();
                rule.map_err(|error| SetUpInvalid::NotARule { entry: entry.clone(), error })?;
            }
        }
        Ok(())
    }
}

/// What a sandbox is shared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Each call has one of its own.
    #[default]
    Call,
    /// Calls of the environment follow each other in the same one, and see what the one before left there.
    Environment,
}

impl Isolation {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_usual(&self) -> bool {
        *self == Isolation::Call
    }

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Call => "call",
            Isolation::Environment => "environment",
        }
    }
}

/// Packages to install at set-up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependencies {
    #[serde(default)]
    pub npm: Vec<String>,
    #[serde(default)]
    pub deno: Vec<String>,
}

impl Dependencies {
    /// How many packages are named.
    pub fn count(&self) -> usize {
        self.npm.len() + self.deno.len()
    }
}

/// A request to make an environment, as it came in; [`SetUpRequest::validate`] says whether it can be.
#[derive(Clone)]
pub struct SetUpRequest {
    pub main_module: String,
    /// Source text by module name. User data: it is never logged.
    pub modules: BTreeMap<String, String>,
    pub runtime: Runtime,
    pub dependencies: Dependencies,
    pub permissions: Permissions,
    /// The secrets that its code uses, each once. Whether they are there is asked elsewhere.
    pub secrets: Vec<CredentialName>,
    /// 0 means [`DEFAULT_TTL_SECONDS`].
    pub ttl_seconds: u64,
    pub limits: EnvironmentLimits,
    pub isolation: Isolation,
}

impl SetUpRequest {
    /// Checks everything that can be known before any work is done. The first two texts are the first system's own.
    pub fn validate(&self) -> Result<(), SetUpInvalid> {
        if self.main_module.is_empty() {
            return Err(SetUpInvalid::MainModuleMissing);
        }
        if self.modules.is_empty() {
            return Err(SetUpInvalid::ModulesEmpty);
        }
        if !self.modules.contains_key(&self.main_module) {
            return Err(SetUpInvalid::MainModuleNotInModules);
        }
        if self.modules.len() > MAX_MODULES {
            return Err(SetUpInvalid::TooManyModules(self.modules.len()));
        }
        if self.ttl_seconds > MAX_TTL_SECONDS {
            return Err(SetUpInvalid::TtlTooLong(self.ttl_seconds));
        }
        if !self.limits.are_valid() {
            return Err(SetUpInvalid::Concurrency);
        }
        module_name::validate_all(self.modules.keys().map(String::as_str))?;
        self.permissions.validate()?;
        if self.secrets.len() > MOST_NAMED {
            return Err(SetUpInvalid::TooManySecrets(self.secrets.len()));
        }
        if !self.dependencies.deno.is_empty() && self.runtime != Runtime::Deno {
            return Err(SetUpInvalid::DenoDependencies);
        }
        Ok(())
    }

    /// The life asked for, in seconds.
    pub fn ttl(&self) -> u64 {
        if self.ttl_seconds == 0 { DEFAULT_TTL_SECONDS } else { self.ttl_seconds }
    }

    /// The record of the environment that this request makes.
    pub fn environment(&self, id: EnvironmentId, tenant: TenantName, created_at: WallTime) -> Environment {
        Environment {
            id,
            tenant,
            volume_name: id.volume_name(),
            main_module: self.main_module.clone(),
            runtime: self.runtime,
            created_at,
            last_executed_at: None,
            execution_count: 0,
            status: EnvironmentStatus::SettingUp,
            metadata: Metadata {
                permissions: self.permissions.clone(),
                secrets: self.secrets.clone(),
                module_count: self.modules.len(),
                dependency_count: self.dependencies.count(),
                has_dependencies: self.dependencies.count() > 0,
                runtime: self.runtime,
                isolation: self.isolation,
            },
            ttl_seconds: self.ttl(),
            limits: self.limits,
            revision: 1,
        }
    }
}

/// New modules for an environment: its runtime and its permissions stay.
#[derive(Clone)]
pub struct ModulesUpdate {
    /// None: as before.
    pub main_module: Option<String>,
    /// All of them: those that are not named are gone. User data.
    pub modules: BTreeMap<String, String>,
    /// None: the packages that are installed stay.
    pub dependencies: Option<Dependencies>,
}

impl ModulesUpdate {
    /// The set-up that would have made the environment as it will be.
    pub fn applied_to(self, environment: &Environment) -> SetUpRequest {
        SetUpRequest {
            main_module: self.main_module.unwrap_or_else(|| environment.main_module.clone()),
            modules: self.modules,
            runtime: environment.runtime,
            dependencies: self.dependencies.unwrap_or_default(),
            permissions: environment.metadata.permissions.clone(),
            secrets: environment.metadata.secrets.clone(),
            limits: environment.limits,
            ttl_seconds: environment.ttl_seconds,
            isolation: environment.metadata.isolation,
        }
    }
}

/// Why a set-up request is refused before any work: the texts that the API answers with `validation_error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetUpInvalid {
    #[error("mainModule is required")]
    MainModuleMissing,
    #[error("modules cannot be empty")]
    ModulesEmpty,
    #[error("mainModule must exist in modules map")]
    MainModuleNotInModules,
    #[error("{0} modules are too many: at most {MAX_MODULES} are allowed")]
    TooManyModules(usize),
    #[error("ttlSeconds {0} is too long: at most {MAX_TTL_SECONDS}")]
    TtlTooLong(u64),
    #[error("limits.concurrency must be 1 to 10000")]
    Concurrency,
    #[error("runtime {0:?} is not known: use \"deno\" or \"bun\"")]
    UnknownRuntime(String),
    #[error("isolation {0:?} is not known: use \"call\" or \"environment\"")]
    UnknownIsolation(String),
    #[error("permissions.{0} has an entry that is empty, too long, or holds a comma or a control character")]
    Permission(&'static str),
    #[error("permissions.allowNet has {entry:?}, which is {error}")]
    NotARule { entry: String, error: egress::RuleError },
    #[error("secrets has a name that cannot be one: {0}")]
    SecretName(EnvInvalid),
    #[error("{0} secrets are too many: at most {MOST_NAMED} are allowed")]
    TooManySecrets(usize),
    #[error("secrets names {0}, which is not stored: put it there first, with `cloister secrets set {0}`")]
    UnknownSecret(CredentialName),
    #[error(
        "secrets are put in on the way out of a sandbox, and nothing gets out on this host (sandbox.egress.enabled)"
    )]
    SecretsOff,
    #[error("dependencies are not enabled")]
    DependenciesNotEnabled,
    #[error("dependencies.deno is for runtime \"deno\": name packages of npm in dependencies.npm")]
    DenoDependencies,
    #[error("modules of JSR are not enabled (sandbox.jsr)")]
    JsrNotEnabled,
    #[error("modules may not come from {0} (sandbox.module_hosts)")]
    HostNotListed(String),
    #[error(transparent)]
    Specifier(#[from] SpecifierError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    ModuleName(#[from] ModuleNameError),
}

/// A place in a module that could not be turned into JavaScript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFault {
    pub module: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// Where an environment stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentStatus {
    /// Its row is written, its volume is not yet whole.
    SettingUp,
    /// It can be executed.
    Ready,
    /// It takes no more calls; its volume is going or gone.
    Deleting,
}

impl EnvironmentStatus {
    /// The name in the store and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EnvironmentStatus::SettingUp => "setting_up",
            EnvironmentStatus::Ready => "ready",
            EnvironmentStatus::Deleting => "deleting",
        }
    }
}

/// What the first system kept beside an environment, and the secrets that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub permissions: Permissions,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<CredentialName>,
    pub module_count: usize,
    pub dependency_count: usize,
    pub has_dependencies: bool,
    pub runtime: Runtime,
    #[serde(default, skip_serializing_if = "Isolation::is_usual")]
    pub isolation: Isolation,
}

/// An environment as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub id: EnvironmentId,
    /// Whose it is.
    pub tenant: TenantName,
    pub volume_name: String,
    pub main_module: String,
    pub runtime: Runtime,
    pub created_at: WallTime,
    pub last_executed_at: Option<WallTime>,
    pub execution_count: u64,
    pub status: EnvironmentStatus,
    pub metadata: Metadata,
    pub ttl_seconds: u64,
    pub limits: EnvironmentLimits,
    /// From 1; rises when its modules are changed, and `volume_name` names another tree then.
    pub revision: u64,
}

impl Environment {
    /// Whether its time is over: from then on nobody finds it, and the Reaper comes for it.
    fn is_over(&self, now: WallTime) -> bool {
        self.created_at.plus_seconds(self.ttl_seconds) <= now
    }

    /// Whether a caller of this tenant finds it now.
    pub fn is_found_by(&self, tenant: &TenantName, now: WallTime) -> bool {
        self.is_there_for(tenant) && !self.is_over(now)
    }

    /// Whether it is this tenant's and ready, its time aside: one of another tenant's, or one that is being made or deleted, does
    /// not exist for him.
    pub fn is_there_for(&self, tenant: &TenantName) -> bool {
        self.tenant == *tenant && self.status == EnvironmentStatus::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SetUpRequest {
        SetUpRequest {
            main_module: "main.ts".into(),
            modules: BTreeMap::from([("main.ts".into(), "export const handler = () => 1".into())]),
            runtime: Runtime::Deno,
            dependencies: Dependencies::default(),
            permissions: Permissions::default(),
            secrets: Vec::new(),
            ttl_seconds: 0,
            limits: EnvironmentLimits::default(),
            isolation: Isolation::default(),
        }
    }

    #[test]
    fn a_plain_request_is_valid_and_lives_an_hour() {
        assert_eq!(request().validate(), Ok(()));
        assert_eq!(request().ttl(), 3600);
    }

    #[test]
    fn the_first_systems_three_refusals_keep_their_words() {
        let mut without_main = request();
        without_main.main_module.clear();
        let mut without_modules = request();
        without_modules.modules.clear();
        let mut elsewhere = request();
        elsewhere.main_module = "other.ts".into();
        let texts = [without_main, without_modules, elsewhere].map(|r| r.validate().map_err(|e| e.to_string()));
        assert_eq!(
            texts,
            [
                Err("mainModule is required".to_owned()),
                Err("modules cannot be empty".to_owned()),
                Err("mainModule must exist in modules map".to_owned()),
            ]
        );
    }

    #[test]
    fn a_permission_entry_cannot_smuggle_a_second_one() {
        let mut comma = request();
        comma.permissions.allow_net = Some(Grant::Only(vec!["a.example,b.example".into()]));
        assert_eq!(comma.validate(), Err(SetUpInvalid::Permission("allowNet")));
    }

    #[test]
    fn what_is_no_rule_in_allow_net_is_named() {
        let mut url = request();
        url.permissions.allow_net = Some(Grant::Only(vec!["a.example".into(), "https://b.example".into()]));
        let text = url.validate().map_err(|e| e.to_string()).unwrap_err();
        assert!(text.contains("\"https://b.example\"") && text.contains("*.suffix"), "{text}");
    }

    #[test]
    fn denos_own_dependencies_are_for_deno() {
        let mut with = request();
        with.dependencies.deno.push("jsr:@std/path".into());
        assert_eq!(with.validate(), Ok(()));
        with.runtime = Runtime::Bun;
        assert_eq!(with.validate(), Err(SetUpInvalid::DenoDependencies));
    }
}
