//! Split hunts: a key that is picked up in one region opens a chest in another,
//! whatever is lost, repeated, captured or replayed on the way.

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{EventKind, Hotspot, HuntSetup, Quota};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::partition::partition_of;
use veltrix_abi::split::{Opening, Region, Split};
use veltrix_abi::wire::Event;

use super::effects::RESERVED;
use super::tests::{CHEST, ITEM, LIMITS, PARTITIONS, START_MS, TICKET, secret};
use super::{Partition, PartitionImage, Settled};
use crate::batch::{BatchView, Pool};
use crate::dedupe::DedupeLimits;

const ROOT: u64 = 99;
const SPLIT: Split = Split { bits: 2, skip: 0 };

/// A split hunt over all partitions, and whoever carries what they owe.
struct World {
    partitions: Vec<Partition>,
    pool: Pool,
    epoch: u64,
    log_time_ms: u64,
    tags: u64,
    settled: Vec<Settled>,
    /// Effects that partitions which are gone have seen again.
    repeated: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wish {
    domain: u64,
    key: [u8; 16],
    player: u64,
    kind: EventKind,
    subject: u64,
    argument: u64,
}

impl World {
    fn new() -> Self {
        let partition = |number| Partition::new(number, &LIMITS, secret()).unwrap();
        let mut world = Self {
            partitions: (0..PARTITIONS).map(partition).collect(),
            pool: Pool::new(1, PARTITIONS),
            epoch: 10,
            log_time_ms: START_MS,
            tags: 0,
            settled: Vec::new(),
            repeated: 0,
        };
        for number in 0..SPLIT.regions() {
            assert_eq!(world.open(number, 1), Outcome::Applied);
        }
        world
    }

    fn open(&mut self, number: u16, game: u8) -> Outcome {
        let region = Region { root: ROOT, split: SPLIT, number };
        let setup = HuntSetup { game, length_s: 0, settings: 0 };
        let payload = Opening::bytes_of_region(&Quota::default(), &region);
        let wish = self.wish(region.domain(), 0, EventKind::HuntOpen, 0, setup.pack().unwrap());
        let byte = self.entry(&[wish], &payload, &[])[0];
        Outcome::from_code(byte).unwrap()
    }

    fn wish(
        &mut self,
        domain: u64,
        player: u64,
        kind: EventKind,
        subject: u64,
        argument: u64,
    ) -> Wish {
        self.tags += 1;
        let mut key = [0; 16];
        key[..6].copy_from_slice(&self.log_time_ms.to_be_bytes()[2..]);
        key[6] = 0x70;
        key[8..].copy_from_slice(&self.tags.to_be_bytes());
        key[8] = 0x80;
        Wish { domain, key, player, kind, subject, argument }
    }

    /// What a player does, sent to where the player is at home.
    fn act(&mut self, player: u64, kind: EventKind, subject: u64, argument: u64) -> Wish {
        self.wish(home(player), player, kind, subject, argument)
    }

    fn spawn(&mut self, cell: u64, hotspot: &Hotspot) {
        let domain = SPLIT.domain(ROOT, SPLIT.of_cell(cell));
        let argument = hotspot.pack().unwrap();
        let wish = self.wish(domain, 0, EventKind::HotspotSpawn, cell, argument);
        assert_eq!(self.send(&[wish]), [Outcome::Applied.code()]);
    }

    fn send(&mut self, wishes: &[Wish]) -> Vec<u8> {
        self.entry(wishes, &[], &[])
    }

    /// One entry of events and of what these partitions owe; outcome bytes of the
    /// events.
    fn entry(&mut self, wishes: &[Wish], payload: &[u8], senders: &[usize]) -> Vec<u8> {
        self.seal(wishes, payload, senders);
        self.apply()
    }

    fn seal(&mut self, wishes: &[Wish], payload: &[u8], senders: &[usize]) {
        let index = self.pool.take().unwrap();
        let batch = self.pool.open_buffer(index);
        for wish in wishes {
            let event = Event {
                key: wish.key,
                player: wish.player,
                subject: wish.subject,
                argument: wish.argument,
                kind: wish.kind.code(),
                reserved: 0,
                payload,
            };
            let mut body = vec![0; event.wire_bytes()];
            event.write(&mut body);
            batch.append(partition_of(wish.domain, PARTITIONS), wish.domain, &body, 1).unwrap();
        }
        for sender in senders {
            while self.partitions[*sender].has_unsent() {
                self.partitions[*sender].send_into(batch, PARTITIONS);
            }
        }
        batch.seal(3, 5, self.epoch + 1);
    }

