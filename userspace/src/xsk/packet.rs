//! Turning a request's frame into its reply's: addresses swapped, lengths and
//! checksums made anew. No routing table: the answer goes back the way the
//! request came.

use veltrix_abi::frame::{Datagram, Family};

/// A [`Datagram`] in ten bytes: packets are moved by value, and every offset in
/// a frame of 4 KiB fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) family: Family,
    l3: u16,
    udp: u16,
    payload: u16,
    payload_bytes: u16,
}

impl From<Datagram> for Place {
    #[inline(always)]
    fn from(d: Datagram) -> Self {
        Self {
            family: d.family,
            l3: d.l3 as u16,
            udp: d.udp as u16,
            payload: d.payload as u16,
            payload_bytes: d.payload_bytes as u16,
        }
    }
}

impl Place {
    /// Start of the IP header.
    #[inline(always)]
    pub(super) fn l3(&self) -> usize {
        usize::from(self.l3)
    }

    /// Start of the UDP header.
    #[inline(always)]
    pub(super) fn udp(&self) -> usize {
        usize::from(self.udp)
    }

    /// The UDP payload.
    #[inline(always)]
    pub(super) fn payload(&self) -> std::ops::Range<usize> {
        usize::from(self.payload)..usize::from(self.payload) + usize::from(self.payload_bytes)
    }
}

/// Hops a reply may take.
const TTL: u8 = 64;

/// Makes the headers of `frame` those of a reply with `payload_bytes` bytes,
/// which already stand at the payload's place. Gives the bytes of the frame to
/// send. VLAN tags stay, IPv4 options become end-of-list bytes.
///
/// # Panics
///
/// When `at` does not describe `frame`, or the payload does not fit it: bugs
/// of the caller, who had both from the decoder.
#[inline]
pub(super) fn turn_around(frame: &mut [u8], at: &Place, payload_bytes: usize) -> usize {
    let frame_bytes = at.payload().start + payload_bytes;
    let frame = &mut frame[..frame_bytes];
    let (destination, source) = frame[..12].split_at_mut(6);
    destination.swap_with_slice(source);

    let udp_bytes = 8 + payload_bytes;
    let (headers, udp) = frame.split_at_mut(at.udp());
    let ip = &mut headers[at.l3()..];
    let addresses = match at.family {
        Family::V4 => reply_ipv4(ip, udp_bytes),
        Family::V6 => reply_ipv6(ip, udp_bytes),
    };

    let (source, destination) = udp[..4].split_at_mut(2);
    source.swap_with_slice(destination);
    udp[4..6].copy_from_slice(&(udp_bytes as u16).to_be_bytes());
    udp[6..8].fill(0);
    // Pseudo-header: addresses, protocol, UDP length.
    let pseudo = addresses + sum(&[0, 17]) + sum(&(udp_bytes as u16).to_be_bytes());
    let checksum = match fold(pseudo + sum(udp)) {
        [0, 0] => [0xff, 0xff],
        c => c,
    };
    udp[6..8].copy_from_slice(&checksum);
    frame_bytes
}

/// Gives the sum over both addresses.
#[inline(always)]
fn reply_ipv4(ip: &mut [u8], udp_bytes: usize) -> u64 {
    let total_bytes = (ip.len() + udp_bytes) as u16;
    ip[1] = 0;
    ip[2..4].copy_from_slice(&total_bytes.to_be_bytes());
    ip[4..6].fill(0);
    // Do not fragment, offset 0.
    ip[6..8].copy_from_slice(&[0x40, 0]);
    ip[8] = TTL;
    ip[10..12].fill(0);
    ip[20..].fill(0);
    let (source, destination) = ip[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    let checksum = fold(sum(ip));
    ip[10..12].copy_from_slice(&checksum);
    sum(&ip[12..20])
}

/// Gives the sum over both addresses.
#[inline(always)]
fn reply_ipv6(ip: &mut [u8], udp_bytes: usize) -> u64 {
    // Traffic class 0; the flow label stays.
    ip[0] = 0x60;
    ip[1] &= 0x0f;
    ip[4..6].copy_from_slice(&(udp_bytes as u16).to_be_bytes());
    ip[7] = TTL;
    let (source, destination) = ip[8..40].split_at_mut(16);
    source.swap_with_slice(destination);
    sum(&ip[8..40])
}

/// Ones-complement sum of 16-bit words in memory order, unfolded; an odd last
/// byte counts as the first of a word.
#[inline(always)]
fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_ne_bytes(word);
        total += (word & 0xffff_ffff) + (word >> 32);
    }
    let rest = chunks.remainder();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    let word = u64::from_ne_bytes(word);
    total + (word & 0xffff_ffff) + (word >> 32)
}

