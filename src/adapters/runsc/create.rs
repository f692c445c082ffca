//! Making a sandbox: cgroup and bundle side by side, the engine spawned into the cgroup, and the wait for `ready`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slog::{debug, warn};
use tokio::time::timeout;
use uuid::Uuid;

use super::channel::Incoming;
use super::dialogue::is_ready;
use super::egress::Egress;
use super::flags::Kind;
use super::line::{self, Line};
use super::run::random_bits;
use super::slot::{Making, Parked, Slot, Standing};
use super::spec::{Bundle, Duty, config_json, host_ids_of};
use super::stopwatch::Stopwatch;
use super::tools::is_open_to_all;
use super::turns::settle;
use super::{CLOSING_PATIENCE, RunscEngine, Settings, Tools, flags, host, mount_points, tree};
use crate::domain::credential::{CredentialName, Placeholder};
use crate::domain::egress::{Policy, Rule};
use crate::domain::environment::Runtime;
use crate::domain::execution::ProcessEnd;
use crate::domain::id::EnvironmentId;
use crate::domain::layout;
use crate::domain::time::whole_millis;
use crate::ports::cgroup::CgroupLimits;
use crate::ports::egress::{Passage, Whose};
use crate::ports::images::RuntimeRoot;
use crate::ports::process::SpawnRequest;
use crate::ports::sandbox::{Purpose, SandboxError, SlotSpec};

/// Memory above the task's own that a boot may use: engine, runtime and page cache.
const BOOT_MEMORY_MB: u64 = 512;
/// Tasks of a booting sandbox: generous, the code in it is not the handler's yet.
const BOOT_PIDS: u64 = 1024;
/// Of an engine's own error text.
const DETAIL_CHARS: usize = 1000;

/// A bundle that lies in its slot's directory.
struct Written {
    slot_dir: PathBuf,
    /// Whether a way out is bound in.
    egress: bool,
}

impl RunscEngine {
    pub(super) async fn boot(&self, spec: SlotSpec) -> Result<(), SandboxError> {
        let watch = Stopwatch::start();
        let slot = self.slots.enter(spec.slot, spec.runtime).ok_or(SandboxError::Host {
            doing: "naming a sandbox",
            source: "a slot of this name exists already".into(),
        })?;
        let mut line = self.start(&slot, spec).await?;
        debug!(self.log, "slot.created"; "slot" => %slot.id, "ms" => watch.millis());
        self.wait_ready(&slot, &mut line).await?;
        if self.tools().await?.engine.kind == Kind::Runsc {
            let processes = slot.cgroup()?.processes().map_err(host("listing the sandbox's processes"))?;
            let settled = tokio::task::spawn_blocking(move || settle(&processes)).await;
            settled.map_err(host("setting its processes' policies"))?;
        }
        let idle = slot.cgroup()?.usage().map_err(host("reading the sandbox's usage"))?;
        let _ = slot.idle.set(idle);
        slot.park(Parked { line, standing: Standing::Ready });
        debug!(self.log, "slot.ready"; "slot" => %slot.id, "ms" => watch.millis(), "memory" => idle.memory_bytes);
        Ok(())
    }

    /// Everything up to the running engine. Whatever goes wrong, `destroy` finds what was made by the slot's name.
    async fn start(&self, slot: &Slot, spec: SlotSpec) -> Result<Line, SandboxError> {
        let making = slot.begin_making().await.ok_or(SandboxError::Unknown(slot.id))?;
        let tools = self.tools().await?;
        let limits = CgroupLimits {
            memory_bytes: Some((spec.memory_mb + BOOT_MEMORY_MB) << 20),
            cpu_quota_us: None,
            pids: Some(BOOT_PIDS),
        };
        let name = slot.id.to_string();
        let (written, cgroup) = tokio::join!(self.write_bundle(tools, slot, spec, making), self.cgroups.create(&name));
        let cgroup = cgroup.map_err(host("making the sandbox's cgroup"))?;
        let cgroup = slot.cgroup.get_or_init(|| cgroup);
        let (Written { slot_dir, egress }, _making) = written?;
        cgroup.set_limits(&limits).map_err(host("limiting the sandbox"))?;
        let (line, far) = line::make(self.capture_caps()).map_err(host("making the sandbox's pipes"))?;
        if tools.engine.kind != Kind::Runsc {
            line::give_away(&far).map_err(host("making the sandbox's pipes"))?;
        }
        let request = SpawnRequest {
            program: tools.engine.program.clone(),
            args: flags::run(tools.engine.kind, &slot_dir, egress),
            env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
            cwd: slot_dir,
            descriptors: far,
            cgroup_entry: cgroup.entry_files(),
            private: false,
            batch: tools.engine.kind == Kind::Runsc,
        };
        let process = self.spawner.spawn(request).await.map_err(host("starting the sandbox"))?;
        let _ = slot.process.set(process);
        Ok(line)
    }

