//! The composition root: the only place that knows every concrete type.
//!
//! ```text
//!   config ─► host (directories, lock, limits) ─► adapters ─► doors bound ─► Supervisor ─► children
//!   SIGTERM ─► Supervisor drains children in reverse order ─► doors close ─► store closes ─► exit code
//! ```

mod children;
mod doctor;
mod exit;
mod host;
pub mod http;
mod instances;
mod parts;
mod settings;
mod signals;

use std::sync::Arc;

use actix::prelude::*;
use actix_web::dev::ServerHandle;
use slog::{Logger, error, info, warn};

use crate::actors::supervisor::{Deps, Ended, Supervisor};
use crate::api::{self, Doors, Handles, HealthDoor, SocketFile};
use crate::config::Loaded;
use crate::messages::supervisor::Shutdown;
use crate::ports::clock::Clock;
use crate::telemetry::error_chain;

pub use doctor::doctor;
pub use exit::Exit;
use parts::Parts;
pub use settings::{configuration, load};

/// Runs the daemon until it is told to stop or an essential part gives up.
pub fn serve(loaded: Loaded) -> Exit {
    let (log, _guard) = parts::logger(&loaded.config.log);
    for warning in &loaded.warnings {
        warn!(log, "config.warning"; "warning" => warning);
    }
    let home = match host::prepare(&loaded.config.daemon, &log) {
        Ok(home) => home,
        Err(problem) => {
            error!(log, "host.unusable"; "error" => error_chain(&problem));
            return problem.exit();
        }
    };
    let system = System::new();
    let exit = system.block_on(run(loaded, home, log.clone()));
    info!(log, "daemon.stopped"; "exit_code" => exit.code());
    exit
}

async fn run(loaded: Loaded, home: host::Home, log: Logger) -> Exit {
    let config = loaded.config;
    let parts = match Parts::build(&config, &home, &log).await {
        Ok(parts) => parts,
        Err(problem) => {
            error!(log, "store.unusable"; "error" => error_chain(&problem));
            return Exit::Unavailable;
        }
    };
    let handles = Handles::default();
    let doors = Arc::new(parts.doors(&config, handles.clone()));
    let opened = match open(&doors, &config).await {
        Ok(opened) => opened,
        Err(problem) => {
            error!(log, "door.closed"; "error" => error_chain(&problem));
            parts.dissolve();
            return Exit::Unavailable;
        }
    };
    info!(log, "http.listening"; "address" => %opened.address);
    info!(log, "health.listening"; "socket" => %config.daemon.health_socket.display());
    for warning in &parts.warnings {
        warn!(log, "host.warning"; "warning" => warning);
    }

    let deps = Deps {
        policy: parts::restart_policy(&config),
        beat_every: config.supervision.beat_every,
        clock: Arc::clone(&parts.clock) as Arc<dyn Clock>,
        notifier: Arc::clone(&parts.notifier),
        warnings: parts.warnings.clone(),
        off: children::off(&config),
        log: log.new(slog::o!("actor" => "supervisor")),
        seed: u64::from(std::process::id()) ^ parts.clock.wall().0.unsigned_abs(),
    };
    let (supervisor, ended) = Supervisor::new(deps, children::specs(&parts, &config, &handles));
    let supervisor = supervisor.start();
    handles.health.publish(&supervisor);
    signals::forward(&supervisor.clone().recipient::<Shutdown>(), &log);

    let exit = match ended.await {
        Ok(Ended::Drained { in_time: true }) => Exit::Fine,
        Ok(Ended::Drained { in_time: false }) => {
            warn!(log, "daemon.cut_off"; "after" => ?config.daemon.drain_deadline);
            Exit::Fine
        }
        Ok(Ended::Abandoned) => Exit::Failed,
        Ok(Ended::GaveUp(_)) | Err(_) => Exit::GaveUp,
    };
    opened.close().await;
    parts.store.close().await;
    parts.dissolve();
    exit
}

/// Both doors, serving.
struct Opened {
    address: std::net::SocketAddr,
    http: ServerHandle,
    health: ServerHandle,
    /// Takes the socket away when it is dropped.
    _socket: SocketFile,
}

async fn open(doors: &Arc<Doors>, config: &crate::config::Config) -> Result<Opened, api::DoorError> {
    let HealthDoor { server, file } = api::serve_health(Arc::clone(doors), &config.daemon.health_socket).await?;
    let (http, address) = api::serve_http(Arc::clone(doors), &parts::http_settings(&config.server))?;
    let opened = Opened { address, http: http.handle(), health: server.handle(), _socket: file };
    actix::spawn(http);
    actix::spawn(server);
    Ok(opened)
}

impl Opened {
    /// Lets answers that are being written go out, then closes.
    async fn close(self) {
        self.http.stop(true).await;
        self.health.stop(false).await;
    }
}
