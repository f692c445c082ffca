//! The engine over the real runsc, Deno and Bun. They need root and the runtimes' images: what is missing is an error
//! with its remedy, never a silent skip.
//!
//! The only place where an adapter meets others: a contract with the kernel cannot be tested over doubles.

mod calls;
mod hosts;
mod lives;
mod standing;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use slog::{Discard, o};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::actors::doubles::credentials::CredentialsDouble;
use crate::adapters::cgroup::HostCgroups;
use crate::adapters::egress::{self as proxy, HostEgress};
use crate::adapters::images::{self, HostImages};
use crate::adapters::process::HostSpawner;
use crate::domain::egress::{Caps, Reach};
use crate::domain::environment::{Permissions, Runtime};
use crate::domain::execution::{End, FilesForm, Outcome, Phase, ProcessEnd, Settlement, judge};
use crate::domain::id::{EnvironmentId, ExecutionId, RequestId};
use crate::domain::image::ImageSource;
use crate::ports::sandbox::Purpose;
use crate::ports::volumes::VolumeError;

const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cloister/runtimes");

/// Volumes that lie ready in a folder.
struct Folder(PathBuf);

#[async_trait]
impl Volumes for Folder {
    async fn make(&self, name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<(), VolumeError> {
        for (path, content) in files {
            let path = self.path(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Ok(())
    }

    async fn make_with(
        &self,
        name: &str,
        files: BTreeMap<String, Vec<u8>>,
        _trees: Vec<PathBuf>,
    ) -> Result<(), VolumeError> {
        self.make(name, files).await
    }

    async fn derive(
        &self,
        _: &str,
        _: &str,
        _: &[&'static str],
        _: BTreeMap<String, Vec<u8>>,
    ) -> Result<u64, VolumeError> {
        unreachable!("no environment is changed here")
    }

    async fn remove(&self, _name: &str) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>, VolumeError> {
        Ok(Vec::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A host of its own: directories, a cgroup subtree, an engine. Asserts at its end that nothing is left.
struct World {
    engine: Option<RunscEngine>,
    cgroups: Arc<HostCgroups>,
    volumes: Arc<Folder>,
    choice: Choice,
    dir: TempDir,
}

impl World {
    fn new(choice: Choice) -> Self {
        assert!(Path::new(IMAGES).join("deno").exists(), "no runtimes in {IMAGES}: run the set-up step first");
        let dir = tempfile::Builder::new().prefix("ce").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let instance = format!("test-{}", Uuid::new_v4().simple());
        let cgroups = Arc::new(HostCgroups::detect(None, &instance).unwrap());
        let volumes = Arc::new(Folder(dir.path().join("volumes")));
        let mut world = Self { engine: None, cgroups, volumes, choice, dir };
        world.restart();
        world
    }

    fn gvisor() -> Self {
        Self::new(Choice::Gvisor { runsc: None })
    }

    /// As after a crash: a new engine that knows nothing of the former one's slots. Returns the former one.
    fn restart(&mut self) -> Option<RunscEngine> {
        let settings = Settings {
            choice: self.choice.clone(),
            run_dir: self.dir.path().join("run"),
            state_dir: self.dir.path().to_owned(),
            ready_deadline: Duration::from_secs(60),
            cpu_quota_us: Some(100_000),
            pids: 100,
            tmp_mb: 64,
            registries: Vec::new(),
            jsr: None,
            module_hosts: Vec::new(),
            tokens: Vec::new(),
            installs: InstallLimits { bytes: 1 << 20, files: 100 },
            out: OutLimits { bytes: 1 << 20, files: 10 },
            output: OutputLimits { keep: 64 << 10, discard: 8 << 20, ..OutputLimits::default() },
        };
        let log = Logger::root(Discard, o!());
        let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let credentials = Arc::new(CredentialsDouble::default());
        let egress = HostEgress::new(self.egress(), tls, credentials, log.clone());
        self.engine.replace(RunscEngine::new(
            settings,
            Arc::new(HostSpawner),
            Arc::clone(&self.cgroups) as _,
            Arc::clone(&self.volumes) as _,
            directories(Runtime::ALL.map(|runtime| (runtime, Path::new(IMAGES).join(runtime.as_str())))),
            Some(Arc::new(egress) as _),
            log,
        ))
    }

    fn egress(&self) -> proxy::Settings {
        let second = Duration::from_secs(1);
        let (connections, requests, bytes) = (1, 1, 1);
        let caps = Caps { connections, requests, bytes, answer_within: second, idle: second, lasts: second };
        proxy::Settings { dir: self.dir.path().join("run/egress"), reach: Reach::public(), caps }
    }

    fn engine(&self) -> &RunscEngine {
        self.engine.as_ref().unwrap()
    }

    async fn environment(&self, source: &str) -> EnvironmentId {
        let id = EnvironmentId(Uuid::new_v4());
        let files = BTreeMap::from([("workspace/main.js".to_owned(), source.as_bytes().to_vec())]);
        self.volumes.make(&id.volume_name(), files).await.unwrap();
        id
    }

    async fn ready(&self, runtime: Runtime, source: &str, memory_mb: u64) -> (SlotId, EnvironmentId) {
        let environment = self.environment(source).await;
        let slot = SlotId(Uuid::new_v4());
        let volume = environment.volume_name();
        let purpose =
            Purpose::Execute { environment, volume, permissions: Permissions::default(), secrets: Vec::new() };
        self.engine().create(SlotSpec { slot, runtime, purpose, memory_mb }).await.unwrap();
        (slot, environment)
    }

    /// A whole cold call.
    async fn call(&self, runtime: Runtime, source: &str, limits: Limits) -> Evidence {
        let (slot, environment) = self.ready(runtime, source, limits.memory_mb).await;
        let evidence = self.engine().run(slot, &call(environment, limits), "main.js", false, None).await.unwrap();
        self.engine().destroy(slot).await.unwrap();
        self.assert_clean().await;
        evidence
    }

    async fn assert_clean(&self) {
        assert_eq!(self.engine().leftovers().await.unwrap(), []);
        assert_eq!(processes_naming(self.dir.path()), Vec::<String>::new());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for file in self.cgroups.open("x").entry_files() {
            let _ = fs::remove_dir(file.parent().and_then(Path::parent).unwrap());
        }
    }
}

/// Root file systems that lie ready.
fn directories(at: impl IntoIterator<Item = (Runtime, PathBuf)>) -> Arc<dyn RuntimeImages> {
    let sources = at.into_iter().map(|(runtime, path)| (runtime, ImageSource::Place(path))).collect();
    let settings = images::Settings {
        dir: "/nonexistent".into(),
        sources,
        most_bytes: 0,
        within: Duration::ZERO,
        auth_file: None,
        plain_http: Vec::new(),
    };
    let nobody = Arc::new(|| Err("nothing is fetched here".into()));
    Arc::new(HostImages::new(settings, nobody, Logger::root(Discard, o!())))
}

fn call(environment: EnvironmentId, limits: Limits) -> Call {
    Call {
        execution: ExecutionId(Uuid::new_v4()),
        environment,
        request: RequestId::accept("r-1").unwrap(),
        data: r#"{"n":20}"#.to_owned(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        limits,
        files: FilesForm::None,
    }
}

fn limits(millis: u64, memory_mb: u64) -> Limits {
    Limits { timeout: Duration::from_millis(millis), memory_mb }
}

const USUAL: Limits = Limits { timeout: Duration::from_secs(10), memory_mb: 128 };

fn processes_naming(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&name))
        .collect()
}
