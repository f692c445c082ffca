//! The adapters and settings that a configuration stands for.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use slog::Logger;

use super::egress::{EgressError, WayOut};
use super::gpu::GpuParts;
use super::host::Home;
use super::http::{self, Tls};
use super::images::{self, TrialParts};
use crate::actors::call_desk;
use crate::actors::sandbox_pool::InstallPolicy;
use crate::adapters::cgroup::HostCgroups;
use crate::adapters::clock::SystemClock;
use crate::adapters::credentials::{TokensError, registry_tokens};
use crate::adapters::fetch;
use crate::adapters::images::HostImages;
use crate::adapters::process::{HostSpawner, HostZombies};
use crate::adapters::runsc::{Choice, InstallLimits, OutLimits, OutputLimits, RunscEngine, Settings};
use crate::adapters::sandboxes_off::SandboxesOff;
use crate::adapters::sqlite::SqliteStore;
use crate::adapters::systemd::SystemdNotifier;
use crate::adapters::tenants::TenantRegistry;
use crate::adapters::volumes::{HostPackages, HostVolumes};
use crate::adapters::webhook::HttpTeller;
use crate::api::access::Tokens;
use crate::api::{self, Access, Doors, Handles, HttpSettings, Intake};
use crate::config::{self, Config, LogFormat};
use crate::domain::desk::DeskPolicy;
use crate::domain::egress::{HostHeader, Reach};
use crate::domain::environment::Runtime;
use crate::domain::execution::{LimitPolicy, Limits};
use crate::domain::package::Registry;
use crate::domain::package_set::{KeepSets, Sources};
use crate::domain::pool::{PoolPolicy, StandingPolicy};
use crate::domain::restart::RestartPolicy;
use crate::ports::cgroup::Cgroups;
use crate::ports::clock::Clock;
use crate::ports::egress::EgressGates;
use crate::ports::gpu::Gpus;
use crate::ports::images::RuntimeImages;
use crate::ports::job_queue::JobQueue;
use crate::ports::notify::ServiceNotifier;
use crate::ports::packages::Packages;
use crate::ports::process::Zombies;
use crate::ports::sandbox::SandboxEngine;
use crate::ports::store::StoreError;
use crate::ports::volumes::Volumes;
use crate::telemetry::{self, Format, Guard, error_chain};

/// What a set-up's transpile task may use.
const TRANSPILE_LIMITS: Limits = Limits { timeout: Duration::from_secs(30), memory_mb: 256 };
/// Of an install task, its /tmp with archives and packages among it.
const INSTALL_MEMORY_MB: u64 = 768;
/// The most bytes of request bodies held at once, over all connections.
const BODIES_AT_ONCE: usize = 128 << 20;
/// The warning that goes with every answer, too.
const WITHOUT_GVISOR: &str =
    "gVisor is disabled: handlers run in plain containers that share the host's kernel; for development only";

/// Why a daemon cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// Every adapter of one daemon.
pub struct Parts {
    pub clock: Arc<SystemClock>,
    pub store: Arc<SqliteStore>,
    pub tenants: Arc<TenantRegistry>,
    pub teller: Arc<HttpTeller>,
    pub volumes: Arc<dyn Volumes>,
    pub packages: Arc<dyn Packages>,
    /// None: nothing gets out of any sandbox.
    pub egress: Option<WayOut>,
    pub engine: Arc<dyn SandboxEngine>,
    pub images: Arc<HostImages>,
    /// None where no image has to be tried.
    pub trials: Option<TrialParts>,
    /// None where the host has no usable hierarchy; the engine says why.
    pub cgroups: Option<Arc<dyn Cgroups>>,
    pub zombies: Arc<dyn Zombies>,
    pub notifier: Arc<dyn ServiceNotifier>,
    pub warnings: Vec<String>,
    pub isolated: bool,
    pub log: Logger,
}

/// The daemon's logger.
pub fn logger(log: &config::Log) -> (Logger, Guard) {
    let format = match log.format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Pretty => Format::Pretty,
        LogFormat::Json => Format::Json,
    };
    telemetry::start(log.level, format, std::io::stderr().is_terminal())
}

