//! The OCI bundle of one sandbox: its `config.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::egress::{self, Egress};
use super::permissions::deno_flags;
use super::seccomp;
use crate::domain::environment::{Permissions, Runtime};

/// nobody, in the sandbox's own user namespace where there is one.
pub(super) const UNPRIVILEGED: u32 = 65534;
/// Host ids 1879048192–2147352575 belong to nobody by systemd's allocation: room for 4093 ranges of 65536.
const FIRST_HOST_ID: u32 = 1_879_048_192;
const RANGES: u128 = 4093;
const RANGE: u32 = 65_536;
const NOFILE: u64 = 1024;

/// Everything that a bundle depends on.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    pub runtime: Runtime,
    /// False for a plain container.
    pub gvisor: bool,
    /// In force on Deno only.
    pub permissions: Permissions,
    pub memory_mb: u64,
    pub tmp_mb: u64,
    pub rootfs: PathBuf,
    /// The runtime's, as an absolute path inside the root.
    pub program: String,
    /// Bound to `/runtime`.
    pub runner: PathBuf,
    pub duty: Duty,
    /// Made before it is needed: the time until it is ready is nobody's.
    pub warm: bool,
    /// None: nothing gets out.
    pub egress: Option<Egress>,
    /// The address that Deno knows JSR's modules by.
    pub jsr: Option<String>,
    /// What stands for secrets, by the variable's name.
    pub placeholders: BTreeMap<String, String>,
    /// The first host id of the sandbox's user namespace. None: no user namespace of its own.
    pub host_ids: Option<u32>,
}

/// What the sandbox is for.
#[derive(Debug, Clone)]
pub(super) enum Duty {
    /// A call: `workspace` is bound to `/workspace`, and into Deno's cache, where there are some, what was `emitted` and the
    /// modules from elsewhere.
    Call { workspace: PathBuf, emitted: Option<PathBuf>, remote: Option<PathBuf> },
    /// A call of an environment that is not known yet: its files will show up in `/workspace` of the root, and below
    /// the two that are bound into Deno's cache.
    Stand { emitted: PathBuf, remote: PathBuf },
    /// A set-up's TypeScript: the transpiler writes the modules to a `/workspace` of its own, beside dependencies.
    Transpile { packages: Option<PathBuf>, remote: Option<PathBuf> },
    /// A set-up's dependencies: the installer works in `/tmp`.
    Install,
}

/// Where a sandbox has its environment's modules.
pub(super) const WORKSPACE: &str = "/workspace";
/// And its parts beside them.
const PACKAGES_AT: &str = "/workspace/node_modules";
pub(super) const EMITTED_AT: &str = "/tmp/.deno/gen";
pub(super) const REMOTE_AT: &str = "/tmp/.deno/remote";
/// The runner's word for loading, before it is ready, what a handler may need.
const WARM: &str = "warm";

impl Duty {
    /// What is bound to `/workspace`, or beside what is.
    pub(super) fn workspace(&self) -> Option<&PathBuf> {
        match self {
            Duty::Call { workspace, .. } => Some(workspace),
            Duty::Transpile { packages, remote } => packages.as_ref().or(remote.as_ref()),
            Duty::Stand { .. } | Duty::Install => None,
        }
    }

    /// The places in the image that its parts need.
    pub(super) fn bound_at(&self) -> Vec<&'static str> {
        let (packages, emitted, remote) = match self {
            Duty::Call { emitted, remote, .. } => (&None, emitted, remote),
            Duty::Transpile { packages, remote } => (packages, &None, remote),
            Duty::Stand { .. } | Duty::Install => (&None, &None, &None),
        };
        let parts = [(PACKAGES_AT, packages), (EMITTED_AT, emitted), (REMOTE_AT, remote)];
        parts.into_iter().filter(|(_, part)| part.is_some()).map(|(at, _)| at).collect()
    }
}

/// The size of an installer's /tmp: archives, what is in them, and the answer.
const INSTALL_TMP_MB: u64 = 512;

/// The range of host ids for a slot: neighbours share none unless 4093 slots live at once.
pub(super) fn host_ids_of(slot: u128) -> u32 {
    let range = u32::try_from(slot % RANGES).unwrap_or(0);
    FIRST_HOST_ID + range * RANGE
}

/// The first and the last host id that [`host_ids_of`] may give out.
pub(super) const HOST_IDS: (u32, u32) = (FIRST_HOST_ID, FIRST_HOST_ID + 4093 * RANGE - 1);

/// The bundle's `config.json` as text.
pub(super) fn config_json(bundle: &Bundle) -> Result<String, OciSpecError> {
    let text = serde_json::to_string(&spec(bundle)?)?;
    Ok(text)
}

