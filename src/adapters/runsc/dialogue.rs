//! What the runner may say and in which order (`runtimes/PROTOCOL.md`), as pure code.
//!
//! ```text
//!            log*             log*, file*
//!   sent ──────────► imported ──────────► settled        (execute)
//!     │                                      ▲
//!     ├── failure ───────────────────────────┤
//!     ├── transpiled ────────────────────────┤           (transpile)
//!     └── installed ── files' bytes ─────────┘           (install)
//!
//!            log*                     call sent, log*
//!   sent ──────────► imported: settled ─────────────────► settled      (prepare, then the call)
//!
//!   a call that was asked to keep: settled ── next call sent, log*, file* ──► settled
//! ```
//!
//! Whatever is not on this picture was not written by a runner: the call is settled as forged.

use std::collections::{BTreeMap, BTreeSet};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;

use super::delivery::{Delivery, is_plain};
use super::result::check_result;
use super::settings::{InstallLimits, OutLimits};
use crate::domain::environment::SourceFault;
use crate::domain::execution::{ErrorReport, FailureFrameKind, LogEntry, OutFile, Phase, Settlement};
use crate::domain::package_set::SetKind;
use crate::ports::sandbox::{Installed, Transpiled};

/// The version of the protocol that this daemon speaks.
pub(super) const PROTOCOL: u32 = 1;
/// The largest `ready` frame.
pub(super) const READY_CAP: usize = 4096;
const MAX_LOGS: usize = 10_000;
/// Of a file that comes out of a call.
const MAX_PATH: usize = 1024;
const MAX_FAULTS: usize = 200;
const MAX_REASON: usize = 400;

/// What was asked of the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// With what may come out of the call, where that was asked for.
    Execute(Option<OutLimits>),
    /// The module's import, before there is a call.
    Prepare,
    /// The modules' names: the answer is about exactly these.
    Transpile(BTreeSet<String>),
    Install(SetKind),
}

/// The caps that the dialogue holds the runner to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub result_bytes: usize,
    pub log_bytes: usize,
    /// Of what an installer answers.
    pub installs: InstallLimits,
}

/// What a settled dialogue came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Settled {
    Call(Settlement),
    Prepared,
    Transpiled(Transpiled),
    Installed(Installed),
}

/// The dialogue after the request was sent.
#[derive(Debug)]
pub(super) struct Dialogue {
    task: Task,
    nonce: String,
    caps: Caps,
    phase: Phase,
    logs: Vec<LogEntry>,
    log_bytes: usize,
    logs_cut: bool,
    /// There once files were announced: from then on frames are raw bytes. Boxed, since few dialogues have one.
    delivery: Option<Box<Delivery>>,
    /// What came out of the call so far.
    files: BTreeMap<String, Vec<u8>>,
    file_bytes: usize,
    /// How many of the logs a follower has heard.
    told: usize,
}

impl Dialogue {
    pub(super) fn new(task: Task, nonce: String, caps: Caps) -> Self {
        Self {
            task,
            nonce,
            caps,
            phase: Phase::Import,
            logs: Vec::new(),
            log_bytes: 0,
            logs_cut: false,
            delivery: None,
            files: BTreeMap::new(),
            file_bytes: 0,
            told: 0,
        }
    }

    /// The dialogue of a call in a sandbox that has served others: the module is imported.
    pub(super) fn of_next_call(nonce: String, out: Option<OutLimits>, caps: Caps) -> Self {
        Self { phase: Phase::Handler, ..Self::new(Task::Execute(out), nonce, caps) }
    }

    /// The call comes: from here on it is as if its own request had imported the module.
    pub(super) fn resume(&mut self, out: Option<OutLimits>) {
        self.task = Task::Execute(out);
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The log entries so far; the last has the level `truncated` when more came than is kept.
    pub(super) fn take_logs(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.logs)
    }

    /// The files that came, by path.
    pub(super) fn take_files(&mut self) -> Vec<OutFile> {
        std::mem::take(&mut self.files).into_iter().map(|(path, content)| OutFile { path, content }).collect()
    }

