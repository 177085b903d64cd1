//! One partition: its index, its dedupe table, its digest, and what becomes of
//! an event in them.

use std::io;
use std::sync::Arc;

use veltrix_abi::Outcome;
use veltrix_abi::outcomes::DUPLICATE_BIT;

use super::belt::{self, Entry, One, Pending, Place};
use super::capture::Captured;
use super::digest::Digest;
use super::effects::{self, RESERVED};
use super::games::{self, CLASSES};
use super::outbox::{Asker, Outbox};
use super::rules::{self, Action, PlayerState};
use crate::batch::{BatchView, OutcomeSlots, Range};
use crate::dedupe::{self, Dedupe, DedupeBytes, DedupeLimits, Secret, Verdict};
use crate::index::{Hunt, HuntId, Index, IndexBytes, IndexLimits, Player, PlayerSlot};

/// Slots of [`Partition::outcomes`].
pub const OUTCOME_SLOTS: usize = 32;

/// The slot of [`Partition::outcomes`] that counts duplicates, whatever their
/// first outcome was.
pub const DUPLICATES: usize = 31;

/// What one partition may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLimits {
    /// Cells, players, hunts, definitions, deeds.
    pub index: IndexLimits,
    /// Idempotency keys.
    pub dedupe: DedupeLimits,
}

/// Bytes of one partition, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionBytes {
    /// Cells, players, hunts, definitions, deeds.
    pub index: IndexBytes,
    /// Idempotency keys.
    pub dedupe: DedupeBytes,
    /// What it owes other partitions.
    pub outbox: u64,
}

impl PartitionBytes {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.index.total() + self.dedupe.total() as u64 + self.outbox
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
    pub(super) outbox: Outbox,
    /// Events of the last entry that a rule has decided, by latency class.
    pub(super) decided: [u32; CLASSES],
    pub(super) captured: Option<Captured>,
}

/// The player that a record is for.
#[derive(Clone, Copy)]
pub(super) struct Whose {
    pub(super) hunt: HuntId,
    pub(super) domain: u64,
    pub(super) player: u64,
}

impl Whose {
    /// The player that acts.
    #[inline(always)]
    pub(super) fn of(hunt: HuntId, pending: &Pending<'_>) -> Self {
        Self { hunt, domain: pending.domain, player: pending.player }
    }
}

/// What all events of an entry share in one partition.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    epoch: u64,
    log_time_ns: u64,
    log_time_ms: u64,
    pub(super) log_time_s: u32,
    slots: Option<&'a OutcomeSlots>,
    batch: Asker,
}

impl Now<'_> {
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) const fn log_time_ns(&self) -> u64 {
        self.log_time_ns
    }

    pub(super) const fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// Whoever waits for the event of this slot.
    pub(super) const fn asker(&self, slot: u32) -> Asker {
        Asker { slot, ..self.batch }
    }

    pub(super) fn set_slot(&self, slot: u32, outcome: u8) {
        if let Some(slots) = self.slots {
            slots.set(slot, outcome);
        }
    }
}

/// What becomes of a fresh event.
pub(super) enum Judged {
    /// Kept with its key.
    Decided(Outcome),
    /// Not kept: it may come again with the same key, and a flood shall not use up the
    /// keys of others.
    Refused(Outcome),
    /// A request was made, and its reply decides.
    Reserved,
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
            outbox: Outbox::new()?,
            decided: [0; CLASSES],
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
            outbox: Outbox::bytes(),
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

    /// Events of the last entry that a rule has decided, by latency class.
    #[must_use]
    pub fn decided(&self) -> [u32; CLASSES] {
        self.decided
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
        let entry = Entry::new(epoch, log_time_ns, slots, view);
        let (mut one, range) = (One(self), std::iter::once(*range));
        belt::run(&mut one, &entry, view, range, &mut Place::default(), || false);
    }

