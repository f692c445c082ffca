//! SIGTERM and SIGINT drain; a second one hurries. SIGHUP is heard and changes nothing.

use actix::prelude::*;
use slog::{Logger, info, warn};
use tokio::signal::unix::{SignalKind, signal};

use crate::messages::supervisor::Shutdown;

/// Passes the signals on to the Supervisor for as long as the daemon runs.
pub fn forward(supervisor: &Recipient<Shutdown>, log: &Logger) {
    let (supervisor, log) = (supervisor.clone(), log.clone());
    actix::spawn(async move {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let (mut term, mut int, mut hup) = match kinds.map(signal) {
            [Ok(term), Ok(int), Ok(hup)] => (term, int, hup),
            unheard => {
                for error in unheard.into_iter().filter_map(Result::err) {
                    warn!(log, "signals.unheard"; "error" => %error);
                }
                return;
            }
        };
        let mut hurry = false;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hup.recv() => {
                    warn!(log, "signals.hup_ignored"; "hint" => "this version does not reload: restart it instead");
                    continue;
                }
            }
            info!(log, "daemon.draining"; "hurry" => hurry);
            if supervisor.send(Shutdown { hurry }).await.is_err() {
                return;
            }
            hurry = true;
        }
    });
}
