//! Receivers that do nothing: the far end for measuring the generator itself,
//! and the program a veth peer needs before frames can be redirected to it.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;

use crate::layout::ReceiveCounts;
use crate::packet;

#[map]
static RECEIVED: PerCpuArray<ReceiveCounts> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn count(ctx: &XdpContext) {
    if let Some(counts) = RECEIVED.get_ptr_mut(0) {
        // SAFETY: a per-CPU slot, and no other program instance runs on this
        // CPU meanwhile.
        let counts = unsafe { &mut *counts };
        counts.frames += 1;
        counts.bytes += packet::len(ctx) as u64;
    }
}

/// Counts and drops.
#[xdp]
pub fn lab_drop(ctx: XdpContext) -> u32 {
    count(&ctx);
    XDP_DROP
}

/// Counts and passes.
#[xdp]
pub fn lab_pass(ctx: XdpContext) -> u32 {
    count(&ctx);
    XDP_PASS
}
