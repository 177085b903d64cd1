//! Dedupe against a plain model, and through captures.

use std::collections::HashMap;

use proptest::prelude::*;

use super::bucket::{EPOCH_DELTA_MAX, REACH};
use super::layout::GENERATIONS;
use super::*;

fn limits(keys_max: u32, window_ms: u64) -> DedupeLimits {
    DedupeLimits { keys_max, window_ms }
}

fn secret() -> Secret {
    Secret::new([42; SECRET_BYTES])
}

/// The `n`th key there is, at a time.
fn key(n: u64, key_ms: u64) -> [u8; 16] {
    (u128::from(key_ms) << 80 | u128::from(n)).to_be_bytes()
}

/// What dedupe is to do, with all keys in one map and generations as counts.
struct Model {
    keys: u64,
    drop_at: u64,
    window_ms: u64,
    /// Everything ever recorded: (player, key) -> (outcome, epoch).
    recorded: HashMap<(u64, [u8; 16]), (u8, u64)>,
    /// First epoch, keys, largest key time; the last is the active one.
    generations: Vec<(u64, u64, u64)>,
    dropped_key_ms: u64,
}

impl Model {
    fn new(limits: &DedupeLimits) -> Self {
        let keys = (u64::from(limits.keys_max) * 4).div_ceil(27);
        Self {
            keys,
            drop_at: keys - keys / 4,
            window_ms: limits.window_ms,
            recorded: HashMap::new(),
            generations: vec![(0, 0, 0)],
            dropped_key_ms: 0,
        }
    }

    fn horizon_ms(&self, log_time_ms: u64) -> u64 {
        log_time_ms.saturating_sub(self.window_ms).max(self.dropped_key_ms)
    }

    fn check(&self, player: u64, key: [u8; 16], log_time_ms: u64) -> Verdict {
        let key_ms = key_ms(&key);
        if key_ms <= self.horizon_ms(log_time_ms) {
            Verdict::TooOld
        } else if key_ms > log_time_ms.saturating_add(KEY_AHEAD_MS_MAX) {
            Verdict::TooNew
        } else {
            let seen = self.recorded.get(&(player, key));
            seen.map_or(Verdict::Fresh, |&(outcome, epoch)| Verdict::Duplicate { outcome, epoch })
        }
    }

    fn record(&mut self, player: u64, key: [u8; 16], outcome: u8, epoch: u64) {
        let twice = self.recorded.insert((player, key), (outcome, epoch));
        assert_eq!(twice, None, "recorded twice");
        let (first_epoch, len, _) = self.generations[self.generations.len() - 1];
        if len > 0 && (len == self.keys || epoch - first_epoch > EPOCH_DELTA_MAX) {
            self.drop_to(GENERATIONS - 1);
            self.generations.push((0, 0, 0));
        }
        let active = self.generations.last_mut().unwrap();
        if active.1 == 0 {
            active.0 = epoch;
        }
        active.1 += 1;
        active.2 = active.2.max(key_ms(&key));
        if active.1 >= self.drop_at {
            self.drop_to(GENERATIONS - 1);
        }
    }

    fn drop_to(&mut self, most: usize) {
        while self.generations.len() > most {
            let (_, _, key_ms_max) = self.generations.remove(0);
            self.dropped_key_ms = self.dropped_key_ms.max(key_ms_max);
        }
    }

    fn held(&self) -> u64 {
        self.generations.iter().map(|generation| generation.1).sum()
    }
}

/// One event of a history. Times are chosen when it is played.
#[derive(Clone, Debug)]
enum Step {
    /// A new key at log time plus this many ms.
    New { player: u64, ms: i64 },
    /// A new key at any time there is.
    NewAt { player: u64, key_ms: u64 },
    /// The key of an earlier event again, counted back from the last.
    Again { back: usize },
    /// A key of before, by another player.
    Other { back: usize },
    /// Log time goes on.
    LogTime { ms: u64 },
    /// The epoch goes on.
    Epoch { by: u64 },
}