    fn apply(&mut self) -> Vec<u8> {
        self.epoch += 1;
        let batch = self.pool.get(0);
        let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
        for range in view.ranges() {
            let partition = &mut self.partitions[usize::from(range.partition)];
            let log_time_ns = self.log_time_ms * 1_000_000;
            partition.apply(self.epoch, log_time_ns, &view, &range, Some(batch.slots()));
            partition.take_settled(|settled| self.settled.push(settled));
        }
        (0..batch.events()).map(|slot| batch.slots().outcome(slot)).collect()
    }

    fn send_again(&mut self) {
        for partition in &mut self.partitions {
            partition.send_stuck_again(partition.oldest_owed());
        }
    }

    /// Carries on until nobody owes anything; gives the entries that took.
    fn pump(&mut self) -> usize {
        let mut entries = 0;
        while self.partitions.iter().any(Partition::has_unsent) {
            assert!(entries < 100, "it never ends");
            let all: Vec<usize> = (0..self.partitions.len()).collect();
            self.entry(&[], &[], &all);
            entries += 1;
        }
        entries
    }

    /// One event, carried to its end.
    fn whole(&mut self, wish: Wish) -> Outcome {
        let byte = self.send(&[wish])[0];
        self.pump();
        if byte != RESERVED {
            return Outcome::from_code(byte).unwrap();
        }
        let settled = self.settled.pop().expect("a request has its reply");
        assert!(self.settled.is_empty());
        Outcome::from_code(settled.outcome).unwrap()
    }

    /// Wallet, score, items of a player, as the home knows them.
    fn player(&self, player: u64) -> Option<(u64, u64, [u16; 8])> {
        let domain = home(player);
        let index = self.partitions[usize::from(partition_of(domain, PARTITIONS))].index();
        let slot = index.player_slot(index.hunt(domain)?, player)?;
        let found = index.player(slot);
        Some((found.wallet, found.score, found.inventory))
    }

    /// Times a hotspot can still be taken, and by whom it was claimed.
    fn cell(&self, cell: u64) -> (u16, Option<u64>) {
        let domain = SPLIT.domain(ROOT, SPLIT.of_cell(cell));
        let index = self.partitions[usize::from(partition_of(domain, PARTITIONS))].index();
        let hunt = index.hunt(domain).unwrap();
        let found = index.cell(index.cell_slot(hunt, cell).unwrap());
        let claimant = crate::index::PlayerSlot::of_mark(found.claimed_by);
        (found.remaining, claimant.map(|slot| index.player(slot).player()))
    }

    /// Captures everything and begins again from that.
    fn restart(&mut self) {
        for partition in &mut self.partitions {
            partition.capture_begin(PartitionImage::new(&LIMITS).unwrap());
            while !partition.capture_step(4096) {}
            let image = partition.capture_end();
            let digest = partition.digest();
            self.repeated += partition.effects_repeated();
            *partition = Partition::restore(&LIMITS, secret(), &image).unwrap();
            assert_eq!(partition.digest(), digest);
        }
    }
}

fn owes_nothing(partition: &Partition) -> bool {
    partition.owed() == (0, 0)
}

fn home(player: u64) -> u64 {
    SPLIT.domain(ROOT, SPLIT.home_of(player))
}

/// A player at home in a region.
fn player_of(region: u16) -> u64 {
    (1..).find(|player| SPLIT.home_of(*player) == region).unwrap()
}

/// A cell of a region.
const fn cell_of(region: u16, number: u64) -> u64 {
    (region as u64) << 58 | number
}

const KEY: u64 = ITEM.item as u64 + 1;

#[test]
fn a_key_picked_up_in_one_region_opens_a_chest_in_another() {
    let mut w = World::new();
    for region in 0..SPLIT.regions() {
        w.spawn(cell_of(region, 1), &ITEM);
        w.spawn(cell_of(region, 2), &CHEST);
    }
    for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 3), (2, 0)] {
        let player = player_of(2);
        let (wallet, score, _) = w.player(player).unwrap_or_default();
        let collect = w.act(player, EventKind::CollectItem, cell_of(from, 1), 0);
        assert_eq!(w.whole(collect), Outcome::Applied);
        assert_eq!(w.player(player).unwrap().2[2], 1);
        let open = w.act(player, EventKind::UseKey, cell_of(to, 2), KEY);
        assert_eq!(w.whole(open), Outcome::Applied);
        let held = [0; 8];
        assert_eq!(w.player(player), Some((wallet + 40, score + 50, held)));
    }
    assert_eq!(w.cell(cell_of(2, 1)).0, 1, "collected from twice");
}

