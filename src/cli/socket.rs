//! A client of the daemon's health socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};

use crate::cli::client::ClientError;
use crate::cli::variables::Variables;

/// A probe that takes longer has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Where the health socket is.
#[derive(Debug, Clone, Default, Args)]
pub struct SocketFlags {
    /// The daemon's health socket [default: $CLOISTER_RUN_DIR/health.sock, else /run/cloister/health.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print the daemon's own JSON
    #[arg(long)]
    pub json: bool,
}

impl SocketFlags {
    /// The path to ask.
    pub fn path(&self, variables: &Variables) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| variables.health_socket())
    }
}

/// Asks one route, and gives status and body whatever they are.
pub async fn ask(path: &Path, route: &str) -> Result<(StatusCode, String), ClientError> {
    send(path, Method::GET, route, None).await
}

/// Asks one route with a JSON body, and gives status and body whatever they are.
pub async fn send(
    path: &Path,
    method: Method,
    route: &str,
    body: Option<String>,
) -> Result<(StatusCode, String), ClientError> {
    let at = path.display().to_string();
    let failed = |error: reqwest::Error| ClientError::of_transport(&error, &at);
    let client = crate::cli::client::http("http:").no_proxy().unix_socket(path).timeout(ANSWER_WITHIN);
    let client = client.build().map_err(failed)?;
    let mut request = client.request(method, format!("http://localhost{route}"));
    if let Some(body) = body {
        request = request.header(CONTENT_TYPE, "application/json").body(body);
    }
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    Ok((status, response.text().await.map_err(failed)?))
}
