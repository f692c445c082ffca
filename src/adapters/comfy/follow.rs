//! One prompt, from its post to its outputs.
//!
//! The WebSocket tells first. Where it is silent, slow or gone, history is asked, and where that knows nothing, the
//! queue: a prompt that was deleted while it waited ends without a word. A process that is gone ends every run.

mod look;

use std::future::pending;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use self::look::{Looked, look};
use super::collect::{collect, items};
use super::failure::{self, plain};
use super::http::{HttpError, Reply};
use super::instance::Instance;
use super::message::{self, Message};
use super::prompt::Prompt;
use super::seen::{End, Seen};
use super::socket::{Incoming, Socket, SocketError};
use super::stopwatch::Stopwatch;
use super::{beside, history};
use crate::domain::job::{ComfyFailure, ComfyJob, ComfyReport, FailureCode, ImageSource, JobTimings, Output, PromptId};
use crate::domain::secret::Secret;
use crate::ports::comfy::{ComfyEnd, RunEvent};

/// What is not told by an event is looked at this often. The counts below are in these.
const TICK: Duration = Duration::from_millis(100);
/// Silence of the prompt after which history is asked, and between two such questions.
const QUIET: u32 = 20;
/// Between two pings.
const PING: u32 = 50;
/// Without any frame, pongs too: the connection is dead.
const DEAD: u32 = 300;
/// Between two tries to connect again.
const RECONNECT: u32 = 20;
/// How long pictures may be behind the end that history told.
const LATE: u32 = 50;
/// Looks in a row that find a prompt nowhere, before it is taken to be gone: one may fall between queue and history.
const ABSENT: u32 = 2;

pub(super) async fn run(
    at: &Instance,
    job: &ComfyJob,
    prompt: PromptId,
    events: mpsc::Sender<RunEvent>,
) -> ComfyReport {
    let mut report = ComfyReport {
        prompt_id: prompt,
        outputs: Vec::new(),
        history: None,
        failure: None,
        timings: JobTimings::default(),
    };
    report.failure = Box::pin(run_into(at, job, prompt, events, &mut report)).await.err();
    report
}

/// Everything that is found goes into the report; the error is why it is not all that was asked for.
async fn run_into(
    at: &Instance,
    job: &ComfyJob,
    prompt: PromptId,
    events: mpsc::Sender<RunEvent>,
    report: &mut ComfyReport,
) -> Result<(), ComfyFailure> {
    let unreadable = || plain(FailureCode::Validation, "the prompt is no JSON object");
    let text = job.prompt.text().ok_or_else(unreadable)?;
    let read = Prompt::read(text).ok_or_else(unreadable)?;
    lay_inputs(at, job).await?;
    let link = connect(at).await?;
    let stopping = at.stopping();
    if *stopping.borrow() == Some(prompt) {
        at.keep(link).await;
        return Err(failure::interrupted());
    }
    let body = read.body(prompt, link.client(), job.wants.previews, at.shared.settings.keep_models);
    let mut run = Run {
        at,
        prompt,
        id: prompt.to_string(),
        silent: job.wants.silent,
        events,
        seen: Seen::new(prompt.to_string(), job.nodes, read.senders(), job.wants.previews),
        client: link.client().to_owned(),
        link: Some(link),
        post: Some(at.http.prompt(body).boxed()),
        taken: Taken::Posting,
        look: None,
        opening: None,
        stopping,
        left_out: None,
        entry: None,
        told_by_history: false,
        clocks: Clocks::default(),
    };
    let watch = Stopwatch::start();
    let followed = run.follow().await;
    report.timings.run_ms = watch.millis();
    followed?;
    run.finish(job, report).await
}