    /// The log entries that were kept since this was asked last.
    pub(super) fn untold(&mut self) -> &[LogEntry] {
        let told = std::mem::replace(&mut self.told, self.logs.len());
        self.logs.get(told..).unwrap_or_default()
    }

    /// Takes one frame. Some once the dialogue is over; nothing may be read after that.
    pub(super) fn step(&mut self, frame: &[u8]) -> Option<Settled> {
        let said = match &mut self.delivery {
            Some(delivery) => delivery.take(frame).map(|()| Said::Delivering),
            None => self.read(frame),
        };
        match said {
            Some(Said::Imported) => {
                self.phase = Phase::Handler;
                (self.task == Task::Prepare).then_some(Settled::Prepared)
            }
            Some(Said::Log(entry)) => {
                self.keep(entry);
                None
            }
            Some(Said::Delivering) => {
                let files = self.delivery.as_mut()?.files()?;
                Some(Settled::Installed(Installed::Files(files)))
            }
            Some(Said::File(path, content)) => {
                self.file_bytes += content.len();
                self.files.insert(path, content);
                None
            }
            Some(Said::Settled(settled)) => Some(settled),
            None => Some(Settled::Call(Settlement::Forged)),
        }
    }

    /// None when no runner would have said this here.
    fn read(&mut self, frame: &[u8]) -> Option<Said> {
        let message: Message = serde_json::from_slice(frame).ok()?;
        if message.nonce.as_deref() != Some(self.nonce.as_str()) {
            return None;
        }
        let fields = message.fields();
        let executes = matches!(self.task, Task::Execute(_));
        let imports = executes || self.task == Task::Prepare;
        match (message.kind.as_str(), fields) {
            ("imported", NOTHING) if imports && self.phase == Phase::Import => Some(Said::Imported),
            ("file", FILE) if executes && self.phase == Phase::Handler => self.file(message.path?, &message.content?),
            ("log", _) if imports => message.log().map(Said::Log),
            ("result", JSON) if executes && self.phase == Phase::Handler => {
                Some(Said::call(check_result(message.json?, self.caps.result_bytes)))
            }
            ("failure", FAILURE) => {
                Some(Said::call(Settlement::Failure { kind: message.failure?, error: message.error? }))
            }
            ("transpiled", MODULES | ERRORS) => {
                let Task::Transpile(asked) = &self.task else {
                    return None;
                };
                transpiled(asked, message.modules, message.errors)
                    .map(|answer| Said::Settled(Settled::Transpiled(answer)))
            }
            ("installed", FILES) => {
                let Task::Install(kind) = self.task else {
                    return None;
                };
                self.delivery = Some(Box::new(Delivery::announced(message.files?, self.caps.installs, kind)?));
                Some(Said::Delivering)
            }
            ("installed", ERROR_TEXT) if matches!(self.task, Task::Install(_)) => {
                Some(Said::Settled(Settled::Installed(Installed::Failed(one_line(&message.message?)))))
            }
            _ => None,
        }
    }

    /// None for one that no runner sends: it holds to the caps, and says each path once.
    fn file(&self, path: String, content: &str) -> Option<Said> {
        let Task::Execute(Some(most)) = self.task else { return None };
        let content = BASE64_STANDARD.decode(content).ok()?;
        let fits = self.files.len() < most.files && self.file_bytes + content.len() <= most.bytes;
        let is_new = path.len() <= MAX_PATH && path.split('/').all(is_plain) && !self.files.contains_key(&path);
        (fits && is_new).then_some(Said::File(path, content))
    }

    fn keep(&mut self, entry: LogEntry) {
        if self.logs_cut {
            return;
        }
        let size = entry.message.len();
        let fits = self.log_bytes + size <= self.caps.log_bytes && self.logs.len() < MAX_LOGS;
        self.logs_cut = !fits || entry.level == TRUNCATED;
        if fits {
            self.log_bytes += size;
            self.logs.push(entry);
        } else {
            self.logs.push(LogEntry {
                level: TRUNCATED.to_owned(),
                message: String::new(),
                timestamp: entry.timestamp,
            });
        }
    }
}

