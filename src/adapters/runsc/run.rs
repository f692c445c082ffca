//! One task in a ready sandbox: its limits are put in force, its request is sent, and what was seen becomes evidence.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use serde::Serialize;
use serde_json::value::RawValue;
use slog::debug;

use super::channel::Incoming;
use super::dialogue::{Caps, Dialogue, Settled, Task};
use super::frame::encode;
use super::line::Line;
use super::settings::{InstallLimits, OutLimits};
use super::slot::{Parked, Slot, Standing};
use super::stopwatch::Stopwatch;
use super::watch::{self, Seen, watch};
use super::{RunscEngine, host};
use crate::domain::environment::SourceFault;
use crate::domain::execution::{Call, Evidence, Following, Limits, ProcessEnd, Settlement, judge};
use crate::domain::id::SlotId;
use crate::domain::package_set::PackageSet;
use crate::ports::cgroup::{CgroupLimits, CgroupUsage};
use crate::ports::sandbox::{Installed, SandboxError, Transpiled};

const MIB: u64 = 1 << 20;
/// How long a runner that has settled waits for its end, in milliseconds: its own would take the processor from the answer.
const LINGER_MS: u64 = 500;
/// What the idle sandbox itself is granted: as much as it used when it was ready, within these bounds. The page cache
/// of the image is charged to whoever read it first, so that the usage varies.
const ALLOWANCE: (u64, u64) = (64 * MIB, 192 * MIB);
/// Tasks of the sandbox itself: 29 to 31 measured when idle, two for each further CPU, and some for the guest's stubs.
const OWN_PIDS: u64 = 56;
/// What a program exits with in a sandbox when it aborts, as Deno does when its stack overflows: 128 + SIGABRT.
const ABORTED: i32 = 134;

/// The largest answer to a transpile task, and its log of faults.
const TRANSPILED_CAP: usize = 32 << 20;
/// A control character takes six bytes in JSON, and an error has two texts of `messageBytes` and a short one.
const ERROR_GROWTH: usize = 16;
const FRAME_FIELDS: usize = 4096;
/// Of one file in an installer's announcement: its path as JSON, and its size.
const ANNOUNCED_ENTRY: usize = 300;
/// The largest frame with files' bytes.
const DELIVERED_CAP: usize = 1 << 20;

/// Of one file that comes out of a call, likewise: a path of 255 characters, each of them as JSON writes it.
const FILE_ENTRY: usize = 2048;

/// The task that the request asks for.
#[derive(Serialize)]
#[serde(tag = "task", rename_all = "lowercase")]
pub(super) enum Asked<'a> {
    Execute {
        main: &'a str,
        event: Event<'a>,
        context: Context,
        #[serde(skip_serializing_if = "Option::is_none")]
        out: Option<OutLimits>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        keep: bool,
    },
    Prepare {
        main: &'a str,
    },
    Transpile {
        modules: &'a BTreeMap<String, String>,
    },
    Install {
        #[serde(flatten)]
        wanted: Wanted<'a>,
        most: Most,
    },
}

/// What the installer of a set is told of it.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Wanted<'a> {
    Npm { packages: &'a BTreeMap<String, String>, registry: &'a str },
    Modules { modules: &'a BTreeSet<String>, jsr: Option<&'a str>, registry: Option<&'a str> },
}

impl<'a> Wanted<'a> {
    fn of(set: &'a PackageSet) -> Self {
        match set {
            PackageSet::Npm { packages, registry } => Wanted::Npm { packages, registry },
            PackageSet::Modules { specifiers: modules, sources } => {
                Wanted::Modules { modules, jsr: sources.jsr.as_deref(), registry: sources.registry.as_deref() }
            }
        }
    }
}

impl Asked<'_> {
    /// What a runner that has imported the module still lacks.
    fn call<'b>(&'b self, nonce: Option<&'b str>) -> Option<Late<'b>> {
        let Asked::Execute { event, context, out, keep, .. } = self else { return None };
        Some(Late { nonce, event, context, out: *out, keep: *keep })
    }
}

