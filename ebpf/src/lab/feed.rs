//! The feeder: `BPF_PROG_TEST_RUN` runs it in the context of its caller, and it
//! copies one frame after the other out of the caller's memory and redirects
//! it to an interface. So a program in user space sends frames that all differ
//! at the price of a redirect, where AF_XDP in copy mode pays for a socket
//! buffer and two more copies each.
//!
//! The caller's pages must be resident: a fault cannot be served here, the frame
//! is then counted as failed and dropped.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_xdp_adjust_tail, bpf_xdp_store_bytes};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;

use crate::feed_layout::{
    FEED_ADDRESS, FEED_BYTES, FEED_FAILED, FEED_FRAME_BYTES, FEED_IFINDEX, FEED_NEXT, FEED_STRIDE,
    FEED_VARIED, FeedWords,
};

#[map]
static FEED: Array<FeedWords> = Array::with_max_entries(1, 0);

/// A frame on its way: packet memory cannot be read into directly.
#[map]
static FEED_FRAME: PerCpuArray<[u8; FEED_FRAME_BYTES]> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: u32 = 14;

/// Where an IPv4 frame says how long it is without its Ethernet header.
const TOTAL_AT: usize = ETHERNET_BYTES as usize + 2;

/// Sends the next frame of the caller's memory.
#[xdp]
pub fn lab_feed(ctx: XdpContext) -> u32 {
    let (Some(words), Some(frame)) = (FEED.get_ptr_mut(0), FEED_FRAME.get_ptr_mut(0)) else {
        return XDP_ABORTED;
    };
    // SAFETY: one caller at a time feeds from one load of this object, and
    // TEST_RUN holds off migration.
    let words = unsafe { &mut *words };
    let number = words[FEED_NEXT];
    words[FEED_NEXT] = number + 1;
    let source = words[FEED_ADDRESS].wrapping_add(number.wrapping_mul(words[FEED_STRIDE]));
    // The mask is for the verifier.
    let bytes = (words[FEED_BYTES] & (FEED_FRAME_BYTES as u64 - 1)) as u32;
    if bytes == 0 {
        return XDP_ABORTED;
    }
    // SAFETY: `frame` holds more than `bytes`; the helper checks the source itself.
    let read = unsafe { bpf_probe_read_user(frame.cast(), bytes, source as *const _) };
    let bytes = if words[FEED_VARIED] == 0 {
        bytes
    } else {
        // SAFETY: `frame` holds more than a header.
        let total = unsafe { u16::from_be_bytes([(*frame)[TOTAL_AT], (*frame)[TOTAL_AT + 1]]) };
        let wanted = u32::from(total) + ETHERNET_BYTES;
        // SAFETY: the helper checks the packet's length.
        let cut = unsafe { bpf_xdp_adjust_tail(ctx.ctx, wanted as i32 - bytes as i32) };
        if wanted > bytes || cut != 0 {
            words[FEED_FAILED] += 1;
            return XDP_DROP;
        }
        wanted & (FEED_FRAME_BYTES as u32 - 1)
    };
    if bytes == 0 {
        return XDP_ABORTED;
    }
    // SAFETY: as above; the helper checks the packet's length.
    let stored = unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, frame.cast(), bytes) };
    if read != 0 || stored != 0 {
        words[FEED_FAILED] += 1;
        return XDP_DROP;
    }
    // SAFETY: the helper takes two plain numbers.
    let action = unsafe { bpf_redirect(words[FEED_IFINDEX] as u32, 0) } as u32;
    if action != XDP_REDIRECT {
        words[FEED_FAILED] += 1;
    }
    action
}
