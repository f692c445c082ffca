//! One sandbox's way out: its listener, its account, and the connections that go through it.

use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slog::{Logger, info, warn};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use rustls::ClientConfig;

use super::additions::{Additions, Exchange};
use super::dial::Names;
use super::lock;
use super::metered::Metered;
use super::request::{Way, serve_one};
use crate::domain::egress::{Caps, Destination, EgressPicture, Ledger, Policy, Reach, Refusal};
use crate::ports::credentials::Credentials;

/// After the host could not give a connection: out of descriptors, say.
const BREATH: Duration = Duration::from_millis(100);

/// What went through all gates, since the daemon's start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    allowed: AtomicU64,
    refused: AtomicU64,
    put: AtomicU64,
    withheld: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    pub(super) fn picture(&self, gates: usize, connections: usize, secrets: usize) -> EgressPicture {
        let told = |count: &AtomicU64| count.load(Ordering::Relaxed);
        EgressPicture {
            gates,
            connections,
            allowed: told(&self.allowed),
            refused: told(&self.refused),
            secrets,
            secrets_put: told(&self.put),
            secrets_withheld: told(&self.withheld),
            bytes: told(&self.bytes),
        }
    }
}

/// What all gates share.
pub(super) struct Shared {
    pub names: Arc<dyn Names>,
    /// For servers to which the proxy ends TLS.
    pub tls: Arc<ClientConfig>,
    pub credentials: Arc<dyn Credentials>,
    pub counts: Counts,
}

pub(super) struct Gate {
    listener: StdListener,
    pub(super) policy: Policy,
    pub(super) reach: Reach,
    pub(super) caps: Caps,
    pub(super) additions: Additions,
    pub(super) shared: Arc<Shared>,
    ledger: Mutex<Ledger>,
    closed: watch::Sender<bool>,
    told_of_end: AtomicBool,
    log: Logger,
}

impl Gate {
    pub(super) fn new(
        listener: StdListener,
        policy: Policy,
        reach: Reach,
        caps: Caps,
        additions: Additions,
        shared: Arc<Shared>,
        log: Logger,
    ) -> Self {
        let ledger = Mutex::new(Ledger::new(caps));
        let (closed, told_of_end) = (watch::Sender::new(false), AtomicBool::new(false));
        Self { listener, policy, reach, caps, additions, shared, ledger, closed, told_of_end, log }
    }

    /// Ends `serve` and all that goes through it.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    async fn closed(&self) {
        // The sender lives as long as the gate: this cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(super) fn connections(&self) -> usize {
        lock(&self.ledger).connections()
    }

    /// Serves the gate until it is closed. Dropping this cuts every connection.
    pub(super) async fn serve(self: Arc<Self>) {
        let listener = match self.listener.try_clone().and_then(UnixListener::from_std) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(self.log, "egress.unserved"; "error" => %error);
                sleep(BREATH).await;
                return;
            }
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.closed() => return,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        warn!(self.log, "egress.failed"; "error" => %error);
                    }
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        if let Some(place) = Place::take(&self) {
                            connections.spawn(place.follow(stream));
                        }
                    }
                    Err(_) => sleep(BREATH).await,
                },
            }
        }
    }

    /// Counts a request.
    pub(super) fn ask(&self) -> Result<(), Refusal> {
        lock(&self.ledger).ask()
    }

    pub(super) fn room(&self, wanted: usize) -> usize {
        let room = lock(&self.ledger).room(wanted);
        if room == 0 && wanted > 0 && !self.told_of_end.swap(true, Ordering::Relaxed) {
            self.note(None, Err(Refusal::Bytes));
        }
        room
    }

    pub(super) fn spend(&self, bytes: usize) {
        lock(&self.ledger).spend(bytes);
        self.shared.counts.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Tells the log and the counts of a decision.
    pub(super) fn note(&self, to: Option<&Destination>, verdict: Result<(), Refusal>) {
        let (host, port) = to.map_or(("", 0), |to| (to.host(), to.port()));
        match verdict {
            Ok(()) => {
                self.shared.counts.allowed.fetch_add(1, Ordering::Relaxed);
                info!(self.log, "egress.allowed"; "host" => host, "port" => port);
            }
            Err(refusal) => {
                self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                // A sandbox that asks without end fills no disk.
                if refusal != Refusal::Requests || !self.told_of_end.swap(true, Ordering::Relaxed) {
                    info!(self.log, "egress.refused"; "host" => host, "port" => port, "reason" => refusal.as_str());
                }
            }
        }
    }

    /// Tells the log and the counts of the secrets that were put into a request, and of those that were not.
    pub(super) fn note_exchange(&self, to: &Destination, exchange: &Exchange) {
        for name in exchange.names() {
            self.shared.counts.put.fetch_add(1, Ordering::Relaxed);
            info!(self.log, "egress.secret_put"; "host" => to.host(), "port" => to.port(), "secret" => name.as_str());
        }
        for (name, reason) in &exchange.withheld {
            self.shared.counts.withheld.fetch_add(1, Ordering::Relaxed);
            info!(self.log, "egress.secret_withheld"; "host" => to.host(), "port" => to.port(),
                "secret" => name.as_str(), "reason" => *reason);
        }
    }
}

/// A connection's place in the account, given back when it ends, whatever way.
struct Place(Arc<Gate>);

impl Place {
    fn take(gate: &Arc<Gate>) -> Option<Self> {
        let opened = lock(&gate.ledger).open();
        match opened {
            Ok(()) => Some(Self(Arc::clone(gate))),
            Err(refusal) => {
                // It counts as a request: a flood of connections ends, and so do its lines in the log.
                gate.note(None, Err(gate.ask().err().unwrap_or(refusal)));
                None
            }
        }
    }

    async fn follow(self, stream: UnixStream) {
        let Self(gate) = &self;
        let metered = Metered::new(stream, Arc::clone(gate));
        let moved = metered.moved();
        tokio::select! {
            _ = timeout(gate.caps.lasts, serve_one(metered, Arc::clone(gate), Way::Proxy)) => {}
            () = stalled(&moved, gate.caps.idle) => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.ledger).close();
    }
}

/// Returns when nothing has moved for `idle`, and at the latest for twice as long.
async fn stalled(moved: &AtomicU64, idle: Duration) {
    let mut before = u64::MAX;
    loop {
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
        sleep(idle).await;
    }
}