#[test]
fn what_the_other_region_refuses_is_refunded() {
    let mut w = World::new();
    let player = player_of(0);
    w.spawn(cell_of(0, 1), &ITEM);
    let collect = w.act(player, EventKind::CollectItem, cell_of(0, 1), 0);
    assert_eq!(w.whole(collect), Outcome::Applied, "at home, at once");
    let before = w.player(player);
    let chest = Hotspot { remaining: 1, lifetime_s: 0, ..CHEST };
    w.spawn(cell_of(1, 3), &Hotspot { item: 5, ..chest });
    w.spawn(cell_of(1, 4), &Hotspot { lifetime_s: 1, ..chest });
    w.log_time_ms += 2_000;
    for (cell, key, outcome) in [
        (cell_of(1, 2), KEY, Outcome::NotFound),
        (cell_of(1, 3), KEY, Outcome::NoKey),
        (cell_of(1, 4), KEY, Outcome::Expired),
        (cell_of(1, 3), 6, Outcome::NoKey),
        (cell_of(1, 3), 0, Outcome::NoKey),
    ] {
        let open = w.act(player, EventKind::UseKey, cell, key);
        assert_eq!(w.whole(open), outcome, "{cell:x} {key}");
        assert_eq!(w.player(player), before, "{cell:x} {key}");
    }
    let close = w.wish(SPLIT.domain(ROOT, 1), 0, EventKind::HuntClose, 0, 0);
    assert_eq!(w.whole(close), Outcome::Applied);
    let open = w.act(player, EventKind::UseKey, cell_of(1, 2), KEY);
    assert_eq!(w.whole(open), Outcome::Closed, "that region is closed");
    assert_eq!(w.player(player), before);
}

#[test]
fn one_of_many_from_everywhere_gets_the_ticket() {
    let mut w = World::new();
    let cell = cell_of(3, 9);
    w.spawn(cell, &TICKET);
    let claims: Vec<Wish> =
        (1..=40).map(|player| w.act(player, EventKind::Claim, cell, 0)).collect();
    let bytes = w.send(&claims);
    w.pump();
    let at_once = bytes.iter().filter(|b| **b == Outcome::Applied.code()).count();
    let later = w.settled.iter().filter(|s| s.outcome == Outcome::Applied.code()).count();
    assert_eq!(at_once + later, 1);
    let refused = |code: u8| code == Outcome::AlreadyClaimed.code();
    let all = bytes.iter().copied().filter(|b| *b != RESERVED);
    assert_eq!(all.chain(w.settled.iter().map(|s| s.outcome)).filter(|c| refused(*c)).count(), 39);
    let (remaining, winner) = w.cell(cell);
    assert_eq!((remaining, w.player(winner.unwrap())), (0, Some((100, 100, [0; 8]))));
    let wallets: u64 = (1..=40).filter_map(|p| w.player(p)).map(|(wallet, ..)| wallet).sum();
    assert_eq!(wallets, 100);
}

#[test]
fn a_transfer_to_another_home_is_both_or_neither() {
    let mut w = World::new();
    let (payer, payee) = (player_of(0), player_of(3));
    let credit = w.act(payer, EventKind::WalletCredit, 0, 100);
    assert_eq!(w.whole(credit), Outcome::Applied);
    let pay = w.act(payer, EventKind::WalletTransfer, payee, 60);
    assert_eq!(w.whole(pay), Outcome::Applied);
    assert_eq!([payer, payee].map(|p| w.player(p).unwrap().0), [40, 60]);
    let pay = w.act(payer, EventKind::WalletTransfer, payee, 60);
    assert_eq!(w.whole(pay), Outcome::InsufficientFunds);
    // The payee's wallet is full by now: the payer has its money back.
    let fill = w.act(payee, EventKind::WalletCredit, 0, u64::MAX - 70);
    assert_eq!(w.whole(fill), Outcome::Applied);
    let pay = w.act(payer, EventKind::WalletTransfer, payee, 11);
    assert_eq!(w.whole(pay), Outcome::Full);
    assert_eq!([payer, payee].map(|p| w.player(p).unwrap().0), [40, u64::MAX - 10]);
}

