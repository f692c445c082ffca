//! Waiting for a descriptor inside the async runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that the runtime polls. Dropping it ends the polling and closes the descriptor.
#[derive(Debug)]
pub struct Watch {
    inner: AsyncFd<OwnedFd>,
    interest: Interest,
}

impl Watch {
    /// For a descriptor that becomes readable: a pidfd at its process's end, an eventfd, a pipe.
    ///
    /// # Errors
    /// When the descriptor's file cannot be polled.
    pub fn readable(descriptor: OwnedFd) -> io::Result<Self> {
        Self::new(descriptor, Interest::READABLE)
    }

    /// For a kernel file that tells a change by EPOLLPRI, as cgroup v2's `*.events` do.
    ///
    /// # Errors
    /// When the descriptor's file cannot be polled.
    pub fn priority(descriptor: OwnedFd) -> io::Result<Self> {
        Self::new(descriptor, Interest::PRIORITY)
    }

    #[expect(unsafe_code, reason = "tokio leaves the descriptor's validity to its caller")]
    fn new(descriptor: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: an OwnedFd is open and always the same one; it is moved in, only lent out, and never replaced.
        let inner = unsafe { AsyncFd::register_with_interest(descriptor, interest) }?;
        Ok(Self { inner, interest })
    }

    /// Returns at the next report since the last return. A report may be spurious: look at the file before this is
    /// called, and again after it.
    ///
    /// # Errors
    /// When the runtime is going down.
    pub async fn next(&self) -> io::Result<()> {
        self.inner.ready(self.interest).await?.clear_ready();
        Ok(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.get_ref().as_fd()
    }
}