/// Writes the job's pictures to where the prompt looks for them.
async fn lay_inputs(at: &Instance, job: &ComfyJob) -> Result<(), ComfyFailure> {
    if job.images.is_empty() {
        return Ok(());
    }
    let (room, images) = (at.room.clone(), job.images.clone());
    let laid = tokio::task::spawn_blocking(move || {
        for image in &images {
            let ImageSource::Bytes(bytes) = &image.source else {
                return Err(plain(FailureCode::Input, "an input image was not fetched"));
            };
            room.put(&image.name, bytes.bytes()).map_err(|error| match error.kind() {
                std::io::ErrorKind::StorageFull => {
                    plain(FailureCode::NoSpace, "the input images do not fit into the instance's RAM directory")
                }
                std::io::ErrorKind::AlreadyExists => plain(FailureCode::Input, "two input images have the same name"),
                _ => plain(FailureCode::Input, "an input image cannot be laid under its name"),
            })?;
        }
        Ok(())
    });
    laid.await.unwrap_or_else(|_| Err(plain(FailureCode::Input, "the input images were not written")))
}

/// Opens the WebSocket, unless the process ends first.
async fn connect(at: &Instance) -> Result<Socket, ComfyFailure> {
    use crate::ports::comfy::ComfyUi;
    tokio::select! {
        opened = at.connection() => {
            opened.map_err(|_| plain(FailureCode::Unavailable, "ComfyUI's WebSocket could not be opened"))
        }
        end = at.ended() => {
            Err(plain(FailureCode::Unavailable, format!("ComfyUI ended before it was given the job: {}", end.end)))
        }
    }
}

fn crashed(end: &ComfyEnd) -> ComfyFailure {
    match end.out_of_memory {
        true => plain(FailureCode::OutOfMemory, "ComfyUI was ended by the kernel: it ran out of the host's memory"),
        false => plain(FailureCode::Crashed, format!("ComfyUI ended during the run: {}", end.end)),
    }
}

/// How far the post is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Posting,
    Yes,
    /// The connection broke: it may have been taken.
    Unsure,
}

/// Ticks since …
#[derive(Default)]
struct Clocks {
    /// … anything of this prompt was heard.
    quiet: u32,
    /// … anything at all was heard.
    unheard: u32,
    /// … the connection was lost.
    apart: u32,
    /// … history told of the end, and pictures were still awaited.
    late: Option<u32>,
    /// Looks in a row that found it nowhere.
    absent: u32,
}

struct Run<'a> {
    at: &'a Instance,
    prompt: PromptId,
    id: String,
    silent: bool,
    events: mpsc::Sender<RunEvent>,
    seen: Seen,
    client: String,
    link: Option<Socket>,
    post: Option<BoxFuture<'a, Result<Reply, HttpError>>>,
    taken: Taken,
    look: Option<BoxFuture<'a, Looked>>,
    opening: Option<BoxFuture<'a, Result<Socket, SocketError>>>,
    stopping: watch::Receiver<Option<PromptId>>,
    /// What ComfyUI did not take of the prompt.
    left_out: Option<ComfyFailure>,
    /// The history entry, once it was read.
    entry: Option<Vec<u8>>,
    told_by_history: bool,
    clocks: Clocks,
}

/// What happened next.
enum Next {
    Heard(Incoming),
    Answered(Result<Reply, HttpError>),
    Looked(Looked),
    Opened(Box<Result<Socket, SocketError>>),
    Stopping,
    Gone(ComfyEnd),
    Tick,
}

