//! The host's GPUs, as their driver tells of them.

use async_trait::async_trait;
use serde::Serialize;

/// One GPU. What the driver does not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    pub index: u32,
    pub uuid: String,
    pub name: String,
    pub memory_total: Option<u64>,
    pub memory_used: Option<u64>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// The last critical error (XID) that the driver reported since the daemon's start.
    pub xid: Option<u64>,
    /// How many such errors there were that a restart of the process on it cures.
    pub faults: u64,
    /// Why no work should be given to it: lost, needs a reset, an XID that only a reset cures.
    pub unfit: Option<String>,
}

/// What could be learned of the GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuPicture {
    /// No driver on this host: not an error.
    NoDriver,
    Gpus(Vec<Gpu>),
    /// There is a driver, and it does not answer.
    Unwell(String),
}

/// Looks at the GPUs.
#[async_trait]
pub trait Gpus: Send + Sync {
    /// Bounded by five seconds; a driver that hangs is asked once at a time.
    async fn look(&self) -> GpuPicture;
}
