//! `[runpod]`: RunPod's serverless platform as a source of jobs. The platform itself sets the variables.

use std::time::Duration;

use secrecy::SecretString;

use super::{MINUTE, Reader, millis, secs};

/// `[runpod]`
#[derive(Debug, Clone)]
pub struct Runpod {
    /// The template of the address that jobs are taken from. None: this host is no RunPod worker.
    pub take_url: Option<String>,
    /// The template of the address that answers and progress go to.
    pub done_url: Option<String>,
    /// The template of the address for heartbeats; without it there are none.
    pub ping_url: Option<String>,
    /// Sent as it is. Without it there are no heartbeats.
    pub api_key: Option<SecretString>,
    /// This worker's name; without it there are no heartbeats.
    pub pod_id: Option<String>,
    /// Stands for `$RUNPOD_GPU_TYPE_ID` in the templates.
    pub gpu_type: Option<String>,
    pub ping_every: Duration,
    /// How long one poll may stay open.
    pub poll: Duration,
    /// The largest answer, in bytes, to a job that was queued, and to one whose caller waits for it.
    pub result_bytes: usize,
    pub sync_result_bytes: usize,
    /// ComfyUI's failed starts in a row after which the worker reports itself as unhealthy and ends.
    pub max_failed_starts: u32,
    /// True: the platform is asked to recycle the worker after each job.
    pub refresh_worker: bool,
}

impl Runpod {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let this = Self {
            take_url: reader.url_if_any("runpod.take_url"),
            done_url: reader.url_if_any("runpod.done_url"),
            ping_url: reader.url_if_any("runpod.ping_url"),
            api_key: reader.secret("runpod.api_key"),
            pod_id: reader.text_if_any("runpod.pod_id"),
            gpu_type: reader.text_if_any("runpod.gpu_type"),
            ping_every: millis(reader.whole("runpod.ping_interval_ms", 100..=600_000)),
            poll: reader.span("runpod.poll", millis(100)..=secs(10 * MINUTE)),
            result_bytes: kib(reader, "runpod.result_kib"),
            sync_result_bytes: kib(reader, "runpod.sync_result_kib"),
            max_failed_starts: reader.whole("runpod.max_failed_starts", 1..=1000),
            refresh_worker: reader.switch("runpod.refresh_worker"),
        };
        if this.take_url.is_some() && this.done_url.is_none() {
            reader.refuse("runpod.done_url", "it is empty and runpod.take_url is not: answers would have no way back");
        }
        this
    }
}

fn kib(reader: &mut Reader<'_>, key: &'static str) -> usize {
    reader.whole::<usize>(key, 1..=1_048_576).saturating_mul(1024)
}
