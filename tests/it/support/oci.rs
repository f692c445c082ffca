//! A registry of images on this host (Debian's docker-registry), and images made of the runtimes that set-up installed.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::daemon::runtimes;

/// Who may pull, and the same as docker keeps it and as the registry does (bcrypt).
const USER: (&str, &str) = ("puller", "test-pass");
const HTPASSWD: &str = "puller:$2b$04$XjqmvnlpxN9mSuZMxhzHVed4HVBWezvfoQwIKiEr5pndYS0Zh0F3y\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// The host's processor, as images name it.
fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image: its parts by digest.
#[derive(Clone)]
pub struct Image {
    blobs: BTreeMap<String, Vec<u8>>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// The runtime as set-up has it, with its program at `/usr/local/bin`, in one layer of libraries and one of the
    /// program. `mark` makes it another image than the next one, and is what `/etc/mark` holds.
    pub fn of(runtime: &str, mark: &str) -> Self {
        let rootfs = runtimes().join(runtime).join("rootfs");
        let program = format!("usr/bin/{runtime}");
        let libraries = tar(&rootfs, &["--exclude", &format!("./{program}"), "."]);
        let moved = format!("s,^{program}$,usr/local/bin/{runtime},");
        let binary = tar(&rootfs, &["--transform", &moved, &program]);
        let marked = tempfile::tempdir().unwrap();
        fs::create_dir(marked.path().join("etc")).unwrap();
        fs::write(marked.path().join("etc/mark"), mark).unwrap();
        fs::set_permissions(marked.path().join("etc/mark"), Permissions::from_mode(0o644)).unwrap();
        Self::new(&[libraries, binary, tar(marked.path(), &["etc/mark"])], mark)
    }

    /// One whose program is none.
    pub fn broken(runtime: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("usr/bin");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(runtime), "no program").unwrap();
        fs::set_permissions(folder.join(runtime), Permissions::from_mode(0o755)).unwrap();
        Self::new(&[tar(dir.path(), &["."])], "broken")
    }

    fn new(layers: &[Vec<u8>], mark: &str) -> Self {
        let mut blobs = BTreeMap::new();
        let mut keep = |bytes: Vec<u8>, media_type: &str| {
            let (name, size) = (digest(&bytes), bytes.len());
            blobs.insert(name.clone(), bytes);
            json!({ "mediaType": media_type, "digest": name, "size": size })
        };
        let diffs: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({ "architecture": architecture(), "os": "linux",
            "config": { "Env": ["PATH=/usr/local/bin:/usr/bin"], "Labels": { "org.opencontainers.image.version": mark } },
            "rootfs": { "type": "layers", "diff_ids": diffs } });
        let config = keep(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
        let packed = layers.iter().map(|layer| keep(gzip(layer), "application/vnd.oci.image.layer.v1.tar+gzip"));
        let layers: Vec<Value> = packed.collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers });
        Self { blobs, manifest: manifest.to_string().into_bytes() }
    }

    /// The name that the store knows it by.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// An index with this image and one for a processor that this host does not have.
    fn index(&self) -> Vec<u8> {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let other = json!({ "mediaType": kind, "digest": self.digest(), "size": self.manifest.len(),
            "platform": { "os": "linux", "architecture": "riscv64" } });
        let mut own = other.clone();
        own["platform"]["architecture"] = architecture().into();
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, own] })
            .to_string()
            .into_bytes()
    }

    /// Writes it as an OCI image layout.
    pub fn lay_out(&self, dir: &Path) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let place = |name: &str| blobs.join(name.trim_start_matches("sha256:"));
        for (name, bytes) in &self.blobs {
            fs::write(place(name), bytes).unwrap();
        }
        fs::write(place(&self.digest()), &self.manifest).unwrap();
        fs::write(dir.join("index.json"), self.index()).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    /// Writes it as an archive of a layout.
    pub fn archive(&self, file: &Path) {
        let dir = tempfile::tempdir().unwrap();
        self.lay_out(dir.path());
        fs::write(file, tar(dir.path(), &["."])).unwrap();
    }
}

