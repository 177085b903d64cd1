//! Faults of the systems that this one replaces, each as a test by its name. The
//! negative wallet under racing spends is in `tests.rs`.

use std::sync::Arc;

use proptest::prelude::*;
use veltrix_abi::Outcome;
use veltrix_abi::kinds::EventKind::{Checkpoint, Claim, CollectItem, QuestDefine, UseKey};
use veltrix_abi::kinds::{Hotspot, HotspotKind, QuestPay};

use super::Partition;
use super::tests::Answer::{Again, First};
use super::tests::{HUNT, LIMITS, Wish, World, secret};
use crate::index::DeedKind;

const KEY_ITEM: u8 = 3;

fn hotspot(kind: HotspotKind, remaining: u16, reward: u32) -> Hotspot {
    let item = if kind == HotspotKind::Ticket { 0 } else { KEY_ITEM };
    Hotspot { kind, item, remaining, reward, lifetime_s: 0 }
}

/// The state as it comes back from a snapshot.
fn restart(world: &mut World) {
    let images = world.capture();
    let partitions = images.iter().map(|image| {
        Partition::restore(&LIMITS, Arc::clone(&secret()), image).expect("an image of this world")
    });
    world.partitions = partitions.collect();
}

/// The old system wrote inventories from a cache and lost what was collected while
/// it wrote. Here every item acknowledged is there: over retries, batches of any
/// cut and restarts in between.
#[test]
fn no_item_is_lost_from_an_inventory() {
    let mut world = World::default();
    world.spawn(1, &hotspot(HotspotKind::Item, 300, 1));
    let mut acknowledged = 0;
    for round in 0..20 {
        let collects: Vec<Wish> = (0..20).map(|_| world.wish(CollectItem, 5, 1, 0)).collect();
        let with_retries: Vec<Wish> = collects.iter().flat_map(|wish| [*wish; 2]).collect();
        for pair in world.send_cut(&with_retries, &[1 + round % 7]).chunks(2) {
            let epoch = world.epoch;
            acknowledged += u16::from(pair[0] == First(Outcome::Applied));
            let First(outcome) = pair[0] else { panic!("a new key: {pair:?}") };
            assert_eq!(pair[1], Again(outcome, epoch));
        }
        if round % 5 == 4 {
            restart(&mut world);
        }
        let held = world.player(5).map_or(0, |player| player.2[usize::from(KEY_ITEM)]);
        assert_eq!(held, acknowledged, "round {round}");
    }
    assert_eq!(acknowledged, 300, "all there were");
}

/// The old system kept keys in the shard of the region where they were found, and
/// chests of another region did not know them.
#[test]
fn a_key_found_anywhere_opens_a_chest_anywhere_else() {
    let mut world = World::default();
    // Corners and middle of the map, as far apart as cells can be.
    let far_apart = [0, (1 << 60) - 1, 0x0555_5555_5555_5555, 0x0aaa_aaaa_aaaa_aaaa, 1 << 59];
    for (player, found) in far_apart.into_iter().enumerate() {
        for chest in far_apart {
            let player = player as u64;
            world.spawn(found, &hotspot(HotspotKind::Item, 1, 1));
            let collect = world.wish(CollectItem, player, found, 0);
            assert_eq!(world.one(collect), First(Outcome::Applied));
            world.spawn(chest, &hotspot(HotspotKind::Chest, 1, 9));
            let open = world.wish(UseKey, player, chest, 0);
            assert_eq!(world.one(open), First(Outcome::Applied), "{found:#x} to {chest:#x}");
            let again = world.wish(UseKey, player, chest, 0);
            assert_eq!(world.one(again), First(Outcome::AlreadyClaimed));
        }
    }
}

