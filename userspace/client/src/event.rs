//! What goes in and what comes out: an event, the receipt for it, the facts
//! of the server behind it.

use std::time::Duration;

use uuid::Uuid;
use veltrix_abi::Outcome;
use veltrix_abi::kinds::{EventKind, Hotspot, HuntSetup, PowerUp, QUEST_BITS, QuestPay, Quota};
use veltrix_abi::limits::EVENT_PAYLOAD_BYTES_MAX;
use veltrix_abi::split::{Opening, Region};
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

    /// What it packs its particulars into.
    #[must_use]
    pub fn into_argument_and_payload(self) -> (u64, Vec<u8>) {
        (self.argument, self.payload)
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

    /// As [`Self::use_key`], with a key of item type `item`, 0 to 7, and no other: what
    /// a split hunt wants to know.
    #[must_use]
    pub const fn use_key_of(player: u64, cell: u64, item: u8) -> Self {
        Self::of(player, EventKind::UseKey, cell, item as u64 + 1)
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

    /// Opens the hunt as a game of some type; which there are, and what their
    /// settings mean, stands in `userspace/docs/GAMES.md`.
    ///
    /// # Errors
    ///
    /// [`SendError::Setup`] when a field of it is out of its range.
    pub const fn open(player: u64, setup: &HuntSetup) -> Result<Self, SendError> {
        match setup.pack() {
            Some(argument) => Ok(Self::of(player, EventKind::HuntOpen, 0, argument)),
            None => Err(SendError::Setup { setup: *setup }),
        }
    }

    /// As [`Self::open`], and says whose the hunt is and what it may use: whatever
    /// would need more is `over-quota`.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_for(player: u64, setup: &HuntSetup, quota: &Quota) -> Result<Self, SendError> {
        Ok(Self::open(player, setup)?.payload(quota.bytes()))
    }

    /// As [`Self::open_for`], a region of a split hunt; see [`crate::SplitHunt::open`].
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_region(
        player: u64,
        setup: &HuntSetup,
        quota: &Quota,
        region: &Region,
    ) -> Result<Self, SendError> {
        Ok(Self::open(player, setup)?.payload(Opening::bytes_of_region(quota, region)))
    }

    /// Closes the hunt for good, and pays its pot if it has one.
    #[must_use]
    pub const fn close(player: u64) -> Self {
        Self::of(player, EventKind::HuntClose, 0, 0)
    }

    /// Joins the hunt; in `team`, 1 to 16, where its game has teams, else 0.
    #[must_use]
    pub const fn join(player: u64, team: u8) -> Self {
        Self::of(player, EventKind::PlayerJoin, 0, team as u64)
    }

    /// Says that the player is on a cell.
    #[must_use]
    pub const fn ping(player: u64, cell: u64) -> Self {
        Self::of(player, EventKind::LocationPing, cell, 0)
    }

    /// Spends an item for points that are multiplied for a while.
    ///
    /// # Errors
    ///
    /// [`SendError::PowerUp`] when a field of it is out of its range.
    pub const fn power_up(player: u64, power_up: &PowerUp) -> Result<Self, SendError> {
        match power_up.pack() {
            Some(argument) => Ok(Self::of(player, EventKind::PowerUp, 0, argument)),
            None => Err(SendError::PowerUp { power_up: *power_up }),
        }
    }

    /// Sets a treasure type of the hunt to `what`, 1 to 512 bytes that nobody here
    /// reads; JSON, say.
    #[must_use]
    pub fn treasure_type(player: u64, id: u64, what: impl Into<Vec<u8>>) -> Self {
        Self::of(player, EventKind::TreasureType, id, 0).payload(what)
    }

    /// Defines a quest for good: nodes from 0, and edges from a node to one that can
    /// be passed after it.
    ///
    /// # Errors
    ///
    /// [`SendError::Quest`] for nodes that are not there, and for what does not fit a
    /// payload. An edge that is there twice and a cycle are `malformed`, by the server.
    pub fn quest(
        player: u64,
        quest: u64,
        nodes: usize,
        edges: &[(u8, u8)],
        pay: QuestPay,
    ) -> Result<Self, SendError> {
        let wrong = |what| SendError::Quest { quest, what };
        if quest >> QUEST_BITS != 0 {
            return Err(wrong("ids have 56 bits"));
        }
        let last = match nodes {
            1..=256 => (nodes - 1) as u8,
            _ => return Err(wrong("wanted are 1 to 256 nodes")),
        };
        if edges.len() > QUEST_EDGES_MAX {
            return Err(wrong("at most 255 edges fit an event"));
        }
        if edges.iter().any(|(from, to)| *from > last || *to > last) {
            return Err(wrong("an edge names a node that is not there"));
        }
        let argument = pay.pack().ok_or(wrong("pay is at most 1,048,575 each"))?;
        let mut payload = vec![last, 0];
        payload.extend(edges.iter().flat_map(|(from, to)| [*from, *to]));
        Ok(Self::of(player, EventKind::QuestDefine, quest, argument).payload(payload))
    }

    /// Passes a node of a quest.
    ///
    /// # Errors
    ///
    /// [`SendError::Quest`] for an id of more than 56 bits.
    pub const fn checkpoint(player: u64, quest: u64, node: u8) -> Result<Self, SendError> {
        if quest >> QUEST_BITS != 0 {
            return Err(SendError::Quest { quest, what: "ids have 56 bits" });
        }
        Ok(Self::of(player, EventKind::Checkpoint, quest << 8 | node as u64, 0))
    }

    /// Gives up what the player has passed of a quest.
    #[must_use]
    pub const fn abandon(player: u64, quest: u64) -> Self {
        Self::of(player, EventKind::QuestAbandon, quest, 0)
    }

    /// Pays the reward of that number to the player, once and for ever.
    #[must_use]
    pub const fn reward(player: u64, number: u64, amount: u64) -> Self {
        Self::of(player, EventKind::RewardIssued, number, amount)
    }

    /// Moves from the player's wallet to the bank of its team.
    #[must_use]
    pub const fn deposit(player: u64, amount: u64) -> Self {
        Self::of(player, EventKind::BankDeposit, 0, amount)
    }

    /// Moves from the bank of the player's team to its wallet.
    #[must_use]
    pub const fn withdraw(player: u64, amount: u64) -> Self {
        Self::of(player, EventKind::BankWithdraw, 0, amount)
    }
}

