//! The reference model: what a node must answer and hold, written down as
//! plainly as it can be said, so that it can be wrong in no interesting way.
//!
//! ```text
//!   Entry { epoch, log_time_ns, events } --> Model --> an Answer for each event
//!                                              |
//!                                              +--> hunts, hotspots, players
//! ```
//!
//! It knows the wire contract (`veltrix_abi`) and nothing of the server: no
//! fingerprint, no table, no generation. Every key it ever judged is kept for
//! ever; that is what makes a duplicate a duplicate here. Slow on purpose, and
//! without a limit on memory: 12 million cells take it a few gigabytes.
//!
//! # Judgement, in this order
//!
//! 1. `malformed`: the fields make no sense. Nothing is remembered.
//! 2. `too-old`: the key's time is at or below the horizon; `too-new`: it is
//!    more than [`TOO_NEW_MS`] ahead of log time. Nothing is remembered.
//! 3. The partition judged this (player, key) before: a duplicate, with its
//!    first outcome and epoch.
//! 4. The rule of its kind (the `rules` file here), and the answer is remembered.
//!
//! | file | what it says |
//! |---|---|
//! | `rules.rs` | what each kind does |
//! | `games.rs` | what differs between game types |
//! | `graph.rs` | what is a quest's graph |
//! | `state.rs` | what a hunt holds |
//!
//! # The horizon
//!
//! `max(log time - window, what was dropped)`. What a full dedupe store drops,
//! and when, is its own choice. So a model runs in one of two ways:
//!
//! - [`Model::apply`]: nothing is ever dropped. For histories whose keys fit
//!   the store.
//! - [`Model::follow`]: it is told what was answered, takes a `too-old` above the
//!   window's edge as proof of a drop, and holds the rest to it: from then on
//!   every key at or below is too old, and none judged before is judged again.

mod games;
mod graph;
#[cfg(test)]
mod hunt_tests;
mod rules;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use veltrix_abi::kinds::{
    CELL_BITS, EventKind, Hotspot, HuntSetup, ITEM_TYPES, PowerUp, QUEST_BITS, QuestPay, Quota,
    TEAMS,
};
use veltrix_abi::outcomes::Outcome;
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire;

pub use games::Game;
pub use graph::Graph;
use rules::Now;
pub use state::{HotspotState, Hunt, HuntState, Player, Power, Progress, Quest, Treasure};

/// A key further ahead of log time than this is too new, milliseconds.
pub const TOO_NEW_MS: u64 = 2_000;

/// What a data directory is formatted with, as far as outcomes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Partitions that domains hash to.
    pub partitions: u16,
    /// Hotspots that one partition can hold.
    pub cells_max: usize,
    /// Players that one partition can hold, counted once for each hunt.
    pub players_max: usize,
    /// Hunts that one partition can hold.
    pub hunts_max: usize,
    /// Quests and treasure types that one partition can hold.
    pub definitions_max: usize,
    /// Deeds that one partition can hold: one for each quest that a player ever began,
    /// and one for each 256 numbers of rewards that a player has some of.
    pub deeds_max: usize,
    /// Keys that one partition holds at least: before as many are judged, none
    /// may be dropped. Only [`Model::follow`] looks at it.
    pub keys_max: usize,
    /// A key this much older than log time is too old, milliseconds.
    pub window_ms: u64,
}

/// One event of an entry, with the domain of its datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Domain key: the hunt.
    pub domain: u64,
    /// Idempotency key.
    pub key: [u8; 16],
    /// Player it acts for.
    pub player: u64,
    /// What it acts on, by kind: a cell for most.
    pub subject: u64,
    /// By kind.
    pub argument: u64,
    /// Wire code of the kind.
    pub kind: u16,
    /// Must be zero.
    pub reserved: u32,
    /// By kind; at most 512 bytes.
    pub payload: Vec<u8>,
}

