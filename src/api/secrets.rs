//! Routes of the secrets that the proxy puts into sandboxes' requests. A value goes in here and never comes out.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::api::body::{self, SECRET_BYTES};
use crate::api::dto::SecretBody;
use crate::api::environments::only;
use crate::api::error::ApiError;
use crate::api::{Doors, answer};
use crate::domain::credential::{Credential, CredentialInvalid};
use crate::domain::json::Fields;
use crate::domain::secret::Secret;
use crate::messages::egress::{GetCredentials, PutCredential, RemoveCredential};

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/secrets").get(list).default_service(only("GET")))
        .service(web::resource("/secrets/{name}").put(put).delete(remove).default_service(only("PUT, DELETE")));
}

async fn list(doors: Data<Doors>) -> Result<HttpResponse, ApiError> {
    let secrets = doors.handles.secrets.ask(GetCredentials).await?;
    let bodies: Vec<SecretBody> = secrets.into_iter().map(SecretBody::from).collect();
    Ok(answer::json(StatusCode::OK, &bodies))
}

async fn put(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let body = body::read(request.headers(), payload, SECRET_BYTES, &doors.intake).await?;
    let message = PutCredential { credential: parse(name_in(&request), body.bytes())? };
    drop(body);
    // In a task of its own: a caller who hangs up must not leave the command half told.
    let egress = doors.handles.put_secret.clone();
    let told = actix_web::rt::spawn(async move { egress.ask(message).await });
    let facts = told.await.map_err(|_| ApiError::GivenUp)???;
    Ok(answer::json(StatusCode::OK, &SecretBody::from(facts)))
}

async fn remove(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let name = name_in(&request).parse().map_err(CredentialInvalid::Name)?;
    let egress = doors.handles.remove_secret.clone();
    let told = actix_web::rt::spawn(async move { egress.ask(RemoveCredential { name }).await });
    told.await.map_err(|_| ApiError::GivenUp)???;
    Ok(HttpResponse::NoContent().finish())
}

fn name_in(request: &HttpRequest) -> &str {
    request.match_info().get("name").unwrap_or_default()
}

fn parse(name: &str, bytes: &[u8]) -> Result<Credential, ApiError> {
    let mut fields = Fields::of_body(bytes)?;
    let value: String = fields.read("value", "a string")?.unwrap_or_default();
    let hosts: Vec<String> = fields.read("hosts", "a list of hosts")?.unwrap_or_default();
    Ok(Credential::new(name, &hosts, Secret::from(value))?)
}
