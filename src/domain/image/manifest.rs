//! Indexes and manifests (OCI image specification 1.1, and Docker's second schema, which has the same shape).

use serde::Deserialize;

use super::digest::{Digest, DigestError};

/// Layers of one image: more than any builder stacks.
const MOST_LAYERS: usize = 127;

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// What a registry or a layout holds no image for.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is no manifest")]
    Json(#[source] serde_json::Error),
    #[error("it is neither an index nor a manifest of an image: its type is {0:?}")]
    Kind(String),
    #[error("it names something by a digest that is none")]
    Digest(#[source] DigestError),
    #[error("it has {0} layers: 1 to {MOST_LAYERS} are allowed")]
    Layers(usize),
    #[error("it has a layer of the type {0:?}, which is not known")]
    LayerKind(String),
    #[error("it has no image for linux/{wanted}: there are {offered}")]
    Platform { wanted: String, offered: String },
}

/// What an index or a manifest points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// None where it was not said.
    pub platform: Option<Platform>,
}

/// A system that an image runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    pub variant: Option<String>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    /// The lowest first.
    pub layers: Vec<Descriptor>,
}

/// What stands under a digest or a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Images for several systems.
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    media_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Document {
    /// All types that this can read, for a registry to choose from.
    pub fn accepted() -> String {
        [INDEXES, MANIFESTS].concat().join(", ")
    }

    /// Reads an index or a manifest. What the document says of its own type must fit its shape.
    ///
    /// # Errors
    /// What it is instead.
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let raw: RawDocument = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        let says = |known: &[&str]| raw.media_type.as_deref().is_none_or(|told| known.contains(&told));
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) if says(&INDEXES) => {
                let usable = |raw: &RawDescriptor| {
                    raw.media_type.is_empty() || [INDEXES, MANIFESTS].concat().contains(&raw.media_type.as_str())
                };
                let manifests = manifests.into_iter().filter(usable).map(descriptor).collect::<Result<_, _>>()?;
                Ok(Self::Index(manifests))
            }
            (None, Some(config), Some(layers)) if says(&MANIFESTS) => {
                if layers.is_empty() || layers.len() > MOST_LAYERS {
                    return Err(ManifestError::Layers(layers.len()));
                }
                if let Some(unknown) = layers.iter().find(|layer| !LAYERS.contains(&layer.media_type.as_str())) {
                    return Err(ManifestError::LayerKind(shown(&unknown.media_type)));
                }
                let layers = layers.into_iter().map(descriptor).collect::<Result<_, _>>()?;
                Ok(Self::Manifest(Manifest { config: descriptor(config)?, layers }))
            }
            _ => Err(ManifestError::Kind(shown(&raw.media_type.unwrap_or_default()))),
        }
    }
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor, ManifestError> {
    let digest = raw.digest.parse().map_err(ManifestError::Digest)?;
    let platform = raw.platform.map(|RawPlatform { os, architecture, variant }| Platform { os, architecture, variant });
    Ok(Descriptor { digest, size: raw.size, platform })
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The image for Linux on `architecture` (as Go names it). Where an index says no system at all, its only image is it: its
/// own config is checked later.
///
/// # Errors
/// `Platform`, with what is there instead.
pub fn choose<'a>(offered: &'a [Descriptor], architecture: &str) -> Result<&'a Descriptor, ManifestError> {
    // An image for a later generation of processors may not run here.
    let fits = |platform: &Platform| {
        let variant = platform.variant.as_deref().unwrap_or_default();
        platform.os == "linux"
            && platform.architecture == architecture
            && matches!((architecture, variant), (_, "") | ("amd64", "v1") | ("arm64", "v8"))
    };
    let named = offered.iter().find(|descriptor| descriptor.platform.as_ref().is_some_and(fits));
    match (named, offered) {
        (Some(descriptor), _) => Ok(descriptor),
        (None, [only]) if only.platform.is_none() => Ok(only),
        (None, _) => {
            let name = |descriptor: &Descriptor| match &descriptor.platform {
                Some(Platform { os, architecture, variant: None }) => format!("{os}/{architecture}"),
                Some(Platform { os, architecture, variant: Some(variant) }) => format!("{os}/{architecture}/{variant}"),
                None => "one of an unnamed system".to_owned(),
            };
            let names: Vec<String> = offered.iter().map(name).take(16).collect();
            let offered = if names.is_empty() { "none".to_owned() } else { shown(&names.join(", ")) };
            Err(ManifestError::Platform { wanted: architecture.to_owned(), offered })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest(fill: u8) -> String {
        Digest::of_bytes(&[fill; 32]).to_string()
    }

    fn of(fill: u8, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": digest(fill), "size": 7 })
    }

    fn on(fill: u8, os: &str, architecture: &str, variant: Option<&str>) -> Value {
        let mut entry = of(fill, MANIFESTS[0]);
        entry["platform"] = json!({ "os": os, "architecture": architecture, "variant": variant });
        entry
    }

    fn read(document: &Value) -> Result<Document, ManifestError> {
        Document::read(document.to_string().as_bytes())
    }

    fn index(entries: Value) -> Vec<Descriptor> {
        match read(&json!({ "schemaVersion": 2, "mediaType": INDEXES[0], "manifests": entries })) {
            Ok(Document::Index(found)) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_image_of_this_hosts_processor_is_chosen() {
        let found = index(json!([
            on(1, "linux", "arm64", Some("v8")),
            on(2, "windows", "amd64", None),
            on(3, "linux", "amd64", Some("v3")),
            on(4, "linux", "amd64", None),
            on(5, "unknown", "unknown", None),
            of(6, "application/vnd.example.signature"),
        ]));
        assert_eq!(found.len(), 5, "what is no image is left out");
        let chosen = |architecture| choose(&found, architecture).map(|chosen| chosen.digest.to_string()).ok();
        assert_eq!((chosen("amd64"), chosen("arm64")), (Some(digest(4)), Some(digest(1))));
        let error = choose(&found, "riscv64").expect_err("none").to_string();
        assert!(error.contains("linux/riscv64") && error.contains("linux/amd64/v3"), "{error}");
        let unnamed = index(json!([of(7, MANIFESTS[1])]));
        assert_eq!(choose(&unnamed, "amd64").map(|chosen| chosen.digest.to_string()).ok(), Some(digest(7)));
        assert!(choose(&[], "amd64").is_err());
    }

    #[test]
    fn a_manifest_has_its_layers_in_their_order() {
        let manifest = json!({ "config": of(1, "application/vnd.oci.image.config.v1+json"),
            "layers": [of(2, LAYERS[0]), of(3, LAYERS[4])] });
        let Ok(Document::Manifest(read)) = read(&manifest) else { panic!("no manifest") };
        assert_eq!(read.config.digest.to_string(), digest(1));
        let layers: Vec<String> = read.layers.iter().map(|layer| layer.digest.to_string()).collect();
        assert_eq!(layers, [digest(2), digest(3)]);
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let config = of(1, "");
        let layers = json!([of(2, LAYERS[0])]);
        for (wrong, says) in [
            (json!({ "manifests": [], "config": config, "layers": layers }), "neither"),
            (json!({ "mediaType": MANIFESTS[0], "manifests": [] }), "neither"),
            (json!({ "mediaType": INDEXES[0], "config": config, "layers": layers }), "neither"),
            (json!({ "schemaVersion": 1, "fsLayers": [] }), "neither"),
            (json!({ "config": config, "layers": [] }), "0 layers"),
            (json!({ "config": config, "layers": vec![of(2, LAYERS[0]); 128] }), "128 layers"),
            (json!({ "config": config, "layers": [of(2, "application/x-foreign")] }), "x-foreign"),
            (json!({ "config": { "digest": "sha256:../..", "size": 1 }, "layers": layers }), "a digest that is none"),
            (json!({ "config": { "digest": digest(1), "size": -1 }, "layers": layers }), "no manifest"),
            (json!([1]), "no manifest"),
        ] {
            let error = read(&wrong).expect_err("refused").to_string();
            assert!(error.contains(says), "{error}: {wrong}");
        }
    }
}
