//! Starts the real binary with directories of its own, learns its address from its log, and ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::host;
use super::tier::{Standing, Tier};

/// The token every test daemon takes.
pub const TOKEN: &str = "test-token-of-the-suite";
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct Settings {
    pub env: BTreeMap<String, String>,
    pub args: Vec<String>,
    /// Wait for readiness, not only for the address.
    pub wait_ready: bool,
    pub tier: Tier,
}

impl Default for Settings {
    fn default() -> Self {
        Self { env: BTreeMap::new(), args: Vec::new(), wait_ready: true, tier: Tier::Cold }
    }
}

impl Settings {
    /// Sets a configuration key, written `section.key`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("CLOISTER__{}", key.replace('.', "__").to_uppercase());
        self.env.insert(name, value.to_owned());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Returns as soon as the daemon listens.
    pub fn without_waiting(mut self) -> Self {
        self.wait_ready = false;
        self
    }
}

/// Directories that outlive one daemon, for restarts over the same state.
pub struct Home {
    pub root: TempDir,
}

impl Home {
    /// A new, empty home.
    pub fn new() -> Self {
        Self { root: tempfile::Builder::new().prefix("cl").tempdir().unwrap() }
    }

    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub fn run(&self) -> PathBuf {
        self.root.path().join("run")
    }
}

/// A running daemon. Dropping it kills it and everything it made.
pub struct Daemon {
    pub home: Arc<Home>,
    child: Child,
    pub url: String,
    /// All log lines so far.
    pub log: Arc<Mutex<Vec<String>>>,
    pub standing: Standing,
    tidy: bool,
}

/// The folder where the set-up step put the runtimes.
pub fn runtimes() -> PathBuf {
    let at = std::env::var_os("CLOISTER_STATE_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cloister"), PathBuf::from)
        .join("runtimes");
    assert!(at.join("deno").is_dir(), "no runtimes in {}: run `make setup` first", at.display());
    at
}

impl Daemon {
    /// A daemon with default settings in a new home.
    pub async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub async fn start_with(settings: Settings) -> Self {
        Self::start_in(Arc::new(Home::new()), settings).await
    }

    /// A daemon whose calls start as the tier says, where they can.
    pub async fn start_on(tier: Tier, settings: Settings) -> Self {
        Self::start_with(tier.settings(Settings { tier, ..settings })).await
    }

