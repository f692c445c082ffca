//! The command lines of the three engines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::layout::{CONTAINER, state_in};

/// The runner's descriptors inside the sandbox, and in the engine's own process.
pub(super) const FRAMES_FD: i32 = 3;
pub(super) const REQUEST_FD: i32 = 4;

/// What makes the sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Runsc,
    Crun,
    Runc,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Runsc => "runsc",
            Kind::Crun => "crun",
            Kind::Runc => "runc",
        }
    }
}

/// An engine on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Engine {
    pub kind: Kind,
    pub program: PathBuf,
}

impl Engine {
    /// True when its sandboxes can have host ids of their own. In a plain container the handler's files would not be
    /// readable without an id-mapped mount, and it is for development only.
    pub(super) fn maps_ids(&self) -> bool {
        self.kind == Kind::Runsc
    }
}

/// What every runsc sandbox is started with.
///
/// Left out: `--directfs=false` (costs 30 ms a start; the sentry is in a user namespace of its own either way),
/// `--panic-log` (a sentry that panics is seen as an exit without a result; its report may hold the handler's memory).
const RUNSC_FLAGS: [&str; 10] = [
    // Its own warnings would otherwise stand on the handler's stderr. Fatal errors stand there all the same.
    "--log=/dev/null",
    "--platform=systrap",
    "--network=none",
    // The daemon's cgroup, which runsc is started in, is the only one.
    "--ignore-cgroups",
    "--host-fifo=none",
    "--overlay2=none",
    // What is bound in is sealed: nobody changes it under the sandbox.
    "--file-access-mounts=exclusive",
    "--oci-seccomp",
    "--watchdog-action=panic",
    "--fdlimit=4096",
];

/// Runs the bundle in `slot_dir` attached: the engine's process ends with the sandbox. `egress`: the bundle has a socket of
/// the host in it, which may be connected to; none can be made.
pub(super) fn run(kind: Kind, slot_dir: &Path, egress: bool) -> Vec<OsString> {
    let mut words = vec![OsString::from("--root"), state_in(slot_dir).into_os_string()];
    match kind {
        Kind::Runsc => {
            words.extend(RUNSC_FLAGS.map(OsString::from));
            words.push(host_sockets(egress).into());
            words.extend(["run", "--bundle"].map(OsString::from));
            words.push(slot_dir.into());
            for descriptor in [FRAMES_FD, REQUEST_FD] {
                words.extend(["--pass-fd".into(), format!("{descriptor}:{descriptor}").into()]);
            }
        }
        Kind::Crun => {
            words.push("--cgroup-manager=disabled".into());
            words.extend(plain_run(slot_dir));
        }
        // runc has no such switch: it makes a cgroup in every hierarchy, also where the slot has none. See `delete`.
        Kind::Runc => words.extend(plain_run(slot_dir)),
    }
    words.push(container(kind, slot_dir));
    words
}

fn host_sockets(egress: bool) -> &'static str {
    if egress { "--host-uds=open" } else { "--host-uds=none" }
}

/// Removes what runc made outside of the slot's own cgroup. The other two make nothing there.
pub(super) fn delete(slot_dir: &Path) -> Vec<OsString> {
    let state = state_in(slot_dir).into_os_string();
    vec!["--root".into(), state, "delete".into(), "--force".into(), container(Kind::Runc, slot_dir)]
}

/// The container's name. runc's is a cgroup's name as well, and must be the slot's own.
fn container(kind: Kind, slot_dir: &Path) -> OsString {
    match kind {
        Kind::Runsc | Kind::Crun => CONTAINER.into(),
        Kind::Runc => slot_dir.file_name().unwrap_or(slot_dir.as_os_str()).to_owned(),
    }
}

/// Descriptors 3 and 4 are the first two after the standard ones.
fn plain_run(slot_dir: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["run", "--preserve-fds", "2", "--bundle"].map(OsString::from).into();
    words.push(slot_dir.into());
    words
}

/// Starts a sandbox that ends at once: proof that the platform works here.
pub(super) fn smoke_test(state: &Path) -> Vec<OsString> {
    let mut words = vec![OsString::from("--root"), state.into()];
    words.extend(RUNSC_FLAGS.map(OsString::from));
    words.push(host_sockets(false).into());
    words.extend(["do", "/bin/true"].map(OsString::from));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines() {
        let lines: Vec<String> = [Kind::Runsc, Kind::Crun, Kind::Runc]
            .into_iter()
            .map(|kind| {
                let words = run(kind, Path::new("/run/cloister/slots/1"), false);
                let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                format!("{} {}", kind.name(), line.join(" "))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
        let open = run(Kind::Runsc, Path::new("/run/cloister/slots/1"), true);
        assert!(open.contains(&"--host-uds=open".into()) && !open.contains(&"--host-uds=none".into()));
    }
}
