//! A token bucket for each source, in an array of this CPU that is mapped
//! directly by a hash of the address.
//!
//! Buckets are per CPU: a source whose flows RSS spreads over several queues
//! (`nic-queues.sh` sets the 4-tuple hash) has the rate on each of them. A source
//! that takes over a slot begins with a full bucket, so two that collide and
//! alternate are not limited; spoofed sources are not, by nature. IPv6 neighbours have buckets of their own; a host
//! that wanders through its prefix is a matter for the blocklist.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use veltrix_abi::limits;
use veltrix_abi::maps::Bucket;

use crate::blocklist::now_coarse_ns;
use crate::bucket::{self, Limit};
use crate::program::Source;
use crate::settings;

/// Sized at load: one slot when the limit is off.
#[map]
static BUCKETS: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(limits::BUCKETS, 0);

/// Takes a token of `source`; whether it is beyond its rate.
#[inline(always)]
pub(crate) fn exceeds(source: &Source) -> bool {
    let hash = match source {
        Source::V4(address) => bucket::hash_v4(*address),
        Source::V6(address) => bucket::hash_v6(*address),
    };
    let Some(slot) = BUCKETS.get_ptr_mut(hash as u32 & (limits::BUCKETS - 1)) else {
        // Not reached: the loader makes every slot when the limit is on.
        return false;
    };
    let limit = Limit { per_s: settings::rate_per_s(), burst: settings::rate_burst() };
    // SAFETY: a whole slot of this CPU's array; the map outlives the run and
    // XDP programs do not interrupt each other on a CPU.
    let slot = unsafe { &mut *slot };
    !bucket::take(slot, (hash >> 32) as u32, now_coarse_ns(), limit)
}
