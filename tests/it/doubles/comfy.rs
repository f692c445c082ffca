//! A running double of ComfyUI.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{eventually, http};

/// Until an answer must have come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The process, with folders of its own.
pub struct Comfy {
    child: Child,
    pub home: TempDir,
    pub port: u16,
    pub http: reqwest::Client,
}

/// The double, which `cargo test` builds beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/comfy-double");
    assert!(program.exists(), "no {}: run `cargo build --example comfy-double`", program.display());
    program
}

impl Comfy {
    /// A double that answers.
    pub async fn start(flags: &[&str], switches: &[(&str, &str)]) -> Self {
        let comfy = Self::spawn(TempDir::new().unwrap(), free_port(), flags, switches);
        comfy.ready().await;
        comfy
    }

    /// A double in a home that may have been lived in; whether it comes up is not waited for.
    pub fn spawn(home: TempDir, port: u16, flags: &[&str], switches: &[(&str, &str)]) -> Self {
        let child = command(home.path(), port, flags, switches).spawn().unwrap();
        Self { child, home, port, http: http().build().unwrap() }
    }

    /// Another process with the same folders and the same port.
    pub fn twin(&self) -> Child {
        command(self.home.path(), self.port, &[], &[]).spawn().unwrap()
    }

    pub async fn ready(&self) {
        eventually("the double of ComfyUI", PATIENCE, async || {
            match self.http.get(self.url("/system_stats")).send().await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(self.url(path)).timeout(PATIENCE).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Posts a prompt; its id.
    pub async fn prompt(&self, prompt: Value) -> String {
        let body = json!({"prompt": prompt, "client_id": "tests"}).to_string();
        let answer = self.http.post(self.url("/prompt")).body(body).send().await.unwrap();
        let taken: Value = answer.json().await.unwrap();
        taken["prompt_id"].as_str().unwrap_or_else(|| panic!("{taken}")).to_owned()
    }

    /// The entry of the history, once it is there.
    pub async fn history(&self, id: &str) -> Value {
        let mut entry = Value::Null;
        eventually("the history", PATIENCE, async || {
            entry = self.get(&format!("/history/{id}")).await[id].take();
            if entry.is_null() { Err("nothing".to_owned()) } else { Ok(()) }
        })
        .await;
        entry
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the end of the double", PATIENCE, async || {
            status = self.child.try_wait().unwrap();
            status.map(|_| ()).ok_or_else(|| "it runs".to_owned())
        })
        .await;
        status.unwrap()
    }

    /// What it printed, once it has ended.
    pub fn printed(&mut self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut text).unwrap();
        text
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

impl Drop for Comfy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(home: &Path, port: u16, flags: &[&str], switches: &[(&str, &str)]) -> Command {
    let folder = |name: &str| home.join(name).into_os_string();
    let mut command = Command::new(program());
    command.args(["main.py", "--listen", "127.0.0.1", "--port", &port.to_string(), "--disable-metadata"]);
    command.arg("--output-directory").arg(folder("out")).arg("--temp-directory").arg(folder("tmp"));
    command.arg("--input-directory").arg(folder("in")).arg("--user-directory").arg(folder("user")).args(flags);
    command.envs(switches.iter().map(|(name, value)| (format!("COMFY_DOUBLE_{name}"), value)));
    command.current_dir(home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A port that nobody listens on just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
