//! The host's GPUs through NVIDIA's management library (NVML), which is opened at run time: a host without it has no
//! GPUs, and that is no error.
//!
//! ```text
//!   look() ─► asked ─► one thread: driver.rs ─► NVML       a driver that hangs holds this thread, and no other
//!      ▲                    │ each 250 ms: XID events ─► xid.rs
//!      └──── published ◄────┘
//! ```
//!
//! The thread is one of its own and no pool's: a call that never comes back must not keep the daemon from ending.

mod driver;
mod xid;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use slog::{Logger, warn};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ports::gpu::{GpuPicture, Gpus};

#[cfg(test)]
mod tests;

/// For one look.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// A picture, and the number of the look that it answers.
type Published = (u64, GpuPicture);

/// The GPUs that NVML tells of.
pub struct NvmlGpus {
    /// None: the system's own.
    library: Option<PathBuf>,
    asked: Mutex<Asked>,
    published: watch::Sender<Published>,
    log: Logger,
}

#[derive(Default)]
struct Asked {
    /// The number of the newest look.
    number: u64,
    /// Where looks are asked for, once the thread runs.
    thread: Option<mpsc::Sender<u64>>,
}

impl NvmlGpus {
    /// Opens nothing yet. `library` names another file than the system's `libnvidia-ml.so.1`.
    pub fn new(library: Option<PathBuf>, log: Logger) -> Self {
        Self { library, asked: Mutex::default(), published: watch::Sender::new((0, GpuPicture::NoDriver)), log }
    }

    /// What each GPU is called in `CUDA_VISIBLE_DEVICES`, in the driver's order: its UUID, or its index when even that
    /// cannot be read. Empty where there is no driver, or none that answers.
    pub async fn devices(&self) -> Vec<String> {
        let GpuPicture::Gpus(gpus) = self.look().await else { return Vec::new() };
        let name = |uuid: String, index: u32| if uuid.is_empty() { index.to_string() } else { uuid };
        gpus.into_iter().map(|gpu| name(gpu.uuid, gpu.index)).collect()
    }

    /// Asks for a look, unless one is under way: then that one is waited for. Gives the number to wait for.
    fn ask(&self) -> Result<u64, String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.number > self.published.borrow().0 {
            return Ok(asked.number);
        }
        let number = asked.number + 1;
        let sent = asked.thread.as_ref().is_some_and(|thread| thread.send(number).is_ok());
        if !sent {
            let thread = self.start().map_err(|error| format!("no thread for it: {error}"))?;
            thread.send(number).map_err(|_| "its thread ended at once".to_owned())?;
            asked.thread = Some(thread);
        }
        asked.number = number;
        Ok(number)
    }

    fn start(&self) -> std::io::Result<mpsc::Sender<u64>> {
        let (asks, asked) = mpsc::channel();
        let (library, published, log) = (self.library.clone(), self.published.clone(), self.log.clone());
        let serve = move || driver::serve(library.as_deref(), &asked, &published, &log);
        std::thread::Builder::new().name("gpu".to_owned()).spawn(serve)?;
        Ok(asks)
    }
}

#[async_trait]
impl Gpus for NvmlGpus {
    async fn look(&self) -> GpuPicture {
        let number = match self.ask() {
            Ok(number) => number,
            Err(reason) => return GpuPicture::Unwell(reason),
        };
        let mut published = self.published.subscribe();
        let answered = published.wait_for(|(answered, _)| *answered >= number);
        match timeout(LOOK_WITHIN, answered).await {
            Ok(Ok(answer)) => answer.1.clone(),
            // The sender is ours and lives.
            Ok(Err(_)) => GpuPicture::Unwell("its thread is gone".to_owned()),
            Err(_) => {
                warn!(self.log, "gpu.silent"; "within_ms" => LOOK_WITHIN.as_millis());
                GpuPicture::Unwell(format!("no answer within {} s", LOOK_WITHIN.as_secs()))
            }
        }
    }
}
