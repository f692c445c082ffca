//! A small registry on this host: npm's packages (packuments, and archives that `tar` makes), JSR's, modules by address, and
//! faults by name.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::Digest;

/// A registry that listens until the tests end.
pub struct Registry {
    /// What it says that archives lie below, too; until it is known by another address.
    pub url: String,
    base: Arc<Mutex<String>>,
    /// What `Authorization` must say; until there is something, nobody is asked.
    wants: Arc<Mutex<Option<String>>>,
    /// The path of each request.
    pub asked: Arc<Mutex<Vec<String>>>,
}

/// A package with one version, 1.0.0.
#[derive(Clone)]
pub struct Package {
    pub name: &'static str,
    /// Beside name and version.
    pub manifest: Value,
    pub files: Vec<(&'static str, Vec<u8>)>,
}

impl Registry {
    /// Besides `packages` it knows `hangs` (which it never answers), `wanders` (which it redirects to a cloud's metadata) and
    /// `far` (whose archive lies there).
    pub fn start(packages: Vec<Package>) -> Self {
        Self::start_with(packages, BTreeMap::new())
    }

    /// With pages by their paths, too.
    pub fn start_with(packages: Vec<Package>, pages: BTreeMap<String, Vec<u8>>) -> Self {
        let pages = Arc::new(pages);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (base, wants) = (Arc::new(Mutex::new(url.clone())), Arc::<Mutex<Option<String>>>::default());
        let (known_as, wanted, told) = (Arc::clone(&base), Arc::clone(&wants), Arc::clone(&asked));
        let archives: Arc<Vec<(Package, Vec<u8>)>> =
            Arc::new(packages.into_iter().map(|package| (package.clone(), archive(&package))).collect());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (archives, pages, told) = (Arc::clone(&archives), Arc::clone(&pages), Arc::clone(&told));
                let (base, wanted) = (known_as.lock().unwrap().clone(), wanted.lock().unwrap().clone());
                std::thread::spawn(move || serve(stream, &archives, &pages, (&base, wanted.as_deref()), &told));
            }
        });
        Self { url, base, wants, asked }
    }

    /// From now on it is reached at another address, and answers only who sends this in `Authorization`.
    pub fn close(&self, base: &str, authorization: &str) {
        base.clone_into(&mut self.base.lock().unwrap());
        *self.wants.lock().unwrap() = Some(authorization.to_owned());
    }

    /// How often the list of a package's versions was asked for.
    pub fn asked_for(&self, package: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|path| path.trim_start_matches('/') == package).count()
    }
}

/// The pages of a package of JSR with one version, 1.0.0, and all its modules as exports.
pub fn jsr(name: &str, modules: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let sum = |text: &str| sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let manifest = modules.iter().map(|(path, text)| {
        (path.to_string(), json!({ "size": text.len(), "checksum": format!("sha256-{}", sum(text)) }))
    });
    let exports = modules.iter().map(|(path, _)| {
        let export = if *path == "/mod.ts" { "." } else { path.trim_end_matches(".ts") };
        (export.replacen('/', "./", 1), json!(format!(".{path}")))
    });
    let meta = json!({ "scope": "in", "name": name, "latest": "1.0.0", "versions": { "1.0.0": {} } });
    let version =
        json!({ "manifest": serde_json::Map::from_iter(manifest), "exports": serde_json::Map::from_iter(exports) });
    let mut pages = BTreeMap::from([
        (format!("/@in/{name}/meta.json"), meta.to_string().into_bytes()),
        (format!("/@in/{name}/1.0.0_meta.json"), version.to_string().into_bytes()),
    ]);
    pages.extend(modules.iter().map(|(path, text)| (format!("/@in/{name}/1.0.0{path}"), text.as_bytes().to_vec())));
    pages
}

fn serve(
    stream: TcpStream,
    archives: &[(Package, Vec<u8>)],
    pages: &BTreeMap<String, Vec<u8>>,
    (base, wanted): (&str, Option<&str>),
    told: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    let mut authorization = None;
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        if first.is_empty() {
            first.clone_from(&line);
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default().replace("%2f", "/").replace("%2F", "/");
    told.lock().unwrap().push(path.clone());
    let mut stream = &stream;
    let mut answer = |status: &str, head: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
    };
    if wanted.is_some() && authorization.as_deref() != wanted {
        return answer("401 Unauthorized", "", b"{}");
    }
    if let Some(page) = pages.get(&path) {
        let kind = if path.ends_with(".json") { "application/json" } else { "application/typescript" };
        return answer("200 OK", &format!("Content-Type: {kind}\r\n"), page);
    }
    match path.trim_start_matches('/') {
        "hangs" => loop {
            std::thread::park();
        },
        "wanders" => answer("302 Found", "Location: http://169.254.169.254/wanders\r\n", b""),
        "far" => {
            answer("200 OK", "", packument("far", &json!({}), "http://169.254.169.254/far.tgz").to_string().as_bytes())
        }
        wanted => {
            let of = |name: &str| archives.iter().find(|(package, _)| package.name == name);
            match (wanted.strip_suffix("/-/1.0.0.tgz").and_then(of), of(wanted)) {
                (Some((_, bytes)), _) => answer("200 OK", "", bytes),
                (None, Some((package, _))) => {
                    let archive = format!("{base}/{}/-/1.0.0.tgz", package.name);
                    answer("200 OK", "", packument(package.name, &package.manifest, &archive).to_string().as_bytes());
                }
                (None, None) => answer("404 Not Found", "", b"{}"),
            }
        }
    }
}

fn packument(name: &str, manifest: &Value, archive: &str) -> Value {
    let mut version = manifest.clone();
    version["name"] = name.into();
    version["version"] = "1.0.0".into();
    version["dist"] = json!({ "tarball": archive });
    json!({ "name": name, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } })
}

fn archive(package: &Package) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("package");
    let mut manifest = package.manifest.clone();
    manifest["name"] = package.name.into();
    manifest["version"] = "1.0.0".into();
    let write = |name: &str, content: &[u8]| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("package.json", manifest.to_string().as_bytes());
    for (name, content) in &package.files {
        write(name, content);
    }
    std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
    run_tar(dir.path())
}

fn run_tar(dir: &Path) -> Vec<u8> {
    let made = Command::new("tar").args(["-czf", "-", "-C"]).arg(dir).arg("package").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}