/// The old system paid again when the answer was lost and the client asked anew.
#[test]
fn a_reward_is_paid_once_however_often_the_claim_is_retried() {
    let mut world = World::default();
    world.spawn(2, &hotspot(HotspotKind::Ticket, 1, 700));
    let claim = world.wish(Claim, 9, 2, 0);
    assert_eq!(world.one(claim), First(Outcome::Applied));
    let paid_at = world.epoch;
    for round in 0..10 {
        assert_eq!(world.one(claim), Again(Outcome::Applied, paid_at), "the same key");
        // An impatient client that makes a new key is refused by state.
        let anew = world.wish(Claim, 9, 2, 0);
        assert_eq!(world.one(anew), First(Outcome::AlreadyClaimed));
        if round % 3 == 0 {
            restart(&mut world);
        }
    }
    assert_eq!(world.player(9), Some((700, 700, [0; 8])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The old system showed leaderboards seconds late. Here the board of an epoch
    /// is that of the scores of this epoch, after every single entry.
    #[test]
    fn a_leaderboard_is_never_behind_its_epoch(
        batches in prop::collection::vec(
            prop::collection::vec((0..40u64, 0..12u64), 1..60),
            1..20,
        ),
        rewards in prop::collection::vec(0..4u32, 12),
    ) {
        let mut world = World::default();
        for (cell, reward) in (0..).zip(&rewards) {
            world.spawn(cell, &hotspot(HotspotKind::Item, u16::MAX, *reward));
        }
        for (number, batch) in batches.iter().enumerate() {
            let wishes: Vec<Wish> = batch
                .iter()
                .map(|(player, cell)| world.wish(CollectItem, *player, *cell, 0))
                .collect();
            world.send(&wishes);
            if number % 6 == 5 {
                restart(&mut world);
            }
            let index = world.home().index();
            let mut wanted: Vec<_> = (0..).zip(index.players()).collect();
            wanted.retain(|(_, player)| player.score > 0);
            wanted.sort_by_key(|(slot, p): &(u32, _)| {
                (std::cmp::Reverse(p.score), p.score_epoch, *slot)
            });
            let mut found = Vec::new();
            let hunt = index.hunt(HUNT).expect("it has cells");
            index.ranked(hunt, 1, usize::MAX, |ranked| found.push(*ranked.player));
            prop_assert!(found.iter().eq(wanted.iter().map(|(_, player)| *player)));
            let newest = found.iter().map(|player| player.score_epoch).max().unwrap_or(0);
            prop_assert_eq!(index.tally(hunt).score_epoch, newest);
        }
    }
}

/// The old system kept quests and rewards in different topics, and quests were seen
/// ended up to 800 ms before they were paid, or for ever when one was lost. Here they
/// are one step: at every epoch, from memory and from a snapshot, a quest that is
/// ended is paid, and one that is paid is ended; retries and another try of the
/// same quest pay nothing more.
#[test]
fn no_quest_is_ahead_of_its_reward() {
    const END: u32 = 70;
    const NODES: u64 = 4;
    let mut world = World::default();
    world.spawn(1, &hotspot(HotspotKind::Item, 1, 1));
    let pay = QuestPay { node: 0, end: END }.pack().unwrap();
    for quest in 0..3 {
        let define = world.wish(QuestDefine, 9, quest, pay).with(&[3, 0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(world.one(define), First(Outcome::Applied));
    }
    for round in 0..24u64 {
        let (quest, node) = (round / NODES % 3, round % NODES);
        let passes: Vec<Wish> =
            (1..=5).map(|player| world.wish(Checkpoint, player, quest << 8 | node, 0)).collect();
        let with_retries: Vec<Wish> = passes.iter().flat_map(|wish| [*wish; 2]).collect();
        let answers = world.send_cut(&with_retries, &[1 + round as usize % 4]);
        let wanted = if round < 12 { Outcome::Applied } else { Outcome::AlreadyDone };
        assert!(answers.chunks(2).all(|pair| pair[0] == First(wanted)), "round {round}");
        if round % 3 == 2 {
            restart(&mut world);
        }
        let index = world.home().index();
        for player in 1..=5 {
            let slot = index.player_slot(index.hunt(HUNT).unwrap(), player).expect("known");
            let ended = (0..3)
                .filter_map(|quest| index.deed_slot(slot, DeedKind::Quest, quest))
                .filter(|deed| index.deed(*deed).ended != 0)
                .count() as u64;
            assert_eq!(index.player(slot).wallet, ended * u64::from(END), "round {round}");
            assert_eq!(ended, (round + 1).min(12) / NODES, "round {round}");
        }
    }
}
