//! Trials of images that do not serve yet: cold starts on an engine of its own, with directories and cgroups of its own, so
//! that neither the pool nor the Reaper ever meets one of these sandboxes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use slog::{Logger, warn};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::stopwatch::Stopwatch;
use super::{RunscEngine, Settings};
use crate::domain::environment::{Permissions, Runtime};
use crate::domain::execution::{Call, FilesForm, Limits, Outcome, judge};
use crate::domain::id::{EnvironmentId, ExecutionId, RequestId, SlotId};
use crate::domain::layout::WORKSPACE;
use crate::ports::cgroup::Cgroups;
use crate::ports::images::{ImageTrials, RuntimeImages, RuntimeRoot, TrialError};
use crate::ports::process::Spawner;
use crate::ports::sandbox::{Purpose, SandboxEngine, SandboxError, SlotSpec};
use crate::ports::volumes::Volumes;
use crate::telemetry::error_chain;

/// The handler that each trial calls. It answers what it was asked.
const HANDLER: &str = "export const handler = (event) => event.data;\n";
const MODULE: &str = "main.js";
const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), memory_mb: 128 };

/// What is tried now, as an engine asks for it.
#[derive(Default)]
struct Tried(RwLock<Option<RuntimeRoot>>);

impl RuntimeImages for Tried {
    fn serving(&self, _: Runtime) -> Result<RuntimeRoot, String> {
        let tried = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        tried.ok_or_else(|| "nothing is on trial".to_owned())
    }
}

/// Starts sandboxes of images, one at a time.
pub struct Trials {
    engine: RunscEngine,
    volumes: Arc<dyn Volumes>,
    tried: Arc<Tried>,
    /// The handler's volume, once it is there.
    turn: Mutex<Option<EnvironmentId>>,
    log: Logger,
}

impl Trials {
    /// All of these are the trials' own: the run directory in `settings`, the cgroups, the volumes.
    pub fn new(
        settings: Settings,
        spawner: Arc<dyn Spawner>,
        cgroups: Arc<dyn Cgroups>,
        volumes: Arc<dyn Volumes>,
        log: Logger,
    ) -> Self {
        let tried = Arc::new(Tried::default());
        let images = Arc::clone(&tried) as Arc<dyn RuntimeImages>;
        let engine = RunscEngine::new(settings, spawner, cgroups, Arc::clone(&volumes), images, None, log.clone());
        Self { engine, volumes, tried, turn: Mutex::new(None), log }
    }

    async fn handler(&self) -> Result<EnvironmentId, TrialError> {
        let environment = EnvironmentId(Uuid::new_v4());
        let files = BTreeMap::from([(format!("{WORKSPACE}/{MODULE}"), HANDLER.as_bytes().to_vec())]);
        let made = self.volumes.make(&environment.volume_name(), files).await;
        made.map_err(|error| TrialError::Host(error_chain(&error).to_string()))?;
        Ok(environment)
    }

    async fn call(&self, slot: SlotId, runtime: Runtime, environment: EnvironmentId) -> Result<(), TrialError> {
        let volume = environment.volume_name();
        let purpose =
            Purpose::Execute { environment, volume, permissions: Permissions::default(), secrets: Vec::new() };
        let spec = SlotSpec { slot, runtime, purpose, memory_mb: LIMITS.memory_mb };
        self.engine.create(spec).await.map_err(blame)?;
        let call = Call {
            execution: ExecutionId(Uuid::new_v4()),
            environment,
            request: RequestId::from_uuid(slot.0),
            data: "1".to_owned(),
            env: BTreeMap::new(),
            limits: LIMITS,
            files: FilesForm::None,
        };
        let evidence = self.engine.run(slot, &call, MODULE, false, None).await.map_err(blame)?;
        match judge(&evidence) {
            Outcome::Ok => Ok(()),
            other => Err(TrialError::Image(format!("its call ended as {}", other.as_str()))),
        }
    }
}

/// Whose fault it is that there is no sandbox.
fn blame(error: SandboxError) -> TrialError {
    let told = error_chain(&error).to_string();
    match error {
        SandboxError::NotReady(_) | SandboxError::DiedEarly { .. } | SandboxError::TaskFailed(_) => {
            TrialError::Image(told)
        }
        SandboxError::Off(_)
        | SandboxError::RuntimeMissing(_)
        | SandboxError::Unknown(_)
        | SandboxError::Spoiled(_)
        | SandboxError::Host { .. } => TrialError::Host(told),
    }
}

#[async_trait]
impl ImageTrials for Trials {
    async fn sweep(&self) {
        let mut turn = self.turn.lock().await;
        match self.engine.leftovers().await {
            Ok(leftovers) => {
                let mut slots: Vec<SlotId> = leftovers.into_iter().map(|leftover| leftover.slot).collect();
                slots.sort_unstable();
                slots.dedup();
                for slot in slots {
                    if let Err(error) = self.engine.destroy(slot).await {
                        warn!(self.log, "trial.left"; "slot" => %slot, "error" => error_chain(&error));
                    }
                }
            }
            Err(error) => warn!(self.log, "trial.left"; "error" => error_chain(&error)),
        }
        for volume in self.volumes.list().await.unwrap_or_default() {
            if let Err(error) = self.volumes.remove(&volume).await {
                warn!(self.log, "trial.left"; "volume" => volume, "error" => error_chain(&error));
            }
        }
        *turn = None;
    }

    async fn attempt(&self, runtime: Runtime, root: RuntimeRoot) -> Result<Duration, TrialError> {
        let mut turn = self.turn.lock().await;
        let watch = Stopwatch::start();
        let environment = match *turn {
            Some(environment) => environment,
            None => *turn.insert(self.handler().await?),
        };
        *self.tried.0.write().unwrap_or_else(PoisonError::into_inner) = Some(root);
        let slot = SlotId(Uuid::new_v4());
        let called = self.call(slot, runtime, environment).await;
        let destroyed = self.engine.destroy(slot).await;
        called?;
        destroyed.map_err(|error| TrialError::Host(error_chain(&error).to_string()))?;
        Ok(watch.elapsed())
    }
}
