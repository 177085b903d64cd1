//! A lane's readers: queries are answered at once where the partition is here, and
//! by the lane that owns it otherwise. A partition that an entry is half applied to
//! answers when it is through.

use std::collections::VecDeque;
use std::sync::Arc;

use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::partition::partition_of;
use veltrix_abi::query::Queries;
use veltrix_abi::wire::{self, Header, Kind};

use super::echo;
use super::link::LaneLink;
use super::owner::Owner;
use super::reads::{JOBS, LaneReads, ReadJob};
use crate::base::counters::LaneCounters;
use crate::base::port::Port;
use crate::read;

/// Somebody who waits for an answer.
struct Reader<T> {
    path: T,
    header: Header,
}

/// See the module.
pub(super) struct Readers<P: Port> {
    reads: LaneReads,
    /// By the mark of their job.
    waiting: Box<[Option<Reader<P::Path>>]>,
    /// Jobs about the partition that is half applied.
    held: VecDeque<Box<ReadJob>>,
    partitions: u16,
    lanes: Arc<[Arc<LaneLink>]>,
}

impl<P: Port> Readers<P> {
    pub(super) fn new(reads: LaneReads, partitions: u16, lanes: Arc<[Arc<LaneLink>]>) -> Self {
        let waiting = (0..JOBS).map(|_| None).collect();
        Self { reads, waiting, held: VecDeque::with_capacity(JOBS), partitions, lanes }
    }

    /// Whether a turn would find something to do.
    pub(super) fn has_work(&self) -> bool {
        self.reads.has_work() || !self.held.is_empty()
    }

    /// Datagrams whose answer is with another lane, or waits for a partition.
    pub(super) fn owed(&self) -> u64 {
        self.reads.asker.under_way() as u64
    }

    /// A job with the queries of a datagram, over which their answer may be
    /// written; `None` when all are under way.
    pub(super) fn take(&mut self, header: &Header, queries: &Queries<'_>) -> Option<Box<ReadJob>> {
        let mut job = self.reads.asker.take()?;
        job.ask(partition_of(header.domain, self.partitions), header.domain, queries);
        Some(job)
    }

    /// Answers the queries of a job, which came in `packet`, or has them answered.
    ///
    /// # Errors
    ///
    /// The packet, when no lane owns their partition.
    pub(super) fn read(
        &mut self,
        port: &mut P,
        mut packet: P::Packet,
        request: &Header,
        job: Box<ReadJob>,
        owner: &Owner,
    ) -> Result<(), P::Packet> {
        let header = Header { count: job.count(), ..echo(request, Kind::Answer) };
        let partition = owner.partition(job.partition);
        let place = usize::from(job.place);
        if owner.is_half_applied(job.partition) {
            self.waiting[place] = Some(Reader { path: port.path(&packet), header });
            port.recycle(packet);
            // As many places as jobs: there is room.
            self.held.push_back(job);
            return Ok(());
        }
        if partition.is_some() {
            let out = port.buffer(&mut packet);
            let body = &mut out[HEADER_BYTES..];
            let shown = owner.shown(partition);
            let bytes = read::answer(partition, job.domain, &job.queries(), shown, body);
            finish(&header, &mut out[..HEADER_BYTES + bytes]);
            port.send(packet, HEADER_BYTES + bytes);
            self.reads.asker.give_back(job);
            return Ok(());
        }
        match self.reads.asker.send(job, &self.lanes) {
            Ok(()) => {
                self.waiting[place] = Some(Reader { path: port.path(&packet), header });
                port.recycle(packet);
                Ok(())
            }
            Err(job) => {
                self.reads.asker.give_back(job);
                Err(packet)
            }
        }
    }

    /// Answers what other lanes ask, and sends what they have answered; gives how
    /// many of both.
    #[inline]
    pub(super) fn turn(
        &mut self,
        port: &mut P,
        counters: &LaneCounters,
        owner: &Owner,
        link: &LaneLink,
    ) -> usize {
        if !self.has_work() {
            return 0;
        }
        let mut done = self.reads.serve(owner, link, &self.lanes);
        while self.held.front().is_some_and(|job| !owner.is_half_applied(job.partition))
            && let Some(mut job) = self.held.pop_front()
        {
            owner.answer(&mut job);
            self.tell(port, counters, job);
            done += 1;
        }
        while let Some(job) = self.reads.asker.answered() {
            self.tell(port, counters, job);
            done += 1;
        }
        done
    }

    /// Sends the answer of a job to whoever waits for it.
    fn tell(&mut self, port: &mut P, counters: &LaneCounters, job: Box<ReadJob>) {
        if let Some(reader) = self.waiting[usize::from(job.place)].take() {
            tell(port, counters, &reader, job.answer());
        }
        self.reads.asker.give_back(job);
    }
}

fn tell<P: Port>(port: &mut P, counters: &LaneCounters, reader: &Reader<P::Path>, answer: &[u8]) {
    let Some(mut packet) = port.reply_on(&reader.path) else {
        counters.replies.dropped_tx_full.add(1);
        return;
    };
    let bytes = HEADER_BYTES + answer.len();
    let out = &mut port.buffer(&mut packet)[..bytes];
    out[HEADER_BYTES..].copy_from_slice(answer);
    finish(&reader.header, out);
    port.send(packet, bytes);
}

fn finish(header: &Header, datagram: &mut [u8]) {
    header.write(datagram);
    wire::finish(datagram, crc_fast::crc32_iscsi);
}
