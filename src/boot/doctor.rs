//! `cloister doctor`: what this host can and cannot do, each with its remedy.
//!
//! Nothing of a running daemon is touched: the checks use a cgroup subtree, a run directory and slots of their own.

mod gpu_work;
mod python;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use slog::Logger;
use uuid::Uuid;

use super::egress::key_sources;
use super::exit::Exit;
use super::images;
use super::parts;
use super::settings::{load, print};
use crate::adapters::clock::SystemClock;
use crate::adapters::credentials;
use crate::adapters::volumes::HostVolumes;
use crate::cli::DoctorFlags;
use crate::config::Config;
use crate::domain::environment::Runtime;
use crate::domain::id::SlotId;
use crate::domain::image::Digest;
use crate::ports::clock::Clock;
use crate::ports::images::{ImageStore, RuntimeImages};
use crate::ports::sandbox::{Purpose, SandboxEngine, SlotSpec};
use crate::ports::volumes::Volumes;
use crate::telemetry::error_chain;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    /// It works, with something to know.
    Note,
    /// It does not work; the text says what to do.
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
}

impl Finding {
    fn new(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { what, verdict, text: text.into() }
    }
}

/// Runs the checks and prints them. Exit 1 when any of them is bad.
pub fn doctor(flags: &DoctorFlags) -> Exit {
    let mut config = match load(&flags.config, false) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    let mut findings = vec![privileges(), directory("state directory", &config.daemon.state_dir), port(&config)];
    let run_dir = std::env::temp_dir().join(format!("cloister-doctor-{}", std::process::id()));
    config.daemon.run_dir.clone_from(&run_dir);
    let system = actix::System::new();
    findings.extend(secrets_key(&config));
    findings.extend(registry_tokens(&config));
    findings.extend(system.block_on(gpu_work::findings(&config)));
    findings.extend(system.block_on(sandboxes(&config)));
    let _ = std::fs::remove_dir_all(run_dir);

    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    print(&mut std::io::stdout(), &if flags.json { json(&findings, !bad) } else { table(&findings) });
    if bad { Exit::Failed } else { Exit::Fine }
}

fn json(findings: &[Finding], ok: bool) -> String {
    format!("{}\n", serde_json::json!({ "ok": ok, "findings": findings }))
}

fn table(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let mark = match finding.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        format!("{mark}  {:<16}  {}\n", finding.what, finding.text)
    };
    findings.iter().map(line).collect()
}

fn privileges() -> Finding {
    if nix::unistd::geteuid().is_root() {
        return Finding::new("privileges", Verdict::Good, "root");
    }
    Finding::new(
        "privileges",
        Verdict::Bad,
        "not root: sandboxes need it; run the daemon as root (systemd does), or use sudo",
    )
}

fn directory(what: &'static str, path: &PathBuf) -> Finding {
    let probe = path.join(format!(".doctor-{}", std::process::id()));
    let was_there = path.exists();
    let tried = std::fs::create_dir_all(path).and_then(|()| std::fs::write(&probe, b"x"));
    let _ = std::fs::remove_file(&probe);
    if !was_there {
        // Only what is empty goes: a daemon may have started meanwhile.
        let _ = std::fs::remove_dir(path);
    }
    match tried {
        Ok(()) => Finding::new(what, Verdict::Good, path.display().to_string()),
        Err(source) => {
            let text = format!("{}: {source}; name another with CLOISTER_STATE_DIR", path.display());
            Finding::new(what, Verdict::Bad, text)
        }
    }
}

/// None where no secret could be put into anything.
fn secrets_key(config: &Config) -> Option<Finding> {
    const WHAT: &str = "secrets' key";
    if !config.sandbox.enabled || !config.sandbox.egress.enabled {
        return None;
    }
    Some(match credentials::look(&key_sources(config)) {
        Ok(Some(path)) => Finding::new(WHAT, Verdict::Good, path.display().to_string()),
        Ok(None) => Finding::new(WHAT, Verdict::Good, "none yet: the daemon makes one at its first start"),
        Err(problem) => Finding::new(WHAT, Verdict::Bad, error_chain(&problem).to_string()),
    })
}

/// None where there are none.
fn registry_tokens(config: &Config) -> Option<Finding> {
    const WHAT: &str = "registries' tokens";
    match parts::tokens(config) {
        Ok(tokens) if tokens.is_empty() => None,
        Ok(tokens) => Some(Finding::new(WHAT, Verdict::Good, tokens.len().to_string())),
        Err(problem) => Some(Finding::new(WHAT, Verdict::Bad, error_chain(&problem).to_string())),
    }
}

