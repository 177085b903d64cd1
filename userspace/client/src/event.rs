//! What goes in and what comes out: an event, the receipt for it, the facts
//! of the server behind it.

use std::time::Duration;

use uuid::Uuid;
use veltrix_abi::Outcome;
use veltrix_abi::kinds::{EventKind, Hotspot};
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

    const fn of(player: u64, kind: EventKind, subject: u64, argument: u64) -> Self {
        Self::new(player, kind.code(), subject).argument(argument)
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

/// Each kind of event that a server with a log applies; `player` acts, in the
/// hunt of the [`Domain`](crate::Domain) that the event is sent to. What a kind
/// asks for, and the outcomes it can have, stand in `userspace/docs/WIRE.md`.
///
/// A cell is a 60-bit id; an event on any other number is `malformed`, as is an
/// amount of 0.
impl Event {
    /// Puts a hotspot onto a cell, or another in its place.
    ///
    /// # Errors
    ///
    /// [`SendError::Hotspot`] when a field of it is out of its range.
    pub const fn spawn(player: u64, cell: u64, hotspot: &Hotspot) -> Result<Self, SendError> {
        match hotspot.pack() {
            Some(argument) => Ok(Self::of(player, EventKind::HotspotSpawn, cell, argument)),
            None => Err(SendError::Hotspot { hotspot: *hotspot }),
        }
    }

    /// Ends the hotspot on a cell now.
    #[must_use]
    pub const fn expire(player: u64, cell: u64) -> Self {
        Self::of(player, EventKind::HotspotExpire, cell, 0)
    }

    /// Takes one item from the item hotspot on a cell.
    #[must_use]
    pub const fn collect(player: u64, cell: u64) -> Self {
        Self::of(player, EventKind::CollectItem, cell, 0)
    }

    /// Spends a key on the chest on a cell.
    #[must_use]
    pub const fn use_key(player: u64, cell: u64) -> Self {
        Self::of(player, EventKind::UseKey, cell, 0)
    }

    /// Claims the ticket on a cell.
    #[must_use]
    pub const fn claim(player: u64, cell: u64) -> Self {
        Self::of(player, EventKind::Claim, cell, 0)
    }

    /// Adds to the player's wallet.
    #[must_use]
    pub const fn credit(player: u64, amount: u64) -> Self {
        Self::of(player, EventKind::WalletCredit, 0, amount)
    }

    /// Takes from the player's wallet.
    #[must_use]
    pub const fn spend(player: u64, amount: u64) -> Self {
        Self::of(player, EventKind::WalletSpend, 0, amount)
    }

    /// Moves from the player's wallet to another player's, both or neither.
    #[must_use]
    pub const fn transfer(player: u64, payee: u64, amount: u64) -> Self {
        Self::of(player, EventKind::WalletTransfer, payee, amount)
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

    /// Whether the server answers queries.
    #[must_use]
    pub const fn answers_queries(&self) -> bool {
        self.welcome.features & Welcome::FEATURE_QUERIES != 0
    }

    /// Whether the server gives acks of `mode`.
    #[must_use]
    pub const fn offers(&self, mode: Mode) -> bool {
        self.welcome.modes & Welcome::mode_bit(mode) != 0
    }
}

#[cfg(test)]
mod tests {
    use veltrix_abi::kinds::HotspotKind;

    use super::*;

    const CHEST: Hotspot =
        Hotspot { kind: HotspotKind::Chest, item: 2, remaining: 3, reward: 50, lifetime_s: 60 };

    #[test]
    fn every_kind_has_its_builder() {
        let built = [
            (Event::spawn(7, 9, &CHEST).unwrap(), 9, CHEST.pack().unwrap()),
            (Event::collect(7, 9), 9, 0),
            (Event::use_key(7, 9), 9, 0),
            (Event::claim(7, 9), 9, 0),
            (Event::credit(7, 5), 0, 5),
            (Event::spend(7, 5), 0, 5),
            (Event::transfer(7, 8, 5), 8, 5),
            (Event::expire(7, 9), 9, 0),
        ];
        let kinds: Vec<_> = EventKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(built.iter().map(|(event, ..)| event.kind).collect::<Vec<_>>(), kinds);
        for (event, subject, argument) in built {
            let got = (event.player, event.subject, event.argument);
            assert_eq!(got, (7, subject, argument), "kind {}", event.kind);
        }
    }

    #[test]
    fn a_hotspot_that_cannot_be_is_named() {
        let hotspot = Hotspot { remaining: 0, ..CHEST };
        let error = Event::spawn(7, 9, &hotspot).unwrap_err();
        assert_eq!(error, SendError::Hotspot { hotspot });
        assert!(error.to_string().contains("remaining: 0"), "{error}");
    }
}
