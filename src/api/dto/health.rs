//! How the daemon is, as the health socket tells it.

use serde::{Deserialize, Serialize};

pub use crate::domain::egress::EgressPicture;
pub use crate::domain::garbage::ReaperPicture;
use crate::domain::health::HealthPicture;
pub use crate::domain::health::PartState;
pub use crate::domain::image::RolloutPicture;
pub use crate::domain::pool::PoolPicture;
use crate::messages::comfy_process::InstancePicture;
use crate::ports::gpu::{Gpu, GpuPicture};
pub use crate::ports::tenants::TenantsPicture;

/// The answer of `/livez`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveBody {
    pub live: bool,
    /// Which parts are not well, and why; may be filled while `live` is true.
    pub reasons: Vec<String>,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyBody {
    pub ready: bool,
    pub reasons: Vec<String>,
    /// Loud facts that do not change readiness. Absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One part of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartBody {
    pub name: String,
    pub state: PartState,
    pub essential: bool,
    pub restarts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beat_age_ms: Option<u64>,
    pub reasons: Vec<String>,
}

/// The answer of `/healthz`: everything at once. `pool` and `reaper` are null while they do not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthBody {
    pub version: String,
    pub live: bool,
    pub ready: bool,
    pub draining: bool,
    pub warnings: Vec<String>,
    pub parts: Vec<PartBody>,
    pub pool: Option<PoolPicture>,
    pub reaper: Option<ReaperPicture>,
    /// Absent where nothing gets out of any sandbox, and while the proxy does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressPicture>,
    /// How many tenants and tokens there are, their calls, and what was refused them since the start.
    #[serde(default)]
    pub tenants: TenantsPicture,
    /// The runtimes that come from images. Absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<RolloutPicture>,
    /// The ComfyUI processes that answer. Absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceBody>,
    /// Absent where no GPU work is done, and while the driver takes its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<GpusBody>,
}

/// A ComfyUI process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceBody {
    pub name: String,
    /// `held`, `starting`, `ready`, `busy`, `stopping`, `wedged`.
    pub state: String,
    /// Its `CUDA_VISIBLE_DEVICES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    pub port: u16,
    /// Jobs of this process.
    pub jobs: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The id of the job in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    pub complaints: Vec<String>,
}

impl From<InstancePicture> for InstanceBody {
    fn from(picture: InstancePicture) -> Self {
        let InstancePicture { name, state, device, port, jobs, memory_mib, job, complaints } = picture;
        Self { name, state: state.to_owned(), device, port, jobs, memory_mib, job, complaints }
    }
}

/// What the GPUs' driver tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpusBody {
    /// `absent`, `well`, `unwell`.
    pub driver: String,
    /// Why it is unwell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub gpus: Vec<GpuBody>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuBody {
    pub index: u32,
    pub uuid: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// Degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// The last critical error since the daemon's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u64>,
    /// Why no work is given to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

impl From<GpuPicture> for GpusBody {
    fn from(picture: GpuPicture) -> Self {
        let body = |driver: &str, reason, gpus| Self { driver: driver.to_owned(), reason, gpus };
        match picture {
            GpuPicture::NoDriver => body("absent", None, Vec::new()),
            GpuPicture::Unwell(reason) => body("unwell", Some(reason), Vec::new()),
            GpuPicture::Gpus(gpus) => body("well", None, gpus.into_iter().map(GpuBody::from).collect()),
        }
    }
}

impl From<Gpu> for GpuBody {
    fn from(gpu: Gpu) -> Self {
        let Gpu { index, uuid, name, memory_total, memory_used, temperature, xid, faults: _, unfit } = gpu;
        Self { index, uuid, name, memory_total, memory_used, temperature, xid, unfit }
    }
}

impl HealthBody {
    /// Puts the Supervisor's picture and the two actors' own together.
    pub fn new(picture: HealthPicture, pool: Option<PoolPicture>, reaper: Option<ReaperPicture>) -> Self {
        let parts = picture
            .parts
            .into_iter()
            .map(|part| PartBody {
                name: part.name,
                state: part.state,
                essential: part.essential,
                restarts: part.restarts,
                beat_age_ms: part.beat_age_ms,
                reasons: part.reasons,
            })
            .collect();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            live: picture.live,
            ready: picture.ready,
            draining: picture.draining,
            warnings: picture.warnings,
            parts,
            pool,
            reaper,
            egress: None,
            tenants: TenantsPicture::default(),
            images: Vec::new(),
            instances: Vec::new(),
            gpus: None,
        }
    }

    /// The same, with what goes out of sandboxes.
    pub fn with_egress(mut self, egress: Option<EgressPicture>) -> Self {
        self.egress = egress;
        self
    }

    /// The same, with who is served.
    pub fn with_tenants(mut self, tenants: TenantsPicture) -> Self {
        self.tenants = tenants;
        self
    }

    /// The same, with the runtimes that come from images.
    pub fn with_images(mut self, images: Vec<RolloutPicture>) -> Self {
        self.images = images;
        self
    }

    /// The same, with what does GPU work.
    pub fn with_gpu_work(mut self, instances: Vec<InstancePicture>, gpus: Option<GpuPicture>) -> Self {
        self.instances = instances.into_iter().map(InstanceBody::from).collect();
        self.gpus = gpus.map(GpusBody::from);
        self
    }
}

/// What is not well, one line for each part, with its reasons.
pub fn reasons(picture: &HealthPicture) -> Vec<String> {
    let mut lines: Vec<String> = picture
        .parts
        .iter()
        .filter(|part| !matches!(part.state, PartState::Running | PartState::Off))
        .map(|part| match part.reasons.as_slice() {
            [] => format!("{} is {}", part.name, state_name(part.state)),
            reasons => format!("{} is {}: {}", part.name, state_name(part.state), reasons.join(", ")),
        })
        .collect();
    if picture.draining {
        lines.push("the daemon is draining".to_owned());
    }
    lines
}

/// A state in words.
pub fn state_name(state: PartState) -> &'static str {
    match state {
        PartState::Starting => "starting",
        PartState::Running => "running",
        PartState::Degraded => "degraded",
        PartState::Restarting => "restarting",
        PartState::CrashLoop => "in a crash loop",
        PartState::Draining => "draining",
        PartState::Stopped => "stopped",
        PartState::Off => "off",
    }
}
