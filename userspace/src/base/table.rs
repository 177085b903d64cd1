//! Tables of plain records that are as large at the start as they will ever
//! be: zeroed, populated, on 2 MiB pages. Random look-ups in hundreds of
//! megabytes cost a TLB miss each on small pages: 27 ns a cache line with eight
//! and more under way, against 15 ns on huge ones (2-vCPU Xeon VM).
//!
//! ```text
//!   under 4 KiB     a boxed slice
//!   under 2 MiB     a piece of a region that such tables share, one after the other
//!   from 2 MiB on   a region of its own
//! ```

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

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
    /// A boxed slice, taken apart.
    Heap,
    Mapped(Region),
    /// Goes when the last of its tables goes.
    Shared(#[expect(dead_code, reason = "keeps the mapping")] Arc<Region>),
}

/// Tables below this stay on the heap: they are mostly in the caches anyway.
const SHARED_FROM_BYTES: usize = 4 << 10;

/// Bytes of a region that is shared.
const SHARED_BYTES: usize = 4 * HUGE_PAGE_BYTES;

/// The region that pieces are cut from now, and how much of it is taken. What
/// was cut once is never cut again, so a piece is zeroed as its mapping was; and
/// what a table that is gone took comes back with the last of its region. The
/// end of a region where the next table found no room is lost: less than 2 MiB in
/// 8.
static OPEN: Mutex<(Weak<Region>, usize)> = Mutex::new((Weak::new(), 0));

/// `bytes` of a shared region, from a cache line on.
fn piece(bytes: usize) -> io::Result<(Arc<Region>, *mut u8)> {
    const LINE_BYTES: usize = 64;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let (region, taken) = match open.0.upgrade() {
        Some(region) if open.1 + bytes <= region.bytes() => (region, open.1),
        _ => (Arc::new(Region::new(SHARED_BYTES, HugePages::Auto)?), 0),
    };
    *open = (Arc::downgrade(&region), (taken + bytes).next_multiple_of(LINE_BYTES));
    let start = region.start().wrapping_add(taken);
    Ok((region, start))
}

// SAFETY: a Table owns its records as a boxed slice does: a shared region is
// cut into pieces that do not overlap.
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
        if bytes < SHARED_FROM_BYTES {
            let records: Box<[T]> = vec![T::new_zeroed(); len].into();
            let start = NonNull::from(Box::leak(records)).cast();
            return Ok(Self { start, len, owner: Owner::Heap });
        }
        const { assert!(align_of::<T>() <= 64) };
        if bytes < HUGE_PAGE_BYTES {
            let (region, start) = piece(bytes)?;
            let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            return Ok(Self { start, len, owner: Owner::Shared(region) });
        }
        let region = Region::new(bytes, HugePages::Auto)?;
        let start = NonNull::new(region.start().cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, owner: Owner::Mapped(region) })
    }

    /// Bytes reserved for it, whole pages of its own included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.owner {
            Owner::Heap | Owner::Shared(_) => size_of_val(&**self),
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
        // SAFETY: box, region or piece hold at least `len` records, aligned for
        // T, zeroed at first; every bit pattern since was written as a T; they
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
    if let Some(record) = records.get(index) {
        prefetch_line(std::ptr::from_ref(record).cast());
    }
}

/// Asks for every cache line of `record`.
#[inline(always)]
pub fn prefetch_whole<T>(record: &T) {
    const LINE_BYTES: usize = 64;
    let start: *const i8 = std::ptr::from_ref(record).cast();
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        prefetch_line(start.wrapping_add(offset));
    }
    // Where it begins within a line, it ends in one more.
    prefetch_line(start.wrapping_add(size_of::<T>().saturating_sub(1)));
}

#[inline(always)]
fn prefetch_line(address: *const i8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint: it has no effect but on the cache, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_zeroed_and_keep_what_is_written() {
        for len in [0, 1, 1_000, 1_001, 100_000, 600_000] {
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
    fn tables_that_share_a_region_do_not_overlap() {
        // More than a region holds, and one in four goes early.
        let mut tables: Vec<(u64, Table<u64>)> = Vec::new();
        for number in 0..40u64 {
            let mut table = Table::<u64>::new(1_000 + 1_500 * number as usize).unwrap();
            assert_eq!(table.start.as_ptr().align_offset(64), 0);
            assert!(table.iter().all(|v| *v == 0));
            table.fill(number + 1);
            if number % 4 != 3 {
                tables.push((number + 1, table));
            }
        }
        for (value, table) in &tables {
            assert!(table.iter().all(|v| v == value), "table {value}");
        }
    }

    #[test]
    fn a_length_that_overflows_is_refused() {
        assert!(Table::<u64>::new(usize::MAX / 4).is_err());
    }
}
