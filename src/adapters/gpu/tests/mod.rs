//! The adapter on a stub of the driver's library, compiled on the spot by the linker driver that rustc needs anyway.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::ports::gpu::Gpu;

struct Stub {
    directory: TempDir,
    gpus: NvmlGpus,
}

impl Stub {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("libnvidia-ml.so");
        compile(&directory.path().join("control"), &library);
        let gpus = NvmlGpus::new(Some(library), Logger::root(slog::Discard, slog::o!()));
        Self { directory, gpus }
    }

    /// From now on the stub does this. Written whole, for it is read at any moment.
    fn say(&self, words: &str) {
        let fresh = self.directory.path().join("fresh");
        std::fs::write(&fresh, words).unwrap();
        std::fs::rename(fresh, self.directory.path().join("control")).unwrap();
    }

    async fn gpus(&self) -> Vec<Gpu> {
        match self.gpus.look().await {
            GpuPicture::Gpus(gpus) => gpus,
            other => panic!("{other:?}"),
        }
    }

    /// Looks until the first GPU is as wanted.
    async fn until(&self, wanted: impl Fn(&Gpu) -> bool) -> Gpu {
        for _ in 0..2000 {
            let gpu = self.gpus().await.remove(0);
            if wanted(&gpu) {
                return gpu;
            }
            tokio::task::yield_now().await;
        }
        panic!("never");
    }

    /// How often the driver was entered while it hung.
    fn entries(&self) -> usize {
        std::fs::read(self.directory.path().join("control.entries")).map_or(0, |bytes| bytes.len())
    }
}

fn compile(control: &Path, library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adapters/gpu/tests/stub.c");
    #[expect(clippy::disallowed_methods, reason = "a compiler that this test waits for")]
    let status = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .arg(library)
        .arg(format!("-DCONTROL=\"{}\"", control.display()))
        .arg(source)
        .status()
        .expect("cc is installed: rustc links with it");
    assert!(status.success());
}

#[tokio::test]
async fn a_healthy_gpu_is_told_with_its_figures_and_what_it_does_not_tell_is_absent() {
    let stub = Stub::new();
    let gpus = stub.gpus().await;
    assert_eq!(gpus.len(), 2);
    let first = Gpu {
        index: 0,
        uuid: "GPU-00000".into(),
        name: "Stub".into(),
        memory_total: Some(1000),
        memory_used: Some(250),
        temperature: Some(41),
        xid: None,
        faults: 0,
        unfit: None,
    };
    assert_eq!(gpus[0], first);
    assert_eq!((gpus[1].temperature, gpus[1].unfit.as_deref()), (None, None));
    assert_eq!(stub.gpus.devices().await, ["GPU-00000", "GPU-00001"]);
}

#[tokio::test]
async fn a_host_without_library_or_driver_has_no_gpus_and_no_error() {
    let absent = NvmlGpus::new(Some("/nonexistent/libnvidia-ml.so.1".into()), Logger::root(slog::Discard, slog::o!()));
    assert_eq!(absent.look().await, GpuPicture::NoDriver);
    assert_eq!(absent.devices().await, Vec::<String>::new());
    let stub = Stub::new();
    stub.say("nodriver");
    assert_eq!(stub.gpus.look().await, GpuPicture::NoDriver);
    stub.say("healthy");
    assert_eq!(stub.gpus().await.len(), 2, "a driver may be loaded later");
}

#[tokio::test]
async fn a_lost_gpu_and_one_that_needs_a_reset_are_unfit_at_once_and_do_not_hide_the_other() {
    let stub = Stub::new();
    stub.gpus().await;
    for (word, expected) in [("lost", "fell off the bus"), ("reset", "nvidia-smi --gpu-reset -i 0")] {
        stub.say(word);
        let gpus = stub.gpus().await;
        let unfit = gpus[0].unfit.as_deref().unwrap_or_default();
        assert!(unfit.contains(expected), "{unfit}");
        assert_eq!((gpus[0].uuid.as_str(), gpus[1].unfit.as_deref()), ("GPU-00000", None));
        stub.say("healthy");
        assert_eq!(stub.gpus().await[0].unfit, None);
    }
    stub.say("gone");
    let gpus = stub.gpus().await;
    assert_eq!(gpus.len(), 2, "what was there once is missed");
    assert!(gpus.iter().all(|gpu| gpu.unfit.is_some()));
}

#[tokio::test]
async fn an_error_that_says_nothing_definite_makes_unfit_when_it_lasts() {
    let stub = Stub::new();
    stub.say("unknown");
    for _ in 0..4 {
        assert_eq!(stub.gpus().await[0].unfit, None);
    }
    assert!(stub.gpus().await[0].unfit.is_some());
    stub.say("healthy");
    assert_eq!(stub.gpus().await[0].unfit, None);
}

#[tokio::test]
async fn an_xid_is_counted_or_condemns_the_gpu_as_its_cure_says() {
    let stub = Stub::new();
    assert_eq!(stub.gpus().await[0].xid, None);
    stub.say("xid 31 1");
    let faulty = stub.until(|gpu| gpu.xid == Some(31)).await;
    assert_eq!((faulty.faults, faulty.unfit), (1, None));
    stub.say("xid 43 2");
    let ignored = stub.until(|gpu| gpu.xid == Some(43)).await;
    assert_eq!((ignored.faults, ignored.unfit), (1, None));
    stub.say("xid 31 3");
    assert_eq!(stub.until(|gpu| gpu.xid == Some(31)).await.faults, 2);
    stub.say("xid 119 4");
    let condemned = stub.until(|gpu| gpu.xid == Some(119)).await;
    assert!(condemned.unfit.unwrap().starts_with("XID 119 needs a reset"));
    stub.say("xid 13 5");
    let still = stub.until(|gpu| gpu.xid == Some(13)).await;
    assert!(still.unfit.is_some(), "a later one does not hide it");
}

#[tokio::test]
async fn a_driver_that_hangs_is_asked_once_and_heard_again_when_it_comes_back() {
    let stub = Stub::new();
    stub.gpus().await;
    stub.say("hang");
    stub.gpus.ask().unwrap();
    while stub.entries() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let unwell = GpuPicture::Unwell("no answer within 5 s".into());
    #[expect(clippy::disallowed_methods, reason = "the paused clock of this test")]
    let now = tokio::time::Instant::now;
    let began = now();
    let looks = futures_util::future::join3(stub.gpus.look(), stub.gpus.look(), stub.gpus.look()).await;
    assert_eq!(looks, (unwell.clone(), unwell.clone(), unwell.clone()));
    assert!(now() - began < Duration::from_millis(5_100));
    assert_eq!(stub.gpus.look().await, unwell);
    tokio::time::resume();
    stub.say("healthy");
    assert_eq!(stub.gpus().await.len(), 2);
    assert_eq!(stub.entries(), 1);
}
