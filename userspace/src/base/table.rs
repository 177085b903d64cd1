//! Tables of plain records that are as large at the start as they will ever
//! be: zeroed, populated, on 2 MiB pages where they are long enough. Random
//! look-ups in gigabytes cost a TLB miss each on small pages.

use std::io;
use std::ops::{Deref, DerefMut};

use zerocopy::FromZeros;

use super::mem::{HUGE_PAGE_BYTES, HugePages, Region};

/// A fixed number of records of `T`.
#[derive(Debug)]
pub struct Table<T> {
    backing: Backing<T>,
}

#[derive(Debug)]
enum Backing<T> {
    /// Shorter than a huge page: a mapping would waste most of it.
    Heap(Box<[T]>),
    Mapped {
        region: Region,
        len: usize,
    },
}

impl<T: FromZeros + Copy> Table<T> {
    /// `len` zeroed records.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to map as much; a length whose bytes do not fit
    /// `usize`.
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        if bytes < HUGE_PAGE_BYTES {
            return Ok(Self { backing: Backing::Heap(vec![T::new_zeroed(); len].into()) });
        }
        const { assert!(align_of::<T>() <= 4096) };
        let region = Region::new(bytes, HugePages::Auto)?;
        Ok(Self { backing: Backing::Mapped { region, len } })
    }

    /// Bytes reserved for it, whole pages included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.backing {
            Backing::Heap(records) => size_of_val(&**records),
            Backing::Mapped { region, .. } => region.bytes(),
        }
    }
}

impl<T: FromZeros + Copy> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match &self.backing {
            Backing::Heap(records) => records,
            Backing::Mapped { region, len } => {
                // SAFETY: the region holds at least `len` records, is aligned
                // to 2 MiB, was zeroed by the kernel, every bit pattern it can
                // hold since was written as a T, and lives as long as `self`.
                unsafe { std::slice::from_raw_parts(region.start().cast(), *len) }
            }
        }
    }
}

impl<T: FromZeros + Copy> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.backing {
            Backing::Heap(records) => records,
            Backing::Mapped { region, len } => {
                // SAFETY: as above, and `self` is borrowed mutably.
                unsafe { std::slice::from_raw_parts_mut(region.start().cast(), *len) }
            }
        }
    }
}

/// Asks for the cache line of `records[index]`; an index outside asks for
/// nothing.
#[inline(always)]
pub fn prefetch<T>(records: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(record) = records.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching an address of a live record has no effect but on
        // the cache.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(record).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (records, index);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_zeroed_and_keep_what_is_written() {
        for len in [0, 1, 1_000, 600_000] {
            let mut table = Table::<u64>::new(len).unwrap();
            assert_eq!(table.len(), len);
            assert!(table.iter().all(|v| *v == 0));
            assert!(table.bytes() >= len * 8);
            if let Some(last) = table.last_mut() {
                *last = 7;
                prefetch(&table, len - 1);
                assert_eq!(table[len - 1], 7);
            }
            prefetch(&table, len);
        }
    }

    #[test]
    fn a_length_that_overflows_is_refused() {
        assert!(Table::<u64>::new(usize::MAX / 4).is_err());
    }
}
