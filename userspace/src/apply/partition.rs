//! One partition: its index, its dedupe table, its digest, and the loop that
//! takes events through them.

use std::io;
use std::sync::Arc;

use veltrix_abi::Outcome;
use veltrix_abi::kinds::Hotspot;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::Event;

use super::capture::Captured;
use super::digest::Digest;
use super::rules::{self, Action, HotspotState, PlayerState};
use crate::batch::{BatchView, OutcomeSlots, Range};
use crate::dedupe::{self, Dedupe, DedupeBytes, DedupeLimits, Fingerprint, Secret, Verdict};
use crate::index::{Cell, HuntId, Index, IndexBytes, IndexLimits, Player, PlayerSlot, SlotHint};

/// Events that take a step together. While memory answers what one group asked
/// for, its neighbours are worked on; and a step that does the same to many
/// events keeps more requests under way than one that changes over with each.
/// Groups of 8 to 40 measured alike within the noise of a shared machine; small
/// ones keep the belt short, which every call clears.
const GROUP: usize = 16;

/// Places of the belt: a group that is judged, one between its steps 1 and 2,
/// one that is being announced; a power of two.
const BELT: usize = 64;

const _: () = assert!(BELT.is_power_of_two() && 3 * GROUP <= BELT);

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

/// One event on the belt, on its way to judgement.
#[derive(Clone, Copy)]
struct Pending {
    key: [u8; 16],
    fingerprint: Fingerprint,
    domain: u64,
    player: u64,
    cell: u64,
    argument: u64,
    kind: u16,
    is_well_formed: bool,
    /// The hunt, where it is known. Where not, it is looked for again in its
    /// turn, since an event before it on the belt may have made it.
    hunt: Option<HuntId>,
    /// Outcome slot of the batch.
    slot: u32,
    cell_hint: SlotHint,
    player_hint: SlotHint,
}

/// Fills the places of the belt before the first event.
const NO_EVENT: Pending = Pending {
    key: [0; 16],
    fingerprint: Fingerprint::ZERO,
    domain: 0,
    player: 0,
    cell: 0,
    argument: 0,
    kind: 0,
    is_well_formed: false,
    hunt: None,
    slot: 0,
    cell_hint: SlotHint::NONE,
    player_hint: SlotHint::NONE,
};

impl Pending {
    /// What it asks for; `None` for a malformed event.
    #[inline(always)]
    fn action(&self) -> Option<Action> {
        let Self { kind, cell, argument, .. } = *self;
        self.is_well_formed.then(|| Action::of_fields(kind, cell, argument))?
    }
}

