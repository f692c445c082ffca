//! SIGTERM and SIGINT drain; a second one hurries.

use actix::prelude::*;
use slog::{Logger, info, warn};
use tokio::signal::unix::{SignalKind, signal};

use crate::messages::supervisor::Shutdown;

/// Passes the signals on to the Supervisor for as long as the daemon runs.
pub fn forward(supervisor: &Recipient<Shutdown>, log: &Logger) {
    let (supervisor, log) = (supervisor.clone(), log.clone());
    actix::spawn(async move {
        let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(term), Ok(int)) => (term, int),
            (Err(source), _) | (_, Err(source)) => {
                warn!(log, "signals.unheard"; "error" => %source);
                return;
            }
        };
        let mut hurry = false;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            info!(log, "daemon.draining"; "hurry" => hurry);
            if supervisor.send(Shutdown { hurry }).await.is_err() {
                return;
            }
            hurry = true;
        }
    });
}