impl Parts {
    /// Builds all of them. A host that cannot make sandboxes still answers, and says why.
    ///
    /// # Errors
    /// When the store cannot be opened, or TLS cannot be spoken.
    pub async fn build(config: &Config, home: &Home, log: &Logger) -> Result<Self, PartsError> {
        let volumes: Arc<dyn Volumes> = Arc::new(HostVolumes::new(config.daemon.state_dir.join("volumes")));
        refuse_lost_store(&config.store.path, &*volumes).await?;
        // Beside the volumes, which share its files.
        let packages = HostPackages::new(config.daemon.state_dir.join("packages"), log.clone());
        let store = Arc::new(SqliteStore::open(&config.store.path, config.store.read_connections).await?);
        let clock = Arc::new(SystemClock::start());
        let tenants_log = log.new(slog::o!("part" => "tenants"));
        let tenants = TenantRegistry::open(store.clone(), clock.clone(), config.tenants, tenants_log).await?;
        let isolated = !config.sandbox.disable_gvisor;
        let mut warnings = Vec::new();
        if !isolated {
            warnings.push(WITHOUT_GVISOR.to_owned());
        }
        let egress = WayOut::build(config, store.clone(), log).await?;
        let gates = egress.clone().map(|egress| egress.proxy as Arc<dyn EgressGates>);
        let tokens = tokens(config)?;
        let images = Arc::new(images::store(config, log));
        images.tidy();
        let trials = images::trials(config, &home.instance, &images, log);
        let serving = Arc::clone(&images) as Arc<dyn RuntimeImages>;
        let (engine, cgroups) = engine(config, &home.instance, &volumes, (serving, gates), tokens, log);
        Ok(Self {
            clock,
            store,
            tenants: Arc::new(tenants),
            teller: Arc::new(teller(&config.calls)),
            engine,
            images,
            trials,
            cgroups,
            volumes,
            packages: Arc::new(packages),
            egress,
            zombies: Arc::new(HostZombies),
            notifier: Arc::new(SystemdNotifier),
            warnings,
            isolated,
            log: log.clone(),
        })
    }

    /// Removes the daemon's own cgroup subtrees, when nothing is left in them.
    pub fn dissolve(&self) {
        for cgroups in self.cgroups.iter().chain(self.trials.as_ref().map(|trials| &trials.cgroups)) {
            cgroups.dissolve();
        }
    }

    /// Different on each host and at each start; for jitter.
    pub fn seed(&self) -> u64 {
        u64::from(std::process::id()) ^ self.clock.wall().0.unsigned_abs()
    }

    /// What the doors need.
    pub fn doors(&self, config: &Config, handles: Handles, gpu: Option<&GpuParts>) -> Doors {
        Doors {
            handles,
            store: self.store.clone(),
            tenants: self.tenants.clone(),
            jobs: gpu.map(|gpu| Arc::clone(&gpu.local) as Arc<dyn JobQueue>),
            gpus: gpu.map(|gpu| Arc::clone(&gpu.gpus) as Arc<dyn Gpus>),
            clock: self.clock.clone(),
            limits: limit_policy(&config.sandbox),
            access: access(&config.server),
            intake: Intake::new(config.server.body_timeout, BODIES_AT_ONCE),
            log: self.log.new(slog::o!("door" => "http")),
        }
    }
}

/// A new store beside old volumes would let the Reaper take all of them for orphans.
async fn refuse_lost_store(path: &Path, volumes: &dyn Volumes) -> Result<(), StoreError> {
    let orphans = if path.exists() { 0 } else { volumes.list().await.map_or(0, |names| names.len()) };
    if orphans == 0 {
        return Ok(());
    }
    let text = format!(
        "it is gone, and {orphans} volumes of its environments are still there: put the file back from a backup, or \
         remove the volumes as well to begin anew"
    );
    Err(StoreError::Open { path: path.display().to_string(), source: text.into() })
}

/// The engine of this configuration, without a store or a daemon around it. Also what `doctor` looks at.
pub fn engine(
    config: &Config,
    instance: &str,
    volumes: &Arc<dyn Volumes>,
    (images, gates): (Arc<dyn RuntimeImages>, Option<Arc<dyn EgressGates>>),
    tokens: Vec<HostHeader>,
    log: &Logger,
) -> (Arc<dyn SandboxEngine>, Option<Arc<dyn Cgroups>>) {
    let parent = config.sandbox.cgroup_parent.as_ref().map(|path| path.to_string_lossy().into_owned());
    match HostCgroups::detect(parent.as_deref(), instance) {
        Ok(cgroups) => {
            let cgroups: Arc<dyn Cgroups> = Arc::new(cgroups);
            let log = log.new(slog::o!("part" => "sandbox"));
            let (settings, ours) = (engine_settings(config, tokens), Arc::clone(&cgroups));
            let engine =
                RunscEngine::new(settings, Arc::new(HostSpawner), ours, Arc::clone(volumes), images, gates, log);
            (Arc::new(engine), Some(cgroups))
        }
        Err(problem) => (Arc::new(SandboxesOff::new(error_chain(&problem).to_string())), None),
    }
}