impl Event {
    /// The event as it is on the wire.
    #[must_use]
    pub fn wire(&self) -> wire::Event<'_> {
        wire::Event {
            key: self.key,
            player: self.player,
            subject: self.subject,
            argument: self.argument,
            kind: self.kind,
            reserved: self.reserved,
            payload: &self.payload,
        }
    }

    /// The event that was read from the wire.
    #[must_use]
    pub fn of_wire(domain: u64, event: &wire::Event<'_>) -> Self {
        Self {
            domain,
            key: event.key,
            player: event.player,
            subject: event.subject,
            argument: event.argument,
            kind: event.kind,
            reserved: event.reserved,
            payload: event.payload.to_vec(),
        }
    }

    /// When the client made it, milliseconds since the Unix epoch.
    #[must_use]
    pub fn key_ms(&self) -> u64 {
        self.key[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }

    /// Its kind, if all its fields make sense together.
    fn sound_kind(&self) -> Option<EventKind> {
        if !self.wire().is_well_formed() {
            return None;
        }
        let kind = EventKind::from_code(self.kind)?;
        let is_cell = self.subject >> CELL_BITS == 0;
        let is_quest = self.subject >> QUEST_BITS == 0;
        let (no_subject, no_argument) = (self.subject == 0, self.argument == 0);
        let sound = match kind {
            EventKind::HotspotSpawn => is_cell && Hotspot::unpack(self.argument).is_some(),
            EventKind::UseKey => is_cell && self.argument <= ITEM_TYPES.into(),
            EventKind::CollectItem
            | EventKind::Claim
            | EventKind::HotspotExpire
            | EventKind::LocationPing => is_cell && no_argument,
            EventKind::WalletTransfer => !no_argument && self.subject != self.player,
            EventKind::WalletCredit | EventKind::WalletSpend | EventKind::RewardIssued => {
                !no_argument
            }
            EventKind::HuntOpen => {
                no_subject
                    && Game::of(&HuntSetup::unpack(self.argument)).is_some()
                    && Quota::of(&self.payload).is_some()
            }
            EventKind::HuntClose => no_subject && no_argument,
            EventKind::PlayerJoin => no_subject && self.argument <= TEAMS as u64,
            EventKind::PowerUp => no_subject && PowerUp::unpack(self.argument).is_some(),
            EventKind::TreasureType => no_argument && !self.payload.is_empty(),
            EventKind::QuestDefine => {
                is_quest
                    && QuestPay::unpack(self.argument).is_some()
                    && Graph::of(&self.payload).is_some()
            }
            EventKind::Checkpoint => no_argument,
            EventKind::QuestAbandon => is_quest && no_argument,
            EventKind::BankDeposit | EventKind::BankWithdraw => no_subject && !no_argument,
        };
        sound.then_some(kind)
    }
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index in the log.
    pub epoch: u64,
    /// When it was proposed, nanoseconds since the Unix epoch.
    pub log_time_ns: u64,
    /// Its events. Only the order among events of one partition matters.
    pub events: Vec<Event>,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The outcome; a duplicate's is that of its first judgement.
    pub outcome: Outcome,
    /// Epoch of the first judgement, when this is a duplicate.
    pub first_epoch: Option<u64>,
}

impl Answer {
    const fn fresh(outcome: Outcome) -> Self {
        Self { outcome, first_epoch: None }
    }
}

/// An answer that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Entry it was given for.
    pub epoch: u64,
    /// Number of the event in the entry.
    pub event_number: usize,
    /// The event.
    pub event: Event,
    /// What the model says.
    pub wanted: Answer,
    /// What was answered.
    pub found: Answer,
    /// Horizon the model had, milliseconds.
    pub horizon_ms: u64,
}

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { epoch, event_number, event, wanted, found, horizon_ms } = self;
        write!(
            f,
            "epoch {epoch}, event {event_number}: answered {found:?}, the model says {wanted:?} \
             (key time {} ms, horizon {horizon_ms} ms): {event:?}",
            event.key_ms()
        )
    }
}

/// One partition: its hunts, and every key it ever judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Hunts by domain key.
    pub hunts: BTreeMap<u64, Hunt>,
    /// Hotspots of all its hunts.
    cells: usize,
    /// Players of all its hunts.
    players: usize,
    /// Quests and treasure types of all its hunts.
    definitions: usize,
    /// Deeds of all its players.
    deeds: usize,
    /// First answer to each (player, key).
    judged: HashMap<(u64, [u8; 16]), (Outcome, u64)>,
    /// Largest key time known to be dropped.
    dropped_ms: u64,
}

impl Partition {
    /// Hotspots of all its hunts.
    #[must_use]
    pub const fn cells_len(&self) -> usize {
        self.cells
    }

    /// Players of all its hunts.
    #[must_use]
    pub const fn players_len(&self) -> usize {
        self.players
    }

    /// Quests and treasure types of all its hunts.
    #[must_use]
    pub const fn definitions_len(&self) -> usize {
        self.definitions
    }

    /// Deeds of all its players, as [`Limits::deeds_max`] counts them.
    #[must_use]
    pub const fn deeds_len(&self) -> usize {
        self.deeds
    }

    /// Counts an event of a hunt that may use only so much; false when it has had all
    /// of this second.
    fn count(&mut self, domain: u64, log_time_ns: u64) -> bool {
        let Some(hunt) = self.hunts.get_mut(&domain) else { return true };
        let state = &mut hunt.state;
        if !state.is_bound() {
            return true;
        }
        let second = log_time_ns / 1_000_000_000;
        let (of_second, events) = state.counted;
        let events = if of_second == second { events } else { 0 };
        if state.quota.events_per_s > 0 && events >= state.quota.events_per_s {
            state.over_quota += 1;
            return false;
        }
        state.counted = (second, events + 1);
        true
    }

