//! An image's config: what it is made for, where its program is, and what its layers unpack to.

use serde::Deserialize;

use super::digest::{Digest, DigestError};
use crate::domain::environment::Runtime;

/// Where images that were made by this project's set-up have it, and where else programs lie.
const USUAL: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
/// Entries of PATH that are looked at.
const MOST_PLACES: usize = 32;

/// The config does not fit this host or its manifest.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("its config cannot be read")]
    Json(#[source] serde_json::Error),
    #[error("it is made for {0}, and this host is linux/{1}")]
    Platform(String, String),
    #[error("its config tells of {told} layers, its manifest of {has}")]
    Layers { told: usize, has: usize },
    #[error("its config has a layer's digest that is none")]
    Digest(#[source] DigestError),
}

/// What of it counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Digests of the unpacked layers, the lowest first.
    pub diff_ids: Vec<Digest>,
    /// Its own name for its version.
    pub version: Option<String>,
    path: Vec<String>,
    command: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    architecture: String,
    os: String,
    #[serde(default)]
    config: Option<RawSettings>,
    rootfs: RawRoot,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawSettings {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawRoot {
    diff_ids: Vec<String>,
}

impl ImageConfig {
    /// Reads the config of an image with so many layers, for Linux on `architecture` (as Go names it).
    ///
    /// # Errors
    /// Where it is made for another system, or does not fit its manifest.
    pub fn read(bytes: &[u8], architecture: &str, layers: usize) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        if raw.os != "linux" || raw.architecture != architecture {
            let other: String = format!("{}/{}", raw.os, raw.architecture).chars().take(80).collect();
            return Err(ConfigError::Platform(other, architecture.to_owned()));
        }
        if raw.rootfs.diff_ids.len() != layers {
            return Err(ConfigError::Layers { told: raw.rootfs.diff_ids.len(), has: layers });
        }
        let diff_ids = raw.rootfs.diff_ids.iter().map(|text| text.parse()).collect::<Result<_, _>>();
        let settings = raw.config.unwrap_or_default();
        let env = settings.env.unwrap_or_default();
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        let label = settings.labels.unwrap_or_default().remove("org.opencontainers.image.version");
        Ok(Self {
            diff_ids: diff_ids.map_err(ConfigError::Digest)?,
            version: label.filter(|text| is_version(text)),
            path: path.split(':').filter(|folder| !folder.is_empty()).take(MOST_PLACES).map(str::to_owned).collect(),
            command: [settings.entrypoint, settings.cmd].into_iter().flatten().flatten().collect(),
        })
    }

    /// Where the runtime's program may be, as absolute paths inside the root, the likeliest first: the usual place, what
    /// the image itself starts, its PATH.
    pub fn places(&self, runtime: Runtime) -> Vec<String> {
        let name = runtime.as_str();
        let started = self.command.iter().filter(|word| word.rsplit('/').next() == Some(name)).cloned();
        let in_folder = |folder: &str| format!("{}/{name}", folder.trim_end_matches('/'));
        let usual = USUAL.map(in_folder);
        let mut places: Vec<String> = Vec::new();
        let all = usual.iter().take(1).cloned().chain(started).chain(self.path.iter().map(|folder| in_folder(folder)));
        for place in all.chain(usual.iter().cloned()) {
            if is_place(&place) && !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }
}

/// An absolute path of plain segments, without what would steer a list of paths or a command line.
fn is_place(path: &str) -> bool {
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
    };
    path.len() <= 255 && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}

fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(settings: Value) -> Value {
        let layer = Digest::of_bytes(&[1; 32]).to_string();
        json!({ "architecture": "amd64", "os": "linux", "config": settings, "rootfs": { "type": "layers", "diff_ids": [layer] } })
    }

    fn read(config: &Value) -> Result<ImageConfig, ConfigError> {
        ImageConfig::read(config.to_string().as_bytes(), "amd64", 1)
    }

    #[test]
    fn a_program_is_looked_for_where_the_image_says() {
        let settings = json!({ "Entrypoint": ["/tini", "--", "/opt/deno"], "Cmd": ["deno", "../deno"],
            "Env": ["A=b", "PATH=/usr/local/bin:/a/../b:relative:/x y:/bin/"],
            "Labels": { "org.opencontainers.image.version": "2.1.4" } });
        let read = read(&config(settings)).expect("a config");
        assert_eq!(read.version.as_deref(), Some("2.1.4"));
        assert_eq!(read.places(Runtime::Deno), ["/usr/bin/deno", "/opt/deno", "/usr/local/bin/deno", "/bin/deno"]);
        assert_eq!(read.places(Runtime::Bun), ["/usr/bin/bun", "/usr/local/bin/bun", "/bin/bun"]);
        let bare = super::ImageConfig::read(config(Value::Null).to_string().as_bytes(), "amd64", 1).expect("a config");
        assert_eq!(bare.places(Runtime::Bun).len(), 3);
    }

    #[test]
    fn a_config_fits_this_host_and_its_manifest_or_is_refused() {
        let mut other = config(json!({}));
        other["architecture"] = "arm64".into();
        assert!(matches!(read(&other), Err(ConfigError::Platform(..))));
        let two = ImageConfig::read(config(json!({})).to_string().as_bytes(), "amd64", 2);
        assert!(matches!(two, Err(ConfigError::Layers { told: 1, has: 2 })));
        let mut broken = config(json!({}));
        broken["rootfs"]["diff_ids"][0] = "md5:1".into();
        assert!(matches!(read(&broken), Err(ConfigError::Digest(_))));
        assert!(matches!(read(&json!({})), Err(ConfigError::Json(_))));
    }
}