/// Internet checksum in memory order (RFC 1071: byte order does not matter).
#[inline(always)]
fn fold(mut total: u64) -> [u8; 2] {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    (!(total as u16)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use veltrix_abi::frame;

    /// The checksum as RFC 1071 words it, one 16-bit word after the other.
    fn slow_checksum(parts: &[&[u8]]) -> u16 {
        let mut total = 0u32;
        for part in parts {
            for pair in part.chunks(2) {
                total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
                total = (total & 0xffff) + (total >> 16);
            }
        }
        !(total as u16)
    }

    fn request(vlan_tags: usize, options: usize, v6: bool, payload: &[u8]) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..vlan_tags {
            f.extend([0x81, 0x00, 0, 7]);
        }
        let udp_bytes = (8 + payload.len()) as u16;
        if v6 {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            f.extend(udp_bytes.to_be_bytes());
            f.extend([17, 3]);
            f.extend((0..32).map(|i| i * 7 + 1));
        } else {
            f.extend([0x08, 0x00, 0x45 + (options / 4) as u8, 0x10]);
            f.extend((20 + options as u16 + udp_bytes).to_be_bytes());
            f.extend([1, 2, 0, 0, 9, 17, 0, 0, 10, 1, 2, 3, 10, 9, 8, 7]);
            f.extend(vec![1; options]);
        }
        f.extend(1234u16.to_be_bytes());
        f.extend(4747u16.to_be_bytes());
        f.extend(udp_bytes.to_be_bytes());
        f.extend([0, 0]);
        f.extend(payload);
        f
    }

    proptest! {
        #[test]
        fn replies_have_right_headers(
            vlan_tags in 0usize..3,
            options in (0usize..11).prop_map(|n| n * 4),
            v6: bool,
            payload in proptest::collection::vec(any::<u8>(), 48..1232),
            reply in proptest::collection::vec(any::<u8>(), 1..1232),
        ) {
            let options = if v6 { 0 } else { options };
            let request = request(vlan_tags, options, v6, &payload);
            let at = frame::parse(request.as_slice(), 4747).unwrap();
            let mut frame = request.clone();
            frame.resize(2048, 0xee);
            frame[at.payload..at.payload + reply.len()].copy_from_slice(&reply);
            let bytes = turn_around(&mut frame, &at.into(), reply.len());
            let frame = &frame[..bytes];

            prop_assert_eq!(&frame[0..6], &request[6..12]);
            prop_assert_eq!(&frame[6..12], &request[0..6]);
            let back = frame::parse(frame, 1234).unwrap();
            prop_assert_eq!((back.payload, back.payload_bytes), (at.payload, reply.len()));
            prop_assert_eq!(&frame[back.payload..], &reply[..]);
            let ip = &frame[at.l3..at.udp];
            let udp = &frame[at.udp..];
            let length = (udp.len() as u16).to_be_bytes();
            let addresses = if v6 { &ip[8..40] } else { &ip[12..20] };
            prop_assert_eq!(slow_checksum(&[addresses, &[0, 17], &length, udp]), 0);
            if v6 {
                prop_assert_eq!(&ip[8..24], &request[at.l3 + 24..at.l3 + 40]);
            } else {
                prop_assert_eq!(slow_checksum(&[ip]), 0);
                prop_assert_eq!(&ip[12..16], &request[at.l3 + 16..at.l3 + 20]);
                prop_assert!(ip[20..].iter().all(|b| *b == 0));
            }
        }
    }
}
