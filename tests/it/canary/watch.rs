//! What other users of the host, and its operator, can see while jobs run: command lines, environments, health.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::needles::Needles;
use crate::support::gpu::{Gpu, left};

const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until it is ended.
pub struct Watch {
    over: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Watch {
    pub fn start(gpu: &Gpu, needles: Needles) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (told, socket) = (Arc::clone(&over), gpu.daemon.health_socket());
        let (daemon, home) = (gpu.daemon.pid(), Arc::clone(&gpu.daemon.home));
        let task = tokio::spawn(async move {
            let (mut looks, mut found) = (0, Vec::new());
            let mut note = |what: String| {
                if !found.contains(&what) {
                    found.push(what);
                }
            };
            while !told.load(Ordering::Acquire) {
                for (path, bytes) in every("cmdline", pids()) {
                    if needles.are_in(&bytes) {
                        note(path);
                    }
                }
                let ours = left::processes(&home).into_iter().chain([daemon]).collect();
                for (path, bytes) in every("environ", ours) {
                    if needles.are_in(&bytes) {
                        note(path);
                    }
                }
                for route in ["/livez", "/readyz", "/healthz"] {
                    if needles.are_in(health(&socket, route).await.as_bytes()) {
                        note(route.to_owned());
                    }
                }
                looks += 1;
                tokio::time::sleep(PAUSE).await;
            }
            (looks, found)
        });
        Self { over, task }
    }

    /// How often it looked, and where it found what must not be there.
    pub async fn end(self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn every(what: &str, pids: Vec<i32>) -> Vec<(String, Vec<u8>)> {
    let path = |pid: i32| format!("/proc/{pid}/{what}");
    pids.into_iter().map(path).filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?))).collect()
}

async fn health(socket: &Path, route: &str) -> String {
    let client = crate::support::http().unix_socket(socket.to_owned()).build().unwrap();
    match client.get(format!("http://health{route}")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    }
}
