//! Layers that mean well, and layers that do not.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use super::*;

/// A layer in the making.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// The name is written as it is, whatever it means.
    fn raw(mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.as_ustar_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
        header.as_ustar_mut().unwrap().typeflag = [kind];
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.raw(b'0', name.as_bytes(), b"", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(b'5', name.as_bytes(), b"", 0o755, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A directory with a root in it, and something beside that no layer may touch.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("beside")).unwrap();
        fs::write(dir.path().join("beside/secret"), "untouched").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn unpack_with(&self, layers: Vec<Layer>, most: u64) -> Result<(), UnpackError> {
        let opened = layers.into_iter().map(|layer| {
            let bytes = layer.bytes();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            (file, Digest::of_bytes(&Sha256::digest(&bytes)))
        });
        let unpacked = unpack(opened.collect(), &self.root(), most);
        let beside: Vec<_> =
            fs::read_dir(self.dir.path().join("beside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(beside, ["secret"]);
        assert_eq!(fs::read_to_string(self.dir.path().join("beside/secret")).unwrap(), "untouched");
        unpacked
    }

    fn unpack(&self, layers: Vec<Layer>) -> Result<(), UnpackError> {
        self.unpack_with(layers, 1 << 20)
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root().join(path)).ok()
    }
}

fn refused(layer: Layer) -> String {
    let error = World::new().unpack(vec![layer]).unwrap_err();
    crate::telemetry::error_chain(&error).to_string()
}

#[test]
fn layers_lie_upon_one_another() {
    let world = World::new();
    let low = Layer::new().dir("usr").dir("usr/bin").link("bin", "usr/bin").file("etc/a", "1").file("etc/b", "1");
    let middle = Layer::new().file("bin/deno", "program").file("etc/a", "2").dir("new").hard("usr/hard", "bin/deno");
    let high = Layer::new().file("new", "a file now").dir("etc/b").file("etc/b/c", "3");
    world.unpack(vec![low, middle, high]).unwrap();
    assert_eq!(world.text("usr/bin/deno").as_deref(), Some("program"), "a link of the root is followed inside it");
    assert_eq!(world.text("usr/hard").as_deref(), Some("program"));
    assert_eq!((world.text("etc/a").as_deref(), world.text("etc/b/c").as_deref()), (Some("2"), Some("3")));
    assert_eq!(world.text("new").as_deref(), Some("a file now"));
    for point in MOUNT_POINTS {
        assert!(world.root().join(point).is_dir(), "{point}");
    }
}

#[test]
fn whiteouts_take_away_what_is_below_and_nothing_of_their_own_layer() {
    let world = World::new();
    let low =
        Layer::new().file("a/1", "low").file("a/2", "low").file("b/1", "low").file("b/deep/2", "low").file("c", "low");
    // What takes away comes last, and counts for what is below only.
    let high = Layer::new()
        .file("b/new", "high")
        .file("c", "high")
        .raw(b'0', b"a/.wh.1", b"", 0, b"")
        .raw(b'0', b"b/.wh..wh..opq", b"", 0, b"")
        .raw(b'0', b".wh.c", b"", 0, b"")
        .raw(b'0', b"gone/.wh.x", b"", 0, b"");
    world.unpack(vec![low, high]).unwrap();
    assert_eq!((world.text("a/1"), world.text("a/2").as_deref()), (None, Some("low")));
    assert_eq!((world.text("b/1"), world.text("b/deep/2"), world.text("b/new").as_deref()), (None, None, Some("high")));
    assert_eq!(world.text("c").as_deref(), Some("high"));
    assert!(!world.root().join("gone").exists());
}

#[test]
fn a_link_that_leads_out_leads_nowhere() {
    let world = World::new();
    let outside = world.dir.path().join("beside");
    let outside = outside.to_str().unwrap();
    let low = Layer::new().link("abs", outside).link("up", "../beside").link("deep", "../../../../../../../../tmp");
    let high = Layer::new().file("abs/secret", "x");
    // The target does not exist inside the root: what is written through the link has no place.
    assert!(world.unpack(vec![low, high]).is_err());
    for link in ["up/secret", "up/new"] {
        let world = World::new();
        let layers = vec![Layer::new().link("up", "../beside"), Layer::new().file(link, "x")];
        assert!(world.unpack(layers).is_err(), "{link}");
    }
    let world = World::new();
    let whiteouts = Layer::new().raw(b'0', b"up/.wh.secret", b"", 0, b"").raw(b'0', b"up/.wh..wh..opq", b"", 0, b"");
    world.unpack(vec![Layer::new().link("up", "../beside"), whiteouts]).unwrap();
}

#[test]
fn a_file_never_goes_through_a_link_of_its_own_name() {
    let world = World::new();
    let secret = world.dir.path().join("beside/secret");
    let layers = vec![
        Layer::new().link("a", secret.to_str().unwrap()).link("b", "etc").file("etc/x", "kept"),
        Layer::new().file("a", "own").dir("b").file("b/x", "own"),
    ];
    world.unpack(layers).unwrap();
    assert_eq!(world.text("a").as_deref(), Some("own"));
    assert_eq!((world.text("etc/x").as_deref(), world.text("b/x").as_deref()), (Some("kept"), Some("own")));
}

#[test]
fn hard_links_reach_nothing_outside() {
    let outside = World::new();
    let secret = outside.dir.path().join("beside/secret");
    for target in [secret.to_str().unwrap(), "etc/shadow-of-nothing", "usr"] {
        assert!(World::new().unpack(vec![Layer::new().dir("usr").hard("x", target)]).is_err(), "{target}");
    }
    assert!(refused(Layer::new().hard("x", "../beside/secret")).contains("leads upwards"));
    // A link to a link is the link, not what it leads to.
    let world = World::new();
    let secret = world.dir.path().join("beside/secret");
    world.unpack(vec![Layer::new().link("l", secret.to_str().unwrap()).hard("x", "l").file("x", "own")]).unwrap();
    assert_eq!(world.text("x").as_deref(), Some("own"));
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "/../x"] {
        assert!(refused(Layer::new().file(name, "x")).contains("leads upwards"), "{name}");
    }
    let world = World::new();
    world.unpack(vec![Layer::new().file("/etc/passwd", "inside")]).unwrap();
    assert_eq!(world.text("etc/passwd").as_deref(), Some("inside"), "a leading slash is the root's own");
}

#[test]
fn rights_owners_and_devices_are_left_out() {
    let world = World::new();
    let layer = Layer::new()
        .raw(b'0', b"suid", b"", 0o6777, b"x")
        .raw(b'5', b"sticky", b"", 0o1777, b"")
        .raw(b'5', b"closed", b"", 0o700, b"")
        .raw(b'0', b"shadow", b"", 0o640, b"x")
        .raw(b'3', b"dev/null", b"", 0o666, b"")
        .raw(b'4', b"disk", b"", 0o666, b"")
        .raw(b'6', b"pipe", b"", 0o666, b"");
    world.unpack(vec![layer]).unwrap();
    let found = |name: &str| fs::symlink_metadata(world.root().join(name)).unwrap();
    let mode = |name: &str| found(name).mode() & 0o7777;
    assert_eq!((mode("suid"), mode("sticky"), mode("closed"), mode("shadow")), (0o755, 0o755, 0o755, 0o640));
    assert_ne!(found("suid").uid(), 1234);
    for name in ["dev/null", "disk", "pipe"] {
        assert!(!world.root().join(name).exists(), "{name}");
    }
    assert!(!found("dev").file_type().is_char_device());
}

#[test]
fn what_is_mounted_on_must_be_a_directory() {
    for layer in
        [Layer::new().link("proc", "/"), Layer::new().file("workspace", "x"), Layer::new().link("tmp", "var/tmp")]
    {
        assert!(refused(layer).contains("must be a directory"));
    }
}

#[test]
fn content_is_bounded_and_is_what_the_config_says() {
    let world = World::new();
    let big = "x".repeat(100_000);
    let error =
        world.unpack_with(vec![Layer::new().file("a", &big), Layer::new().file("b", &big)], 150_000).unwrap_err();
    assert!(crate::telemetry::error_chain(&error).to_string().contains("sandbox.images.mib"), "{error}");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&Layer::new().file("a", "1").bytes()).unwrap();
    let other = Digest::of_bytes(&[7; 32]);
    let error = unpack(vec![(file, other)], &World::new().root(), 1 << 20).unwrap_err();
    assert!(matches!(error, UnpackError::Content { .. }), "{error}");
}

