//! Frames for the generator: Ethernet, VLAN tags, IP, UDP with whole
//! checksums around datagrams written by the contract crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::wire::{
    self, AckEntry, Event, HELLO_BODY_BYTES, Header, Kind, Mode, PING_BODY_BYTES,
};

use super::layout::{FAMILY_IPV4, FAMILY_IPV6};
use super::{CLIENT_MAC, SERVER_IPV4, SERVER_IPV6, SERVER_MAC};

/// Six bytes of an Ethernet address.
pub type MacAddress = [u8; 6];

/// Source of generated IPv4 frames unless told otherwise: outside the link's
/// subnet, so that varied low bits never hit an address in use.
pub const GENERATED_IPV4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// Source of generated IPv6 frames unless told otherwise.
pub const GENERATED_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1);
/// UDP source port of generated frames unless told otherwise.
pub const GENERATED_PORT: u16 = 40_000;

/// Headers of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameSpec {
    /// Ethernet source.
    pub source_mac: MacAddress,
    /// Ethernet destination.
    pub destination_mac: MacAddress,
    /// Tag control information of each VLAN tag, outermost first; at most
    /// two. With two the outer one is 802.1ad.
    pub vlans: Vec<u16>,
    /// IP source; of the same family as the destination.
    pub source: IpAddr,
    /// IP destination.
    pub destination: IpAddr,
    /// UDP source port.
    pub source_port: u16,
    /// UDP destination port.
    pub destination_port: u16,
    /// Compute the UDP checksum. Without it the field is zero, which only
    /// IPv4 allows: the generator then has less to mend when it varies.
    pub udp_checksum: bool,
}

impl FrameSpec {
    /// IPv4 from the generated source to the server, no UDP checksum.
    #[must_use]
    pub const fn ipv4(destination_port: u16) -> Self {
        Self {
            source_mac: CLIENT_MAC,
            destination_mac: SERVER_MAC,
            vlans: Vec::new(),
            source: IpAddr::V4(GENERATED_IPV4),
            destination: IpAddr::V4(SERVER_IPV4),
            source_port: GENERATED_PORT,
            destination_port,
            udp_checksum: false,
        }
    }

    /// IPv6 from the generated source to the server.
    #[must_use]
    pub fn ipv6(destination_port: u16) -> Self {
        Self {
            source: IpAddr::V6(GENERATED_IPV6),
            destination: IpAddr::V6(SERVER_IPV6),
            udp_checksum: true,
            ..Self::ipv4(destination_port)
        }
    }

    /// The frame that goes the other way.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source_mac: self.destination_mac,
            destination_mac: self.source_mac,
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self.clone()
        }
    }

    /// Offset of the IP header.
    const fn l3(&self) -> usize {
        14 + 4 * self.vlans.len()
    }

    /// The frame around `payload`.
    ///
    /// # Errors
    ///
    /// Mixed address families, more than two VLAN tags, an IPv6 frame without
    /// UDP checksum, or a payload no IP packet holds.
    pub fn build(&self, payload: &[u8]) -> Result<Vec<u8>> {
        ensure!(self.vlans.len() <= 2, "frame: {} VLAN tags, wanted at most 2", self.vlans.len());
        let udp_bytes = 8 + payload.len();
        ensure!(
            udp_bytes <= 65_515,
            "frame: payload of {} bytes, wanted at most 65507",
            payload.len()
        );
        let mut frame = Vec::with_capacity(self.l3() + 40 + udp_bytes);
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        for (index, tag) in self.vlans.iter().enumerate() {
            let outer_of_two = index == 0 && self.vlans.len() == 2;
            frame.extend(if outer_of_two { [0x88, 0xa8] } else { [0x81, 0x00] });
            frame.extend(tag.to_be_bytes());
        }
        let pseudo = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                push_ipv4(&mut frame, source, destination, udp_bytes);
                [source.octets(), destination.octets()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ensure!(self.udp_checksum, "frame: IPv6 forbids UDP without checksum");
                frame.extend([0x86, 0xdd]);
                push_ipv6(&mut frame, source, destination, udp_bytes);
                [source.octets(), destination.octets()].concat()
            }
            (source, destination) => {
                anyhow::bail!("frame: {source} and {destination} are not of one family")
            }
        };
        let udp = frame.len();
        frame.extend(self.source_port.to_be_bytes());
        frame.extend(self.destination_port.to_be_bytes());
        frame.extend((udp_bytes as u16).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        if self.udp_checksum {
            let sum = sum(&pseudo) + 17 + udp_bytes as u64 + sum(&frame[udp..]);
            let check = match folded(sum) {
                0 => 0xffff,
                check => check,
            };
            frame[udp + 6..udp + 8].copy_from_slice(&check.to_be_bytes());
        }
        Ok(frame)
    }
}

