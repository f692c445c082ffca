//! A daemon with ComfyUI — the double or the real one — and, where a test wants it, RunPod's platform before it.
//!
//! ```text
//!   let gpu = Gpu::double().instances(2).on_platform().start().await;
//!   let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
//! ```

#![allow(dead_code, reason = "each test file needs another part of it")]

pub mod left;
pub mod sealed;
pub mod workflow;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::daemon::Home;
use super::platform::{Options, Platform};
use super::{Daemon, Settings};
use left::Leftovers;
use sealed::Keys;

/// The worker's name before the platform.
pub const POD: &str = "pod-of-the-tests";

/// Which ComfyUI.
enum Comfy {
    Double,
    Real,
}

/// A daemon about to be started.
pub struct Setup {
    comfy: Comfy,
    instances: usize,
    switches: Vec<(String, String)>,
    platform: Option<Options>,
    sandboxes: bool,
    keys: Keys,
    settings: Settings,
}

/// A daemon with ComfyUI. Dropping it ends everything that belongs to it.
pub struct Gpu {
    /// Without it there is nobody to start ComfyUI anew: it goes first.
    pub daemon: Daemon,
    pub keys: Keys,
    pub comfy_dir: PathBuf,
    /// Of the first instance; the others have the next ones.
    pub port: u16,
    platform: Option<Arc<Platform>>,
    settings: Settings,
    _left: Leftovers,
}

impl Gpu {
    /// With the double of ComfyUI, which is ready at once.
    pub fn double() -> Setup {
        Setup::new(Comfy::Double)
    }

    /// With the ComfyUI that the set-up step installed, on the CPU.
    pub fn real() -> Setup {
        Setup::new(Comfy::Real)
    }

    pub fn platform(&self) -> &Platform {
        self.platform.as_ref().expect("a setup with on_platform")
    }

    /// `/healthz`.
    pub async fn picture(&self) -> Value {
        self.daemon.health("/healthz").await.expect("the health socket answers").1
    }

