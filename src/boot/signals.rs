//! SIGTERM and SIGINT drain; a second one hurries. SIGHUP reads the keys of sealed jobs anew and looks for the runtimes'
//! images again, and nothing else.

use actix::prelude::*;
use slog::{Logger, info, warn};
use tokio::signal::unix::{SignalKind, signal};

use crate::messages::crypto::ReloadKeys;
use crate::messages::handle::Handle;
use crate::messages::images::CheckImages;
use crate::messages::supervisor::Shutdown;

/// Passes the signals on to the Supervisor for as long as the daemon runs.
pub fn forward(
    supervisor: &Recipient<Shutdown>,
    reload: &Handle<ReloadKeys>,
    images: &Handle<CheckImages>,
    log: &Logger,
) {
    let (supervisor, reload, images, log) = (supervisor.clone(), reload.clone(), images.clone(), log.clone());
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
                    info!(log, "signals.hup"; "hint" => "the keys of sealed jobs are read anew and images are looked for again; for the rest restart the daemon");
                    reload.tell(ReloadKeys);
                    images.tell(CheckImages);
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
