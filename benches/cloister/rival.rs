//! What Cloister is measured against: RunPod's SDK and PyNaCl, from the venv that set-up made, and ComfyUI by itself.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::support::{self, platform::Platform};

/// A process group that ends with its value, and a folder of its own.
pub struct Process {
    pub child: Child,
    pub spawned: Instant,
    _home: TempDir,
}

impl Process {
    fn start(mut command: Command, home: TempDir) -> Self {
        let spawned = Instant::now();
        let child = command.process_group(0).stderr(Stdio::null()).spawn().unwrap();
        Self { child, spawned, _home: home }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A script of `tests/oracle`.
fn script(name: &str, home: &TempDir) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let state = std::env::var_os("CLOISTER_STATE_DIR").map_or_else(|| root.join(".cloister"), PathBuf::from);
    let python = state.join("oracle/bin/python");
    assert!(python.exists(), "no RunPod SDK at {}: run `scripts/setup --with-oracle` first", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/oracle").join(name)).current_dir(home.path());
    command.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin");
    command
}

/// A worker of the real SDK on this platform, whose handler runs workflows on the ComfyUI at this port.
pub fn sdk(platform: &Platform, comfy: u16) -> Process {
    let home = tempfile::tempdir().unwrap();
    let mut command = script("comfy_worker.py", &home);
    command.envs(platform.worker_env("pod-of-the-sdk")).env("COMFY_ADDRESS", format!("127.0.0.1:{comfy}"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Process::start(command, home)
}

/// PyNaCl in a process of its own.
pub struct Pynacl {
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
    _process: Process,
}

impl Pynacl {
    pub fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = script("boxes.py", &home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command, home);
        let ask = process.child.stdin.take().unwrap();
        let told = BufReader::new(process.child.stdout.take().unwrap());
        Self { ask, told, _process: process }
    }

    /// Opens one box of so many bytes and seals another.
    pub fn open_and_seal(&mut self, bytes: usize) -> Duration {
        writeln!(self.ask, "{bytes}").unwrap();
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        Duration::from_nanos(line.trim().parse().expect("nanoseconds"))
    }
}

/// A ComfyUI of nobody's: the double, spoken to over its raw API.
pub struct Comfy {
    pub port: u16,
    http: reqwest::Client,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    _process: Process,
}

const CLIENT: &str = "client-of-the-benchmark";

impl Comfy {
    /// With its directories in RAM, as the daemon's have them.
    pub async fn start() -> Self {
        let home = tempfile::Builder::new().prefix("cb").tempdir_in("/dev/shm").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/comfy-double");
        let folder = |name: &str| home.path().join(name);
        let mut command = Command::new(&program);
        command.arg(main_py(home.path())).args(["--port", &port.to_string()]);
        command.arg("--output-directory").arg(folder("out")).arg("--input-directory").arg(folder("in"));
        command.arg("--temp-directory").arg(folder("tmp")).current_dir(home.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(command, home);
        let address = format!("ws://127.0.0.1:{port}/ws?clientId={CLIENT}");
        let socket = loop {
            match tokio_tungstenite::connect_async(&address).await {
                Ok((socket, _)) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        Self { port, http: support::http().build().unwrap(), socket, _process: process }
    }

    /// From the prompt's post to the last byte of its last file.
    pub async fn run(&mut self, workflow: &Value) -> Duration {
        let base = format!("http://127.0.0.1:{}", self.port);
        let body = json!({ "prompt": workflow, "client_id": CLIENT });
        let began = Instant::now();
        let taken = self.http.post(format!("{base}/prompt")).json(&body).send().await.unwrap();
        let taken: Value = taken.json().await.unwrap();
        let mut files = Vec::new();
        loop {
            let Some(Ok(Message::Text(text))) = self.socket.next().await else { continue };
            let told: Value = serde_json::from_str(&text).unwrap();
            if told["data"]["prompt_id"] != taken["prompt_id"] {
                continue;
            }
            match told["type"].as_str() {
                Some("executed") => files.extend(listed(&told["data"]["output"])),
                Some("execution_success") => break,
                Some("execution_error") => panic!("the raw run failed: {told}"),
                _ => {}
            }
        }
        for file in files {
            let text = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
            let mut url = reqwest::Url::parse(&format!("{base}/view")).unwrap();
            let names = ["filename", "subfolder", "type"];
            url.query_pairs_mut().extend_pairs(names.iter().map(|name| (name, text(name))));
            let read = self.http.get(url).send().await.unwrap().bytes().await.unwrap();
            assert!(!read.is_empty());
        }
        began.elapsed()
    }
}

fn listed(output: &Value) -> Vec<Value> {
    let lists = output.as_object().into_iter().flat_map(serde_json::Map::values);
    let files = lists.filter_map(Value::as_array).flatten();
    files.filter(|file| file["filename"].is_string()).cloned().collect()
}

fn main_py(folder: &Path) -> PathBuf {
    let path = folder.join("main.py");
    std::fs::write(&path, "").unwrap();
    path
}