const TRUNCATED: &str = "truncated";

enum Said {
    Imported,
    Log(LogEntry),
    /// Files were announced, or bytes of them taken.
    Delivering,
    File(String, Vec<u8>),
    Settled(Settled),
}

impl Said {
    fn call(settlement: Settlement) -> Self {
        Said::Settled(Settled::Call(settlement))
    }
}

/// Any frame after `ready`. A field twice, or one that no frame has, does not parse.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    nonce: Option<String>,
    level: Option<String>,
    message: Option<String>,
    timestamp: Option<f64>,
    json: Option<String>,
    #[serde(rename = "kind")]
    failure: Option<FailureFrameKind>,
    error: Option<ErrorReport>,
    modules: Option<BTreeMap<String, String>>,
    errors: Option<Vec<SourceFault>>,
    /// Paths and sizes.
    files: Option<Vec<(String, usize)>>,
    path: Option<String>,
    /// In base64.
    content: Option<String>,
}

/// Which optional fields a frame has, as bits.
type Fields = u16;
const NOTHING: Fields = 0;
const LEVEL: Fields = 1;
const TEXT: Fields = 1 << 1;
const TIME: Fields = 1 << 2;
const JSON: Fields = 1 << 3;
const FAILURE: Fields = (1 << 4) | (1 << 5);
const MODULES: Fields = 1 << 6;
const ERRORS: Fields = 1 << 7;
const FILES: Fields = 1 << 8;
const FILE: Fields = (1 << 9) | (1 << 10);
const ERROR_TEXT: Fields = TEXT;
const LOG: Fields = LEVEL | TEXT | TIME;

impl Message {
    fn fields(&self) -> Fields {
        let present = [
            self.level.is_some(),
            self.message.is_some(),
            self.timestamp.is_some(),
            self.json.is_some(),
            self.failure.is_some(),
            self.error.is_some(),
            self.modules.is_some(),
            self.errors.is_some(),
            self.files.is_some(),
            self.path.is_some(),
            self.content.is_some(),
        ];
        (0..).zip(present).filter(|(_, here)| *here).fold(NOTHING, |bits, (at, _)| bits | (1 << at))
    }

    fn log(self) -> Option<LogEntry> {
        let fields = self.fields();
        let level = self.level?;
        match (level.as_str(), fields) {
            ("debug" | "info" | "log" | "warn" | "error", LOG) => {
                Some(LogEntry { level, message: self.message?, timestamp: self.timestamp? })
            }
            (TRUNCATED, LEVEL) => Some(LogEntry { level, message: String::new(), timestamp: 0.0 }),
            _ => None,
        }
    }
}

fn transpiled(
    asked: &BTreeSet<String>,
    modules: Option<BTreeMap<String, String>>,
    errors: Option<Vec<SourceFault>>,
) -> Option<Transpiled> {
    match (modules, errors) {
        (Some(modules), None) => modules.keys().eq(asked.iter()).then_some(Transpiled::Modules(modules)),
        (None, Some(mut faults)) => {
            let known = !faults.is_empty() && faults.iter().all(|fault| asked.contains(&fault.module));
            faults.truncate(MAX_FAULTS);
            known.then_some(Transpiled::Faults(faults))
        }
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect()
}

/// The frame that ends the boot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ready {
    #[serde(rename = "type")]
    kind: String,
    protocol: u32,
    runtime: String,
    #[expect(dead_code, reason = "part of the frame; the daemon takes the version from the image's manifest")]
    version: String,
}

/// True for a `ready` frame of this protocol from the runner of `runtime`.
pub(super) fn is_ready(frame: &[u8], runtime: &str) -> bool {
    serde_json::from_slice::<Ready>(frame)
        .is_ok_and(|ready| ready.kind == "ready" && ready.protocol == PROTOCOL && ready.runtime == runtime)
}

#[cfg(test)]
#[path = "dialogue_tests.rs"]
mod tests;
