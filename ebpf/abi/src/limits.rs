//! Limits both halves and every client share: unit last, reason beside it.

/// UDP payload of one datagram, bytes, unless a larger MTU is configured.
/// 1,232 = 1,280 (the IPv6 minimum MTU) - 40 (IPv6) - 8 (UDP): no path
/// fragments it.
pub const PAYLOAD_BYTES_MAX_DEFAULT: usize = 1_232;

/// Largest `payload_bytes_max` that may be configured, bytes. One datagram
/// must fit one 4 KiB UMEM frame after 256 bytes of XDP headroom, and native
/// XDP without multi-buffer stops near 3,500-byte packets on common drivers.
pub const PAYLOAD_BYTES_LIMIT: usize = 3_456;

/// Bytes of the datagram header; everything after it is the body.
pub const HEADER_BYTES: usize = 48;

/// Bytes of an event without its payload.
pub const EVENT_FIXED_BYTES: usize = 48;

/// Opaque payload of one event, bytes. Larger blobs belong in a store that the
/// event names, not in the packet.
pub const EVENT_PAYLOAD_BYTES_MAX: usize = 512;

/// Bytes of the tag that trails a sealed datagram.
pub const TAG_BYTES: usize = 16;

/// Bytes of one ack entry without its outcome bytes and epochs.
pub const ACK_ENTRY_FIXED_BYTES: usize = 24;

/// Events one datagram of `payload_bytes` can carry at the most.
#[must_use]
pub const fn events_max(payload_bytes: usize) -> usize {
    payload_bytes.saturating_sub(HEADER_BYTES) / EVENT_FIXED_BYTES
}

/// VLAN tags a frame may carry (802.1ad outer and 802.1Q inner).
pub const VLAN_TAGS_MAX: usize = 2;

/// Bytes of Ethernet, two VLAN tags, the longest IPv4 header and UDP: what a
/// UMEM frame must hold before the payload.
pub const FRAME_HEADERS_BYTES_MAX: usize = 14 + 4 * VLAN_TAGS_MAX + 60 + 8;

/// Blocklist entries per address family a map is created for by default.
pub const BLOCK_ENTRIES_MAX_DEFAULT: u32 = 65_536;

/// Slots of the direct-mapped token-bucket array of one CPU; a power of two.
/// 16 B each, so 256 KiB a CPU: fits L2. Two sources that share a slot share
/// nothing: the later one restarts the bucket.
pub const BUCKETS: u32 = 16_384;

const _: () = assert!(HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(EVENT_FIXED_BYTES.is_multiple_of(8));
const _: () = assert!(PAYLOAD_BYTES_MAX_DEFAULT.is_multiple_of(8));
const _: () = assert!(PAYLOAD_BYTES_LIMIT.is_multiple_of(8));
const _: () = assert!(BUCKETS.is_power_of_two());
// One event of the largest payload fits the default datagram.
const _: () = assert!(
    HEADER_BYTES + EVENT_FIXED_BYTES + EVENT_PAYLOAD_BYTES_MAX <= PAYLOAD_BYTES_MAX_DEFAULT
);
// The acks of one event, with its original epoch, fit the request they answer.
const _: () =
    assert!(HEADER_BYTES + ACK_ENTRY_FIXED_BYTES + 8 + 8 <= HEADER_BYTES + EVENT_FIXED_BYTES);
// A count travels as u16, and a full datagram of the largest size stays far below.
const _: () = assert!(events_max(PAYLOAD_BYTES_LIMIT) < u16::MAX as usize);
