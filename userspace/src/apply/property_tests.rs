//! Whatever events come: how they are cut, where they are applied, and what was
//! captured in between makes no difference.

use proptest::prelude::*;
use veltrix_abi::kinds::EventKind::*;
use veltrix_abi::kinds::{self, EventKind, HuntSetup};

use super::tests::{
    Answer, CHEST, ITEM, LIMITS, PARTITIONS, START_MS, TICKET, Wish, World, secret,
};
use super::{Digest, Partition, PartitionImage, Place, apply_batch, apply_slice};
use crate::batch::{BatchView, OutcomeSlots};

/// Few players, cells and tags, so that events meet.
fn wish() -> impl Strategy<Value = Wish> {
    let kinds = prop_oneof![
        3 => Just(HotspotSpawn),
        8 => Just(CollectItem),
        4 => Just(UseKey),
        4 => Just(Claim),
        4 => Just(WalletCredit),
        3 => Just(WalletSpend),
        3 => Just(WalletTransfer),
        1 => Just(HotspotExpire),
        2 => prop::sample::select(&EventKind::ALL[8..]),
    ];
    let hotspot = prop_oneof![Just(ITEM), Just(CHEST), Just(TICKET)];
    let fields = (kinds, hotspot, 0u64..6, 0u64..12, 0u64..30);
    (fields, 0u64..4_000, 0u64..65_000, 0u8..30).prop_map(
        |((kind, hotspot, domain, player, subject), tag, age_ms, odd)| {
            let argument = match kind {
                HotspotSpawn => hotspot.pack().unwrap(),
                WalletCredit | WalletSpend | WalletTransfer => 1 + tag % 50,
                RewardIssued | BankDeposit | BankWithdraw => 1 + tag % 50,
                HuntOpen => HuntSetup { game: 1 + (tag % 6) as u8, length_s: 9, settings: 0 }
                    .pack()
                    .unwrap_or(0),
                PlayerJoin => tag % 4,
                PowerUp => kinds::PowerUp { item: 2, factor: 2, seconds: 1 }.pack().unwrap_or(0),
                QuestDefine => 5 | 9 << 20,
                _ => u64::from(odd == 0),
            };
            let subject = match kind {
                HuntOpen | HuntClose | PlayerJoin | PowerUp | BankDeposit | BankWithdraw => 0,
                Checkpoint => (subject % 3) * 256 + tag % 4,
                QuestDefine | QuestAbandon | TreasureType => subject % 3,
                _ => subject,
            };
            let payload: &[u8] = match kind {
                QuestDefine => &[3, 0, 0, 1, 0, 2, 2, 3],
                TreasureType => b"{\"rarity\":1}",
                _ => &[],
            };
            let kind = if odd == 1 { 99 } else { kind.code() };
            // Most keys are fresh, some too old, some too new.
            let age_ms = if odd < 4 { age_ms } else { age_ms % 5_000 };
            let key_ms = START_MS + 2_500 - age_ms;
            Wish { domain, key_ms, tag, player, kind, subject, argument, payload }
        },
    )
}

fn history() -> impl Strategy<Value = Vec<Vec<Wish>>> {
    proptest::collection::vec(proptest::collection::vec(wish(), 1..150), 1..12)
}

