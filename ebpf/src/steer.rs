//! Hands a datagram to its lane, or to the kernel's socket when there is none.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::map;
use aya_ebpf::maps::XskMap;
use veltrix_abi::Exit;

/// AF_XDP sockets by queue; sized at load.
#[map]
static XSKS: XskMap = XskMap::with_max_entries(1, 0);

/// Redirects to the socket of `queue`; a queue without one passes, so that a
/// lane that is away degrades the service and does not end it.
#[inline(always)]
pub(crate) fn to_lane(queue: u32) -> Exit {
    match XSKS.redirect(queue, u64::from(xdp_action::XDP_PASS)) {
        Ok(_) => Exit::RedirectXsk,
        Err(_) => Exit::PassFallback,
    }
}
