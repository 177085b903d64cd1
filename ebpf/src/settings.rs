//! Load-time settings in `.rodata`: the loader writes them before the verifier
//! looks, so that what is switched off costs nothing. The names are those of
//! [`veltrix_abi::maps`].

use aya_ebpf::Global;
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;

// SAFETY (of every `no_mangle` here): the names are unique in this object.

/// UDP destination port that is ours, host order.
#[unsafe(no_mangle)]
static PORT: Global<u16> = Global::new(0);

/// Largest UDP payload accepted, bytes.
#[unsafe(no_mangle)]
static PAYLOAD_BYTES_MAX: Global<u32> = Global::new(PAYLOAD_BYTES_MAX_DEFAULT as u32);

/// Bit set of [`veltrix_abi::maps::features`].
#[unsafe(no_mangle)]
static FEATURES: Global<u32> = Global::new(0);

/// Datagrams a second and source.
#[unsafe(no_mangle)]
static RATE_PER_S: Global<u32> = Global::new(1);

/// Datagrams a source may send at once.
#[unsafe(no_mangle)]
static RATE_BURST: Global<u32> = Global::new(1);

/// UDP destination port that is ours.
#[inline(always)]
pub(crate) fn port() -> u16 {
    PORT.load()
}

/// Largest UDP payload accepted, bytes.
#[inline(always)]
pub(crate) fn payload_bytes_max() -> usize {
    PAYLOAD_BYTES_MAX.load() as usize
}

/// Whether a bit of [`veltrix_abi::maps::features`] is set.
#[inline(always)]
pub(crate) fn has(feature: u32) -> bool {
    FEATURES.load() & feature != 0
}

/// Datagrams a second and source; at least 1, so that it may divide.
#[inline(always)]
pub(crate) fn rate_per_s() -> u64 {
    u64::from(RATE_PER_S.load().max(1))
}

/// Datagrams a source may send at once.
#[inline(always)]
pub(crate) fn rate_burst() -> u64 {
    u64::from(RATE_BURST.load())
}
