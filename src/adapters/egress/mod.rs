//! The proxy that sandboxes reach the network by, behind one Unix socket for each sandbox.
//!
//! ```text
//!   sandbox: fetch ─► 127.0.0.1 ─► forwarder ─► <run_dir>/egress/<slot> ─► request ─► dial ─► the network
//!                                               gate.rs: caps               judged    judged by address
//! ```
//!
//! One request for each connection, so that each is judged: a redirect comes as a new one. A name is looked up once, and
//! what is connected to is an address of that answer. Of a request, host, port and verdict are logged, nothing else.

mod dial;
mod gate;
mod metered;
mod request;
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
use slog::{Logger, warn};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::dial::{HostNames, Names};
use self::gate::{Counts, Gate};
use crate::domain::egress::{Caps, EgressPicture, Policy, Reach};
use crate::domain::id::SlotId;
use crate::ports::egress::{EgressGates, EgressProxy, GateError, Whose};

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
    names: Arc<dyn Names>,
    counts: Arc<Counts>,
    gates: Mutex<HashMap<SlotId, Arc<Gate>>>,
    /// A gate was opened.
    opened: Notify,
    log: Logger,
}

impl HostEgress {
    /// Nothing is touched before the first gate.
    pub fn new(settings: Settings, log: Logger) -> Self {
        Self::with_names(settings, Arc::new(HostNames), log)
    }

    fn with_names(settings: Settings, names: Arc<dyn Names>, log: Logger) -> Self {
        Self { settings, names, counts: Arc::default(), gates: Mutex::default(), opened: Notify::new(), log }
    }

    fn path(&self, slot: SlotId) -> PathBuf {
        self.settings.dir.join(slot.to_string())
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
    fn open(&self, slot: SlotId, policy: Policy, whose: Whose, owner: u32) -> Result<PathBuf, GateError> {
        let path = self.path(slot);
        let failed = |source| GateError { doing: "make", path: path.clone(), source };
        let listener = self.bind(&path, owner).map_err(failed)?;
        let Settings { reach, caps, .. } = self.settings.clone();
        let (reach, caps) = match whose {
            Whose::Environment => (reach, caps),
            // An installer asks once for each package.
            Whose::Operator => (Reach::anywhere(), Caps { requests: caps.requests.saturating_mul(10), ..caps }),
        };
        let log = self.log.new(slog::o!("slot" => slot.to_string()));
        let gate = Gate::new(listener, policy, reach, caps, Arc::clone(&self.names), Arc::clone(&self.counts), log);
        lock(&self.gates).insert(slot, Arc::new(gate));
        self.opened.notify_one();
        Ok(path)
    }

    fn close(&self, slot: SlotId) -> Result<(), GateError> {
        if let Some(gate) = lock(&self.gates).remove(&slot) {
            gate.close();
        }
        let path = self.path(slot);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(GateError { doing: "remove", path, source }),
            _ => Ok(()),
        }
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
            left.extend(name.to_str().and_then(|name| name.parse::<SlotId>().ok()));
        }
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
        self.counts.picture(gates.len(), connections)
    }
}

/// No code of ours panics between a lock and its release, so that what is behind it is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
