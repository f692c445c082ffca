//! Tenants and tokens, on the health socket, for root and the daemon's own user alone: the kernel tells who asks.
//!
//! ```text
//!   GET /tenants     PATCH|PUT /tenants/{name}     GET /tokens     POST /tokens     DELETE /tokens/{id}
//! ```
//!
//! The socket's group may ask how the daemon is; a token it may not make.

use std::any::Any;
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::dto::tenant::{TenantBody, TokenBody, TokenOrderBody};
use crate::api::environments::only;
use crate::api::error::ApiError;
use crate::api::{Doors, answer, body};
use crate::domain::json::Fields;
use crate::domain::quota::Allowance;
use crate::domain::tenant::{TenantName, TokenId, TokenOrder};
use crate::ports::tenants::NewToken;

/// The largest body.
const BYTES: usize = 16 << 10;

const ALLOWANCE: &str = "an object of environments, concurrency, rate, burst, cpuSeconds and storageMib, each a number";
const ORDER: &str = "an object of tenant, scopes (a list of names) and, if it is to end, livesFor (seconds)";

/// Who is at the other end of a connection.
struct Peer {
    uid: u32,
}

/// Receives a new connection of the socket.
pub fn greet(connection: &dyn Any, data: &mut Extensions) {
    let stream = connection.downcast_ref::<UnixStream>();
    if let Some(peer) = stream.and_then(|stream| stream.peer_cred().ok()) {
        data.insert(Peer { uid: peer.uid() });
    }
}

/// The user that the socket belongs to: the daemon's own.
#[derive(Clone, Copy)]
pub struct Owner(pub u32);

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/tenants").get(tenants).default_service(only("GET")))
        .service(web::resource("/tenants/{name}").patch(set).put(set).default_service(only("PATCH, PUT")))
        .service(web::resource("/tokens").get(tokens).post(make).default_service(only("GET, POST")))
        .service(web::resource("/tokens/{id}").delete(revoke).default_service(only("DELETE")));
}

/// Root, and the user that the daemon runs as.
fn allowed(request: &HttpRequest) -> Result<(), ApiError> {
    let uid = request.conn_data::<Peer>().map(|peer| peer.uid);
    let owner = request.app_data::<Owner>().map(|owner| owner.0);
    if uid.is_some_and(|uid| uid == 0 || Some(uid) == owner) { Ok(()) } else { Err(ApiError::NotTheOwner) }
}

async fn tenants(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    allowed(&request)?;
    let bodies: Vec<TenantBody> = doors.tenants.tenants().await?.into_iter().map(TenantBody::from).collect();
    Ok(told(StatusCode::OK, &bodies))
}

async fn set(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    allowed(&request)?;
    let name = request.match_info().get("name").unwrap_or_default();
    let name: TenantName = name.parse().map_err(ApiError::TenantName)?;
    let given: Allowance = read(&doors, &request, payload, ALLOWANCE).await?;
    let view = doors.tenants.set_tenant(name, given, request.method() == Method::PUT).await?;
    Ok(told(StatusCode::OK, &TenantBody::from(view)))
}

async fn tokens(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    allowed(&request)?;
    let bodies: Vec<TokenBody> = doors.tenants.tokens().into_iter().map(|token| TokenBody::new(token, None)).collect();
    Ok(told(StatusCode::OK, &bodies))
}

async fn make(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    allowed(&request)?;
    let TokenOrderBody { tenant, scopes, lives_for } = read(&doors, &request, payload, ORDER).await?;
    let order = TokenOrder { tenant, scopes, lives: lives_for.map(Duration::from_secs) };
    let NewToken { token, text } = doors.tenants.make_token(order).await?;
    Ok(told(StatusCode::OK, &TokenBody::new(token, Some(text))))
}

async fn revoke(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    allowed(&request)?;
    let id: TokenId = request.match_info().get("id").and_then(|id| id.parse().ok()).ok_or(ApiError::NoToken)?;
    if doors.tenants.revoke_token(&id).await? { Ok(HttpResponse::NoContent().finish()) } else { Err(ApiError::NoToken) }
}

async fn read<T: DeserializeOwned>(
    doors: &Doors,
    request: &HttpRequest,
    payload: Payload,
    expected: &'static str,
) -> Result<T, ApiError> {
    let body = body::read(request.headers(), payload, BYTES, &doors.intake).await?;
    // Depth and equal keys first; what is left is a type.
    Fields::of_body(body.bytes())?;
    serde_json::from_slice(body.bytes()).map_err(|_| ApiError::NotA(expected))
}

fn told<T: serde::Serialize>(status: StatusCode, body: &T) -> HttpResponse {
    let mut response = answer::json(status, body);
    answer::harden(response.headers_mut());
    response
}
