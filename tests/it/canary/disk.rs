//! Every write to a disk-backed file system, seen by the kernel's own notifications (fanotify): whatever a process of
//! interest writes is read back through the event's descriptor, also of a file without a name or one that is gone.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};

use super::needles::Needles;

/// Of one file, as much is read.
const MOST: u64 = 64 << 20;
/// Between two looks for events.
const PAUSE: Duration = Duration::from_millis(5);

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Every file that was written.
    pub written: Vec<PathBuf>,
    /// Those that held a needle.
    pub found: Vec<PathBuf>,
    /// The kernel dropped events: nothing is proven then.
    pub overflown: bool,
}

/// A watch that runs until it is ended.
pub struct DiskWatch {
    over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl DiskWatch {
    /// Watches the file systems that hold these paths, for what `root` and the processes below it write. A writer that
    /// has ended counts as one of them: nobody can say any more whose it was.
    pub fn start(paths: &[&Path], root: Arc<Mutex<Option<i32>>>, needles: Needles) -> Self {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE)
            .expect("fanotify: these tests need CAP_SYS_ADMIN");
        for path in paths {
            let mask = MaskFlags::FAN_MODIFY | MaskFlags::FAN_CLOSE_WRITE;
            let here = File::open("/").unwrap();
            group.mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM, mask, &here, Some(*path)).unwrap();
        }
        let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (told, kept) = (Arc::clone(&over), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            loop {
                let last = told.load(Ordering::Acquire);
                match group.read_events() {
                    Ok(events) => events.iter().for_each(|event| look_at(event, &root, &needles, &kept)),
                    Err(Errno::EAGAIN) if last => return,
                    Err(Errno::EAGAIN) => std::thread::sleep(PAUSE),
                    Err(error) => panic!("fanotify: {error}"),
                }
            }
        });
        Self { over, seen, thread }
    }

    /// Looks at all that is still to come, and tells.
    pub fn end(self) -> Seen {
        self.over.store(true, Ordering::Release);
        self.thread.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

fn look_at(event: &FanotifyEvent, root: &Mutex<Option<i32>>, needles: &Needles, kept: &Mutex<Seen>) {
    let Some(descriptor) = event.fd() else {
        kept.lock().unwrap().overflown = true;
        return;
    };
    let number = descriptor.as_raw_fd();
    let path = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
    let looked_at = match is_of(event.pid(), *root.lock().unwrap()) {
        Some(ours) => ours,
        // Compilers at work on the same host end quickly, too, and what they write fills gigabytes.
        None => !path.components().any(|part| part.as_os_str() == "target"),
    };
    if !looked_at {
        return;
    }
    let file = File::from(descriptor.try_clone_to_owned().unwrap());
    // Not by its length: it may shrink and grow meanwhile.
    let mut bytes = Vec::new();
    let mut piece = vec![0; 1 << 20];
    while (bytes.len() as u64) < MOST {
        match file.read_at(&mut piece, bytes.len() as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
    let holds = needles.are_in(&bytes);
    let mut seen = kept.lock().unwrap();
    if !seen.written.contains(&path) {
        seen.written.push(path.clone());
    }
    if holds && !seen.found.contains(&path) {
        seen.found.push(path);
    }
}

/// Whether a process is `root` or below it; none when it has ended.
fn is_of(mut pid: i32, root: Option<i32>) -> Option<bool> {
    loop {
        if Some(pid) == root {
            return Some(true);
        }
        if pid <= 1 {
            return Some(false);
        }
        pid = procfs::process::Process::new(pid).and_then(|process| process.stat()).ok()?.ppid;
    }
}
