//! Who a process is: its pid together with its start time, since pids are used again.

use std::io;

use procfs::ProcError;
use procfs::process::Process;

/// Start time of a process in clock ticks since boot, field 22 of `/proc/<pid>/stat` (proc(5)). A zombie has one too.
///
/// # Errors
/// `NotFound` when no such process exists; else what reading `/proc` said.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = Process::new(pid).and_then(|process| process.stat()).map_err(plain)?;
    Ok(stat.starttime)
}

/// The procfs crate's error as the system's own.
pub(super) fn plain(error: ProcError) -> io::Error {
    match error {
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        ProcError::Io(source, _) => source,
        _ => io::ErrorKind::InvalidData.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::start_time;

    #[test]
    fn this_process_has_a_start_time_and_a_missing_one_is_not_found() {
        let own = i32::try_from(std::process::id()).expect("pid fits");
        assert!(start_time(own).expect("own start time") > 0);
        let missing = start_time(i32::MAX).expect_err("no such process");
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    }
}
