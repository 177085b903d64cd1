//! Requests as a client writes them, and some that no client should.

use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::wire::{
    self, Event, HELLO_BODY_BYTES, Header, Kind, Mode, PING_BODY_BYTES, VERSION,
};

/// Any header over any body, with a right CRC.
pub fn datagram(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    header.write(&mut out);
    out.extend_from_slice(body);
    wire::finish(&mut out, crc_fast::crc32_iscsi);
    out
}

/// A header of this version.
pub fn header(kind: Kind, session: u64, sequence: u64) -> Header {
    Header { session, sequence, ..Header::new(kind) }
}

/// `count` events without payload; those that `is_bad` names have kind 0,
/// which no event has.
pub fn event_bodies(count: u16, is_bad: impl Fn(u16) -> bool) -> Vec<u8> {
    let mut body = vec![0; usize::from(count) * 48];
    for (i, out) in (0..count).zip(body.chunks_exact_mut(48)) {
        let mut key = [0x11; 16];
        key[6] = 0x7a;
        key[8] = 0x9b;
        key[14..].copy_from_slice(&i.to_be_bytes());
        let kind = u16::from(!is_bad(i));
        let event = Event {
            key,
            player: 5,
            subject: u64::from(i),
            argument: 1,
            kind,
            reserved: 0,
            payload: &[],
        };
        event.write(out);
    }
    body
}

/// A datagram of `count` well-formed events.
pub fn events(session: u64, sequence: u64, mode: Mode, count: u16) -> Vec<u8> {
    events_with_bad(session, sequence, mode, count, |_| false)
}

/// A datagram of `count` events, some of them malformed by themselves.
pub fn events_with_bad(
    session: u64,
    sequence: u64,
    mode: Mode,
    count: u16,
    is_bad: impl Fn(u16) -> bool,
) -> Vec<u8> {
    let header = Header { mode: mode as u8, count, ..header(Kind::Events, session, sequence) };
    datagram(&header, &event_bodies(count, is_bad))
}

/// A ping sent at `sent_ns` of the client's clock.
pub fn ping(session: u64, sequence: u64, sent_ns: u64) -> Vec<u8> {
    let mut body = [0; PING_BODY_BYTES];
    body[..8].copy_from_slice(&sent_ns.to_le_bytes());
    datagram(&header(Kind::Ping, session, sequence), &body)
}

/// A hello, padded to the size of its answer.
pub fn hello(session: u64, sequence: u64) -> Vec<u8> {
    datagram(&header(Kind::Hello, session, sequence), &[0; HELLO_BODY_BYTES])
}

/// A ping of a version that does not exist, with a right CRC.
pub fn newer_version(session: u64, sequence: u64) -> Vec<u8> {
    let header = Header { version: VERSION + 1, ..header(Kind::Ping, session, sequence) };
    datagram(&header, &[0; PING_BODY_BYTES])
}

/// A datagram damaged behind its CRC.
pub fn damaged(mut datagram: Vec<u8>) -> Vec<u8> {
    if let Some(last) = datagram.last_mut() {
        *last ^= 0x10;
    }
    datagram
}