/// The engine's settings, in the daemon's own directories.
pub fn engine_settings(config: &Config, tokens: Vec<HostHeader>) -> Settings {
    let sandbox = &config.sandbox;
    let choice = if sandbox.disable_gvisor {
        Choice::PlainContainer
    } else {
        Choice::Gvisor { runsc: (sandbox.runsc != "runsc").then(|| sandbox.runsc.clone().into()) }
    };
    let kib = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Settings {
        choice,
        run_dir: config.daemon.run_dir.clone(),
        state_dir: config.daemon.state_dir.clone(),
        ready_deadline: sandbox.boot_deadline,
        cpu_quota_us: Some(quota_us(sandbox.cpu)),
        pids: sandbox.pids,
        tmp_mb: sandbox.tmp_mb,
        registries: sandbox.registries.clone(),
        jsr: sandbox.jsr.clone(),
        module_hosts: sandbox.module_hosts.clone(),
        tokens,
        out: OutLimits { bytes: sandbox.files_bytes, files: sandbox.files },
        installs: InstallLimits { bytes: sandbox.dependencies_bytes, files: sandbox.dependencies_files },
        output: OutputLimits {
            keep: kib(sandbox.output_keep_kib.saturating_mul(1024)),
            discard: sandbox.output_discard_mib.saturating_mul(1 << 20),
            log_kib: kib(sandbox.log_kib),
            result_kib: kib(sandbox.result_kib),
            ..OutputLimits::default()
        },
    }
}

/// Cores as microseconds in every 100 ms.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the configuration bounds it to 0.01..=1024"
)]
fn quota_us(cores: f64) -> u64 {
    (cores * 100_000.0).round() as u64
}

/// The defaults and caps of a call.
pub fn limit_policy(sandbox: &config::Sandbox) -> LimitPolicy {
    let limits = |millis, memory_mb| Limits { timeout: Duration::from_millis(millis), memory_mb };
    LimitPolicy {
        default: limits(sandbox.default_timeout_ms, sandbox.default_memory_mb),
        cap: limits(sandbox.max_timeout_ms, sandbox.max_memory_mb),
    }
}

fn access(server: &config::Server) -> Access {
    use secrecy::ExposeSecret;
    if server.disable_bearer_token {
        return Access::Open;
    }
    Access::Tokens(Tokens::new(server.bearer_tokens.iter().map(|token| token.expose_secret())))
}

/// The HTTP door's settings.
pub fn http_settings(server: &config::Server) -> HttpSettings {
    HttpSettings {
        address: server.address,
        port: server.port,
        workers: 1,
        connections: server.max_connections,
        header_deadline: server.header_timeout,
        stop_within: server.shutdown_grace,
        ..HttpSettings::default()
    }
}

/// The pool's bounds.
pub fn pool_policy(sandbox: &config::Sandbox) -> PoolPolicy {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    PoolPolicy {
        max_executions: sandbox.max_executions,
        queue: sandbox.queue,
        queue_wait: sandbox.queue_wait,
        set_ups: sandbox.setup_concurrency,
        boots_at_once: if sandbox.boots_at_once == 0 { cores } else { sandbox.boots_at_once },
        standing: standing_policy(sandbox),
    }
}

/// In plain containers nothing stands ready: the engines have no mounts that show up later.
fn standing_policy(sandbox: &config::Sandbox) -> StandingPolicy {
    let standing = &sandbox.standing;
    let policy = StandingPolicy {
        memory_mb: standing.memory_mb,
        runtimes: Runtime::ALL.map(|runtime| (runtime, standing.runtimes)).into(),
        per_environment: standing.environment,
        compilers: standing.compilers,
        age: standing.age,
        reuses: standing.reuses,
        reuse_idle: standing.reuse_idle,
        call_memory_mb: limit_policy(sandbox).default.memory_mb,
    };
    if standing.enabled && !sandbox.disable_gvisor { policy } else { StandingPolicy::default() }
}