fn steps(window_ms: u64) -> impl Strategy<Value = Vec<Step>> {
    let window = window_ms as i64;
    let near = (0..4u64, -300..2_300i64).prop_map(|(player, ms)| Step::New { player, ms });
    let wide = (0..4u64, -window - 2..2_003).prop_map(|(player, ms)| Step::New { player, ms });
    let any = prop_oneof![Just(0), Just(1), Just((1 << 48) - 1), 0..1u64 << 48];
    let any = (0..4u64, any).prop_map(|(player, key_ms)| Step::NewAt { player, key_ms });
    let again = prop_oneof![0..20usize, 0..2_000usize].prop_map(|back| Step::Again { back });
    let other = (0..50usize).prop_map(|back| Step::Other { back });
    let log_time = prop_oneof![9 => 0..500u64, 1 => 0..2 * window_ms, 1 => Just(1 << 46)];
    let log_time = log_time.prop_map(|ms| Step::LogTime { ms });
    let epoch = prop_oneof![20 => 1..5u64, 1 => EPOCH_DELTA_MAX - 2..EPOCH_DELTA_MAX + 2];
    let epoch = epoch.prop_map(|by| Step::Epoch { by });
    let step = prop_oneof![
        40 => near, 20 => wide, 1 => any, 20 => again, 2 => other, 3 => log_time, 5 => epoch
    ];
    prop::collection::vec(step, 1..1_500)
}

/// Plays histories on a dedupe; events get the outcomes 1, 2, 3 and so on.
struct Player {
    secret: Secret,
    log_time_ms: u64,
    epoch: u64,
    events: Vec<(u64, [u8; 16])>,
}

impl Player {
    fn new() -> Self {
        Self { secret: secret(), log_time_ms: 1 << 40, epoch: 1, events: Vec::new() }
    }

    /// The event of a step, if it is one.
    fn event(&mut self, step: &Step) -> Option<(u64, [u8; 16])> {
        let number = self.events.len() as u64;
        let back = |back: usize| self.events.iter().rev().nth(back).copied();
        let event = match *step {
            Step::New { player, ms } => {
                let key_ms = self.log_time_ms.saturating_add_signed(ms).min((1 << 48) - 1);
                Some((player, key(number, key_ms)))
            }
            Step::NewAt { player, key_ms } => Some((player, key(number, key_ms))),
            Step::Again { back: n } => back(n),
            Step::Other { back: n } => back(n).map(|(player, key)| (player + 1, key)),
            Step::LogTime { ms } => {
                self.log_time_ms = self.log_time_ms.saturating_add(ms);
                None
            }
            Step::Epoch { by } => {
                self.epoch += by;
                None
            }
        };
        self.events.extend(event);
        event
    }

    /// Plays one step; gives the verdict of its event.
    fn play(&mut self, dedupe: &mut Dedupe, step: &Step) -> Option<Verdict> {
        let (player, key) = self.event(step)?;
        let (print, key_ms) = (fingerprint(&self.secret, player, &key), key_ms(&key));
        dedupe.prefetch(print, key_ms);
        let verdict = dedupe.check(print, key_ms, self.log_time_ms);
        if verdict == Verdict::Fresh {
            dedupe.record(print, key_ms, self.outcome(), self.epoch);
        }
        Some(verdict)
    }