impl Run<'_> {
    /// Follows the prompt to its end.
    async fn follow(&mut self) -> Result<(), ComfyFailure> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.next(&mut ticks).await {
                Next::Heard(incoming) => self.heard(incoming),
                Next::Answered(answer) => self.answered(answer)?,
                Next::Looked(looked) => self.looked(looked),
                Next::Opened(opened) => self.opened(*opened),
                Next::Stopping => self.ask(),
                Next::Gone(end) => return Err(crashed(&end)),
                Next::Tick => self.tick().await,
            }
            if self.is_over() {
                return Ok(());
            }
        }
    }

    async fn next(&mut self, ticks: &mut Interval) -> Next {
        use crate::ports::comfy::ComfyUi;
        let Run { at, link, post, look, opening, stopping, .. } = self;
        // In the order of what tells most: the socket before the process's end, which it may have told.
        tokio::select! {
            biased;
            heard = async { match link { Some(link) => link.next().await, None => pending().await } } => Next::Heard(heard),
            answer = some(post) => Next::Answered(answer),
            looked = some(look) => Next::Looked(looked),
            opened = some(opening) => Next::Opened(Box::new(opened)),
            end = at.ended() => Next::Gone(end),
            changed = stopping.changed() => match changed {
                Ok(()) => Next::Stopping,
                Err(_gone) => pending().await,
            },
            _ = ticks.tick() => Next::Tick,
        }
    }

    fn is_over(&self) -> bool {
        self.taken != Taken::Posting
            && self.seen.end.is_some()
            && self.clocks.late.is_none_or(|late| late >= LATE || !self.told_by_history)
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow() == Some(self.prompt)
    }

    fn tell(&self, event: Option<RunEvent>) {
        let Some(event) = event else { return };
        // A full channel loses steps, as its contract says.
        let _ = self.events.try_send(if self.silent { RunEvent::Sign } else { event });
    }

    fn heard(&mut self, incoming: Incoming) {
        self.clocks.unheard = 0;
        let event = match incoming {
            Incoming::Text(text) => self.seen_text(message::read(&text, &self.id)),
            Incoming::Binary(frame) => match message::picture(&frame) {
                Some(picture) if self.seen.picture_bytes <= self.at.shared.settings.output_bytes => {
                    self.seen.picture(picture)
                }
                Some(_) => {
                    self.seen.gaps = true;
                    Some(RunEvent::Sign)
                }
                None => None,
            },
            Incoming::Alive => None,
            Incoming::Closed => {
                self.lose_link();
                None
            }
        };
        if event.is_some() {
            self.clocks.quiet = 0;
        }
        self.tell(event);
    }

    fn seen_text(&mut self, message: Message) -> Option<RunEvent> {
        let ends = matches!(message, Message::Succeeded | Message::Failed(_) | Message::Interrupted);
        if ends {
            // All that it sent before came before, on the same connection.
            self.clocks.late = None;
            self.told_by_history = false;
        }
        self.seen.text(message)
    }

    fn lose_link(&mut self) {
        self.link = None;
        self.seen.gaps = true;
        self.clocks.apart = 0;
        self.ask();
    }

    fn answered(&mut self, answer: Result<Reply, HttpError>) -> Result<(), ComfyFailure> {
        self.post = None;
        let Ok(Reply { status, body }) = answer else {
            self.taken = Taken::Unsure;
            return Ok(());
        };
        if status != 200 {
            return Err(failure::refused(status, &body));
        }
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        self.left_out = failure::left_out(&said);
        self.taken = Taken::Yes;
        self.clocks.quiet = 0;
        let _ = self.events.try_send(RunEvent::Accepted);
        if self.is_stopping() {
            // Asked for while it was being posted: that found nothing to stop.
            self.ask();
        }
        Ok(())
    }

    /// Looks for the prompt where it may be told of, unless that is under way.
    fn ask(&mut self) {
        if self.look.is_none() && self.taken != Taken::Posting && self.seen.end.is_none() {
            let thorough = self.is_stopping() || self.link.is_none() || self.taken == Taken::Unsure;
            // Once more, each time: it may have begun since.
            let stop = self.is_stopping();
            self.look = Some(look(self.at.http.clone(), self.prompt, thorough, stop).boxed());
        }
    }

    fn looked(&mut self, looked: Looked) {
        self.look = None;
        self.clocks.absent = if matches!(looked, Looked::Absent) { self.clocks.absent + 1 } else { 0 };
        match looked {
            Looked::Over(entry) => {
                let Some(told) = history::read(&entry) else { return };
                self.entry = Some(entry);
                if self.seen.end.is_some() {
                    return;
                }
                self.told_by_history = true;
                self.seen.replace_outputs(told.outputs);
                if self.seen.has_senders() && self.link.is_some() && matches!(told.end, End::Succeeded) {
                    self.clocks.late = Some(0);
                }
                self.seen.ended(told.end);
            }
            Looked::Absent if self.clocks.absent >= ABSENT => {
                let failure = match (self.is_stopping(), self.taken) {
                    (true, _) => failure::interrupted(),
                    (false, Taken::Unsure) => plain(FailureCode::Unavailable, "ComfyUI did not take the prompt"),
                    (false, _) => plain(FailureCode::Interrupted, "the prompt left ComfyUI's queue without an end"),
                };
                self.seen.ended(End::Failed(failure));
            }
            Looked::Absent | Looked::Queued | Looked::Unknown => {}
        }
    }

    fn opened(&mut self, opened: Result<Socket, SocketError>) {
        self.opening = None;
        self.clocks.unheard = 0;
        // Where it fails, the next round tries again.
        self.link = opened.ok();
    }

    async fn tick(&mut self) {
        let clocks = &mut self.clocks;
        clocks.quiet += 1;
        clocks.unheard += 1;
        if let Some(late) = &mut clocks.late {
            *late += 1;
            self.seen.gaps |= *late >= LATE;
        }
        match &mut self.link {
            Some(_) if clocks.unheard >= DEAD => self.lose_link(),
            Some(link) => {
                if clocks.unheard % PING == PING - 1 {
                    link.ping().await;
                }
                if clocks.quiet.is_multiple_of(QUIET) || self.is_stopping() || self.taken == Taken::Unsure {
                    self.ask();
                }
            }
            None => {
                clocks.apart += 1;
                if self.opening.is_none() && clocks.apart.is_multiple_of(RECONNECT) {
                    // The old connection is closed, and by now ComfyUI knows: under the same name its messages come again.
                    let (port, largest) = (self.at.spec.port, self.at.largest_frame());
                    self.opening = Some(Socket::open_as(port, largest, self.client.clone()).boxed());
                }
                self.ask();
            }
        }
    }

    /// Everything behind the end: history, where it is wanted or needed, and the files.
    async fn finish(mut self, job: &ComfyJob, report: &mut ComfyReport) -> Result<(), ComfyFailure> {
        let watch = Stopwatch::start();
        let complete = self.told_by_history || !self.seen.gaps;
        if self.entry.is_none() && (job.wants.history || !complete) {
            self.entry = look::entry(&self.at.http, self.prompt).await;
        }
        let told = self.entry.as_deref().filter(|_| !complete).and_then(history::read);
        let mut failure = match told {
            Some(told) => {
                self.seen.replace_outputs(told.outputs);
                None
            }
            None if complete => None,
            None => {
                Some(plain(FailureCode::Unsendable, "the connection to ComfyUI was lost, and what it made with it"))
            }
        };
        if self.seen.lost_pictures() {
            let text = "pictures that ComfyUI sends over its WebSocket were lost with the connection, or are too large";
            failure = Some(plain(FailureCode::Unsendable, text));
        }
        let reported = items(&self.seen.outputs);
        let pictures = std::mem::take(&mut self.seen.pictures);
        let collected = gather(self.at, reported, pictures).await;
        report.outputs = collected.0;
        report.history = self.entry.take().filter(|_| job.wants.history).map(Secret::new);
        if let Some(link) = self.link.take()
            && !self.told_by_history
            && !self.seen.gaps
        {
            self.at.keep(link).await;
        }
        report.timings.collect_ms = watch.millis();
        // What ComfyUI says went wrong before what we could not fetch.
        let of_run = match self.seen.end {
            Some(End::Failed(failure)) => Some(failure),
            _ => None,
        };
        of_run.or(self.left_out).or(failure).or(collected.1).map_or(Ok(()), Err)
    }
}

async fn gather(
    at: &Instance,
    reported: Vec<super::collect::Item>,
    pictures: Vec<(String, Secret)>,
) -> (Vec<Output>, Option<ComfyFailure>) {
    let (room, most) = (at.room.clone(), at.shared.settings.output_bytes);
    let collected = beside("collecting outputs", move || Ok(collect(&room, reported, pictures, most))).await;
    collected.unwrap_or_else(|_| (Vec::new(), Some(plain(FailureCode::Unsendable, "the outputs could not be read"))))
}

/// A future that may be absent: then it never comes.
async fn some<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