    /// The entry's epoch and log time are the partition's from here on; false
    /// when it was applied before.
    #[inline]
    pub(super) fn begin(&mut self, entry: &Entry<'_>) -> bool {
        if entry.epoch <= self.epoch {
            return false;
        }
        self.epoch = entry.epoch;
        self.decided = [0; CLASSES];
        self.log_time_ns = self.log_time_ns.max(entry.log_time_ns);
        true
    }

    /// What [`Self::judge`] wants to know of the entry under way.
    #[inline]
    pub(super) fn now<'a>(&self, entry: &Entry<'a>) -> Now<'a> {
        Now {
            epoch: entry.epoch,
            log_time_ns: self.log_time_ns,
            log_time_ms: self.log_time_ns / 1_000_000,
            log_time_s: rules::log_time_s(self.log_time_ns),
            slots: entry.slots,
            batch: entry.batch,
        }
    }

    /// Step 3: the event's outcome, and everything that follows from it.
    #[inline(always)]
    pub(super) fn judge(&mut self, now: &Now<'_>, pending: &Pending<'_>) {
        if pending.is_effect() {
            return self.effect(now, pending);
        }
        let Some(action) = pending.action() else {
            return self.settle(now, pending, Outcome::Malformed);
        };
        let (fingerprint, key_ms) = (pending.fingerprint, dedupe::key_ms(&pending.key));
        match self.dedupe.check(fingerprint, key_ms, now.log_time_ms) {
            Verdict::Fresh => {
                let judged = match self.special_hunt(pending) {
                    Some(hunt) => self.act_specially(now, pending, action, hunt),
                    None => Judged::Decided(outcome_of(self.act(now, pending, action))),
                };
                let code = match judged {
                    Judged::Decided(outcome) => outcome.code(),
                    Judged::Refused(outcome) => return self.settle(now, pending, outcome),
                    Judged::Reserved => RESERVED,
                };
                // Looked for again where it was not known: the event may have made it.
                if let Some(hunt) = self.hunt_of(pending) {
                    self.index.tally_event(hunt);
                    let class = games::of(self.index.hunt_record(hunt)).latency;
                    self.decided[class as usize] += 1;
                }
                self.dedupe.record(fingerprint, key_ms, code, now.epoch);
                match judged {
                    Judged::Decided(outcome) => self.settle(now, pending, outcome),
                    _ => now.set_slot(pending.slot, RESERVED),
                }
            }
            Verdict::Duplicate { outcome, epoch } => {
                self.settle_duplicate(now, pending, outcome, epoch);
            }
            Verdict::TooOld => self.settle(now, pending, Outcome::TooOld),
            Verdict::TooNew => self.settle(now, pending, Outcome::TooNew),
        }
    }

    #[inline(always)]
    fn settle(&mut self, now: &Now<'_>, pending: &Pending<'_>, outcome: Outcome) {
        let code = outcome.code();
        self.count_outcome(&pending.key, code);
        now.set_slot(pending.slot, code);
    }

    /// The event of a key has its first outcome.
    #[inline(always)]
    pub(super) fn count_outcome(&mut self, key: &[u8; 16], code: u8) {
        self.outcomes[usize::from(code) % OUTCOME_SLOTS] += 1;
        self.digest.outcome(key, code, 0);
    }

    #[inline]
    fn settle_duplicate(&mut self, now: &Now<'_>, pending: &Pending<'_>, outcome: u8, first: u64) {
        self.outcomes[DUPLICATES] += 1;
        self.digest.outcome(&pending.key, outcome | DUPLICATE_BIT, first);
        if let Some(slots) = now.slots {
            slots.set_duplicate(pending.slot, outcome, first);
        }
    }

    /// The hunt of an event, if it may use only so much or is a region of a split one.
    #[inline(always)]
    fn special_hunt(&self, pending: &Pending<'_>) -> Option<HuntId> {
        let hunt = self.hunt_of(pending)?;
        let record = self.index.hunt_record(hunt);
        (record.is_bound | record.split_bits != 0).then_some(hunt)
    }

    /// As [`Self::act`], in such a hunt.
    #[inline(never)]
    fn act_specially(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        action: Action,
        hunt: HuntId,
    ) -> Judged {
        let record = self.index.hunt_record(hunt);
        let (is_bound, region) = (record.is_bound != 0 && action != Action::Close, record.split());
        if region.is_some_and(|region| !effects::belongs(&region, action, pending)) {
            return Judged::Refused(Outcome::WrongRegion);
        }
        let elsewhere = region.and_then(|region| effects::elsewhere(&region, action, pending));
        let counted = if is_bound { self.count(now, hunt) } else { Ok(()) };
        let performed = counted.and_then(|()| match elsewhere {
            Some(to) => self.ask(now, pending, action, hunt, to),
            None => self.act(now, pending, action).map(|()| Judged::Decided(Outcome::Applied)),
        });
        match performed {
            Ok(judged) => judged,
            Err(Outcome::OverQuota) => {
                self.count_refused(hunt);
                Judged::Refused(Outcome::OverQuota)
            }
            Err(outcome) => Judged::Decided(outcome),
        }
    }

    /// The rule of a fresh event.
    #[inline(always)]
    fn act(&mut self, now: &Now<'_>, pending: &Pending<'_>, action: Action) -> Result<(), Outcome> {
        match action {
            Action::Collect => self.take(now, pending, rules::collect),
            Action::UseKey(named) => self.take(now, pending, |hotspot, player, terms| {
                rules::use_key(named, hotspot, player, terms)
            }),
            Action::Claim => self.take(now, pending, rules::claim),
            Action::Credit(amount) => self.credit(pending, amount),
            Action::Spend(amount) => self.spend(pending, amount),
            Action::Spawn(hotspot) => self.spawn(now, pending, &hotspot),
            Action::Transfer(amount) => self.transfer(pending, amount),
            Action::Expire => self.expire(now, pending),
            Action::Open(setup) => self.open(now, pending, &setup),
            Action::Close => self.close(pending),
            Action::Join(team) => self.join(now, pending, team),
            Action::Ping => self.ping(now, pending),
            Action::PowerUp(power_up) => self.power_up(now, pending, &power_up),
            Action::Treasure => self.set_treasure(now, pending),
            Action::Define => self.define(now, pending),
            Action::Pass(quest, node) => self.pass(now, pending, quest, node),
            Action::Abandon => self.abandon(now, pending),
            Action::Reward(amount) => self.reward(pending, amount),
            Action::Deposit(amount) => self.bank(pending, amount, rules::hunts::deposit),
            Action::Withdraw(amount) => self.bank(pending, amount, rules::hunts::withdraw),
        }
    }

    #[inline(always)]
    pub(super) fn hunt_of(&self, pending: &Pending<'_>) -> Option<HuntId> {
        pending.hunt.or_else(|| self.index.hunt(pending.domain))
    }

    /// The hunt of an event of `game.v1` or `quest.v1`, which must still be playing.
    #[inline(always)]
    pub(super) fn playing(
        &self,
        now: &Now<'_>,
        pending: &Pending<'_>,
    ) -> Result<(HuntId, &Hunt), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::NotFound)?;
        let record = self.index.hunt_record(hunt);
        if record.is_over(now.log_time_s) { Err(Outcome::Closed) } else { Ok((hunt, record)) }
    }

    /// The hunt of an event, made if it is not there.
    pub(super) fn hunt_or_new(
        &mut self,
        known: Option<HuntId>,
        pending: &Pending<'_>,
    ) -> Result<HuntId, Outcome> {
        match known {
            Some(hunt) => Ok(hunt),
            None => self.index.hunt_insert(pending.domain).map_err(|_| Outcome::Full),
        }
    }

    pub(super) fn has_hunt_room(&self) -> bool {
        self.index.hunts_len() < u32::from(self.limits.index.hunts_max)
    }

    /// The player's slot, where there is one, and what the player owns; `None`
    /// when the player is unknown and there is no room for another.
    #[inline(always)]
    pub(super) fn player_of(
        &self,
        hunt: Option<HuntId>,
        pending: &Pending<'_>,
    ) -> (Option<PlayerSlot>, Option<PlayerState>) {
        let slot = hunt.and_then(|hunt| {
            self.index.player_slot_near(pending.player_hint, hunt, pending.player)
        });
        (slot, self.player_in(slot))
    }

    /// What the player of a slot owns; nothing for one to be made, if there is
    /// room for it.
    #[inline(always)]
    pub(super) fn player_in(&self, slot: Option<PlayerSlot>) -> Option<PlayerState> {
        match slot {
            Some(slot) => Some(player_state(self.index.player(slot))),
            None => self.has_player_room().then(PlayerState::default),
        }
    }

    fn has_player_room(&self) -> bool {
        self.index.players_len() < self.limits.index.players_max
    }

    /// Writes a hunt's record.
    pub(super) fn write_hunt(&mut self, hunt: HuntId, record: &Hunt) {
        self.index.hunt_write(hunt, record);
        let winner = PlayerSlot::of_mark(record.winner);
        let winner = winner.map(|slot| self.index.player(slot).player());
        self.digest.hunt(record, winner);
    }

    /// Writes what the player owns now, in a new record where there was none.
    /// Refuses a new player only, without room or quota, and has changed nothing then.
    #[inline(always)]
    pub(super) fn write_player(
        &mut self,
        whose: Whose,
        slot: Option<PlayerSlot>,
        player: &PlayerState,
    ) -> Result<PlayerSlot, Outcome> {
        let mut record = Player::new(whose.hunt, whose.player);
        (record.wallet, record.score) = (player.wallet, player.score);
        record.inventory = player.inventory;
        (record.team, record.power) = (player.team, player.power);
        (record.power_until_s, record.place) = (player.power_until_s, player.place);
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
            None if !self.has_player_quota(whose.hunt) => return Err(Outcome::OverQuota),
            None => self.index.player_insert(record).map_err(|_| Outcome::Full)?,
        };
        self.digest.player(whose.domain, whose.player, player, record.score_epoch);
        Ok(slot)
    }

    #[inline(always)]
    fn credit(&mut self, pending: &Pending<'_>, amount: u64) -> Result<(), Outcome> {
        let known = self.hunt_of(pending);
        let (slot, player) = self.player_of(known, pending);
        let player = rules::credit(player, amount)?;
        // After the rule: what is refused creates nothing.
        let hunt = self.hunt_or_new(known, pending)?;
        self.write_player(Whose::of(hunt, pending), slot, &player)?;
        Ok(())
    }

    #[inline(always)]
    fn spend(&mut self, pending: &Pending<'_>, amount: u64) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::InsufficientFunds)?;
        let (slot, player) = self.player_of(Some(hunt), pending);
        let player = rules::spend(player, amount)?;
        self.write_player(Whose::of(hunt, pending), slot, &player)?;
        Ok(())
    }

    /// The payee is the event's subject. Both wallets lie in this partition, as
    /// all of a hunt does.
    fn transfer(&mut self, pending: &Pending<'_>, amount: u64) -> Result<(), Outcome> {
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
}

#[inline(always)]
fn outcome_of(performed: Result<(), Outcome>) -> Outcome {
    performed.err().unwrap_or(Outcome::Applied)
}

#[inline(always)]
pub(super) fn player_state(player: &Player) -> PlayerState {
    PlayerState {
        wallet: player.wallet,
        score: player.score,
        inventory: player.inventory,
        team: player.team,
        power: player.power,
        power_until_s: player.power_until_s,
        place: player.place,
    }
}
