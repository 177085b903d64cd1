//! Events of hunts, quests, rewards and banks: what [`super::rules`] says of them,
//! found in the index and written into it.

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{HuntSetup, PowerUp, QuestPay};
use veltrix_abi::split::Opening;

use super::belt::Pending;
use super::games;
use super::partition::{Now, Partition, Whose, player_state};
use super::rules::hunts::Held;
use super::rules::quests::{self, Graph, Progress};
use super::rules::{self, PlayerState};
use crate::index::{Deed, DeedKind, Definition, DefinitionKind, Hunt, HuntId, PlayerSlot};

/// Hunts.
impl Partition {
    pub(super) fn open(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        setup: &HuntSetup,
    ) -> Result<(), Outcome> {
        let known = self.hunt_of(pending);
        let record = match known {
            Some(hunt) => *self.index.hunt_record(hunt),
            None if self.has_hunt_room() => Hunt::new(pending.domain),
            None => return Err(Outcome::Full),
        };
        // The payload was judged with the argument.
        let opening = Opening::of(pending.payload).ok_or(Outcome::Malformed)?;
        let held = known.map_or(Held::default(), |hunt| {
            let tally = self.index.tally(hunt);
            Held { players: tally.players > 0, cells: tally.cells > 0 }
        });
        let record = rules::hunts::open(&record, held, setup, &opening, now.log_time_s)?;
        let hunt = self.hunt_or_new(known, pending)?;
        self.write_hunt(hunt, &record);
        Ok(())
    }

    /// Counts the event of a hunt that may use only so much.
    ///
    /// Not digested: what follows from it are outcomes, which are; so is what is
    /// counted for show by [`Self::count_refused`].
    pub(super) fn count(&mut self, now: &Now<'_>, hunt: HuntId) -> Result<(), Outcome> {
        let events = rules::hunts::count(self.index.hunt_record(hunt), now.log_time_s)?;
        self.index.hunt_count(hunt, now.log_time_s, events);
        Ok(())
    }

    /// An event was refused since the hunt may use no more.
    pub(super) fn count_refused(&mut self, hunt: HuntId) {
        self.index.hunt_count_refused(hunt);
    }

    /// Whether a hunt may have one cell more.
    pub(super) fn has_cell_quota(&self, hunt: HuntId) -> bool {
        let cells_max = self.index.hunt_record(hunt).cells_max;
        cells_max == 0 || self.index.tally(hunt).cells < cells_max
    }

    /// Whether a hunt may have one player more.
    pub(super) fn has_player_quota(&self, hunt: HuntId) -> bool {
        let players_max = self.index.hunt_record(hunt).players_max;
        players_max == 0 || self.index.tally(hunt).players < players_max
    }

    pub(super) fn close(&mut self, pending: &Pending<'_>) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::NotFound)?;
        let record = *self.index.hunt_record(hunt);
        let winner_slot = PlayerSlot::of_mark(record.winner);
        let winner = winner_slot.map(|slot| player_state(self.index.player(slot)));
        let (record, winner) = rules::hunts::close(&record, winner)?;
        if let (Some(slot), Some(winner)) = (winner_slot, winner) {
            let whose =
                Whose { player: self.index.player(slot).player(), ..Whose::of(hunt, pending) };
            self.write_player(whose, Some(slot), &winner)?;
        }
        self.write_hunt(hunt, &record);
        Ok(())
    }

    pub(super) fn join(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        team: u8,
    ) -> Result<(), Outcome> {
        let (hunt, record) = self.playing(now, pending)?;
        let is_in_teams = games::of(record).is_in_teams;
        let (slot, player) = self.player_of(Some(hunt), pending);
        let player = rules::hunts::join(slot.is_some(), player, team, is_in_teams)?;
        self.write_player(Whose::of(hunt, pending), slot, &player)?;
        Ok(())
    }

    pub(super) fn ping(&mut self, now: &Now<'_>, pending: &Pending<'_>) -> Result<(), Outcome> {
        let (hunt, slot, player) = self.known_player(now, pending, Outcome::NotFound)?;
        let player = PlayerState { place: pending.cell + 1, ..player };
        self.write_player(Whose::of(hunt, pending), Some(slot), &player)?;
        Ok(())
    }

