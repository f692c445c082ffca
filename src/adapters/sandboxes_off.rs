//! The engine of a host that cannot make sandboxes: it says why, to everyone who asks.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::execution::{Call, Evidence, Following, Limits};
use crate::domain::id::SlotId;
use crate::domain::package_set::PackageSet;
use crate::ports::sandbox::{
    EngineProbe, Installed, Leftover, Preparation, Rested, SandboxEngine, SandboxError, SlotSpec, Transpiled,
};

/// Makes nothing, holds nothing.
pub struct SandboxesOff {
    reason: String,
}

impl SandboxesOff {
    /// `reason` names what is missing and its remedy.
    pub fn new(reason: String) -> Self {
        Self { reason }
    }

    fn off<T>(&self) -> Result<T, SandboxError> {
        Err(SandboxError::Off(self.reason.clone()))
    }
}

#[async_trait]
impl SandboxEngine for SandboxesOff {
    async fn probe(&self) -> EngineProbe {
        EngineProbe {
            engine: "none".to_owned(),
            engine_version: String::new(),
            isolated: false,
            cgroup: "none".to_owned(),
            runtimes: BTreeMap::new(),
            problems: vec![format!("sandboxes are off: {}", self.reason)],
        }
    }

    async fn create(&self, _: SlotSpec) -> Result<(), SandboxError> {
        self.off()
    }

    async fn prepare(&self, _: SlotId, _: Preparation) -> Result<Duration, SandboxError> {
        self.off()
    }

    async fn rest(&self, _: SlotId) -> Result<Rested, SandboxError> {
        self.off()
    }

    async fn wake(&self, _: SlotId) -> Result<(), SandboxError> {
        self.off()
    }

    async fn lost(&self, _: SlotId) -> bool {
        false
    }

    async fn attach(&self, _: SlotId, _: &str) -> Result<(), SandboxError> {
        self.off()
    }

    async fn run(&self, _: SlotId, _: &Call, _: &str, _: bool, _: Following) -> Result<Evidence, SandboxError> {
        self.off()
    }

    async fn transpile(&self, _: SlotId, _: BTreeMap<String, String>, _: Limits) -> Result<Transpiled, SandboxError> {
        self.off()
    }

    async fn install(&self, _: SlotId, _: PackageSet, _: Limits) -> Result<Installed, SandboxError> {
        self.off()
    }

    async fn destroy(&self, _: SlotId) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, SandboxError> {
        Ok(Vec::new())
    }
}
