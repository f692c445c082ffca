//! The proxy that sandboxes reach the network by, behind one Unix socket for each sandbox.
//!
//! ```text
//!   sandbox: fetch ─► 127.0.0.1 ─► forwarder ─► <run_dir>/egress/<slot> ─► request ─► dial ─► the network
//!                                               gate.rs: caps               judged    judged by address
//!
//!   in clear          request ─► additions ─► forward ─► the server
//!   CONNECT, tunnel:  the name in TLS ─┬─ nothing is put in for that host ─► carried as it is
//!                                      └─ tls: ended by the sandbox's authority ─► request ─► additions ─► forward ─► tls anew
//! ```
//!
//! One request for each connection, so that each is judged: a redirect comes as a new one. A name is looked up once, and
//! what is connected to is an address of that answer. Of a request, host, port and verdict are logged, and the names of
//! the secrets that it asked for, nothing else.

mod additions;
mod authority;
mod dial;
mod forward;
mod gate;
mod metered;
mod request;
mod tls;
mod tunnel;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rustls::ClientConfig;
use slog::{Logger, warn};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::additions::Additions;
use self::dial::{HostNames, Names};
use self::gate::{Counts, Gate, Shared};
use crate::domain::egress::{Caps, EgressPicture, Reach};
use crate::domain::id::SlotId;
use crate::ports::credentials::Credentials;
use crate::ports::egress::{EgressGates, EgressProxy, GateError, Passage, WayOut, Whose};

/// The end of a certificate's name, beside its slot's socket.
const CERTIFICATE: &str = ".pem";

/// What the proxy is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the sockets lie. Every user must be able to reach it; nobody but root can list it.
    pub dir: PathBuf,
    pub reach: Reach,
    /// For each sandbox.
    pub caps: Caps,
}

/// The gates of this host and the proxy behind them.
pub struct HostEgress {
    settings: Settings,
    shared: Arc<Shared>,
    gates: Mutex<HashMap<SlotId, Arc<Gate>>>,
    /// A gate was opened.
    opened: Notify,
    log: Logger,
}

impl HostEgress {
    /// Nothing is touched before the first gate.
    /// `tls`: what servers are asked by where the proxy ends TLS; whom it trusts, the proxy trusts.
    pub fn new(settings: Settings, tls: ClientConfig, credentials: Arc<dyn Credentials>, log: Logger) -> Self {
        Self::with_names(settings, tls, credentials, Arc::new(HostNames), log)
    }

    fn with_names(
        settings: Settings,
        tls: ClientConfig,
        credentials: Arc<dyn Credentials>,
        names: Arc<dyn Names>,
        log: Logger,
    ) -> Self {
        let shared = Arc::new(Shared { names, tls: tls::to_servers(tls), credentials, counts: Counts::default() });
        Self { settings, shared, gates: Mutex::default(), opened: Notify::new(), log }
    }

    fn path(&self, slot: SlotId) -> PathBuf {
        self.settings.dir.join(slot.to_string())
    }

    /// Where the certificate of a slot's authority lies.
    fn certificate(&self, slot: SlotId) -> PathBuf {
        self.settings.dir.join(format!("{slot}{CERTIFICATE}"))
    }

    fn bind(&self, path: &Path, owner: u32) -> io::Result<UnixListener> {
        if !self.settings.dir.is_dir() {
            DirBuilder::new().recursive(true).create(&self.settings.dir)?;
            // Whatever the umask is: to pass through, not to list.
            fs::set_permissions(&self.settings.dir, Permissions::from_mode(0o711))?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        chown(path, Some(owner), Some(owner))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// The gates that nobody serves yet in this life of the proxy.
    fn unserved(&self, served: &HashMap<tokio::task::Id, SlotId>) -> Vec<(SlotId, Arc<Gate>)> {
        let new = |slot: &SlotId| !served.values().any(|known| known == slot);
        let gates = lock(&self.gates);
        gates.iter().filter(|(slot, _)| new(slot)).map(|(slot, gate)| (*slot, Arc::clone(gate))).collect()
    }
}

impl EgressGates for HostEgress {
    fn open(&self, slot: SlotId, passage: Passage, owner: u32) -> Result<WayOut, GateError> {
        let path = self.path(slot);
        let failed = |source| GateError { doing: "make", path: path.clone(), source };
        let listener = self.bind(&path, owner).map_err(failed)?;
        let authority = self.certificate(slot);
        let policy = passage.policy.clone();
        let Settings { reach, caps, .. } = self.settings.clone();
        let (reach, caps) = match passage.whose {
            Whose::Environment => (reach, caps),
            // An installer asks once for each package.
            Whose::Operator => (Reach::anywhere(), Caps { requests: caps.requests.saturating_mul(10), ..caps }),
        };
        let log = self.log.new(slog::o!("slot" => slot.to_string()));
        let additions = Additions::of(passage, Arc::clone(&self.shared.credentials)).map_err(failed)?;
        let written = additions.pem().map(|pem| write_for_all(&authority, &pem)).transpose();
        let unwritten = |source| GateError { doing: "write", path: authority.clone(), source };
        let authority = written.map_err(unwritten)?.map(|()| authority);
        let gate = Gate::new(listener, policy, reach, caps, additions, Arc::clone(&self.shared), log);
        lock(&self.gates).insert(slot, Arc::new(gate));
        self.opened.notify_one();
        Ok(WayOut { socket: path, authority })
    }

    fn close(&self, slot: SlotId) -> Result<(), GateError> {
        if let Some(gate) = lock(&self.gates).remove(&slot) {
            gate.close();
        }
        for path in [self.certificate(slot), self.path(slot)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(GateError { doing: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn left(&self) -> Result<Vec<SlotId>, GateError> {
        let failed = |source| GateError { doing: "list", path: self.settings.dir.clone(), source };
        let entries = match fs::read_dir(&self.settings.dir) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut left = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let slot = name.to_str().map(|name| name.strip_suffix(CERTIFICATE).unwrap_or(name));
            left.extend(slot.and_then(|name| name.parse::<SlotId>().ok()));
        }
        left.sort_unstable();
        left.dedup();
        Ok(left)
    }
}

#[async_trait]
impl EgressProxy for HostEgress {
    async fn serve(&self) {
        let mut work = JoinSet::new();
        let mut served = HashMap::new();
        loop {
            for (slot, gate) in self.unserved(&served) {
                let task = work.spawn(gate.serve());
                served.insert(task.id(), slot);
            }
            tokio::select! {
                () = self.opened.notified() => {}
                Some(ended) = work.join_next_with_id(), if !work.is_empty() => {
                    // One that panicked is served anew; one that was closed is not there any more.
                    let task = match ended {
                        Ok((task, ())) => task,
                        Err(error) => {
                            warn!(self.log, "egress.failed"; "error" => %error);
                            error.id()
                        }
                    };
                    served.remove(&task);
                }
            }
        }
    }

    fn picture(&self) -> EgressPicture {
        let gates = lock(&self.gates);
        let connections = gates.values().map(|gate| gate.connections()).sum();
        self.shared.counts.picture(gates.len(), connections, self.shared.credentials.list().len())
    }
}

/// Whatever the umask is: the sandbox's user reads it.
fn write_for_all(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o444))
}

/// No code of ours panics between a lock and its release, so that what is behind it is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
