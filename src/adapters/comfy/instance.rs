//! One running ComfyUI.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use slog::{Logger, debug, info};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, mpsc, watch};
use tokio::time::timeout;

use super::http::{Http, HttpError, PATIENCE};
use super::printed::Printed;
use super::room::Room;
use super::socket::{Socket, SocketError};
use super::start::remove_room;
use super::stop::{KILL_PATIENCE, end_cgroup, end_marked};
use super::stopwatch::Stopwatch;
use super::{PortClaim, Shared, beside, follow, host};
use crate::domain::execution::ProcessEnd;
use crate::domain::instance::InstanceSpec;
use crate::domain::job::{ComfyJob, ComfyReport, PromptId};
use crate::ports::cgroup::Cgroup;
use crate::ports::comfy::{ComfyEnd, ComfyError, ComfyUi, RunEvent};
use crate::ports::process::{Ask, Process};

/// Between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A ComfyUI process with all that belongs to it.
pub(super) struct Instance {
    pub(super) shared: Arc<Shared>,
    pub(super) spec: InstanceSpec,
    pub(super) room: Arc<Room>,
    pub(super) http: Http,
    cgroup: Option<Arc<dyn Cgroup>>,
    process: Box<dyn Process>,
    printed: Printed,
    /// The connection that waits for the next prompt.
    standing: AsyncMutex<Option<Socket>>,
    /// The prompt that was last asked to stop.
    stopping: watch::Sender<Option<PromptId>>,
    end: OnceCell<ComfyEnd>,
    _claim: PortClaim,
    pub(super) log: Logger,
}

impl Instance {
    #[expect(clippy::too_many_arguments, reason = "each is a part of it, made one after the other")]
    pub(super) fn new(
        shared: Arc<Shared>,
        spec: InstanceSpec,
        room: Room,
        cgroup: Option<Arc<dyn Cgroup>>,
        process: Box<dyn Process>,
        printed: Printed,
        http: Http,
        claim: PortClaim,
        log: Logger,
    ) -> Self {
        Self {
            shared,
            spec,
            room: Arc::new(room),
            http,
            cgroup,
            process,
            printed,
            standing: AsyncMutex::new(None),
            stopping: watch::Sender::new(None),
            end: OnceCell::new(),
            _claim: claim,
            log,
        }
    }

    /// A connection for the next prompt: the standing one, or a new one.
    pub(super) async fn connection(&self) -> Result<Socket, SocketError> {
        if let Some(mut socket) = self.standing.lock().await.take()
            && socket.refresh()
        {
            return Ok(socket);
        }
        Socket::open(self.spec.port, self.largest_frame()).await
    }

    /// Keeps a connection for the next prompt.
    pub(super) async fn keep(&self, socket: Socket) {
        *self.standing.lock().await = Some(socket);
    }

    /// Bytes of one frame: an output's, and what stands before it.
    pub(super) fn largest_frame(&self) -> usize {
        usize::try_from(self.shared.settings.output_bytes).unwrap_or(usize::MAX).saturating_add(64 << 10)
    }

    /// Whether this prompt was asked to stop; changes are told by the receiver.
    pub(super) fn stopping(&self) -> watch::Receiver<Option<PromptId>> {
        self.stopping.subscribe()
    }

