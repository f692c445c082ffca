//! Reading and writing the kernel's control files, with the path in each error.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::ports::cgroup::CgroupError;

/// The largest page of a Linux host: the kernel rounds a limit down by less than that.
const LARGEST_PAGE: u64 = 64 * 1024;

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError::File { action, path: path.to_owned(), source }
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(failed("read", path))
}

/// Writes in one call, as the kernel expects, to a file that exists.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let written = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(failed("write", path))
}

/// The file's value as a number; "max" is the largest there is.
pub(super) fn read_number(path: &Path) -> Result<u64, CgroupError> {
    let text = read(path)?;
    number(text.trim()).ok_or_else(|| format_error(path, &text))
}

/// The number beside a key, in files of lines such as `oom_kill 3`.
pub(super) fn read_field(path: &Path, key: &str) -> Result<u64, CgroupError> {
    let text = read(path)?;
    field(&text, key).ok_or_else(|| format_error(path, &text))
}

pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key { number(value.trim()) } else { None }
    })
}

fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// Writes a value and checks that the same is in force.
pub(super) fn set(path: &Path, value: &str) -> Result<(), CgroupError> {
    write(path, value)?;
    let found = read(path)?;
    if found.trim() == value { Ok(()) } else { Err(not_in_force(path, value, &found)) }
}

/// Checks a limit in bytes, which the kernel may have rounded down to a page.
pub(super) fn check_bytes(path: &Path, wanted: u64) -> Result<(), CgroupError> {
    let found = read_number(path)?;
    if found <= wanted && wanted - found < LARGEST_PAGE {
        return Ok(());
    }
    Err(not_in_force(path, &wanted.to_string(), &found.to_string()))
}

pub(super) fn not_in_force(path: &Path, wanted: &str, found: &str) -> CgroupError {
    CgroupError::NotInForce { path: path.to_owned(), wanted: wanted.to_owned(), found: found.trim().to_owned() }
}

fn format_error(path: &Path, found: &str) -> CgroupError {
    CgroupError::Format { path: path.to_owned(), found: found.chars().take(120).collect() }
}

/// The cgroups directly beneath a directory; none when it is gone.
pub(super) fn children(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(source) => return Err(failed("list", directory)(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        match entry.and_then(|entry| Ok((entry.file_type()?.is_dir(), entry.path()))) {
            Ok((true, path)) => found.push(path),
            Ok((false, _)) => {}
            Err(error) if is_gone(&error) => {}
            Err(source) => return Err(failed("list", directory)(source)),
        }
    }
    Ok(found)
}

/// A directory and all beneath it, each before its children; it may be gone by now.
pub(super) fn with_descendants(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(current) = all.get(next) {
        let beneath = children(current)?;
        all.extend(beneath);
        next += 1;
    }
    Ok(all)
}

/// Pids in these cgroups and beneath them. Those of another pid namespace, which read 0, are left out.
pub(super) fn processes(directories: &[PathBuf]) -> Result<BTreeSet<i32>, CgroupError> {
    let mut pids = BTreeSet::new();
    for directory in directories {
        for cgroup in with_descendants(directory)? {
            let path = cgroup.join("cgroup.procs");
            match std::fs::read_to_string(&path) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0)),
                Err(error) if is_gone(&error) => {}
                Err(source) => return Err(failed("read", &path)(source)),
            }
        }
    }
    Ok(pids)
}

/// True when the cgroup vanished: its file before it was opened (ENOENT), or after (ENODEV).
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Nothing to say about a file whose cgroup is gone.
pub(super) fn unless_gone(result: Result<(), CgroupError>) -> Result<(), CgroupError> {
    match result {
        Err(CgroupError::File { source, .. }) if is_gone(&source) => Ok(()),
        other => other,
    }
}

/// Makes a directory of the hierarchy that may exist already.
pub(super) fn make_directory(path: &Path) -> Result<(), CgroupError> {
    const READ_ONLY: &str = "the cgroup filesystem cannot be written here: run the daemon as root outside a container, or \
        give the container a writable /sys/fs/cgroup (docker: --privileged, or --cgroupns=private with a rw mount)";
    match std::fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM)) => {
            Err(CgroupError::Unusable(READ_ONLY))
        }
        Err(source) => Err(failed("create", path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_key() {
        let events = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 0\n";
        assert_eq!(field(events, "oom_kill"), Some(3));
        assert_eq!(field(events, "oom"), Some(1));
        assert_eq!(field(events, "kill"), None);
        assert_eq!(field("oom_kill many\n", "oom_kill"), None);
    }

    #[test]
    fn a_page_of_rounding_is_in_force_and_more_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory.max");
        for (content, wanted, fine) in
            [("8192\n", 10_000, true), ("max\n", 10_000, false), ("0\n", 1_000_000, false), ("10001\n", 10_000, false)]
        {
            std::fs::write(&path, content).expect("write");
            assert_eq!(check_bytes(&path, wanted).is_ok(), fine, "{content}");
        }
    }

    #[test]
    fn what_is_no_number_is_a_format_error_with_the_path() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("pids.max");
        std::fs::write(&path, "many").expect("write");
        assert!(matches!(read_number(&path), Err(CgroupError::Format { found, .. }) if found == "many"));
    }
}
