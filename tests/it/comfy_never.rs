//! A ComfyUI that never starts: the daemon stands, names the cause in readiness, and takes no jobs that it cannot run.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::eventually;
use crate::support::gpu::{Gpu, Setup, left};

/// Starts a daemon whose ComfyUI does not start, and waits until readiness says why.
async fn is_told(setup: Setup, why: &str) {
    let mut gpu = setup.without_waiting().set("comfy.start_deadline", "20 s").start().await;
    eventually("a daemon that is not ready, and says why", Duration::from_secs(60), async || {
        let seen = gpu.daemon.health("/readyz").await;
        match &seen {
            Ok((503, body)) if body["reasons"].to_string().contains(why) => Ok(()),
            _ => Err(format!("{seen:?}\n{}", gpu.daemon.log_text())),
        }
    })
    .await;
    assert_eq!(gpu.daemon.health("/livez").await.unwrap().0, 200, "it lives");
    gpu.daemon.signal(Signal::SIGTERM);
    assert_eq!(gpu.daemon.ended(Duration::from_secs(30)).await.code(), Some(0));
    eventually("an empty host", Duration::from_secs(10), async || left::beyond(&gpu.daemon.home, 0)).await;
}

#[tokio::test]
async fn a_directory_without_comfyui_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_string_lossy().into_owned();
    is_told(Gpu::real().env("COMFYUI_DIR", &path), &format!("there is no main.py in {path}")).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    is_told(Gpu::real().env("COMFY_PORT", &port.to_string()), &format!("port {port} cannot be taken")).await;
}

#[tokio::test]
async fn a_comfyui_that_ends_at_its_start_is_told_with_its_last_words() {
    is_told(Gpu::real().env("COMFYUI_ARGS", "--no-such-option"), "--no-such-option").await;
}
