//! `cloister submit`: seals a workflow, sends it, follows it, opens the answer, writes the outputs.
//!
//! ```text
//!   workflow, images ─► Request (sealed) ─► Remote: run ─► Follow: status, progress ─► Reply (opened) ─► Files
//!                          └─► Kept: the one-time key, so that --resume can open the answer later
//! ```

mod files;
mod follow;
mod kept;
mod remote;
mod reply;
mod request;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::cli::variables::Variables;
use crate::domain::job::JobId;
use crate::sealed::PublicKey;

use files::Written;
use follow::{Ended, is_passing};
use kept::Kept;
use remote::Remote;
use reply::Reply;
use request::Request;

/// What to run, where, and what to do with what comes back.
#[derive(Debug, Args)]
pub struct SubmitFlags {
    /// The workflow, as ComfyUI exports it with "Export (API)"; - is stdin
    #[arg(value_name = "WORKFLOW", required_unless_present = "resume")]
    workflow: Option<PathBuf>,
    /// An image that the workflow loads by NAME; repeatable
    #[arg(long = "image", value_name = "NAME=FILE")]
    images: Vec<String>,
    /// Where the outputs are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Overwrite files that exist already
    #[arg(long)]
    force: bool,
    /// Ask for ComfyUI's history entry, and write it as history.json
    #[arg(long)]
    history: bool,
    /// Send and print the job's id; do not wait
    #[arg(long, conflicts_with = "resume")]
    detach: bool,
    /// Go on with a job that was sent before, by its id
    #[arg(long, value_name = "JOB")]
    resume: Option<JobId>,
    /// Give up waiting after so many seconds; the job goes on, and can be resumed
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    wait: u64,
    /// Send it in clear, for a worker with ENCRYPTION_REQUIRED=0
    #[arg(long, conflicts_with = "resume")]
    plain: bool,
    /// The worker's public key in base64 [default: $SERVER_PUBLIC_KEY_B64]
    #[arg(long, value_name = "KEY", help_heading = "Connection")]
    key: Option<String>,
    /// A RunPod endpoint's id [default: $RP_ENDPOINT_ID; the key to it is $RP_API_KEY]
    #[arg(long, value_name = "ID", help_heading = "Connection", conflicts_with = "url")]
    endpoint: Option<String>,
    /// A Cloister's address [default: $CLOISTER_URL, else http://127.0.0.1:8080; its token is $BEARER_TOKEN]
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    url: Option<String>,
    /// File that holds the API key or the token
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    token_file: Option<PathBuf>,
    /// Print one JSON object: the job's id, its status, the files written
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Runs the command. Exits with 0 when the job is done, with 1 when it failed.
pub async fn run(flags: SubmitFlags, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let remote = Remote::new(flags.endpoint.as_deref(), flags.url.as_deref(), flags.token_file.as_deref(), variables)?;
    let kept = match &flags.resume {
        Some(job) => Kept::load(job, variables)?,
        None => send(&flags, &remote, variables, streams).await?,
    };
    if flags.detach {
        return told_detached(&kept, flags.json, streams);
    }
    let waited = follow::follow(&remote, &kept, Duration::from_secs(flags.wait)).await;
    let waited = waited.map_err(|error| {
        // Only what may pass is worth another try.
        if is_passing(&error) { error.context(how_to_go_on(&kept)) } else { error }
    });
    let Some(ended) = waited? else {
        bail!("job {} is not done after {} s; {}", kept.job, flags.wait, how_to_go_on(&kept));
    };
    finish(&flags, &remote, &kept, ended, streams).await
}

async fn send(
    flags: &SubmitFlags,
    remote: &Remote,
    variables: &Variables,
    streams: &mut Streams<'_>,
) -> anyhow::Result<Kept> {
    let request = Request::read(flags.workflow.as_deref(), &flags.images, flags.history, streams)?;
    let sent = if flags.plain { request.in_clear() } else { request.sealed(public_key(flags, variables)?)? };
    // The key is written first: an answer to a request whose key is lost can never be opened.
    let draft = Kept::draft(&sent, variables)?;
    let job = match remote.run(&sent.body).await {
        Ok(job) => job,
        Err(error) => {
            if !is_passing(&error) {
                draft.discard();
            }
            return Err(error);
        }
    };
    let kept = draft.named(job)?;
    if !flags.json && !flags.detach {
        writeln!(streams.err, "job {} is with {}", kept.job, remote.name())?;
    }
    Ok(kept)
}

fn public_key(flags: &SubmitFlags, variables: &Variables) -> anyhow::Result<PublicKey> {
    let given = flags.key.clone().or_else(|| variables.get("SERVER_PUBLIC_KEY_B64"));
    let text = given.context(
        "no public key: set SERVER_PUBLIC_KEY_B64 (or --key) to the worker's, which `cloister keygen` printed on its host",
    )?;
    PublicKey::from_base64(text.trim()).context("the worker's public key (SERVER_PUBLIC_KEY_B64 or --key)")
}

fn how_to_go_on(kept: &Kept) -> String {
    format!("go on with: cloister submit --resume {}", kept.job)
}

fn told_detached(kept: &Kept, json: bool, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    if json {
        writeln!(streams.out, "{}", serde_json::json!({ "id": kept.job, "status": "IN_QUEUE" }))?;
    } else {
        writeln!(streams.out, "{}", kept.job)?;
        writeln!(streams.err, "{}", how_to_go_on(kept))?;
    }
    Ok(exit::OK)
}

async fn finish(
    flags: &SubmitFlags,
    remote: &Remote,
    kept: &Kept,
    ended: Ended,
    streams: &mut Streams<'_>,
) -> anyhow::Result<u8> {
    let opened = match &ended.output {
        Some(output) => Some(Reply::open(output, kept, remote).await?),
        None => None,
    };
    let reply = opened.unwrap_or_default();
    let written = files::write(&flags.out, &reply, flags.force)?;
    let failure = ended.failure(&reply);
    if flags.json {
        let files: Vec<_> = written.iter().map(Written::as_json).collect();
        let body = serde_json::json!({
            "id": kept.job, "status": ended.status, "promptId": reply.prompt_id, "files": files, "error": failure,
            "detail": reply.detail,
        });
        writeln!(streams.out, "{body}")?;
    } else {
        tell(&written, &reply, failure.as_deref(), kept, streams)?;
    }
    kept.forget();
    Ok(if failure.is_none() { exit::OK } else { exit::FAILED })
}

fn tell(
    written: &[Written],
    reply: &Reply,
    failure: Option<&str>,
    kept: &Kept,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    for file in written {
        writeln!(streams.out, "{}", file.path.display())?;
    }
    let Some(failure) = failure else {
        if written.is_empty() {
            writeln!(streams.err, "done; the workflow made no outputs")?;
        }
        return Ok(());
    };
    writeln!(streams.err, "cloister: job {} failed: {}", kept.job, printable(failure))?;
    if let Some(hint) = hint(failure, kept) {
        writeln!(streams.err, "  {hint}")?;
    }
    if !reply.detail.is_null() {
        let detail = serde_json::to_string_pretty(&reply.detail)?;
        writeln!(streams.err, "{}", printable(&detail))?;
    }
    Ok(())
}

/// What to do about a failure that is the caller's to mend.
fn hint(failure: &str, kept: &Kept) -> Option<String> {
    let sealed_to = kept.kid().map_or_else(String::new, |kid| format!(" (kid {kid})"));
    if failure.contains("invalid ciphertext") || failure.contains("unknown kid") {
        return Some(format!(
            "the key is wrong: this was sealed to SERVER_PUBLIC_KEY_B64{sealed_to}, and the worker holds another one; \
             `cloister status` on its host shows its keys"
        ));
    }
    if failure.contains("encryption_required") {
        return Some("leave --plain away, and set SERVER_PUBLIC_KEY_B64".to_owned());
    }
    None
}
