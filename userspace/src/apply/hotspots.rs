//! Hotspots: put onto cells, taken from, ended; found in the index, judged by
//! [`super::rules`], written into it.

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{Hotspot, HotspotKind};

use super::belt::Pending;
use super::games::{self, GameRow, Payee};
use super::partition::{Now, Partition, Whose};
use super::rules::{self, HotspotState, PlayerState, Terms};
use crate::index::{Cell, Hunt, HuntId, PlayerSlot};

/// A take that its rule allows, before anything of it is written.
#[derive(Clone, Copy)]
struct Taking {
    hotspot: HotspotState,
    player: PlayerState,
    /// Team that held the ticket, if any did.
    holder: u8,
}

impl Partition {
    /// Collect, use-key and claim: something moves from a hotspot to a player.
    #[inline(always)]
    pub(super) fn take(
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
                let lot = games::lot(&pending.key, now.epoch(), now.log_time_ns(), n);
                is_winner = lot.is_multiple_of(n);
            }
            Payee::Wallet | Payee::Bank | Payee::Pot | Payee::Nobody => {}
        }
        Ok(Some((changed, is_winner)))
    }

    pub(super) fn expire(&mut self, now: &Now<'_>, pending: &Pending<'_>) -> Result<(), Outcome> {
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
    pub(super) fn spawn(
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
    pub(super) fn lose_ground(&mut self, hunt: HuntId, mark: u32) {
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
pub(super) fn hotspot_state(cell: &Cell) -> Option<HotspotState> {
    Some(HotspotState {
        kind: cell.kind()?,
        item: cell.item(),
        remaining: cell.remaining,
        reward: cell.reward(),
        expiry_s: cell.expiry_s,
        claimed: cell.claimed_by != 0,
    })
}
