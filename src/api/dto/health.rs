//! How the daemon is, as the health socket tells it.

use serde::{Deserialize, Serialize};

pub use crate::domain::garbage::ReaperPicture;
use crate::domain::health::HealthPicture;
pub use crate::domain::health::PartState;
pub use crate::domain::pool::PoolPicture;

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
        }
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
