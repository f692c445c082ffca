//! `cloister keygen`: a key pair for sealed jobs.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::exit;
use crate::cli::streams::Streams;
use crate::sealed::SecretKey;

const PRIVATE: &str = "WORKER_PRIVATE_KEY_B64";
const PUBLIC: &str = "SERVER_PUBLIC_KEY_B64";

/// What a key takes is less than this, whatever stands around it.
const MOST_BYTES: u64 = 4096;

/// Where the private key goes to or comes from.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cloister keygen --out worker.key        # the public key is printed: it is what clients are given
  cloister keygen --from worker.key       # the same public key again
  cloister keygen >pair.env               # both, as variables: keep that file to yourself

Whoever has the private key can open every job that was ever sealed to it.")]
pub struct KeygenFlags {
    /// Write the private key to this file, readable by its owner only, and print the public one alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if there is one; what was sealed to the key in it can no longer be opened
    #[arg(long, requires = "out")]
    force: bool,
    /// Make no key: show the public one of this private key; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "force"])]
    from: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    kid: String,
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<&'a str>,
}

/// Makes a key, or shows one.
pub fn run(flags: &KeygenFlags, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let key = match &flags.from {
        Some(path) => read(path, streams)?,
        None => SecretKey::generate().context("the kernel gave no random numbers")?,
    };
    let text = key.to_base64();
    if let Some(path) = &flags.out {
        write(path, &text, flags.force)?;
    }
    let public = key.public_key();
    let private = (flags.out.is_none() && flags.from.is_none()).then_some(text.as_str());
    let shown = Shown { kid: public.kid().to_string(), public_key: public.to_base64(), private_key: private };
    if flags.json {
        let line = Zeroizing::new(serde_json::to_string(&shown)?);
        writeln!(streams.out, "{}", *line)?;
        return Ok(exit::OK);
    }
    writeln!(streams.out, "# kid {}", shown.kid)?;
    writeln!(streams.out, "{PUBLIC}={}", shown.public_key)?;
    if let Some(private) = shown.private_key {
        writeln!(streams.out, "{PRIVATE}={private}")?;
    }
    Ok(exit::OK)
}

/// The private key in a file: alone, or on the line that this command printed.
fn read(path: &Path, streams: &mut Streams<'_>) -> anyhow::Result<SecretKey> {
    let shown = if path == Path::new("-") { "stdin".into() } else { path.display().to_string() };
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        streams.input.by_ref().take(MOST_BYTES).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read {shown}"))?;
    let named = text.lines().find_map(|line| line.trim().strip_prefix(PRIVATE)?.strip_prefix('='));
    // What is wrong with it is not told by its text: that may be most of a key.
    SecretKey::from_base64(named.unwrap_or(&text).trim())
        .with_context(|| format!("{shown} holds no private key such as `cloister keygen --out` writes"))
}

/// Writes it whole or not at all; the file is its owner's alone from the first moment on.
fn write(path: &Path, text: &str, replace: bool) -> anyhow::Result<()> {
    let create = |path: &Path| -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    };
    let shown = path.display();
    if !replace {
        return match create(path) {
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{shown} exists already: give another name, or --force to replace the key in it")
            }
            other => other.with_context(|| format!("cannot write {shown}")),
        };
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let replaced = create(&beside).and_then(|()| {
        fs::rename(&beside, path).inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })
    });
    replaced.with_context(|| format!("cannot write {shown}"))
}
