//! A daemon with the real ComfyUI that set-up installed, and a look at its process and its RAM directory from outside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::comfy_caller::Caller;
use crate::support::eventually;
use crate::support::gpu::{Gpu, Setup, left, workflow};

/// ComfyUI takes ten seconds of a core to start, and the cores may be taken.
pub const START: Duration = Duration::from_secs(240);

/// An image through a node of this class, "9", to a file.
pub fn through(class: &str, inputs: Value) -> Value {
    let mut node = json!({ "class_type": class, "inputs": { "image": ["1", 0] } });
    node["inputs"].as_object_mut().unwrap().extend(inputs.as_object().cloned().unwrap());
    let mut prompt = workflow::save_one();
    prompt["9"] = node;
    prompt["2"]["inputs"]["images"] = json!(["9", 0]);
    prompt
}

/// A node that fails in this way.
pub fn failing(kind: &str) -> Value {
    through("TestFail", json!({ "kind": kind, "text": "boom", "amount": 3 }))
}

/// A daemon and its one real ComfyUI.
pub struct Worker {
    pub gpu: Gpu,
    pub caller: Caller,
    /// Where ComfyUI finds the test nodes.
    _nodes: TempDir,
}

impl Worker {
    /// Starts it and waits until ComfyUI is ready.
    pub async fn start(change: impl FnOnce(Setup) -> Setup) -> Self {
        let nodes = tempfile::tempdir().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/comfyui/test_nodes");
        let packs = nodes.path().join("packs");
        std::fs::create_dir(&packs).unwrap();
        std::os::unix::fs::symlink(fixtures, packs.join("test_nodes")).unwrap();
        let paths = nodes.path().join("paths.yaml");
        std::fs::write(&paths, json!({ "tests": { "custom_nodes": packs } }).to_string()).unwrap();
        let setup = Gpu::real()
            .without_waiting()
            .env("COMFYUI_ARGS", &format!("--cpu --extra-model-paths-config {}", paths.display()))
            .set("supervision.backoff_max", "50 ms")
            .set("supervision.max_restarts", "1000");
        let gpu = change(setup).start().await;
        let caller = Caller::new(&gpu.daemon.url, &gpu.keys);
        let worker = Self { gpu, caller, _nodes: nodes };
        worker.ready().await;
        worker
    }

    /// Waits until an instance is ready for a job.
    pub async fn ready(&self) {
        eventually("a ComfyUI that is ready", START, async || match self.idle().await {
            1 => Ok(()),
            _ => Err(format!("{}\n{}", self.gpu.picture().await, self.gpu.daemon.log_text())),
        })
        .await;
    }

    async fn idle(&self) -> u64 {
        let (_, body) = self.caller.ask(Method::GET, "/health", None).await;
        body["workers"]["idle"].as_u64().unwrap_or_default()
    }

    /// The RAM directory of its ComfyUI.
    pub fn room(&self) -> PathBuf {
        left::rooms(&self.gpu.daemon.home).pop().expect("a RAM directory")
    }

    /// Waits until nothing of a job lies where outputs, previews and inputs lie.
    pub async fn swept(&self) {
        eventually("a swept RAM directory", Duration::from_secs(30), async || {
            let mut files = Vec::new();
            for folder in ["out", "tmp", "in"] {
                files_below(&self.room().join(folder), &mut files);
            }
            files.is_empty().then_some(()).ok_or_else(|| format!("{files:?}"))
        })
        .await;
    }

    /// ComfyUI's own process.
    pub fn comfy(&self) -> Option<i32> {
        left::main_process(&self.gpu.daemon.home, 0)
    }

    /// Sends ComfyUI a signal and tells its pid.
    pub fn signal_comfy(&self, signal: Signal) -> i32 {
        let pid = self.comfy().expect("a ComfyUI");
        kill(Pid::from_raw(pid), signal).unwrap();
        pid
    }

    /// Asserts that a smallest job is served as ever, and that nothing of it stays.
    pub async fn assert_serves(&self) {
        let ended = self.caller.run(&workflow::save_one()).await.done();
        assert_eq!(ended.outputs().len(), 1);
        self.swept().await;
    }
}

/// Every file below a folder.
pub fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}
