//! What `veltrix status` tells: modes, counters, sums and alarms of a running
//! server, as one value that travels as JSON.
//!
//! Labels in the maps are those of [`veltrix_abi::Exit`] and
//! [`veltrix_abi::Outcome`]; a counter that is zero may be left out, and
//! `docs/METRICS.md` explains every one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::accounting::Accounting;
use super::log_status::LogStatus;

/// Counters by label; zeros may be absent.
pub type Counts = BTreeMap<String, u64>;

/// The whole of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the binary.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it began to serve.
    pub uptime_s: u64,
    /// What brings it packets.
    pub provider: Provider,
    /// Why this provider: what was asked for, or what was missing.
    pub provider_reason: String,
    /// The interface, when the provider is XDP.
    pub nic: Option<NicStatus>,
    /// Address the UDP sockets listen on: the service without a NIC, the
    /// fallback with one.
    pub listen: String,
    /// UDP port served.
    pub port: u16,
    /// Partitions that domains hash to.
    pub partitions: u16,
    /// Largest UDP payload accepted, bytes.
    pub payload_bytes_max: u16,
    /// One row a lane.
    pub lanes: Vec<LaneStatus>,
    /// The lane of the fallback socket, when the provider is XDP.
    pub fallback: Option<LaneStatus>,
    /// One row a queue as the XDP program counted it; empty without XDP.
    pub xdp_queues: Vec<QueueStatus>,
    /// Whether the interface had more queues at any time than when the program
    /// was attached.
    pub queues_grew: bool,
    /// Whether every frame is accounted for.
    pub accounting: Accounting,
    /// The log; `None` on a server without a data directory.
    pub log: Option<Box<LogStatus>>,
    /// What an operator should look at; empty when all is well.
    pub alarms: Vec<Alarm>,
    /// Events over all lanes, by outcome.
    pub events: Counts,
}

/// What brings packets to the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// AF_XDP sockets behind an XDP program.
    Xdp,
    /// Kernel UDP sockets.
    #[default]
    Udp,
}

/// The interface that XDP serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NicStatus {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Where the program is attached, read back: `driver`, `generic`, or
    /// `none` when it is no longer there.
    pub xdp_mode: String,
    /// The kernel's number of the program.
    pub program_id: u32,
    /// Instructions after verification (`xlated`).
    pub instructions: u32,
    /// Receive queues now.
    pub rx_queues: u32,
    /// Transmit queues now.
    pub tx_queues: u32,
    /// Receive queues when the lanes were made; lanes serve these.
    pub queues_at_start: u32,
}

/// A lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneStatus {
    /// Its number, from 0.
    pub lane: u16,
    /// Core it is pinned to; `None` when it is not.
    pub core: Option<usize>,
    /// Queue it serves; `None` on a UDP socket.
    pub queue: Option<u32>,
    /// Whether the NIC writes straight into its memory, read back.
    pub zero_copy: bool,
    /// How it waits: `wakeup`, `spin`, `prefer-busy`.
    pub wait: String,
    /// Pages behind its packet memory: `hugetlb`, `thp`, `4k`.
    pub umem_pages: String,
    /// Its packet memory, bytes.
    pub umem_bytes: u64,
    /// Frames or datagrams taken from the ring or socket.
    pub frames: u64,
    /// Bytes of UDP payload in them.
    pub payload_bytes: u64,
    /// Frames by exit.
    pub exits: Counts,
    /// Events in datagrams that were served.
    pub events: u64,
    /// Events by outcome; those applied before count as `duplicate`.
    pub outcomes: Counts,
    /// What became of replies.
    pub replies: Replies,
    /// Answers that wait for the log.
    pub acks: Acks,
    /// Datagrams the kernel dropped at this UDP socket (SO_MEMINFO); 0 on AF_XDP.
    pub socket_drops: u64,
    /// The kernel's counters of the AF_XDP socket.
    pub xdp_statistics: XdpStatistics,
    /// Entries in its rings now.
    pub rings: RingDepths,
    /// System calls made for packets.
    pub syscalls: u64,
    /// Passes of its loop.
    pub turns: u64,
    /// Times it slept in the kernel.
    pub sleeps: u64,
    /// How long it was ready and something else had its core, ns since its start;
    /// `None` where the kernel does not count it.
    pub run_delay_ns: Option<u64>,
    /// Descriptors from the kernel that named no frame of ours: a kernel bug.
    pub alien_frames: u64,
    /// As [`QueueStatus::arrived_while_reading`], for this lane's counters.
    pub arrived_while_reading: u64,
}

/// Fates of replies: their sum is the sum of exits whose action is `reply`,
/// less those not yet decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Replies {
    /// Datagrams handed to the kernel.
    pub sent: u64,
    /// Answers that rode in another datagram.
    pub coalesced: u64,
    /// Lost for lack of room.
    pub dropped_tx_full: u64,
    /// Not sent, since larger than their request.
    pub withheld: u64,
}

