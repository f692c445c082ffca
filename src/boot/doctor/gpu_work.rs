//! What GPU work needs of the host: ComfyUI and its interpreter, RAM to work in, GPUs, ports, and a private key.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use slog::Logger;
use zeroize::Zeroizing;

use super::{Finding, Verdict, python};
use crate::adapters::gpu::NvmlGpus;
use crate::adapters::keyring::{Keyring, Sources};
use crate::adapters::process::HostSpawner;
use crate::boot::instances;
use crate::config::{Comfy, Config, variable};
use crate::domain::time::Moment;
use crate::ports::gpu::{Gpu, GpuPicture, Gpus};
use crate::ports::vault::Vault;
use crate::telemetry::error_chain;

const MIB: u64 = 1 << 20;
/// Below this a RAM directory's file system is too small for pictures of any size; containers often have 64 MiB.
const SMALL_MIB: u64 = 1024;

/// All of them. Where no checkout is named, what only ComfyUI needs is left out.
pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let gpus = NvmlGpus::new(None, Logger::root(slog::Discard, slog::o!()));
    let picture = gpus.look().await;
    let mut findings = gpus_found(&picture);
    let comfy = &config.comfy;
    let Some(dir) = &comfy.dir else {
        let text = "off: no ComfyUI is named; set COMFYUI_DIR (comfy.dir) to a checkout";
        findings.push(Finding::new("ComfyUI", Verdict::Note, text));
        return findings;
    };
    findings.push(checkout(dir));
    findings.push(python::interpreter(comfy, &HostSpawner).await);
    findings.push(models(&comfy.model_dir));
    findings.extend(ram(comfy));
    findings.extend(ports(comfy, &gpus.devices().await));
    findings.push(key(config));
    findings
}

fn gpus_found(picture: &GpuPicture) -> Vec<Finding> {
    match picture {
        GpuPicture::NoDriver => {
            let text = "no NVIDIA driver: ComfyUI can run on the CPU only (COMFYUI_ARGS=--cpu)";
            vec![Finding::new("GPUs", Verdict::Note, text)]
        }
        GpuPicture::Unwell(reason) => {
            let text = format!("the driver gives no answer: {reason}; see dmesg for NVRM lines, restart the host");
            vec![Finding::new("GPUs", Verdict::Bad, text)]
        }
        GpuPicture::Gpus(gpus) if gpus.is_empty() => {
            vec![Finding::new("GPUs", Verdict::Note, "the driver knows none: give the container one (--gpus all)")]
        }
        GpuPicture::Gpus(gpus) => gpus.iter().map(gpu).collect(),
    }
}

fn gpu(gpu: &Gpu) -> Finding {
    let Gpu { index, name, uuid, .. } = gpu;
    let text = format!("{index}: {name}, {uuid}");
    match &gpu.unfit {
        Some(unfit) => Finding::new("GPU", Verdict::Bad, format!("{text}: {unfit}")),
        None => {
            let memory = gpu.memory_total.map(|bytes| format!(", {} MiB", bytes / MIB)).unwrap_or_default();
            let used = gpu.memory_used.map(|bytes| format!(" ({} used)", bytes / MIB)).unwrap_or_default();
            let warm = gpu.temperature.map(|degrees| format!(", {degrees} °C")).unwrap_or_default();
            Finding::new("GPU", Verdict::Good, format!("{text}{memory}{used}{warm}"))
        }
    }
}

fn checkout(dir: &Path) -> Finding {
    let shown = dir.display();
    if !dir.is_dir() {
        let text = format!("{shown} is not a directory; set COMFYUI_DIR (comfy.dir) to a checkout");
        return Finding::new("ComfyUI", Verdict::Bad, text);
    }
    if !dir.join("main.py").is_file() {
        let text = format!("{shown} has no main.py: it is no ComfyUI checkout; set COMFYUI_DIR (comfy.dir) to one");
        return Finding::new("ComfyUI", Verdict::Bad, text);
    }
    Finding::new("ComfyUI", Verdict::Good, shown.to_string())
}

fn models(dir: &Path) -> Finding {
    if dir.is_dir() {
        return Finding::new("models", Verdict::Good, dir.display().to_string());
    }
    let text = format!(
        "{} is not there: only the checkout's own models are found; set COMFYUI_MODEL_DIR (comfy.model_dir)",
        dir.display()
    );
    Finding::new("models", Verdict::Note, text)
}

fn ram(comfy: &Comfy) -> Vec<Finding> {
    const WHAT: &str = "RAM directory";
    let dir = &comfy.ram_dir;
    let shown = dir.display();
    let stat = match statfs(dir) {
        Ok(stat) => stat,
        Err(errno) => {
            let text = format!("{shown}: {errno}; set comfy.ram_dir to a tmpfs");
            return vec![Finding::new(WHAT, Verdict::Bad, text)];
        }
    };
    if stat.filesystem_type() != TMPFS_MAGIC {
        let text = format!("{shown} is no tmpfs, and what jobs bring and make would reach a disk: set comfy.ram_dir");
        return vec![Finding::new(WHAT, Verdict::Bad, text)];
    }
    let block = u64::try_from(stat.block_size()).unwrap_or(0);
    let (size, free) = (stat.blocks() * block / MIB, stat.blocks_available() * block / MIB);
    let mut findings = vec![if size < SMALL_MIB.min(comfy.ram_mib) {
        let text = format!(
            "{shown} has {size} MiB: where Cloister may not mount a tmpfs of its own that is too small; enlarge it (docker run --shm-size=4g)"
        );
        Finding::new(WHAT, Verdict::Note, text)
    } else {
        Finding::new(WHAT, Verdict::Good, format!("{shown}: {size} MiB, {free} free"))
    }];
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    findings.push(swap(dir, &mounts, &swaps));
    findings
}

