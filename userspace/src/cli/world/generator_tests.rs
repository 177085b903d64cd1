use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use veltrix_abi::wire::Event;

use super::*;
use crate::apply::rules::Action;
use crate::index::position_of;

const PLAN: Plan = Plan {
    cells: 20_000,
    hunts: 300,
    players: 9_000,
    seed: 7,
    first_hunt: 1,
    hunt_keys: HuntKeys::Even,
    partitions: 64,
};

fn world(plan: Plan) -> World {
    World::new(plan).expect("a sound plan")
}

fn checksum(plan: Plan) -> String {
    format!("{:032x}", super::super::file::checksum(&world(plan)))
}

#[test]
fn the_same_plan_is_the_same_world_on_every_machine_and_another_is_another() {
    // Worlds are compared by this number: a change of it is a change of every world.
    assert_eq!(checksum(PLAN), "72c6a0f1ff63a0c33e83e1fd7b640dc5");
    let others = [
        Plan { seed: 8, ..PLAN },
        Plan { cells: 20_001, ..PLAN },
        Plan { hunts: 301, ..PLAN },
        Plan { players: 9_001, ..PLAN },
        Plan { first_hunt: 2, ..PLAN },
        Plan { hunt_keys: HuntKeys::Sequence, ..PLAN },
        Plan { partitions: 8, ..PLAN },
    ];
    let all: HashSet<String> = others.into_iter().chain([PLAN]).map(checksum).collect();
    assert_eq!(all.len(), 8);
}

#[test]
fn an_event_is_a_function_of_its_number() {
    let world = world(PLAN);
    assert_eq!(world.events(), 20_000 + 9_000 + world.count(Phase::Items));
    for (i, event) in (0..).zip(world.iter()) {
        assert_eq!(world.event(i), Some(event), "{i}");
    }
    assert_eq!(world.event(world.events()), None);
}

