//! `[sandbox]`: where handlers run, how many at once, and what one call may use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::egress::Egress;
use super::images::Images;
use super::standing::Standing;
use super::{DAY, HOUR, MINUTE, Reader, secs};
use crate::config::value::Value;
use crate::domain::egress::Rule;
use crate::domain::execution::MIN_MEMORY_MB;
use crate::domain::image::ImageSource;
use crate::domain::package::{Registry, RegistryError};

/// Written by the set-up step: one address on each line.
const REGISTRIES: &str = "registries";

/// `[sandbox]`
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// False: this host runs no handlers.
    pub enabled: bool,
    /// A name to look up in PATH, or a path when it holds a `/`.
    pub runsc: String,
    /// True: plain containers instead of gVisor. For development only.
    pub disable_gvisor: bool,
    /// Where the Deno runtime comes from.
    pub runtime_deno: ImageSource,
    /// Where the Bun runtime comes from.
    pub runtime_bun: ImageSource,
    pub images: Images,
    pub max_executions: usize,
    /// Calls that may wait for a place.
    pub queue: usize,
    pub queue_wait: Duration,
    pub setup_concurrency: usize,
    /// At least 1; the host's cores when it is left at 0.
    pub boots_at_once: usize,
    pub default_timeout_ms: u64,
    pub max_timeout_ms: u64,
    pub default_memory_mb: u64,
    pub max_memory_mb: u64,
    /// Cores, with a fraction.
    pub cpu: f64,
    pub pids: u64,
    pub tmp_mb: u64,
    /// From a sandbox's start until its runner says that it is ready.
    pub boot_deadline: Duration,
    /// What is kept of stdout and of stderr, each.
    pub output_keep_kib: u64,
    /// What is read and thrown away beyond that before the call is ended.
    pub output_discard_mib: u64,
    pub result_kib: u64,
    pub log_kib: u64,
    /// Of the files that come out of one call.
    pub files_bytes: usize,
    pub files: usize,
    /// Where dependencies come from. Empty: there are none.
    pub registries: Vec<Registry>,
    /// Where Deno's `jsr:` modules come from. None: they are refused.
    pub jsr: Option<Registry>,
    /// Where Deno's modules with an address come from. Empty: they are refused.
    pub module_hosts: Vec<Rule>,
    /// Tokens of those of them that want one.
    pub registry_tokens_file: Option<PathBuf>,
    pub install_deadline: Duration,
    /// Of one environment's packages, unpacked.
    pub dependencies_bytes: usize,
    pub dependencies_files: usize,
    /// From when they were resolved on, for further environments.
    pub dependencies_fresh: Duration,
    /// Of all installations together.
    pub packages_bytes: u64,
    pub egress: Egress,
    pub standing: Standing,
    /// The cgroup below which sandboxes' cgroups are made, as a path from the hierarchy's root; the daemon's own if none.
    pub cgroup_parent: Option<PathBuf>,
}

