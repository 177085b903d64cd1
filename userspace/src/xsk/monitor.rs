//! What can be known of a socket without its lane: the kernel's drop counters
//! and how many frames wait in its RX ring, even while the lane stands still.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::ring::RingMemory;
use super::socket::MappedRing;
use crate::base::sockopt;

/// The six counters of `XDP_STATISTICS`, since the socket was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpStatistics {
    /// Frames lost for want of a FILL entry or for being too large; in copy
    /// mode every lost FILL entry is in here as well as below.
    pub rx_dropped: u64,
    /// RX or FILL descriptors the kernel could not use: a bug of ours.
    pub rx_invalid_descs: u64,
    /// TX descriptors the kernel could not use: a bug of ours.
    pub tx_invalid_descs: u64,
    /// Frames lost since the RX ring was full: the lane was too slow.
    pub rx_ring_full: u64,
    /// Times the kernel found the FILL ring empty; a remark in copy mode, a
    /// loss in the device in zero-copy mode.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel found the TX ring empty; no loss.
    pub tx_ring_empty_descs: u64,
}

/// Entries in the four rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingDepths {
    /// Received, not yet taken by the lane.
    pub rx: u32,
    /// Handed over for sending, not yet taken by the kernel.
    pub tx: u32,
    /// Free frames lent to the kernel.
    pub fill: u32,
    /// Sent frames not yet taken back by the lane.
    pub completion: u32,
}

/// Read-only view of a lane's socket for the control core, through mappings of
/// its own.
#[derive(Debug)]
pub struct XskMonitor {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) rx: MappedRing<libc::xdp_desc>,
    pub(super) tx: MappedRing<libc::xdp_desc>,
    pub(super) fill: MappedRing<u64>,
    pub(super) completion: MappedRing<u64>,
}

impl XskMonitor {
    /// The socket, for the XSKMAP.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The kernel's counters now.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn statistics(&self) -> io::Result<XdpStatistics> {
        let s = sockopt::xdp_statistics(self.fd.as_fd())?;
        Ok(XdpStatistics {
            rx_dropped: s.rx_dropped,
            rx_invalid_descs: s.rx_invalid_descs,
            tx_invalid_descs: s.tx_invalid_descs,
            rx_ring_full: s.rx_ring_full,
            rx_fill_ring_empty_descs: s.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: s.tx_ring_empty_descs,
        })
    }

    /// What stands in the rings now.
    #[must_use]
    pub fn depths(&self) -> RingDepths {
        RingDepths {
            rx: depth(&self.rx),
            tx: depth(&self.tx),
            fill: depth(&self.fill),
            completion: depth(&self.completion),
        }
    }
}

fn depth<M: RingMemory>(ring: &M) -> u32 {
    let consumer = ring.load_consumer();
    ring.load_producer().wrapping_sub(consumer).min(ring.size())
}
