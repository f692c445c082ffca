//! A client of the daemon's HTTP door.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::dto::{
    CallBody, EnvironmentBody, ErrorBody, ExecuteBody, ExecutionBody, ModulesBody, PutSecretBody, SecretBody,
    SetUpBody, TtlBody,
};
use crate::cli::events::EventReader;
use crate::cli::variables::Variables;
use crate::cli::{exit, printable::printable};
use crate::domain::credential::CredentialName;
use crate::domain::id::{EnvironmentId, ExecutionId};

const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// The daemon bounds calls and set-ups itself; this is for one that no longer answers at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// How the daemon is reached.
#[derive(Debug, Clone, Default, Args)]
pub struct Reach {
    /// The daemon's address [default: $CLOISTER_URL, else http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", global = true, help_heading = "Connection")]
    pub url: Option<String>,
    /// File that holds the token [default: $BEARER_TOKEN itself]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    pub token_file: Option<PathBuf>,
    /// Print the daemon's own JSON
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
}

/// Why the daemon did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach {at} ({cause}): is the daemon running? start it with `cloister serve`")]
    Unreachable { at: String, cause: String },
    /// It was reached, and went while it was at work.
    #[error(
        "{at} went away before it had answered ({cause}): what was asked may have been done all the same; look before you ask again"
    )]
    CutOff { at: String, cause: String },
    #[error("{0} did not answer in time: `cloister health` says whether it is alive")]
    Silent(String),
    #[error("the token was refused: set BEARER_TOKEN, or name a file that holds it with --token-file")]
    Token,
    #[error("{message}{}", in_brackets(.message, .code.as_deref()))]
    Refused { message: String, code: Option<String> },
    /// A refusal that may pass: the other end is full, stopping, or has a fault of its own.
    #[error("{at} takes nothing now: {message}{}", in_brackets(.message, .code.as_deref()))]
    Unable { at: String, status: StatusCode, message: String, code: Option<String> },
    #[error("the address {0:?} cannot be used: write it as http://HOST:PORT")]
    Url(String),
    #[error("the token or API key was refused: set {variable}, or name a file that holds it with --token-file")]
    Credentials { variable: &'static str },
    /// `kid`: the current key's, when the other end tells.
    #[error("{message}")]
    OtherKey { message: String, kid: Option<String> },
    #[error("{at} sent more than {mib} MiB")]
    TooLarge { at: String, mib: usize },
    #[error("{at} gave an answer that is not a Cloister's (status {status}): is it another server?")]
    Foreign { at: String, status: StatusCode },
}

impl ClientError {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Unreachable { .. } | ClientError::Silent(_) | ClientError::Unable { .. } => exit::UNAVAILABLE,
            ClientError::CutOff { .. } => exit::NOT_YET,
            ClientError::Url(_) => exit::USAGE,
            ClientError::Credentials { .. } => exit::DENIED,
            ClientError::OtherKey { .. } => exit::PROTOCOL,
            ClientError::Token
            | ClientError::Refused { .. }
            | ClientError::TooLarge { .. }
            | ClientError::Foreign { .. } => exit::FAILED,
        }
    }

    /// Whether asking again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            ClientError::Unreachable { .. }
            | ClientError::CutOff { .. }
            | ClientError::Silent(_)
            | ClientError::Unable { .. } => true,
            ClientError::Foreign { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// Whether what was sent may have been taken all the same.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            ClientError::Unable { status, .. } => {
                !matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            }
            other => other.is_passing(),
        }
    }

    /// Why nobody answered; none when somebody did.
    pub fn cause(&self) -> Option<String> {
        match self {
            ClientError::Unreachable { cause, .. } | ClientError::CutOff { cause, .. } => Some(cause.clone()),
            ClientError::Silent(_) => Some("no answer in time".to_owned()),
            _ => None,
        }
    }

    /// Tells apart what went wrong below HTTP.
    pub fn of_transport(error: &reqwest::Error, at: &str) -> Self {
        if error.is_timeout() && !error.is_connect() {
            return Self::Silent(at.to_owned());
        }
        let mut cause = error.source();
        while let Some(deeper) = cause.and_then(|cause| cause.source()) {
            cause = Some(deeper);
        }
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        let at = at.to_owned();
        if error.is_connect() || error.is_builder() {
            Self::Unreachable { at, cause }
        } else {
            Self::CutOff { at, cause }
        }
    }
}

