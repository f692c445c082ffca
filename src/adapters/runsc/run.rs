//! One task in a ready sandbox: its limits are put in force, its request is sent, and what was seen becomes evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use slog::debug;

use super::dialogue::{Caps, Dialogue, Settled, Task};
use super::frame::encode;
use super::line::Line;
use super::settings::{InstallLimits, OutLimits};
use super::slot::Slot;
use super::stopwatch::Stopwatch;
use super::watch::{self, Seen, watch};
use super::{RunscEngine, host};
use crate::domain::execution::{Call, Evidence, Following, Limits, Settlement, judge};
use crate::domain::id::SlotId;
use crate::ports::cgroup::{CgroupLimits, CgroupUsage};
use crate::ports::sandbox::{Installed, SandboxError, Transpiled};

const MIB: u64 = 1 << 20;
/// What the idle sandbox itself is granted: as much as it used when it was ready, within these bounds. The page cache
/// of the image is charged to whoever read it first, so that the usage varies.
const ALLOWANCE: (u64, u64) = (64 * MIB, 192 * MIB);
/// Tasks of the sandbox itself: 29 to 31 measured when idle, two for each further CPU, and some for the guest's stubs.
const OWN_PIDS: u64 = 56;
/// The largest answer to a transpile task, and its log of faults.
const TRANSPILED_CAP: usize = 32 << 20;
/// A control character takes six bytes in JSON, and an error has two texts of `messageBytes` and a short one.
const ERROR_GROWTH: usize = 16;
const FRAME_FIELDS: usize = 4096;
/// Of one installed file beside its content: its path, and what is around it.
const INSTALLED_ENTRY: usize = 300;

/// Of one file that comes out of a call, likewise: a path of 255 characters, each of them as JSON writes it.
const FILE_ENTRY: usize = 2048;

/// The task that the request asks for.
#[derive(Serialize)]
#[serde(tag = "task", rename_all = "lowercase")]
enum Asked<'a> {
    Execute {
        main: &'a str,
        event: Event<'a>,
        context: Context,
        #[serde(skip_serializing_if = "Option::is_none")]
        out: Option<OutLimits>,
    },
    Transpile {
        modules: &'a BTreeMap<String, String>,
    },
    Install {
        packages: &'a BTreeMap<String, String>,
        registry: &'a str,
        most: Most,
    },
}

/// The installer's own caps.
#[derive(Serialize)]
struct Most {
    bytes: usize,
    files: usize,
}

#[derive(Serialize)]
struct Request<'a> {
    nonce: &'a str,
    #[serde(flatten)]
    asked: Asked<'a>,
    limits: RunnerLimits,
}

#[derive(Serialize)]
struct Event<'a> {
    data: &'a RawValue,
    env: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    execution_id: String,
    environment_id: String,
    request_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunnerLimits {
    result_bytes: usize,
    log_bytes: usize,
    message_bytes: usize,
}

/// Without the parser's words: they may quote the data.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the call's data is not JSON")]
    DataNotJson,
    #[error("the request is too large for a frame")]
    TooLarge,
    #[error("no registry is configured (sandbox.registries)")]
    NoRegistry,
}

impl RunscEngine {
    pub(super) async fn execute(
        &self,
        id: SlotId,
        call: Call,
        main: String,
        following: Following,
    ) -> Result<Evidence, SandboxError> {
        let data: &RawValue = serde_json::from_str(&call.data).map_err(|_| cannot_ask(RequestError::DataNotJson))?;
        let out = call.files.then_some(self.settings.out);
        let asked = Asked::Execute {
            main: &main,
            event: Event { data, env: &call.env },
            context: Context {
                execution_id: call.execution.to_string(),
                environment_id: call.environment.to_string(),
                request_id: call.request.as_str().to_owned(),
            },
            out,
        };
        // Every character of the result's JSON text takes at most two in the frame around it.
        let caps = self.runner_limits();
        let frame_cap = 2 * caps.result_bytes + ERROR_GROWTH * caps.message_bytes + FRAME_FIELDS;
        let frame_cap = frame_cap.max(out.map_or(0, |out| in_base64(out.bytes) + FILE_ENTRY + FRAME_FIELDS));
        let (seen, evidence) = self.perform(id, Task::Execute(out), asked, call.limits, frame_cap, following).await?;
        let settlement = match seen {
            Some(Settled::Call(settlement)) => Some(settlement),
            Some(Settled::Transpiled(_) | Settled::Installed(_)) => Some(Settlement::Forged),
            None => None,
        };
        Ok(Evidence { settlement, ..evidence })
    }

    pub(super) async fn turn_into_javascript(
        &self,
        id: SlotId,
        modules: BTreeMap<String, String>,
        limits: Limits,
    ) -> Result<Transpiled, SandboxError> {
        let task = Task::Transpile(modules.keys().cloned().collect());
        let asked = Asked::Transpile { modules: &modules };
        let (seen, evidence) = self.perform(id, task, asked, limits, TRANSPILED_CAP, None).await?;
        match seen {
            Some(Settled::Transpiled(answer)) => Ok(answer),
            other => Err(failed(other, evidence)),
        }
    }

