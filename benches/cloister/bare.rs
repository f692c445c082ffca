//! The floor of a cold call: `runsc run` by hand, of a bundle that the daemon made, fed and read over two pipes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::daemon::Daemon;

/// A bundle and the command line it was run with.
pub struct Bundle {
    folder: TempDir,
    arguments: Vec<String>,
    /// The captured slot's directory, as the words name it.
    slot: String,
    probe_volume: PathBuf,
}

/// Takes the bundle and the command line from a call that is under way.
pub async fn capture(daemon: &Daemon, runtime: &str) -> Bundle {
    let slow = "export const handler = () => new Promise((done) => setTimeout(done, 30000))";
    let id = daemon.environment(runtime, slow).await;
    let call = daemon.begin(&id);
    let arguments = loop {
        if let Some(found) = command_line(daemon) {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let at = arguments.iter().position(|word| word == "--bundle").map(|at| at + 1);
    let source = at.map(|at| PathBuf::from(&arguments[at])).expect("a bundle on the command line");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
    call.abort();
    daemon.idle().await;
    let slot = source.to_string_lossy().into_owned();
    Bundle { folder, arguments, slot, probe_volume: daemon.volume(&id) }
}

/// The words of the `runsc … run …` that the daemon started, if one runs.
fn command_line(daemon: &Daemon) -> Option<Vec<String>> {
    let mark = daemon.run.to_string_lossy().into_owned();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let is_run = words.first()?.ends_with("runsc") && words.iter().any(|word| word == "run");
        (is_run && words.iter().any(|word| word.contains(&mark))).then_some(words)
    })
}

impl Bundle {
    /// The memory of each of several sandboxes that wait for their requests, one for each environment, in MiB.
    pub fn resting(&self, daemon: &Daemon, ids: &[String]) -> f64 {
        let started: Vec<Started> = ids.iter().map(|id| self.start(daemon, id)).collect();
        for one in &started {
            let mut said = [0_u8; 4];
            (&one.reply).read_exact(&mut said).unwrap();
        }
        // What they do after they have said that they are ready.
        std::thread::sleep(Duration::from_secs(1));
        let share: f64 = started.iter().map(|one| shares(&one.folder.path().to_string_lossy())).sum();
        for Started { mut child, ask, .. } in started {
            // It hangs up without a request, which ends the runner.
            drop(ask);
            child.wait().unwrap();
        }
        share / as_count(ids.len())
    }

    /// Runs the handler of environment `id` once, from spawn to exit.
    pub fn run(&self, daemon: &Daemon, id: &str) {
        let Started { mut child, mut ask, mut reply, folder: _folder } = self.start(daemon, id);
        write_frame(&mut ask, &request(false));
        let mut said = String::new();
        reply.read_to_string(&mut said).unwrap_or_default();
        assert!(child.wait().unwrap().success(), "the bare run failed");
    }

    /// So many calls of environment `id`, one after the other in one sandbox: how long each took over the pipes.
    pub fn turns(&self, daemon: &Daemon, id: &str, calls: usize) -> Vec<Duration> {
        let Started { mut child, mut ask, mut reply, folder: _folder } = self.start(daemon, id);
        let spans = (0..calls).map(|_| {
            let began = Instant::now();
            write_frame(&mut ask, &request(true));
            while read_frame(&mut reply)["type"] != "result" {}
            began.elapsed()
        });
        let spans = spans.collect();
        drop(ask);
        child.wait().unwrap();
        spans
    }

    fn start(&self, daemon: &Daemon, id: &str) -> Started {
        let bundle = self.folder.path();
        let text = std::fs::read_to_string(bundle.join("config.json")).unwrap();
        let probe = self.probe_volume.to_string_lossy().into_owned();
        let ours = daemon.volume(id).to_string_lossy().into_owned();
        let own = tempfile::tempdir_in(bundle).unwrap();
        std::fs::write(own.path().join("config.json"), text.replace(&probe, &ours)).unwrap();

        let (reply_read, reply_write) = pipe();
        let (ask_read, ask_write) = pipe();
        let mut command = Command::new(&self.arguments[0]);
        command.args(self.words(own.path().to_str().unwrap())).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mappings =
            vec![FdMapping { parent_fd: reply_write, child_fd: 3 }, FdMapping { parent_fd: ask_read, child_fd: 4 }];
        command.fd_mappings(mappings).unwrap();
        let child = command.spawn().unwrap();
        // The mappings hold the child's ends; without them gone, end-of-file never comes.
        drop(command);
        Started { child, ask: File::from(ask_write), reply: File::from(reply_read), folder: own }
    }

    /// The daemon's own words, with another slot directory wherever they name one.
    fn words(&self, slot: &str) -> Vec<String> {
        let words = self.arguments[1..].iter().filter(|word| !word.is_empty());
        words.map(|word| word.replace(&self.slot, slot)).collect()
    }
}

/// A whole call; `keep`: another comes after it. A runner that was kept takes of it what it lacks.
fn request(keep: bool) -> Value {
    json!({ "nonce": "0".repeat(32), "task": "execute", "main": "main.js", "keep": keep,
        "event": { "data": 1, "env": {} }, "context": { "executionId": "x", "environmentId": "x", "requestId": "x" },
        "limits": { "resultBytes": 1 << 20, "logBytes": 1 << 20, "messageBytes": 65536 } })
}

fn write_frame(ask: &mut File, frame: &Value) {
    let text = frame.to_string();
    let size = u32::try_from(text.len()).unwrap().to_be_bytes();
    ask.write_all(&[&size, text.as_bytes()].concat()).unwrap();
}

fn read_frame(reply: &mut File) -> Value {
    let mut size = [0; 4];
    reply.read_exact(&mut size).unwrap();
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(size)).unwrap()];
    reply.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// A sandbox that was started by hand.
struct Started {
    child: Child,
    ask: File,
    reply: File,
    folder: TempDir,
}

/// The proportional shares of memory of all processes whose command line names this path, and of those that they started, in MiB
/// (proc_pid_smaps(5)).
pub fn shares(mark: &str) -> f64 {
    let processes: Vec<(i32, i32, bool)> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&line);
            Some((pid, parent, text.contains(mark) && text.contains("runsc")))
        })
        .collect();
    let mut ours: Vec<i32> = processes.iter().filter(|(.., marked)| *marked).map(|(pid, ..)| *pid).collect();
    let mut at = 0;
    while let Some(parent) = ours.get(at).copied() {
        let children =
            processes.iter().filter(|(pid, of, _)| *of == parent && !ours.contains(pid)).map(|(pid, ..)| *pid);
        let children: Vec<i32> = children.collect();
        ours.extend(children);
        at += 1;
    }
    let share = |pid: &i32| -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    ours.iter().filter_map(share).sum::<f64>() / 1024.0
}

fn pipe() -> (OwnedFd, OwnedFd) {
    // Close-on-exec: a sandbox that held the writing end of its own requests would never see their end.
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

pub fn as_count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
