//! Checked access to packet memory.

use aya_ebpf::programs::XdpContext;

/// Largest offset into a frame: above any frame a veth carries, and small
/// enough for the verifier to add to a packet pointer.
pub const OFFSET_MAX: usize = 0xfff;

/// The `N` bytes at `offset`, if they lie inside the frame.
#[inline(always)]
pub fn at<const N: usize>(ctx: &XdpContext, offset: usize) -> Option<*mut [u8; N]> {
    if offset > OFFSET_MAX {
        return None;
    }
    let start = ctx.data() + offset;
    if start + N > ctx.data_end() {
        return None;
    }
    Some(start as *mut [u8; N])
}

/// A copy of the `N` bytes at `offset`, if they lie inside the frame.
#[inline(always)]
pub fn read<const N: usize>(ctx: &XdpContext, offset: usize) -> Option<[u8; N]> {
    let bytes = at::<N>(ctx, offset)?;
    // SAFETY: `at` proved that all N bytes lie inside the frame, and byte
    // arrays need no alignment.
    Some(unsafe { *bytes })
}

/// Bytes in the frame.
#[inline(always)]
pub fn len(ctx: &XdpContext) -> usize {
    ctx.data_end() - ctx.data()
}