    async fn answers(&self) -> Result<(), ComfyError> {
        loop {
            match self.http.arguments().await {
                Ok(arguments) => return self.check_who_answers(arguments.as_deref()),
                // Refused, until all is loaded.
                Err(_not_yet) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Another ComfyUI may have taken the port since it was looked at; ours then ends only when it has loaded.
    fn check_who_answers(&self, arguments: Option<&[String]>) -> Result<(), ComfyError> {
        let own = self.room.path().join("out");
        match arguments {
            Some(arguments) if !arguments.iter().any(|argument| own.as_os_str() == argument.as_str()) => {
                Err(ComfyError::Off(format!("another ComfyUI answers on port {}", self.spec.port)))
            }
            _ => Ok(()),
        }
    }

    async fn settle_in(&self) -> Result<(), ComfyError> {
        self.printed.serves();
        let room = self.room.clone();
        beside("listing the instance's RAM directory", move || room.remember()).await?;
        // The first prompt then finds it open. Where that fails, the prompt tries again.
        if let Ok(socket) = self.connection().await {
            self.keep(socket).await;
        }
        Ok(())
    }
}

#[async_trait]
impl ComfyUi for Instance {
    async fn ready(&self) -> Result<(), ComfyError> {
        let watch = Stopwatch::start();
        let deadline = self.shared.settings.start_deadline;
        let answered = tokio::select! {
            answered = timeout(deadline, self.answers()) => {
                answered.unwrap_or(Err(ComfyError::NotReady(deadline)))
            }
            end = self.ended() => {
                Err(ComfyError::DiedEarly { end: end.end, last: self.printed.last_words().await })
            }
        };
        answered?;
        self.settle_in().await?;
        info!(self.log, "comfy.ready"; "ms" => watch.millis());
        Ok(())
    }

    async fn run(&self, job: &ComfyJob, prompt: PromptId, events: mpsc::Sender<RunEvent>) -> ComfyReport {
        follow::run(self, job, prompt, events).await
    }

    async fn interrupt(&self, prompt: PromptId) -> Result<(), ComfyError> {
        // First, so that a run that has not posted yet does not.
        self.stopping.send_replace(Some(prompt));
        self.http.interrupt(prompt).await.map_err(unanswered("interrupting a prompt"))
    }

    async fn probe(&self) -> Result<(), ComfyError> {
        self.http.arguments().await.map(drop).map_err(unanswered("asking ComfyUI how it is"))
    }

    async fn clean(&self, prompt: PromptId) -> Result<(), ComfyError> {
        let watch = Stopwatch::start();
        let room = self.room.clone();
        let (swept, forgotten) = tokio::join!(
            beside("sweeping the instance's RAM directory", move || room.sweep()),
            self.http.forget(prompt)
        );
        debug!(self.log, "comfy.cleaned"; "us" => u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX));
        swept?;
        forgotten.map_err(unanswered("deleting a prompt's history"))
    }

    fn memory(&self) -> Option<u64> {
        Some(self.cgroup.as_ref()?.usage().ok()?.memory_bytes)
    }

    fn abort(&self) {
        self.process.ask(Ask::Abort);
    }

    async fn stop(&self, grace: Duration) -> Result<(), ComfyError> {
        self.standing.lock().await.take();
        if !grace.is_zero() {
            self.process.ask(Ask::End);
            let _ = timeout(grace, self.process.wait()).await;
        }
        // Before its end is taken off the kernel, while the group's number is still its own.
        self.process.kill_group();
        let ended = match &self.cgroup {
            // First the evidence, which goes with the cgroup.
            Some(cgroup) => {
                let _ = timeout(KILL_PATIENCE, self.ended()).await;
                end_cgroup(&**cgroup).await
            }
            None => {
                let _ = timeout(KILL_PATIENCE, self.ended()).await;
                Ok(())
            }
        };
        ended?;
        end_marked(&self.shared, &self.spec).await?;
        remove_room(self.room.path().to_owned()).await?;
        info!(self.log, "comfy.stopped");
        Ok(())
    }

    async fn ended(&self) -> ComfyEnd {
        let end = self.end.get_or_init(|| async {
            let end = self.process.wait().await;
            let usage = self.cgroup.as_ref().and_then(|cgroup| cgroup.usage().ok());
            ComfyEnd { end: in_words(end), out_of_memory: usage.is_some_and(|usage| usage.oom_kills > 0) }
        });
        end.await.clone()
    }
}

fn unanswered(doing: &'static str) -> impl FnOnce(HttpError) -> ComfyError {
    move |error| match error {
        HttpError::Silent(_) => ComfyError::Silent(PATIENCE),
        other => host(doing)(other),
    }
}

fn in_words(end: ProcessEnd) -> String {
    match end {
        ProcessEnd::Exited(code) => format!("exit code {code}"),
        ProcessEnd::Signalled(number) => match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => format!("signal {number} ({})", signal.as_str()),
            Err(_) => format!("signal {number}"),
        },
        ProcessEnd::Running => "it could not be watched any more".to_owned(),
    }
}