impl Sandbox {
    pub(super) fn read(reader: &mut Reader<'_>, state_dir: &Path) -> Self {
        Self {
            enabled: reader.switch("sandbox.enabled"),
            runsc: reader.text("sandbox.runsc"),
            disable_gvisor: reader.switch("sandbox.disable_gvisor"),
            runtime_deno: runtime(reader, "sandbox.runtime_deno", &state_dir.join("runtimes/deno")),
            runtime_bun: runtime(reader, "sandbox.runtime_bun", &state_dir.join("runtimes/bun")),
            images: Images::read(reader),
            max_executions: reader.whole("sandbox.max_executions", 1..=10_000),
            queue: reader.whole("sandbox.queue", 0..=1_000_000),
            queue_wait: reader.span("sandbox.queue_wait", secs(0)..=secs(HOUR)),
            setup_concurrency: reader.whole("sandbox.setup_concurrency", 1..=1000),
            boots_at_once: boots_at_once(reader),
            default_timeout_ms: reader.whole("sandbox.default_timeout_ms", 1..=86_400_000),
            max_timeout_ms: reader.whole("sandbox.max_timeout_ms", 1..=86_400_000),
            default_memory_mb: reader.whole("sandbox.default_memory_mb", MIN_MEMORY_MB..=1_048_576),
            max_memory_mb: reader.whole("sandbox.max_memory_mb", MIN_MEMORY_MB..=1_048_576),
            cpu: reader.real("sandbox.cpu", 0.01..=1024.0),
            pids: reader.whole("sandbox.pids", 16..=100_000),
            tmp_mb: reader.whole("sandbox.tmp_mb", 1..=1_048_576),
            boot_deadline: reader.span("sandbox.boot_deadline", secs(1)..=secs(10 * MINUTE)),
            output_keep_kib: reader.whole("sandbox.output_keep_kib", 1..=1_048_576),
            output_discard_mib: reader.whole("sandbox.output_discard_mib", 1..=1_048_576),
            result_kib: reader.whole("sandbox.result_kib", 1..=1_048_576),
            log_kib: reader.whole("sandbox.log_kib", 1..=1_048_576),
            files_bytes: reader.whole::<usize>("sandbox.files_kib", 1..=65_536) << 10,
            files: reader.whole("sandbox.files", 1..=10_000),
            registries: registries(reader, state_dir),
            jsr: jsr(reader),
            module_hosts: module_hosts(reader),
            registry_tokens_file: reader.path_if_any("sandbox.registry_tokens_file"),
            install_deadline: reader.span("sandbox.install_deadline", secs(1)..=secs(HOUR)),
            dependencies_bytes: reader.whole::<usize>("sandbox.dependencies_mib", 1..=1024) << 20,
            dependencies_files: reader.whole("sandbox.dependencies_files", 1..=1_000_000),
            dependencies_fresh: reader.span("sandbox.dependencies_fresh", secs(0)..=secs(3650 * DAY)),
            packages_bytes: reader.whole::<u64>("sandbox.packages_mib", 1..=1_048_576) << 20,
            egress: Egress::read(reader),
            standing: Standing::read(reader),
            cgroup_parent: cgroup_parent(reader),
        }
    }
}

fn runtime(reader: &mut Reader<'_>, key: &'static str, derived: &Path) -> ImageSource {
    reader.image_or(key, "daemon.state_dir", derived)
}

fn boots_at_once(reader: &mut Reader<'_>) -> usize {
    let asked: usize = reader.whole("sandbox.boots_at_once", 0..=1000);
    if asked > 0 {
        return asked;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shown = Value::Whole(u64::try_from(cores).unwrap_or(1));
    reader.derive("sandbox.boots_at_once", "the host's cores", shown);
    cores
}

/// The registries that are configured; else those that the set-up step found in this machine's npm client.
fn registries(reader: &mut Reader<'_>, state_dir: &Path) -> Vec<Registry> {
    const KEY: &str = "sandbox.registries";
    let given = reader.text_if_any(KEY);
    let derived = given.is_none();
    let text = given.unwrap_or_else(|| std::fs::read_to_string(state_dir.join(REGISTRIES)).unwrap_or_default());
    let mut found = Vec::new();
    for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.parse() {
            Ok(registry) => found.push(registry),
            Err(error) => reader.refuse(KEY, &format!("{entry:?} is {error}")),
        }
    }
    if derived && !found.is_empty() {
        let urls: Vec<&str> = found.iter().map(|registry: &Registry| registry.url.as_str()).collect();
        reader.derive(KEY, "the set-up step's <state_dir>/registries", Value::Text(urls.join(", ")));
    }
    found
}

/// With the slash at its end that Deno resolves beneath.
fn jsr(reader: &mut Reader<'_>) -> Option<Registry> {
    const KEY: &str = "sandbox.jsr";
    let text = reader.text_if_any(KEY)?;
    let parsed = format!("{}/", text.trim().trim_end_matches('/')).parse();
    parsed.map_err(|error: RegistryError| reader.refuse(KEY, &format!("{text:?} is {error}"))).ok()
}

fn module_hosts(reader: &mut Reader<'_>) -> Vec<Rule> {
    const KEY: &str = "sandbox.module_hosts";
    let text = reader.text_if_any(KEY).unwrap_or_default();
    let mut rules = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.parse() {
            Ok(rule) => rules.push(rule),
            Err(error) => reader.refuse(KEY, &format!("{entry:?} is {error}")),
        }
    }
    rules
}

fn cgroup_parent(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let path = reader.path_if_any("sandbox.cgroup_parent")?;
    if path.components().any(|part| part.as_os_str() == "..") || path.starts_with("/sys/fs/cgroup") {
        reader
            .refuse("sandbox.cgroup_parent", "give the path from the cgroup hierarchy's root, such as /cloister.slice");
    }
    Some(path)
}