#[test]
fn events_are_taken_where_they_belong() {
    let mut w = World::new();
    let player = player_of(1);
    let elsewhere = SPLIT.domain(ROOT, 2);
    let item = ITEM.pack().unwrap();
    for (domain, kind, subject, argument) in [
        (elsewhere, EventKind::PlayerJoin, 0, 0),
        (elsewhere, EventKind::CollectItem, cell_of(2, 1), 0),
        (elsewhere, EventKind::WalletCredit, 0, 5),
        (elsewhere, EventKind::HotspotSpawn, cell_of(1, 1), item),
        (elsewhere, EventKind::HotspotExpire, cell_of(1, 1), 0),
    ] {
        let wrong = w.wish(domain, player, kind, subject, argument);
        assert_eq!(w.whole(wrong), Outcome::WrongRegion, "{kind:?}");
        // The key is not used up: partitions of both regions may be one.
        let right = Wish { domain: SPLIT.domain(ROOT, 1), ..wrong };
        assert_ne!(w.whole(right), Outcome::WrongRegion, "{kind:?}");
    }
    assert_eq!(w.open(0, 1), Outcome::AlreadyDone);
    let region = Region { root: ROOT + 1, split: SPLIT, number: 0 };
    let payload = Opening::bytes_of_region(&Quota::default(), &region);
    let setup = HuntSetup { game: 1, length_s: 0, settings: 0 }.pack().unwrap();
    let open = w.wish(5, 0, EventKind::HuntOpen, 0, setup);
    assert_eq!(w.entry(&[open], &payload, &[]), [Outcome::WrongRegion.code()]);
    let in_teams = HuntSetup { game: 3, length_s: 0, settings: 0 }.pack().unwrap();
    let open = w.wish(region.domain(), 0, EventKind::HuntOpen, 0, in_teams);
    assert_eq!(w.entry(&[open], &payload, &[]), [Outcome::Malformed.code()], "a shared bank");
    let early = w.wish(region.domain(), 0, EventKind::HotspotSpawn, 1, item);
    assert_eq!(w.send(&[early]), [Outcome::Applied.code()]);
    let open = w.wish(region.domain(), 0, EventKind::HuntOpen, 0, setup);
    assert_eq!(w.entry(&[open], &payload, &[]), [Outcome::WrongGame.code()], "it has cells");
}

/// Lost entries, entries that come twice, restarts between: each request has one
/// effect.
#[test]
fn effects_are_exactly_once_whatever_is_lost_or_repeated() {
    let mut w = World::new();
    let player = player_of(0);
    let (item, chest) = (cell_of(1, 1), cell_of(2, 1));
    w.spawn(item, &ITEM);
    w.spawn(chest, &Hotspot { lifetime_s: 0, ..CHEST });
    let all: Vec<usize> = (0..usize::from(PARTITIONS)).collect();
    for (wish, seed) in [
        (w.act(player, EventKind::CollectItem, item, 0), 1u64),
        (w.act(player, EventKind::UseKey, chest, KEY), 2),
        (w.act(player, EventKind::CollectItem, item, 0), 3),
        (w.act(player, EventKind::UseKey, chest, KEY), 5),
    ] {
        assert_eq!(w.send(&[wish]), [RESERVED]);
        let mut random = seed;
        for step in 0..60 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match random >> 61 {
                // Sealed, and never committed.
                0 => w.seal(&[], &[], &all),
                1 => w.restart(),
                2 => w.send_again(),
                // Whatever was sealed last commits, or commits again.
                4 | 5 => {
                    w.apply();
                }
                // The sender asks again meanwhile.
                3 => {
                    let byte = w.send(&[wish])[0];
                    assert_ne!(byte & DUPLICATE_BIT, 0, "step {step}");
                }
                _ if w.partitions.iter().any(Partition::has_unsent) => {
                    w.entry(&[], &[], &all);
                }
                _ => {}
            }
        }
        w.send_again();
        w.pump();
        assert_eq!(w.settled.len(), 1, "answered once");
        assert_eq!(w.settled.pop().unwrap().outcome, Outcome::Applied.code());
        let again = w.send(&[wish])[0];
        assert_eq!(again, Outcome::Applied.code() | DUPLICATE_BIT);
        assert!(w.partitions.iter().all(owes_nothing));
    }
    assert_eq!(w.player(player), Some((80, 100, [0; 8])));
    assert_eq!((w.cell(item).0, w.cell(chest).0), (1, 0));
    w.restart();
    assert!(w.repeated > 4, "{} came again", w.repeated);
}