/// What all events of an entry share.
#[derive(Clone, Copy)]
struct Entry<'a> {
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

    /// Bytes that [`Self::new`] will reserve, by part.
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
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        self.log_time_ns = self.log_time_ns.max(log_time_ns);
        let entry = Entry {
            epoch,
            log_time_ms: self.log_time_ns / 1_000_000,
            log_time_s: rules::log_time_s(self.log_time_ns),
            slots,
        };
        let mut belt = [NO_EVENT; BELT];
        // Events that have taken step 1, step 2, step 3.
        let (mut announced, mut located, mut judged) = (0, 0, 0);
        for run in view.runs(range) {
            let hunt = self.index.hunt(run.domain);
            let mut slot = run.first_event;
            for event in run.events {
                belt[announced % BELT] = self.announce(&event, run.domain, hunt, slot);
                slot = slot.wrapping_add(1);
                announced += 1;
                if announced == located + 2 * GROUP {
                    self.locate(&mut belt, located..located + GROUP);
                    self.judge_all(&entry, &belt, judged..located);
                    judged = located;
                    located += GROUP;
                }
            }
        }
        let older = announced.min(located + GROUP);
        self.locate(&mut belt, located..older);
        self.judge_all(&entry, &belt, judged..located);
        self.locate(&mut belt, older..announced);
        self.judge_all(&entry, &belt, located..announced);
    }

    /// Step 1: what can be known of an event without waiting for memory.
    #[inline(always)]
    fn announce(&self, event: &Event<'_>, domain: u64, hunt: Option<HuntId>, slot: u32) -> Pending {
        let fingerprint = dedupe::fingerprint(&self.secret, event.player, &event.key);
        self.dedupe.prefetch(fingerprint, dedupe::key_ms(&event.key));
        if let Some(hunt) = hunt {
            self.index.prefetch_cell_hash(hunt, event.subject);
            self.index.prefetch_player_hash(hunt, event.player);
        }
        Pending {
            key: event.key,
            fingerprint,
            domain,
            player: event.player,
            cell: event.subject,
            argument: event.argument,
            kind: event.kind,
            is_well_formed: event.is_well_formed(),
            hunt,
            slot,
            cell_hint: SlotHint::NONE,
            player_hint: SlotHint::NONE,
        }
    }

    /// Step 2: the hash lines have come and say where the records lie.
    #[inline(never)]
    fn locate(&self, belt: &mut [Pending; BELT], events: std::ops::Range<usize>) {
        for event in events {
            let pending = &mut belt[event % BELT];
            if let Some(hunt) = pending.hunt {
                pending.cell_hint = self.index.locate_cell(hunt, pending.cell);
                pending.player_hint = self.index.locate_player(hunt, pending.player);
            }
        }
    }

    #[inline(never)]
    fn judge_all(
        &mut self,
        entry: &Entry<'_>,
        belt: &[Pending; BELT],
        events: std::ops::Range<usize>,
    ) {
        for event in events {
            self.judge(entry, &belt[event % BELT]);
        }
    }

    /// Step 3: the event's outcome, and everything that follows from it.
    #[inline(always)]
    fn judge(&mut self, entry: &Entry<'_>, pending: &Pending) {
        let Some(action) = pending.action() else {
            return self.settle(entry, pending, Outcome::Malformed);
        };
        let (fingerprint, key_ms) = (pending.fingerprint, dedupe::key_ms(&pending.key));
        match self.dedupe.check(fingerprint, key_ms, entry.log_time_ms) {
            Verdict::Fresh => {
                let outcome = self.perform(entry, pending, action);
                self.dedupe.record(fingerprint, key_ms, outcome.code(), entry.epoch);
                self.settle(entry, pending, outcome);
            }
            Verdict::Duplicate { outcome, epoch } => {
                self.settle_duplicate(entry, pending, outcome, epoch);
            }
            Verdict::TooOld => self.settle(entry, pending, Outcome::TooOld),
            Verdict::TooNew => self.settle(entry, pending, Outcome::TooNew),
        }
    }

    #[inline(always)]
    fn settle(&mut self, entry: &Entry<'_>, pending: &Pending, outcome: Outcome) {
        let code = outcome.code();
        self.outcomes[usize::from(code) % OUTCOME_SLOTS] += 1;
        self.digest.outcome(&pending.key, code, 0);
        if let Some(slots) = entry.slots {
            slots.set(pending.slot, code);
        }
    }

    #[inline]
    fn settle_duplicate(&mut self, entry: &Entry<'_>, pending: &Pending, outcome: u8, first: u64) {
        self.outcomes[DUPLICATES] += 1;
        self.digest.outcome(&pending.key, outcome | DUPLICATE_BIT, first);
        if let Some(slots) = entry.slots {
            slots.set_duplicate(pending.slot, outcome, first);
        }
    }

    /// The rule of a fresh event.
    #[inline(always)]
    fn perform(&mut self, entry: &Entry<'_>, pending: &Pending, action: Action) -> Outcome {
        let performed = match action {
            Action::Collect => self.take(entry, pending, rules::collect),
            Action::UseKey => self.take(entry, pending, rules::use_key),
            Action::Claim => self.take(entry, pending, rules::claim),
            Action::Credit(amount) => self.credit(pending, amount),
            Action::Spend(amount) => self.spend(pending, amount),
            Action::Spawn(hotspot) => self.spawn(entry, pending, &hotspot),
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
        let state = match slot {
            Some(slot) => Some(player_state(self.index.player(slot))),
            None => self.has_player_room().then(PlayerState::default),
        };
        (slot, state)
    }

    fn has_player_room(&self) -> bool {
        self.index.players_len() < self.limits.index.players_max
    }

    /// Collect, use-key and claim: something moves from a hotspot to a player.
    #[inline(always)]
    fn take(
        &mut self,
        entry: &Entry<'_>,
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
        let (hotspot, player) = rule(hotspot, player, entry.log_time_s)?;
        let player_slot = self.write_player(hunt, pending, player_slot, &player)?;
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
        hunt: HuntId,
        pending: &Pending,
        slot: Option<PlayerSlot>,
        player: &PlayerState,
    ) -> Result<PlayerSlot, Outcome> {
        let mut record = Player::new(hunt, pending.player);
        (record.wallet, record.score) = (player.wallet, player.score);
        record.inventory = player.inventory;
        let slot = match slot {
            Some(slot) => {
                self.index.player_write(slot, record);
                slot
            }
            None => self.index.player_insert(record).map_err(|_| Outcome::Full)?,
        };
        self.digest.player(pending.domain, pending.player, player);
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
        self.write_player(hunt, pending, slot, &player)?;
        Ok(())
    }

    #[inline(always)]
    fn spend(&mut self, pending: &Pending, amount: u64) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::InsufficientFunds)?;
        let (slot, player) = self.player_of(Some(hunt), pending);
        let player = rules::spend(player, amount)?;
        self.write_player(hunt, pending, slot, &player)?;
        Ok(())
    }

    #[inline(always)]
    fn spawn(
        &mut self,
        entry: &Entry<'_>,
        pending: &Pending,
        hotspot: &Hotspot,
    ) -> Result<(), Outcome> {
        let spawned = rules::spawn(hotspot, entry.log_time_s);
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
