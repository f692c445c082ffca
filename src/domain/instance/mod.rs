//! One ComfyUI process of this host, and how it stands.

/// An instance's stable name: `comfy-0`, `comfy-1`, …
pub type InstanceName = crate::domain::restart::ChildName;

/// What one instance is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    pub name: InstanceName,
    /// The value of `CUDA_VISIBLE_DEVICES`: a GPU's UUID or index. None: the process sees what the daemon sees.
    pub device: Option<String>,
    pub port: u16,
}

/// How an instance stands, as those who give it work know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It loads, or waits to be started again.
    Down {
        reason: String,
    },
    /// A start failed: it ended, or did not answer in time, before it was ever ready. `in_a_row` counts them.
    FailedStart {
        in_a_row: u32,
        reason: String,
    },
    /// It waits for a job. `models` are those of the last jobs that it ran, the newest first.
    Ready {
        models: Vec<String>,
    },
    Busy,
}