#[test]
fn a_full_outbox_refuses_and_loses_nothing() {
    let mut w = World::new();
    let player = player_of(0);
    let cell = cell_of(1, 1);
    w.spawn(cell, &Hotspot { remaining: 60_000, ..ITEM });
    let mut reserved = 0;
    'full: loop {
        let wishes: Vec<Wish> =
            (0..500).map(|_| w.act(player, EventKind::CollectItem, cell, 0)).collect();
        for byte in w.send(&wishes) {
            if byte == Outcome::Full.code() {
                break 'full;
            }
            assert_eq!(byte, RESERVED);
            reserved += 1;
        }
    }
    assert_eq!(reserved, super::EFFECTS_MAX);
    w.pump();
    assert_eq!(w.player(player).unwrap().2[2], super::EFFECTS_MAX as u16);
    assert_eq!(w.cell(cell).0, 60_000 - super::EFFECTS_MAX as u16);
}

#[test]
fn a_request_that_came_too_late_is_refunded() {
    let mut w = World::new();
    let player = player_of(0);
    w.spawn(cell_of(1, 1), &ITEM);
    let collect = w.act(player, EventKind::CollectItem, cell_of(1, 1), 0);
    assert_eq!(w.send(&[collect]), [RESERVED]);
    let DedupeLimits { window_ms, .. } = LIMITS.dedupe;
    w.log_time_ms += window_ms + 1;
    w.pump();
    assert_eq!(w.settled.pop().unwrap().outcome, Outcome::TooOld.code());
    assert_eq!(w.player(player), Some((0, 0, [0; 8])));
    assert_eq!(w.cell(cell_of(1, 1)).0, 3);
}

/// The same key, sent by one player to two split hunts whose regions share partitions.
#[test]
fn the_same_key_in_two_hunts_is_two_requests() {
    let mut w = World::new();
    let player = player_of(0);
    let partition = |root, region| partition_of(SPLIT.domain(root, region), PARTITIONS);
    // Homes in different partitions, since there the key would be a duplicate.
    let (here, there, root) = (1_000..)
        .flat_map(|root| (1..4).flat_map(move |a| (1..4).map(move |b| (a, b, root))))
        .find(|(here, there, root)| {
            let homes = [partition(ROOT, 0), partition(*root, SPLIT.home_of(player))];
            homes[0] != homes[1] && partition(ROOT, *here) == partition(*root, *there)
        })
        .unwrap();
    let setup = HuntSetup { game: 1, length_s: 0, settings: 0 }.pack().unwrap();
    for number in 0..SPLIT.regions() {
        let region = Region { root, split: SPLIT, number };
        let payload = Opening::bytes_of_region(&Quota::default(), &region);
        let open = w.wish(region.domain(), 0, EventKind::HuntOpen, 0, setup);
        assert_eq!(w.entry(&[open], &payload, &[]), [Outcome::Applied.code()]);
    }
    w.spawn(cell_of(here, 1), &ITEM);
    let spawn = w.wish(
        SPLIT.domain(root, there),
        0,
        EventKind::HotspotSpawn,
        cell_of(there, 1),
        ITEM.pack().unwrap(),
    );
    assert_eq!(w.send(&[spawn]), [Outcome::Applied.code()]);
    let first = w.act(player, EventKind::CollectItem, cell_of(here, 1), 0);
    let domain = SPLIT.domain(root, SPLIT.home_of(player));
    let second = Wish { domain, subject: cell_of(there, 1), ..first };
    assert_eq!(w.send(&[first, second]), [RESERVED, RESERVED]);
    w.pump();
    let outcomes: Vec<u8> = w.settled.iter().map(|settled| settled.outcome).collect();
    assert_eq!(outcomes, [Outcome::Applied.code(); 2]);
    assert!(w.partitions.iter().all(owes_nothing));
}

/// One request is lost while others go their way: it is sent again, whatever moves.
#[test]
fn what_is_stuck_is_sent_again_by_itself() {
    let mut w = World::new();
    let player = player_of(0);
    w.spawn(cell_of(1, 1), &ITEM);
    let home = usize::from(partition_of(home(player), PARTITIONS));
    let collect = w.act(player, EventKind::CollectItem, cell_of(1, 1), 0);
    assert_eq!(w.send(&[collect]), [RESERVED]);
    w.seal(&[], &[], &[home]);
    let before = w.partitions[home].oldest_owed();
    assert!(!w.partitions[home].has_unsent(), "sent, and its entry is lost");
    // Its replies have moved meanwhile.
    w.partitions[home].send_stuck_again((before.0, before.1 + 1));
    assert!(w.partitions[home].has_unsent());
    w.pump();
    assert_eq!(w.settled.len(), 1);
    let oldest = w.partitions[home].oldest_owed();
    w.partitions[home].send_stuck_again(oldest);
    assert!(!w.partitions[home].has_unsent(), "nothing is owed");
}
