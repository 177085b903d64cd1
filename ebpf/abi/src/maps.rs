//! Maps and load-time settings of the kernel half: names and layouts.
//!
//! Every map is sized when the object is loaded (rows and sockets: one per
//! queue), so the program holds no per-queue constant.

use crate::exits::XDP_SLOTS;

/// XDP program of the appliance.
pub const PROGRAM: &str = "veltrix";

/// XSKMAP: queue index to AF_XDP socket.
pub const XSKS: &str = "XSKS";

/// Per-CPU array of [`ExitRow`]: row 0 for frames of a queue index beyond the
/// array (a queue count that grew under us), row `q + 1` for queue `q`.
pub const EXITS: &str = "EXITS";

/// LPM trie of blocked IPv4 prefixes: key address bytes in network order,
/// value [`Block`].
pub const BLOCK4: &str = "BLOCK4";

/// LPM trie of blocked IPv6 prefixes: as [`BLOCK4`].
pub const BLOCK6: &str = "BLOCK6";

/// Per-CPU array of [`Bucket`], direct-mapped by a hash of the source.
pub const BUCKETS: &str = "BUCKETS";

/// `.rodata`: UDP destination port, host order.
pub const PORT: &str = "PORT";
/// `.rodata`: largest UDP payload accepted, bytes, `u32`.
pub const PAYLOAD_BYTES_MAX: &str = "PAYLOAD_BYTES_MAX";
/// `.rodata`: bit set of features, see [`features`], `u32`; the verifier prunes what is off.
pub const FEATURES: &str = "FEATURES";
/// `.rodata`: datagrams a second and source, `u32`, at least 1.
pub const RATE_PER_S: &str = "RATE_PER_S";
/// `.rodata`: datagrams a source may send at once, `u32`, at least 1.
pub const RATE_BURST: &str = "RATE_BURST";

/// Bits of [`FEATURES`].
pub mod features {
    /// Look the source up in the blocklist.
    pub const BLOCKLIST: u32 = 1 << 0;
    /// Keep a token bucket for each source.
    pub const RATE_LIMIT: u32 = 1 << 1;
    /// Count what the rate limit would drop, and drop nothing.
    pub const RATE_OBSERVE: u32 = 1 << 2;
}

/// Counters of one queue on one CPU: slots as [`crate::Exit`] and
/// [`crate::exits::FRAMES_SLOT`] name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExitRow {
    /// Frames by slot.
    pub slots: [u64; XDP_SLOTS],
}

/// Longest reason kept with a blocked prefix, bytes of UTF-8.
pub const BLOCK_REASON_BYTES_MAX: usize = 40;

/// A blocked prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// `CLOCK_MONOTONIC` nanoseconds from which on the entry blocks nothing;
    /// `u64::MAX` for ever. The program compares it with the coarse clock
    /// (4 ms steps); the control loop removes what has expired.
    pub expires_ns: u64,
    /// Why, for the operator: UTF-8, zero-padded.
    pub reason: [u8; BLOCK_REASON_BYTES_MAX],
}

/// Token bucket of one source on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Hash of the source that owns the slot; another hash restarts it.
    pub source: u32,
    /// Tokens left, in 1/1024 of a datagram.
    pub tokens_1024th: u32,
    /// Coarse `CLOCK_MONOTONIC` of the last refill, nanoseconds; 0 in a slot never used.
    pub refilled_ns: u64,
}

const _: () = assert!(size_of::<ExitRow>() == 256);
const _: () = assert!(size_of::<Block>() == 48);
const _: () = assert!(size_of::<Bucket>() == 16);
