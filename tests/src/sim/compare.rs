//! A node's partitions held against the model, record by record. The only
//! place that knows both.

use veltrix::apply::{Partition, PartitionLimits};
use veltrix::dedupe::DedupeLimits;
use veltrix::index::{HuntId, Index, IndexLimits};

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
    for (player, owned) in &wanted.players {
        let slot = index.player_slot(id, *player);
        let record = slot.map(|slot| index.player(slot));
        let found = record.map(|r| model::Player {
            wallet: r.wallet,
            score: r.score,
            score_epoch: r.score_epoch,
            inventory: r.inventory,
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
