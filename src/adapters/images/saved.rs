//! What `docker save` wrote before version 25, and skopeo's `docker-archive`: turned into an OCI image layout.
//!
//! ```text
//!   manifest.json      [{"Config": "<hex>.json", "Layers": ["<hex>/layer.tar" or "<hex>.tar", …]}]
//! ```
//!
//! Nothing in such an archive names its layers by digest; the config does by what they unpack to, and that is checked when
//! they are. The manifest that is made here is the same each time, and so is its digest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::blobs::{MOST_DOCUMENT, measure};
use super::layout::{BLOBS, INDEX, MARK};

const LIST: &str = "manifest.json";
/// Where its files are kept until they are blobs, their slashes as dashes.
pub(super) const FOLDER: &str = "saved";

/// The archive is none of this kind, or cannot be turned into a layout.
#[derive(Debug, thiserror::Error)]
pub(super) enum SavedError {
    #[error("its manifest.json cannot be read")]
    List(#[source] serde_json::Error),
    #[error("it holds {0} images: save one")]
    Images(usize),
    #[error("its manifest.json names {0:?}, which is not in it")]
    Missing(String),
    #[error("it cannot be laid out")]
    Disk(#[from] io::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// The name that a file of such an archive is kept by. None: it is no part of one.
pub(super) fn kept_as(name: &str) -> Option<String> {
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_layer = name.strip_suffix("/layer.tar").or_else(|| name.strip_suffix(".tar")).is_some_and(is_hex);
    let is_config = name.strip_suffix(".json").is_some_and(is_hex);
    (name == LIST || is_layer || is_config).then(|| name.replace('/', "-"))
}

/// Makes a layout in `dir` of the files in its folder [`FOLDER`]. False where there are none.
///
/// # Errors
/// When they are no image.
pub(super) fn convert(dir: &Path) -> Result<bool, SavedError> {
    let folder = dir.join(FOLDER);
    let Some(list) = document(&folder.join(LIST))? else { return Ok(false) };
    let mut saved: Vec<Saved> = serde_json::from_slice(&list).map_err(SavedError::List)?;
    let images = saved.len();
    let (Some(Saved { config, layers }), 1) = (saved.pop(), images) else {
        return Err(SavedError::Images(images));
    };
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let mut blob = |name: &str, kind: &str| {
        if let Some(descriptor) = known.get(name) {
            return Ok(descriptor.clone());
        }
        let missing = || SavedError::Missing(name.chars().take(80).collect());
        let kept = folder.join(kept_as(name).ok_or_else(missing)?);
        let mut file = File::open(&kept).map_err(|_| missing())?;
        let (size, digest) = measure(&mut file, u64::MAX)?;
        fs::rename(&kept, dir.join(BLOBS).join(digest.hex()))?;
        let media_type = format!("application/vnd.oci.image.{kind}");
        let descriptor = json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
        known.insert(name.to_owned(), descriptor.clone());
        Ok(descriptor)
    };
    let config = blob(&config, "config.v1+json")?;
    let layers = layers.iter().map(|layer| blob(layer, "layer.v1.tar")).collect::<Result<Vec<_>, SavedError>>()?;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let (size, digest) = measure(&mut manifest.as_bytes(), u64::MAX)?;
    fs::write(dir.join(BLOBS).join(digest.hex()), &manifest)?;
    let entry = json!({ "digest": digest.to_string(), "size": size });
    fs::write(dir.join(INDEX), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())?;
    fs::write(dir.join(MARK), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(true)
}

fn document(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(found) if found.len() > MOST_DOCUMENT => Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => fs::read(path).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_such_archives_are_kept_and_flat() {
        let hex = "ab".repeat(32);
        for (name, kept) in [
            ("manifest.json".to_owned(), Some("manifest.json".to_owned())),
            (format!("{hex}.json"), Some(format!("{hex}.json"))),
            (format!("{hex}/layer.tar"), Some(format!("{hex}-layer.tar"))),
            (format!("{hex}.tar"), Some(format!("{hex}.tar"))),
            ("repositories".to_owned(), None),
            (format!("{hex}/VERSION"), None),
            (format!("../{hex}.json"), None),
            (format!("{hex}/../layer.tar"), None),
            (format!("{hex}/{hex}.tar"), None),
        ] {
            assert_eq!(kept_as(&name), kept, "{name}");
        }
    }

    #[test]
    fn what_is_no_single_image_is_told() {
        let hex = "ab".repeat(32);
        for (list, says) in [
            ("{".to_owned(), "cannot be read"),
            ("[]".to_owned(), "0 images"),
            (format!(r#"[{{"Config":"{hex}.json","Layers":[]}},{{"Config":"x","Layers":[]}}]"#), "2 images"),
            (format!(r#"[{{"Config":"{hex}.json","Layers":[]}}]"#), "not in it"),
            (r#"[{"Config":"../../etc/passwd","Layers":[]}]"#.to_owned(), "not in it"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert!(!convert(dir.path()).unwrap());
            fs::create_dir(dir.path().join(FOLDER)).unwrap();
            fs::write(dir.path().join(FOLDER).join(LIST), &list).unwrap();
            let error = convert(dir.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{list}: {error}");
        }
    }
}
