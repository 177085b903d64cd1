//! Counters of the link, by ioctl on a socket of the namespace and from its
//! `/proc/.../net/dev`: reading them starts no process and enters nothing.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

use super::link::{channels, ethtool, high, low, pair};
use super::namespace::Namespace;

// linux/ethtool.h
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETH_SS_STATS: u32 = 1;
const ETH_GSTRING_BYTES: usize = 32;
/// More than a veth with 128 queues names (about 14 a queue).
const STATISTICS_MAX: usize = 4_096;

/// Driver statistics by name, in the driver's order.
pub(super) struct Statistics {
    names: Vec<String>,
    words: Vec<u64>,
}

impl Statistics {
    pub(super) fn new() -> Self {
        Self { names: Vec::new(), words: vec![0; 1 + STATISTICS_MAX] }
    }

    /// Reads all values. The set changes with the queue count, so names are
    /// read again when their number does.
    pub(super) fn read(&mut self, namespace: &Namespace, interface: &str) -> Result<()> {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            self.words[0] = pair(ETHTOOL_GSTATS, 0);
            ethtool(namespace, interface, &mut self.words)?;
            let count = high(self.words[0]) as usize;
            ensure!(
                count <= STATISTICS_MAX,
                "lab: {interface} has {count} statistics, at most {STATISTICS_MAX} are read"
            );
            if count == self.names.len() {
                return Ok(());
            }
            self.names = statistic_names(namespace, interface)?;
        }
        bail!("lab: the statistics of {interface} changed {ATTEMPTS} times while they were read")
    }

    /// The values last read.
    pub(super) fn values(&self) -> &[u64] {
        &self.words[1..=self.names.len()]
    }

    /// Their names.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

fn statistic_names(namespace: &Namespace, interface: &str) -> Result<Vec<String>> {
    // struct ethtool_gstrings: command, set, count, then 32 bytes a name; the
    // names begin in the middle of a word.
    let mut data = vec![0_u64; 2 + STATISTICS_MAX * ETH_GSTRING_BYTES / 8];
    data[0] = pair(ETHTOOL_GSTRINGS, ETH_SS_STATS);
    ethtool(namespace, interface, &mut data)?;
    let count = low(data[1]) as usize;
    let bytes: Vec<u8> = data.iter().flat_map(|word| word.to_ne_bytes()).skip(12).collect();
    let name = |raw: &[u8]| {
        let text: Vec<u8> = raw.iter().copied().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&text).into_owned()
    };
    Ok(bytes.chunks_exact(ETH_GSTRING_BYTES).take(count).map(name).collect())
}

/// Some counters of every queue, read at one time.
pub(super) struct QueueColumns<const N: usize> {
    statistics: Statistics,
    /// Direction (`rx` or `tx`) and name.
    columns: [(&'static str, &'static str); N],
    /// Places of each column's values, queue by queue, and how many
    /// statistics there were when they were looked up.
    places: [Vec<usize>; N],
    looked_up: usize,
}

impl<const N: usize> QueueColumns<N> {
    pub(super) fn new(columns: [(&'static str, &'static str); N]) -> Self {
        let places = std::array::from_fn(|_| Vec::new());
        Self { statistics: Statistics::new(), columns, places, looked_up: 0 }
    }

    /// Values by column, then queue.
    pub(super) fn read(&mut self, namespace: &Namespace, interface: &str) -> Result<[Vec<u64>; N]> {
        self.statistics.read(namespace, interface)?;
        let names = self.statistics.names();
        if names.len() != self.looked_up {
            for (places, (direction, name)) in self.places.iter_mut().zip(self.columns) {
                let place = |queue| {
                    let wanted = format!("{direction}_queue_{queue}_{name}");
                    names.iter().position(|name| *name == wanted)
                };
                *places = (0..).map_while(place).collect();
                ensure!(
                    !places.is_empty(),
                    "lab: {interface} has no statistic {direction}_queue_0_{name}"
                );
            }
            self.looked_up = names.len();
        }
        let values = self.statistics.values();
        Ok(std::array::from_fn(|column| self.places[column].iter().map(|at| values[*at]).collect()))
    }
}

