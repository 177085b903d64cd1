//! Packet memory as the decoder of the contract crate reads it.

use aya_ebpf::programs::XdpContext;
use veltrix_abi::frame::FrameBytes;

/// The bytes between `data` and `data_end`, valid while the program runs.
pub(crate) struct Packet {
    data: usize,
    data_end: usize,
}

impl Packet {
    /// The packet of `ctx`.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self { data: ctx.data(), data_end: ctx.data_end() }
    }
}

impl FrameBytes for Packet {
    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        self.data + end <= self.data_end
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.data + offset;
        if start + N > self.data_end {
            return None;
        }
        let bytes = start as *const [u8; N];
        // SAFETY: `start .. start + N` lies inside the packet, as just
        // checked, and an array of bytes has no alignment.
        Some(unsafe { bytes.read() })
    }
}