/// The second frame to a prepared runner, or a further one to one that was kept, which gets a nonce of its own.
#[derive(Serialize)]
struct Late<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    event: &'a Event<'a>,
    context: &'a Context,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<OutLimits>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keep: bool,
}

/// The installer's own caps.
#[derive(Serialize)]
pub(super) struct Most {
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
pub(super) struct Event<'a> {
    data: &'a RawValue,
    env: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Context {
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
    linger_ms: u64,
}

/// Without the parser's words: they may quote the data.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the call's data is not JSON")]
    DataNotJson,
    #[error("the request is too large for a frame")]
    TooLarge,
}

impl RunscEngine {
    pub(super) async fn execute(
        &self,
        id: SlotId,
        call: &Call,
        main: &str,
        keep: bool,
        following: Following,
    ) -> Result<Evidence, SandboxError> {
        let data: &RawValue = serde_json::from_str(&call.data).map_err(|_| cannot_ask(RequestError::DataNotJson))?;
        // What the caller sends along comes first: it is meant for this very call.
        let mut env = self.slots.get(id).and_then(|slot| slot.placeholders.get().cloned()).unwrap_or_default();
        env.extend(call.env.clone());
        let out = (!call.files.is_none()).then_some(self.settings.out);
        let asked = Asked::Execute {
            main,
            event: Event { data, env: &env },
            context: Context {
                execution_id: call.execution.to_string(),
                environment_id: call.environment.to_string(),
                request_id: call.request.as_str().to_owned(),
            },
            out,
            keep,
        };
        let frame_cap =
            self.call_frame_cap().max(out.map_or(0, |out| in_base64(out.bytes) + FILE_ENTRY + FRAME_FIELDS));
        let (seen, evidence) = self.perform(id, Task::Execute(out), asked, call.limits, frame_cap, following).await?;
        Ok(Evidence { settlement: seen.map(of_a_call), ..evidence })
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
            None if evidence.process == ProcessEnd::Exited(ABORTED) => Ok(Transpiled::Faults(too_deep(modules))),
            other => Err(failed(other, evidence)),
        }
    }

    pub(super) async fn install_set(
        &self,
        id: SlotId,
        wanted: PackageSet,
        limits: Limits,
    ) -> Result<Installed, SandboxError> {
        let InstallLimits { bytes, files } = self.settings.installs;
        let asked = Asked::Install { wanted: Wanted::of(&wanted), most: Most { bytes, files } };
        let frame_cap = (files * ANNOUNCED_ENTRY + FRAME_FIELDS).max(DELIVERED_CAP);
        let (seen, evidence) = self.perform(id, Task::Install(wanted.kind()), asked, limits, frame_cap, None).await?;
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
        let Parked { mut line, standing } = slot.claim().await.ok_or(SandboxError::Unknown(id))?;
        slot.end_rest()?;
        // A set-up's tasks are as short as the host can make them: they count as boots, which have no quota either.
        let cpu_quota_us = self.settings.cpu_quota_us.filter(|_| matches!(task, Task::Execute(_)));
        let delivered = match task {
            Task::Install(_) => self.settings.installs.bytes,
            Task::Execute(Some(out)) => in_base64(out.bytes) + out.files * FILE_ENTRY,
            _ => 0,
        };
        let keep = matches!(asked, Asked::Execute { keep: true, .. });
        // What a handler's code does before its call, or between two calls of one sandbox, counts for the call that comes.
        let (before, request, mut dialogue) = match standing {
            Standing::Ready => {
                is_untouched(&slot, &mut line, None)?;
                self.restrict(&slot, limits, cpu_quota_us)?;
                let (request, dialogue) = self.request(task, asked)?;
                (slot.usage()?, request, dialogue)
            }
            Standing::Prepared { mut dialogue, memory_mb, known } => {
                is_untouched(&slot, &mut line, Some(&mut dialogue))?;
                self.restrict_from(memory_mb, &slot, limits, cpu_quota_us)?;
                let Task::Execute(out) = task else { return Err(SandboxError::Unknown(id)) };
                dialogue.resume(out);
                (known, framed(&asked.call(None))?, dialogue)
            }
            Standing::Used { memory_mb, known } => {
                is_untouched(&slot, &mut line, None)?;
                line.begin_anew();
                self.restrict_from(memory_mb, &slot, limits, cpu_quota_us)?;
                let Task::Execute(out) = task else { return Err(SandboxError::Unknown(id)) };
                let nonce = nonce()?;
                (known, framed(&asked.call(Some(&nonce)))?, Dialogue::of_next_call(nonce, out, self.caps()))
            }
        };
        debug!(self.log, "slot.claimed"; "slot" => %id, "ms" => stopwatch.millis());
        let work =
            watch::Task { following, ..self.watched(request, !keep, limits, (frame_cap, frame_cap + delivered)) };
        let mut seen = watch(&slot, &mut line, work, &mut dialogue, &self.log).await?;
        let settled = seen.settled.take();
        let known = slot.usage()?;
        let evidence = evidence(&slot, &mut line, &seen, &mut dialogue, (before, known), limits);
        if keep && matches!(settled, Some(Settled::Call(Settlement::Result(_)))) {
            slot.keep(Parked { line, standing: Standing::Used { memory_mb: limits.memory_mb, known } });
        }
        Ok((settled, evidence))
    }

    /// A first request, and the dialogue that it begins.
    pub(super) fn request(&self, task: Task, asked: Asked<'_>) -> Result<(Vec<u8>, Dialogue), SandboxError> {
        let nonce = nonce()?;
        let frame = framed(&Request { nonce: &nonce, asked, limits: self.runner_limits() })?;
        Ok((frame, Dialogue::new(task, nonce, self.caps())))
    }

    fn caps(&self) -> Caps {
        let RunnerLimits { result_bytes, log_bytes, .. } = self.runner_limits();
        Caps { result_bytes, log_bytes, installs: self.settings.installs }
    }

    /// `answer_cap`: what may come on the channel beside the logs.
    pub(super) fn watched(
        &self,
        request: Vec<u8>,
        last: bool,
        limits: Limits,
        (frame_cap, answer_cap): (usize, usize),
    ) -> watch::Task {
        let answers = 2 * self.runner_limits().log_bytes + answer_cap;
        let channel_cap = u64::try_from(answers).unwrap_or(u64::MAX).saturating_add(self.settings.output.discard);
        watch::Task { request, last, time_limit: limits.timeout, frame_cap, channel_cap, following: None }
    }

    /// The largest frame that a call's runner may send: every character of the result's JSON text takes at most two in
    /// the frame around it.
    pub(super) fn call_frame_cap(&self) -> usize {
        let caps = self.runner_limits();
        2 * caps.result_bytes + ERROR_GROWTH * caps.message_bytes + FRAME_FIELDS
    }

    /// A call's limits where those of one with `memory_mb` are in force.
    ///
    /// # Errors
    /// `Spoiled`: less than it holds already cannot be put in force, and it is of no use to this call.
    fn restrict_from(
        &self,
        memory_mb: u64,
        slot: &Slot,
        limits: Limits,
        cpu_quota_us: Option<u64>,
    ) -> Result<(), SandboxError> {
        if memory_mb == limits.memory_mb {
            return Ok(());
        }
        self.restrict(slot, limits, cpu_quota_us).map_err(|_| SandboxError::Spoiled(slot.id))
    }

    /// A task's limits instead of the boot's.
    pub(super) fn restrict(&self, slot: &Slot, limits: Limits, cpu_quota_us: Option<u64>) -> Result<(), SandboxError> {
        let idle = slot.idle.get().map_or(0, |usage| usage.memory_bytes);
        let allowance = idle.clamp(ALLOWANCE.0, ALLOWANCE.1);
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| u64::try_from(cpus.get()).unwrap_or(1));
        let in_force = CgroupLimits {
            memory_bytes: Some(allowance + limits.memory_mb * MIB),
            cpu_quota_us,
            pids: Some(self.settings.pids + OWN_PIDS + 2 * cpus),
        };
        slot.cgroup()?.set_limits(&in_force).map_err(host("limiting the call"))
    }

    fn runner_limits(&self) -> RunnerLimits {
        let output = self.settings.output;
        RunnerLimits {
            result_bytes: output.result_kib << 10,
            log_bytes: output.log_kib << 10,
            message_bytes: output.message_kib << 10,
            linger_ms: LINGER_MS,
        }
    }
}