/// No annotations: with some versions of runsc they override flags.
fn spec(bundle: &Bundle) -> Result<Spec, OciSpecError> {
    SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path(&bundle.rootfs).readonly(true).build()?)
        .hostname("sandbox")
        .process(process(bundle)?)
        .mounts(mounts(bundle)?)
        .linux(linux(bundle)?)
        .build()
        .map(without_defaults)
}

/// The builder fills what was not said with a desktop container's habits.
fn without_defaults(mut spec: Spec) -> Spec {
    spec.set_annotations(None);
    spec
}

fn process(bundle: &Bundle) -> Result<Process, OciSpecError> {
    let none = Capabilities::new();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(none.clone())
        .effective(none.clone())
        .inheritable(none.clone())
        .permitted(none.clone())
        .ambient(none)
        .build()?;
    ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(UNPRIVILEGED).gid(UNPRIVILEGED).build()?)
        .args(arguments(bundle))
        .env(environment(bundle))
        .cwd("/tmp")
        .capabilities(capabilities)
        // No RLIMIT_AS: V8 reserves address space by the tens of gigabytes. No NPROC: gVisor does not enforce it,
        // the pids limit is the cgroup's. No FSIZE: /tmp has a size of its own and nothing else can be written.
        .rlimits(vec![rlimit(PosixRlimitType::RlimitCore, 0)?, rlimit(PosixRlimitType::RlimitNofile, NOFILE)?])
        .no_new_privileges(true)
        .build()
}

fn rlimit(kind: PosixRlimitType, value: u64) -> Result<PosixRlimit, OciSpecError> {
    PosixRlimitBuilder::default().typ(kind).hard(value).soft(value).build()
}

fn arguments(bundle: &Bundle) -> Vec<String> {
    let mut words = vec![bundle.program.clone()];
    words.extend(command(bundle));
    words.extend(bundle.warm.then(|| WARM.to_owned()));
    words.extend(bundle.egress.is_some().then(|| egress::ARGUMENT.to_owned()));
    words
}

fn command(bundle: &Bundle) -> Vec<String> {
    let fixed = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    match bundle.runtime {
        Runtime::Deno if matches!(bundle.duty, Duty::Transpile { .. } | Duty::Install) => {
            let install = matches!(bundle.duty, Duty::Install);
            let mut words = fixed(&["run", "--quiet", "--no-prompt", "--no-config", "--no-lock", "--no-check"]);
            // None of the modules is run.
            words.extend(fixed(&["--cached-only", "--no-code-cache", "--node-modules-dir=manual", "--allow-all"]));
            words.push(if install { "/runtime/resolver.js" } else { "/runtime/transpiler.js" }.to_owned());
            words
        }
        Runtime::Deno => {
            let mut words = fixed(&[
                "run",
                "--quiet",
                "--no-prompt",
                "--no-config",
                "--no-lock",
                "--cached-only",
                "--no-check",
                // It would be written for the next start, which this sandbox has none of: 2.4 MB in its /tmp, and 1 ms of an import.
                "--no-code-cache",
                "--node-modules-dir=manual",
            ]);
            words.extend(deno_flags(&bundle.permissions, bundle.egress.as_ref()));
            words.push(format!("--v8-flags=--max-old-space-size={}", bundle.memory_mb));
            words.push("/runtime/runner.js".to_owned());
            words
        }
        Runtime::Bun if matches!(bundle.duty, Duty::Install) => {
            fixed(&["run", "--no-install", "--no-env-file", "--config=/dev/null", "/runtime/installer.js"])
        }
        // Bun has no flag that bounds its heap: there the cgroup alone does.
        Runtime::Bun => {
            fixed(&["run", "--no-install", "--no-env-file", "--config=/dev/null", "--smol", "/runtime/runner.js"])
        }
    }
}

fn environment(bundle: &Bundle) -> Vec<String> {
    let own: &[&str] = match bundle.runtime {
        Runtime::Deno => &["DENO_DIR=/tmp/.deno", "DENO_NO_PACKAGE_JSON=1", "DENO_NO_UPDATE_CHECK=1"],
        Runtime::Bun => &["BUN_RUNTIME_TRANSPILER_CACHE_PATH=0", "DO_NOT_TRACK=1"],
    };
    let folder = bundle.program.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let path = if folder == "/usr/bin" { "PATH=/usr/bin".to_owned() } else { format!("PATH={folder}:/usr/bin") };
    let shared = [path.as_str(), "HOME=/tmp", "TMPDIR=/tmp", "NO_COLOR=1", "LANG=C.UTF-8"];
    let mut entries: Vec<String> = shared.iter().chain(own).map(|&entry| entry.to_owned()).collect();
    let jsr = bundle.jsr.iter().filter(|_| bundle.runtime == Runtime::Deno);
    entries.extend(jsr.map(|address| format!("JSR_URL={address}")));
    if let Some(way_out) = &bundle.egress {
        entries.extend(egress::environment(way_out, bundle.runtime));
    }
    entries.extend(bundle.placeholders.iter().map(|(name, placeholder)| format!("{name}={placeholder}")));
    entries
}

