//! What goes in and what comes out: an event, the receipt for it, the facts
//! of the server behind it.

use std::time::Duration;

use uuid::Uuid;
use veltrix_abi::Outcome;
use veltrix_abi::limits::EVENT_PAYLOAD_BYTES_MAX;
use veltrix_abi::wire::{Mode, Welcome};

use crate::error::SendError;

/// One player action on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub(crate) key: Option<Uuid>,
    pub(crate) player: u64,
    pub(crate) kind: u16,
    pub(crate) subject: u64,
    pub(crate) argument: u64,
    pub(crate) payload: Vec<u8>,
}

impl Event {
    /// `player` does `kind` (1 or above; the game type gives the numbers
    /// their meaning) to `subject`: a cell, an item, a quest.
    #[must_use]
    pub const fn new(player: u64, kind: u16, subject: u64) -> Self {
        Self { key: None, player, kind, subject, argument: 0, payload: Vec::new() }
    }

    /// An amount, a count, a position: its meaning depends on the kind. 0
    /// unless set.
    #[must_use]
    pub const fn argument(mut self, argument: u64) -> Self {
        self.argument = argument;
        self
    }

    /// Opaque bytes, at most 512; empty unless set.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The idempotency key, a UUIDv7, for a caller that keeps keys of its own
    /// so that an event stays one event even if this process dies between two
    /// tries. Unless set, the client makes one from the server's log time and
    /// uses it for every try of the event.
    #[must_use]
    pub const fn key(mut self, key: Uuid) -> Self {
        self.key = Some(key);
        self
    }

    pub(crate) fn check(&self) -> Result<(), SendError> {
        if self.kind == 0 {
            return Err(SendError::KindZero);
        }
        if self.payload.len() > EVENT_PAYLOAD_BYTES_MAX {
            return Err(SendError::PayloadTooLong { payload_bytes: self.payload.len() });
        }
        match self.key {
            Some(key) if key.get_version_num() != 7 => Err(SendError::KeyNotV7 { key }),
            _ => Ok(()),
        }
    }
}

/// The server's answer to one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What became of the event.
    pub outcome: Outcome,
    /// Whether an earlier try had been applied already; the outcome and epoch
    /// are then those of that first application.
    pub duplicate: bool,
    /// Log index at which the event's batch committed; 0 in ack mode `none`,
    /// which has no log.
    pub epoch: u64,
}

/// What the server said of itself when the client connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// The welcome as it came.
    pub welcome: Welcome,
    /// Time from the hello that was answered to its welcome.
    pub round_trip: Duration,
}

impl ServerInfo {
    /// Partitions that domain keys hash to.
    #[must_use]
    pub const fn partitions(&self) -> u16 {
        self.welcome.partitions
    }

    /// Whether the server gives acks of `mode`.
    #[must_use]
    pub const fn offers(&self, mode: Mode) -> bool {
        self.welcome.modes & Welcome::mode_bit(mode) != 0
    }
}