#[test]
fn counts_are_exact_and_every_event_is_one_that_a_server_applies() {
    let world = world(PLAN);
    let mut counts = HashMap::new();
    let mut kinds = HashMap::new();
    let mut cells = HashMap::new();
    let mut players = HashMap::new();
    for event in world.iter() {
        *counts.entry(event.kind).or_insert(0_u64) += 1;
        let WorldEvent { hunt, kind, player, subject, argument } = event;
        let action = Action::of(kind.code(), player, subject, argument, &[]);
        match action.unwrap_or_else(|| panic!("{event:?}")) {
            Action::Spawn(hotspot) => {
                assert!(cells.insert((hunt, subject), hotspot).is_none(), "twice: {event:?}");
                *kinds.entry(hotspot.kind).or_insert(0_u64) += 1;
            }
            Action::Credit(amount) => {
                assert!((100..1_000).contains(&amount));
                assert!(players.insert(player, hunt).is_none(), "twice: {event:?}");
            }
            Action::Collect => {
                let hotspot = cells.get_mut(&(hunt, subject)).expect("a hotspot of the same hunt");
                assert_eq!(hotspot.kind, HotspotKind::Item);
                hotspot.remaining = hotspot.remaining.checked_sub(1).expect("enough for all");
                assert_eq!(players.get(&player), Some(&hunt));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (counts[&EventKind::HotspotSpawn], counts[&EventKind::WalletCredit]),
        (20_000, 9_000)
    );
    assert_eq!(counts[&EventKind::CollectItem], world.count(Phase::Items));
    assert!((2_000..=2_400).contains(&world.count(Phase::Items)), "every fourth of 9,000");
    assert_eq!((1..=9_000).filter(|id| players.contains_key(id)).count(), 9_000);
    assert!(kinds[&HotspotKind::Item] > kinds[&HotspotKind::Chest]);
    assert!(kinds[&HotspotKind::Chest] > kinds[&HotspotKind::Ticket]);
    assert!(kinds[&HotspotKind::Ticket] > 900, "{kinds:?}");
    let hunts: HashSet<u64> = world.hunts().iter().map(|hunt| hunt.key).collect();
    assert_eq!(hunts.len(), 300);
    assert!((0..300).all(|index| world.count_in(Phase::Hotspots, index) > 0));
    assert!(world.count_in(Phase::Hotspots, 0) > 10 * world.count_in(Phase::Hotspots, 299));
}

#[test]
fn keys_are_version_7_of_the_time_given_and_never_repeat() {
    let world = world(PLAN);
    let mut keys = HashSet::new();
    for phase in Phase::ALL {
        for index in 0..world.hunts().len() {
            for n in 0..world.count_in(phase, index) {
                let key = world.key(phase, index, n, 0x0198_7654_3210);
                assert_eq!(key[..6], [0x01, 0x98, 0x76, 0x54, 0x32, 0x10]);
                let event = Event {
                    key,
                    player: 0,
                    subject: 0,
                    argument: 0,
                    kind: 1,
                    reserved: 0,
                    payload: &[],
                };
                assert!(event.is_well_formed(), "{key:?}");
                assert!(keys.insert(key), "{phase:?} {index} {n}");
                // Another time changes the time alone.
                assert_eq!(world.key(phase, index, n, 5)[6..], key[6..]);
            }
        }
    }
    let other = super::super::generator::World::new(Plan { seed: 8, ..PLAN }).unwrap();
    assert_ne!(other.key(Phase::Hotspots, 0, 0, 5), world.key(Phase::Hotspots, 0, 0, 5));
}

#[test]
fn cells_lie_around_their_city() {
    let world = world(PLAN);
    for (index, hunt) in world.hunts().iter().enumerate() {
        let reach = |lat: f64, lon: f64| position(hunt.city.lat + lat, hunt.city.lon + lon);
        let (low, high) = (reach(-0.101, -0.101), reach(0.101, 0.101));
        for n in 0..world.count_in(Phase::Hotspots, index) {
            let (x, y) = position_of(world.event_in(Phase::Hotspots, index, n).subject);
            let inside = (low.0..=high.0).contains(&x) && (low.1..=high.1).contains(&y);
            assert!(inside, "{} {x} {y}", hunt.city.name);
        }
    }
}

#[test]
fn a_full_hunt_repeats_no_cell() {
    let mut seen = vec![false; HUNT_CELLS_MAX as usize];
    for n in 0..HUNT_CELLS_MAX as u32 {
        let within = permuted(n, 0xfeed) as usize;
        assert!(!std::mem::replace(&mut seen[within], true), "{n}");
    }
}

#[test]
fn even_keys_fill_partitions_evenly() {
    let plan = Plan { cells: 1_200_000, hunts: 1_000, players: 1_000_000, ..PLAN };
    let even = world(plan).wants(64);
    assert!(even.cells_max < 1_230_000 && even.players_max < 1_025_000, "{even:?}");
    let sequence = world(Plan { hunt_keys: HuntKeys::Sequence, ..plan });
    assert!(sequence.hunts().iter().zip(1..).all(|(hunt, key)| hunt.key == key));
    assert!(sequence.wants(64).cells_max > 2_400_000, "{:?}", sequence.wants(64));
    let one = world(plan).wants(1);
    assert_eq!((one.cells_max, one.players_max, one.hunts_max), (1_200_000, 1_000_000, 1_000));
}

#[test]
fn what_is_no_world_is_refused_by_flag() {
    for (plan, words) in [
        (Plan { cells: 0, ..PLAN }, "--cells is 0, wanted 300 to"),
        (Plan { cells: 299, ..PLAN }, "--cells is 299"),
        (Plan { hunts: 0, ..PLAN }, "--hunts is 0, wanted 1 to 1000000"),
        (Plan { hunts: HUNTS_MAX + 1, ..PLAN }, "--hunts is 1000001"),
        (Plan { players: 0, ..PLAN }, "--players is 0"),
        (Plan { players: PLAYERS_MAX + 1, ..PLAN }, "--players is"),
        (Plan { cells: u64::MAX, ..PLAN }, "--cells is 18446744073709551615"),
        (Plan { first_hunt: 0, ..PLAN }, "--first-hunt is 0"),
        (Plan { first_hunt: u64::MAX, ..PLAN }, "--first-hunt is"),
        (Plan { partitions: 0, ..PLAN }, "--partitions is 0"),
        (Plan { partitions: 1_025, ..PLAN }, "--partitions is 1025"),
        (Plan { cells: HUNT_CELLS_MAX * 2, hunts: 2, ..PLAN }, "the hunt in Shanghai would get"),
    ] {
        let error = World::new(plan).expect_err(words);
        assert_eq!(error.status, ExitStatus::Usage);
        assert!(error.message.contains(words), "{error}");
    }
    let least = world(Plan { cells: 300, players: 300, ..PLAN });
    assert!((0..300).all(|index| least.count_in(Phase::Credits, index) == 1));
}

proptest! {
    #[test]
    fn shares_add_up(total in 0_u64..1 << 50, weights in prop::collection::vec(1_u64..1 << 40, 1..200)) {
        let total = total + weights.len() as u64;
        let starts = apportion(total, &weights);
        prop_assert_eq!(starts.last(), Some(&total));
        prop_assert!(starts.windows(2).all(|pair| pair[1] > pair[0]));
    }

    #[test]
    fn cells_of_a_hunt_differ(seed: u64, index in 0_usize..300, first in 0_u64..HUNT_CELLS_MAX - 300) {
        let world = world(Plan { seed, ..PLAN });
        let cells: HashSet<u64> = (first..first + 300).map(|n| world.cell(index, n)).collect();
        prop_assert_eq!(cells.len(), 300);
    }
}