/// Begins a client for `base`. The host's root certificates are read where that is https, and may be none elsewhere: a bare
/// host has none.
pub fn http(base: &str) -> reqwest::ClientBuilder {
    let mut roots = rustls::RootCertStore::empty();
    if base.starts_with("https:") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = reqwest::Client::builder();
    match rustls::ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions() {
        Ok(versions) => builder.tls_backend_preconfigured(versions.with_root_certificates(roots).with_no_client_auth()),
        // Then the client says so when it is built.
        Err(_) => builder,
    }
}

/// An answer, as it came and as it reads.
pub struct Answer<T> {
    pub text: String,
    pub body: T,
}

/// A call to make, and the key under which it is made once.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub id: EnvironmentId,
    pub body: &'a ExecuteBody,
    pub key: Option<&'a str>,
}

/// Speaks to one daemon.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// Reads address and token; connects to nobody yet.
    pub fn new(reach: &Reach, variables: &Variables) -> anyhow::Result<Self> {
        let url = reach.url.clone().or_else(|| variables.get("CLOISTER_URL")).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let base = checked(&url)?;
        let token = match &reach.token_file {
            None => variables.get("BEARER_TOKEN"),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read the token file {}", path.display()))?;
                Some(text.trim().to_owned())
            }
        };
        // A proxy of the surroundings must not get to see the token.
        let http = http(&base).no_proxy().connect_timeout(Duration::from_secs(5)).timeout(ANSWER_WITHIN);
        Ok(Self { http: http.build()?, base, token })
    }

    pub async fn set_up(&self, body: &SetUpBody) -> anyhow::Result<Answer<EnvironmentBody>> {
        self.ask(Method::POST, "/environments/setup", Some(body)).await
    }

    pub async fn execute(&self, ask: Ask<'_>) -> anyhow::Result<Answer<ExecutionBody>> {
        self.finish(self.execution_request(ask)).await
    }

    /// Asks for a call that is answered later.
    pub async fn execute_later(&self, ask: Ask<'_>) -> anyhow::Result<Answer<CallBody>> {
        self.finish(self.execution_request(ask).header("prefer", "respond-async")).await
    }

    pub async fn executions(&self, environment: Option<EnvironmentId>) -> anyhow::Result<Answer<Vec<CallBody>>> {
        let query = environment.map(|id| format!("?environment={id}")).unwrap_or_default();
        self.ask(Method::GET, &format!("/executions{query}"), None::<&()>).await
    }

    pub async fn execution(&self, id: ExecutionId) -> anyhow::Result<Answer<CallBody>> {
        self.ask(Method::GET, &format!("/executions/{id}"), None::<&()>).await
    }

    pub async fn cancel(&self, id: ExecutionId) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &format!("/executions/{id}"), None::<&()>)).await.map(|_| ())
    }

    fn execution_request(&self, ask: Ask<'_>) -> RequestBuilder {
        let request = self.request(Method::POST, &format!("/environments/{}/execute", ask.id), Some(ask.body));
        match ask.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    /// Calls and follows: each event is handed to `hear` as it comes, its name first. Returns when the stream is over.
    pub async fn follow(
        &self,
        ask: Ask<'_>,
        mut hear: impl FnMut(&str, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let request = self.execution_request(ask).header(ACCEPT, "text/event-stream");
        let failed = |error: reqwest::Error| ClientError::of_transport(&error, &self.base);
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            let text = response.text().await.map_err(failed)?;
            return Err(self.refusal(status, &text).into());
        }
        let mut events = EventReader::default();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            for event in events.push(&piece) {
                hear(&event.name, &event.data)?;
            }
        }
        Ok(())
    }

    pub async fn update(&self, id: EnvironmentId, body: &ModulesBody) -> anyhow::Result<Answer<EnvironmentBody>> {
        self.ask(Method::PUT, &format!("/environments/{id}/modules"), Some(body)).await
    }

    pub async fn clone_of(&self, id: EnvironmentId, body: TtlBody) -> anyhow::Result<Answer<EnvironmentBody>> {
        self.ask(Method::POST, &format!("/environments/{id}/clone"), Some(&body)).await
    }

    pub async fn set_ttl(&self, id: EnvironmentId, body: TtlBody) -> anyhow::Result<Answer<EnvironmentBody>> {
        self.ask(Method::PATCH, &format!("/environments/{id}"), Some(&body)).await
    }

    pub async fn list(&self) -> anyhow::Result<Answer<Vec<EnvironmentBody>>> {
        self.ask(Method::GET, "/environments", None::<&()>).await
    }

    pub async fn show(&self, id: EnvironmentId) -> anyhow::Result<Answer<EnvironmentBody>> {
        self.ask(Method::GET, &format!("/environments/{id}"), None::<&()>).await
    }

    pub async fn delete(&self, id: EnvironmentId) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &format!("/environments/{id}"), None::<&()>)).await.map(|_| ())
    }

    pub async fn put_secret(&self, name: &CredentialName, body: &PutSecretBody) -> anyhow::Result<Answer<SecretBody>> {
        self.ask(Method::PUT, &format!("/secrets/{name}"), Some(body)).await
    }

    pub async fn secrets(&self) -> anyhow::Result<Answer<Vec<SecretBody>>> {
        self.ask(Method::GET, "/secrets", None::<&()>).await
    }

    pub async fn remove_secret(&self, name: &CredentialName) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &format!("/secrets/{name}"), None::<&()>)).await.map(|_| ())
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<Answer<T>> {
        self.finish(self.request(method, path, body)).await
    }

    async fn finish<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<Answer<T>> {
        let (status, text) = self.send(request).await?;
        match serde_json::from_str(&text) {
            Ok(body) => Ok(Answer { text, body }),
            Err(_) => Err(ClientError::Foreign { at: self.base.clone(), status }.into()),
        }
    }

    /// Sends and reads; anything but a success is an error.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<(StatusCode, String)> {
        let failed = |error: reqwest::Error| ClientError::of_transport(&error, &self.base);
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        if status.is_success() { Ok((status, text)) } else { Err(self.refusal(status, &text).into()) }
    }

    fn request<B: Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    fn refusal(&self, status: StatusCode, text: &str) -> ClientError {
        if status == StatusCode::UNAUTHORIZED {
            return ClientError::Token;
        }
        match serde_json::from_str::<ErrorBody>(text) {
            Ok(body) => ClientError::Refused { message: in_words(&body), code: body.code },
            Err(_) => ClientError::Foreign { at: self.base.clone(), status },
        }
    }
}

fn checked(url: &str) -> Result<String, ClientError> {
    let parsed = Url::parse(url).map_err(|_| ClientError::Url(url.to_owned()))?;
    match parsed.scheme() {
        "http" | "https" if parsed.has_host() && parsed.query().is_none() => Ok(url.trim_end_matches('/').to_owned()),
        _ => Err(ClientError::Url(url.to_owned())),
    }
}

/// The code, unless the text begins with it.
fn in_brackets(text: &str, code: Option<&str>) -> String {
    code.filter(|code| !text.starts_with(code)).map(|code| format!(" ({code})")).unwrap_or_default()
}

/// The refusal with the places that its details name.
fn in_words(body: &ErrorBody) -> String {
    let mut text = printable(&body.error);
    for place in body.details.iter().flat_map(|details| details.as_array()).flatten() {
        let word = |name: &str| place[name].as_str().map(printable).unwrap_or_default();
        let line = place["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
        text.push_str(&format!("\n  {}{line}: {}", word("module"), word("message")));
    }
    text
}