#[test]
fn extensions_are_bounded_and_may_not_contradict() {
    let long = "d/".repeat(60) + "name-of-a-file-that-is-longer-than-a-header";
    let pax = |key: &str, value: &str| {
        let mut length = key.len() + value.len() + 3;
        while format!("{length} {key}={value}\n").len() != length {
            length += 1;
        }
        format!("{length} {key}={value}\n")
    };
    let extended = |record: String| Layer::new().raw(b'x', b"p", b"", 0o644, record.as_bytes());
    let world = World::new();
    let layers = vec![
        Layer::new().raw(b'L', b"././@LongLink", b"", 0, format!("{long}\0").as_bytes()).file("short", "gnu"),
        extended(pax("path", "by/pax") + &pax("SCHILY.xattr.security.capability", "x")).file("short", "pax"),
        Layer::new().raw(b'g', b"p", b"", 0o644, pax("path", "everywhere").as_bytes()).file("plain", "global"),
    ];
    world.unpack(layers).unwrap();
    assert_eq!(world.text(&long).as_deref(), Some("gnu"));
    assert_eq!((world.text("by/pax").as_deref(), world.text("plain").as_deref()), (Some("pax"), Some("global")));
    assert!(world.text("short").is_none());

    assert!(refused(extended(pax("size", "9")).file("a", "1")).contains("contradict"));
    assert!(refused(extended(pax("path", "../x")).file("a", "1")).contains("leads upwards"));
    assert!(refused(extended(pax("GNU.sparse.major", "1")).file("a", "1")).contains("'S'"));
    assert!(refused(Layer::new().raw(b'S', b"a", b"", 0, b"")).contains("'S'"));
    assert!(refused(Layer::new().raw(b'L', b"l", b"", 0, &[b'a'; 5000]).file("a", "1")).contains("no end"));
    assert!(refused(extended("no record".to_owned()).file("a", "1")).contains("cannot be read"));
}