    /// Keys it has judged.
    #[must_use]
    pub fn keys_len(&self) -> usize {
        self.judged.len()
    }

    /// First answer to a key, if it was ever judged.
    #[must_use]
    pub fn judged(&self, player: u64, key: [u8; 16]) -> Option<(Outcome, u64)> {
        self.judged.get(&(player, key)).copied()
    }
}

/// The whole node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    limits: Limits,
    partitions: Vec<Partition>,
    epoch: u64,
    log_time_ns: u64,
}

impl Model {
    /// An empty node.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let partitions = vec![Partition::default(); usize::from(limits.partitions)];
        Self { limits, partitions, epoch: 0, log_time_ns: 0 }
    }

    /// The partitions, by number.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Last epoch applied; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The hunt of a domain, if something created it.
    #[must_use]
    pub fn hunt(&self, domain: u64) -> Option<&Hunt> {
        self.partition(domain).hunts.get(&domain)
    }

    /// The partition of a domain.
    #[must_use]
    pub fn partition(&self, domain: u64) -> &Partition {
        &self.partitions[usize::from(partition_of(domain, self.limits.partitions))]
    }

    /// Applies an entry; gives an answer for each event, in their order.
    ///
    /// # Panics
    ///
    /// When the entry's epoch is not above the last: a bug of the caller.
    pub fn apply(&mut self, entry: &Entry) -> Vec<Answer> {
        self.advance(entry);
        entry.events.iter().map(|event| self.judge(entry.epoch, event)).collect()
    }

    /// Applies an entry that was answered with `found`, by a node whose dedupe
    /// may drop keys, and checks the answers.
    ///
    /// # Errors
    ///
    /// The first answer that cannot be right. The model is of no use after it.
    ///
    /// # Panics
    ///
    /// When the entry's epoch is not above the last, or there is not one answer
    /// for each event: a bug of the caller.
    pub fn follow(&mut self, entry: &Entry, found: &[Answer]) -> Result<(), Box<Disagreement>> {
        assert_eq!(entry.events.len(), found.len(), "one answer for each event");
        self.advance(entry);
        for (event_number, (event, found)) in entry.events.iter().zip(found).enumerate() {
            let keys_max = self.limits.keys_max;
            let partition = self.partition_mut(event.domain);
            if event.sound_kind().is_some()
                && *found == Answer::fresh(Outcome::TooOld)
                && partition.judged.len() >= keys_max
            {
                partition.dropped_ms = partition.dropped_ms.max(event.key_ms());
            }
            let wanted = self.judge(entry.epoch, event);
            if wanted != *found {
                return Err(Box::new(Disagreement {
                    epoch: entry.epoch,
                    event_number,
                    event: event.clone(),
                    wanted,
                    found: *found,
                    horizon_ms: self.horizon_ms(event.domain),
                }));
            }
        }
        Ok(())
    }

    /// Keys of this time and before are too old for the domain's partition.
    #[must_use]
    pub fn horizon_ms(&self, domain: u64) -> u64 {
        let edge_ms = self.log_time_ms().saturating_sub(self.limits.window_ms);
        edge_ms.max(self.partition(domain).dropped_ms)
    }

    fn log_time_ms(&self) -> u64 {
        self.log_time_ns / 1_000_000
    }

    fn partition_mut(&mut self, domain: u64) -> &mut Partition {
        &mut self.partitions[usize::from(partition_of(domain, self.limits.partitions))]
    }

    fn advance(&mut self, entry: &Entry) {
        assert!(entry.epoch > self.epoch, "epoch {} after {}", entry.epoch, self.epoch);
        self.epoch = entry.epoch;
        self.log_time_ns = self.log_time_ns.max(entry.log_time_ns);
    }

    fn judge(&mut self, epoch: u64, event: &Event) -> Answer {
        let Some(kind) = event.sound_kind() else { return Answer::fresh(Outcome::Malformed) };
        if event.key_ms() <= self.horizon_ms(event.domain) {
            return Answer::fresh(Outcome::TooOld);
        }
        if event.key_ms() > self.log_time_ms() + TOO_NEW_MS {
            return Answer::fresh(Outcome::TooNew);
        }
        let (limits, log_time_ns) = (self.limits, self.log_time_ns);
        let partition = self.partition_mut(event.domain);
        if let Some((outcome, first)) = partition.judged(event.player, event.key) {
            return Answer { outcome, first_epoch: Some(first) };
        }
        if kind != EventKind::HuntClose && !partition.count(event.domain, log_time_ns) {
            // Not remembered: in another second it may come again.
            return Answer::fresh(Outcome::OverQuota);
        }
        let outcome = rules::outcome(partition, &limits, Now { epoch, log_time_ns }, kind, event);
        if outcome == Outcome::OverQuota {
            return Answer::fresh(outcome);
        }
        partition.judged.insert((event.player, event.key), (outcome, epoch));
        Answer::fresh(outcome)
    }
}
