//! One partition: its index, its dedupe table, its digest, and what becomes of
//! an event in them.

use std::io;
use std::sync::Arc;

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{Hotspot, HotspotKind};
use veltrix_abi::outcomes::DUPLICATE_BIT;

use super::belt::{self, Entry, One, Pending, Place};
use super::capture::Captured;
use super::digest::Digest;
use super::games::{self, CLASSES, GameRow, Payee};
use super::rules::{self, Action, HotspotState, PlayerState, Terms};
use crate::batch::{BatchView, OutcomeSlots, Range};
use crate::dedupe::{self, Dedupe, DedupeBytes, DedupeLimits, Secret, Verdict};
use crate::index::{Cell, Hunt, HuntId, Index, IndexBytes, IndexLimits, Player, PlayerSlot};

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
}

/// A take that its rule allows, before anything of it is written.
#[derive(Clone, Copy)]
struct Taking {
    hotspot: HotspotState,
    player: PlayerState,
    /// Team that held the ticket, if any did.
    holder: u8,
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
        let entry = Entry { epoch, log_time_ns, slots };
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
        }
    }

    /// Step 3: the event's outcome, and everything that follows from it.
    #[inline(always)]
    pub(super) fn judge(&mut self, now: &Now<'_>, pending: &Pending<'_>) {
        let Some(action) = pending.action() else {
            return self.settle(now, pending, Outcome::Malformed);
        };
        let (fingerprint, key_ms) = (pending.fingerprint, dedupe::key_ms(&pending.key));
        match self.dedupe.check(fingerprint, key_ms, now.log_time_ms) {
            Verdict::Fresh => {
                let bound = self.bound_hunt(pending, action);
                let counted = bound.map_or(Ok(()), |hunt| self.count(now, hunt));
                let performed = counted.and_then(|()| self.act(now, pending, action));
                let outcome = performed.err().unwrap_or(Outcome::Applied);
                if let (Some(hunt), Outcome::OverQuota) = (bound, outcome) {
                    // Not recorded: it may come again, and a flood shall not use up
                    // the keys of others.
                    self.count_refused(hunt);
                    return self.settle(now, pending, outcome);
                }
                // Looked for again where it was not known: the event may have made it.
                if let Some(hunt) = self.hunt_of(pending) {
                    self.index.tally_event(hunt);
                    let class = games::of(self.index.hunt_record(hunt)).latency;
                    self.decided[class as usize] += 1;
                }
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
    fn settle(&mut self, now: &Now<'_>, pending: &Pending<'_>, outcome: Outcome) {
        let code = outcome.code();
        self.outcomes[usize::from(code) % OUTCOME_SLOTS] += 1;
        self.digest.outcome(&pending.key, code, 0);
        if let Some(slots) = now.slots {
            slots.set(pending.slot, code);
        }
    }

    #[inline]
    fn settle_duplicate(&mut self, now: &Now<'_>, pending: &Pending<'_>, outcome: u8, first: u64) {
        self.outcomes[DUPLICATES] += 1;
        self.digest.outcome(&pending.key, outcome | DUPLICATE_BIT, first);
        if let Some(slots) = now.slots {
            slots.set_duplicate(pending.slot, outcome, first);
        }
    }

    /// The hunt of an event, if it may use only so much.
    #[inline(always)]
    fn bound_hunt(&self, pending: &Pending<'_>, action: Action) -> Option<HuntId> {
        let hunt = self.hunt_of(pending)?;
        let is_bound = self.index.hunt_record(hunt).is_bound != 0 && action != Action::Close;
        is_bound.then_some(hunt)
    }

    /// The rule of a fresh event.
    #[inline(always)]
    fn act(&mut self, now: &Now<'_>, pending: &Pending<'_>, action: Action) -> Result<(), Outcome> {
        match action {
            Action::Collect => self.take(now, pending, rules::collect),
            Action::UseKey => self.take(now, pending, rules::use_key),
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
        pending: &Pending<'_>,
        rule: impl FnOnce(
            Option<HotspotState>,
            Option<PlayerState>,
            &Terms,
        ) -> Result<(HotspotState, PlayerState), Outcome>,
    ) -> Result<(), Outcome> {
        let (hunt, hunt_record) = self.playing(now, pending)?;
        let game = games::of(hunt_record);
        let cell_slot = self.index.cell_slot_near(pending.cell_hint, hunt, pending.cell);
        let cell_slot = cell_slot.ok_or(Outcome::NotFound)?;
        let mut record = *self.index.cell(cell_slot);
        let (player_slot, player) = self.player_of(Some(hunt), pending);
        let mut terms = Terms {
            factor: (game.factor)(hunt_record, now.log_time_s),
            payee: game.payee,
            log_time_s: now.log_time_s,
        };
        let mut hotspot = hotspot_state(&record);
        let holder = self.reopen(game, &record, player.as_ref(), &mut hotspot);
        if holder != 0 {
            // Two teams that claim in turn would make currency out of nothing.
            terms.payee = Payee::Nobody;
        }
        let (hotspot, player) = rule(hotspot, player, &terms)?;
        if game.is_in_teams && player.team == 0 {
            return Err(Outcome::NotJoined);
        }
        let taking = Taking { hotspot, player, holder };
        let shared = self.shared(now, pending, hunt, &taking, &terms, game)?;
        let player_slot = self.write_player(Whose::of(hunt, pending), player_slot, &player)?;
        record.remaining = hotspot.remaining;
        record.claimed_by = if hotspot.claimed { player_slot.mark() } else { 0 };
        self.index.cell_write(cell_slot, record);
        let claimed_by = hotspot.claimed.then_some(pending.player);
        self.digest.cell(pending.domain, pending.cell, &hotspot, claimed_by);
        if let Some((mut changed, is_winner)) = shared {
            if is_winner {
                changed.winner = player_slot.mark();
            }
            self.write_hunt(hunt, &changed);
        }
        Ok(())
    }

    /// Team that holds the ticket on a cell, 0 for none. For any other it is there to
    /// be claimed again, if the game is about holding ground.
    #[inline(always)]
    fn reopen(
        &self,
        game: &GameRow,
        cell: &Cell,
        player: Option<&PlayerState>,
        hotspot: &mut Option<HotspotState>,
    ) -> u8 {
        if !game.holds_ground {
            return 0;
        }
        let (Some(slot), Some(hotspot)) = (PlayerSlot::of_mark(cell.claimed_by), hotspot) else {
            return 0;
        };
        let holder = self.index.player(slot).team;
        if player.is_some_and(|player| player.team != 0 && player.team != holder) {
            hotspot.remaining = 1;
        }
        holder
    }

    /// What a take changes of the hunt itself, if anything: its banks, tiles or pot;
    /// and whether the player would win the pot now.
    #[inline(always)]
    fn shared(
        &self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        hunt: HuntId,
        taking: &Taking,
        terms: &Terms,
        game: &GameRow,
    ) -> Result<Option<(Hunt, bool)>, Outcome> {
        let Taking { hotspot, player, holder } = taking;
        let holds_ground = hotspot.claimed && game.holds_ground;
        let is_shared = matches!(terms.payee, Payee::Bank | Payee::Pot);
        let pays = hotspot.kind != HotspotKind::Item && is_shared;
        if !holds_ground && !pays {
            return Ok(None);
        }
        let mut changed = *self.index.hunt_record(hunt);
        if holds_ground {
            changed.lose_tile(*holder);
            changed.gain_tile(player.team);
        }
        let reward = u64::from(hotspot.reward);
        let mut is_winner = false;
        match terms.payee {
            Payee::Bank if pays => {
                let bank = changed.bank_mut(player.team).ok_or(Outcome::NotJoined)?;
                *bank = rules::plus(*bank, reward)?;
            }
            Payee::Pot if pays => {
                changed.pot = rules::plus(changed.pot, reward)?;
                changed.lots = changed.lots.checked_add(1).ok_or(Outcome::Full)?;
                let n = changed.lots.into();
                let lot = games::lot(&pending.key, now.epoch, now.log_time_ns, n);
                is_winner = lot.is_multiple_of(n);
            }
            Payee::Wallet | Payee::Bank | Payee::Pot | Payee::Nobody => {}
        }
        Ok(Some((changed, is_winner)))
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

    fn expire(&mut self, now: &Now<'_>, pending: &Pending<'_>) -> Result<(), Outcome> {
        let (hunt, _) = self.playing(now, pending)?;
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
        pending: &Pending<'_>,
        hotspot: &Hotspot,
    ) -> Result<(), Outcome> {
        let spawned = rules::spawn(hotspot, now.log_time_s);
        let known = self.hunt_of(pending);
        if known.is_some() {
            self.playing(now, pending)?;
        }
        let slot =
            known.and_then(|hunt| self.index.cell_slot_near(pending.cell_hint, hunt, pending.cell));
        // Before the hunt is made: what is refused creates nothing.
        if slot.is_none() && self.index.cells_len() >= self.limits.index.cells_max {
            return Err(Outcome::Full);
        }
        let hunt = self.hunt_or_new(known, pending)?;
        if slot.is_none() && !self.has_cell_quota(hunt) {
            return Err(Outcome::OverQuota);
        }
        let record = Cell::new(hunt, pending.cell, hotspot, spawned.expiry_s);
        match slot {
            Some(slot) => {
                self.lose_ground(hunt, self.index.cell(slot).claimed_by);
                self.index.cell_write(slot, record);
            }
            None => {
                self.index.cell_insert(record).map_err(|_| Outcome::Full)?;
            }
        }
        self.digest.cell(pending.domain, pending.cell, &spawned, None);
        Ok(())
    }

    /// The ticket that the player of `mark` held, if any, is no more.
    fn lose_ground(&mut self, hunt: HuntId, mark: u32) {
        let Some(slot) = PlayerSlot::of_mark(mark) else { return };
        let record = self.index.hunt_record(hunt);
        if games::of(record).holds_ground {
            let mut changed = *record;
            changed.lose_tile(self.index.player(slot).team);
            self.write_hunt(hunt, &changed);
        }
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