#[test]
fn a_root_that_was_made_by_somebody_else_is_not_followed_either() {
    let world = World::new();
    symlink(world.dir.path().join("beside"), world.root().join("planted")).unwrap();
    assert!(world.unpack(vec![Layer::new().file("planted/secret", "x")]).is_err());
}

/// Names and targets that try everything, of a few short parts so that they meet.
fn paths() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "l", "..", ".", "beside", "root", "secret", ".wh.a", ".wh..wh..opq", ""]);
    (any::<bool>(), prop::collection::vec(part, 1..5)).prop_map(|(absolute, parts)| {
        let path = parts.join("/");
        if absolute { format!("/{path}") } else { path }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_stack_of_layers_touches_what_is_outside(
        layers in prop::collection::vec(prop::collection::vec((prop::sample::select(b"0125".to_vec()), paths(), paths()), 0..8), 1..4)
    ) {
        let world = World::new();
        let build = |entries: Vec<(u8, String, String)>| {
            entries.iter().fold(Layer::new(), |layer, (kind, name, target)| {
                let content: &[u8] = if *kind == b'0' { b"written" } else { b"" };
                layer.raw(*kind, name.as_bytes(), target.as_bytes(), 0o644, content)
            })
        };
        // Whether it is refused or not, `unpack` itself looks at what is beside the root.
        let _ = world.unpack(layers.into_iter().map(build).collect());
    }
}
