//! What the generator knows of the link: which receive queues it feeds, and
//! what became of its frames, from the interfaces' own counters.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::counters::QueueColumns;
use super::{CLIENT_INTERFACE, SERVER_INTERFACE, Shared, link};

/// Slots of a veth receive ring (`VETH_RING_SIZE` in drivers/net/veth.c).
pub(super) const RING_SLOTS: u64 = 256;

/// How long a full ring or a last frame is waited for.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Server receive queues taken by a generator: two on one queue could not
/// tell their frames apart.
pub(super) struct Reserved<'a> {
    shared: &'a Shared,
    queues: Vec<usize>,
}

impl<'a> Reserved<'a> {
    pub(super) fn new(shared: &'a Shared, cores: &[usize]) -> Result<Self> {
        let count = link::channels(&shared.server, SERVER_INTERFACE)?.rx as usize;
        let mut queues: Vec<usize> = cores.iter().map(|core| core % count).collect();
        queues.sort_unstable();
        queues.dedup();
        let mut in_use = shared.queues_in_use();
        if let Some(queue) = queues.iter().find(|queue| in_use.contains(queue)) {
            bail!(
                "generator: cores {cores:?} feed receive queue {queue} of {count}, and so does a running \
                 generator; wait for it, or choose cores of other queues"
            );
        }
        in_use.extend(&queues);
        drop(in_use);
        Ok(Self { shared, queues })
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shared.queues_in_use().retain(|queue| !self.queues.contains(queue));
    }
}

/// Growth of the link's counters over one call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delta {
    pub(super) delivered: u64,
    pub(super) ring_full: u64,
}

/// Reads the link's counters and keeps the differences.
pub(super) struct Meter<'a> {
    shared: &'a Shared,
    /// Of the client's interface: delivered and refused by a full ring.
    client: QueueColumns<2>,
    /// Of the server's interface: taken out of the ring.
    server: QueueColumns<1>,
    receive_queues: usize,
    client_last: [Vec<u64>; 2],
    taken_at_start: Vec<u64>,
    /// Delivered by this generator, by server receive queue.
    pub(super) delivered: Vec<u64>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(shared: &'a Shared) -> Result<Self> {
        let mut client = QueueColumns::new([("tx", "xdp_xmit"), ("tx", "xdp_xmit_errors")]);
        let mut server = QueueColumns::new([("rx", "xdp_packets")]);
        let receive_queues = link::channels(&shared.server, SERVER_INTERFACE)?.rx as usize;
        let client_last = client.read(&shared.client, CLIENT_INTERFACE)?;
        let [taken_at_start] = server.read(&shared.server, SERVER_INTERFACE)?;
        let delivered = vec![0; receive_queues];
        Ok(Self { shared, client, server, receive_queues, client_last, taken_at_start, delivered })
    }

    /// What the link's counters grew by since the last call, through the
    /// queue that `core` feeds.
    pub(super) fn advance(&mut self, core: usize) -> Result<Delta> {
        let receive_queues = link::channels(&self.shared.server, SERVER_INTERFACE)?.rx as usize;
        let now = self.client.read(&self.shared.client, CLIENT_INTERFACE)?;
        let queue = core % receive_queues;
        let rows =
            if receive_queues == self.receive_queues && now[0].len() == self.client_last[0].len() {
                // The kernel shows ring Q in row Q modulo the client's transmit queues.
                let row = queue % now[0].len();
                row..row + 1
            } else {
                // The count changed during the call: its frames may be in any row.
                0..now[0].len().min(self.client_last[0].len())
            };
        let grown = |column: usize| -> u64 {
            rows.clone()
                .map(|row| now[column][row].saturating_sub(self.client_last[column][row]))
                .sum()
        };
        let delta = Delta { delivered: grown(0), ring_full: grown(1) };
        self.client_last = now;
        self.receive_queues = receive_queues;
        if self.delivered.len() < receive_queues {
            self.delivered.resize(receive_queues, 0);
        }
        self.delivered[queue] += delta.delivered;
        Ok(delta)
    }

    /// Frames of this generator in the ring of `queue`.
    fn outstanding(&mut self, queue: usize) -> Result<u64> {
        let [taken] = self.server.read(&self.shared.server, SERVER_INTERFACE)?;
        let at = |counts: &[u64]| counts.get(queue).copied().unwrap_or(0);
        let taken = at(&taken).saturating_sub(at(&self.taken_at_start));
        Ok(at(&self.delivered).saturating_sub(taken))
    }

    /// Waits until the ring that `core` feeds has room for half its slots.
    pub(super) fn wait_for_room(&mut self, core: usize) -> Result<()> {
        let queue = core % self.receive_queues;
        let start = Instant::now();
        loop {
            let outstanding = self.outstanding(queue)?;
            if outstanding <= RING_SLOTS / 2 {
                return Ok(());
            }
            ensure!(
                start.elapsed() < DRAIN_WAIT_MAX,
                "generator: the server's receive queue {queue} holds {outstanding} frames and took none for {DRAIN_WAIT_MAX:?}"
            );
            thread::yield_now();
        }
    }

    /// Waits until every delivered frame was taken; gives what was not.
    pub(super) fn drain(&mut self) -> Result<u64> {
        let start = Instant::now();
        loop {
            let mut left = 0;
            for queue in 0..self.delivered.len() {
                left += self.outstanding(queue)?;
            }
            if left == 0 || start.elapsed() >= DRAIN_WAIT_MAX {
                return Ok(left);
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}