    /// Waits until readiness says no, and why.
    pub async fn is_unready_for(&self, reason: &str) {
        super::eventually(reason, Duration::from_secs(20), async || {
            let (status, told) = self.daemon.health("/readyz").await?;
            if status == 503 && told.to_string().contains(reason) { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
    }

    /// Waits until an entry of the log has this message; the entry.
    pub async fn logged(&self, message: &str) -> Value {
        self.logged_times(message, 1).await
    }

    /// Waits until so many entries of the log have this message; the last of them.
    pub async fn logged_times(&self, message: &str, count: usize) -> Value {
        let mut found = Value::Null;
        super::eventually(message, Duration::from_secs(60), async || {
            let mut entries = self.log_of(message);
            match entries.len() >= count {
                true => found = entries.swap_remove(count - 1),
                false => return Err(format!("{} of {count} entries\n{}", entries.len(), self.daemon.log_text())),
            }
            Ok(())
        })
        .await;
        found
    }

    /// The entries of the log with this message.
    pub fn log_of(&self, message: &str) -> Vec<Value> {
        let lines = self.daemon.log.lock().unwrap();
        let entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["msg"] == message).collect()
    }

    /// Changes what the double does from its next start on: `NAME` → value, as `comfy_double/main.rs` lists them.
    pub fn switch(&self, switches: &[(&str, &str)]) {
        write_switches(&self.comfy_dir, switches);
    }

    /// Kills the daemon with SIGKILL, and starts another over the same state, with the same ComfyUI and platform.
    pub async fn killed_and_started_again(self, change: impl FnOnce(Settings) -> Settings) -> Self {
        let Self { daemon, keys, comfy_dir, port, platform, settings, _left } = self;
        let home = daemon.kill_only();
        let settings = change(settings);
        let daemon = Daemon::start_in(home, settings.clone()).await;
        Self { daemon, keys, comfy_dir, port, platform, settings, _left }
    }

    /// The settings that it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Setup {
    fn new(comfy: Comfy) -> Self {
        let settings = Settings::default()
            .set("comfy.ram_mib", "256")
            .set("comfy.stop_grace", "2 s")
            .set("comfy.starts_at_once", "4")
            .set("jobs.progress_every", "50 ms")
            .set("supervision.backoff_first", "50 ms")
            .set("supervision.spawns_at_once", "16");
        let keys = Keys::generate();
        Self { comfy, instances: 1, switches: Vec::new(), platform: None, sandboxes: false, keys, settings }
    }

    /// So many ComfyUI processes.
    pub fn instances(mut self, count: usize) -> Self {
        self.instances = count;
        self
    }

    /// A switch of the double, without its prefix.
    pub fn switch(mut self, name: &str, value: &str) -> Self {
        self.switches.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The daemon is a worker of a platform of its own.
    pub fn on_platform(self) -> Self {
        self.on(Options::default())
    }

    /// The daemon is a worker of a platform with these options.
    pub fn on(mut self, options: Options) -> Self {
        self.platform = Some(options);
        self
    }

    /// Handlers run, too; it takes longer to start.
    pub fn with_sandboxes(mut self) -> Self {
        self.sandboxes = true;
        self
    }

    /// The private key comes from somewhere else than `WORKER_PRIVATE_KEY_B64`.
    pub fn key_file(self, path: &Path) -> Self {
        self.set("crypto.private_key_file", path.to_str().expect("a path in UTF-8"))
    }

    /// The worker's keys, before it runs.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A configuration key, written `section.key`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings = self.settings.set(key, value);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.settings = self.settings.env(name, value);
        self
    }

    /// Returns as soon as the daemon listens.
    pub fn without_waiting(mut self) -> Self {
        self.settings = self.settings.without_waiting();
        self
    }

    /// In a home of its own.
    pub async fn start(self) -> Gpu {
        self.start_in(Arc::new(Home::new())).await
    }

    /// In a home that may have been lived in.
    pub async fn start_in(self, home: Arc<Home>) -> Gpu {
        let Self { comfy, instances, switches, platform, sandboxes, keys, mut settings } = self;
        let dir = match comfy {
            Comfy::Double => double_dir(home.root.path(), &switches),
            Comfy::Real => installed().join("app"),
        };
        let (python, arguments) = match comfy {
            Comfy::Double => (program(), ""),
            Comfy::Real => (installed().join("venv/bin/python"), "--cpu"),
        };
        let port = free_ports(instances);
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        if !settings.env.contains_key("CLOISTER__CRYPTO__PRIVATE_KEY_FILE") {
            settings = settings.env("WORKER_PRIVATE_KEY_B64", &keys.private_base64());
        }
        settings = settings
            .set("comfy.instances", &instances.to_string())
            .set("comfy.model_dir", &text(&home.root.path().join("models")));
        for (name, value) in [
            ("COMFYUI_DIR", text(&dir)),
            ("COMFYUI_PYTHON", text(&python)),
            ("COMFYUI_ARGS", arguments.to_owned()),
            ("COMFY_PORT", port.to_string()),
        ] {
            // What a test has set stays.
            settings.env.entry(name.to_owned()).or_insert(value);
        }
        if !sandboxes {
            settings = settings.set("sandbox.enabled", "false");
        }
        let platform = platform.map(|options| Arc::new(Platform::start_with(options)));
        for (name, value) in platform.iter().flat_map(|platform| platform.worker_env(POD)) {
            settings = settings.env(&name, &value);
        }
        let left = Leftovers::of(Arc::clone(&home));
        let daemon = Daemon::start_in(home, settings.clone()).await;
        Gpu { daemon, keys, comfy_dir: dir, port, platform, settings, _left: left }
    }
}

/// A folder that passes for a ComfyUI checkout.
fn double_dir(home: &Path, switches: &[(String, String)]) -> PathBuf {
    let dir = home.join("comfyui");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("main.py"), "").unwrap();
    let switches: Vec<(&str, &str)> = switches.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    write_switches(&dir, &switches);
    dir
}

fn write_switches(dir: &Path, switches: &[(&str, &str)]) {
    let lines: String = switches.iter().map(|(name, value)| format!("COMFY_DOUBLE_{name}={value}\n")).collect();
    std::fs::write(dir.join("comfy_double.env"), lines).unwrap();
}

/// The double, which `cargo test` builds beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/comfy-double");
    assert!(program.exists(), "no {}: run `cargo build --example comfy-double`", program.display());
    program
}

/// Where the set-up step put the real ComfyUI.
fn installed() -> PathBuf {
    let at = std::env::var_os("CLOISTER_STATE_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cloister"), PathBuf::from)
        .join("comfyui");
    assert!(at.join("app/main.py").is_file(), "no ComfyUI in {}: run `make setup` first", at.display());
    at
}

/// The first of so many ports in a row that nobody listens on just now, below those that the kernel deals out.
pub fn free_ports(count: usize) -> u16 {
    let mut bytes = [0; 2];
    loop {
        getrandom::fill(&mut bytes).unwrap();
        let first = 12_000 + u16::from_le_bytes(bytes) % 18_000;
        let last = first + u16::try_from(count.max(1)).unwrap();
        if (first..last).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}