fn tar(dir: &Path, what: &[&str]) -> Vec<u8> {
    let made = Command::new("tar")
        .args(["--owner=1234", "--sort=name", "-cf", "-", "-C"])
        .arg(dir)
        .args(what)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A running registry that wants a user and a password. Dropping it ends it.
pub struct OciRegistry {
    child: Child,
    dir: TempDir,
    pub address: String,
    /// Whom to trust, where it speaks TLS.
    pub certificate: Option<PathBuf>,
}

impl OciRegistry {
    /// On the loopback address, over plain HTTP.
    pub fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST)
    }

    /// Elsewhere over TLS, with a certificate of its own that [`certificate`](Self::certificate) names.
    pub fn start_at(address: Ipv4Addr) -> Self {
        let program = program();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("htpasswd"), HTPASSWD).unwrap();
        let mut http = json!({ "addr": format!("{address}:0"), "secret": "of-this-test" });
        let certificate = (!address.is_loopback()).then(|| certify(dir.path(), address));
        if let Some(certificate) = &certificate {
            http["tls"] = json!({ "certificate": certificate, "key": at("key.pem") });
        }
        let config = json!({ "version": 0.1, "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": at("data") } }, "http": http,
            "auth": { "htpasswd": { "realm": "test", "path": at("htpasswd") } } });
        fs::write(at("config.yml"), config.to_string()).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(at("config.yml")).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (tell, told) = channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let end = rest.find(|c: char| !(c.is_ascii_digit() || ".:".contains(c))).unwrap_or(rest.len());
                    drop(tell.send(rest[..end].to_owned()));
                }
            }
        });
        let address = told.recv_timeout(PATIENCE).expect("the registry listens");
        Self { child, dir, address, certificate }
    }

    /// Credentials for it, as docker keeps them.
    pub fn auth_file(&self) -> PathBuf {
        let path = self.dir.path().join("auth.json");
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{}:{}", USER.0, USER.1));
        fs::write(&path, json!({ "auths": { &self.address: { "auth": auth } } }).to_string()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Uploads the image, and lets the tag stand for an index with it. Returns the reference.
    pub async fn push(&self, name: &str, tag: &str, image: &Image) -> String {
        let client = super::http();
        let (client, scheme) = match &self.certificate {
            None => (client, "http"),
            Some(path) => {
                let trusted = reqwest::Certificate::from_pem(&fs::read(path).unwrap()).unwrap();
                (client.tls_certs_only([trusted]), "https")
            }
        };
        let client = client.build().unwrap();
        let base = format!("{scheme}://{}/v2/{name}", self.address);
        for (name, bytes) in &image.blobs {
            upload(&client, &base, name, bytes.clone()).await;
        }
        let (manifest, index) =
            ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json");
        put(&client, &format!("{base}/manifests/{}", image.digest()), manifest, image.manifest.clone()).await;
        put(&client, &format!("{base}/manifests/{tag}"), index, image.index()).await;
        format!("{}/{name}:{tag}", self.address)
    }
}

async fn upload(client: &Client, base: &str, name: &str, bytes: Vec<u8>) {
    let begun = client.post(format!("{base}/blobs/uploads/")).basic_auth(USER.0, Some(USER.1)).send().await.unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let at = begun.headers()["location"].to_str().unwrap().to_owned();
    let at = if at.starts_with("http") { at } else { format!("{}{at}", base.split("/v2/").next().unwrap()) };
    let join = if at.contains('?') { '&' } else { '?' };
    put(client, &format!("{at}{join}digest={name}"), "application/octet-stream", bytes).await;
}

async fn put(client: &Client, url: &str, media_type: &str, bytes: Vec<u8>) {
    let request = client.put(url).header("content-type", media_type).basic_auth(USER.0, Some(USER.1));
    let answer = request.body(bytes).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap_or_default());
}

/// A key and a certificate for the address, below `dir`.
fn certify(dir: &Path, address: Ipv4Addr) -> PathBuf {
    let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
    let mut command = Command::new("openssl");
    command.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test".split(' '));
    command.args(["-addext", &format!("subjectAltName=IP:{address}"), "-addext", "basicConstraints=critical,CA:FALSE"]);
    let made = command.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output();
    let made = made.expect("openssl: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    certificate
}

/// Where the set-up step put it.
fn program() -> PathBuf {
    let state = std::env::var_os("CLOISTER_STATE_DIR");
    let state = state.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cloister"), PathBuf::from);
    let program = state.join("oci-registry/docker-registry");
    assert!(program.is_file(), "no {}: run scripts/setup --with-registry first", program.display());
    program
}

impl Drop for OciRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
