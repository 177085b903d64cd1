//! The generator: `BPF_PROG_TEST_RUN` hands it a template over and over, it
//! varies source address and port and redirects the frame to an interface.
//!
//! The kernel recycles the frames of one TEST_RUN call without restoring
//! their bytes, so a frame may still carry the variation of its last trip.
//! Every field is therefore set absolutely, and checksums are updated by the
//! difference between what is there and what is written (RFC 1624).

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;

use crate::layout::{FAMILY_IPV4, GeneratorCounts, GeneratorSettings};
use crate::packet;

#[map]
static GENERATOR: Array<GeneratorSettings> = Array::with_max_entries(1, 0);

#[map]
static GENERATED: PerCpuArray<GeneratorCounts> = PerCpuArray::with_max_entries(1, 0);

/// Varies and redirects one frame.
#[xdp]
pub fn lab_generate(ctx: XdpContext) -> u32 {
    let (Some(settings), Some(counts)) = (GENERATOR.get(0), GENERATED.get_ptr_mut(0)) else {
        return XDP_ABORTED;
    };
    // SAFETY: a per-CPU slot, and TEST_RUN holds off migration and softirqs.
    let counts = unsafe { &mut *counts };
    let number = counts.frames;
    counts.frames = number + 1;
    if (settings.source_mask | settings.port_mask) != 0 && vary(&ctx, settings, number).is_none() {
        counts.refused += 1;
        return XDP_DROP;
    }
    // SAFETY: the helper takes two plain numbers.
    let action = unsafe { bpf_redirect(settings.ifindex, 0) } as u32;
    if action == XDP_REDIRECT {
        counts.redirects += 1;
    } else {
        counts.refused += 1;
    }
    action
}

/// Sets the varied bits of source address and port and mends the checksums;
/// `None` when the frame is too short for its headers.
#[inline(always)]
fn vary(ctx: &XdpContext, settings: &GeneratorSettings, number: u64) -> Option<()> {
    // At most two VLAN tags stand before the IP header; the mask is for the verifier.
    let l3 = (settings.l3 & 0x1f) as usize;
    let address_change = if settings.family == FAMILY_IPV4 {
        let change = replace_u32(ctx, l3 + 12, settings.source_mask, number as u32)?;
        let check = packet::at::<2>(ctx, l3 + 10)?;
        // SAFETY: `at` proved that both bytes lie inside the frame.
        let check = unsafe { &mut *check };
        *check = updated(*check, change);
        change
    } else {
        replace_u32(ctx, l3 + 20, settings.source_mask, number as u32)?
    };
    let udp = if settings.family == FAMILY_IPV4 { l3 + 20 } else { l3 + 40 };
    let header = packet::at::<8>(ctx, udp)?;
    // SAFETY: `at` proved that all 8 bytes lie inside the frame.
    let header = unsafe { &mut *header };
    let mask = settings.port_mask as u16;
    let old = u16::from_be_bytes([header[0], header[1]]);
    let new = (old & !mask) | ((number >> (settings.port_shift & 63)) as u16 & mask);
    [header[0], header[1]] = new.to_be_bytes();
    let check = [header[6], header[7]];
    // Zero means that the sender computed none.
    if check != [0; 2] {
        let mended = updated(check, address_change + u32::from(!old) + u32::from(new));
        [header[6], header[7]] = if mended == [0; 2] { [0xff; 2] } else { mended };
    }
    Some(())
}

/// Replaces the masked bits of the big-endian word at `offset`; gives the
/// change for a checksum: complement of the old words plus the new ones.
#[inline(always)]
fn replace_u32(ctx: &XdpContext, offset: usize, mask: u32, bits: u32) -> Option<u32> {
    let word = packet::at::<4>(ctx, offset)?;
    // SAFETY: `at` proved that all 4 bytes lie inside the frame.
    let word = unsafe { &mut *word };
    let old = u32::from_be_bytes(*word);
    let new = (old & !mask) | (bits & mask);
    *word = new.to_be_bytes();
    let complement = !old;
    Some((complement >> 16) + (complement & 0xffff) + (new >> 16) + (new & 0xffff))
}

/// An internet checksum after a change of what it covers.
#[inline(always)]
fn updated(check: [u8; 2], change: u32) -> [u8; 2] {
    let mut sum = u32::from(!u16::from_be_bytes(check)) + change;
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    (!(sum as u16)).to_be_bytes()
}
