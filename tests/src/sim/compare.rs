//! A node's partitions held against the model, record by record. The only
//! place that knows both.

use std::collections::BTreeSet;

use veltrix::apply::{Partition, PartitionLimits};
use veltrix::dedupe::DedupeLimits;
use veltrix::index::{Deed, DeedKind, DefinitionKind, HuntId, Index, IndexLimits, PlayerSlot};

use crate::model;

/// The limits of one partition, from those of the model.
#[must_use]
pub fn partition_limits(limits: &model::Limits) -> PartitionLimits {
    let whole = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    PartitionLimits {
        index: IndexLimits {
            cells_max: whole(limits.cells_max),
            players_max: whole(limits.players_max),
            hunts_max: u16::try_from(limits.hunts_max).unwrap_or(u16::MAX),
            definitions_max: whole(limits.definitions_max),
            deeds_max: whole(limits.deeds_max),
        },
        dedupe: DedupeLimits { keys_max: whole(limits.keys_max), window_ms: limits.window_ms },
    }
}

/// What differs between a partition and its model, in words; `Ok` when nothing
/// does.
///
/// # Errors
///
/// The first difference, by domain and id.
pub fn state(partition: &Partition, wanted: &model::Partition) -> Result<(), String> {
    let index = partition.index();
    let lens = [
        ("hunts", index.hunts_len() as usize, wanted.hunts.len()),
        ("cells", index.cells_len() as usize, wanted.cells_len()),
        ("players", index.players_len() as usize, wanted.players_len()),
        ("definitions", index.definitions_len() as usize, wanted.definitions_len()),
        ("deeds", index.deeds_len() as usize, wanted.deeds_len()),
    ];
    for (what, found, wanted) in lens {
        if found != wanted {
            return Err(format!("{what}: {found} of them, the model has {wanted}"));
        }
    }
    for (domain, hunt) in &wanted.hunts {
        let id = index.hunt(*domain).ok_or_else(|| format!("hunt {domain} is missing"))?;
        one_hunt(index, id, hunt).map_err(|what| format!("hunt {domain}: {what}"))?;
    }
    Ok(())
}

fn one_hunt(index: &Index, id: HuntId, wanted: &model::Hunt) -> Result<(), String> {
    hunt_state(index, id, wanted)?;
    players(index, id, wanted)?;
    cells(index, id, wanted)?;
    definitions(index, id, wanted)?;
    deeds(index, id, wanted)
}

/// How the hunt is played and stands.
fn hunt_state(index: &Index, id: HuntId, wanted: &model::Hunt) -> Result<(), String> {
    let (record, state) = (index.hunt_record(id), &wanted.state);
    let (game, settings) = state.setup.map_or((0, 0), |setup| (setup.game, setup.settings));
    let winner = PlayerSlot::of_mark(record.winner).map(|slot| index.player(slot).player());
    let same = (record.game, record.settings) == (game, settings)
        && u64::from(record.opened_s) == state.opened_s
        && u64::from(record.ends_s) == state.ends_s.unwrap_or(0)
        && record.closed == u8::from(state.is_closed)
        && (record.pot, record.lots, winner) == (state.pot, state.lots, state.winner)
        && record.banks == state.banks
        && (record.tenant, record.cells_max) == (state.quota.tenant, state.quota.cells_max)
        && record.players_max == state.quota.players_max
        && record.events_per_s == state.quota.events_per_s
        && (u64::from(record.second), record.events) == state.counted
        && record.over_quota == state.over_quota;
    if !same {
        return Err(format!("it is {record:?}, the model has {state:?}"));
    }
    if record.tiles != wanted.tiles() {
        let (found, wanted) = (record.tiles, wanted.tiles());
        return Err(format!("teams hold {found:?} tickets, in the model {wanted:?}"));
    }
    Ok(())
}

