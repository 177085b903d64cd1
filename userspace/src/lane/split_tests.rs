//! Split hunts through a lane: answers that come when another region has had its say.

use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, HuntSetup, Quota};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::split::{Opening, Region, Split};
use veltrix_abi::wire::Event;

use super::log_tests::{Control, datagram, key, lane};
use super::tests::FakePort;
use super::*;

const ROOT: u64 = 5;
const SPLIT: Split = Split { bits: 1, skip: 0 };
const APPLIED: u8 = Outcome::Applied as u8;
const ITEM: Hotspot =
    Hotspot { kind: HotspotKind::Item, item: 2, remaining: 9, reward: 1, lifetime_s: 0 };

/// A cell of region 1, and a player at home in region 0.
const CELL: u64 = 1 << 59 | 7;

fn player() -> u64 {
    (1..).find(|player| SPLIT.home_of(*player) == 0).unwrap()
}

fn event(n: u64, kind: EventKind, subject: u64, argument: u64, payload: &[u8]) -> Event<'_> {
    let (kind, player) = (kind.code(), player());
    Event { key: key(n), player, subject, argument, kind, reserved: 0, payload }
}

/// Both regions are open, and the cell has its item.
fn furnish(control: &mut Control, lane: &mut Lane<FakePort>) {
    let setup = HuntSetup { game: 1, length_s: 0, settings: 0 }.pack().unwrap();
    for number in 0..2 {
        let region = Region { root: ROOT, split: SPLIT, number };
        let payload = Opening::bytes_of_region(&Quota::default(), &region);
        let open = event(100 + u64::from(number), EventKind::HuntOpen, 0, setup, &payload);
        lane.deliver(3, datagram(Mode::Durable, region.domain(), number.into(), &[open]));
    }
    let spawn = event(102, EventKind::HotspotSpawn, CELL, ITEM.pack().unwrap(), &[]);
    lane.deliver(3, datagram(Mode::Durable, SPLIT.domain(ROOT, 1), 2, &[spawn]));
    step(control, lane);
    assert!(lane.acks().iter().all(|ack| ack.4 == [APPLIED]));
}

/// What was sealed commits, and is applied and answered.
fn step(control: &mut Control, lane: &mut Lane<FakePort>) {
    lane.turn();
    control.commit_all();
    lane.turn();
    lane.assert_log_closed();
}

#[test]
fn a_datagram_is_answered_when_its_last_event_is_settled() {
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    furnish(&mut control, &mut lane);
    let home = SPLIT.domain(ROOT, 0);
    let collect = event(1, EventKind::CollectItem, CELL, 0, &[]);
    let unknown = event(2, EventKind::CollectItem, CELL + 1, 0, &[]);
    let credit = event(3, EventKind::WalletCredit, 0, 5, &[]);
    let both = datagram(Mode::Durable, home, 7, &[credit, collect, unknown]);
    lane.deliver(3, both.clone());
    step(&mut control, &mut lane);
    assert!(lane.acks().is_empty(), "the other region has not judged");
    // The sender asks again meanwhile: silence, since nothing is decided.
    lane.deliver(3, both.clone());
    for _ in 0..4 {
        step(&mut control, &mut lane);
    }
    assert_eq!(lane.counters.acks.events_lost.get(), 3);
    let not_found = Outcome::NotFound.code();
    let acks = lane.acks();
    assert_eq!(acks.len(), 1, "{acks:?}");
    let settled_at = acks[0].2;
    assert_eq!((acks[0].1, &acks[0].4), (7, &vec![APPLIED, APPLIED, not_found]));
    lane.deliver(3, both);
    step(&mut control, &mut lane);
    let again = [APPLIED, APPLIED, not_found].map(|outcome| outcome | DUPLICATE_BIT);
    let acks = lane.acks();
    assert_eq!((acks[0].1, &acks[0].4), (7, &again.to_vec()));
    assert_eq!(acks[0].5[1..], [settled_at; 2], "first epochs are those that settled");
    assert!(lane.log.as_ref().is_some_and(LogHalf::is_idle));
}

#[test]
fn who_does_not_lead_sends_nothing_and_sends_it_later() {
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    furnish(&mut control, &mut lane);
    let collect = event(1, EventKind::CollectItem, CELL, 0, &[]);
    lane.deliver(3, datagram(Mode::Durable, SPLIT.domain(ROOT, 0), 7, &[collect]));
    lane.turn();
    control.facts.ready.store(false, Relaxed);
    for _ in 0..4 {
        step(&mut control, &mut lane);
    }
    let before = control.epoch;
    assert!(lane.acks().is_empty() && control.sealed.is_empty());
    assert!(lane.log.as_ref().is_some_and(LogHalf::is_idle), "it would turn for nothing");
    control.facts.ready.store(true, Relaxed);
    for _ in 0..3 {
        step(&mut control, &mut lane);
    }
    assert_eq!(lane.acks()[0].4, [APPLIED]);
    assert_eq!(control.epoch, before + 2, "one entry each way");
}
