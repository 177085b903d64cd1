//! The program itself: one frame in, one counted exit out.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use veltrix_abi::exits::{FRAMES_SLOT, RATE_OBSERVED_SLOT, XDP_SLOTS};
use veltrix_abi::frame::{self, Datagram};
use veltrix_abi::maps::{ExitRow, features};
use veltrix_abi::{Action, Exit};

use crate::packet::Packet;
use crate::{blocklist, limit, settings, steer};

/// One row a queue, and row 0 for queues beyond the array; sized at load.
#[map]
static EXITS: PerCpuArray<ExitRow> = PerCpuArray::with_max_entries(2, 0);

/// The appliance's program.
#[xdp]
pub fn veltrix(ctx: XdpContext) -> u32 {
    let queue = ctx.rx_queue_index();
    let Some(row) = Row::of_queue(queue) else {
        // Not reached: the loader makes at least two rows.
        return xdp_action::XDP_ABORTED;
    };
    row.count(FRAMES_SLOT);
    let exit = match judge(&ctx, row) {
        Ok(()) => steer::to_lane(queue),
        Err(exit) => exit,
    };
    row.count(exit.slot());
    #[cfg(feature = "debug-log")]
    aya_log_ebpf::info!(&ctx, "queue {} exit {}", queue, exit as u32);
    match exit.action() {
        Action::Deliver if matches!(exit, Exit::RedirectXsk) => xdp_action::XDP_REDIRECT,
        Action::Drop => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_PASS,
    }
}

/// What benchmarks subtract: the cost of running any program at all.
#[xdp]
pub fn veltrix_empty(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// `Ok` for a datagram that a lane should get.
#[inline(always)]
fn judge(ctx: &XdpContext, row: Row) -> Result<(), Exit> {
    let packet = Packet::new(ctx);
    let datagram = frame::accept(&packet, settings::port(), settings::payload_bytes_max())?;
    let source = Source::of(&packet, &datagram)?;
    if settings::has(features::BLOCKLIST) && blocklist::blocks(&source) {
        return Err(Exit::DropBlocked);
    }
    if settings::has(features::RATE_LIMIT) && limit::exceeds(&source) {
        if !settings::has(features::RATE_OBSERVE) {
            return Err(Exit::DropRate);
        }
        row.count(RATE_OBSERVED_SLOT);
    }
    Ok(())
}

/// Address a datagram came from, bytes in network order.
pub(crate) enum Source {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

impl Source {
    /// Reads it from an accepted frame. The error is not reached, since the
    /// decoder read the same bytes before; the verifier wants it asked again.
    #[inline(always)]
    fn of(packet: &Packet, datagram: &Datagram) -> Result<Self, Exit> {
        use veltrix_abi::frame::{Family, FrameBytes};
        match datagram.family {
            Family::V4 => packet.read::<4>(datagram.l3 + 12).map(Self::V4),
            Family::V6 => packet.read::<16>(datagram.l3 + 8).map(Self::V6),
        }
        .ok_or(Exit::PassIpMalformed)
    }
}

/// This CPU's counters of one queue.
#[derive(Clone, Copy)]
struct Row(*mut ExitRow);

impl Row {
    #[inline(always)]
    fn of_queue(queue: u32) -> Option<Self> {
        EXITS.get_ptr_mut(queue.wrapping_add(1)).or_else(|| EXITS.get_ptr_mut(0)).map(Self)
    }

    #[inline(always)]
    fn count(self, slot: usize) {
        // SAFETY: the pointer is to a whole row of the map, which outlives the run.
        let slots = unsafe { &raw mut (*self.0).slots }.cast::<u64>();
        // SAFETY: the mask keeps it within the row's power-of-two many slots.
        let counter = unsafe { slots.add(slot & (XDP_SLOTS - 1)) };
        // SAFETY: an aligned counter of this CPU, which nobody else writes:
        // XDP programs do not interrupt each other on a CPU.
        unsafe { *counter += 1 };
    }
}

const _: () = assert!(XDP_SLOTS.is_power_of_two());
