//! What all parts of the double share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::arguments::Arguments;
use crate::hub::{Outgoing, Sockets};
use crate::queue::{Job, Queue};
use crate::switches::Switches;

/// Who is told about the running job, and what a socket that comes late hears first.
#[derive(Default)]
pub struct Current {
    pub client_id: Option<String>,
    pub last_node: Option<String>,
}

/// One ComfyUI.
pub struct Server {
    pub arguments: Arguments,
    pub switches: Switches,
    pub sockets: Mutex<Sockets>,
    pub current: Mutex<Current>,
    pub interrupted: AtomicBool,
    /// How many requests were answered 500 by the switch.
    pub broken_answers: AtomicU64,
    queue: Mutex<Queue>,
    work: Condvar,
    outgoing: UnboundedSender<Outgoing>,
    freezes: UnboundedSender<Duration>,
}

/// The ends that the event loop reads.
pub struct Wires {
    pub outgoing: UnboundedReceiver<Outgoing>,
    pub freezes: UnboundedReceiver<Duration>,
}

impl Server {
    pub fn new(arguments: Arguments, switches: Switches) -> (Arc<Self>, Wires) {
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let (freezes, to_freeze) = mpsc::unbounded_channel();
        let server = Self {
            arguments,
            switches,
            sockets: Mutex::default(),
            current: Mutex::default(),
            interrupted: AtomicBool::new(false),
            broken_answers: AtomicU64::new(0),
            queue: Mutex::default(),
            work: Condvar::new(),
            outgoing,
            freezes,
        };
        (Arc::new(server), Wires { outgoing: to_send, freezes: to_freeze })
    }

    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap()
    }

    /// Wakes the worker: there is a job, or memory to free.
    pub fn wake(&self) {
        self.work.notify_all();
    }

    /// Waits for the next job; `on_free` runs for each `/free` that asks for memory while idle.
    pub fn next_job(&self, mut on_free: impl FnMut()) -> Arc<Job> {
        let mut queue = self.queue();
        loop {
            if std::mem::take(&mut queue.free_memory) {
                on_free();
            }
            if let Some(job) = queue.take() {
                return job;
            }
            queue = self.work.wait(queue).unwrap();
        }
    }

    pub fn send(&self, message: Outgoing) {
        let _ = self.outgoing.send(message);
    }

    /// Tells every socket how long the queue is.
    pub fn send_status(&self) {
        self.send(Outgoing::status(self.queue().remaining()));
    }

    /// Holds the interpreter's lock: the event loop stands still for so long.
    pub fn freeze(&self, pause: Duration) {
        let _ = self.freezes.send(pause);
    }

    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
    }

    /// The path of `name`, `name [input]`, `sub/name [output]`, …; nothing when it leads out of its folder.
    pub fn annotated(&self, name: &str) -> Option<PathBuf> {
        let marked = ["input", "output", "temp"].iter().find_map(|kind| {
            let bare = name.strip_suffix(&format!(" [{kind}]"))?;
            Some((bare, *kind))
        });
        let (bare, kind) = marked.unwrap_or((name, "input"));
        let out = bare.starts_with('/') || bare.split('/').any(|part| part == "..");
        (!out).then(|| self.arguments.folder(kind).expect("a known folder").join(bare))
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}
