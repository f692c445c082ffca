//! The composition root: the only place that knows every concrete type.
//!
//! ```text
//!   config ─► host (directories, lock, limits) ─► adapters ─► doors bound ─► Supervisor ─► children
//!   SIGTERM ─► Supervisor drains children in reverse order ─► doors close ─► store closes ─► exit code
//! ```

mod children;
mod doctor;
mod egress;
mod exit;
mod gpu;
mod gpu_children;
mod host;
pub mod http;
mod images;
mod instances;
mod parts;
mod secrets;
mod settings;
mod signals;

use std::net::SocketAddr;
use std::sync::Arc;

use actix::prelude::*;
use actix_web::dev::ServerHandle;
use slog::{Logger, error, info, warn};
use zeroize::Zeroizing;

use crate::actors::supervisor::{Deps, Ended, Supervisor};
use crate::api::{self, Doors, HealthDoor, SocketFile};
use crate::config::{self, Loaded};
use crate::messages::supervisor::Shutdown;
use crate::ports::clock::Clock;
use crate::ports::vault::Vault;
use crate::telemetry::error_chain;

pub use doctor::doctor;
pub use exit::Exit;
use gpu_children::GpuHandles;
use parts::Parts;
pub use settings::{configuration, load};

/// Runs the daemon until it is told to stop or an essential part gives up.
pub fn serve(loaded: Loaded) -> Exit {
    // First, while there is no other thread: a secret in the environment can be read from outside.
    let taken = secrets::take();
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
    for problem in &taken.problems {
        warn!(log, "host.secret_in_environment"; "error" => %problem);
    }
    let system = System::new();
    let exit = system.block_on(run(loaded, home, taken.private_key, log.clone()));
    info!(log, "daemon.stopped"; "exit_code" => exit.code());
    exit
}

async fn run(loaded: Loaded, home: host::Home, key: Option<Zeroizing<String>>, log: Logger) -> Exit {
    let config = loaded.config;
    let parts = match Parts::build(&config, &home, &log).await {
        Ok(parts) => parts,
        Err(problem) => {
            error!(log, "store.unusable"; "error" => error_chain(&problem));
            return Exit::Unavailable;
        }
    };
    let gpu = match gpu::GpuParts::build_if_on(&config, &home, &parts, key, &log).await {
        Ok(gpu) => gpu,
        Err(problem) => {
            error!(log, "gpu.unusable"; "error" => error_chain(&problem));
            parts.dissolve();
            return problem.exit();
        }
    };
    if gpu.as_ref().is_some_and(|gpu| gpu.vault.keys().is_empty()) {
        warn!(log, "crypto.no_key"; "effect" => "sealed jobs are refused (no_key)",
            "hint" => "`cloister keygen` makes a key; set WORKER_PRIVATE_KEY_B64, or crypto.private_key_file");
    }
    let (handles, ours) = (gpu_children::handles(gpu.as_ref()), GpuHandles::default());
    let doors = Arc::new(parts.doors(&config, handles.clone(), gpu.as_ref()));
    let opened = match open(&doors, &config).await {
        Ok(opened) => opened,
        Err(problem) => {
            error!(log, "door.closed"; "error" => error_chain(&problem));
            parts.dissolve();
            return Exit::Unavailable;
        }
    };
    match &opened.http {
        Some((_, address)) => info!(log, "http.listening"; "address" => %address),
        None => {
            info!(log, "http.off"; "reason" => "a RunPod worker without BEARER_TOKEN takes its jobs from the platform only")
        }
    }
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
        seed: parts.seed(),
    };
    let mut specs = children::specs(&parts, &config, &handles);
    specs.extend(gpu.iter().flat_map(|gpu| gpu_children::specs(&parts, gpu, &config, &handles, &ours)));
    let (supervisor, ended) = Supervisor::new(deps, specs);
    let supervisor = supervisor.start();
    handles.health.publish(&supervisor);
    ours.abandon.publish(&supervisor);
    signals::forward(&supervisor.clone().recipient::<Shutdown>(), &ours.reload, &handles.check_images, &log);

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
    if let Some(gpu) = gpu {
        gpu.replay.close().await;
    }
    parts.dissolve();
    exit
}

/// Both doors, serving.
struct Opened {
    /// None: nobody could be let in.
    http: Option<(ServerHandle, SocketAddr)>,
    health: ServerHandle,
    /// Takes the socket away when it is dropped.
    _socket: SocketFile,
}

async fn open(doors: &Arc<Doors>, config: &config::Config) -> Result<Opened, api::DoorError> {
    let HealthDoor { server, file } = api::serve_health(Arc::clone(doors), &config.daemon.health_socket).await?;
    let http = if is_open_to_somebody(&config.server) {
        let (http, address) = api::serve_http(Arc::clone(doors), &parts::http_settings(&config.server))?;
        let handle = http.handle();
        actix::spawn(http);
        Some((handle, address))
    } else {
        None
    };
    let opened = Opened { http, health: server.handle(), _socket: file };
    actix::spawn(server);
    Ok(opened)
}

fn is_open_to_somebody(server: &config::Server) -> bool {
    server.disable_bearer_token || !server.bearer_tokens.is_empty()
}

impl Opened {
    /// Lets answers that are being written go out, then closes.
    async fn close(self) {
        if let Some((http, _)) = self.http {
            http.stop(true).await;
        }
        self.health.stop(false).await;
    }
}
