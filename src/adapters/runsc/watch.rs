//! Watching one task of a sandbox from the moment its request is sent: result channel, both outputs, the clock, the cgroup's
//! out-of-memory events and the end of the process, all at once.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use slog::{Logger, warn};
use tokio::time::{Sleep, sleep};

use super::CLOSING_PATIENCE;
use super::channel::Incoming;
use super::dialogue::{Dialogue, Settled};
use super::line::Line;
use super::live::Live;
use super::slot::Slot;
use super::stopwatch::Stopwatch;
use crate::domain::execution::{End, Following, ProcessEnd, Said, Settlement};
use crate::ports::sandbox::SandboxError;

/// What was asked of the runner, and what it is held to.
pub(super) struct Task {
    /// The whole request frame.
    pub request: Vec<u8>,
    /// No other request comes after it.
    pub last: bool,
    pub time_limit: Duration,
    /// The largest frame of the answer.
    pub frame_cap: usize,
    /// Bytes on the result channel, in all, beyond which the call is ended as flooded.
    pub channel_cap: u64,
    /// Hears logs and output as they come.
    pub following: Following,
}

/// What was seen of a task. What it printed is in the line, what it logged in the dialogue.
#[derive(Debug)]
pub(super) struct Seen {
    pub end: End,
    pub settled: Option<Settled>,
    pub process: ProcessEnd,
    pub took: Duration,
}

/// Sends the request and watches until the task is over; then stops what still runs, unless it settled honestly.
///
/// # Errors
/// `Unknown` as soon as the slot is to be destroyed.
pub(super) async fn watch(
    slot: &Slot,
    line: &mut Line,
    task: Task,
    dialogue: &mut Dialogue,
    log: &Logger,
) -> Result<Seen, SandboxError> {
    let Line { frames, request, stdout, stderr } = line;
    frames.set_cap(task.frame_cap);
    request.send(task.request, task.last);
    if let Some(follower) = &task.following {
        stdout.follow(Live::new(Arc::clone(follower), Said::Stdout));
        stderr.follow(Live::new(Arc::clone(follower), Said::Stderr));
    }
    let process = slot.process()?;
    let stopwatch = Stopwatch::start();
    // What fits the pipe goes at once: the sandbox begins while the watches are still being set up.
    let _ = request.advance().now_or_never();

    let mut time_limit = pin!(sleep(task.time_limit));
    let mut doomed = pin!(slot.doomed());
    let mut out_of_memory = pin!(slot.cgroup()?.out_of_memory());
    let mut watches_memory = true;
    let mut exit = pin!(process.wait());
    let mut exited = None;
    let mut channel_open = true;
    let mut closing: Option<Pin<Box<Sleep>>> = None;

    let (end, settled) = loop {
        // The order is that of trust: what the kernel and our clock say comes before what the sandbox says, and a
        // sandbox that never stops talking cannot keep them waiting.
        tokio::select! {
            biased;
            () = &mut doomed => return Err(SandboxError::Unknown(slot.id)),
            event = &mut out_of_memory, if watches_memory => match event {
                Ok(()) => break (End::OutOfMemory, None),
                Err(error) => {
                    // The counters still tell at the end.
                    warn!(log, "slot.memory_unwatched"; "slot" => %slot.id, "error" => %error);
                    watches_memory = false;
                }
            },
            () = &mut time_limit => break (End::TimedOut, None),
            () = over(&mut closing) => break (End::Closed, None),
            end = &mut exit, if exited.is_none() => {
                exited = Some(end);
                closing.get_or_insert_with(|| Box::pin(sleep(CLOSING_PATIENCE)));
            }
            incoming = frames.next(), if channel_open => match incoming {
                Incoming::Frame(frame) => {
                    if let Some(settled) = dialogue.step(&frame) {
                        break (End::Settled, Some(settled));
                    }
                    if let Some(follower) = &task.following {
                        dialogue.untold().iter().for_each(|entry| follower.hear(Said::Log(entry.clone())));
                    }
                    if frames.received() > task.channel_cap {
                        break (End::Flooded, None);
                    }
                }
                Incoming::Broken(_) => break (End::Settled, Some(Settled::Call(Settlement::Forged))),
                Incoming::Closed => {
                    channel_open = false;
                    closing.get_or_insert_with(|| Box::pin(sleep(CLOSING_PATIENCE)));
                }
            },
            () = request.advance(), if request.is_pending() => {}
            () = stdout.fill(), if stdout.is_open() => {
                if stdout.is_flooded() {
                    break (End::Flooded, None);
                }
            }
            () = stderr.fill(), if stderr.is_open() => {
                if stderr.is_flooded() {
                    break (End::Flooded, None);
                }
            }
        }
        if !channel_open && exited.is_some() {
            break (End::Closed, None);
        }
    };
    let took = stopwatch.elapsed();
    let honest = end == End::Settled && !matches!(settled, Some(Settled::Call(Settlement::Forged)));
    if !honest {
        process.kill();
    }
    stdout.drain();
    stderr.drain();
    Ok(Seen { end, settled, process: exited.unwrap_or(ProcessEnd::Running), took })
}

/// The end of a wait that may not have begun.
async fn over(wait: &mut Option<Pin<Box<Sleep>>>) {
    match wait {
        Some(wait) => wait.await,
        None => pending().await,
    }
}
