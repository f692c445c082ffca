//! Instances for tests: of the double, or of the real ComfyUI.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use slog::{Discard, Logger, o};
use tempfile::{TempDir, tempdir, tempdir_in};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::super::*;
use crate::adapters::process::HostSpawner;
use crate::domain::job::{ComfyJob, ComfyReport, FailureCode, PromptId, ReplyTo, Wants};
use crate::domain::secret::Secret;
use crate::ports::comfy::RunEvent;

const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");

/// Settings that fit no host in particular.
pub(in super::super) fn settings() -> Settings {
    Settings {
        dir: None,
        python: None,
        args: Vec::new(),
        environment: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        mark: "test".to_owned(),
        model_dir: None,
        silent: true,
        start_deadline: Duration::from_secs(20),
        ram_dir: "/dev/shm".into(),
        ram_mib: 64,
        memory_mib: None,
        output_bytes: 32 << 20,
        keep_models: true,
    }
}

/// An engine with a directory in RAM of its own, in which nothing may be left.
pub(super) struct World {
    pub(super) engine: ComfyEngine,
    pub(super) ram: TempDir,
    /// ComfyUI's own folder, of a double.
    pub(super) home: TempDir,
    pub(super) spec: InstanceSpec,
}

pub(super) type Instance = Arc<dyn ComfyUi>;

impl World {
    /// Over the double, with its switches (`NAME=value`, without prefix).
    pub(super) fn of_double(switches: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let own = std::env::current_exe().expect("own path");
        let double = own.parent().and_then(Path::parent).expect("target").join("examples/comfy-double");
        assert!(double.exists(), "{} is missing: cargo build --example comfy-double", double.display());
        let home = tempdir().expect("folder");
        std::fs::write(home.path().join("main.py"), "").expect("main.py");
        let world = Self::new(home, |settings, home| {
            settings.dir = Some(home.to_owned());
            settings.python = Some(double);
            change(settings);
        });
        world.switch(switches);
        world
    }

    /// Over the double, in cgroups.
    pub(super) fn of_double_in(cgroups: Arc<dyn Cgroups>, change: impl FnOnce(&mut Settings)) -> Self {
        let mut world = Self::of_double(&[], change);
        let log = Logger::root(Discard, o!());
        let settings = world.engine.shared.settings.clone();
        world.engine = ComfyEngine::new(settings, Arc::new(HostSpawner), Some(cgroups), log);
        world
    }

    /// Over the real one, as the set-up step installed it, with the recorded dialogues' test nodes.
    #[expect(clippy::disallowed_methods, reason = "the one variable by which a test finds what set-up installed")]
    pub(super) fn of_real(change: impl FnOnce(&mut Settings)) -> Self {
        let state = std::env::var_os("CLOISTER_STATE_DIR").unwrap_or_else(|| ".cloister".into());
        let installed = Path::new(CHECKOUT).join(state).join("comfyui");
        assert!(installed.join("app/main.py").exists(), "{} has no ComfyUI: scripts/setup", installed.display());
        let home = tempdir().expect("folder");
        std::fs::create_dir_all(home.path().join("packs")).expect("packs");
        let nodes = Path::new(CHECKOUT).join("tests/it/fixtures/comfyui/test_nodes");
        std::os::unix::fs::symlink(nodes, home.path().join("packs/test_nodes")).expect("link");
        let paths = home.path().join("paths.json");
        let text = json!({"tests": {"custom_nodes": home.path().join("packs")}}).to_string();
        std::fs::write(&paths, text).expect("paths");
        Self::new(home, |settings, _| {
            settings.dir = Some(installed.join("app"));
            settings.python = Some(installed.join("venv/bin/python"));
            settings.args = vec!["--cpu".to_owned(), "--extra-model-paths-config".to_owned()];
            settings.args.push(paths.to_string_lossy().into_owned());
            settings.start_deadline = Duration::from_secs(180);
            change(settings);
        })
    }

