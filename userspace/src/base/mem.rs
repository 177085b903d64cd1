//! Anonymous memory for packet buffers: 2 MiB pages where the host has them.
//!
//! Order of attempts: hugetlb pages (reserved by the operator), transparent
//! huge pages, ordinary 4 KiB pages. What was got is read back and reported;
//! `require` stops at the first.

use std::io;
use std::ptr::NonNull;

/// Bytes of a huge page on x86-64 and on common arm64 kernels.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Whether to use 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Take them if they can be had.
    Auto,
    /// Fail without reserved (hugetlb) pages.
    Require,
    /// Ordinary pages.
    Off,
}

/// What backs a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved 2 MiB pages.
    Hugetlb,
    /// Transparent 2 MiB pages, at least in part.
    Thp,
    /// 4 KiB pages.
    Small,
}

impl Pages {
    /// Word used in status and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hugetlb => "hugetlb",
            Self::Thp => "thp",
            Self::Small => "4k",
        }
    }
}

/// A zeroed, populated, private mapping; unmapped on drop.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    bytes: usize,
    /// What was asked for: whether [`Pages::Thp`] was given, the kernel knows.
    asked: Pages,
}

// SAFETY: a Region owns its mapping and hands out only raw pointers; whoever
// dereferences them answers for aliasing.
unsafe impl Send for Region {}
// SAFETY: as above; its methods read what never changes.
unsafe impl Sync for Region {}

impl Region {
    /// Maps at least `bytes`, rounded up to whole huge pages.
    ///
    /// # Errors
    ///
    /// The kernel's refusal; under [`HugePages::Require`] also the lack of
    /// reserved pages.
    pub fn new(bytes: usize, huge: HugePages) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        if huge != HugePages::Off {
            let flags = libc::MAP_HUGETLB | libc::MAP_POPULATE;
            match Self::map(bytes, flags) {
                Ok(start) => return Ok(Self { start, bytes, asked: Pages::Hugetlb }),
                Err(e) if huge == HugePages::Require => return Err(e),
                Err(_) => {}
            }
        }
        Self::map_aligned(bytes, huge == HugePages::Auto)
    }

    fn map(bytes: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice
        // touches no memory that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))
    }

    /// Ordinary pages at a 2 MiB boundary, so that transparent huge pages can
    /// back them: maps one huge page more and gives the ends back.
    fn map_aligned(bytes: usize, advise_huge: bool) -> io::Result<Self> {
        let wide = Self::map(bytes + HUGE_PAGE_BYTES, 0)?;
        let lead = wide.as_ptr().align_offset(HUGE_PAGE_BYTES);
        let tail = HUGE_PAGE_BYTES - lead;
        let aligned = wide.as_ptr().wrapping_add(lead);
        for (start, len) in [(wide.as_ptr(), lead), (aligned.wrapping_add(bytes), tail)] {
            if len > 0 {
                // SAFETY: the range lies inside the mapping made above and
                // outside the part that is kept.
                unsafe { libc::munmap(start.cast(), len) };
            }
        }
        let start = NonNull::new(aligned).ok_or_else(|| io::Error::other("mmap gave zero"))?;
        let (asked, advice) = if advise_huge {
            (Pages::Thp, libc::MADV_HUGEPAGE)
        } else {
            (Pages::Small, libc::MADV_NOHUGEPAGE)
        };
        let region = Self { start, bytes, asked };
        // Kernels built without THP answer EINVAL: the region is as good without.
        let _ = region.advise(advice);
        match region.advise(libc::MADV_POPULATE_WRITE) {
            // Before 5.14 there is no populate advice: touch every page.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => region.touch(),
            other => other?,
        }
        Ok(region)
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is exactly this mapping; the advices used change
        // how it is backed, not what it holds.
        let rc = unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, advice) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn touch(&self) {
        for offset in (0..self.bytes).step_by(4096) {
            // SAFETY: offset < bytes, and the mapping is readable and writable.
            unsafe { self.start.as_ptr().wrapping_add(offset).write_volatile(0) };
        }
    }

    /// First byte.
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes mapped.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What backs it now. Looked up for each call, at the cost of a walk through
    /// the process's page tables where transparent huge pages were asked for: a
    /// start that maps hundreds of regions asks about those it reports.
    #[must_use]
    pub fn pages(&self) -> Pages {
        match self.asked {
            Pages::Thp if !has_huge_pages(self.start.as_ptr() as usize) => Pages::Small,
            asked => asked,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range is exactly this mapping, and no reference to it
        // outlives its owner.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Whether the mapping that holds `address` has anonymous huge pages, by
/// `/proc/self/smaps`.
fn has_huge_pages(address: usize) -> bool {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return false };
    let mut inside = false;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or("");
        if let Some((from, to)) = first.split_once('-')
            && let (Ok(from), Ok(to)) =
                (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = (from..to).contains(&address);
        } else if inside && let Some(kib) = line.strip_prefix("AnonHugePages:") {
            return kib.trim().trim_end_matches("kB").trim() != "0";
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_aligned_zeroed_and_writable() {
        for huge in [HugePages::Auto, HugePages::Off] {
            let region = Region::new(3 << 20, huge).unwrap();
            assert_eq!(region.bytes(), 4 << 20);
            assert_eq!(region.start().align_offset(HUGE_PAGE_BYTES), 0);
            assert!(huge == HugePages::Auto || region.pages() == Pages::Small);
            let last = region.start().wrapping_add(region.bytes() - 1);
            // SAFETY: the last byte of a mapping this test owns.
            let before = unsafe { last.read() };
            assert_eq!(before, 0);
            // SAFETY: as above.
            unsafe { last.write(7) };
        }
    }
}