    pub(super) async fn install_packages(
        &self,
        id: SlotId,
        packages: BTreeMap<String, String>,
        limits: Limits,
    ) -> Result<Installed, SandboxError> {
        let registry = self.settings.registries.first().ok_or_else(|| cannot_ask(RequestError::NoRegistry))?;
        let InstallLimits { bytes, files } = self.settings.installs;
        let asked = Asked::Install { packages: &packages, registry: &registry.url, most: Most { bytes, files } };
        // Base64, and each file's path.
        let frame_cap = in_base64(bytes) + files * INSTALLED_ENTRY + FRAME_FIELDS;
        let (seen, evidence) = self.perform(id, Task::Install, asked, limits, frame_cap, None).await?;
        match seen {
            Some(Settled::Installed(answer)) => Ok(answer),
            other => Err(failed(other, evidence)),
        }
    }

    /// Claims the slot, puts the limits in force, sends and watches. The evidence is without its settlement.
    async fn perform(
        &self,
        id: SlotId,
        task: Task,
        asked: Asked<'_>,
        limits: Limits,
        frame_cap: usize,
        following: Following,
    ) -> Result<(Option<Settled>, Evidence), SandboxError> {
        let stopwatch = Stopwatch::start();
        let slot = self.slots.get(id).ok_or(SandboxError::Unknown(id))?;
        let line = slot.claim().ok_or(SandboxError::Unknown(id))?;
        let nonce = nonce()?;
        let runner_limits = self.runner_limits();
        let caps = Caps {
            result_bytes: runner_limits.result_bytes,
            log_bytes: runner_limits.log_bytes,
            installs: self.settings.installs,
        };
        let files = match task {
            Task::Execute(Some(out)) => in_base64(out.bytes) + out.files * FILE_ENTRY,
            _ => 0,
        };
        let channel_cap = u64::try_from(2 * caps.log_bytes + frame_cap + files).unwrap_or(u64::MAX);
        let request = Request { nonce: &nonce, asked, limits: runner_limits };
        let body = serde_json::to_vec(&request).map_err(host("writing the request"))?;
        let request = encode(&body).ok_or_else(|| cannot_ask(RequestError::TooLarge))?;
        let before = self.restrict(&slot, limits)?;
        debug!(self.log, "slot.claimed"; "slot" => %id, "ms" => stopwatch.millis());

        let work = watch::Task {
            request,
            time_limit: limits.timeout,
            frame_cap,
            channel_cap: channel_cap.saturating_add(self.settings.output.discard),
            following,
        };
        self.follow(&slot, line, work, Dialogue::new(task, nonce, caps), before, limits).await
    }

    /// The call's limits instead of the boot's. Returns what was used up to now.
    fn restrict(&self, slot: &Slot, limits: Limits) -> Result<CgroupUsage, SandboxError> {
        let cgroup = slot.cgroup()?;
        let idle = slot.idle.get().map_or(0, |usage| usage.memory_bytes);
        let allowance = idle.clamp(ALLOWANCE.0, ALLOWANCE.1);
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| u64::try_from(cpus.get()).unwrap_or(1));
        let in_force = CgroupLimits {
            memory_bytes: Some(allowance + limits.memory_mb * MIB),
            cpu_quota_us: self.settings.cpu_quota_us,
            pids: Some(self.settings.pids + OWN_PIDS + 2 * cpus),
        };
        cgroup.set_limits(&in_force).map_err(host("limiting the call"))?;
        cgroup.usage().map_err(host("reading the sandbox's usage"))
    }

    async fn follow(
        &self,
        slot: &Arc<Slot>,
        line: Line,
        work: watch::Task,
        mut dialogue: Dialogue,
        before: CgroupUsage,
        limits: Limits,
    ) -> Result<(Option<Settled>, Evidence), SandboxError> {
        let seen = watch(slot, line, work, &mut dialogue, &self.log).await?;
        let Seen { end, settled, process, stdout, stderr, took } = seen;
        let after = slot.cgroup()?.usage().map_err(host("reading the sandbox's usage"))?;
        let idle = slot.idle.get().map_or(0, |usage| usage.memory_bytes);
        let evidence = Evidence {
            end,
            settlement: None,
            phase: dialogue.phase(),
            process,
            oom_kills: after.oom_kills.saturating_sub(before.oom_kills),
            pids_refused: after.pids_refused.saturating_sub(before.pids_refused),
            peak_memory_bytes: after.peak_memory_bytes.saturating_sub(idle),
            memory_limit_bytes: limits.memory_mb * MIB,
            cpu: after.cpu.saturating_sub(before.cpu),
            handler_time: took,
            stdout,
            stderr,
            logs: dialogue.take_logs(),
            files: dialogue.take_files(),
        };
        Ok((settled, evidence))
    }

    fn runner_limits(&self) -> RunnerLimits {
        let output = self.settings.output;
        RunnerLimits {
            result_bytes: output.result_kib << 10,
            log_bytes: output.log_kib << 10,
            message_bytes: output.message_kib << 10,
        }
    }
}

/// The size of so many bytes in base64.
fn in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// A task of a set-up that was not answered as it should be.
fn failed(seen: Option<Settled>, evidence: Evidence) -> SandboxError {
    let settlement = match seen {
        Some(Settled::Call(settlement)) => Some(settlement),
        Some(Settled::Transpiled(_) | Settled::Installed(_)) => Some(Settlement::Forged),
        None => None,
    };
    SandboxError::TaskFailed(judge(&Evidence { settlement, ..evidence }).as_str())
}

fn cannot_ask(error: RequestError) -> SandboxError {
    host("writing the request")(error)
}

/// 128 fresh bits as 32 hex digits: known to the daemon and to the runner's closure.
fn nonce() -> Result<String, SandboxError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(host("making a nonce"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