    fn new(home: TempDir, change: impl FnOnce(&mut Settings, &Path)) -> Self {
        let ram = tempdir_in("/dev/shm").expect("a folder in RAM");
        let mut settings = settings();
        settings.ram_dir = ram.path().to_owned();
        settings.mark = format!("test{}", Uuid::new_v4().simple());
        change(&mut settings, home.path());
        let engine = ComfyEngine::new(settings, Arc::new(HostSpawner), None, Logger::root(Discard, o!()));
        let spec = InstanceSpec { name: "comfy-0", device: None, port: free_port() };
        Self { engine, ram, home, spec }
    }

    /// Sets the double's switches for the starts to come.
    pub(super) fn switch(&self, switches: &[&str]) {
        let lines = switches.iter().map(|one| format!("COMFY_DOUBLE_{one}\n")).collect::<String>();
        std::fs::write(self.home.path().join("comfy_double.env"), lines).expect("switches");
    }

    /// Starts an instance and waits until it is ready.
    pub(super) async fn ready(&self) -> Instance {
        let instance = self.engine.start(&self.spec).await.expect("starts");
        instance.ready().await.expect("is ready");
        instance
    }

    pub(super) fn room(&self) -> PathBuf {
        start::room_of(&self.engine.shared, &self.spec)
    }

    /// Processes that carry this world's mark.
    pub(super) fn processes(&self) -> usize {
        let mark = command::mark(&self.engine.shared.settings, &self.spec);
        let all = procfs::process::all_processes().expect("proc").filter_map(Result::ok);
        let carries = |process: &procfs::process::Process| {
            let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        };
        all.filter(carries).count()
    }

    /// Ends an instance; nothing of it may be left.
    pub(super) async fn end(&self, instance: &Instance) {
        instance.stop(Duration::from_secs(5)).await.expect("stops");
        self.assert_nothing_left();
    }

    pub(super) fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), 0);
        let left: Vec<_> =
            std::fs::read_dir(self.ram.path()).expect("list").map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// All files in the folders that a job writes to.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in ["out", "in", "tmp", "scratch"] {
            walk(&self.room().join(folder), &mut found);
        }
        found
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

pub(super) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("address").port()
}

pub(super) fn new_prompt() -> PromptId {
    PromptId(Uuid::new_v4())
}

/// A job for this prompt.
pub(super) fn job(prompt: &Value) -> ComfyJob {
    ComfyJob {
        id: "job-1".parse().expect("id"),
        nodes: prompt.as_object().map_or(0, serde_json::Map::len),
        prompt: Secret::from(prompt.to_string()),
        images: Vec::new(),
        models: Vec::new(),
        wants: Wants::default(),
        reply: ReplyTo::Plain,
        deadline: None,
    }
}

/// One of the recorded workflows, by its number.
pub(super) fn workflow(number: &str) -> Value {
    let folder = Path::new(CHECKOUT).join("tests/it/fixtures/comfyui/workflows");
    let mut files = std::fs::read_dir(folder).expect("workflows").map(|entry| entry.expect("entry").path());
    let starts = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(number));
    let text = std::fs::read_to_string(files.find(starts).expect("a workflow of this number")).expect("reads");
    serde_json::from_str(&text).expect("JSON")
}

/// Runs a job; its events are dropped.
pub(super) async fn run(instance: &Instance, job: &ComfyJob) -> ComfyReport {
    instance.run(job, new_prompt(), mpsc::channel::<RunEvent>(1).0).await
}

/// The code and the summary of a failed run.
pub(super) fn failure(report: &ComfyReport) -> (FailureCode, &str) {
    let failure = report.failure.as_ref().expect("it failed");
    (failure.code, failure.summary.as_str())
}

/// `EmptyImage` → a node → `SaveImage`.
pub(super) fn through(class: &str, inputs: Value) -> Value {
    let mut prompt = workflow("01");
    prompt["9"] = json!({"class_type": class, "inputs": inputs});
    prompt["9"]["inputs"]["image"] = json!(["1", 0]);
    prompt["2"]["inputs"]["images"] = json!(["9", 0]);
    prompt
}
