//! The HTTP server: bound first, so that a taken port is an error before anything else is started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{Server, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{App, Error, HttpResponse, HttpServer, web};

use crate::api::error::ApiError;
use crate::api::{Doors, accepted, envelope, environments, executions, jobs, parting, revisions, secrets};

/// Where and how the HTTP door stands.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub address: IpAddr,
    /// 0 takes any free port.
    pub port: u16,
    pub workers: usize,
    /// Connections that each worker holds at once; more wait in the kernel.
    pub connections: usize,
    /// A request whose headers are not whole after this long is answered with 408 and closed.
    pub header_deadline: Duration,
    pub keep_alive: Duration,
    /// How long a stopping server waits for requests in progress, in whole seconds.
    pub stop_within: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            workers: 2,
            connections: 1024,
            header_deadline: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            stop_within: Duration::from_secs(30),
        }
    }
}

/// Why a door cannot be opened. Each means exit 69: something that is needed is not available.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("cannot listen on {address}: choose another port, or stop what is using it")]
    Port {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("another daemon answers on {0}: stop it, or give this one its own run directory")]
    AnotherDaemon(PathBuf),
    #[error("{0} is in the way and is not a socket: move it away")]
    NotASocket(PathBuf),
    #[error("cannot {action} {path}")]
    Socket {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Binds the HTTP door and returns its server, which runs when it is awaited or spawned, and its real address.
///
/// # Errors
/// `Port` when the address cannot be had.
pub fn serve_http(doors: Arc<Doors>, settings: &HttpSettings) -> Result<(Server, SocketAddr), DoorError> {
    let address = SocketAddr::new(settings.address, settings.port);
    let no_port = |source| DoorError::Port { address, source };
    let server = HttpServer::new(move || app(Arc::clone(&doors)))
        .workers(settings.workers)
        .max_connections(settings.connections)
        .client_request_timeout(settings.header_deadline)
        .keep_alive(settings.keep_alive)
        .on_connect(parting::greet)
        // A caller who closes is gone: his call is cancelled at once and not when its answer cannot be written.
        .h1_allow_half_closed(false)
        .shutdown_timeout(settings.stop_within.as_secs())
        .disable_signals()
        .bind(address)
        .map_err(no_port)?;
    let bound = server.addrs().first().copied().unwrap_or(address);
    Ok((server.run(), bound))
}

/// The routes inside their envelope.
pub fn app(
    doors: Arc<Doors>,
) -> App<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>,
> {
    let for_envelope = Arc::clone(&doors);
    App::new()
        .app_data(web::Data::from(doors))
        .configure(environments::routes)
        .configure(revisions::routes)
        .configure(executions::routes)
        .configure(accepted::routes)
        .configure(jobs::routes)
        .configure(secrets::routes)
        .default_service(web::to(no_route))
        .wrap(from_fn(move |request, next| envelope::wrap(Arc::clone(&for_envelope), request, next)))
}

/// The answer to every path that is not known.
pub async fn no_route() -> Result<HttpResponse, ApiError> {
    Err(ApiError::Route)
}
