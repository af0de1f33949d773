//! Memory on huge pages.
//!
//! A lookup in a large table costs two cache misses. On 4 KiB pages each of them is also a miss of
//! the address translation cache, which about halves the lookups a second. Tables of 2 MiB and more
//! are therefore mapped on their own and advised to use huge pages; smaller ones come from the
//! system allocator.
//!
//! A mapping *ends* on a huge page border and begins wherever its size puts it. `hashbrown` keeps
//! its control bytes, which every lookup reads, behind the entries: this way they are always on
//! huge pages, and the part that is left on small pages is a piece of the entries. Nothing is
//! rounded up to a huge page, so no memory is lost.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use allocator_api2::alloc::{AllocError, Allocator, Global};

/// The size and alignment of a huge page, and from which size on a table gets them.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// A multiple of every page size in use on the platform.
#[cfg(target_os = "linux")]
const PAGE: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };

/// An allocator that puts large pieces on huge pages and counts what it has given out.
#[derive(Clone, Debug, Default)]
pub struct HugePages {
    used: Arc<AtomicUsize>,
}

impl HugePages {
    /// The bytes in use, over all clones.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

// SAFETY: both ways of allocation give a block that stays where it is until it is deallocated, that
// moving or cloning the allocator does not touch, and that is at least as large and as aligned as
// the layout asks. Which way a block came is decided by its layout alone, and since exactly the
// size asked for is returned, `deallocate` sees the same layout.
unsafe impl Allocator for HugePages {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        #[cfg(target_os = "linux")]
        if is_large(layout) {
            let (block, mapped) = map(layout)?;
            self.used.fetch_add(mapped, Ordering::Relaxed);
            return Ok(NonNull::slice_from_raw_parts(block, layout.size()));
        }
        let block = Global.allocate(layout)?;
        self.used.fetch_add(layout.size(), Ordering::Relaxed);
        Ok(NonNull::slice_from_raw_parts(block.cast(), layout.size()))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        #[cfg(target_os = "linux")]
        if is_large(layout) {
            // SAFETY: the caller hands back a block that `allocate` gave for this layout, and such
            // blocks of a large layout come from `map`.
            let unmapped = unsafe { unmap(block, layout) };
            self.used.fetch_sub(unmapped, Ordering::Relaxed);
            return;
        }
        // SAFETY: the caller hands back a block that `allocate` gave for this layout, and such
        // blocks of a small layout come from `Global`.
        unsafe { Global.deallocate(block, layout) };
        self.used.fetch_sub(layout.size(), Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
fn is_large(layout: Layout) -> bool {
    layout.size() >= HUGE && layout.align() <= PAGE
}

/// Maps a block that ends, but for alignment, on a huge page border. Returns the block and the
/// bytes mapped for it.
#[cfg(target_os = "linux")]
fn map(layout: Layout) -> Result<(NonNull<u8>, usize), AllocError> {
    let len = layout.size().checked_next_multiple_of(PAGE).ok_or(AllocError)?;
    let reserved = len.checked_add(HUGE).ok_or(AllocError)?;
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory
    // that exists.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            reserved,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(AllocError);
    }
    // The last huge page border inside the reservation is the end; `len` before it is the base.
    // What lies outside, before and behind, goes back.
    let end = (raw.addr() + reserved) / HUGE * HUGE;
    let before = end - len - raw.addr();
    let behind = reserved - before - len;
    // SAFETY: `before + len + behind == reserved`, so all three pieces lie in the mapping just
    // made; they begin and end on page borders, since `raw`, `len` and `HUGE` do. The outer pieces
    // are given back before anybody has seen them. Advice changes no content, and a kernel that
    // refuses it leaves small pages, which are as right, so its answer is not looked at.
    unsafe {
        if before > 0 {
            libc::munmap(raw, before);
        }
        if behind > 0 {
            libc::munmap(raw.byte_add(before + len), behind);
        }
        libc::madvise(raw.byte_add(before), len, libc::MADV_HUGEPAGE);
    }
    // Aligned down from the end, still at or after the base, since no alignment is above `PAGE`.
    let offset = before + (len - layout.size()) / layout.align() * layout.align();
    // SAFETY: `offset` lies in the mapping, and `layout.size()` bytes follow it there.
    let block = unsafe { raw.cast::<u8>().add(offset) };
    Ok((NonNull::new(block).ok_or(AllocError)?, len))
}

/// Gives the mapping of a block back and returns its size.
///
/// # Safety
///
/// `block` must come from `map` with the same layout, and must not be used any more.
#[cfg(target_os = "linux")]
unsafe fn unmap(block: NonNull<u8>, layout: Layout) -> usize {
    let len = layout.size().next_multiple_of(PAGE);
    let offset = block.addr().get() % PAGE;
    // SAFETY: `map` put the block into the first page of a mapping of `len` bytes that begins on a
    // page border, so this is that mapping, whole, and nobody uses it any more.
    let failed = unsafe { libc::munmap(block.as_ptr().sub(offset).cast(), len) };
    debug_assert_eq!(failed, 0, "a mapping goes back whole");
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_writable_aligned_and_accounted() {
        let pages = HugePages::default();
        for size in [16, 4096, (2 << 20) - 16, 2 << 20, (2 << 20) + 16, 17 * (1 << 18) + 16] {
            for align in [16, 64, 4096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let block = pages.allocate(layout).unwrap();
                assert_eq!(block.len(), size);
                assert_eq!(block.cast::<u8>().addr().get() % align, 0);
                assert!(pages.used() >= size && pages.used() < size + (64 << 10));
                // SAFETY: the block is ours, has `size` bytes, and is not used after it went back.
                unsafe {
                    block.cast::<u8>().write_bytes(0xa5, size);
                    assert_eq!(block.cast::<u8>().add(size - 1).read(), 0xa5);
                    pages.deallocate(block.cast(), layout);
                }
                assert_eq!(pages.used(), 0);
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn large_blocks_end_on_a_huge_page() {
        let pages = HugePages::default();
        let layout = Layout::from_size_align(17 * (1 << 18) + 16, 16).unwrap();
        let block = pages.allocate(layout).unwrap();
        assert_eq!((block.cast::<u8>().addr().get() + layout.size()) % HUGE, 0);
        // SAFETY: the block was allocated with this layout and is not used any more.
        unsafe { pages.deallocate(block.cast(), layout) };
    }
}