/// No sysfs, nothing of the host but the two read-only binds. /tmp is executable: Bun's native add-ons need it.
fn mounts(bundle: &Bundle) -> Result<Vec<Mount>, OciSpecError> {
    let tmp_mb = if matches!(bundle.duty, Duty::Install) { INSTALL_TMP_MB } else { bundle.tmp_mb };
    let tmp_size = format!("size={tmp_mb}m");
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"])?,
        mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777", &tmp_size])?,
        bind("/runtime", &bundle.runner)?,
    ];
    if bundle.gvisor {
        // runsc mounts a sysfs of its own where the bundle has nothing at /sys.
        mounts.push(mount("/sys", "tmpfs", "tmpfs", &["ro", "nosuid", "noexec", "nodev", "mode=555", "size=4k"])?);
    }
    if let Some(egress) = &bundle.egress {
        mounts.push(bind(egress::SOCKET, &egress.socket)?);
        if let Some(authority) = &egress.authority {
            mounts.push(bind(egress::AUTHORITY, authority)?);
        }
    }
    match &bundle.duty {
        Duty::Call { workspace, emitted, remote } => {
            mounts.push(bind(WORKSPACE, workspace)?);
            mounts.extend(deno_cache("size=16m", emitted.as_ref(), remote.as_ref())?);
        }
        Duty::Stand { emitted, remote } if bundle.runtime == Runtime::Deno => {
            mounts.extend(deno_cache("size=16m", Some(emitted), Some(remote))?);
        }
        Duty::Stand { .. } => {}
        Duty::Install => {}
        Duty::Transpile { packages, remote } => {
            let own = ["nosuid", "nodev", "noexec", "mode=1777", "size=32m"];
            mounts.push(mount(WORKSPACE, "tmpfs", "tmpfs", &own)?);
            if let Some(packages) = packages {
                mounts.push(bind(PACKAGES_AT, packages)?);
            }
            mounts.extend(deno_cache("size=64m", None, remote.as_ref())?);
        }
    }
    Ok(mounts)
}

/// Deno writes its analysis beside what is bound into its cache; without a place for that an import takes longer.
fn deno_cache(size: &str, emitted: Option<&PathBuf>, remote: Option<&PathBuf>) -> Result<Vec<Mount>, OciSpecError> {
    let mut mounts = Vec::new();
    for (at, bound) in [(EMITTED_AT, emitted), (REMOTE_AT, remote)] {
        let Some(bound) = bound else { continue };
        if mounts.is_empty() {
            let cache = ["nosuid", "nodev", "noexec", "mode=1777", size];
            mounts.push(mount("/tmp/.deno", "tmpfs", "tmpfs", &cache)?);
        }
        mounts.push(bind(at, bound)?);
    }
    Ok(mounts)
}

fn mount(at: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    MountBuilder::default().destination(at).typ(kind).source(source).options(options).build()
}

fn bind(at: &str, source: &PathBuf) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = ["rbind", "ro", "nosuid", "nodev"].map(str::to_owned).into();
    MountBuilder::default().destination(at).typ("bind").source(source).options(options).build()
}

const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// No resources and no cgroups path: the cgroup is the daemon's, and the engine is started inside it.
fn linux(bundle: &Bundle) -> Result<Linux, OciSpecError> {
    let mut namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ]
    .map(namespace)
    .into_iter()
    .collect::<Result<Vec<_>, _>>()?;
    let mut builder = LinuxBuilder::default()
        .masked_paths(MASKED.map(str::to_owned))
        .readonly_paths(READONLY.map(str::to_owned))
        .seccomp(seccomp::profile(bundle.gvisor)?);
    if let Some(host_id) = bundle.host_ids {
        let mapping = LinuxIdMappingBuilder::default().container_id(0_u32).host_id(host_id).size(RANGE).build()?;
        namespaces.push(namespace(LinuxNamespaceType::User)?);
        builder = builder.uid_mappings(vec![mapping]).gid_mappings(vec![mapping]);
    }
    let mut linux = builder.namespaces(namespaces).build()?;
    linux.set_resources(None);
    Ok(linux)
}

fn namespace(kind: LinuxNamespaceType) -> Result<LinuxNamespace, OciSpecError> {
    LinuxNamespaceBuilder::default().typ(kind).build()
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
