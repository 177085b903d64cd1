//! One partition: its index, its dedupe table, its digest, and what becomes of
//! an event in them.

use std::io;
use std::sync::Arc;

use veltrix_abi::Outcome;
use veltrix_abi::kinds::Hotspot;
use veltrix_abi::outcomes::DUPLICATE_BIT;

use super::belt::{self, Entry, One, Pending};
use super::capture::Captured;
use super::digest::Digest;
use super::rules::{self, Action, HotspotState, PlayerState};
use crate::batch::{BatchView, OutcomeSlots, Range};
use crate::dedupe::{self, Dedupe, DedupeBytes, DedupeLimits, Secret, Verdict};
use crate::index::{Cell, HuntId, Index, IndexBytes, IndexLimits, Player, PlayerSlot};

/// Slots of [`Partition::outcomes`].
pub const OUTCOME_SLOTS: usize = 32;

/// The slot of [`Partition::outcomes`] that counts duplicates, whatever their
/// first outcome was.
pub const DUPLICATES: usize = 31;

/// What one partition may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLimits {
    /// Cells, players and hunts.
    pub index: IndexLimits,
    /// Idempotency keys.
    pub dedupe: DedupeLimits,
}

/// Bytes of one partition, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionBytes {
    /// Cells, players and hunts.
    pub index: IndexBytes,
    /// Idempotency keys.
    pub dedupe: DedupeBytes,
}

impl PartitionBytes {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.index.total() + self.dedupe.total() as u64
    }
}

/// See the page of [`crate::apply`].
pub struct Partition {
    pub(super) number: u16,
    pub(super) limits: PartitionLimits,
    pub(super) secret: Arc<Secret>,
    pub(super) index: Index,
    pub(super) dedupe: Dedupe,
    pub(super) epoch: u64,
    pub(super) log_time_ns: u64,
    pub(super) digest: Digest,
    pub(super) outcomes: [u64; OUTCOME_SLOTS],
    pub(super) captured: Option<Captured>,
}

/// The player that a record is for.
#[derive(Clone, Copy)]
struct Whose {
    hunt: HuntId,
    domain: u64,
    player: u64,
}

impl Whose {
    /// The player that acts.
    #[inline(always)]
    fn of(hunt: HuntId, pending: &Pending) -> Self {
        Self { hunt, domain: pending.domain, player: pending.player }
    }
}

/// What all events of an entry share in one partition.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    epoch: u64,
    log_time_ms: u64,
    log_time_s: u32,
    slots: Option<&'a OutcomeSlots>,
}

impl Partition {
    /// An empty partition `number`; reserves all the memory it will ever use.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to give as much memory; limits that the index or
    /// the dedupe table cannot keep.
    pub fn new(number: u16, limits: &PartitionLimits, secret: Arc<Secret>) -> io::Result<Self> {
        Ok(Self {
            number,
            limits: *limits,
            secret,
            index: Index::new(&limits.index)?,
            dedupe: Dedupe::new(&limits.dedupe)?,
            epoch: 0,
            log_time_ns: 0,
            digest: Digest::default(),
            outcomes: [0; OUTCOME_SLOTS],
            captured: None,
        })
    }

    /// Bytes that [`Self::new`] will reserve, by part; what lies unused between
    /// tables that share a region (see [`crate::base::table`]) comes on top.
    #[must_use]
    pub fn bytes_of(limits: &PartitionLimits) -> PartitionBytes {
        PartitionBytes {
            index: Index::bytes_of(&limits.index),
            dedupe: Dedupe::bytes_of(&limits.dedupe),
        }
    }

    /// Its number among the partitions of the data directory.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// What it may hold.
    #[must_use]
    pub fn limits(&self) -> &PartitionLimits {
        &self.limits
    }