/// One entry: events, then 100 ms of log time.
fn enter(w: &mut World, wishes: &[Wish], datagrams: &[usize]) -> Vec<Answer> {
    w.log_time_ms += 100;
    w.send_cut(wishes, datagrams)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn datagrams_and_groups_do_not_matter(
        history in history(),
        cuts in proptest::collection::vec(1usize..25, 1..6),
    ) {
        let mut whole = World::new(LIMITS);
        let mut cut = World::new(LIMITS);
        for wishes in &history {
            let one = enter(&mut whole, wishes, &[24]);
            let other = enter(&mut cut, wishes, &cuts);
            prop_assert_eq!(one, other);
        }
        prop_assert_eq!(whole.digests(), cut.digests());
    }

    /// On one belt, with one that is elsewhere and one that is ahead, partitions
    /// end as each does by itself.
    #[test]
    fn together_or_alone_partitions_end_alike(
        history in history(),
        cuts in proptest::collection::vec(1usize..25, 1..6),
        elsewhere in 0..PARTITIONS,
        ahead in 0..PARTITIONS,
        ahead_by in 0u64..8,
    ) {
        let mut w = World::new(LIMITS);
        let mut together: Vec<Option<Box<Partition>>> = (0..PARTITIONS)
            .map(|number| {
                let partition = || Box::new(Partition::new(number, &LIMITS, secret()).unwrap());
                (number != elsewhere).then(partition)
            })
            .collect();
        w.partitions[usize::from(ahead)].apply_other(w.epoch + ahead_by);
        if let Some(partition) = &mut together[usize::from(ahead)] {
            partition.apply_other(w.epoch + ahead_by);
        }
        for wishes in &history {
            w.epoch += 1;
            w.log_time_ms += 100;
            let log_time_ns = w.log_time_ms * 1_000_000;
            w.seal(wishes, &cuts);
            let batch = w.pool.get(0);
            let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
            let answers = |apply: &mut dyn FnMut(&OutcomeSlots)| -> Vec<u8> {
                (0..batch.events()).for_each(|slot| batch.slots().set(slot, 0));
                apply(batch.slots());
                (0..batch.events()).map(|slot| batch.slots().outcome(slot)).collect()
            };
            let alone = answers(&mut |slots| {
                for range in view.ranges().filter(|range| range.partition != elsewhere) {
                    let partition = &mut w.partitions[usize::from(range.partition)];
                    partition.apply(w.epoch, log_time_ns, &view, &range, Some(slots));
                }
            });
            let on_one_belt = answers(&mut |slots| {
                apply_batch(&mut together[..], w.epoch, log_time_ns, &view, Some(slots));
            });
            prop_assert_eq!(alone, on_one_belt);
        }
        for (alone, partition) in w.partitions.iter().zip(&together) {
            if let Some(partition) = partition {
                prop_assert_eq!(alone.digest(), partition.digest());
                prop_assert_eq!(alone.epoch(), partition.epoch());
            }
        }
    }

    /// Applied in slices, an entry ends as when it is applied at once, and on the way
    /// every partition but the one that is told is as before it or as after it.
    #[test]
    fn in_slices_or_at_once_partitions_end_alike(
        history in history(),
        cuts in proptest::collection::vec(1usize..25, 1..6),
        looks in proptest::collection::vec(0usize..3, 1..8),
    ) {
        let mut w = World::new(LIMITS);
        let mut sliced: Vec<Partition> = (0..PARTITIONS)
            .map(|number| Partition::new(number, &LIMITS, secret()).unwrap())
            .collect();
        let mut looks = looks.iter().cycle();
        for wishes in &history {
            w.epoch += 1;
            w.log_time_ms += 100;
            let entry = (w.epoch, w.log_time_ms * 1_000_000);
            w.seal(wishes, &cuts);
            let batch = w.pool.get(0);
            let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
            let slots = Some(batch.slots());
            let state = |p: &Partition| (p.epoch(), p.digest());
            let before: Vec<(u64, Digest)> = w.partitions.iter().map(state).collect();
            apply_batch(&mut w.partitions[..], entry.0, entry.1, &view, slots);
            let at_once: Vec<u8> =
                (0..batch.events()).map(|slot| batch.slots().outcome(slot)).collect();
            (0..batch.events()).for_each(|slot| batch.slots().set(slot, 0));
            let mut place = Place::default();
            loop {
                let mut left = *looks.next().unwrap();
                let is_over = || {
                    let is_over = left == 0;
                    left = left.saturating_sub(1);
                    is_over
                };
                let is_through =
                    apply_slice(&mut sliced[..], entry, &view, slots, &mut place, is_over);
                for (number, partition) in sliced.iter().enumerate() {
                    let is_half = place.half_applied() == Some(number as u16);
                    let is_whole = [&before[number], &state(&w.partitions[number])]
                        .contains(&&state(partition));
                    prop_assert!(is_half || is_whole, "{} at {:?}", number, place);
                }
                if is_through {
                    break;
                }
            }
            prop_assert_eq!(place.half_applied(), None);
            let in_slices: Vec<u8> =
                (0..batch.events()).map(|slot| batch.slots().outcome(slot)).collect();
            prop_assert_eq!(at_once, in_slices);
            for (at_once, partition) in w.partitions.iter().zip(&sliced) {
                prop_assert_eq!(state(at_once), state(partition));
                // All moves are made: a rank can be read.
                let hunt = partition.index().hunt(wishes[0].domain);
                hunt.map(|hunt| partition.index().ranked_len(hunt));
            }
        }
    }

    #[test]
    fn a_restored_partition_goes_on_as_if_nothing_had_been(
        history in history(),
        at in 0usize..12,
    ) {
        let mut never_stopped = World::new(LIMITS);
        let mut restored = World::new(LIMITS);
        for (i, wishes) in history.iter().enumerate() {
            if i == at % history.len() {
                let images = restored.capture();
                restored.partitions = images.iter()
                    .map(|image| Partition::restore(&LIMITS, secret(), image).unwrap())
                    .collect();
            }
            prop_assert_eq!(
                enter(&mut never_stopped, wishes, &[24]),
                enter(&mut restored, wishes, &[24])
            );
            prop_assert_eq!(never_stopped.digests(), restored.digests());
        }
    }

    #[test]
    fn an_image_shows_the_epoch_it_was_begun_at(
        before in history(),
        meanwhile in history(),
        after in history(),
    ) {
        let mut w = World::new(LIMITS);
        for wishes in &before {
            enter(&mut w, wishes, &[24]);
        }
        // What a capture without anything meanwhile gives.
        let mut still = World::new(LIMITS);
        for wishes in &before {
            enter(&mut still, wishes, &[24]);
        }
        let digests = w.digests();
        for partition in &mut w.partitions {
            partition.capture_begin(PartitionImage::new(&LIMITS).unwrap());
        }
        for wishes in &meanwhile {
            for partition in &mut w.partitions {
                partition.capture_step(2_000);
            }
            enter(&mut w, wishes, &[24]);
        }
        let mut from_image = World::new(LIMITS);
        from_image.epoch = still.epoch;
        from_image.log_time_ms = still.log_time_ms;
        from_image.partitions = w.partitions.iter_mut().map(|partition| {
            while !partition.capture_step(2_000) {}
            let image = partition.capture_end();
            Partition::restore(&LIMITS, secret(), &image).unwrap()
        }).collect();
        prop_assert_eq!(from_image.digests(), digests);
        for wishes in meanwhile.iter().chain(&after) {
            prop_assert_eq!(
                enter(&mut still, wishes, &[24]),
                enter(&mut from_image, wishes, &[24])
            );
        }
        prop_assert_eq!(still.digests(), from_image.digests());
    }

    #[test]
    fn damaged_batches_do_no_harm(
        wishes in proptest::collection::vec(wish(), 1..80),
        damage in proptest::collection::vec((0usize..8_000, any::<u8>()), 1..20),
    ) {
        let mut w = World::new(LIMITS);
        w.seal(&wishes, &[24]);
        let mut bytes = w.pool.get(0).bytes().to_vec();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(view) = BatchView::of_checked(&bytes) {
            let slots = w.pool.get(0).slots();
            for range in view.ranges().take(100) {
                let Some(p) = w.partitions.get_mut(usize::from(range.partition)) else { continue };
                p.apply(50, START_MS * 1_000_000, &view, &range, Some(slots));
            }
        }
    }
}
