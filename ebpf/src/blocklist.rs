//! Blocked prefixes: longest match, with an expiry.
//!
//! The user half owns the entries and keeps the expiry of an entry at least at
//! that of every prefix around it, so the longest match alone decides.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::lpm_trie::Key;
use veltrix_abi::limits::BLOCK_ENTRIES_MAX_DEFAULT;
use veltrix_abi::maps::Block;

use crate::program::Source;

/// Sized at load.
#[map]
static BLOCK4: LpmTrie<[u8; 4], Block> = LpmTrie::with_max_entries(BLOCK_ENTRIES_MAX_DEFAULT, 0);

/// Sized at load.
#[map]
static BLOCK6: LpmTrie<[u8; 16], Block> = LpmTrie::with_max_entries(BLOCK_ENTRIES_MAX_DEFAULT, 0);

/// Whether `source` is on the list and its entry has not expired.
#[inline(always)]
pub(crate) fn blocks(source: &Source) -> bool {
    let block = match source {
        Source::V4(address) => BLOCK4.get(Key::new(32, *address)),
        Source::V6(address) => BLOCK6.get(Key::new(128, *address)),
    };
    match block {
        // The clock is read on a hit only.
        Some(block) => block.expires_ns > now_coarse_ns(),
        None => false,
    }
}

/// `CLOCK_MONOTONIC` in steps of a kernel tick (4 ms), for a tenth of the
/// exact clock's price.
#[inline(always)]
pub(crate) fn now_coarse_ns() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}