/// What the host saw of a task, without its settlement.
pub(super) fn evidence(
    slot: &Slot,
    line: &mut Line,
    seen: &Seen,
    dialogue: &mut Dialogue,
    (before, after): (CgroupUsage, CgroupUsage),
    limits: Limits,
) -> Evidence {
    let idle = slot.idle.get().map_or(0, |usage| usage.memory_bytes);
    Evidence {
        end: seen.end,
        settlement: None,
        phase: dialogue.phase(),
        process: seen.process,
        oom_kills: after.oom_kills.saturating_sub(before.oom_kills),
        pids_refused: after.pids_refused.saturating_sub(before.pids_refused),
        peak_memory_bytes: after.peak_memory_bytes.saturating_sub(idle),
        memory_limit_bytes: limits.memory_mb * MIB,
        cpu: after.cpu.saturating_sub(before.cpu),
        handler_time: seen.took,
        stdout: line.stdout.take(),
        stderr: line.stderr.take(),
        logs: dialogue.take_logs(),
        files: dialogue.take_files(),
    }
}

/// The size of so many bytes in base64.
fn in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// An answer as a call's; that of another task is none that a call's runner would give.
fn of_a_call(settled: Settled) -> Settlement {
    match settled {
        Settled::Call(settlement) => settlement,
        _ => Settlement::Forged,
    }
}

