//! The leaderboard of one hunt with very many players, and cells by distance.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use veltrix::index::{Index, IndexLimits, Player, PlayerSlot, morton_of};

use super::world::{FIELD_SIDE, Random, World, corner};

/// Changes of scores timed together.
const UPDATES: usize = 1 << 20;
/// Reads of a kind, each timed by itself.
const READS: usize = 50_000;
/// Changes of scores between two reads.
const UPDATES_A_READ: usize = 8;
/// Scores are drawn below it: most of ten million players differ.
const SCORES: usize = 1 << 32;

/// Points that a change adds: enough to pass a thousand others.
const SCORED: u64 = 500_000;

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct RankNumbers {
    /// Players of the hunt.
    pub players: u32,
    /// Distinct scores among them.
    pub scores_distinct: usize,
    /// A player's score changed, its place on the board with it.
    pub score_ns: f64,
    /// The same record written with the score as it was.
    pub write_ns: f64,
    /// Rank of a player, changes of scores in between.
    pub rank_p50_us: f64,
    /// Of 100 the slowest but one.
    pub rank_p99_us: f64,
    /// The first hundred, the median.
    pub top100_us: f64,
    /// Of 100 the slowest but one.
    pub top100_p99_us: f64,
    /// Bytes reserved for the board, for each player.
    pub bytes_per_score: f64,
    /// Bytes reserved for record and hash, for each player.
    pub bytes_per_player: f64,
    /// An index from its image, for each player.
    pub restore_ns_per_player: f64,
}

/// Measures with `players` players.
///
/// # Errors
///
/// Memory that cannot be had; wrong answers.
pub fn measure(players: u32) -> Result<RankNumbers> {
    let limits = IndexLimits {
        cells_max: 0,
        players_max: players,
        hunts_max: 1,
        definitions_max: 16,
        deeds_max: 100,
    };
    let mut index = Index::new(&limits)?;
    let hunt = index.hunt_insert(1)?;
    let mut random = Random(3);
    let mut slots = Vec::with_capacity(players as usize);
    for id in 0..u64::from(players) {
        let mut player = Player::new(hunt, id);
        (player.score, player.score_epoch) = (1 + random.below(SCORES) as u64, 1);
        slots.push(index.player_insert(player)?);
    }
    index.settle_ranks();
    let scores_distinct = distinct(&index);
    let mut epoch = 1;
    let mut timed = |by: u64| {
        let started = Instant::now();
        for _ in 0..UPDATES {
            epoch += 1;
            change(&mut index, slots[random.below(slots.len())], by, epoch);
        }
        index.settle_ranks();
        started.elapsed().as_nanos() as f64 / UPDATES as f64
    };
    let (write_ns, score_ns) = (timed(0), timed(SCORED));
    let (mut ranks, mut tops) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    for _ in 0..READS {
        for _ in 0..UPDATES_A_READ {
            epoch += 1;
            change(&mut index, slots[random.below(slots.len())], SCORED, epoch);
        }
        index.settle_ranks();
        let slot = slots[random.below(slots.len())];
        let started = Instant::now();
        let rank = black_box(index.rank(slot));
        ranks.record(started.elapsed().as_nanos() as u64)?;
        ensure!(rank.is_some_and(|rank| (1..=players).contains(&rank)), "a rank that cannot be");
        let mut sum = 0;
        let started = Instant::now();
        let seen = index.ranked(hunt, 1, 100, |ranked| sum += ranked.player.score);
        tops.record(started.elapsed().as_nanos() as u64)?;
        black_box(sum);
        ensure!(seen == 100.min(players as usize), "the first hundred are {seen}");
    }
    let restore_ns_per_player = restore(&mut index, &limits)?;
    let us = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    let bytes = Index::bytes_of(&limits);
    let each = |bytes: u64| bytes as f64 / f64::from(players);
    Ok(RankNumbers {
        players,
        scores_distinct,
        score_ns,
        write_ns,
        rank_p50_us: us(&ranks, 0.5),
        rank_p99_us: us(&ranks, 0.99),
        top100_us: us(&tops, 0.5),
        top100_p99_us: us(&tops, 0.99),
        bytes_per_score: each(bytes.board),
        bytes_per_player: each(bytes.players + bytes.player_hash),
        restore_ns_per_player,
    })
}

fn change(index: &mut Index, slot: PlayerSlot, by: u64, epoch: u64) {
    let mut player = *index.player(slot);
    player.wallet += 1;
    if by > 0 {
        player.score += by;
        player.score_epoch = epoch;
    }
    index.player_write(slot, player);
}

fn distinct(index: &Index) -> usize {
    let mut scores: Vec<u64> = index.players().map(|player| player.score).collect();
    scores.sort_unstable();
    scores.dedup();
    scores.len()
}

/// Restores the index; every rank of a few players is what it was.
fn restore(index: &mut Index, limits: &IndexLimits) -> Result<f64> {
    index.capture_begin(veltrix::index::IndexImage::new(limits)?);
    let image = index.capture_end();
    let started = Instant::now();
    let restored = Index::restore(limits, &image)?;
    let ns = started.elapsed().as_nanos() as f64 / f64::from(limits.players_max);
    let hunt = index.hunt(1).context("the hunt is gone")?;
    let top = |index: &Index| {
        let mut ids = Vec::new();
        index.ranked(hunt, 1, 1_000, |ranked| ids.push(ranked.player.player()));
        ids
    };
    ensure!(top(&restored) == top(index), "the leaderboard is another after restoring");
    Ok(ns)
}

/// The ten cells nearest to random positions of random hunts, microseconds:
/// median, p99.
///
/// # Errors
///
/// Fewer found than there are.
pub fn nearest(world: &World, random: &mut Random) -> Result<(f64, f64)> {
    let mut times = Histogram::<u64>::new(3)?;
    for _ in 0..READS {
        let partition = random.below(world.partitions.len());
        let (hunt, _) = world.cells[partition][random.below(world.cells[partition].len())];
        let (x, y) = corner(partition, hunt);
        let mut place = || random.below(FIELD_SIDE as usize) as u32;
        let to = morton_of(x + place(), y + place());
        let mut kept = [None; 10];
        let started = Instant::now();
        let index = &world.partitions[partition];
        let found = black_box(index.nearest_cells(hunt, to, &mut kept, &mut { usize::MAX }));
        times.record(started.elapsed().as_nanos() as u64)?;
        ensure!(found == Some(10), "{found:?} of the ten nearest cells");
    }
    let us = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    Ok((us(0.5), us(0.99)))
}
