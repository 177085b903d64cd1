//! The floor to measure against: the least that can be done with a received
//! frame. Benchmarks run it with a lane's rings, memory and pinning.

use std::sync::Arc;

use super::port::XskPort;
use super::socket::Xsk;
use crate::base::counters::LaneCounters;
use crate::base::port::Port as _;

/// A socket without a lane.
pub struct RawXsk {
    /// Only its rings and system calls are used; it never looks into a frame.
    port: XskPort,
}

impl RawXsk {
    /// Takes over a socket.
    #[must_use]
    pub fn new(xsk: Xsk, counters: Arc<LaneCounters>) -> Self {
        // Port and payload limit are for decoding, which never happens here.
        Self { port: XskPort::new(xsk, 0, 0, counters) }
    }

    /// Receives up to `max` frames and lends them straight back to the kernel;
    /// gives how many.
    #[inline]
    pub fn recycle(&mut self, max: usize) -> usize {
        let xsk = self.port.xsk_mut();
        let ready = (xsk.rx.ready() as usize).min(max);
        for _ in 0..ready {
            if let Some(desc) = xsk.rx.pop()
                && let Some(frame) = xsk.umem.reclaim(desc.addr)
            {
                xsk.free.push(frame);
            }
        }
        xsk.rx.release();
        xsk.refill();
        ready
    }

    /// Receives up to `max` frames and sends each back with its MAC addresses
    /// swapped and nothing else; gives how many.
    #[inline]
    pub fn echo(&mut self, max: usize) -> usize {
        let xsk = self.port.xsk_mut();
        let ready = (xsk.rx.ready() as usize).min(max);
        for _ in 0..ready {
            let Some(desc) = xsk.rx.pop() else { break };
            let Some(mut frame) = xsk.umem.reclaim(desc.addr) else { continue };
            let start = (desc.addr - frame.base()) as usize;
            let bytes = xsk.umem.bytes_of_mut(&mut frame);
            if let Some(macs) = bytes.get_mut(start..start + 12) {
                let (destination, source) = macs.split_at_mut(6);
                destination.swap_with_slice(source);
            }
            if xsk.tx.push(desc) {
                let _ = frame.surrender();
            } else {
                xsk.free.push(frame);
            }
        }
        xsk.rx.release();
        self.port.flush();
        ready
    }

    /// As [`crate::base::port::Port::wait`].
    pub fn wait(&mut self, timeout: std::time::Duration) {
        self.port.wait(timeout, None);
    }
}
