//! What is kept of a job until its answer is opened: its id and the one-time key, in a file for this user only.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::request::Sent;
use crate::cli::variables::Variables;
use crate::domain::envelope::Kid;
use crate::domain::job::JobId;
use crate::sealed::{BoxKey, Epk, PublicKey, SecretKey};

/// A job that was sent, and how its answer opens.
pub struct Kept {
    pub job: JobId,
    pub request_id: Uuid,
    keys: Option<(BoxKey, PublicKey)>,
    /// Where it was sent; none when that was not kept.
    sent_to: Option<String>,
    path: PathBuf,
}

/// A request that has no job's id yet.
pub struct Draft {
    request_id: Uuid,
    keys: Option<(BoxKey, PublicKey)>,
    sent_to: String,
    path: PathBuf,
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    request_id: Uuid,
    /// Base64; none for a request in clear.
    one_time_private_key: Option<String>,
    server_public_key: Option<String>,
    #[serde(default)]
    sent_to: Option<String>,
}

impl Kept {
    /// Writes what a request's answer will need, before the request is sent to `sent_to`.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn draft(sent: &Sent, sent_to: &str, variables: &Variables) -> anyhow::Result<Draft> {
        let folder = folder(variables)?;
        let path = folder.join(format!(".unsent-{}.json", sent.request_id));
        let record = Record {
            version: 1,
            request_id: sent.request_id,
            one_time_private_key: sent.keys.as_ref().map(|keys| (*keys.one_time.to_base64()).clone()),
            server_public_key: sent.keys.as_ref().map(|keys| keys.server.to_base64()),
            sent_to: Some(sent_to.to_owned()),
        };
        let written = write(&path, &record);
        written.with_context(|| format!("cannot keep the job's key in {}", path.display()))?;
        let keys = record.opened()?;
        Ok(Draft { request_id: sent.request_id, keys, sent_to: sent_to.to_owned(), path, folder })
    }

    /// What was kept of a job that was sent earlier.
    ///
    /// # Errors
    /// When nothing was, or it cannot be read.
    pub fn load(job: &JobId, variables: &Variables) -> anyhow::Result<Self> {
        let path = folder(variables)?.join(format!("{job}.json"));
        let text = fs::read_to_string(&path).map(Zeroizing::new).with_context(|| {
            format!(
                "nothing is kept of job {job} at {}: only the user and the host that sent it can open its answer, \
                     once",
                path.display()
            )
        })?;
        let record: Record = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let keys = record.opened()?;
        Ok(Self { job: job.clone(), request_id: record.request_id, keys, sent_to: record.sent_to, path })
    }

    /// The key of the box; none for a request in clear.
    pub fn box_key(&self) -> Option<&BoxKey> {
        self.keys.as_ref().map(|(key, _)| key)
    }

    /// Names the key that the request was sealed to.
    pub fn kid(&self) -> Option<Kid> {
        self.keys.as_ref().map(|(_, server)| server.kid())
    }

    /// Where it was sent; none when that was not kept.
    pub fn sent_to(&self) -> Option<&str> {
        self.sent_to.as_deref()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The answer is open, or there is none: the key is of no more use.
    pub fn forget(&self) {
        // What stays behind opens an answer that its owner has already.
        let _ = fs::remove_file(&self.path);
    }
}

impl Draft {
    /// Names the key that the request is sealed to.
    pub fn kid(&self) -> Option<Kid> {
        self.keys.as_ref().map(|(_, server)| server.kid())
    }

    /// The request was refused: its key opens nothing.
    pub fn discard(self) {
        // What stays behind is a key without a lock.
        let _ = fs::remove_file(&self.path);
    }

    /// The request has become a job.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    pub fn named(self, job: JobId) -> anyhow::Result<Kept> {
        let path = self.folder.join(format!("{job}.json"));
        fs::rename(&self.path, &path).with_context(|| format!("cannot keep the job's key in {}", path.display()))?;
        Ok(Kept { job, request_id: self.request_id, keys: self.keys, sent_to: Some(self.sent_to), path })
    }
}

impl Record {
    fn opened(&self) -> anyhow::Result<Option<(BoxKey, PublicKey)>> {
        let (Some(private), Some(public)) = (&self.one_time_private_key, &self.server_public_key) else {
            return Ok(None);
        };
        let server = PublicKey::from_base64(public)?;
        let key = SecretKey::from_base64(private)?.agree(&Epk::admit(*server.as_bytes())?)?;
        Ok(Some((key, server)))
    }
}

fn folder(variables: &Variables) -> anyhow::Result<PathBuf> {
    let home = || variables.get("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = variables.get("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let folder = state.context("neither XDG_STATE_HOME nor HOME is set: there is no place for a job's key")?;
    let folder = folder.join("cloister/jobs");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn write(path: &Path, record: &Record) -> anyhow::Result<()> {
    let text = Zeroizing::new(serde_json::to_string(record)?);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}