    pub(super) fn power_up(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        power_up: &PowerUp,
    ) -> Result<(), Outcome> {
        let (hunt, slot, player) = self.known_player(now, pending, Outcome::NoKey)?;
        let player = rules::hunts::power_up(&player, power_up, now.log_time_s)?;
        self.write_player(Whose::of(hunt, pending), Some(slot), &player)?;
        Ok(())
    }

    /// The player of an event, who must be known in a hunt that is playing.
    fn known_player(
        &self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        unknown: Outcome,
    ) -> Result<(HuntId, PlayerSlot, PlayerState), Outcome> {
        let (hunt, _) = self.playing(now, pending)?;
        let slot = self.index.player_slot_near(pending.player_hint, hunt, pending.player);
        let slot = slot.ok_or(unknown)?;
        Ok((hunt, slot, player_state(self.index.player(slot))))
    }

    /// bank-deposit and bank-withdraw: something moves between a wallet and the bank
    /// of its player's team.
    pub(super) fn bank(
        &mut self,
        pending: &Pending<'_>,
        amount: u64,
        rule: impl FnOnce(&PlayerState, u64, u64) -> Result<(PlayerState, u64), Outcome>,
    ) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::NotFound)?;
        let mut record = *self.index.hunt_record(hunt);
        if !games::of(&record).is_in_teams {
            return Err(Outcome::WrongGame);
        }
        let slot = self.index.player_slot_near(pending.player_hint, hunt, pending.player);
        let slot = slot.ok_or(Outcome::NotJoined)?;
        let player = player_state(self.index.player(slot));
        let bank = record.bank_mut(player.team).ok_or(Outcome::NotJoined)?;
        let (player, rest) = rule(&player, *bank, amount)?;
        *bank = rest;
        self.write_player(Whose::of(hunt, pending), Some(slot), &player)?;
        self.write_hunt(hunt, &record);
        Ok(())
    }
}

/// Treasure types and quests.
impl Partition {
    pub(super) fn set_treasure(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
    ) -> Result<(), Outcome> {
        let (hunt, _) = self.playing(now, pending)?;
        let kind = DefinitionKind::Treasure;
        let before = self.index.definition_slot(hunt, kind, pending.cell);
        let version = before.map_or(0, |slot| self.index.definition(slot).version);
        let version = version.checked_add(1).ok_or(Outcome::Full)?;
        self.put_definition(pending, hunt, kind, version)
    }

    pub(super) fn define(&mut self, now: &Now<'_>, pending: &Pending<'_>) -> Result<(), Outcome> {
        let (hunt, _) = self.playing(now, pending)?;
        let kind = DefinitionKind::Quest;
        if self.index.definition_slot(hunt, kind, pending.cell).is_some() {
            return Err(Outcome::AlreadyDone);
        }
        self.put_definition(pending, hunt, kind, 1)
    }

    fn put_definition(
        &mut self,
        pending: &Pending<'_>,
        hunt: HuntId,
        kind: DefinitionKind,
        version: u32,
    ) -> Result<(), Outcome> {
        let (id, argument) = (pending.cell, pending.argument);
        let record = Definition::new(hunt, kind, id, version, argument, pending.payload);
        self.index.definition_put(&record).map_err(|_| Outcome::Full)?;
        self.digest.definition(pending.domain, &record);
        Ok(())
    }

