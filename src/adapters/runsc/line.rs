//! The four pipes of a sandbox. They must be pipes: Deno refuses every other kind of descriptor behind /proc/self/fd.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::fchown;

use tokio::net::unix::pipe::{Receiver, Sender};

use super::capture::{Capture, CaptureCaps};
use super::channel::{FrameReader, RequestWriter};
use super::dialogue::READY_CAP;
use super::flags::{FRAMES_FD, REQUEST_FD};
use super::spec::UNPRIVILEGED;

/// The daemon's ends.
pub(super) struct Line {
    pub frames: FrameReader,
    pub request: RequestWriter,
    pub stdout: Capture,
    pub stderr: Capture,
}

/// The sandbox's ends, each with its number there.
pub(super) type FarEnds = Vec<(OwnedFd, RawFd)>;

impl Line {
    /// Forgets what an earlier call said and printed, and what came after its end.
    pub(super) fn begin_anew(&mut self) {
        self.frames.count_anew();
        for printed in [&mut self.stdout, &mut self.stderr] {
            printed.drain();
            drop(printed.take());
        }
    }
}

/// Makes all four, close-on-exec.
pub(super) fn make(caps: CaptureCaps) -> io::Result<(Line, FarEnds)> {
    let (frames, frames_far) = incoming()?;
    let (stdout, stdout_far) = incoming()?;
    let (stderr, stderr_far) = incoming()?;
    let (request_far, request): (PipeReader, PipeWriter) = io::pipe()?;
    let line = Line {
        frames: FrameReader::new(frames, READY_CAP),
        request: RequestWriter::new(Sender::from_owned_fd(request.into())?),
        stdout: Capture::new(stdout, caps),
        stderr: Capture::new(stderr, caps),
    };
    let far = vec![(stdout_far, 1), (stderr_far, 2), (frames_far, FRAMES_FD), (request_far.into(), REQUEST_FD)];
    Ok((line, far))
}

/// Makes them the sandbox's user's own: in a plain container the kernel checks when Deno opens /proc/self/fd/N.
pub(super) fn give_away(far: &FarEnds) -> io::Result<()> {
    far.iter().try_for_each(|(end, _)| fchown(end, Some(UNPRIVILEGED), Some(UNPRIVILEGED)))
}

fn incoming() -> io::Result<(Receiver, OwnedFd)> {
    let (reader, writer): (PipeReader, PipeWriter) = io::pipe()?;
    Ok((Receiver::from_owned_fd(reader.into())?, writer.into()))
}
