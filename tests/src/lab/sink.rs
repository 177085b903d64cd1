//! The sink: an XDP program on the client's interface that counts replies by
//! kind and drops those that answer generated traffic.

use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::Result;
use aya::Ebpf;
use veltrix_abi::wire::Kind;

use super::layout::{
    KIND_SLOTS, SINK_MAP, SINK_PROGRAM, SUNK_DROPPED, SUNK_MAP, SUNK_PASSED, SinkCounts,
    SinkSettings,
};
use super::{Lab, Shared, Side, object};

impl SinkCounts {
    /// Datagrams of a kind.
    #[must_use]
    pub const fn kind(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize]
    }

    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.foreign += other.foreign;
        self.ack_entries += other.ack_entries;
        self.acked_events += other.acked_events;
        self.acks_cut += other.acks_cut;
        for slot in 0..KIND_SLOTS {
            self.kinds[slot] += other.kinds[slot];
        }
    }
}

/// What the sink saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkReading {
    /// Replies to generated traffic: dropped after they were counted.
    pub dropped: SinkCounts,
    /// Everything else: handed to the client's kernel.
    pub passed: SinkCounts,
}

/// See the module. Detached when dropped.
pub struct Sink {
    ebpf: Ebpf,
    _shared: Arc<Shared>,
}

impl Sink {
    /// Attaches the sink to the client's interface. Datagrams to a UDP port
    /// in `generated_ports` are dropped; with `None` everything passes.
    ///
    /// # Errors
    ///
    /// No object, or the kernel refuses: with interface, queue counts and cure.
    pub fn attach(lab: &Lab, generated_ports: Option<RangeInclusive<u16>>) -> Result<Self> {
        let mut ebpf = object::load()?;
        let settings = match generated_ports {
            Some(ports) => SinkSettings {
                port_first: u32::from(*ports.start()),
                port_last: u32::from(*ports.end()),
            },
            None => SinkSettings { port_first: 1, port_last: 0 },
        };
        object::settings(&mut ebpf, SINK_MAP)?.set(0, settings, 0)?;
        object::attach(&mut ebpf, SINK_PROGRAM, &lab.shared, Side::Client)?;
        Ok(Self { ebpf, _shared: Arc::clone(&lab.shared) })
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn read(&self) -> Result<SinkReading> {
        let row = |row| -> Result<SinkCounts> {
            let mut total = SinkCounts::default();
            object::counts::<SinkCounts>(&self.ebpf, SUNK_MAP, row)?
                .iter()
                .for_each(|counts| total.add(counts));
            Ok(total)
        };
        Ok(SinkReading { dropped: row(SUNK_DROPPED)?, passed: row(SUNK_PASSED)? })
    }

    /// Takes the sink off the interface and gives its last reading.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to give it; the sink is off all the same.
    pub fn detach(self) -> Result<SinkReading> {
        self.read()
    }
}
