//! The two pipes between daemon and runner: frames come in, requests go out. Every method may be dropped at any
//! point without losing or doubling a byte.

use std::io;

use tokio::net::unix::pipe::{Receiver, Sender};

use super::frame::{FrameBuffer, FrameError};

const CHUNK: usize = 32 * 1024;

/// What came of waiting for a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Frame(Vec<u8>),
    /// End of file, also in the middle of a frame.
    Closed,
    /// No runner writes such a header.
    Broken(FrameError),
}

/// The runner's frames.
#[derive(Debug)]
pub(super) struct FrameReader {
    pipe: Receiver,
    buffer: FrameBuffer,
    /// All bytes of this call so far.
    received: u64,
}

impl FrameReader {
    pub(super) fn new(pipe: Receiver, cap: usize) -> Self {
        Self { pipe, buffer: FrameBuffer::new(cap), received: 0 }
    }

    pub(super) fn set_cap(&mut self, cap: usize) {
        self.buffer.set_cap(cap);
    }

    /// What came so far is of an earlier call.
    pub(super) fn count_anew(&mut self) {
        self.received = 0;
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) async fn next(&mut self) -> Incoming {
        loop {
            match self.buffer.next() {
                Ok(Some(frame)) => return Incoming::Frame(frame),
                Ok(None) => {}
                Err(error) => return Incoming::Broken(error),
            }
            if self.pipe.readable().await.is_err() {
                return Incoming::Closed;
            }
            let mut chunk = [0; CHUNK];
            match self.pipe.try_read(&mut chunk) {
                Ok(length) if length > 0 => {
                    self.buffer.push(chunk.get(..length).unwrap_or_default());
                    self.received = self.received.saturating_add(u64::try_from(length).unwrap_or(0));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Incoming::Closed,
            }
        }
    }
}

/// The daemon's frames on their way out: one at a time.
#[derive(Debug)]
pub(super) struct RequestWriter {
    /// None once all is written or nobody reads any more.
    pipe: Option<Sender>,
    frame: Vec<u8>,
    written: usize,
    /// No frame comes after this one.
    last: bool,
}

impl RequestWriter {
    pub(super) fn new(pipe: Sender) -> Self {
        Self { pipe: Some(pipe), frame: Vec::new(), written: 0, last: false }
    }

    /// Gives it the next frame. The pipe is closed behind the last one.
    pub(super) fn send(&mut self, frame: Vec<u8>, last: bool) {
        (self.frame, self.written, self.last) = (frame, 0, last);
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pipe.is_some() && self.written < self.frame.len()
    }

    /// Writes some of the rest. A runner that is gone is not an error: its channel closes.
    pub(super) async fn advance(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let rest = self.frame.get(self.written..).unwrap_or_default();
        let gone = if pipe.writable().await.is_err() {
            true
        } else {
            match pipe.try_write(rest) {
                Ok(length) => {
                    self.written += length;
                    false
                }
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        let done = self.written >= self.frame.len();
        if done {
            self.frame = Vec::new();
        }
        if gone || (done && self.last) {
            self.pipe = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::super::frame::encode;
    use super::*;

    fn pipe() -> (Receiver, Sender) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap(), Sender::from_owned_fd(OwnedFd::from(writer)).unwrap())
    }

    #[tokio::test]
    async fn a_request_larger_than_the_pipe_arrives_whole_and_then_the_pipe_closes() {
        let (reader, writer) = pipe();
        let body = vec![7; 300_000];
        let mut out = RequestWriter::new(writer);
        out.send(encode(&body).unwrap(), true);
        let mut frames = FrameReader::new(reader, 1 << 20);
        let sending = async {
            while out.is_pending() {
                out.advance().await;
            }
        };
        let ((), got) = tokio::join!(sending, frames.next());
        assert_eq!(got, Incoming::Frame(body));
        assert_eq!(frames.next().await, Incoming::Closed);
    }

    #[tokio::test]
    async fn the_pipe_stays_open_until_the_last_frame_is_written() {
        let (reader, writer) = pipe();
        let mut out = RequestWriter::new(writer);
        let mut frames = FrameReader::new(reader, 1 << 20);
        for (body, last) in [(b"one".to_vec(), false), (b"two".to_vec(), true)] {
            out.send(encode(&body).unwrap(), last);
            while out.is_pending() {
                out.advance().await;
            }
            assert_eq!(frames.next().await, Incoming::Frame(body));
        }
        assert_eq!(frames.next().await, Incoming::Closed);
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_ends_the_sending() {
        let (reader, writer) = pipe();
        drop(reader);
        let mut out = RequestWriter::new(writer);
        out.send(encode(b"x").unwrap(), false);
        out.advance().await;
        assert!(!out.is_pending());
    }

    #[tokio::test]
    async fn half_a_frame_is_no_frame() {
        let (reader, writer) = pipe();
        writer.writable().await.unwrap();
        writer.try_write(&[0, 0, 0, 9, 1]).unwrap();
        drop(writer);
        assert_eq!(FrameReader::new(reader, 100).next().await, Incoming::Closed);
    }
}
