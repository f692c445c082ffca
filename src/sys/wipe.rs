//! An allocator that leaves nothing behind: each block is zeroed before it is freed.
//!
//! A text that was opened passes through buffers, strings and parsers. Wiping the ones we know by hand misses the copies that
//! a growing `Vec` or a parser's map left; the allocator sees them all.
//!
//! A block that grows or shrinks is never handed to the C library's `realloc`, which may move it and free the old place as
//! it is: a new block is made, and the old one is freed, and so zeroed, here.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with a `free` that zeroes first.
pub struct Wiping;

#[expect(unsafe_code, reason = "an allocator is made of raw memory")]
// SAFETY: all memory is System's, with the layouts as they came. `realloc` is the trait's own: allocate, copy, dealloc.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are System's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is ours to write until it is freed in the next line. A plain fill before a free would be left
        // out by the compiler; explicit_bzero never is.
        unsafe {
            libc::explicit_bzero(block.cast(), layout.size());
            System.dealloc(block, layout);
        }
    }
}

/// Bounds what the C library keeps of freed memory: nothing of a block over 4 MiB, and 2 MiB at the heap's end.
///
/// By itself it raises these bounds with each large block that is freed, up to 32 and 64 MiB. Much less would be slow: each
/// page that comes back from the kernel is a fault.
pub fn bound_free_memory() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "mallopt has no wrapper")]
    // SAFETY: mallopt takes two numbers, at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 << 20);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::hint::black_box;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const LENGTH: usize = 48;

    /// The marker's bytes one by one, so that it stands nowhere but where a test puts it.
    fn marker(salt: u8) -> impl Iterator<Item = u8> {
        (0..LENGTH).map(move |at| black_box((at as u8).wrapping_mul(37) ^ salt ^ 0x5a))
    }

    /// How often the marker stands in this process's writable memory, but for the memory that it is looked for with.
    fn count(salt: u8) -> usize {
        // Not from the heap, which is what is looked at; and wiped of what it saw before the next piece is read.
        static PIECE: std::sync::Mutex<[u8; 1 << 16]> = std::sync::Mutex::new([0; 1 << 16]);
        let mut piece = PIECE.lock().unwrap();
        let own = piece.as_ptr() as u64;
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[v")) {
            let (start, rest) = line.split_once('-').unwrap();
            let start = u64::from_str_radix(start, 16).unwrap();
            let end = u64::from_str_radix(rest.split_once(' ').unwrap().0, 16).unwrap();
            let mut at = start;
            while at < end {
                let wanted = (end - at).min(piece.len() as u64) as usize;
                // Other tests' threads may have taken the region away.
                let Ok(read) = memory.read_at(&mut piece[..wanted], at) else { break };
                if read == 0 {
                    break;
                }
                let holds = |window: &&[u8]| window.iter().copied().eq(marker(salt));
                let apart = at + (read as u64) <= own || at >= own + piece.len() as u64;
                found += if apart { piece[..read].windows(LENGTH).filter(holds).count() } else { 0 };
                // Pieces overlap, so that no marker is cut in two.
                at +=
                    if read == wanted && at + wanted as u64 != end { (read - LENGTH + 1) as u64 } else { read as u64 };
            }
            piece.fill(0);
        }
        found
    }

    #[test]
    fn the_systems_own_allocator_leaves_a_text_behind() {
        let layout = Layout::from_size_align(4096, 8).unwrap();
        #[expect(unsafe_code, reason = "the allocator is called by hand")]
        // SAFETY: each block has 4096 bytes; the marker stands within them. Many, for some are used again at once.
        unsafe {
            let blocks: Vec<*mut u8> = (0..200).map(|_| System.alloc(layout)).collect();
            for block in &blocks {
                marker(1).enumerate().for_each(|(at, byte)| block.add(1024 + at).write_volatile(byte));
            }
            blocks.into_iter().for_each(|block| System.dealloc(block, layout));
        }
        assert!(count(1) >= 1, "this test could not fail");
    }

    #[test]
    fn no_text_stays_in_freed_memory() {
        let mut text: Vec<u8> = Vec::with_capacity(64);
        text.extend(marker(2));
        // Each growth moves it, through small blocks and ones that the kernel maps on their own.
        for length in [100, 1000, 5000, 70_000, 300_000, 3_000_000] {
            text.resize(length, 0);
        }
        text.truncate(2000);
        text.shrink_to_fit();
        let copies: Vec<Box<[u8]>> = (0..10).map(|_| text.clone().into_boxed_slice()).collect();
        let parsed: serde_json::Value = serde_json::json!({ "text": copies });
        assert!(count(2) >= 11, "the text must be there while it is held");
        drop((text, copies, parsed));
        assert_eq!(count(2), 0);
    }

    #[test]
    fn blocks_keep_what_they_hold_when_they_grow_and_shrink() {
        bound_free_memory();
        let mut block: Vec<u32> = Vec::new();
        for at in 0..1_000_000 {
            block.push(at);
        }
        block.truncate(1000);
        block.shrink_to_fit();
        assert!(block.iter().copied().eq(0..1000) && vec![0_u8; 5_000_000].iter().all(|byte| *byte == 0));
    }
}
