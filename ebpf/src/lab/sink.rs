//! The sink: stands on the client's interface, counts replies and drops those
//! that answer generated traffic. Everything else goes on to the kernel, so
//! that ordinary sockets in the same namespace still work.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use veltrix_abi::limits::{ACK_ENTRY_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::wire::{Kind, MAGIC};

use crate::layout::{
    ACK_ENTRIES_WALKED_MAX, KIND_SLOTS, SUNK_DROPPED, SUNK_PASSED, SinkCounts, SinkSettings,
};
use crate::packet;

#[map]
static SINK: Array<SinkSettings> = Array::with_max_entries(1, 0);

#[map]
static SUNK: PerCpuArray<SinkCounts> = PerCpuArray::with_max_entries(2, 0);

/// Counts one frame and drops or passes it.
#[xdp]
pub fn lab_sink(ctx: XdpContext) -> u32 {
    let Some(settings) = SINK.get(0) else {
        return XDP_ABORTED;
    };
    let datagram = find_udp(&ctx);
    let dropped = datagram.is_some_and(|(port, _)| {
        u32::from(port) >= settings.port_first && u32::from(port) <= settings.port_last
    });
    let row = if dropped { SUNK_DROPPED } else { SUNK_PASSED };
    let Some(counts) = SUNK.get_ptr_mut(row) else {
        return XDP_ABORTED;
    };
    // SAFETY: a per-CPU slot, and no other program instance runs on this CPU
    // meanwhile.
    let counts = unsafe { &mut *counts };
    counts.frames += 1;
    counts.bytes += packet::len(&ctx) as u64;
    if datagram.is_none_or(|(_, payload)| count_datagram(&ctx, payload, counts).is_none()) {
        counts.foreign += 1;
    }
    if dropped { XDP_DROP } else { XDP_PASS }
}

/// UDP destination port and the offset of the payload.
#[inline(always)]
fn find_udp(ctx: &XdpContext) -> Option<(u16, usize)> {
    let mut l3 = 14;
    let mut ethertype = u16::from_be_bytes(packet::read::<2>(ctx, 12)?);
    if is_vlan(ethertype) {
        ethertype = u16::from_be_bytes(packet::read::<2>(ctx, 16)?);
        l3 = 18;
        if is_vlan(ethertype) {
            ethertype = u16::from_be_bytes(packet::read::<2>(ctx, 20)?);
            l3 = 22;
        }
    }
    let (protocol, udp) = match ethertype {
        0x0800 => {
            let first = packet::read::<1>(ctx, l3)?[0];
            (packet::read::<1>(ctx, l3 + 9)?[0], l3 + usize::from(first & 0x0f) * 4)
        }
        0x86dd => (packet::read::<1>(ctx, l3 + 6)?[0], l3 + 40),
        _ => return None,
    };
    if protocol != 17 {
        return None;
    }
    Some((u16::from_be_bytes(packet::read::<2>(ctx, udp + 2)?), udp + 8))
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    ethertype == 0x8100 || ethertype == 0x88a8
}

/// Counts the datagram by its kind; `None` when it is not ours.
#[inline(always)]
fn count_datagram(ctx: &XdpContext, payload: usize, counts: &mut SinkCounts) -> Option<()> {
    let head = packet::read::<14>(ctx, payload)?;
    if head[..4] != MAGIC {
        return None;
    }
    let kind = usize::from(head[9]);
    counts.kinds[if kind < KIND_SLOTS { kind } else { KIND_SLOTS - 1 }] += 1;
    if kind == Kind::Ack as usize {
        let entries = u32::from(u16::from_le_bytes([head[12], head[13]]));
        if !walk_acks(ctx, payload + HEADER_BYTES, entries, counts) {
            counts.acks_cut += 1;
        }
    }
    Some(())
}

/// Sums the entries of an ack; whether it reached the last one.
#[inline(always)]
fn walk_acks(ctx: &XdpContext, body: usize, entries: u32, counts: &mut SinkCounts) -> bool {
    let mut entry = body;
    let mut walked = 0;
    while walked < ACK_ENTRIES_WALKED_MAX {
        if walked == entries {
            return true;
        }
        // Events (u16) at 16, duplicates (u16) at 20 of the entry.
        let Some(fixed) = packet::read::<6>(ctx, entry + 16) else {
            return false;
        };
        let events = usize::from(u16::from_le_bytes([fixed[0], fixed[1]]));
        let duplicates = usize::from(u16::from_le_bytes([fixed[4], fixed[5]]));
        counts.ack_entries += 1;
        counts.acked_events += events as u64;
        entry += ACK_ENTRY_FIXED_BYTES + ((events + 7) & !7) + 8 * duplicates;
        walked += 1;
    }
    walked == entries
}