    /// A daemon over a home that may have been lived in.
    pub async fn start_in(home: Arc<Home>, settings: Settings) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make sandboxes: run them as root");
        let mut child = command(&home, &settings).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let addresses = follow(child.stderr.take().unwrap(), Arc::clone(&log));
        let told = match port_of(&settings) {
            Some(port) => listens_on(port).map_err(|_| RecvTimeoutError::Timeout),
            None => addresses.recv_timeout(START_PATIENCE),
        };
        let Ok(url) = told else {
            let ended = child.try_wait();
            drop(child.kill());
            panic!("the daemon did not listen ({ended:?}):\n{}", log.lock().unwrap().join("\n"));
        };
        let standing = Standing::new(settings.tier, home.run().join("health.sock"));
        let daemon = Self { home, child, url, log, standing, tidy: true };
        if settings.wait_ready {
            daemon.wait_ready().await;
        }
        daemon
    }

    /// Waits for `/readyz` to say so.
    pub async fn wait_ready(&self) {
        super::eventually("readiness", START_PATIENCE, async || match self.health("/readyz").await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}\n{}", self.log.lock().unwrap().join("\n"))),
        })
        .await;
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url, TOKEN).beside(self.standing.clone())
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn health_socket(&self) -> PathBuf {
        self.home.run().join("health.sock")
    }

    /// Asks the health socket.
    pub async fn health(&self, path: &str) -> Result<(u16, Value), String> {
        let client = super::http().unix_socket(self.health_socket()).build().unwrap();
        let answer = client.get(format!("http://health{path}")).send().await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = answer.text().await.map_err(|error| error.to_string())?;
        Ok((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        super::eventually("the daemon's end", patience, async || match self.child.try_wait().unwrap() {
            Some(ended) => {
                status = Some(ended);
                Ok(())
            }
            None => Err("it still runs".to_owned()),
        })
        .await;
        status.unwrap()
    }

    /// SIGKILL, then the home for a next life; what the daemon left on the host stays as it is.
    pub fn kill_only(mut self) -> Arc<Home> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.tidy = false;
        Arc::clone(&self.home)
    }

    /// Asserts that nothing of any call is left on the host but what stands ready for others, and that calls started
    /// as the daemon's tier has it.
    pub async fn assert_nothing_left(&self) {
        let Standing { tier, starts, .. } = &self.standing;
        if tier.stands() {
            let starts = starts.lock().unwrap();
            assert!(starts.iter().any(|start| start == tier.start()), "{tier:?}: {starts:?}");
        }
        self.eventually_nothing_left(Duration::from_secs(20)).await;
    }

    /// Waits until nothing of any call is left on the host but what stands ready for others.
    pub async fn eventually_nothing_left(&self, patience: Duration) {
        let tier = self.standing.tier;
        super::eventually("an empty host", patience, async || {
            let frozen = if tier.stands() { host::frozen_slots(&self.home) } else { BTreeSet::new() };
            host::leftovers_beside(&self.home, &frozen)?;
            let standing = if tier.stands() { self.standing.pool().await["standing"].as_u64() } else { Some(0) };
            let count = u64::try_from(frozen.len()).ok();
            if standing == count { Ok(()) } else { Err(format!("{standing:?} stand and {frozen:?} are frozen")) }
        })
        .await;
    }

    /// Waits until an event was logged so often.
    pub async fn noticed(&self, event: &str, times: usize) {
        super::eventually(event, START_PATIENCE, async || match self.log_text().matches(event).count() {
            seen if seen >= times => Ok(()),
            seen => Err(seen.to_string()),
        })
        .await;
    }

    pub fn log_text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if self.tidy {
            host::clean_up(&self.home);
        }
    }
}

/// The binary with a home, a token and no inherited configuration.
pub fn command(home: &Home, settings: &Settings) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command.arg("serve").args(&settings.args);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("CLOISTER_STATE_DIR", home.state()).env("CLOISTER_RUN_DIR", home.run());
    command.env("BEARER_TOKEN", TOKEN).env("PORT", "0").env("CLOISTER__SERVER__ADDRESS", "127.0.0.1");
    command.env("RUNTIME_IMAGE_DENO", runtimes().join("deno")).env("RUNTIME_IMAGE_BUN", runtimes().join("bun"));
    command.env("CLOISTER__LOG__FORMAT", "json");
    // What stands ready would be in the way of tests that look at the whole host.
    command.env("CLOISTER__SANDBOX__STANDING__ENABLED", "false").env("CLOISTER__SANDBOX__STANDING__COMPILERS", "0");
    command.envs(&settings.env);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The port that a test chose itself, for a daemon whose log does not tell its address.
fn port_of(settings: &Settings) -> Option<u16> {
    settings.env.get("PORT").and_then(|port| port.parse().ok()).filter(|port| *port != 0)
}

/// Waits until somebody listens there.
fn listens_on(port: u16) -> std::io::Result<String> {
    let began = std::time::Instant::now();
    loop {
        match std::net::TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => return Ok(format!("http://127.0.0.1:{port}")),
            Err(error) if began.elapsed() > START_PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Collects log lines, and tells the address when the line with it comes.
fn follow(stderr: std::process::ChildStderr, log: Arc<Mutex<Vec<String>>>) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Ok(Value::Object(entry)) = serde_json::from_str::<Value>(&line)
                && entry.get("msg").and_then(Value::as_str) == Some("http.listening")
                && let Some(address) = entry.get("address").and_then(Value::as_str)
            {
                drop(tell.send(format!("http://{address}")));
            }
            log.lock().unwrap().push(line);
        }
    });
    told
}