fn port(config: &Config) -> Finding {
    let address = std::net::SocketAddr::new(config.server.address, config.server.port);
    match std::net::TcpListener::bind(address) {
        Ok(_) => Finding::new("HTTP address", Verdict::Good, format!("{address} is free")),
        Err(source) => {
            let text = format!("{address}: {source}; a running daemon's own, or choose another with PORT");
            Finding::new("HTTP address", Verdict::Note, text)
        }
    }
}

async fn sandboxes(config: &Config) -> Vec<Finding> {
    if !config.sandbox.enabled {
        return vec![Finding::new("sandboxes", Verdict::Note, "off by configuration (sandbox.enabled)")];
    }
    let volumes: Arc<dyn Volumes> = Arc::new(HostVolumes::new(config.daemon.state_dir.join("volumes")));
    let quiet = Logger::root(slog::Discard, slog::o!());
    let mark = format!("doctor{}", std::process::id());
    let store = Arc::new(images::store(config, &quiet));
    let serving = || (Arc::clone(&store) as Arc<dyn RuntimeImages>, None);
    let (mut engine, mut cgroups) = parts::engine(config, &mark, &volumes, serving(), Vec::new(), &quiet);
    let mut elsewhere = false;
    if cgroups.is_none() && config.sandbox.cgroup_parent.is_none() {
        // A shell's cgroup on v2 holds the shell, and can hold no limits. The daemon gets one of its own from systemd.
        let mut from_root = config.clone();
        from_root.sandbox.cgroup_parent = Some("/".into());
        let tried = parts::engine(&from_root, &mark, &volumes, serving(), Vec::new(), &quiet);
        if tried.1.is_some() {
            ((engine, cgroups), elsewhere) = (tried, true);
        }
    }
    let probe = engine.probe().await;
    let mut findings = vec![cgroup_finding(&probe.cgroup, cgroups.is_some(), elsewhere)];
    if probe.problems.is_empty() {
        let text = format!("{} {}", probe.engine, probe.engine_version);
        let verdict = if probe.isolated { Verdict::Good } else { Verdict::Note };
        findings.push(Finding::new("sandbox engine", verdict, text));
    }
    findings.extend(probe.problems.iter().map(|problem| Finding::new("sandboxes", Verdict::Bad, problem.clone())));
    findings.extend(store.runtimes().iter().map(|(runtime, digest)| image_finding(*runtime, digest.as_ref(), config)));
    for (runtime, version) in &probe.runtimes {
        findings.push(boot_one(&*engine, *runtime, version).await);
    }
    if let Some(cgroups) = cgroups {
        cgroups.dissolve();
    }
    findings
}

fn cgroup_finding(version: &str, usable: bool, elsewhere: bool) -> Finding {
    let (verdict, text) = match (usable, elsewhere) {
        (false, _) => (Verdict::Bad, "no hierarchy that can hold limits".to_owned()),
        (true, false) => (Verdict::Good, version.to_owned()),
        (true, true) => (
            Verdict::Note,
            format!(
                "{version}, though not from this shell, whose cgroup holds other processes: start the daemon as the \
                 systemd service, or with `systemd-run --scope -p Delegate=yes cloister serve`"
            ),
        ),
    };
    Finding::new("cgroups", verdict, text)
}

/// What a runtime that comes from an image is made of now. Nothing is fetched.
fn image_finding(runtime: Runtime, serving: Option<&Digest>, config: &Config) -> Finding {
    let (what, source) = match runtime {
        Runtime::Deno => ("Deno image", &config.sandbox.runtime_deno),
        Runtime::Bun => ("Bun image", &config.sandbox.runtime_bun),
    };
    match serving {
        Some(digest) => Finding::new(what, Verdict::Good, format!("{source}: {digest} serves")),
        None => {
            let text = format!("{source} was not fetched yet: the daemon does so when it starts, and says how it goes");
            Finding::new(what, Verdict::Note, text)
        }
    }
}

/// A sandbox of the runtime, booted up to its runner's `ready` and destroyed again.
async fn boot_one(engine: &dyn SandboxEngine, runtime: Runtime, version: &str) -> Finding {
    let what = match runtime {
        Runtime::Deno => "Deno sandbox",
        Runtime::Bun => "Bun sandbox",
    };
    let slot = SlotId(Uuid::new_v4());
    let clock = SystemClock::start();
    let created = engine
        .create(SlotSpec { slot, runtime, purpose: Purpose::Transpile { dependencies: Vec::new() }, memory_mb: 128 })
        .await;
    let took = clock.uptime().as_millis();
    let destroyed = engine.destroy(slot).await;
    match created.and(destroyed) {
        Ok(()) => Finding::new(
            what,
            Verdict::Good,
            format!("{runtime} {version} was ready after {took} ms and is gone again"),
        ),
        Err(error) => Finding::new(what, Verdict::Bad, error_chain(&error).to_string()),
    }
}
