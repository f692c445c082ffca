//! The daemon under measurement: the release binary, in a home of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "token-of-the-benchmark";

pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("cb").tempdir().unwrap())
    }

    pub fn run(&self) -> PathBuf {
        self.0.path().join("run")
    }
}

pub struct Daemon {
    child: Child,
    pub run: PathBuf,
    state: PathBuf,
    url: String,
    http: reqwest::Client,
    health: reqwest::Client,
    _home: Option<Home>,
}

fn runtimes() -> PathBuf {
    std::env::var_os("CLOISTER_STATE_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cloister"), PathBuf::from)
        .join("runtimes")
}

impl Daemon {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these variables beside its own.
    pub async fn start_with(variables: &[(&str, String)]) -> Self {
        let home = Home::new();
        let mut daemon = Self::start_configured(&home, variables).await;
        daemon._home = Some(home);
        daemon
    }

    /// Returns at the first 200 from `/readyz`.
    pub async fn start_in(home: &Home) -> Self {
        Self::start_configured(home, &[]).await
    }

    async fn start_configured(home: &Home, variables: &[(&str, String)]) -> Self {
        let (state, run) = (home.0.path().join("state"), home.run());
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .arg("serve")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CLOISTER_STATE_DIR", &state)
            .env("CLOISTER_RUN_DIR", &run)
            .env("RUNTIME_IMAGE_DENO", runtimes().join("deno"))
            .env("RUNTIME_IMAGE_BUN", runtimes().join("bun"))
            .envs([("BEARER_TOKEN", TOKEN), ("PORT", "0"), ("CLOISTER__SERVER__ADDRESS", "127.0.0.1")])
            .env("CLOISTER__LOG__FORMAT", "json")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["msg"] == "http.listening" {
                    drop(tell.send(format!("http://{}", entry["address"].as_str().unwrap_or_default())));
                }
            }
        });
        let health = super::support::http().unix_socket(run.join("health.sock")).build().unwrap();
        let http = super::support::http().timeout(Duration::from_secs(60)).build().unwrap();
        loop {
            let answer = health.get("http://health/readyz").send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let url = told.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { child, run, state, url, http, health, _home: None }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(TOKEN);
        request.json(&body).send().await.unwrap().json().await.unwrap()
    }

    pub async fn environment(&self, runtime: &str, source: &str) -> String {
        self.isolated(runtime, source, "call").await
    }

    async fn isolated(&self, runtime: &str, source: &str, isolation: &str) -> String {
        let modules = json!({ "main.js": source });
        let body = json!({ "mainModule": "main.js", "modules": modules, "runtime": runtime, "isolation": isolation });
        self.post("/environments/setup", body).await["id"].as_str().unwrap().to_owned()
    }

    /// An environment whose calls share their sandbox.
    pub async fn sharing(&self, runtime: &str, source: &str) -> String {
        self.isolated(runtime, source, "environment").await
    }

    /// One call; true when it was ok.
    pub async fn execute(&self, id: &str) -> bool {
        self.call(id).await["outcome"] == "ok"
    }

    /// One call's answer.
    pub async fn call(&self, id: &str) -> Value {
        let body = json!({ "data": 1, "limits": { "timeoutMs": 60000 } });
        self.post(&format!("/environments/{id}/execute"), body).await
    }

    /// The pool's picture.
    pub async fn pool(&self) -> Value {
        let answer = self.health.get("http://health/healthz").send().await.unwrap();
        answer.json::<Value>().await.unwrap()["pool"].take()
    }

    /// Waits until this many stand ready, and nothing else goes on.
    pub async fn stands(&self, count: u64) {
        loop {
            let pool = self.pool().await;
            let at_rest = ["running", "queued", "booting", "warming", "destroying"].iter().all(|key| pool[*key] == 0);
            if at_rest && pool["standing"].as_u64() >= Some(count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Adds files of this many bytes to an environment's packages.
    pub fn add_dependencies(&self, id: &str, bytes: usize) {
        const FILE: usize = 1 << 20;
        let package = self.volume(id).join("workspace/node_modules/large");
        std::fs::create_dir_all(&package).unwrap();
        let content = vec![b'x'; FILE];
        for n in 0..bytes / FILE {
            std::fs::write(package.join(format!("{n}.txt")), &content).unwrap();
        }
    }

    /// A call whose end nobody waits for.
    pub fn begin(&self, id: &str) -> tokio::task::JoinHandle<()> {
        let body = json!({ "data": 1, "limits": { "timeoutMs": 60000 } });
        let request = self.http.post(format!("{}/environments/{id}/execute", self.url)).bearer_auth(TOKEN).json(&body);
        tokio::spawn(async move { drop(request.send().await) })
    }

    /// Waits until nothing of any call is left.
    pub async fn idle(&self) {
        while std::fs::read_dir(self.run.join("slots")).is_ok_and(|entries| entries.count() > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn volume(&self, id: &str) -> PathBuf {
        self.state.join("volumes").join(format!("tee-env-{id}"))
    }

    pub fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        drop(self.child.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}
