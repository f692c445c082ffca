//! `cloister submit`: seals a workflow, sends it, follows it, opens the answer, writes the outputs.
//!
//! ```text
//!   workflow, images ─► Request (sealed) ─► Remote: run ─► Follow: status, progress ─► Reply (opened) ─► Files
//!                          └─► Kept: the one-time key, so that --resume can open the answer later
//! ```

mod error;
mod files;
mod follow;
mod kept;
mod remote;
mod reply;
mod request;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::cli::client::ClientError;
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::cli::variables::Variables;
use crate::domain::job::JobId;
use crate::sealed::PublicKey;

pub use error::SubmitError;
use error::{Key, how_to_go_on, wrong_key};
use files::Written;
use follow::Ended;
use kept::Kept;
use remote::{Remote, is_unknown};
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
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
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

/// Runs the command. Exits with 0 when the job is done, with 1 when it failed; the other codes are the errors' own.
pub async fn run(flags: SubmitFlags, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let remote = Remote::new(flags.endpoint.as_deref(), flags.url.as_deref(), flags.token_file.as_deref(), variables);
    let remote = remote.map_err(usage)?;
    let kept = match &flags.resume {
        Some(job) => Kept::load(job, variables).map_err(SubmitError::Usage)?,
        None => send(&flags, &remote, variables, streams).await?,
    };
    if flags.detach {
        return told_detached(&kept, flags.json, streams);
    }
    match follow::follow(&remote, &kept, Duration::from_secs(flags.wait)).await {
        Ok(Some(ended)) => finish(&flags, &remote, &kept, ended, streams).await,
        Ok(None) => Err(SubmitError::NotYet { job: kept.job, seconds: flags.wait }.into()),
        Err(error) if is_unknown(&error) => Err(forgotten(&remote, kept).into()),
        Err(refusal) if refusal.is_passing() && refusal.cause().is_none() => {
            Err(SubmitError::Unserved { refusal, job: kept.job }.into())
        }
        Err(error) => Err(unreachable(&remote, error, Some(kept.job))),
    }
}

async fn send(
    flags: &SubmitFlags,
    remote: &Remote,
    variables: &Variables,
    streams: &mut Streams<'_>,
) -> anyhow::Result<Kept> {
    let request = Request::read(flags.workflow.as_deref(), &flags.images, flags.history, streams);
    let request = request.map_err(SubmitError::Usage)?;
    for name in request.unloaded() {
        writeln!(streams.err, "warning: no node of the workflow loads {name:?}, which --image brings")?;
    }
    let sent = if flags.plain {
        request.in_clear()
    } else {
        request.sealed(public_key(flags, variables).map_err(SubmitError::Usage)?)?
    };
    // The key is written first: an answer to a request whose key is lost can never be opened.
    let draft = Kept::draft(&sent, remote.name(), variables)?;
    let job = match remote.run(&sent.body).await {
        Ok(job) => job,
        Err(error) => {
            let sealed_to = draft.kid();
            if !error.leaves_doubt() {
                draft.discard();
            }
            return Err(match error {
                ClientError::OtherKey { message: said, kid: current } => {
                    SubmitError::WrongKey { said, sealed_to, current }.into()
                }
                error => unreachable(remote, error, None),
            });
        }
    };
    let kept = draft.named(job)?;
    if !flags.json && !flags.detach {
        writeln!(streams.err, "job {} is with {}", kept.job, remote.name())?;
    }
    Ok(kept)
}

/// What cannot be used is wrong usage, unless it says otherwise itself.
fn usage(error: anyhow::Error) -> anyhow::Error {
    if error.is::<ClientError>() { error } else { SubmitError::Usage(error).into() }
}

/// Says whom nobody answered for; other errors speak for themselves.
fn unreachable(remote: &Remote, error: ClientError, job: Option<JobId>) -> anyhow::Error {
    match error.cause() {
        None => error.into(),
        Some(cause) => {
            let (at, remedy) = (remote.name().to_owned(), remote.remedy());
            SubmitError::Unreachable { at, cause, remedy, job }.into()
        }
    }
}

