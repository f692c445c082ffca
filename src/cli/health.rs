//! `cloister health`: for HEALTHCHECK lines, exec probes and people.

use clap::Args;

use crate::api::dto::{LiveBody, ReadyBody};
use crate::cli::client::ClientError;
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::socket::{SocketFlags, ask};
use crate::cli::streams::Streams;
use crate::cli::variables::Variables;

/// What to ask.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cloister health --ready && echo takes work
  HEALTHCHECK CMD [\"cloister\", \"health\"]

Exits with 0 for yes and 1 for no, also when nobody answers within 3 s.")]
pub struct HealthFlags {
    /// Ask whether it takes new work, instead of whether it is alive
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    socket: SocketFlags,
}

/// Asks and tells. Anything but a clear yes is a no: probes know two answers only.
pub async fn run(flags: &HealthFlags, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let path = flags.socket.path(variables);
    let route = if flags.ready { "/readyz" } else { "/livez" };
    let (status, text) = match ask(&path, route).await {
        Ok(answer) => answer,
        Err(error) => {
            writeln!(streams.err, "cloister: {error}")?;
            return Ok(exit::FAILED);
        }
    };
    if flags.socket.json {
        writeln!(streams.out, "{text}")?;
        return Ok(if status.is_success() { exit::OK } else { exit::FAILED });
    }
    let Some((good, word, reasons)) = read(flags.ready, &text) else {
        let foreign = ClientError::Foreign {
            at: path.display().to_string(),
            status,
        };
        writeln!(streams.err, "cloister: {foreign}")?;
        return Ok(exit::FAILED);
    };
    let good = good && status.is_success();
    writeln!(streams.out, "{}{word}", if good { "" } else { "not " })?;
    for reason in reasons {
        writeln!(streams.out, "  {}", printable(&reason))?;
    }
    Ok(if good { exit::OK } else { exit::FAILED })
}

fn read(ready: bool, text: &str) -> Option<(bool, &'static str, Vec<String>)> {
    if ready {
        let body: ReadyBody = serde_json::from_str(text).ok()?;
        Some((body.ready, "ready", body.reasons))
    } else {
        let body: LiveBody = serde_json::from_str(text).ok()?;
        Some((body.live, "live", body.reasons))
    }
}
