//! The readiness picture: what runs, what does not, and why.

use serde::{Deserialize, Serialize};

/// How one part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    Starting,
    Running,
    /// It runs, but something is wrong; the reasons say what.
    Degraded,
    /// It went down and waits for its next start.
    Restarting,
    /// It went down too often; it is still tried at the longest interval.
    CrashLoop,
    Draining,
    Stopped,
    /// It is not used on this host; the reasons say why.
    Off,
}

/// One part of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub state: PartState,
    /// Whether readiness needs it.
    pub essential: bool,
    pub restarts: u32,
    /// Milliseconds since its last beat, when it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beat_age_ms: Option<u64>,
    pub reasons: Vec<String>,
}

/// The whole daemon, as the health socket tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPicture {
    /// The process answers and no essential part has given up.
    pub live: bool,
    /// New work is taken.
    pub ready: bool,
    pub draining: bool,
    /// Loud facts that do not change readiness, such as "sandboxes run without gVisor".
    pub warnings: Vec<String>,
    pub parts: Vec<Part>,
}

impl HealthPicture {
    /// Every essential part is up, perhaps with complaints. A service manager need not wait longer: a host that
    /// cannot run sandboxes answers all the same, and says why.
    pub fn is_started(&self) -> bool {
        let up = |part: &Part| matches!(part.state, PartState::Running | PartState::Degraded | PartState::Off);
        self.parts.iter().filter(|part| part.essential).all(up)
    }

    /// Names what keeps the daemon from being ready, for a status line.
    pub fn summary(&self) -> String {
        let unwell: Vec<String> = self
            .parts
            .iter()
            .filter(|part| !matches!(part.state, PartState::Running | PartState::Off))
            .map(|part| match part.reasons.first() {
                Some(reason) => format!("{}: {reason}", part.name),
                None => format!("{}: {:?}", part.name, part.state).to_lowercase(),
            })
            .collect();
        if unwell.is_empty() { "all parts run".to_owned() } else { unwell.join("; ") }
    }
}
