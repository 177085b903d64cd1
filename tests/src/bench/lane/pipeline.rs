//! What one lane does with datagrams when it owns every partition and the log
//! says yes at once: decode, batch, apply, acknowledge.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use veltrix::apply::{DUPLICATES, Partition, PartitionLimits, apply_batch};
use veltrix::batch::{BatchView, Pool};
use veltrix::dedupe::{DedupeLimits, Secret};
use veltrix::index::IndexLimits;
use veltrix_abi::Outcome;
use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::{self, AckEntry, Header, Kind, Mode, Request};

use super::traffic::{EVENT_NS, EVENTS, PARTITIONS, Scale, log_time_ns, mix};

/// Buffers of batches, used in turn as when some are still on their way to disk.
const BATCHES: usize = 4;

/// Limits of one partition of a world of this scale: full when all are full.
#[must_use]
pub fn limits(scale: &Scale) -> PartitionLimits {
    let partitions = u64::from(PARTITIONS);
    PartitionLimits {
        index: IndexLimits {
            cells_max: scale.cells().div_ceil(partitions) as u32,
            players_max: scale.players().div_ceil(partitions) as u32,
            hunts_max: scale.hunts_per_partition as u16,
            definitions_max: 16,
            deeds_max: 100,
        },
        dedupe: DedupeLimits {
            keys_max: scale.keys.div_ceil(u32::from(PARTITIONS)),
            // The window that suits the rate: a quarter longer than the keys last.
            window_ms: u64::from(scale.keys) * EVENT_NS / 800_000,
        },
    }
}

/// Time that events took, by stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Events it is the time of.
    pub events: u64,
    /// Decode, append to the batch, seal.
    pub batch_ns: u64,
    /// Dedupe, rules, index, digest, outcome slots.
    pub apply_ns: u64,
    /// Acks written, with their CRC.
    pub ack_ns: u64,
}

impl Times {
    /// Everything.
    #[must_use]
    pub const fn total_ns(&self) -> u64 {
        self.batch_ns + self.apply_ns + self.ack_ns
    }
}

/// A batch of a round: what the model has to be told.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Epoch it was applied as.
    pub epoch: u64,
    /// Its log time.
    pub log_time_ns: u64,
    /// Its datagrams, by number in the round.
    pub datagrams: std::ops::Range<usize>,
}

/// Datagrams of a round, one after the other.
#[derive(Default)]
pub struct Round {
    /// All of them.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
}

impl Round {
    /// Empties it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The datagram of a number.
    #[must_use]
    #[inline(always)]
    pub fn datagram(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[start..self.ends[number]]
    }
}

/// An ack that is owed.
#[derive(Clone, Copy)]
struct Owed {
    header: Header,
    first_slot: u32,
}

/// See the module.
pub struct Pipeline {
    partitions: Vec<Partition>,
    pool: Pool,
    owed: Vec<Owed>,
    epoch: u64,
    events: u64,
    /// Acks of the round, one a datagram, all of one length class.
    pub acks: Round,
    /// Batches of the round.
    pub sealed: Vec<Sealed>,
}

impl Pipeline {
    /// A node without any state.
    ///
    /// # Errors
    ///
    /// The memory cannot be had.
    pub fn new(scale: &Scale) -> io::Result<Self> {
        // The hash is as good as its secret: bytes that look random, and are
        // the same in every run.
        let secret = Secret::new(std::array::from_fn(|i| (mix(i as u64) >> 32) as u8));
        let (limits, secret) = (limits(scale), Arc::new(secret));
        let partition = |number| Partition::new(number, &limits, Arc::clone(&secret));
        Ok(Self {
            partitions: (0..PARTITIONS).map(partition).collect::<io::Result<_>>()?,
            pool: Pool::new(BATCHES, PARTITIONS),
            owed: Vec::new(),
            epoch: 0,
            events: 0,
            acks: Round::default(),
            sealed: Vec::new(),
        })
    }

