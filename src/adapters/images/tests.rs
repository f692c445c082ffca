//! Images from layouts and archives, whole into the store or not at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

fn digest(bytes: &[u8]) -> Digest {
    Digest::of_bytes(&Sha256::digest(bytes))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A layout with one image, for this host unless it is said otherwise.
struct Made {
    dir: TempDir,
    manifest: Digest,
}

impl Made {
    fn of(layers: &[Vec<u8>], architecture: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let keep = |bytes: &[u8]| {
            fs::write(blobs.join(digest(bytes).hex()), bytes).unwrap();
            json!({ "digest": digest(bytes).to_string(), "size": bytes.len() })
        };
        let typed = |mut descriptor: serde_json::Value, kind: &str| {
            descriptor["mediaType"] = format!("application/vnd.oci.image.{kind}").into();
            descriptor
        };
        let diffs: Vec<String> = layers.iter().map(|layer| digest(layer).to_string()).collect();
        let config = json!({ "architecture": architecture, "os": "linux",
            "config": { "Env": ["PATH=/opt/bin"], "Labels": { "org.opencontainers.image.version": "9.9" } },
            "rootfs": { "type": "layers", "diff_ids": diffs } });
        let config = typed(keep(config.to_string().as_bytes()), "config.v1+json");
        let layers: Vec<_> = layers.iter().map(|layer| typed(keep(&gzip(layer)), "layer.v1.tar+gzip")).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
        let entry = typed(keep(manifest.as_bytes()), "manifest.v1+json");
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        fs::write(dir.path().join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
            .unwrap();
        Self { dir, manifest: digest(manifest.as_bytes()) }
    }

    fn usual(program: &[u8]) -> Self {
        Self::of(&[tar_of(&[("etc/x", b"1", 0o644)]), tar_of(&[("opt/bin/bun", program, 0o755)])], &architecture())
    }

    /// The same in one file, with what does not belong to it.
    fn archive(&self, at: &Path, packed: bool) {
        let mut builder = Builder::new(Vec::new());
        builder.append_dir_all(".", self.dir.path()).unwrap();
        for name in ["blobs/sha256/not-a-digest", "manifest.json", "else/where"] {
            let mut header = Header::new_ustar();
            header.set_size(1);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &b"x"[..]).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        fs::write(at, if packed { gzip(&bytes) } else { bytes }).unwrap();
    }
}

/// A state directory.
struct World(TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn images(&self, source: &Path) -> HostImages {
        self.images_within(source, 1 << 20)
    }

    fn images_within(&self, source: &Path, most_bytes: u64) -> HostImages {
        self.images_of(&[Runtime::Bun], source, most_bytes)
    }

    fn images_of(&self, runtimes: &[Runtime], source: &Path, most_bytes: u64) -> HostImages {
        let source = ImageSource::Place(source.to_owned());
        let settings = Settings {
            dir: self.0.path().join("images"),
            sources: runtimes.iter().map(|runtime| (*runtime, source.clone())).collect(),
            most_bytes,
            within: Duration::from_secs(20),
            auth_file: None,
            plain_http: Vec::new(),
        };
        let nobody = Arc::new(|| Err("nothing is fetched here".into()));
        let images = HostImages::new(settings, nobody, Logger::root(slog::Discard, slog::o!()));
        images.tidy();
        images
    }

    /// What is in the store.
    fn entries(&self) -> Vec<String> {
        let listed = fs::read_dir(self.0.path().join("images"));
        let names = listed.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

fn told(error: &dyn Error) -> String {
    error_chain(error).to_string()
}

#[tokio::test]
async fn a_layout_is_unpacked_once_and_serves_when_it_is_told_to() {
    let (world, made) = (World::new(), Made::usual(b"#!bun"));
    let images = world.images(made.dir.path());
    assert_eq!(images.runtimes(), [(Runtime::Bun, None)]);
    assert!(images.serving(Runtime::Bun).unwrap_err().contains("not there yet"));
    let found = images.find(Runtime::Bun).await.unwrap();
    assert_eq!(found, FoundImage { digest: made.manifest.clone(), stale: None });
    assert!(images.serving(Runtime::Bun).is_err(), "found is not serving");
    images.serve(Runtime::Bun, &found.digest).await.unwrap();
    let root = images.serving(Runtime::Bun).unwrap();
    assert_eq!((root.program.as_str(), root.version.as_str()), ("/opt/bin/bun", "9.9"));
    assert_eq!(fs::read(root.rootfs.join("opt/bin/bun")).unwrap(), b"#!bun");
    assert_eq!(world.entries(), ["record.json".to_owned(), made.manifest.directory()]);

    // A new life knows it, and needs the layout no more.
    fs::remove_dir_all(made.dir.path()).unwrap();
    let images = world.images(made.dir.path());
    assert_eq!(images.serving(Runtime::Bun).unwrap(), root);
    let found = images.find(Runtime::Bun).await.unwrap();
    assert!(found.digest == made.manifest && found.stale.is_some_and(|reason| reason.contains("index.json")));
}

#[tokio::test]
async fn an_archive_is_what_is_in_it() {
    for packed in [false, true] {
        let (world, first, second) = (World::new(), Made::usual(b"1"), Made::usual(b"2"));
        let archive = world.0.path().join("image.tar");
        first.archive(&archive, packed);
        let images = world.images(&archive);
        assert_eq!(images.find(Runtime::Bun).await.unwrap().digest, first.manifest);
        images.serve(Runtime::Bun, &first.manifest).await.unwrap();
        second.archive(&archive, packed);
        assert_eq!(images.find(Runtime::Bun).await.unwrap().digest, second.manifest);
        let both = BTreeSet::from([first.manifest.directory(), second.manifest.directory()]);
        assert!(both.iter().all(|name| world.entries().contains(name)), "versions stand side by side");

        // What neither serves nor is asked for goes at the next start.
        images.serve(Runtime::Bun, &second.manifest).await.unwrap();
        drop(world.images(&archive));
        assert_eq!(world.entries(), ["record.json".to_owned(), second.manifest.directory()]);
        for wrong in [b"no archive".to_vec(), tar_of(&[("etc/passwd", b"x", 0o644)])] {
            fs::write(&archive, wrong).unwrap();
            let error = world.images(&archive).find(Runtime::Bun).await.unwrap_err();
            assert!(matches!(error, ImageError::Unfit { .. }), "{}", told(&error));
        }
    }
}

#[tokio::test]
async fn what_docker_once_saved_is_an_image_too() {
    let (world, made) = (World::new(), Made::of(&[tar_of(&[("opt/bin/bun", b"x", 0o755)])], &architecture()));
    let read =
        |name: &str| fs::read(made.dir.path().join("blobs/sha256").join(name.trim_start_matches("sha256:"))).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&read(made.manifest.hex())).unwrap();
    let name_of = |descriptor: &serde_json::Value| {
        descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned()
    };
    let (config, layer) = (name_of(&manifest["config"]), name_of(&manifest["layers"][0]));
    let (config_file, layer_file) = (format!("{config}.json"), format!("{layer}/layer.tar"));
    let list = json!([{ "Config": config_file, "RepoTags": ["a/b:c"], "Layers": [layer_file] }]).to_string();
    let archive = world.0.path().join("saved.tar");
    let save = |content: &[u8]| {
        let files = [
            (config_file.as_str(), &*read(&config), 0o644),
            (layer_file.as_str(), content, 0o644),
            ("manifest.json", list.as_bytes(), 0o644),
        ];
        fs::write(&archive, tar_of(&files)).unwrap();
    };
    save(&read(&layer));
    let images = world.images(&archive);
    let found = images.find(Runtime::Bun).await.unwrap();
    let root = images.root(Runtime::Bun, &found.digest).await.unwrap();
    assert_eq!(fs::read(root.rootfs.join("opt/bin/bun")).unwrap(), b"x");

    // A layer that is not what the config says.
    save(&tar_of(&[("opt/bin/bun", b"another", 0o755)]));
    let error = World::new().images(&archive).find(Runtime::Bun).await.unwrap_err();
    assert!(told(&error).contains("the image's config says"), "{}", told(&error));
}

#[tokio::test]
async fn what_is_wrong_with_an_image_leaves_nothing_behind() {
    let program = ("opt/bin/bun", &b"x"[..], 0o755);
    let usual = architecture();
    for (layers, architecture, says) in [
        (vec![tar_of(&[("usr/bin/deno", b"x", 0o755)])], usual.as_str(), "it has no bun that anybody may run"),
        (vec![tar_of(&[("opt/bin/bun", b"x", 0o700)])], usual.as_str(), "it has no bun that anybody may run"),
        (vec![tar_of(&[program])], "mips", "made for linux/mips"),
        (vec![tar_of(&[program, ("big", &[0; 100_000], 0o644)])], usual.as_str(), "sandbox.images.mib"),
        (
            vec![b"no archive at all, and long enough to be one block of a tar archive".repeat(9)],
            usual.as_str(),
            "cannot be read",
        ),
    ] {
        let (world, made) = (World::new(), Made::of(&layers, architecture));
        let error = world.images_within(made.dir.path(), 50_000).find(Runtime::Bun).await.unwrap_err();
        assert!(matches!(error, ImageError::Unfit { .. }) && told(&error).contains(says), "{says}: {}", told(&error));
        assert!(!world.entries().iter().any(|name| name.starts_with(".making") || name == "record.json"), "{says}");
    }
}

#[tokio::test]
async fn two_runtimes_may_name_the_same_image() {
    let programs = tar_of(&[("opt/bin/bun", b"x", 0o755), ("usr/bin/deno", b"y", 0o755)]);
    let (world, made) = (World::new(), Made::of(&[programs], &architecture()));
    let images = world.images_of(&Runtime::ALL, made.dir.path(), 1 << 20);
    let (deno, bun) = tokio::join!(images.find(Runtime::Deno), images.find(Runtime::Bun));
    assert_eq!((deno.unwrap().digest, bun.unwrap().digest), (made.manifest.clone(), made.manifest.clone()));
    let programs =
        [Runtime::Deno, Runtime::Bun].map(|runtime| images.store.root(runtime, &made.manifest, None).unwrap().program);
    assert_eq!(programs, ["/usr/bin/deno", "/opt/bin/bun"]);
    assert_eq!(world.entries(), ["record.json".to_owned(), made.manifest.directory()]);
}

#[tokio::test]
async fn every_part_of_a_layout_is_checked() {
    for (part, says) in [(0, "has the digest"), (1, "bytes")] {
        let made = Made::usual(b"x");
        for blob in fs::read_dir(made.dir.path().join("blobs/sha256")).unwrap() {
            let blob = blob.unwrap().path();
            let kept = fs::read(&blob).unwrap();
            let mut changed = kept.clone();
            if part == 0 {
                changed[0] ^= 1
            } else {
                changed.push(b' ')
            }
            fs::write(&blob, changed).unwrap();
            let error = World::new().images(made.dir.path()).find(Runtime::Bun).await.unwrap_err();
            assert!(told(&error).contains(says), "{}", told(&error));
            fs::write(&blob, kept).unwrap();
        }
    }
}

#[tokio::test]
async fn an_image_that_was_changed_or_lost_does_not_serve() {
    let (world, made) = (World::new(), Made::usual(b"x"));
    let images = world.images(made.dir.path());
    images.find(Runtime::Bun).await.unwrap();
    images.serve(Runtime::Bun, &made.manifest).await.unwrap();
    let stored = world.0.path().join("images").join(made.manifest.directory());
    fs::write(stored.join("config.json"), "{}").unwrap();
    let again = world.images(made.dir.path());
    assert_eq!(again.runtimes(), [(Runtime::Bun, None)]);
    let error = again.find(Runtime::Bun).await.unwrap_err();
    assert!(told(&error).contains("were changed or lost"), "{}", told(&error));
    fs::remove_dir_all(&stored).unwrap();
    let again = world.images(made.dir.path());
    assert_eq!(again.find(Runtime::Bun).await.unwrap().digest, made.manifest, "made anew");
}

#[tokio::test]
async fn half_made_images_go_at_the_next_start() {
    let (world, made) = (World::new(), Made::usual(b"x"));
    let dir = world.0.path().join("images");
    for name in [".making-abc", ".blobs-bun", &Digest::of_bytes(&[9; 32]).directory()] {
        fs::create_dir_all(dir.join(name).join("deep/er")).unwrap();
    }
    fs::create_dir(dir.join("lost+found")).unwrap();
    drop(world.images(made.dir.path()));
    assert_eq!(world.entries(), ["lost+found"]);
}

#[test]
fn a_directory_serves_as_it_is() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let images = world.images(dir.path());
    assert_eq!(images.runtimes(), []);
    assert!(images.serving(Runtime::Bun).unwrap_err().contains("is not installed"));
    fs::create_dir_all(dir.path().join("rootfs/usr/bin")).unwrap();
    fs::write(dir.path().join("rootfs/usr/bin/bun"), "x").unwrap();
    assert!(images.serving(Runtime::Bun).is_err(), "no program yet");
    fs::set_permissions(dir.path().join("rootfs/usr/bin/bun"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("manifest.json"), r#"{"version": "1.3"}"#).unwrap();
    let root = images.serving(Runtime::Bun).unwrap();
    assert_eq!(
        (root.rootfs, root.program, root.version),
        (dir.path().join("rootfs"), "/usr/bin/bun".into(), "1.3".into())
    );
    assert!(!world.0.path().join("images").exists());
}