    /// The slot's directory with its `config.json`. File work, so that it happens beside the arbiter.
    async fn write_bundle(
        &self,
        tools: &Tools,
        entered: &Slot,
        spec: SlotSpec,
        making: Making,
    ) -> Result<(Written, Making), SandboxError> {
        let images = Arc::clone(&self.images);
        let purpose = spec.purpose;
        let installs = purpose == Purpose::Install;
        let (permissions, volume, secrets) = match &purpose {
            Purpose::Execute { volume, permissions, secrets, .. }
            | Purpose::StandForEnvironment { volume, permissions, secrets, .. } => {
                (permissions.clone(), Some(self.volumes.path(volume)), secrets.clone())
            }
            Purpose::StandForRuntime | Purpose::Transpile { .. } | Purpose::Install => Default::default(),
        };
        let placeholders = placeholders_for(secrets)?;
        let by_variable = |(name, placeholder): &(CredentialName, Placeholder)| {
            (name.as_str().to_owned(), placeholder.as_str().to_owned())
        };
        let shown = entered.placeholders.get_or_init(|| placeholders.iter().map(by_variable).collect()).clone();
        let policy = if installs {
            let rules = self.install_rules(spec.runtime);
            (!rules.is_empty()).then_some((Policy::Only(rules), Whose::Operator))
        } else {
            Policy::of(permissions.allow_net.as_ref()).map(|policy| (policy, Whose::Environment))
        };
        let headers = if installs { self.settings.tokens.clone() } else { Vec::new() };
        let passage = policy.map(|(policy, whose)| Passage { policy, whose, placeholders, headers });
        let volumes = self.volumes.path(&EnvironmentId(Uuid::nil()).volume_name()).parent().map(Path::to_owned);
        let way_out = self.gates.clone().zip(passage);
        let slot = spec.slot;
        let slot_dir = self.layout.slot(spec.slot);
        let map_ids = tools.can_map_ids.then(|| host_ids_of(spec.slot.0.as_u128()));
        let (runtime, memory_mb, tmp_mb) = (spec.runtime, spec.memory_mb, self.settings.tmp_mb);
        let runner = tools.runners.of(runtime);
        let gvisor = tools.engine.kind == Kind::Runsc;
        let jsr = self.settings.jsr.as_ref().map(|jsr| jsr.url.clone());
        let write = move || {
            let RuntimeRoot { rootfs, program, .. } =
                images.serving(runtime).map_err(|_| SandboxError::RuntimeMissing(runtime))?;
            let [rootfs, runner] = [real(&rootfs)?, real(&runner)?];
            // Before the root may become one of the slot's own, which nobody else looks into.
            let mut bound = vec![rootfs.clone(), runner.clone()];
            let (rootfs, duty) = match (&purpose, volume) {
                (_, Some(volume)) => (rootfs, duty_of(&volume)?),
                (Purpose::StandForRuntime, None) => {
                    // Whichever volume it will be shown lies there.
                    bound.extend(volumes.filter(|volumes| volumes.exists()));
                    let tree = tree::plant(&slot_dir, &rootfs)?;
                    (tree.root, Duty::Stand { emitted: tree.emitted, remote: tree.remote })
                }
                (Purpose::Transpile { dependencies }, None) => (rootfs, transpile_duty(dependencies)?),
                (_, None) => (rootfs, Duty::Install),
            };
            if !matches!(duty, Duty::Stand { .. }) {
                mount_points::make(&rootfs, &duty.bound_at())?;
            }
            // What else is bound lies beside this.
            bound.extend(duty.workspace().cloned());
            let warm = matches!(purpose, Purpose::StandForEnvironment { .. } | Purpose::StandForRuntime);
            let closed = bound.into_iter().find(|path| !is_open_to_all(path));
            let host_ids = map_ids.filter(|_| closed.is_none());
            let egress = way_out.map(|(gates, passage)| Egress::open(&*gates, slot, passage, host_ids)).transpose()?;
            let bundle = Bundle {
                runtime,
                gvisor,
                permissions,
                memory_mb,
                tmp_mb,
                rootfs,
                program,
                runner,
                duty,
                warm,
                egress,
                jsr,
                placeholders: shown,
                host_ids,
            };
            let config = config_json(&bundle).map_err(host("describing the sandbox"))?;
            write_config(&slot_dir, &config).map_err(host("writing the sandbox's bundle"))?;
            Ok((Written { slot_dir, egress: bundle.egress.is_some() }, making, closed))
        };
        let (written, making, closed) =
            tokio::task::spawn_blocking(write).await.map_err(host("writing the sandbox's bundle"))??;
        let _ = entered.maps_ids.set(tools.can_map_ids && closed.is_none());
        if let Some(path) = closed.filter(|_| tools.can_map_ids) {
            self.warn_of_closed_path(&path);
        }
        Ok((written, making))
    }

