//! The other end: RunPod's client API, which a Cloister speaks too.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::client::{ClientError, http};
use crate::cli::printable::printable;
use crate::cli::variables::Variables;
use crate::domain::job::JobId;

const RUNPOD: &str = "https://api.runpod.ai/v2";
const CLOISTER: &str = "http://127.0.0.1:8080";
/// The name under which a Cloister's own queue is asked; it takes any.
const LOCAL_ENDPOINT: &str = "local";
/// One question; answers may carry tens of megabytes.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// The most that is read of an answer, and of an object.
const LARGEST_ANSWER: usize = 512 << 20;

/// An endpoint that takes jobs.
pub struct Remote {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    runpod: bool,
}

/// A job's state, as the API tells it.
#[derive(Deserialize)]
pub struct Status {
    pub id: String,
    pub status: String,
    #[serde(default)]
    pub output: Option<Box<RawValue>>,
    /// A text; from other workers also an object.
    #[serde(default)]
    pub error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    details: serde_json::Value,
}

/// What a door calls a job that it does not know. RunPod has no codes; its status says the same.
const UNKNOWN: &str = "not_found";

impl Remote {
    /// RunPod when an endpoint is named, else a Cloister. Connects to nobody yet.
    ///
    /// # Errors
    /// An address that is none, or a token file that cannot be read.
    pub fn new(
        endpoint: Option<&str>,
        url: Option<&str>,
        token_file: Option<&Path>,
        variables: &Variables,
    ) -> anyhow::Result<Self> {
        let endpoint =
            endpoint.map(str::to_owned).or_else(|| variables.get("RP_ENDPOINT_ID").filter(|_| url.is_none()));
        let runpod = endpoint.is_some();
        let base = match &endpoint {
            Some(id) => {
                let api = variables.get("RUNPOD_ENDPOINT_BASE_URL").unwrap_or_else(|| RUNPOD.to_owned());
                format!("{}/{id}", api.trim_end_matches('/'))
            }
            None => {
                let given = url.map(str::to_owned).or_else(|| variables.get("CLOISTER_URL"));
                let at = given.unwrap_or_else(|| CLOISTER.to_owned());
                format!("{}/v2/{LOCAL_ENDPOINT}", at.trim_end_matches('/'))
            }
        };
        let parsed = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if parsed.is_none() {
            return Err(ClientError::Url(base).into());
        }
        let token = match token_file {
            None => variables.get(if runpod { "RP_API_KEY" } else { "BEARER_TOKEN" }),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read the token file {}", path.display()))?;
                Some(text.trim().to_owned())
            }
        };
        let builder = http(&base).connect_timeout(Duration::from_secs(10)).timeout(ANSWER_WITHIN);
        // A proxy is for the way to RunPod; one of the surroundings must not see a Cloister's token.
        let builder = if runpod { builder } else { builder.no_proxy() };
        Ok(Self { http: builder.build()?, base, token, runpod })
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.base
    }

    /// Whether it is RunPod, else a Cloister.
    pub fn is_runpod(&self) -> bool {
        self.runpod
    }

    /// What to do when nobody answers there.
    pub fn remedy(&self) -> &'static str {
        if self.runpod {
            "look whether this host is connected and the endpoint's id is right"
        } else {
            "look whether the daemon runs (`cloister serve`) and has this address (--url, CLOISTER_URL)"
        }
    }

    /// Hands a job in.
    ///
    /// # Errors
    /// When it is not taken, with the reason.
    pub async fn run(&self, body: &str) -> Result<JobId, ClientError> {
        let request = self.http.post(format!("{}/run", self.base)).body(body.to_owned());
        let status = self.ask(request.header("Content-Type", "application/json")).await?;
        status.id.parse().map_err(|_| ClientError::Foreign { at: self.base.clone(), status: StatusCode::OK })
    }

    /// How a job stands.
    ///
    /// # Errors
    /// When the other end cannot be asked, or does not know the job ([`is_unknown`]).
    pub async fn status(&self, job: &JobId) -> Result<Status, ClientError> {
        self.ask(self.http.get(format!("{}/status/{job}", self.base))).await
    }

    /// Reads an object that an answer points to.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn object(&self, url: &str) -> anyhow::Result<Vec<u8>> {
        let at = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let at = at.context("the answer points to an object at an address that is none")?;
        let failed = |error: reqwest::Error| ClientError::of_transport(&error, &at);
        let response = self.http.get(url).send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            anyhow::bail!("{at} answered with {status} when the output was fetched; its link may have expired");
        }
        Ok(read(response, &at).await?)
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Status, ClientError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let failed = |error: reqwest::Error| ClientError::of_transport(&error, &self.base);
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = read(response, &self.base).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| ClientError::Foreign { at: self.base.clone(), status });
        }
        Err(self.refusal(status, &body))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        if status == StatusCode::UNAUTHORIZED {
            let variable = if self.runpod { "RP_API_KEY" } else { "BEARER_TOKEN" };
            return ClientError::Credentials { variable };
        }
        let Ok(Refusal { error, code, details }) = serde_json::from_slice(body) else {
            return ClientError::Foreign { at: self.base.clone(), status };
        };
        let (message, code) = (printable(&error), code.as_deref().map(printable));
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return ClientError::Unable { at: self.base.clone(), status, message, code };
        }
        match (status, details["kid"].as_str(), code) {
            (_, Some(kid), _) => ClientError::OtherKey { message, kid: Some(printable(kid)) },
            (StatusCode::BAD_REQUEST, None, Some(code)) if code == "invalid_ciphertext" => {
                ClientError::OtherKey { message, kid: None }
            }
            (StatusCode::NOT_FOUND, None, None) => ClientError::Refused { message, code: Some(UNKNOWN.to_owned()) },
            (_, None, code) => ClientError::Refused { message, code },
        }
    }
}

/// Whether a refusal means that the job is not known there.
pub fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: Some(code), .. } if code == UNKNOWN)
}

async fn read(mut response: reqwest::Response, at: &str) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ClientError::of_transport(&error, at))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(ClientError::TooLarge { at: at.to_owned(), mib: LARGEST_ANSWER >> 20 });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
