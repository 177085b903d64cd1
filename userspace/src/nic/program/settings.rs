//! What the program is loaded with, and the modes it can be attached in.

use aya::programs::XdpMode;
use veltrix_abi::limits;
use veltrix_abi::maps::features;

use super::LoadError;
use crate::nic::attached::AttachedMode;

/// Largest burst: a bucket counts 1/1024 of a datagram in 32 bits.
pub const RATE_BURST_MAX: u32 = u32::MAX / 1_024;

/// Most queues: far above any NIC, and rows of 256 bytes on each CPU stay small.
pub const QUEUES_MAX: u32 = 4_096;

/// What to do with sources that send too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// No buckets are kept.
    Off,
    /// Count what would be dropped, and drop nothing.
    Observe {
        /// Datagrams a second and source.
        per_s: u32,
        /// Datagrams at once.
        burst: u32,
    },
    /// Drop.
    Enforce {
        /// Datagrams a second and source.
        per_s: u32,
        /// Datagrams at once.
        burst: u32,
    },
}

/// What the program is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP destination port.
    pub port: u16,
    /// Largest UDP payload accepted, bytes.
    pub payload_bytes_max: usize,
    /// Queues of the interface.
    pub queues: u32,
    /// Blocked prefixes of each address family.
    pub block_entries_max: u32,
    /// Whether sources are looked up in the blocklist.
    pub blocklist: bool,
    /// The limit on sources.
    pub rate: Rate,
}

impl Settings {
    /// The first value that the program could not work with.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let refuse = |key: &'static str, seen: u64, least: u64, most: u64| {
            Err(LoadError::Setting { key, seen, least, most })
        };
        if self.port == 0 {
            return refuse("port", 0, 1, u16::MAX.into());
        }
        let payload_range = limits::HEADER_BYTES..=limits::PAYLOAD_BYTES_LIMIT;
        if !payload_range.contains(&self.payload_bytes_max) {
            let (least, most) = (*payload_range.start() as u64, *payload_range.end() as u64);
            return refuse("payload_bytes_max", self.payload_bytes_max as u64, least, most);
        }
        if !(1..=QUEUES_MAX).contains(&self.queues) {
            return refuse("queues", self.queues.into(), 1, QUEUES_MAX.into());
        }
        if self.blocklist && self.block_entries_max == 0 {
            return refuse("blocklist.entries_max", 0, 1, u32::MAX.into());
        }
        let (Rate::Observe { per_s, burst } | Rate::Enforce { per_s, burst }) = self.rate else {
            return Ok(());
        };
        if per_s == 0 {
            return refuse("rate per second", 0, 1, u32::MAX.into());
        }
        if !(1..=RATE_BURST_MAX).contains(&burst) {
            return refuse("rate burst", burst.into(), 1, RATE_BURST_MAX.into());
        }
        Ok(())
    }

    /// Bits of [`features`], rate a second, burst.
    pub(super) const fn switches(&self) -> (u32, u32, u32) {
        let blocklist = if self.blocklist { features::BLOCKLIST } else { 0 };
        match self.rate {
            Rate::Off => (blocklist, 1, 1),
            Rate::Observe { per_s, burst } => {
                (blocklist | features::RATE_LIMIT | features::RATE_OBSERVE, per_s, burst)
            }
            Rate::Enforce { per_s, burst } => (blocklist | features::RATE_LIMIT, per_s, burst),
        }
    }
}

/// The XDP modes that can be asked for; none is chosen silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Driver,
    /// In the kernel's generic path.
    Generic,
}

impl Mode {
    /// The word in configuration and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.attached().name()
    }

    pub(super) const fn attached(self) -> AttachedMode {
        match self {
            Self::Driver => AttachedMode::Driver,
            Self::Generic => AttachedMode::Generic,
        }
    }
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Driver => Self::Driver,
            Mode::Generic => Self::Skb,
        }
    }
}
