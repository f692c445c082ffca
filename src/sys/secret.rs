//! Memory for what is secret for long: out of swap, out of core dumps, out of children, zero when it is dropped.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;

use zeroize::Zeroizing;

/// How well a [`Secret`] is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Only this process can read it, the kernel itself cannot (`memfd_secret`).
    Unmapped,
    /// It is never swapped out (`mlock`).
    Locked,
    /// It may be swapped out: neither is allowed here. `RLIMIT_MEMLOCK` is the usual reason.
    Plain,
}

/// `N` bytes in memory of their own.
pub struct Secret<const N: usize> {
    memory: Memory<N>,
}

enum Memory<const N: usize> {
    Mapped { start: NonNull<u8>, size: usize, protection: Protection },
    // The kernel maps nothing for us any more.
    Heap(Box<Zeroizing<[u8; N]>>),
}

#[expect(unsafe_code, reason = "a pointer is not Send by itself")]
// SAFETY: the mapping belongs to this value alone, and is only read through `&self`.
unsafe impl<const N: usize> Send for Memory<N> {}
#[expect(unsafe_code, reason = "a pointer is not Sync by itself")]
// SAFETY: as above: without `&mut self` nobody writes.
unsafe impl<const N: usize> Sync for Memory<N> {}

impl<const N: usize> Secret<N> {
    /// Zeroes, kept as well as the kernel allows.
    pub fn zeroed() -> Self {
        let size = N.max(1).next_multiple_of(page_size());
        let memory = map_unmapped(size).or_else(|| map_locked(size));
        Self { memory: memory.unwrap_or_else(|| Memory::Heap(Box::new(Zeroizing::new([0; N])))) }
    }

    /// How well it is kept. What is less than [`Protection::Locked`] is worth a warning.
    pub fn protection(&self) -> Protection {
        match &self.memory {
            Memory::Mapped { protection, .. } => *protection,
            Memory::Heap(_) => Protection::Plain,
        }
    }
}

impl<const N: usize> Deref for Secret<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        match &self.memory {
            #[expect(unsafe_code, reason = "the mapping is raw memory")]
            // SAFETY: the mapping has at least `N` bytes, all of them set, for as long as `self` lives.
            Memory::Mapped { start, .. } => unsafe { start.cast().as_ref() },
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl<const N: usize> DerefMut for Secret<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        match &mut self.memory {
            #[expect(unsafe_code, reason = "the mapping is raw memory")]
            // SAFETY: as in `deref`, and `self` is borrowed alone.
            Memory::Mapped { start, .. } => unsafe { start.cast().as_mut() },
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl<const N: usize> Drop for Memory<N> {
    fn drop(&mut self) {
        if let Memory::Mapped { start, size, .. } = self {
            #[expect(unsafe_code, reason = "the mapping is raw memory")]
            // SAFETY: the mapping is ours, of this size, and nobody has a reference to it any more. Unmapping unlocks.
            unsafe {
                libc::explicit_bzero(start.as_ptr().cast(), *size);
                libc::munmap(start.as_ptr().cast(), *size);
            }
        }
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret([redacted {N} bytes], {:?})", self.protection())
    }
}

fn page_size() -> usize {
    #[expect(unsafe_code, reason = "sysconf returns a bare number")]
    // SAFETY: sysconf takes a number and has no other effect.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Memory that the kernel has no mapping of (Linux 5.14 and later, where it is not turned off).
fn map_unmapped<const N: usize>(size: usize) -> Option<Memory<N>> {
    #[expect(unsafe_code, reason = "neither libc nor nix wraps memfd_secret")]
    // SAFETY: the system call takes flags and returns a descriptor that is ours.
    let file = unsafe {
        let number = i32::try_from(libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC)).ok()?;
        if number < 0 {
            return None;
        }
        OwnedFd::from_raw_fd(number)
    };
    nix::unistd::ftruncate(&file, i64::try_from(size).ok()?).ok()?;
    // Such pages are locked and left out of dumps by themselves.
    map(size, libc::MAP_SHARED, file.as_raw_fd(), Protection::Unmapped)
}

/// Ordinary memory, locked where that is allowed.
fn map_locked<const N: usize>(size: usize) -> Option<Memory<N>> {
    let mut mapped = map(size, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, Protection::Plain)?;
    if let Memory::Mapped { start, protection, .. } = &mut mapped {
        #[expect(unsafe_code, reason = "the mapping is raw memory")]
        // SAFETY: the mapping has `size` bytes; neither call changes what it holds.
        let locked = unsafe {
            libc::madvise(start.as_ptr().cast(), size, libc::MADV_DONTDUMP);
            libc::mlock(start.as_ptr().cast(), size) == 0
        };
        if locked {
            *protection = Protection::Locked;
        }
    }
    Some(mapped)
}

fn map<const N: usize>(
    size: usize,
    flags: libc::c_int,
    file: libc::c_int,
    protection: Protection,
) -> Option<Memory<N>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    #[expect(unsafe_code, reason = "the mapping is raw memory")]
    // SAFETY: the kernel chooses the place. A child has no use for it between fork and exec: it does not get it.
    let start = unsafe {
        let start = libc::mmap(std::ptr::null_mut(), size, access, flags, file, 0);
        if start == libc::MAP_FAILED {
            return None;
        }
        libc::madvise(start, size, libc::MADV_DONTFORK);
        start
    };
    Some(Memory::Mapped { start: NonNull::new(start.cast())?, size, protection })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that the kernel tells of the mapping at `address`.
    fn flags(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        for line in maps.lines() {
            if let Some((start, end)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')) {
                let number = |text| usize::from_str_radix(text, 16).unwrap_or(usize::MAX);
                within = (number(start)..number(end)).contains(&address);
            } else if within && let Some(flags) = line.strip_prefix("VmFlags: ") {
                return Some(flags.to_owned());
            }
        }
        None
    }

    #[test]
    fn it_holds_its_bytes_and_is_gone_when_dropped() {
        let mut secret = Secret::<32>::zeroed();
        assert_eq!(*secret, [0; 32]);
        secret.copy_from_slice(&[7; 32]);
        assert_eq!(*secret, [7; 32]);
        assert!(format!("{secret:?}").starts_with("Secret([redacted 32 bytes], "));
    }

    #[test]
    fn it_is_neither_dumped_nor_inherited_nor_swapped() {
        let kept: [Option<Memory<32>>; 2] = [map_unmapped(page_size()), map_locked(page_size())];
        for memory in kept.into_iter().flatten() {
            let Memory::Mapped { start, protection, .. } = &memory else { panic!("mapped") };
            assert_ne!(*protection, Protection::Plain);
            let flags = flags(start.as_ptr() as usize).unwrap();
            let has = |flag: &str| flags.split_whitespace().any(|other| other == flag);
            // dc: not copied on fork; dd: not dumped; lo: locked.
            assert!(has("dc") && has("dd") && has("lo"), "{protection:?}: {flags}");
        }
    }

    #[test]
    fn there_is_a_secret_even_where_nothing_can_be_locked() {
        let mut secret = Secret { memory: Memory::Heap(Box::new(Zeroizing::new([0; 4]))) };
        secret[3] = 1;
        assert_eq!((secret.protection(), secret.len()), (Protection::Plain, 4));
    }
}