/// Counters of one end since it was made, as veth counts (measured on kernel
/// 6.18 with known numbers of frames; what was not provoked says so).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that arrived: by redirect and from the peer's sockets, those an
    /// XDP program then dropped included.
    pub rx_packets: u64,
    /// Bytes of those, Ethernet headers included, but for frames of sockets
    /// that met an XDP program: those count without their Ethernet header.
    pub rx_bytes: u64,
    /// Arrived frames lost before the stack; by the driver's source, never
    /// provoked here.
    pub rx_dropped: u64,
    /// Frames sent: redirected to this interface (`xdp_xmit`) and from sockets.
    pub tx_packets: u64,
    /// Bytes of those, with the same exception as `rx_bytes`.
    pub tx_bytes: u64,
    /// Frames of sockets that could not be sent; by the driver's source,
    /// never provoked here.
    pub tx_dropped: u64,
    /// Counters of each active queue.
    pub queues: Vec<QueueCounters>,
}

/// Counters of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Frames taken out of this queue's ring, whatever the program then did:
    /// redirected ones and the peer's sockets' alike. Stays 0 without a
    /// program on this end.
    pub xdp_packets: u64,
    /// Bytes of those.
    pub xdp_bytes: u64,
    /// Frames that the XDP program dropped or aborted.
    pub xdp_drops: u64,
    /// Frames that it redirected.
    pub xdp_redirect: u64,
    /// Frames that it sent back.
    pub xdp_tx: u64,
    /// Frames that it wanted to send back and the peer's ring refused.
    pub xdp_tx_errors: u64,
    /// Frames lost for want of memory before the program ran; by the driver's
    /// source, never provoked here.
    pub drops: u64,
    /// Frames redirected *to* this interface that went into the peer's ring
    /// of the same number.
    pub xdp_xmit: u64,
    /// Frames redirected to this interface that the peer's ring refused: full.
    /// A frame longer than the MTU or a peer without program counts nowhere
    /// but in the generator's [`super::Sent::refused`].
    pub xdp_xmit_errors: u64,
}

impl Counters {
    /// Sum of a counter over the queues.
    pub fn sum(&self, counter: impl Fn(&QueueCounters) -> u64) -> u64 {
        self.queues.iter().map(counter).sum()
    }
}

/// Reads the counters of `interface`.
pub(super) fn counters(namespace: &Namespace, interface: &str) -> Result<Counters> {
    let mut statistics = Statistics::new();
    statistics.read(namespace, interface)?;
    let values = statistics.values().iter().copied();
    let by_name: BTreeMap<&str, u64> =
        statistics.names().iter().map(String::as_str).zip(values).collect();
    let mut counters = device_counters(namespace, interface)?;
    let channels = channels(namespace, interface)?;
    for queue in 0..channels.rx.max(channels.tx) {
        let rx =
            |name: &str| by_name.get(&*format!("rx_queue_{queue}_{name}")).copied().unwrap_or(0);
        let tx =
            |name: &str| by_name.get(&*format!("tx_queue_{queue}_{name}")).copied().unwrap_or(0);
        counters.queues.push(QueueCounters {
            xdp_packets: rx("xdp_packets"),
            xdp_bytes: rx("xdp_bytes"),
            xdp_drops: rx("xdp_drops"),
            xdp_redirect: rx("xdp_redirect"),
            xdp_tx: rx("xdp_tx"),
            xdp_tx_errors: rx("xdp_tx_errors"),
            drops: rx("drops"),
            xdp_xmit: tx("xdp_xmit"),
            xdp_xmit_errors: tx("xdp_xmit_errors"),
        });
    }
    Ok(counters)
}

/// The link statistics, from the holder thread's `/proc`.
fn device_counters(namespace: &Namespace, interface: &str) -> Result<Counters> {
    let path = format!("/proc/self/task/{}/net/dev", namespace.holder_tid());
    let text = std::fs::read_to_string(&path).with_context(|| format!("lab: {path}"))?;
    let line =
        text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let line = line.with_context(|| format!("lab: {path} has no {interface}"))?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [rx_bytes, rx_packets, _, rx_dropped, _, _, _, _, tx_bytes, tx_packets, _, tx_dropped, ..] =
        fields[..]
    else {
        bail!("lab: {path}: {} fields for {interface}, wanted 16", fields.len());
    };
    Ok(Counters {
        rx_packets,
        rx_bytes,
        rx_dropped,
        tx_packets,
        tx_bytes,
        tx_dropped,
        queues: Vec::new(),
    })
}
