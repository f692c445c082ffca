//! What a short command prints, bounded.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;

use tokio::net::unix::pipe::Receiver;

/// Bytes kept of each stream; the rest is read and thrown away, so that the command does not block on a full pipe.
const KEPT: usize = 64 * 1024;

/// Both output streams of a command.
pub(super) struct Captures {
    stdout: Capture,
    stderr: Capture,
}

impl Captures {
    pub(super) fn new(stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self { stdout: Capture::new(stdout)?, stderr: Capture::new(stderr)? })
    }

    /// Reads both streams until `ended` is done, then what is still in the pipes. It does not wait for their end:
    /// a grandchild may hold them open.
    pub(super) async fn read_until(&mut self, ended: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let mut ended = pin!(ended);
        loop {
            tokio::select! {
                result = &mut ended => {
                    result?;
                    self.stdout.take_ready()?;
                    return self.stderr.take_ready();
                }
                result = self.stdout.fill(), if self.stdout.is_open() => result?,
                result = self.stderr.fill(), if self.stderr.is_open() => result?,
            }
        }
    }

    /// The text of both; bytes that are not UTF-8 become U+FFFD.
    pub(super) fn finish(self) -> (String, String) {
        (self.stdout.text(), self.stderr.text())
    }
}

struct Capture {
    /// None once the stream has ended.
    pipe: Option<Receiver>,
    kept: Vec<u8>,
}

impl Capture {
    fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self { pipe: pipe.map(Receiver::from_owned_fd).transpose()?, kept: Vec::new() })
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    async fn fill(&mut self) -> io::Result<()> {
        if let Some(pipe) = &self.pipe {
            pipe.readable().await?;
        }
        self.take_once().map(drop)
    }

    /// Takes what is in the pipe now: at most what it held when its writer ended, plus one read for each of a
    /// grandchild's writes, which the kill of the group ends.
    fn take_ready(&mut self) -> io::Result<()> {
        const MOST_READS: usize = 1024;
        for _ in 0..MOST_READS {
            if !self.take_once()? {
                break;
            }
        }
        Ok(())
    }

    /// One read; false when there is nothing to read.
    fn take_once(&mut self) -> io::Result<bool> {
        let Some(pipe) = &self.pipe else { return Ok(false) };
        let mut chunk = [0; 8192];
        match pipe.try_read(&mut chunk) {
            Ok(0) => {
                self.pipe = None;
                Ok(false)
            }
            Ok(length) => {
                let room = KEPT - self.kept.len();
                self.kept.extend(chunk.iter().take(length.min(room)));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}
