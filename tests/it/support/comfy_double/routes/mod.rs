//! The HTTP side: one worker thread, which is the event loop that a held lock stops.

mod files;
mod info;
mod jobs;
mod multipart;
mod prompt;
mod queue;
mod ws;

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, ORIGIN};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::web::{Data, PayloadConfig, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::Value;

use crate::server::{Server, Wires};
use crate::{hub, signals};

/// How long a closed WebSocket may keep its connection: aiohttp lets go at once.
const FAREWELL: Duration = Duration::ZERO;

/// Serves until the process ends.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(server: Arc<Server>, wires: Wires, listener: TcpListener) -> std::io::Result<()> {
    let wires = Mutex::new(Some(wires));
    let wires = Arc::new(wires);
    let factory = move || {
        if let Some(wires) = wires.lock().unwrap().take() {
            actix_web::rt::spawn(hub::send_all(Arc::clone(&server), wires.outgoing));
            actix_web::rt::spawn(hub::freeze_all(wires.freezes));
            actix_web::rt::spawn(signals::on_loop(Arc::clone(&server)));
        }
        App::new()
            .app_data(PayloadConfig::new(server.arguments.max_upload))
            .app_data(Data::from(Arc::clone(&server)))
            .wrap(from_fn(at_the_door))
            .wrap(DefaultHeaders::new().add(("Server", "Python/3.11 aiohttp/3.14.5")))
            .service(web::scope("/api").configure(jobs::routes).configure(routes))
            .configure(routes)
    };
    let running =
        HttpServer::new(factory).workers(1).client_disconnect_timeout(FAREWELL).disable_signals().listen(listener)?;
    actix_web::rt::System::new().block_on(running.run())
}

/// All that is there with and without `/api`.
fn routes(service: &mut ServiceConfig) {
    service.configure(info::routes).configure(prompt::routes).configure(queue::routes);
    service.configure(files::routes).configure(ws::routes);
}

/// Refuses foreign origins, and answers 500 where the switch says so.
async fn at_the_door(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let server = request.app_data::<Data<Server>>().expect("the server is shared");
    let answer = if is_broken(server, request.path()) {
        Some(trouble())
    } else if is_foreign(&request) {
        Some(HttpResponse::Forbidden().finish())
    } else {
        None
    };
    match answer {
        Some(answer) => Ok(request.into_response(answer)),
        None => Ok(next.call(request).await?.map_into_boxed_body()),
    }
}

fn is_broken(server: &Server, path: &str) -> bool {
    let Some((prefix, most)) = &server.switches.http_500 else { return false };
    path.starts_with(prefix) && server.broken_answers.fetch_add(1, Ordering::SeqCst) < *most
}

/// A browser's page of another host, while we are on loopback.
fn is_foreign(request: &ServiceRequest) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (header(ORIGIN), header(HOST)) else { return false };
    let bare = |text: &str| text.split("://").last().and_then(|rest| rest.split(':').next()).map(str::to_owned);
    let loopback = host.starts_with("127.") || host.starts_with("localhost");
    loopback && bare(origin) != bare(host)
}

/// What an exception in a handler becomes.
fn trouble() -> HttpResponse {
    HttpResponse::InternalServerError()
        .force_close()
        .content_type("text/plain; charset=utf-8")
        .body("500 Internal Server Error\n\nServer got itself in trouble")
}

fn json(value: &Value) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json; charset=utf-8").body(value.to_string())
}

fn json_with(status: u16, value: &Value) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
    HttpResponse::build(status).content_type("application/json; charset=utf-8").body(value.to_string())
}
