//! The one frame decoder: Ethernet to UDP payload, used by the XDP program on
//! packet memory and by the lanes on UMEM frames.
//!
//! ```text
//!  | Ethernet 14 | VLAN 0..2 x 4 | IPv4 20..60 or IPv6 40 (+ one extension) | UDP 8 | payload |
//!  0             .               l3                                         udp     payload
//! ```
//!
//! Straight-line: no loop, every read checked against the end of the frame.
//! What is not ours passes; what is ours and malformed drops; each by a named
//! [`Exit`].

use crate::exits::Exit;
use crate::limits::HEADER_BYTES;
use crate::wire::MAGIC;

/// Read access to a frame.
///
/// It asks whether bytes are there rather than how many there are: comparing
/// a packet pointer with the packet's end is the one thing the verifier learns from.
pub trait FrameBytes {
    /// Whether the frame reaches at least to `end` bytes from its start.
    fn reaches(&self, end: usize) -> bool;
    /// The `N` bytes at `offset`; `None` when any of them lies outside.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl FrameBytes for [u8] {
    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        end <= self.len()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}

/// IP version of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4; the source address is 4 bytes at `l3 + 12`.
    V4,
    /// IPv6; the source address is 16 bytes at `l3 + 8`.
    V6,
}

/// Where the parts of an accepted datagram lie; offsets in bytes from the
/// start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// IP version.
    pub family: Family,
    /// Start of the IP header.
    pub l3: usize,
    /// Start of the UDP header.
    pub udp: usize,
    /// Start of the UDP payload.
    pub payload: usize,
    /// Bytes of UDP payload, all inside the frame.
    pub payload_bytes: usize,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const PROTOCOL_UDP: u8 = 17;
const IPV6_FRAGMENT: u8 = 44;

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ
}

/// Hop-by-hop, routing, destination options, mobility: the extension headers
/// that carry their own length in 8-byte units.
#[inline(always)]
const fn is_ipv6_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 60 | 135)
}

/// What the IP header says about the UDP header behind it.
struct Transport {
    family: Family,
    udp: usize,
    /// Bytes the IP header grants from `udp` on.
    ip_room: usize,
    /// An [`Exit`] to take if the datagram turns out to be ours.
    ours_but: Option<Exit>,
}

/// Finds the UDP payload of a frame for `port` and checks everything up to
/// the datagram header's magic.
///
/// # Errors
///
/// The exit the frame leaves by: a `Pass*` for what is not ours, a `Drop*`
/// for what is ours and must not be served.
#[inline(always)]
pub fn accept<B: FrameBytes + ?Sized>(
    frame: &B,
    port: u16,
    payload_bytes_max: usize,
) -> Result<Datagram, Exit> {
    let datagram = parse(frame, port)?;
    match frame.read::<1>(0) {
        Some([first]) if first & 1 == 0 => {}
        _ => return Err(Exit::DropNotUnicast),
    }
    check(frame, &datagram, payload_bytes_max)?;
    Ok(datagram)
}

/// [`accept`] as a lane repeats it on a frame that the kernel half let
/// through: all but the look at the destination MAC address. A lane's frames
/// begin ten bytes before a cache line, so that what it must read of a
/// datagram with one event is two lines and not three.
///
/// # Errors
///
/// As [`accept`].
#[inline(always)]
pub fn accept_redirected<B: FrameBytes + ?Sized>(
    frame: &B,
    port: u16,
    payload_bytes_max: usize,
) -> Result<Datagram, Exit> {
    let datagram = parse(frame, port)?;
    check(frame, &datagram, payload_bytes_max)?;
    Ok(datagram)
}

#[inline(always)]
fn check<B: FrameBytes + ?Sized>(
    frame: &B,
    datagram: &Datagram,
    payload_bytes_max: usize,
) -> Result<(), Exit> {
    check_payload(datagram.payload_bytes, payload_bytes_max, || frame.read::<4>(datagram.payload))
}

/// The part of [`accept`] that concerns the UDP payload alone; the socket
/// provider, which never sees the frame, calls it by itself.
///
/// # Errors
///
/// The `Drop*` exit the datagram leaves by.
#[inline(always)]
pub fn check_payload(
    payload_bytes: usize,
    payload_bytes_max: usize,
    magic: impl FnOnce() -> Option<[u8; 4]>,
) -> Result<(), Exit> {
    if payload_bytes == 0 {
        return Err(Exit::DropEmpty);
    }
    if payload_bytes < HEADER_BYTES {
        return Err(Exit::DropHeaderShort);
    }
    if payload_bytes > payload_bytes_max {
        return Err(Exit::DropTooLarge);
    }
    match magic() {
        Some(m) if m == MAGIC => Ok(()),
        _ => Err(Exit::DropMagic),
    }
}

