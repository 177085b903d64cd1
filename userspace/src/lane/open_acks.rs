//! Acks under construction: answers to several datagrams of one sender share
//! one datagram, since sending is four times dearer than receiving in copy
//! mode.
//!
//! A direct-mapped table of open acks, by sender; each is written into a frame
//! of its own. An ack closes when its slot is wanted by another sender, when it
//! is full, and at the end of the turn: nobody waits for it.

use veltrix_abi::limits::{ACK_ENTRY_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::wire::{self, AckEntry, Header, Kind, Mode};

use crate::base::counters::LaneCounters;
use crate::base::port::Port;

/// Open acks at a time; a power of two. Senders that meet in a slot lose some
/// sharing and nothing else; answers to a batch come sender by sender and never do.
const SLOTS: usize = 256;

struct OpenAck<T> {
    packet: T,
    header: Header,
    bytes: usize,
}

/// See the module.
pub(super) struct OpenAcks<T> {
    slots: [Option<OpenAck<T>>; SLOTS],
    /// Slots in use, in order of opening, so that closing all is short.
    used: Vec<u16>,
    payload_bytes_max: usize,
}

/// The answer to one datagram.
pub(super) struct Answer<'a> {
    pub(super) session: u64,
    pub(super) sequence: u64,
    pub(super) domain: u64,
    pub(super) epoch: u64,
    pub(super) mode: Mode,
    pub(super) outcomes: &'a [u8],
    /// One for each outcome that is marked a duplicate, in their order.
    pub(super) first_epochs: &'a [u64],
}

impl Answer<'_> {
    #[inline(always)]
    fn bytes(&self) -> usize {
        AckEntry::wire_bytes(self.outcomes.len(), self.first_epochs.len())
    }

    #[inline(always)]
    fn write(&self, out: &mut [u8]) {
        let duplicates = self.first_epochs.len() as u16;
        AckEntry::write(out, self.sequence, self.epoch, self.mode, self.outcomes, duplicates);
        if duplicates > 0 {
            let from = ACK_ENTRY_FIXED_BYTES + self.outcomes.len().next_multiple_of(8);
            for (place, epoch) in out[from..].chunks_exact_mut(8).zip(self.first_epochs) {
                place.copy_from_slice(&epoch.to_le_bytes());
            }
        }
    }

    fn header(&self) -> Header {
        Header {
            count: 1,
            session: self.session,
            sequence: self.sequence,
            domain: self.domain,
            ..Header::new(Kind::Ack)
        }
    }
}

/// Who is answered.
pub(super) enum Sender<'a, P: Port> {
    /// Whoever sent this packet, which is given back.
    Packet(P::Packet),
    /// Whoever is found along this way, of this flow hash.
    Path(&'a P::Path, u32),
}

impl<P: Port> Sender<'_, P> {
    #[inline(always)]
    fn hash(&self, port: &P) -> u32 {
        match self {
            Self::Packet(packet) => port.flow_hash(packet),
            Self::Path(_, hash) => *hash,
        }
    }

    #[inline(always)]
    fn is_sender_of(&self, port: &P, open: &P::Packet) -> bool {
        match self {
            Self::Packet(packet) => port.is_same_flow(open, packet),
            Self::Path(path, _) => port.is_on_path(path, open),
        }
    }

    /// A packet to write the ack into; the sender again when no frame is free.
    #[inline(always)]
    fn into_reply(self, port: &mut P) -> Result<P::Packet, Self> {
        match self {
            Self::Packet(packet) => Ok(port.for_reply(packet)),
            Self::Path(path, _) => port.reply_on(path).ok_or(self),
        }
    }
}

impl<T> OpenAcks<T> {
    pub(super) fn new(payload_bytes_max: usize) -> Self {
        Self {
            slots: std::array::from_fn(|_| None),
            used: Vec::with_capacity(SLOTS),
            payload_bytes_max,
        }
    }

    /// Adds an answer to the ack that is open for the sender, or opens one.
    #[inline(always)]
    pub(super) fn add<P: Port<Packet = T>>(
        &mut self,
        port: &mut P,
        counters: &LaneCounters,
        sender: Sender<'_, P>,
        answer: &Answer<'_>,
    ) {
        let index = (sender.hash(port) ^ answer.session as u32) as usize % SLOTS;
        let entry_bytes = answer.bytes();
        if let Some(open) = &mut self.slots[index] {
            if open.header.session == answer.session
                && open.bytes + entry_bytes <= self.payload_bytes_max
                && sender.is_sender_of(port, &open.packet)
            {
                if let Sender::Packet(packet) = sender {
                    port.recycle(packet);
                }
                answer.write(&mut port.buffer(&mut open.packet)[open.bytes..]);
                open.bytes += entry_bytes;
                open.header.count += 1;
                counters.replies.coalesced.add(1);
                return;
            }
            self.close(port, index);
        } else {
            self.used.push(index as u16);
        }
        let mut packet = sender.into_reply(port);
        if packet.is_err() {
            // Every frame is in an open ack, or on its way: send what is open.
            self.close_all(port);
            self.used.push(index as u16);
            packet = packet.or_else(|sender| sender.into_reply(port));
        }
        let Ok(mut packet) = packet else {
            counters.replies.dropped_tx_full.add(1);
            self.used.pop();
            return;
        };
        answer.write(&mut port.buffer(&mut packet)[HEADER_BYTES..]);
        let bytes = HEADER_BYTES + entry_bytes;
        self.slots[index] = Some(OpenAck { packet, header: answer.header(), bytes });
    }

    /// Sends what is open.
    #[inline]
    pub(super) fn close_all<P: Port<Packet = T>>(&mut self, port: &mut P) {
        while let Some(index) = self.used.pop() {
            self.close(port, usize::from(index));
        }
    }

    #[inline]
    fn close<P: Port<Packet = T>>(&mut self, port: &mut P, index: usize) {
        if let Some(mut ack) = self.slots[index].take() {
            let out = &mut port.buffer(&mut ack.packet)[..ack.bytes];
            ack.header.write(out);
            wire::finish(out, crc_fast::crc32_iscsi);
            port.send(ack.packet, ack.bytes);
        }
    }
}
