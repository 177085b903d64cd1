//! Tables of plain records that are as large at the start as they will ever
//! be: zeroed, populated, on 2 MiB pages where they are long enough. Random
//! look-ups in gigabytes cost a TLB miss each on small pages.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use zerocopy::FromZeros;

use super::mem::{HUGE_PAGE_BYTES, HugePages, Region};

/// A fixed number of records of `T`.
///
/// Start and length stand beside what owns the memory: reaching a record asks
/// nothing about where it came from.
#[derive(Debug)]
pub struct Table<T> {
    start: NonNull<T>,
    len: usize,
    owner: Owner,
}

#[derive(Debug)]
enum Owner {
    /// A boxed slice, taken apart: shorter than a huge page, of which a mapping
    /// would waste most.
    Heap,
    Mapped(Region),
}

// SAFETY: a Table owns its records as a boxed slice does.
unsafe impl<T: Send> Send for Table<T> {}

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
            let records: Box<[T]> = vec![T::new_zeroed(); len].into();
            let start = NonNull::from(Box::leak(records)).cast();
            return Ok(Self { start, len, owner: Owner::Heap });
        }
        const { assert!(align_of::<T>() <= 4096) };
        let region = Region::new(bytes, HugePages::Auto)?;
        let start = NonNull::new(region.start().cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, owner: Owner::Mapped(region) })
    }

    /// Bytes reserved for it, whole pages included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.owner {
            Owner::Heap => size_of_val(&**self),
            Owner::Mapped(region) => region.bytes(),
        }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Heap) {
            let records = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
            // SAFETY: these are the start and the length of the boxed slice
            // that `new` took apart, and nobody else frees it.
            drop(unsafe { Box::from_raw(records) });
        }
    }
}

impl<T: FromZeros + Copy> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: box or region hold at least `len` records, aligned for T,
        // zeroed at first; every bit pattern since was written as a T; they
        // live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: FromZeros + Copy> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
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
