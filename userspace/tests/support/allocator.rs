//! An allocator that counts what each thread asks of it. A test declares it
//! with `#[global_allocator]` and compares [`calls`] before and after.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted by thread.
pub struct Counting;

thread_local! {
    /// Allocations and deallocations of this thread. Constant initialisers and
    /// no destructor, so that counting does not itself allocate.
    static CALLS: Cell<Calls> = const { Cell::new(Calls { allocations: 0, deallocations: 0 }) };
}

/// What a thread has asked of the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// Blocks asked for; growing or shrinking one counts as one of each.
    pub allocations: u64,
    /// Blocks given back.
    pub deallocations: u64,
}

/// The calling thread's calls so far.
pub fn calls() -> Calls {
    CALLS.get()
}

fn count(allocations: u64, deallocations: u64) {
    let now = CALLS.get();
    CALLS.set(Calls {
        allocations: now.allocations + allocations,
        deallocations: now.deallocations + deallocations,
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting
// touches a thread-local cell and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(1, 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(block, layout, bytes) }
    }
}
