//! A job: what a source of work hands out, what it turns out to be once it is open, and what is answered.
//!
//! ```text
//!   Job (input still closed) ─► Crypto ─► Request ─┬─ ComfyJob ─► ComfyProcess ─► ComfyReport ─┐
//!                                                  └─ ExecuteInput ► SandboxPool ─► report ────┴─► Answer
//! ```

mod answer;
pub mod body;
mod comfy;
mod id;
mod request;
mod view;

pub use answer::{Answer, SealedPart};
pub use comfy::{ComfyFailure, ComfyJob, ComfyReport, FailureCode, JobTimings, Output, OutputKind, Progress};
pub use comfy::{ImageSource, InputImage, Preview};
pub use id::{InvalidJobId, JobId, PromptId};
pub use request::{ExecuteInput, OpenError, ReplyAddress, ReplyTo, Request, Wants};
pub use view::{JobCounts, JobStatus, JobView, QueueRefusal};

use crate::domain::bucket::Bucket;
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;

/// A job as its source handed it out.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    /// Whose it is; the operator's where its source knows no tenants.
    pub tenant: TenantName,
    /// The JSON text of its `input`. Sealed or not: it is treated as a secret.
    pub input: Secret,
    /// Where this job's large outputs go, when it brings a place of its own (RunPod's `s3Config`).
    pub bucket: Option<Bucket>,
}