fn push_ipv4(frame: &mut Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr, udp_bytes: usize) {
    let start = frame.len();
    frame.extend([0x45, 0]);
    frame.extend((20 + udp_bytes as u16).to_be_bytes());
    // No identification, don't fragment, TTL 64, UDP, checksum to come.
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    let check = folded(sum(&frame[start..]));
    frame[start + 10..start + 12].copy_from_slice(&check.to_be_bytes());
}

fn push_ipv6(frame: &mut Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr, udp_bytes: usize) {
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((udp_bytes as u16).to_be_bytes());
    frame.extend([17, 64]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
}

/// Sum of big-endian 16-bit words, an odd last byte as the high half of one.
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    bytes.chunks(2).map(word).sum()
}

/// One's complement of the one's complement sum.
fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// A frame that the generator repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    bytes: Vec<u8>,
    /// Where the varied fields are; `None` when nothing may be varied.
    ip: Option<IpPlace>,
}

/// What [`super::Vary`] needs to know of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IpPlace {
    pub(super) l3: u32,
    pub(super) family: u32,
    pub(super) source_port: u16,
}

impl Template {
    /// A well-formed frame around `payload`.
    ///
    /// # Errors
    ///
    /// As [`FrameSpec::build`].
    pub fn new(spec: &FrameSpec, payload: &[u8]) -> Result<Self> {
        let family = if spec.source.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 };
        let ip = IpPlace { l3: spec.l3() as u32, family, source_port: spec.source_port };
        Ok(Self { bytes: spec.build(payload)?, ip: Some(ip) })
    }

    /// Any bytes as they are: sent without variation.
    #[must_use]
    pub const fn raw(bytes: Vec<u8>) -> Self {
        Self { bytes, ip: None }
    }

    /// The whole frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn ip(&self) -> Option<IpPlace> {
        self.ip
    }
}

/// Header fields of a request, and writers for its kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Session id.
    pub session: u64,
    /// Datagram sequence.
    pub sequence: u64,
    /// Domain key.
    pub domain: u64,
    /// Ack mode of event datagrams.
    pub mode: Mode,
}

impl Default for Datagram {
    fn default() -> Self {
        Self { session: 0x6c61_625f_7365_7373, sequence: 1, domain: 1, mode: Mode::None }
    }
}

impl Datagram {
    fn write(&self, kind: Kind, mode: u8, count: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        let Self { session, sequence, domain, .. } = *self;
        Header { mode, count, session, sequence, domain, ..Header::new(kind) }.write(&mut bytes);
        bytes.extend(body);
        wire::finish(&mut bytes, crc_fast::crc32_iscsi);
        bytes
    }

    /// `count` well-formed events with fresh keys, `payload_bytes` of opaque
    /// payload each.
    #[must_use]
    pub fn events(&self, count: u16, payload_bytes: usize) -> Vec<u8> {
        let payload = vec![0x5a; payload_bytes];
        let mut body = Vec::new();
        for index in 0..u64::from(count) {
            let event = Event {
                key: *uuid::Uuid::now_v7().as_bytes(),
                player: self.session ^ index,
                subject: index + 1,
                argument: 1,
                kind: 1,
                reserved: 0,
                payload: &payload,
            };
            let start = body.len();
            body.resize(start + event.wire_bytes(), 0);
            event.write(&mut body[start..]);
        }
        self.write(Kind::Events, self.mode as u8, count, &body)
    }

    /// As many events without payload as a UDP payload of `payload_bytes` holds.
    #[must_use]
    pub fn events_filling(&self, payload_bytes: usize) -> Vec<u8> {
        self.events((payload_bytes.saturating_sub(HEADER_BYTES) / EVENT_FIXED_BYTES) as u16, 0)
    }