/// How dependencies are installed, where there is anything that they may come from, and a way to it.
fn installs(config: &Config) -> Option<InstallPolicy> {
    let sandbox = &config.sandbox;
    let limits = Limits { timeout: sandbox.install_deadline, memory_mb: INSTALL_MEMORY_MB };
    let address = |registry: Option<&Registry>| registry.map(|registry| registry.url.clone());
    let sources = Sources {
        registry: address(sandbox.registries.first()),
        jsr: address(sandbox.jsr.as_ref()),
        hosts: sandbox.module_hosts.clone(),
    };
    let any = sandbox.egress.enabled && sources != Sources::default();
    any.then(|| InstallPolicy { sources, limits, keep: keep_sets(config) })
}

/// The tokens of private registries. Also what `doctor` looks at.
///
/// # Errors
/// When there are some that cannot be used.
pub fn tokens(config: &Config) -> Result<Vec<HostHeader>, TokensError> {
    let credentials = config::variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    registry_tokens(config.sandbox.registry_tokens_file.as_deref(), credentials.as_deref())
}

/// How long sets of packages are kept, and how many.
pub fn keep_sets(config: &Config) -> KeepSets {
    KeepSets {
        fresh: config.sandbox.dependencies_fresh,
        unused: config.reaper.unused_packages,
        bytes: config.sandbox.packages_bytes,
    }
}

/// When children are restarted.
pub fn restart_policy(config: &Config) -> RestartPolicy {
    let supervision = &config.supervision;
    RestartPolicy {
        backoff_first: supervision.backoff_first,
        backoff_max: supervision.backoff_max,
        backoff_steps: supervision.backoff_steps,
        jitter: supervision.jitter,
        forget_after: supervision.forget_after,
        window: supervision.window,
        max_restarts: usize::try_from(supervision.max_restarts).unwrap_or(usize::MAX),
        spawns_at_once: supervision.spawns_at_once,
        beat_deadline: supervision.beat_deadline,
        drain_deadline: config.daemon.drain_deadline,
        ..RestartPolicy::default()
    }
}

/// What a call desk is made of, for each of its lives.
pub fn desk_deps(parts: &Parts, config: &Config, handles: &Handles) -> call_desk::Deps {
    let calls = &config.calls;
    call_desk::Deps {
        book: parts.store.clone(),
        teller: parts.teller.clone(),
        execute: handles.execute.clone(),
        cancel: handles.cancel.clone(),
        clock: parts.clock.clone(),
        policy: DeskPolicy { at_once: calls.at_once, queue: calls.queue, queue_bytes: calls.queue_bytes },
        settings: call_desk::Settings {
            keep: calls.keep,
            keep_bytes: calls.keep_bytes,
            keep_output: config.store.keep_output,
            keys: calls.keys,
            webhook_attempts: calls.webhook_attempts,
        },
        render: api::rendered,
        show: api::dto::call_json,
        log: parts.log.new(slog::o!("actor" => "call_desk")),
    }
}

/// Tells webhooks, through a guard of its own.
fn teller(calls: &config::Calls) -> HttpTeller {
    let reach = Reach::and(calls.webhook_allow_private.clone());
    let guard = reach.clone();
    let make = move || {
        let tls = Tls::of_this_host().map_err(|error| error_chain(&error).to_string())?;
        let client = fetch::guarded(http::builder(&tls), guard.clone());
        client.build().map_err(|error| error_chain(&error).to_string())
    };
    let may_reach = Arc::new(move |url: &_| fetch::may_reach(url, &reach));
    HttpTeller::new(Arc::new(make), may_reach, fetch::is_guards, calls.webhook_within)
}

/// What a pool is made of, for each of its lives.
pub fn pool_deps(parts: &Parts, config: &Config) -> crate::actors::sandbox_pool::Deps {
    crate::actors::sandbox_pool::Deps {
        engine: Arc::clone(&parts.engine),
        volumes: Arc::clone(&parts.volumes),
        store: parts.store.clone(),
        tenants: parts.tenants.clone(),
        revisions: parts.store.clone(),
        clock: parts.clock.clone(),
        log: parts.log.new(slog::o!("actor" => "sandbox_pool")),
        policy: pool_policy(&config.sandbox),
        usual_limits: limit_policy(&config.sandbox).default,
        transpile_limits: TRANSPILE_LIMITS,
        packages: Arc::clone(&parts.packages),
        installs: installs(config),
        credentials: parts.egress.clone().map(|egress| egress.credentials),
        cores: config.sandbox.cpu,
        isolated: parts.isolated,
        keep_output: config.store.keep_output,
    }
}
