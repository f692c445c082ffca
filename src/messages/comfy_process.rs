//! The ComfyProcess actors' contract, and the facts that they tell.

use actix::prelude::*;

pub use crate::domain::instance::RunRefused;
use crate::domain::instance::{InstanceName, Standing};
use crate::domain::job::{ComfyJob, ComfyReport, JobId, Progress};

/// Runs one job. Answered once, whatever becomes of the process: the report tells.
#[derive(Message)]
#[rtype(result = "Result<ComfyReport, RunRefused>")]
pub struct RunJob {
    pub job: Box<ComfyJob>,
    /// Where its progress is told; a full mailbox loses steps.
    pub progress: Recipient<JobProgressed>,
}

/// Stop this job, if it is the one that runs. Its `RunJob` is then answered as interrupted.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct InterruptJob {
    pub job: JobId,
}

/// How does the instance stand?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "InstancePicture")]
pub struct GetInstance;

/// An instance as the health door shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, MessageResponse)]
#[serde(rename_all = "camelCase")]
pub struct InstancePicture {
    pub name: String,
    /// `held` (nothing is spawned: its GPU is unfit), `starting`, `ready`, `busy`, `stopping`, `wedged`.
    pub state: &'static str,
    pub device: Option<String>,
    pub port: u16,
    /// Jobs that were answered in this life of its process.
    pub jobs: u64,
    pub memory_mib: Option<u64>,
    /// The job in hand.
    pub job: Option<String>,
    /// What is wrong with it.
    pub complaints: Vec<String>,
}

/// An instance's standing changed, or is told again with its beat. Told to every QueueIngress.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct InstanceStood {
    pub instance: InstanceName,
    pub standing: Standing,
}

/// A job went on.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct JobProgressed {
    pub job: JobId,
    pub progress: Progress,
}