    pub(super) fn pass(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        quest: u64,
        node: u8,
    ) -> Result<(), Outcome> {
        let (hunt, record) = self.playing(now, pending)?;
        let game = games::of(record);
        let factor = (game.factor)(record, now.log_time_s);
        let definition = self.index.definition_slot(hunt, DefinitionKind::Quest, quest);
        let definition = self.index.definition(definition.ok_or(Outcome::NotFound)?);
        let (slot, player) = self.player_of(Some(hunt), pending);
        if game.is_in_teams && player.is_none_or(|player| player.team == 0) {
            return Err(Outcome::NotJoined);
        }
        // Both were judged when the quest was defined.
        let graph = Graph::stored(definition.payload()).ok_or(Outcome::NotFound)?;
        let pay = QuestPay::unpack(definition.argument).ok_or(Outcome::NotFound)?;
        let progress = self.progress(slot, quest);
        let (passed, due) = quests::pass(&graph, &progress.unwrap_or_default(), node)?;
        let is_ended = |quest| self.progress(slot, quest).is_some_and(|p| p.ended);
        if !(game.quest_before)(quest).is_none_or(is_ended) {
            return Err(Outcome::OutOfOrder);
        }
        let player = player.ok_or(Outcome::Full)?;
        if progress.is_none() && !self.has_deed_room() {
            return Err(Outcome::Full);
        }
        let of = |is_due: bool, pay: u32| if is_due { u64::from(pay) } else { 0 };
        let (node, end) = (of(due.node, pay.node), of(due.end, pay.end));
        let player = player.scored(node + end, factor, now.log_time_s)?;
        let player = PlayerState { wallet: rules::plus(player.wallet, end)?, ..player };
        let slot = self.write_player(Whose::of(hunt, pending), slot, &player)?;
        self.put_progress(pending, slot, quest, &passed)
    }

    pub(super) fn abandon(&mut self, now: &Now<'_>, pending: &Pending<'_>) -> Result<(), Outcome> {
        let quest = pending.cell;
        let (_, slot, _) = self.known_player(now, pending, Outcome::NotFound)?;
        let progress = self.progress(Some(slot), quest).ok_or(Outcome::NotFound)?;
        let progress = quests::abandon(&progress)?;
        self.put_progress(pending, slot, quest, &progress)
    }

    /// What a player has passed of a quest; `None` when nothing ever.
    fn progress(&self, slot: Option<PlayerSlot>, quest: u64) -> Option<Progress> {
        let deed = self.index.deed(self.index.deed_slot(slot?, DeedKind::Quest, quest)?);
        Some(Progress { done: deed.done, paid: deed.paid, ended: deed.ended != 0 })
    }

    fn put_progress(
        &mut self,
        pending: &Pending<'_>,
        slot: PlayerSlot,
        quest: u64,
        progress: &Progress,
    ) -> Result<(), Outcome> {
        let mut deed = Deed::new(slot, DeedKind::Quest, quest);
        (deed.done, deed.paid, deed.ended) = (progress.done, progress.paid, progress.ended.into());
        self.put_deed(pending, &deed)
    }

    fn put_deed(&mut self, pending: &Pending<'_>, deed: &Deed) -> Result<(), Outcome> {
        self.index.deed_put(deed).map_err(|_| Outcome::Full)?;
        self.digest.deed(pending.domain, pending.player, deed);
        Ok(())
    }

    fn has_deed_room(&self) -> bool {
        self.index.deeds_len() < self.limits.index.deeds_max
    }

    pub(super) fn reward(&mut self, pending: &Pending<'_>, amount: u64) -> Result<(), Outcome> {
        let known = self.hunt_of(pending);
        let (slot, player) = self.player_of(known, pending);
        let (book, number) = (pending.cell >> 8, pending.cell as u8);
        let deed_slot = slot.and_then(|slot| self.index.deed_slot(slot, DeedKind::Reward, book));
        let deed = deed_slot.map(|slot| *self.index.deed(slot));
        if deed.is_some_and(|deed| quests::is_set(&deed.paid, number)) {
            return Err(Outcome::AlreadyDone);
        }
        let player = rules::credit(player, amount)?;
        if deed.is_none() && !self.has_deed_room() {
            return Err(Outcome::Full);
        }
        let hunt = self.hunt_or_new(known, pending)?;
        let slot = self.write_player(Whose::of(hunt, pending), slot, &player)?;
        let mut deed = deed.unwrap_or_else(|| Deed::new(slot, DeedKind::Reward, book));
        quests::set(&mut deed.paid, number);
        self.put_deed(pending, &deed)
    }
}