/// Edges that fit the payload of one event.
const QUEST_EDGES_MAX: usize = (EVENT_PAYLOAD_BYTES_MAX - 2) / 2;

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

    const SETUP: HuntSetup = HuntSetup { game: 1, length_s: 60, settings: 0 };
    const POWER_UP: PowerUp = PowerUp { item: 2, factor: 3, seconds: 60 };
    const PAY: QuestPay = QuestPay { node: 1, end: 10 };

    #[test]
    fn what_cannot_be_is_refused_before_it_is_sent() {
        let long = HuntSetup { length_s: 1 << 20, ..SETUP };
        assert_eq!(Event::open(7, &long), Err(SendError::Setup { setup: long }));
        assert!(matches!(Event::checkpoint(7, 1 << 56, 0), Err(SendError::Quest { .. })));
        let weak = Event::power_up(7, &PowerUp { factor: 1, ..POWER_UP }).unwrap_err();
        assert!(weak.to_string().contains("factor: 1"), "{weak}");
        let edges: Vec<(u8, u8)> = (0..255).map(|node| (node, node + 1)).collect();
        assert_eq!(Event::quest(7, 9, 256, &edges, PAY).unwrap().payload.len(), 512);
        let one_more = [&edges[..], &[(0, 2)]].concat();
        for (quest, nodes, edges, pay) in [
            (1 << 56, 256, &edges[..], PAY),
            (9, 0, &edges, PAY),
            (9, 257, &edges, PAY),
            (9, 255, &edges, PAY),
            (9, 256, &one_more, PAY),
            (9, 256, &edges, QuestPay { end: 1 << 20, ..PAY }),
        ] {
            let refused = Event::quest(7, quest, nodes, edges, pay);
            assert!(matches!(refused, Err(SendError::Quest { .. })), "{quest} {nodes}");
        }
    }

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
            (Event::open(7, &SETUP).unwrap(), 0, SETUP.pack().unwrap()),
            (Event::close(7), 0, 0),
            (Event::join(7, 3), 0, 3),
            (Event::ping(7, 9), 9, 0),
            (Event::power_up(7, &POWER_UP).unwrap(), 0, POWER_UP.pack().unwrap()),
            (Event::treasure_type(7, 9, "{}"), 9, 0),
            (Event::quest(7, 9, 2, &[(0, 1)], PAY).unwrap(), 9, PAY.pack().unwrap()),
            (Event::checkpoint(7, 9, 255).unwrap(), 0x9ff, 0),
            (Event::abandon(7, 9), 9, 0),
            (Event::reward(7, 9, 5), 9, 5),
            (Event::deposit(7, 5), 0, 5),
            (Event::withdraw(7, 5), 0, 5),
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