    /// What an installer may reach: where packages come from, and on Deno also where modules do.
    fn install_rules(&self, runtime: Runtime) -> Vec<Rule> {
        let Settings { registries, jsr, module_hosts, .. } = &self.settings;
        let registries = registries.iter().map(|registry| registry.rule.clone());
        match runtime {
            Runtime::Bun => registries.collect(),
            Runtime::Deno => {
                let jsr = jsr.iter().map(|jsr| jsr.rule.clone());
                registries.chain(jsr).chain(module_hosts.iter().cloned()).collect()
            }
        }
    }

    fn warn_of_closed_path(&self, path: &Path) {
        if !self.warned_of_closed_path.swap(true, Ordering::Relaxed) {
            warn!(self.log, "sandbox.no_user_namespace"; "path" => %path.display(),
                "remedy" => "let all users traverse (o+x) the directories above it, then sandboxes get host ids of their own");
        }
    }

    async fn wait_ready(&self, slot: &Slot, line: &mut Line) -> Result<(), SandboxError> {
        let deadline = self.settings.ready_deadline;
        let process = slot.process()?;
        let runtime = slot.runtime.map_or("", |runtime| runtime.as_str());
        let end = tokio::select! {
            biased;
            () = slot.doomed() => return Err(SandboxError::Unknown(slot.id)),
            incoming = line.frames.next() => match incoming {
                Incoming::Frame(frame) if is_ready(&frame, runtime) => return Ok(()),
                Incoming::Frame(_) | Incoming::Broken(_) => {
                    let detail = "its first frame is not a runner's: the image and this daemon do not fit".to_owned();
                    return Err(SandboxError::DiedEarly { end: "ended by the daemon".to_owned(), detail });
                }
                Incoming::Closed => timeout(CLOSING_PATIENCE, process.wait()).await.unwrap_or(ProcessEnd::Running),
            },
            end = process.wait() => end,
            () = tokio::time::sleep(deadline) => {
                warn!(self.log, "slot.not_ready"; "slot" => %slot.id, "deadline_ms" => whole_millis(deadline),
                    "hint" => "starts take CPU time: fewer at once, or a longer sandbox.boot_deadline");
                return Err(SandboxError::NotReady(deadline));
            }
        };
        // No code of the handler's was loaded yet: what stands here is the engine's or the runtime's own.
        let detail = line.stderr.printed_so_far(DETAIL_CHARS);
        Err(SandboxError::DiedEarly { end: describe(end), detail })
    }
}

/// Fresh ones, for this sandbox alone.
fn placeholders_for(secrets: Vec<CredentialName>) -> Result<Vec<(CredentialName, Placeholder)>, SandboxError> {
    let fresh = |name| Ok((name, Placeholder::new(random_bits()?)));
    secrets.into_iter().map(fresh).collect()
}

/// What a call's sandbox sees of its environment's volume.
pub(super) fn duty_of(volume: &Path) -> Result<Duty, SandboxError> {
    let folder = |name: &str| Some(volume.join(name)).filter(|path| path.is_dir());
    let [emitted, remote] = [layout::EMITTED, layout::REMOTE].map(|name| folder(name).as_deref().map(real).transpose());
    Ok(Duty::Call { workspace: real(&volume.join(layout::WORKSPACE))?, emitted: emitted?, remote: remote? })
}

/// What a set-up's compiler sees of the dependencies' trees.
fn transpile_duty(dependencies: &[PathBuf]) -> Result<Duty, SandboxError> {
    let find = |folder: &str| {
        let found = dependencies.iter().map(|tree| tree.join(folder)).find(|path| path.is_dir());
        found.as_deref().map(real).transpose()
    };
    Ok(Duty::Transpile { packages: find(layout::PACKAGES)?, remote: find(layout::REMOTE)? })
}

/// Engines bind no links: runc refuses them, and what a link leads to is what must be open to all.
pub(super) fn real(path: &Path) -> Result<PathBuf, SandboxError> {
    fs::canonicalize(path).map_err(host("finding the sandbox's files"))
}

fn write_config(slot_dir: &Path, config: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(slot_dir)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(slot_dir.join("config.json"))?;
    file.write_all(config.as_bytes())
}

fn describe(end: ProcessEnd) -> String {
    match end {
        ProcessEnd::Exited(code) => format!("exit code {code}"),
        ProcessEnd::Signalled(signal) => format!("signal {signal}"),
        ProcessEnd::Running => "its channel closed".to_owned(),
    }
}