    /// A latency probe.
    #[must_use]
    pub fn ping(&self, sent_ns: u64) -> Vec<u8> {
        let mut body = [0; PING_BODY_BYTES];
        body[..8].copy_from_slice(&sent_ns.to_le_bytes());
        self.write(Kind::Ping, 0, 0, &body)
    }

    /// A question for the server's facts.
    #[must_use]
    pub fn hello(&self) -> Vec<u8> {
        self.write(Kind::Hello, 0, 0, &[0; HELLO_BODY_BYTES])
    }

    /// A reply as a server would write it: one ack entry for each
    /// `(sequence, outcomes)`. To test sinks with.
    #[must_use]
    pub fn ack(&self, entries: &[(u64, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (sequence, outcomes) in entries {
            let start = body.len();
            body.resize(start + AckEntry::wire_bytes(outcomes.len(), 0), 0);
            let out = &mut body[start..];
            AckEntry::write(out, *sequence, 0, self.mode, outcomes, 0);
        }
        self.write(Kind::Ack, 0, entries.len() as u16, &body)
    }

    /// A datagram of any kind and body, count 0, with the right CRC.
    #[must_use]
    pub fn of_kind(&self, kind: Kind, body: &[u8]) -> Vec<u8> {
        self.write(kind, 0, 0, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veltrix_abi::frame::accept;
    use veltrix_abi::wire::{Reply, Request, decode, decode_reply};

    #[test]
    fn built_frames_pass_the_decoder_and_their_checksums_close() {
        let payload = Datagram::default().events(3, 21);
        for base in [FrameSpec::ipv4(7_000), FrameSpec::ipv6(7_000)] {
            for vlans in [vec![], vec![5], vec![5, 6]] {
                let spec = FrameSpec { vlans, udp_checksum: true, ..base.clone() };
                let frame = spec.build(&payload).unwrap();
                let datagram = accept(&frame[..], 7_000, 1_232).unwrap();
                let found = &frame[datagram.payload..][..datagram.payload_bytes];
                assert_eq!(found, payload);
                let addresses = match spec.source {
                    IpAddr::V4(_) => {
                        assert_eq!(folded(sum(&frame[datagram.l3..][..20])), 0, "{spec:?}");
                        &frame[datagram.l3 + 12..][..8]
                    }
                    IpAddr::V6(_) => &frame[datagram.l3 + 8..][..32],
                };
                let udp = &frame[datagram.udp..];
                assert_eq!(
                    folded(sum(addresses) + 17 + udp.len() as u64 + sum(udp)),
                    0,
                    "{spec:?}"
                );
            }
        }
    }

    #[test]
    fn datagrams_decode_as_what_they_are() {
        let datagram = Datagram { sequence: 9, domain: 77, ..Datagram::default() };
        let crc = crc_fast::crc32_iscsi;
        let events = datagram.events_filling(1_232);
        let (header, request) = decode(&events, crc).unwrap();
        assert_eq!((header.sequence, header.domain), (9, 77));
        let Request::Events(Mode::None, events) = request else { panic!("{request:?}") };
        assert_eq!(events.count(), 24);
        assert!(events.into_iter().all(|event| event.is_well_formed()));
        assert!(matches!(decode(&datagram.ping(5), crc), Ok((_, Request::Ping(5)))));
        assert!(matches!(decode(&datagram.hello(), crc), Ok((_, Request::Hello))));
        let ack = datagram.ack(&[(1, &[1, 1, 1]), (2, &[1; 9])]);
        let (_, reply) = decode_reply(&ack, crc).unwrap();
        let Reply::Ack(acks) = reply else { panic!("{reply:?}") };
        assert_eq!(acks.map(|entry| entry.outcomes.len()).collect::<Vec<_>>(), [3, 9]);
    }

    #[test]
    fn a_spec_that_cannot_be_is_refused_by_name() {
        let mixed = FrameSpec { destination: IpAddr::V6(SERVER_IPV6), ..FrameSpec::ipv4(1) };
        assert!(mixed.build(&[]).unwrap_err().to_string().contains("not of one family"));
        let bare = FrameSpec { udp_checksum: false, ..FrameSpec::ipv6(1) };
        assert!(bare.build(&[]).unwrap_err().to_string().contains("without checksum"));
        let deep = FrameSpec { vlans: vec![1, 2, 3], ..FrameSpec::ipv4(1) };
        assert!(deep.build(&[]).unwrap_err().to_string().contains("3 VLAN tags"));
    }
}