fn players(index: &Index, id: HuntId, wanted: &model::Hunt) -> Result<(), String> {
    for (player, owned) in &wanted.players {
        let slot = index.player_slot(id, *player);
        let record = slot.map(|slot| index.player(slot));
        let found = record.map(|r| model::Player {
            wallet: r.wallet,
            score: r.score,
            score_epoch: r.score_epoch,
            inventory: r.inventory,
            team: (r.team != 0).then_some(r.team),
            power: (r.power != 0 || r.power_until_s != 0)
                .then(|| model::Power { factor: r.power, until_s: r.power_until_s.into() }),
            place: r.place.checked_sub(1),
        });
        if found != Some(*owned) {
            return Err(format!("player {player}: {found:?}, the model has {owned:?}"));
        }
    }
    let leaderboard = wanted.leaderboard();
    let mut found = Vec::new();
    index.ranked(id, 1, usize::MAX, |ranked| found.push(ranked.player.player()));
    if found != leaderboard {
        return Err(format!("the leaderboard is {found:?}, the model's {leaderboard:?}"));
    }
    for (player, rank) in leaderboard.iter().zip(1..) {
        let found = index.player_slot(id, *player).and_then(|slot| index.rank(slot));
        if found != Some(rank) {
            return Err(format!("player {player} has rank {found:?}, the model says {rank}"));
        }
    }
    Ok(())
}

fn cells(index: &Index, id: HuntId, wanted: &model::Hunt) -> Result<(), String> {
    for (cell, hotspot) in &wanted.cells {
        let found = index.cell_slot(id, *cell).map(|slot| *index.cell(slot));
        let claimant = hotspot.claimed_by.and_then(|player| index.player_slot(id, player));
        let same = found.is_some_and(|found| {
            found.id() == *cell
                && found.kind() == Some(hotspot.kind)
                && found.item() == hotspot.item
                && found.remaining == hotspot.remaining
                && found.reward() == hotspot.reward
                && u64::from(found.expiry_s) == hotspot.expiry_s
                && found.claimed_by == claimant.map_or(0, |slot| slot.mark())
        });
        if !same {
            return Err(format!("cell {cell}: {found:?}, the model has {hotspot:?}"));
        }
    }
    let ordered: Vec<u64> = index.cells_in(id, 0, u64::MAX).map(|cell| cell.id()).collect();
    if ordered != wanted.cells_in(0, u64::MAX) {
        return Err(format!("cells in order are {ordered:?}"));
    }
    Ok(())
}

/// Quests and treasure types.
fn definitions(index: &Index, id: HuntId, wanted: &model::Hunt) -> Result<(), String> {
    let one = |kind, name: u64, version: u32, argument: u64, payload: &[u8]| {
        let found = index.definition_slot(id, kind, name).map(|slot| index.definition(slot));
        let same = found.is_some_and(|found| {
            (found.id, found.version, found.argument) == (name, version, argument)
                && found.payload() == payload
        });
        if same { Ok(()) } else { Err(format!("{kind:?} {name}: {found:?}")) }
    };
    for (name, quest) in &wanted.quests {
        let argument = quest.pay.pack().ok_or_else(|| format!("quest {name} pays too much"))?;
        one(DefinitionKind::Quest, *name, 1, argument, &quest.payload)?;
    }
    for (name, treasure) in &wanted.treasures {
        one(DefinitionKind::Treasure, *name, treasure.version, 0, &treasure.payload)?;
    }
    Ok(())
}

/// What players did that is done once only.
fn deeds(index: &Index, id: HuntId, wanted: &model::Hunt) -> Result<(), String> {
    let one = |player: u64, kind, book: u64, done: [u64; 4], paid: [u64; 4], is_ended: bool| {
        let slot = index.player_slot(id, player);
        let slot = slot.and_then(|slot| index.deed_slot(slot, kind, book));
        let found: Option<&Deed> = slot.map(|slot| index.deed(slot));
        let same = found.is_some_and(|found| {
            (found.done, found.paid, found.ended) == (done, paid, is_ended.into())
        });
        let told = (done, paid, is_ended);
        if same {
            Ok(())
        } else {
            Err(format!("{kind:?} {book} of player {player}: {found:x?}, wanted is {told:x?}"))
        }
    };
    for ((player, quest), progress) in &wanted.progress {
        let (done, paid) = (marks(&progress.passed), marks(&progress.paid));
        one(*player, DeedKind::Quest, *quest, done, paid, progress.is_ended)?;
    }
    for (player, numbers) in &wanted.rewards {
        for book in numbers.iter().map(|number| number / 256) {
            let near = numbers.iter().filter(|number| *number / 256 == book);
            let paid: BTreeSet<u8> = near.map(|number| (number % 256) as u8).collect();
            one(*player, DeedKind::Reward, book, [0; 4], marks(&paid), false)?;
        }
    }
    Ok(())
}

/// A bit for each number.
fn marks(numbers: &BTreeSet<u8>) -> [u64; 4] {
    let mut marks = [0; 4];
    for number in numbers {
        marks[usize::from(*number) / 64] |= 1 << (number % 64);
    }
    marks
}