/// Answers that wait for the log, and those that never come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acks {
    /// Datagrams in a batch that is not applied yet, or whose queries another lane answers.
    pub pending: u64,
    /// Events in them.
    pub events_pending: u64,
    /// Datagrams whose batch will not commit.
    pub lost: u64,
    /// Events in them.
    pub events_lost: u64,
}

/// The terms of [`Acks`] for the documentation.
pub const ACK_FATES: [(&str, &str); 4] = [
    (
        "pending",
        "Datagrams in a batch that is not applied yet, or whose queries another lane answers: a level, no count.",
    ),
    ("events_pending", "Events in them."),
    (
        "lost",
        "Datagrams whose batch will not commit, since another node leads now: the sender gets no answer and tries again with the same keys.",
    ),
    ("events_lost", "Events in them."),
];

/// Reply fates for the documentation, in the order of [`Replies`].
pub const REPLY_FATES: [(&str, &str); 4] = [
    ("sent", "Handed to the kernel for sending, as a datagram of its own."),
    (
        "coalesced",
        "Rode in another datagram to the same sender; the datagram itself counts as `sent`.",
    ),
    (
        "dropped_tx_full",
        "Lost, since the transmit ring or the send buffer was full, or the kernel refused the send; the sender retries.",
    ),
    ("withheld", "Not sent, since it would have been larger than the request: no amplification."),
];

impl Replies {
    /// All replies whose fate is known.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sent
            .wrapping_add(self.coalesced)
            .wrapping_add(self.dropped_tx_full)
            .wrapping_add(self.withheld)
    }
}

/// `XDP_STATISTICS` of an AF_XDP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XdpStatistics {
    /// Redirected to the socket and dropped before its ring.
    pub rx_dropped: u64,
    /// Descriptors in the FILL ring that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Descriptors in the TX ring that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Redirected to the socket and dropped, since its RX ring was full.
    pub rx_ring_full: u64,
    /// Times the kernel found the FILL ring empty.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel found the TX ring empty.
    pub tx_ring_empty_descs: u64,
}

/// The six kernel counters for the documentation: name, whether it is a term
/// of the sums, meaning.
pub const XDP_STATISTICS: [(&str, bool, &str); 6] = [
    (
        "rx_dropped",
        true,
        "Redirected to the socket and dropped before its ring: no free frame (copy mode), or larger than a frame.",
    ),
    (
        "rx_invalid_descs",
        false,
        "Descriptors in the FILL ring that the kernel refused: a bug in Veltrix.",
    ),
    (
        "tx_invalid_descs",
        false,
        "Descriptors in the TX ring that the kernel refused: a bug in Veltrix.",
    ),
    (
        "rx_ring_full",
        true,
        "Redirected to the socket and dropped, since its RX ring was full: the lane is too slow or stalled.",
    ),
    (
        "rx_fill_ring_empty_descs",
        false,
        "Times the kernel found the FILL ring empty. In copy mode each such frame is already in `rx_dropped`; with zero-copy the driver drops it before the program sees it.",
    ),
    (
        "tx_ring_empty_descs",
        false,
        "Times the kernel found the TX ring empty: nothing to send, not a fault.",
    ),
];

/// Entries in the four rings of an AF_XDP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RingDepths {
    /// Received, not yet taken by the lane; 0 on a UDP socket, whose buffer the
    /// kernel counts in bytes only.
    pub rx: u32,
    /// Handed over for sending, not yet taken by the kernel.
    pub tx: u32,
    /// Free frames offered to the kernel.
    pub fill: u32,
    /// Sent frames not yet taken back.
    pub completion: u32,
}

/// A queue as the XDP program counted it, over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueStatus {
    /// Its number; `None` is the row of frames from a queue beyond those at start.
    pub queue: Option<u32>,
    /// Frames the program saw.
    pub frames: u64,
    /// Frames by exit.
    pub exits: Counts,
    /// Datagrams the rate limit would have dropped (observe-only): a remark,
    /// each left by another exit.
    pub rate_observed: u64,
    /// Frames that came while the counters were being read: by so much the
    /// sums of a server under load may differ. 0 on a quiet one.
    pub arrived_while_reading: u64,
}

/// Something an operator should look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alarm {
    /// Its name, kebab case: `queue-count-changed`.
    pub name: String,
    /// Seconds since it was raised.
    pub since_s: u64,
    /// What was found, what was wanted, the command that mends it.
    pub message: String,
}

impl Status {
    /// Fills in [`Self::accounting`] and [`Self::events`] from the rows.
    pub fn close(&mut self) {
        self.accounting = super::accounting::close_grown(
            &self.xdp_queues,
            &self.lanes,
            self.fallback.as_ref(),
            self.queues_grew,
        );
        self.events = Counts::new();
        for lane in self.lanes.iter().chain(&self.fallback) {
            for (label, count) in &lane.outcomes {
                *self.events.entry(label.clone()).or_default() += count;
            }
        }
    }

    /// Whether nothing needs an operator.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.alarms.is_empty() && self.accounting.closes
    }
}