    fn outcome(&self) -> u8 {
        (self.events.len() % 63) as u8 + 1
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Every verdict is the model's: no fresh key is a duplicate, no duplicate
    /// is fresh, what is too old and too new is so exactly, and a duplicate
    /// has its first outcome and epoch.
    #[test]
    fn verdicts_are_those_of_the_model(
        (keys_max, window_ms, steps) in (1..150u32, 1..20_000u64)
            .prop_flat_map(|(keys, window)| (Just(keys), Just(window), steps(window)))
    ) {
        let limits = limits(keys_max, window_ms);
        let mut dedupe = Dedupe::new(&limits).unwrap();
        let mut model = Model::new(&limits);
        let mut player = Player::new();
        for step in &steps {
            let Some(verdict) = player.play(&mut dedupe, step) else { continue };
            let (who, key) = *player.events.last().unwrap();
            prop_assert_eq!(verdict, model.check(who, key, player.log_time_ms));
            if verdict == Verdict::Fresh {
                model.record(who, key, player.outcome(), player.epoch);
            }
            let horizon_ms = model.horizon_ms(player.log_time_ms);
            prop_assert_eq!(dedupe.horizon_ms(player.log_time_ms), horizon_ms);
            prop_assert_eq!(dedupe.keys_len(), model.held());
        }
    }

    /// A capture shows the moment of its beginning whatever is recorded until
    /// its end, and what is restored from it goes on like the original.
    #[test]
    fn captures_are_exact(
        (keys_max, steps) in (1..4_000u32, steps(10_000)),
        begin in 0..1_000usize,
        copied_pages in 0..8usize,
        many in 0..20_000u64,
    ) {
        let limits = limits(keys_max, 10_000);
        let mut dedupe = Dedupe::new(&limits).unwrap();
        let mut player = Player::new();
        fill(&mut dedupe, &mut player, many);
        let begin = begin.min(steps.len());
        for step in &steps[..begin] {
            player.play(&mut dedupe, step);
        }
        let mut at_once = DedupeImage::new(&limits).unwrap();
        dedupe.capture_begin(at_once);
        at_once = dedupe.capture_end();

        // An image that holds something else from before.
        let mut image = DedupeImage::new(&limits).unwrap();
        (0..GENERATIONS).for_each(|g| image.generation_mut(g).unwrap().fill(0x5A));
        let mut twin_player = Player { secret: secret(), events: player.events.clone(), ..player };
        dedupe.capture_begin(image);
        for _ in 0..copied_pages {
            dedupe.capture_step(1);
        }
        let verdicts: Vec<_> =
            steps[begin..].iter().map(|step| player.play(&mut dedupe, step)).collect();
        fill(&mut dedupe, &mut player, many);
        while !dedupe.capture_step(20_000) {}
        let image = dedupe.capture_end();
        prop_assert_eq!(parts(&image), parts(&at_once));

        let mut twin = Dedupe::restore(&limits, &image).unwrap();
        for (step, verdict) in steps[begin..].iter().zip(verdicts) {
            prop_assert_eq!(twin_player.play(&mut twin, step), verdict);
        }
        fill(&mut twin, &mut twin_player, many);
        prop_assert_eq!(twin_player.events, player.events);
        let empty = DedupeImage::new(&limits).unwrap();
        dedupe.capture_begin(empty);
        twin.capture_begin(at_once);
        prop_assert_eq!(parts(&dedupe.capture_end()), parts(&twin.capture_end()));
    }

    /// Whatever the bytes of an image, restoring it gives an error or something
    /// that goes on without a panic.
    #[test]
    fn any_image_is_restored_or_refused(
        damage in prop::collection::vec((0..3usize, any::<prop::sample::Index>(), 1..=255u8), 1..4),
        steps in steps(10_000),
    ) {
        let limits = limits(60, 10_000);
        let mut dedupe = Dedupe::new(&limits).unwrap();
        let mut player = Player::new();
        fill(&mut dedupe, &mut player, 200);
        dedupe.capture_begin(DedupeImage::new(&limits).unwrap());
        let mut image = dedupe.capture_end();
        for (part, at, flip) in damage {
            let bytes = match part {
                0 => image.state_mut(),
                1 => image.slices_mut(),
                _ => image.generation_mut(at.index(GENERATIONS)).unwrap(),
            };
            bytes[at.index(bytes.len())] ^= flip;
        }
        if let Ok(mut restored) = Dedupe::restore(&limits, &image) {
            for step in &steps {
                player.play(&mut restored, step);
            }
            fill(&mut restored, &mut player, 500);
        }
    }
}

/// Everything an image shows.
fn parts(image: &DedupeImage) -> Vec<Vec<u8>> {
    let generations = (0..GENERATIONS).map(|g| image.generation(g).unwrap_or_default());
    [image.state(), image.slices()].into_iter().chain(generations).map(<[u8]>::to_vec).collect()
}

/// Plays `count` fresh keys, 20 to a millisecond of log time.
fn fill(dedupe: &mut Dedupe, player: &mut Player, count: u64) {
    for n in 0..count {
        if n % 20 == 0 {
            player.play(dedupe, &Step::LogTime { ms: 1 });
        }
        player.play(dedupe, &Step::New { player: n, ms: -((n % 7) as i64) });
    }
}

#[test]
fn the_promised_keys_are_held_at_any_moment() {
    let limits = limits(40_000, 1 << 40);
    let mut dedupe = Dedupe::new(&limits).unwrap();
    let mut player = Player::new();
    fill(&mut dedupe, &mut player, 45_000);
    let mut least = u64::MAX;
    for _ in 0..20_000 {
        fill(&mut dedupe, &mut player, 1);
        least = least.min(dedupe.keys_len());
    }
    assert!(least >= 40_000, "{least}");
    assert_eq!(dedupe.closed_early(), 0);
    // Each of the newest is known, with the horizon below them.
    for (who, key) in &player.events[player.events.len() - 40_000..] {
        let print = fingerprint(&player.secret, *who, key);
        let verdict = dedupe.check(print, key_ms(key), player.log_time_ms);
        assert!(matches!(verdict, Verdict::Duplicate { .. } | Verdict::TooOld), "{verdict:?}");
    }
}

#[test]
fn drops_that_the_window_does_not_call_for_are_counted() {
    // 20 keys a ms: 1,000 keys pass in 50 ms.
    for (window_ms, early) in [(1, false), (10_000, true)] {
        let mut dedupe = Dedupe::new(&limits(1_000, window_ms)).unwrap();
        let mut player = Player::new();
        fill(&mut dedupe, &mut player, 5_000);
        assert_eq!(dedupe.dropped_early() > 0, early, "window {window_ms}");
        let by_window = player.log_time_ms - window_ms;
        assert_eq!(dedupe.horizon_ms(player.log_time_ms) > by_window, early);
    }
}

/// Keys that all want the same bucket close a generation, and none is lost.
#[test]
fn a_key_without_a_place_closes_the_generation() {
    let mut dedupe = Dedupe::new(&limits(200_000, 10_000)).unwrap();
    let room = u64::from(REACH) * 4;
    assert!(u64::from(dedupe.layout.keys) > room && dedupe.layout.buckets > REACH);
    let now = 1 << 40;
    for id in 0..3 * room {
        let print = Fingerprint(u128::from(id));
        assert_eq!(dedupe.check(print, now, now), Verdict::Fresh);
        dedupe.record(print, now, 2, id);
    }
    assert_eq!(dedupe.closed_early(), 2);
    for id in 0..3 * room {
        let duplicate = Verdict::Duplicate { outcome: 2, epoch: id };
        assert_eq!(dedupe.check(Fingerprint(u128::from(id)), now, now), duplicate);
    }
}

#[test]
fn images_of_other_limits_are_refused() {
    let image = DedupeImage::new(&limits(1_000, 10_000)).unwrap();
    for other in [limits(2_000, 10_000), limits(1_000, 10_001)] {
        let error = Dedupe::restore(&other, &image).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("another configuration"), "{error}");
    }
}

#[test]
fn reserved_bytes_are_the_announced_ones() {
    for keys_max in [1, 1_000, 31_250, 453_125] {
        let limits = limits(keys_max, 600_000);
        let dedupe = Dedupe::new(&limits).unwrap();
        let bytes = DedupeBytes { keys: dedupe.keys.bytes(), slices: dedupe.slices.bytes() };
        assert_eq!(Dedupe::bytes_of(&limits), bytes);
        assert_eq!(DedupeImage::bytes_of(&limits), bytes.total());
    }
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let error = Dedupe::new(&limits(0, 1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("dedupe_keys_max"));
    assert_eq!(Dedupe::bytes_of(&limits(0, 1)).total(), 0);
    assert!(DedupeImage::new(&limits(1, 0)).is_err());
}