/// `mounts` and `swaps` as the kernel writes them.
fn swap(dir: &Path, mounts: &str, swaps: &str) -> Finding {
    if swaps.lines().count() <= 1 {
        return Finding::new("swap", Verdict::Good, "off: what lies in RAM stays there");
    }
    let here = |line: &&str| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == dir);
    let pinned = mounts.lines().rfind(here).and_then(|line| line.split(' ').nth(3));
    if pinned.is_some_and(|options| options.split(',').any(|option| option == "noswap")) {
        return Finding::new("swap", Verdict::Good, format!("on, and {} is mounted with noswap", dir.display()));
    }
    let text = format!(
        "on, and {} can be swapped out to a disk: swapoff -a, or Linux 6.4 and the right to mount a tmpfs with noswap",
        dir.display()
    );
    Finding::new("swap", Verdict::Note, text)
}

fn ports(comfy: &Comfy, devices: &[String]) -> Vec<Finding> {
    let finding = |port: u16| match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Finding::new("ComfyUI's port", Verdict::Good, format!("{port} is free")),
        Err(source) => {
            let text = format!("{port}: {source}; a running daemon's own, or choose others with COMFY_PORT");
            Finding::new("ComfyUI's port", Verdict::Note, text)
        }
    };
    instances::specs(comfy, devices).iter().map(|spec| finding(spec.port)).collect()
}

fn key(config: &Config) -> Finding {
    const WHAT: &str = "private key";
    let crypto = &config.crypto;
    let given = variable("WORKER_PRIVATE_KEY_B64").map(Zeroizing::new);
    let credentials = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let sources = Sources::new(crypto.private_key_file.clone(), crypto.former_key_files.clone(), credentials, given);
    match sources.and_then(|sources| Keyring::open(sources, crypto.overlap, Moment(0))) {
        Err(error) => Finding::new(WHAT, Verdict::Bad, error_chain(&error).to_string()),
        Ok(ring) => match ring.keys().iter().find(|key| key.current) {
            Some(key) => Finding::new(WHAT, Verdict::Good, format!("kid {}, public key {}", key.kid, key.public_key)),
            None if crypto.required => {
                let text = "none, and sealed requests only: set WORKER_PRIVATE_KEY_B64 (`cloister keygen` makes one)";
                Finding::new(WHAT, Verdict::Bad, text)
            }
            None => Finding::new(WHAT, Verdict::Note, "none: workflows in clear only (`cloister keygen` makes one)"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_without_its_program_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = checkout(dir.path());
        assert!(
            wrong.verdict == Verdict::Bad && wrong.text.contains("no main.py") && wrong.text.contains("COMFYUI_DIR")
        );
        assert!(checkout(&dir.path().join("x")).text.contains("not a directory"));
        fs::write(dir.path().join("main.py"), "").unwrap();
        assert_eq!(checkout(dir.path()).verdict, Verdict::Good);
    }

    #[test]
    fn swap_is_fine_when_it_is_off_or_cannot_take_the_directory() {
        let (none, some) = ("Filename Type Size\n", "Filename Type Size\n/dev/sda2 partition 1\n");
        let mounts = |options: &str| format!("tmpfs /dev tmpfs rw 0 0\ntmpfs /dev/shm tmpfs {options} 0 0\n");
        let judged = |mounts: &str, swaps: &str| swap(Path::new("/dev/shm"), mounts, swaps).verdict;
        assert_eq!(judged(&mounts("rw"), none), Verdict::Good);
        assert_eq!(judged(&mounts("rw,noswap,size=1g"), some), Verdict::Good);
        assert_eq!(judged(&mounts("rw,nosuid"), some), Verdict::Note);
        assert_eq!(judged("", some), Verdict::Note);
    }

    #[test]
    fn gpus_are_told_with_what_is_wrong() {
        assert_eq!(gpus_found(&GpuPicture::NoDriver)[0].verdict, Verdict::Note);
        assert_eq!(gpus_found(&GpuPicture::Unwell("slow".into()))[0].verdict, Verdict::Bad);
        let fit = Gpu {
            index: 0,
            uuid: "GPU-1".into(),
            name: "H200".into(),
            memory_total: Some(2 * MIB),
            memory_used: Some(MIB),
            temperature: Some(40),
            xid: None,
            faults: 0,
            unfit: None,
        };
        let lost = Gpu { unfit: Some("it is lost".into()), index: 1, ..fit.clone() };
        let told: Vec<String> =
            gpus_found(&GpuPicture::Gpus(vec![fit, lost])).into_iter().map(|finding| finding.text).collect();
        assert_eq!(told, ["0: H200, GPU-1, 2 MiB (1 used), 40 °C", "1: H200, GPU-1: it is lost"]);
    }
}
