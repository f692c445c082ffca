//! The mount table of this process, putting mounts on it, and taking them off.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// One line of `/proc/self/mountinfo` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory within the filesystem that is mounted.
    pub root: PathBuf,
    pub point: PathBuf,
    pub filesystem: String,
    /// The filesystem's own options, `memory` of a v1 cgroup hierarchy for one.
    pub super_options: String,
    pub read_only: bool,
}

/// All mounts, in the order they were made.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn list() -> io::Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// Mount points beneath `prefix` and `prefix` itself, the latest first: the order to unmount them in.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn points_under(prefix: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(latest_first(list()?, prefix))
}

fn latest_first(mounts: Vec<Mount>, prefix: &Path) -> Vec<PathBuf> {
    mounts.into_iter().rev().map(|mount| mount.point).filter(|point| point.starts_with(prefix)).collect()
}

/// Takes a mount off the tree at once; the kernel ends it when its last user is gone (MNT_DETACH). Follows no link.
/// No error when nothing is mounted there.
///
/// # Errors
/// What umount2(2) said.
pub fn detach(point: &Path) -> io::Result<()> {
    match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mounts a tmpfs of `bytes` on a directory, open to its owner alone, without swap where the kernel knows that (Linux
/// 6.4), and without programs that raise rights, devices and device files.
///
/// # Errors
/// What mount(2) said: `EPERM` without CAP_SYS_ADMIN.
pub fn tmpfs(point: &Path, bytes: u64) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("size={bytes},mode=0700,nr_inodes=1048576");
    let with = |options: &str| mount(Some("cloister"), point, Some("tmpfs"), flags, Some(options));
    match with(&format!("{options},noswap")) {
        Err(nix::Error::EINVAL) => Ok(with(&options)?),
        other => Ok(other?),
    }
}

/// Shows `source` at `point` as well, read-only, without devices and without programs that raise rights. A sealed tree
/// stays sealed there, also for root.
///
/// # Errors
/// What mount(2) said. Where the sealing fails, nothing stays mounted.
pub fn bind_sealed(source: &Path, point: &Path) -> io::Result<()> {
    bind(source, point, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
}

fn bind(source: &Path, point: &Path, flags: MsFlags) -> io::Result<()> {
    mount(Some(source), point, NONE, MsFlags::MS_BIND, NONE)?;
    let sealing = mount(NONE, point, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, NONE);
    if sealing.is_err() {
        detach(point)?;
    }
    Ok(sealing?)
}

/// Shows `source` at `point` as well, read-only, and what is mounted beneath `point` later shows up wherever this mount was taken along to: in the
/// mount namespaces that are made from now on, until they leave it. It is of no peer group but its own, so that `source`
/// stays as it is. Read-only is all it is: a sandbox in a user namespace may not mount it again without a flag that it has here
/// (mount_namespaces(7)).
///
/// # Errors
/// As for [`bind_sealed`].
pub fn bind_shared(source: &Path, point: &Path) -> io::Result<()> {
    bind(source, point, MsFlags::MS_RDONLY)?;
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(NONE, point, NONE, propagation, NONE)?;
    }
    Ok(())
}

const NONE: Option<&Path> = None;

/// Lines that do not read as mountinfo are left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = 6 + fields.iter().skip(6).position(|field| *field == b"-")?;
    let options = String::from_utf8_lossy(fields.get(5)?);
    Some(Mount {
        root: unescape(fields.get(3)?),
        point: unescape(fields.get(4)?),
        filesystem: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        super_options: String::from_utf8_lossy(fields.get(dash + 3)?).into_owned(),
        read_only: options.split(',').any(|option| option == "ro"),
    })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match octal(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\")?.get(..3)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"23 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw master:3 propagate_from:2 - cgroup cgroup rw,memory\n\
        80 23 0:50 / /run/a\\040b\\134c rw - tmpfs tmpfs rw\n\
        81 80 0:51 / /run/a\\040b\\134c/inner rw - tmpfs tmpfs rw\n\
        not a line\n";

    #[test]
    fn fields_are_read_and_octal_escapes_undone() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 5);
        assert!(mounts[1].read_only && !mounts[0].read_only);
        assert_eq!(mounts[3].point, Path::new("/run/a b\\c"));
        assert_eq!(
            mounts[2],
            Mount {
                root: "/docker/abc".into(),
                point: "/sys/fs/cgroup/memory".into(),
                filesystem: "cgroup".to_owned(),
                super_options: "rw,memory".to_owned(),
                read_only: false,
            }
        );
    }

    #[test]
    fn points_come_latest_first_and_only_whole_names_match() {
        let points = latest_first(parse(TABLE), Path::new("/run/a b\\c"));
        assert_eq!(points, [PathBuf::from("/run/a b\\c/inner"), PathBuf::from("/run/a b\\c")]);
        assert!(latest_first(parse(TABLE), Path::new("/run/a")).is_empty());
    }

    #[test]
    fn what_is_mounted_beneath_a_shared_bind_is_not_in_its_source() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().canonicalize().expect("real path");
        let [source, point, tree] = ["source", "point", "tree"].map(|name| path.join(name));
        for directory in [&source.join("inner"), &point, &tree] {
            std::fs::create_dir_all(directory).expect("directory");
        }
        std::fs::write(tree.join("file"), "x").expect("file");
        bind_shared(&source, &point).expect("this test mounts, and needs root");
        bind_sealed(&tree, &point.join("inner")).expect("bind");
        assert!(point.join("inner/file").exists() && !source.join("inner/file").exists());
        let written = std::fs::write(point.join("inner/file"), "y").expect_err("sealed");
        assert_eq!(written.kind(), io::ErrorKind::ReadOnlyFilesystem);
        for mounted in points_under(&path).expect("list") {
            detach(&mounted).expect("detach");
        }
        assert!(points_under(&path).expect("list").is_empty() && source.join("inner").exists());
    }

    #[test]
    fn nothing_mounted_is_no_error_and_a_mount_is_taken_off() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().canonicalize().expect("real path");
        detach(&path).expect("nothing there");
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k"))
            .expect("this test mounts a tmpfs and needs root");
        assert_eq!(points_under(&path).expect("list"), std::slice::from_ref(&path));
        detach(&path).expect("detach");
        assert!(points_under(&path).expect("list").is_empty());
    }
}
