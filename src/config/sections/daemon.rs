//! `[daemon]`: the places on the host, and the end.

use std::path::PathBuf;
use std::time::Duration;

use super::{HOUR, Reader, secs};

/// The longest path of a Unix socket, in bytes (`sockaddr_un.sun_path` less its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// `[daemon]`
#[derive(Debug, Clone)]
pub struct Daemon {
    /// What must outlive a restart: the store, the volumes, the runtimes.
    pub state_dir: PathBuf,
    /// What must not outlive a boot: sockets, locks, sandboxes' bundles.
    pub run_dir: PathBuf,
    pub health_socket: PathBuf,
    /// From the first signal until what still runs is cancelled.
    pub drain_deadline: Duration,
}

impl Daemon {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let state_dir = reader.path("daemon.state_dir");
        let run_dir = reader.path("daemon.run_dir");
        let health_socket = reader.path_or("daemon.health_socket", "daemon.run_dir", &run_dir.join("health.sock"));
        let bytes = health_socket.as_os_str().len();
        if bytes > MAX_SOCKET_PATH {
            let text =
                format!("the path has {bytes} bytes, and a socket's may have {MAX_SOCKET_PATH}; choose a shorter one");
            reader.refuse("daemon.health_socket", &text);
        }
        let drain_deadline = reader.span("daemon.drain_deadline", secs(0)..=secs(HOUR));
        Self {
            state_dir,
            run_dir,
            health_socket,
            drain_deadline,
        }
    }
}
