//! Dedupe alone, called as apply calls it: batches sorted by partition, a
//! partition's events in groups, each group's lines asked for before the first
//! is looked up. All keys are fresh, random and shuffled; every table is as
//! full as it gets, so that generations are dropped and cleared meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use veltrix::dedupe::{
    Dedupe, DedupeLimits, Secret, Verdict, false_duplicate_probability, fingerprint, key_ms,
};

/// Partitions, as a data directory has unless formatted otherwise.
const PARTITIONS: u32 = 64;

/// Events of a partition in a batch: 256 KiB of events over all partitions.
const RANGE_EVENTS: usize = 84;

/// Events whose lines are asked for together.
const GROUP_EVENTS: usize = 28;

/// Log time from batch to batch: 5,376 events each, 5.4 million a second.
const BATCH_MS: u64 = 1;

/// A key is up to this much older than log time, as networks have it.
const KEY_AGE_MS_MAX: u64 = 100;

const WINDOW_MS: u64 = 600_000;

/// Timed rounds; the median one counts. The machine may have other work.
const ROUNDS: u64 = 5;

/// Least events of a round. It goes around whole generations, so that dropping
/// and clearing have their part.
const ROUND_EVENTS_MIN: u64 = 2_000_000;

/// What [`measure`] found.
#[derive(Clone, Copy, Debug)]
pub struct DedupeNumbers {
    /// Fingerprint, check and record of a fresh key at 2 million live keys, ns.
    pub at_2m_ns: f64,
    /// The same at 29 million.
    pub at_29m_ns: f64,
    /// Bytes reserved for each of the 29 million keys promised to be held.
    pub bytes_per_key: f64,
}

/// Measures; takes some seconds and 0.7 GB.
///
/// # Errors
///
/// Too little memory; a fresh key that was not called fresh.
pub fn measure(progress: impl Fn(&str)) -> anyhow::Result<DedupeNumbers> {
    let small = limits(2_000_000);
    let large = limits(29_000_000);
    progress("dedupe: 2 million keys");
    let at_2m_ns = fresh_key_ns(&small)?;
    progress("dedupe: 29 million keys");
    let at_29m_ns = fresh_key_ns(&large)?;
    let p = false_duplicate_probability(&large);
    progress(&format!("dedupe: a false duplicate in {:.1e} events", 1.0 / p));
    let bytes_per_key = Dedupe::bytes_of(&large).total() as f64 / f64::from(large.keys_max);
    Ok(DedupeNumbers { at_2m_ns, at_29m_ns, bytes_per_key })
}

/// Limits of each partition such that all of them hold `keys`.
fn limits(keys: u32) -> DedupeLimits {
    DedupeLimits { keys_max: keys.div_ceil(PARTITIONS), window_ms: WINDOW_MS }
}

/// A player and an idempotency key.
type Event = (u64, [u8; 16]);

fn fresh_key_ns(limits: &DedupeLimits) -> anyhow::Result<f64> {
    let secret = Secret::new(std::array::from_fn(|i| (i * i + 7 * i + 3) as u8));
    let mut partitions = (0..PARTITIONS)
        .map(|_| Dedupe::new(limits))
        .collect::<Result<Vec<_>, _>>()
        .context("memory for dedupe tables")?;
    let keys = u64::from(limits.keys_max) * u64::from(PARTITIONS);
    let batch_events = u64::from(PARTITIONS) * RANGE_EVENTS as u64;
    // The first round only fills: around all generations and a half.
    let fill = (keys * 3 / 2).div_ceil(batch_events);
    let generation = keys * 4 / 27;
    let round = generation * ROUND_EVENTS_MIN.div_ceil(generation) / batch_events;
    let mut random = Random(1);
    let mut batch = Vec::with_capacity(batch_events as usize);
    let mut took = [Duration::ZERO; ROUNDS as usize + 1];
    let mut log_ms = 1_700_000_000_000;
    for number in 0..fill + ROUNDS * round {
        log_ms += BATCH_MS;
        batch.clear();
        batch.extend((0..batch_events).map(|_| random.event(log_ms)));
        let began = Instant::now();
        let mut fresh = 0;
        for (partition, range) in partitions.iter_mut().zip(batch.chunks_exact(RANGE_EVENTS)) {
            for group in range.chunks(GROUP_EVENTS) {
                fresh += check_and_record(partition, &secret, group, log_ms, number);
            }
        }
        let nth = number.checked_sub(fill).map_or(0, |timed| 1 + timed / round);
        took[nth as usize] += began.elapsed();
        ensure!(fresh == batch_events, "{fresh} of {batch_events} fresh keys were called fresh");
    }
    let held = partitions.iter().map(Dedupe::keys_len).min().unwrap_or(0);
    ensure!(held >= limits.keys_max.into(), "{held} keys held, {} promised", limits.keys_max);
    took[1..].sort();
    Ok(took[1 + ROUNDS as usize / 2].as_secs_f64() * 1e9 / (round * batch_events) as f64)
}

/// One group of a range; gives how many were fresh.
#[inline(never)]
fn check_and_record(
    dedupe: &mut Dedupe,
    secret: &Secret,
    group: &[Event],
    log_ms: u64,
    epoch: u64,
) -> u64 {
    let mut prints = [None; GROUP_EVENTS];
    for ((player, key), slot) in group.iter().zip(&mut prints) {
        let (print, key_ms) = (fingerprint(secret, *player, key), key_ms(key));
        dedupe.prefetch(print, key_ms);
        *slot = Some((print, key_ms));
    }
    let mut fresh = 0;
    for (print, key_ms) in prints.into_iter().flatten() {
        if dedupe.check(print, key_ms, log_ms) == Verdict::Fresh {
            fresh += 1;
            dedupe.record(print, key_ms, 2, epoch);
        }
    }
    fresh
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn event(&mut self, log_ms: u64) -> Event {
        let (player, random) = (self.next(), self.next());
        let age_ms = random % KEY_AGE_MS_MAX;
        let random = u128::from(random) << 64 | u128::from(self.next());
        let version = 0x7u128 << 76 | 0b10u128 << 62;
        let mask = (1u128 << 76) - 1;
        let key = u128::from(log_ms - age_ms) << 80 | version | random & mask & !(0b11u128 << 62);
        (player, key.to_be_bytes())
    }
}