    /// The partitions.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Events by outcome code so far, duplicates apart, over all partitions.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        let sum = |slot: usize| self.partitions.iter().map(|p| p.outcomes()[slot]).sum();
        let codes = Outcome::ALL.iter().map(|o| (o.label(), sum(usize::from(o.code()))));
        codes.chain([("duplicate", sum(DUPLICATES))]).filter(|(_, n)| *n > 0).collect()
    }

    /// Takes every datagram of the round through all stages.
    ///
    /// # Errors
    ///
    /// A datagram that does not decode: the generator is wrong.
    pub fn run(&mut self, round: &Round) -> Result<Times> {
        let mut times = Times::default();
        self.acks.clear();
        self.sealed.clear();
        let mut next = 0;
        while next < round.ends.len() {
            let first = next;
            let started = Instant::now();
            let index = self.pool.take().context("every batch buffer is held")?;
            next = self.fill(index, round, first)?;
            let filled = Instant::now();
            let log_time_ns = log_time_ns(self.events);
            self.epoch += 1;
            self.apply(index, log_time_ns);
            let applied = Instant::now();
            self.acknowledge(index);
            times.batch_ns += (filled - started).as_nanos() as u64;
            times.apply_ns += (applied - filled).as_nanos() as u64;
            times.ack_ns += applied.elapsed().as_nanos() as u64;
            times.events += u64::from(self.pool.get(index).events());
            self.sealed.push(Sealed { epoch: self.epoch, log_time_ns, datagrams: first..next });
        }
        Ok(times)
    }

    /// Decodes datagrams into the open batch until it is full, and seals it;
    /// the number of the first that found no room.
    fn fill(&mut self, index: usize, round: &Round, first: usize) -> Result<usize> {
        let batch = self.pool.open_buffer(index);
        self.owed.clear();
        let mut number = first;
        while number < round.ends.len() {
            let decoded = wire::decode(round.datagram(number), crc_fast::crc32_iscsi);
            let Ok((header, Request::Events(_, events))) = decoded else {
                bail!("datagram {number} of the round: {decoded:?}");
            };
            let partition = partition_of(header.domain, PARTITIONS);
            let slot = batch.append(partition, header.domain, events.as_bytes(), header.count);
            let Some(first_slot) = slot else { break };
            self.owed.push(Owed { header, first_slot });
            number += 1;
        }
        batch.seal(0, 1, self.epoch);
        self.events += u64::from(batch.events());
        Ok(number)
    }

    fn apply(&mut self, index: usize, log_time_ns: u64) {
        let batch = self.pool.get(index);
        let Some(view) = BatchView::of_checked(batch.bytes()) else { return };
        let partitions = &mut self.partitions[..];
        apply_batch(partitions, self.epoch, log_time_ns, &view, Some(batch.slots()));
    }

    /// One ack a datagram: nothing shared, the dearest case.
    fn acknowledge(&mut self, index: usize) {
        let slots = self.pool.get(index).slots();
        for Owed { header, first_slot } in &self.owed {
            let count = usize::from(header.count);
            let mut outcomes = [0; EVENTS as usize];
            let outcomes = &mut outcomes[..count];
            for (byte, slot) in outcomes.iter_mut().zip(*first_slot..) {
                *byte = slots.outcome(slot);
            }
            let acks = &mut self.acks.bytes;
            let start = acks.len();
            acks.resize(start + HEADER_BYTES + AckEntry::wire_bytes(count, 0), 0);
            let ack = &mut acks[start..];
            Header { kind: Kind::Ack as u8, mode: 0, count: 1, ..*header }.write(ack);
            let entry = &mut ack[HEADER_BYTES..];
            AckEntry::write(entry, header.sequence, self.epoch, Mode::Durable, outcomes, 0);
            wire::finish(ack, crc_fast::crc32_iscsi);
            self.acks.ends.push(acks.len());
        }
    }
}

/// Time that decoding alone takes, ns, over the whole round.
#[must_use]
pub fn decode_ns(round: &Round) -> u64 {
    let started = Instant::now();
    for number in 0..round.ends.len() {
        let decoded = wire::decode(round.datagram(number), crc_fast::crc32_iscsi);
        std::hint::black_box(decoded.is_ok());
    }
    started.elapsed().as_nanos() as u64
}
