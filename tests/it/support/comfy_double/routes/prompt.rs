//! `POST /prompt`.

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{json as answer, json_with, trouble};
use crate::hub::Outgoing;
use crate::prompt::Prompt;
use crate::queue::Job;
use crate::server::{Server, now_ms};
use crate::validate::{Invalid, Valid, invalid, validate};

/// Keys of `extra_data` that are never shown again.
const SENSITIVE: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

pub fn routes(service: &mut ServiceConfig) {
    service.service(
        web::resource("/prompt")
            .route(web::post().to(post))
            .route(web::get().to(waiting))
            .route(web::method(actix_web::http::Method::OPTIONS).to(HttpResponse::Ok)),
    );
}

async fn waiting(server: Data<Server>) -> impl Responder {
    answer(&json!({"exec_info": {"queue_remaining": server.queue().remaining()}}))
}

/// Why a prompt was not taken.
enum Refusal {
    /// The handler met an exception.
    Trouble,
    Told(Invalid),
}

impl From<Invalid> for Refusal {
    fn from(told: Invalid) -> Self {
        Self::Told(told)
    }
}

async fn post(server: Data<Server>, body: Bytes) -> impl Responder {
    match accept(&server, &body) {
        Ok(taken) => answer(&taken),
        Err(Refusal::Trouble) => trouble(),
        Err(Refusal::Told(Invalid(told))) => {
            if server.switches.log {
                println!("invalid prompt: {told}");
            }
            json_with(StatusCode::BAD_REQUEST.as_u16(), &told)
        }
    }
}

fn accept(server: &Server, body: &[u8]) -> Result<Value, Refusal> {
    let posted: Value = serde_json::from_slice(body).map_err(|_| Refusal::Trouble)?;
    if posted.is_null() || posted.is_number() || posted.is_boolean() {
        return Err(Refusal::Trouble);
    }
    let number = number(server, &posted)?;
    if posted.get("prompt").is_none() {
        let message = "No prompt provided";
        return Err(invalid("no_prompt", message, message, json!({}), json!({})).into());
    }
    let id = prompt_id(&posted["prompt_id"])?;
    #[derive(serde::Deserialize)]
    struct Ordered {
        prompt: Prompt,
    }
    let Ordered { prompt } = serde_json::from_slice(body).map_err(|_| Refusal::Trouble)?;
    let Valid { outputs, node_errors } = validate(server, &prompt)?;
    let taken = json!({"prompt_id": id, "number": number, "node_errors": node_errors});
    let extra_data = extra_data(&posted);
    let job = Job { number, id, prompt, posted: posted["prompt"].clone(), extra_data, outputs };
    let mut queue = server.queue();
    if !queue.put(job) {
        return Err(Refusal::Trouble);
    }
    server.send(Outgoing::status(queue.remaining()));
    drop(queue);
    server.wake();
    Ok(taken)
}

/// The client's own number as a float, or the next one, negative for the front.
fn number(server: &Server, posted: &Value) -> Result<Value, Refusal> {
    if let Some(own) = posted.get("number") {
        return own.as_f64().map(|own| json!(own)).ok_or(Refusal::Trouble);
    }
    let mut queue = server.queue();
    let next = queue.next;
    queue.next += 1;
    Ok(json!(if posted["front"] == true { -next } else { next }))
}

fn prompt_id(wanted: &Value) -> Result<String, Invalid> {
    let is_canonical = |text: &&str| Uuid::try_parse(text).is_ok_and(|id| id.to_string() == **text);
    match wanted {
        Value::Null => Ok(Uuid::new_v4().to_string()),
        wanted => wanted.as_str().filter(is_canonical).map(str::to_owned).ok_or_else(|| {
            let details = "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the \
                           server generate one";
            invalid("invalid_prompt_id", "prompt_id must be a valid UUID", details, json!({}), json!({}))
        }),
    }
}

fn extra_data(posted: &Value) -> Value {
    let mut data = posted["extra_data"].as_object().cloned().unwrap_or_default();
    data.retain(|key, _| !SENSITIVE.contains(&key.as_str()));
    if let Some(client_id) = posted.get("client_id") {
        data.insert("client_id".to_owned(), client_id.clone());
    }
    data.insert("create_time".to_owned(), json!(now_ms()));
    Value::Object(data)
}
