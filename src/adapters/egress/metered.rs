//! The sandbox's end of a connection, on which every byte is counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::gate::Gate;

pub(super) struct Metered {
    stream: UnixStream,
    gate: Arc<Gate>,
    moved: Arc<AtomicU64>,
}

impl Metered {
    pub(super) fn new(stream: UnixStream, gate: Arc<Gate>) -> Self {
        Self { stream, gate, moved: Arc::default() }
    }

    /// Goes up with everything that moves.
    pub(super) fn moved(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moved)
    }

    fn count(&self, bytes: usize) {
        self.gate.spend(bytes);
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of `wanted` bytes there is room for.
    fn room(&self, wanted: usize) -> io::Result<usize> {
        match self.gate.room(wanted) {
            0 if wanted > 0 => Err(io::Error::new(io::ErrorKind::QuotaExceeded, "all bytes are used up")),
            room => Ok(room),
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = self.room(into.remaining())?;
        let mut part = ReadBuf::new(into.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        into.advance(read);
        self.count(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.room(bytes.len())?;
        let part = bytes.get(..room).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, part))?;
        self.count(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