/// What makes a compiler's stack overflow: nobody knows in which of the modules it is.
fn too_deep(modules: BTreeMap<String, String>) -> Vec<SourceFault> {
    let message = "Deno's compiler could not read the modules: one of them may be nested too deeply".to_owned();
    let first = modules.into_keys().next();
    first.map(|module| SourceFault { module, message, line: None, column: None }).into_iter().collect()
}

/// A task of a set-up that was not answered as it should be.
pub(super) fn failed(seen: Option<Settled>, evidence: Evidence) -> SandboxError {
    SandboxError::TaskFailed(judge(&Evidence { settlement: seen.map(of_a_call), ..evidence }).as_str())
}

/// A standing sandbox is used only if it still lives and has said nothing that nobody asked for.
pub(super) fn is_untouched(
    slot: &Slot,
    line: &mut Line,
    mut dialogue: Option<&mut Dialogue>,
) -> Result<(), SandboxError> {
    let spoiled = Err(SandboxError::Spoiled(slot.id));
    if slot.process()?.wait().now_or_never().is_some() {
        return spoiled;
    }
    while let Some(incoming) = line.frames.next().now_or_never() {
        let Incoming::Frame(frame) = incoming else { return spoiled };
        // What the module logged is the call's.
        if dialogue.as_mut().is_none_or(|dialogue| dialogue.step(&frame).is_some()) {
            return spoiled;
        }
    }
    Ok(())
}

fn framed(request: &impl Serialize) -> Result<Vec<u8>, SandboxError> {
    let body = serde_json::to_vec(request).map_err(host("writing the request"))?;
    encode(&body).ok_or_else(|| cannot_ask(RequestError::TooLarge))
}

fn cannot_ask(error: RequestError) -> SandboxError {
    host("writing the request")(error)
}

/// 128 fresh bits as 32 hex digits: known to the daemon and to the runner's closure.
fn nonce() -> Result<String, SandboxError> {
    Ok(format!("{:032x}", random_bits()?))
}

/// 128 fresh bits.
pub(super) fn random_bits() -> Result<u128, SandboxError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(host("asking for random bits"))?;
    Ok(u128::from_be_bytes(bytes))
}