    /// Log index of the last entry it has applied; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Log time of the last batch applied, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn log_time_ns(&self) -> u64 {
        self.log_time_ns
    }

    /// Digest after [`Self::epoch`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Events by outcome code since it was made or restored; duplicates are
    /// counted in slot [`DUPLICATES`] only.
    #[must_use]
    pub fn outcomes(&self) -> &[u64; OUTCOME_SLOTS] {
        &self.outcomes
    }

    /// Cells, players and hunts, to read from.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Idempotency keys, to look at.
    #[must_use]
    pub fn dedupe(&self) -> &Dedupe {
        &self.dedupe
    }

    /// An entry without anything for this partition: only its epoch passes.
    #[inline]
    pub fn apply_other(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Applies the partition's range of the batch that committed as `epoch`,
    /// and stores each event's outcome in its slot of `slots`. An epoch at or
    /// below [`Self::epoch`] was applied before: nothing happens, and no slot is
    /// written.
    ///
    /// `log_time_ns` is the entry's. Log time never goes back: should an entry
    /// be stamped earlier than one before it, the later stamp holds.
    pub fn apply(
        &mut self,
        epoch: u64,
        log_time_ns: u64,
        view: &BatchView<'_>,
        range: &Range,
        slots: Option<&OutcomeSlots>,
    ) {
        debug_assert_eq!(range.partition, self.number, "a range of another partition");
        let entry = Entry { epoch, log_time_ns, slots };
        belt::run(&mut One(self), &entry, view, std::iter::once(*range));
    }

    /// The entry's epoch and log time are the partition's from here on; false
    /// when it was applied before.
    #[inline]
    pub(super) fn begin(&mut self, entry: &Entry<'_>) -> bool {
        if entry.epoch <= self.epoch {
            return false;
        }
        self.epoch = entry.epoch;
        self.log_time_ns = self.log_time_ns.max(entry.log_time_ns);
        true
    }

    /// What [`Self::judge`] wants to know of the entry under way.
    #[inline]
    pub(super) fn now<'a>(&self, entry: &Entry<'a>) -> Now<'a> {
        Now {
            epoch: entry.epoch,
            log_time_ms: self.log_time_ns / 1_000_000,
            log_time_s: rules::log_time_s(self.log_time_ns),
            slots: entry.slots,
        }
    }

    /// Step 3: the event's outcome, and everything that follows from it.
    #[inline(always)]
    pub(super) fn judge(&mut self, now: &Now<'_>, pending: &Pending) {
        let Some(action) = pending.action() else {
            return self.settle(now, pending, Outcome::Malformed);
        };
        let (fingerprint, key_ms) = (pending.fingerprint, dedupe::key_ms(&pending.key));
        match self.dedupe.check(fingerprint, key_ms, now.log_time_ms) {
            Verdict::Fresh => {
                let outcome = self.perform(now, pending, action);
                self.dedupe.record(fingerprint, key_ms, outcome.code(), now.epoch);
                self.settle(now, pending, outcome);
            }
            Verdict::Duplicate { outcome, epoch } => {
                self.settle_duplicate(now, pending, outcome, epoch);
            }
            Verdict::TooOld => self.settle(now, pending, Outcome::TooOld),
            Verdict::TooNew => self.settle(now, pending, Outcome::TooNew),
        }
    }

    #[inline(always)]
    fn settle(&mut self, now: &Now<'_>, pending: &Pending, outcome: Outcome) {
        let code = outcome.code();
        self.outcomes[usize::from(code) % OUTCOME_SLOTS] += 1;
        self.digest.outcome(&pending.key, code, 0);
        if let Some(slots) = now.slots {
            slots.set(pending.slot, code);
        }
    }

    #[inline]
    fn settle_duplicate(&mut self, now: &Now<'_>, pending: &Pending, outcome: u8, first: u64) {
        self.outcomes[DUPLICATES] += 1;
        self.digest.outcome(&pending.key, outcome | DUPLICATE_BIT, first);
        if let Some(slots) = now.slots {
            slots.set_duplicate(pending.slot, outcome, first);
        }
    }

    /// The rule of a fresh event.
    #[inline(always)]
    fn perform(&mut self, now: &Now<'_>, pending: &Pending, action: Action) -> Outcome {
        let performed = match action {
            Action::Collect => self.take(now, pending, rules::collect),
            Action::UseKey => self.take(now, pending, rules::use_key),
            Action::Claim => self.take(now, pending, rules::claim),
            Action::Credit(amount) => self.credit(pending, amount),
            Action::Spend(amount) => self.spend(pending, amount),
            Action::Spawn(hotspot) => self.spawn(now, pending, &hotspot),
            Action::Transfer(amount) => self.transfer(pending, amount),
            Action::Expire => self.expire(now, pending),
        };
        performed.err().unwrap_or(Outcome::Applied)
    }

    #[inline(always)]
    fn hunt_of(&self, pending: &Pending) -> Option<HuntId> {
        pending.hunt.or_else(|| self.index.hunt(pending.domain))
    }

    /// The player's slot, where there is one, and what the player owns; `None`
    /// when the player is unknown and there is no room for another.
    #[inline(always)]
    fn player_of(
        &self,
        hunt: Option<HuntId>,
        pending: &Pending,
    ) -> (Option<PlayerSlot>, Option<PlayerState>) {
        let slot = hunt.and_then(|hunt| {
            self.index.player_slot_near(pending.player_hint, hunt, pending.player)
        });
        (slot, self.player_in(slot))
    }

    /// What the player of a slot owns; nothing for one to be made, if there is
    /// room for it.
    #[inline(always)]
    fn player_in(&self, slot: Option<PlayerSlot>) -> Option<PlayerState> {
        match slot {
            Some(slot) => Some(player_state(self.index.player(slot))),
            None => self.has_player_room().then(PlayerState::default),
        }
    }

    fn has_player_room(&self) -> bool {
        self.index.players_len() < self.limits.index.players_max
    }

    /// Collect, use-key and claim: something moves from a hotspot to a player.
    #[inline(always)]
    fn take(
        &mut self,
        now: &Now<'_>,
        pending: &Pending,
        rule: impl FnOnce(
            Option<HotspotState>,
            Option<PlayerState>,
            u32,
        ) -> Result<(HotspotState, PlayerState), Outcome>,
    ) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::NotFound)?;
        let cell_slot = self.index.cell_slot_near(pending.cell_hint, hunt, pending.cell);
        let cell_slot = cell_slot.ok_or(Outcome::NotFound)?;
        let mut record = *self.index.cell(cell_slot);
        let hotspot = hotspot_state(&record);
        let (player_slot, player) = self.player_of(Some(hunt), pending);
        let (hotspot, player) = rule(hotspot, player, now.log_time_s)?;
        let player_slot = self.write_player(Whose::of(hunt, pending), player_slot, &player)?;
        record.remaining = hotspot.remaining;
        record.claimed_by = if hotspot.claimed { player_slot.mark() } else { 0 };
        self.index.cell_write(cell_slot, record);
        let claimed_by = hotspot.claimed.then_some(pending.player);
        self.digest.cell(pending.domain, pending.cell, &hotspot, claimed_by);
        Ok(())
    }

    /// Writes what the player owns now, in a new record where there was none.
    /// Refuses only when there is no room, and has changed nothing then.
    #[inline(always)]
    fn write_player(
        &mut self,
        whose: Whose,
        slot: Option<PlayerSlot>,
        player: &PlayerState,
    ) -> Result<PlayerSlot, Outcome> {
        let mut record = Player::new(whose.hunt, whose.player);
        (record.wallet, record.score) = (player.wallet, player.score);
        record.inventory = player.inventory;
        let (score, since) = slot.map_or((0, 0), |slot| {
            let before = self.index.player(slot);
            (before.score, before.score_epoch)
        });
        record.score_epoch = if player.score == score { since } else { self.epoch };
        let slot = match slot {
            Some(slot) => {
                self.index.player_write(slot, record);
                slot
            }
            None => self.index.player_insert(record).map_err(|_| Outcome::Full)?,
        };
        self.digest.player(whose.domain, whose.player, player, record.score_epoch);
        Ok(slot)
    }

    #[inline(always)]
    fn credit(&mut self, pending: &Pending, amount: u64) -> Result<(), Outcome> {
        let known = self.hunt_of(pending);
        let (slot, player) = self.player_of(known, pending);
        let player = rules::credit(player, amount)?;
        // After the rule: what is refused creates nothing.
        let hunt = match known {
            Some(hunt) => hunt,
            None => self.index.hunt_insert(pending.domain).map_err(|_| Outcome::Full)?,
        };
        self.write_player(Whose::of(hunt, pending), slot, &player)?;
        Ok(())
    }

    #[inline(always)]
    fn spend(&mut self, pending: &Pending, amount: u64) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::InsufficientFunds)?;
        let (slot, player) = self.player_of(Some(hunt), pending);
        let player = rules::spend(player, amount)?;
        self.write_player(Whose::of(hunt, pending), slot, &player)?;
        Ok(())
    }

    /// The payee is the event's subject. Both wallets lie in this partition, as
    /// all of a hunt does.
    fn transfer(&mut self, pending: &Pending, amount: u64) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::InsufficientFunds)?;
        let payer_slot = self.index.player_slot_near(pending.player_hint, hunt, pending.player);
        let payer = payer_slot.map(|slot| player_state(self.index.player(slot)));
        let payee_slot = self.index.player_slot(hunt, pending.cell);
        let (payer, payee) = rules::transfer(payer, self.player_in(payee_slot), amount)?;
        let whose = Whose::of(hunt, pending);
        // The payee first: only there can be no room, and nothing is written then.
        self.write_player(Whose { player: pending.cell, ..whose }, payee_slot, &payee)?;
        self.write_player(whose, payer_slot, &payer)?;
        Ok(())
    }

    fn expire(&mut self, now: &Now<'_>, pending: &Pending) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::NotFound)?;
        let slot = self.index.cell_slot_near(pending.cell_hint, hunt, pending.cell);
        let slot = slot.ok_or(Outcome::NotFound)?;
        let mut record = *self.index.cell(slot);
        let hotspot = rules::expire(hotspot_state(&record), now.log_time_s)?;
        record.expiry_s = hotspot.expiry_s;
        self.index.cell_write(slot, record);
        let claimant = PlayerSlot::of_mark(record.claimed_by);
        let claimed_by = claimant.map(|slot| self.index.player(slot).player());
        self.digest.cell(pending.domain, pending.cell, &hotspot, claimed_by);
        Ok(())
    }

    #[inline(always)]
    fn spawn(
        &mut self,
        now: &Now<'_>,
        pending: &Pending,
        hotspot: &Hotspot,
    ) -> Result<(), Outcome> {
        let spawned = rules::spawn(hotspot, now.log_time_s);
        let known = self.hunt_of(pending);
        let slot =
            known.and_then(|hunt| self.index.cell_slot_near(pending.cell_hint, hunt, pending.cell));
        // Before the hunt is made: what is refused creates nothing.
        if slot.is_none() && self.index.cells_len() >= self.limits.index.cells_max {
            return Err(Outcome::Full);
        }
        let hunt = match known {
            Some(hunt) => hunt,
            None => self.index.hunt_insert(pending.domain).map_err(|_| Outcome::Full)?,
        };
        let record = Cell::new(hunt, pending.cell, hotspot, spawned.expiry_s);
        match slot {
            Some(slot) => self.index.cell_write(slot, record),
            None => {
                self.index.cell_insert(record).map_err(|_| Outcome::Full)?;
            }
        }
        self.digest.cell(pending.domain, pending.cell, &spawned, None);
        Ok(())
    }
}

/// The hotspot of a record; `None` for the record of no cell.
#[inline(always)]
fn hotspot_state(cell: &Cell) -> Option<HotspotState> {
    Some(HotspotState {
        kind: cell.kind()?,
        item: cell.item(),
        remaining: cell.remaining,
        reward: cell.reward(),
        expiry_s: cell.expiry_s,
        claimed: cell.claimed_by != 0,
    })
}

#[inline(always)]
fn player_state(player: &Player) -> PlayerState {
    PlayerState { wallet: player.wallet, score: player.score, inventory: player.inventory }
}
