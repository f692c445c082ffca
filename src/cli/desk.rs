//! Tenants and tokens over the daemon's health socket: what both groups of commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::dto::ErrorBody;
use crate::cli::client::{Answer, ClientError};
use crate::cli::printable::printable;
use crate::cli::socket::send;
use crate::cli::variables::Variables;

/// Where the daemon is asked, and how its answer is shown.
#[derive(Debug, Clone, Default, Args)]
pub struct DeskFlags {
    /// The daemon's health socket [default: $CLOISTER_RUN_DIR/health.sock, else /run/cloister/health.sock]
    #[arg(long, value_name = "PATH", global = true, help_heading = "Connection")]
    socket: Option<PathBuf>,
    /// Print the daemon's own JSON
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
}

impl DeskFlags {
    /// The path to ask.
    pub fn path(&self, variables: &Variables) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| variables.health_socket())
    }
}

/// Asks, and reads the answer.
pub async fn ask<T: DeserializeOwned>(
    path: &Path,
    method: Method,
    route: &str,
    body: Option<&impl Serialize>,
) -> anyhow::Result<Answer<T>> {
    let text = tell(path, method, route, body).await?;
    match serde_json::from_str(&text) {
        Ok(body) => Ok(Answer { text, body }),
        Err(_) => Err(ClientError::Foreign { at: path.display().to_string(), status: reqwest::StatusCode::OK }.into()),
    }
}

/// Asks for something whose answer has no body of its own, or is not to be read.
///
/// # Errors
/// Whatever is no success, as the daemon words it.
pub async fn tell(path: &Path, method: Method, route: &str, body: Option<&impl Serialize>) -> anyhow::Result<String> {
    let body = body.map(serde_json::to_string).transpose()?;
    let (status, text) = send(path, method, route, body).await?;
    if status.is_success() {
        return Ok(text);
    }
    Err(match serde_json::from_str::<ErrorBody>(&text) {
        Ok(body) => ClientError::Refused { message: printable(&body.error), code: body.code },
        Err(_) => ClientError::Foreign { at: path.display().to_string(), status },
    }
    .into())
}