/// A job that is not known. A Cloister that had it has lost it for good; of RunPod, and of another one than it was sent
/// to, that cannot be said.
fn forgotten(remote: &Remote, kept: Kept) -> SubmitError {
    let lost = !remote.is_runpod() && kept.sent_to() == Some(remote.name());
    let key = if lost {
        kept.forget();
        Key::Removed
    } else {
        Key::Stays { path: kept.path().to_owned(), sent_to: kept.sent_to().map(str::to_owned) }
    };
    SubmitError::Forgotten { at: remote.name().to_owned(), job: kept.job, key }
}

fn public_key(flags: &SubmitFlags, variables: &Variables) -> anyhow::Result<PublicKey> {
    let given = flags.key.clone().or_else(|| variables.get("SERVER_PUBLIC_KEY_B64"));
    let text = given.context(
        "no public key: set SERVER_PUBLIC_KEY_B64 (or --key) to the worker's, which `cloister keygen` printed on its host",
    )?;
    PublicKey::from_base64(text.trim()).context("the worker's public key (SERVER_PUBLIC_KEY_B64 or --key)")
}

fn told_detached(kept: &Kept, json: bool, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    if json {
        writeln!(streams.out, "{}", serde_json::json!({ "id": kept.job, "status": "IN_QUEUE" }))?;
    } else {
        writeln!(streams.out, "{}", kept.job)?;
        writeln!(streams.err, "{}", how_to_go_on(&kept.job))?;
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
            "detail": reply.detail, "dryRun": reply.is_dry(),
        });
        writeln!(streams.out, "{body}")?;
    } else {
        tell(&written, &reply, failure.as_deref().map(|failure| (&ended, failure)), kept, streams)?;
    }
    kept.forget();
    Ok(match &failure {
        None => exit::OK,
        Some(failure) if is_wrong_key(failure) => exit::PROTOCOL,
        Some(_) => exit::FAILED,
    })
}

fn tell(
    written: &[Written],
    reply: &Reply,
    failure: Option<(&Ended, &str)>,
    kept: &Kept,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    for file in written {
        writeln!(streams.out, "{}", file.path.display())?;
    }
    let Some((ended, failure)) = failure else {
        if reply.is_dry() {
            writeln!(streams.err, "nothing was run: the worker answers every job as if it were done (DRY_RUN)")?;
        } else if written.is_empty() {
            writeln!(streams.err, "done; the workflow made no outputs")?;
        }
        return Ok(());
    };
    writeln!(streams.err, "cloister: {}", ended.in_words(&kept.job, failure))?;
    if let Some(hint) = hint(failure, kept) {
        writeln!(streams.err, "  {hint}")?;
    }
    if !reply.detail.is_null() {
        let detail = serde_json::to_string_pretty(&reply.detail)?;
        writeln!(streams.err, "{}", printable(&detail))?;
    }
    Ok(())
}

/// Whether the worker could not open the request. The texts are v1's.
fn is_wrong_key(failure: &str) -> bool {
    failure.contains("invalid ciphertext") || failure.contains("unknown kid")
}

/// What to do about a failure that is the caller's to mend.
fn hint(failure: &str, kept: &Kept) -> Option<String> {
    if is_wrong_key(failure) {
        // The worker tells its key's name at the end of the line, in sixteen digits.
        let told = failure.split_once("current key is ").map(|(_, kid)| kid);
        let current = told.and_then(|kid| kid.get(..16)).filter(|kid| kid.bytes().all(|byte| byte.is_ascii_hexdigit()));
        return Some(wrong_key(kept.kid(), current));
    }
    if failure.contains("encryption_required") {
        return Some("leave --plain away, and set SERVER_PUBLIC_KEY_B64".to_owned());
    }
    None
}