/// Finds the UDP payload of a frame for `port`.
///
/// # Errors
///
/// As [`accept`], without the checks of MAC address and payload.
#[inline(always)]
pub fn parse<B: FrameBytes + ?Sized>(frame: &B, port: u16) -> Result<Datagram, Exit> {
    let mut ethertype = u16::from_be_bytes(frame.read::<2>(12).ok_or(Exit::PassNotIp)?);
    let mut l3 = 14;
    if is_vlan(ethertype) {
        let tag = frame.read::<4>(14).ok_or(Exit::PassNotIp)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        l3 = 18;
        if is_vlan(ethertype) {
            let tag = frame.read::<4>(18).ok_or(Exit::PassNotIp)?;
            ethertype = u16::from_be_bytes([tag[2], tag[3]]);
            l3 = 22;
            if is_vlan(ethertype) {
                return Err(Exit::PassVlanDeep);
            }
        }
    }
    let transport = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, l3)?,
        ETHERTYPE_IPV6 => ipv6(frame, l3)?,
        _ => return Err(Exit::PassNotIp),
    };
    if transport.ip_room < 8 {
        return Err(Exit::PassUdpShort);
    }
    let udp = frame.read::<8>(transport.udp).ok_or(Exit::PassUdpShort)?;
    if u16::from_be_bytes([udp[2], udp[3]]) != port {
        return Err(Exit::PassOtherPort);
    }

    // From here on the frame is ours.
    if let Some(exit) = transport.ours_but {
        return Err(exit);
    }
    if udp[0] == 0 && udp[1] == 0 {
        return Err(Exit::DropBadSource);
    }
    let udp_bytes = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    if udp_bytes < 8 || udp_bytes > transport.ip_room {
        return Err(Exit::DropUdpLength);
    }
    if !frame.reaches(transport.udp + udp_bytes) {
        return Err(Exit::DropUdpLength);
    }
    Ok(Datagram {
        family: transport.family,
        l3,
        udp: transport.udp,
        payload: transport.udp + 8,
        payload_bytes: udp_bytes - 8,
    })
}

#[inline(always)]
fn ipv4<B: FrameBytes + ?Sized>(frame: &B, l3: usize) -> Result<Transport, Exit> {
    let ip = frame.read::<20>(l3).ok_or(Exit::PassIpMalformed)?;
    let header_bytes = usize::from(ip[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes {
        return Err(Exit::PassIpMalformed);
    }
    if ip[9] != PROTOCOL_UDP {
        return Err(Exit::PassNotUdp);
    }
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    if fragment & 0x1fff != 0 {
        return Err(Exit::PassFragmentTail);
    }
    let more_fragments = fragment & 0x2000 != 0;
    // 0.0.0.0/8, 127.0.0.0/8, and 224.0.0.0 upwards (multicast, reserved, broadcast).
    let is_unicast = |first: u8| first != 0 && first != 127 && first < 224;
    let source_unanswerable = !is_unicast(ip[12]);
    let destination_shared = !is_unicast(ip[16]);
    Ok(Transport {
        family: Family::V4,
        udp: l3 + header_bytes,
        ip_room: total_bytes - header_bytes,
        ours_but: ours_but(more_fragments, false, destination_shared, source_unanswerable),
    })
}

#[inline(always)]
fn ipv6<B: FrameBytes + ?Sized>(frame: &B, l3: usize) -> Result<Transport, Exit> {
    let ip = frame.read::<40>(l3).ok_or(Exit::PassIpMalformed)?;
    if ip[0] >> 4 != 6 {
        return Err(Exit::PassIpMalformed);
    }
    let payload_bytes = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let next = ip[6];
    let mut extension_bytes = 0;
    let mut fragment = false;
    let mut last = next;
    if is_ipv6_extension(next) || next == IPV6_FRAGMENT {
        let ext = frame.read::<8>(l3 + 40).ok_or(Exit::PassIpMalformed)?;
        last = ext[0];
        if next == IPV6_FRAGMENT {
            if u16::from_be_bytes([ext[2], ext[3]]) & 0xfff8 != 0 {
                return Err(Exit::PassFragmentTail);
            }
            fragment = true;
            extension_bytes = 8;
        } else {
            extension_bytes = (usize::from(ext[1]) + 1) * 8;
        }
        if is_ipv6_extension(last) || last == IPV6_FRAGMENT {
            return Err(Exit::PassIpv6Chain);
        }
    }
    if last != PROTOCOL_UDP {
        return Err(Exit::PassNotUdp);
    }
    // ff00::/8 (multicast), ::/64 (unspecified, loopback, v4-mapped and kin).
    let low_half_only = ip[8] | ip[9] | ip[10] | ip[11] | ip[12] | ip[13] | ip[14] | ip[15] == 0;
    let source_unanswerable = ip[8] == 0xff || low_half_only;
    Ok(Transport {
        family: Family::V6,
        udp: l3 + 40 + extension_bytes,
        ip_room: payload_bytes.saturating_sub(extension_bytes),
        ours_but: ours_but(fragment, extension_bytes != 0, ip[24] == 0xff, source_unanswerable),
    })
}

#[inline(always)]
const fn ours_but(
    fragment: bool,
    extension: bool,
    destination_shared: bool,
    source_unanswerable: bool,
) -> Option<Exit> {
    if fragment {
        Some(Exit::DropFragment)
    } else if extension {
        Some(Exit::DropIpv6Extension)
    } else if destination_shared {
        Some(Exit::DropNotUnicast)
    } else if source_unanswerable {
        Some(Exit::DropBadSource)
    } else {
        None
    }
}
