//! The QueueIngress actors' contract. What they are told by the instances is in [`super::comfy_process`].

use actix::prelude::*;

use crate::domain::job::{Job, JobId, JobView, QueueRefusal};

/// Puts a job into this host's own queue. Answered by the ingress of that queue only.
#[derive(Message)]
#[rtype(result = "Result<(), QueueRefusal>")]
pub struct SubmitJob {
    pub job: Job,
}

/// Cancels a job of this host's own queue; none when there is no such job.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Option<JobView>")]
pub struct CancelJob {
    pub job: JobId,
}

/// How does the ingress stand?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "IngressPicture")]
pub struct GetIngress;

/// An ingress as the health door shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, MessageResponse)]
#[serde(rename_all = "camelCase")]
pub struct IngressPicture {
    pub source: String,
    /// `closed`, `open`, `half_open`: the circuit before the source.
    pub circuit: &'static str,
    /// Jobs that are held, by what is done with them.
    pub opening: usize,
    pub waiting: usize,
    pub running: usize,
    /// Answers that are not off yet, and their bytes.
    pub unsent: usize,
    pub unsent_bytes: usize,
    pub taken: u64,
    pub settled: u64,
    pub failed: u64,
    pub duplicates: u64,
    /// The last trouble with the source.
    pub trouble: Option<String>,
    /// Instances, by how they stand: ready, running, loading, and such whose last start failed.
    pub instances_ready: usize,
    pub instances_busy: usize,
    pub instances_starting: usize,
    pub instances_unwell: usize,
}
