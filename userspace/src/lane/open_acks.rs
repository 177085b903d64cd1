//! Acks under construction: answers to several datagrams of one sender share
//! one datagram, since sending is four times dearer than receiving in copy
//! mode.
//!
//! A direct-mapped table of open acks, by sender; each is written over the
//! first request it answers. An ack closes when its slot is wanted by another
//! sender, when it is full, and at the end of the turn: nobody waits for it.

use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::wire::{self, AckEntry, Header, Kind, Mode};

use super::echo;
use crate::base::counters::LaneCounters;
use crate::base::port::Port;

/// Open acks at a time; a power of two. A batch of 64 frames from more senders
/// than this loses some sharing and nothing else.
const SLOTS: usize = 32;

struct OpenAck<T> {
    packet: T,
    header: Header,
    bytes: usize,
}

/// See the module.
pub(super) struct OpenAcks<T> {
    slots: [Option<OpenAck<T>>; SLOTS],
    /// Slots in use, in order of opening, so that closing all is short.
    used: Vec<u8>,
    payload_bytes_max: usize,
}

impl<T> OpenAcks<T> {
    pub(super) fn new(payload_bytes_max: usize) -> Self {
        Self {
            slots: std::array::from_fn(|_| None),
            used: Vec::with_capacity(SLOTS),
            payload_bytes_max,
        }
    }

    /// Answers the datagram in `packet`, whose header is `request`.
    #[inline(always)]
    pub(super) fn add<P: Port<Packet = T>>(
        &mut self,
        port: &mut P,
        counters: &LaneCounters,
        packet: T,
        request: &Header,
        outcomes: &[u8],
    ) {
        let index = (port.flow_hash(&packet) ^ request.session as u32) as usize % SLOTS;
        let entry_bytes = AckEntry::wire_bytes(outcomes.len(), 0);
        if let Some(open) = &mut self.slots[index] {
            if open.header.session == request.session
                && open.bytes + entry_bytes <= self.payload_bytes_max
                && port.is_same_flow(&open.packet, &packet)
            {
                port.recycle(packet);
                let out = &mut port.buffer(&mut open.packet)[open.bytes..];
                write_entry(out, request, outcomes);
                open.bytes += entry_bytes;
                open.header.count += 1;
                counters.replies.coalesced.add(1);
                return;
            }
            self.close(port, index);
        } else {
            self.used.push(index as u8);
        }
        let mut packet = port.for_reply(packet);
        let out = &mut port.buffer(&mut packet)[HEADER_BYTES..];
        write_entry(out, request, outcomes);
        let header = Header { count: 1, ..echo(request, Kind::Ack) };
        self.slots[index] = Some(OpenAck { packet, header, bytes: HEADER_BYTES + entry_bytes });
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

#[inline]
fn write_entry(out: &mut [u8], request: &Header, outcomes: &[u8]) {
    AckEntry::write(out, request.sequence, 0, Mode::None, outcomes, 0);
}
