//! Whole batches through whole partitions.

use std::sync::Arc;

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::Event;

use super::{DUPLICATES, Digest, Partition, PartitionImage, PartitionLimits};
use crate::batch::{BatchView, Pool};
use crate::dedupe::{DedupeLimits, Secret};
use crate::index::IndexLimits;

pub(super) const START_MS: u64 = 1_700_000_000_000;
const WINDOW_MS: u64 = 60_000;
pub(super) const PARTITIONS: u16 = 4;
pub(crate) const HUNT: u64 = 7;

pub(crate) const LIMITS: PartitionLimits = PartitionLimits {
    index: IndexLimits {
        cells_max: 500,
        players_max: 400,
        hunts_max: 20,
        definitions_max: 16,
        deeds_max: 100,
    },
    dedupe: DedupeLimits { keys_max: 20_000, window_ms: WINDOW_MS },
};

pub(crate) fn secret() -> Arc<Secret> {
    Arc::new(Secret::new(std::array::from_fn(|i| (i as u8).wrapping_mul(167).wrapping_add(13))))
}

/// An event as a client means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) domain: u64,
    pub(super) key_ms: u64,
    pub(super) tag: u64,
    pub(super) player: u64,
    pub(super) kind: u16,
    pub(super) subject: u64,
    pub(super) argument: u64,
    pub(super) payload: &'static [u8],
}

impl Wish {
    pub(crate) fn with(self, payload: &'static [u8]) -> Self {
        Self { payload, ..self }
    }

    fn key(&self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..6].copy_from_slice(&self.key_ms.to_be_bytes()[2..]);
        key[6] = 0x70;
        key[8..].copy_from_slice(&self.tag.to_be_bytes());
        key[8] = 0x80;
        key
    }

    fn write(&self, out: &mut Vec<u8>) {
        let event = Event {
            key: self.key(),
            player: self.player,
            subject: self.subject,
            argument: self.argument,
            kind: self.kind,
            reserved: 0,
            payload: self.payload,
        };
        let at = out.len();
        out.resize(at + event.wire_bytes(), 0);
        event.write(&mut out[at..]);
    }
}

/// What an event was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    First(Outcome),
    Again(Outcome, u64),
}

/// Every partition, and the batch that takes events to them.
pub(crate) struct World {
    pub(crate) partitions: Vec<Partition>,
    limits: PartitionLimits,
    pub(super) pool: Pool,
    pub(crate) epoch: u64,
    pub(super) log_time_ms: u64,
    tags: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::new(LIMITS)
    }
}

impl World {
    pub(crate) fn new(limits: PartitionLimits) -> Self {
        let partition = |number| Partition::new(number, &limits, secret()).unwrap();
        Self {
            partitions: (0..PARTITIONS).map(partition).collect(),
            limits,
            pool: Pool::new(1, PARTITIONS),
            epoch: 10,
            log_time_ms: START_MS,
            tags: 0,
        }
    }

    /// An event with a key of its own, made now.
    pub(crate) fn wish(
        &mut self,
        kind: EventKind,
        player: u64,
        subject: u64,
        argument: u64,
    ) -> Wish {
        self.tags += 1;
        let (key_ms, tag) = (self.log_time_ms, self.tags);
        let kind = kind.code();
        Wish { domain: HUNT, key_ms, tag, player, kind, subject, argument, payload: &[] }
    }

    pub(crate) fn spawn(&mut self, subject: u64, hotspot: &Hotspot) -> Answer {
        let argument = hotspot.pack().unwrap();
        let wish = self.wish(EventKind::HotspotSpawn, 0, subject, argument);
        self.one(wish)
    }

    pub(crate) fn one(&mut self, wish: Wish) -> Answer {
        self.send(&[wish])[0]
    }

    pub(crate) fn send(&mut self, wishes: &[Wish]) -> Vec<Answer> {
        self.send_cut(wishes, &[24])
    }

    /// One batch of these events, in datagrams of so many events in turn; a
    /// datagram ends with its domain.
    pub(crate) fn send_cut(&mut self, wishes: &[Wish], datagrams: &[usize]) -> Vec<Answer> {
        self.epoch += 1;
        self.seal(wishes, datagrams);
        self.apply(self.epoch)
    }

    pub(super) fn seal(&mut self, wishes: &[Wish], datagrams: &[usize]) {
        let index = self.pool.take().unwrap();
        assert_eq!(index, 0);
        let batch = self.pool.open_buffer(index);
        let mut sizes = datagrams.iter().cycle();
        for of_domain in wishes.chunk_by(|a, b| a.domain == b.domain) {
            let mut left = of_domain;
            while !left.is_empty() {
                let (datagram, rest) = left.split_at(left.len().min(*sizes.next().unwrap()));
                left = rest;
                let mut body = Vec::new();
                datagram.iter().for_each(|w| w.write(&mut body));
                let domain = datagram[0].domain;
                let partition = partition_of(domain, PARTITIONS);
                let events = datagram.len() as u16;
                batch.append(partition, domain, &body, events).expect("fits one batch");
            }
        }
        batch.seal(0, 1, 1);
    }

    /// The sealed batch as `epoch`.
    fn apply(&mut self, epoch: u64) -> Vec<Answer> {
        let batch = self.pool.get(0);
        let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
        for range in view.ranges() {
            let partition = &mut self.partitions[usize::from(range.partition)];
            let log_time_ns = self.log_time_ms * 1_000_000;
            partition.apply(epoch, log_time_ns, &view, &range, Some(batch.slots()));
        }
        (0..batch.events())
            .map(|slot| {
                let byte = batch.slots().outcome(slot);
                let outcome =
                    Outcome::from_code(byte & !DUPLICATE_BIT).expect("a slot was left empty");
                match byte & DUPLICATE_BIT {
                    0 => Answer::First(outcome),
                    _ => Answer::Again(outcome, batch.slots().first_epoch(slot)),
                }
            })
            .collect()
    }

    /// Whether the hunt of a domain lies where [`HUNT`] does.
    pub(crate) fn is_home_of(&self, domain: u64) -> bool {
        partition_of(domain, PARTITIONS) == self.home().number()
    }

    pub(crate) fn home(&self) -> &Partition {
        &self.partitions[usize::from(partition_of(HUNT, PARTITIONS))]
    }

    /// Wallet, score and inventory.
    pub(crate) fn player(&self, player: u64) -> Option<(u64, u64, [u16; 8])> {
        let index = self.home().index();
        let slot = index.player_slot(index.hunt(HUNT)?, player)?;
        let found = index.player(slot);
        Some((found.wallet, found.score, found.inventory))
    }

    pub(super) fn digests(&self) -> Vec<Digest> {
        self.partitions.iter().map(Partition::digest).collect()
    }

    /// Captures every partition as it is; the images are whole before anything
    /// else happens.
    pub(crate) fn capture(&mut self) -> Vec<PartitionImage> {
        let limits = self.limits;
        self.partitions
            .iter_mut()
            .map(|partition| {
                partition.capture_begin(PartitionImage::new(&limits).unwrap());
                while !partition.capture_step(4096) {}
                partition.capture_end()
            })
            .collect()
    }
}

pub(super) const TICKET: Hotspot =
    Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 100, lifetime_s: 0 };
pub(super) const ITEM: Hotspot =
    Hotspot { kind: HotspotKind::Item, item: 2, remaining: 3, reward: 10, lifetime_s: 0 };
pub(super) const CHEST: Hotspot =
    Hotspot { kind: HotspotKind::Chest, item: 2, remaining: 2, reward: 40, lifetime_s: 30 };

use Answer::{Again, First};
use EventKind::{
    Claim, CollectItem, HotspotExpire, HotspotSpawn, UseKey, WalletCredit, WalletSpend,
    WalletTransfer,
};

#[test]
fn a_day_of_one_player() {
    let mut w = World::new(LIMITS);
    for (cell, hotspot) in [(1, ITEM), (2, CHEST), (3, TICKET)] {
        assert_eq!(w.spawn(cell, &hotspot), First(Outcome::Applied));
    }
    let mut events = Vec::new();
    let mut wanted = Vec::new();
    for (kind, cell, argument, outcome) in [
        (UseKey, 2, 0, Outcome::NoKey),
        (WalletSpend, 0, 1, Outcome::InsufficientFunds),
        (CollectItem, 9, 0, Outcome::NotFound),
        (CollectItem, 2, 0, Outcome::NotFound),
        (CollectItem, 1, 0, Outcome::Applied),
        (UseKey, 2, 0, Outcome::Applied),
        (UseKey, 2, 0, Outcome::NoKey),
        (Claim, 3, 0, Outcome::Applied),
        (Claim, 3, 0, Outcome::AlreadyClaimed),
        (WalletCredit, u64::MAX, 5, Outcome::Applied),
        (WalletSpend, u64::MAX, 145, Outcome::Applied),
        (WalletSpend, u64::MAX, 1, Outcome::InsufficientFunds),
        (WalletCredit, 0, 0, Outcome::Malformed),
        (Claim, 1 << 60, 0, Outcome::Malformed),
    ] {
        events.push(w.wish(kind, 77, cell, argument));
        wanted.push(First(outcome));
    }
    assert_eq!(w.send(&events), wanted);
    assert_eq!(w.player(77), Some((0, 150, [0; 8])));
    let counts = w.home().outcomes();
    assert_eq!(counts[usize::from(Outcome::Applied.code())], 3 + 5);
    assert_eq!(counts.iter().sum::<u64>(), 3 + 14, "each event counted once");
}

#[test]
fn a_transfer_is_both_wallets_or_neither() {
    let index = IndexLimits { players_max: 2, ..LIMITS.index };
    let mut w = World::new(PartitionLimits { index, ..LIMITS });
    for (payer, payee, amount, outcome) in [
        (1, 2, 1, Outcome::InsufficientFunds),
        (1, 1, 1, Outcome::Malformed),
        (1, 2, 0, Outcome::Malformed),
    ] {
        let wish = w.wish(WalletTransfer, payer, payee, amount);
        assert_eq!(w.one(wish), First(outcome), "{payer} to {payee}");
    }
    assert_eq!(w.home().index().hunts_len(), 0, "a refused event creates nothing");
    let credit = w.wish(WalletCredit, 1, 0, 10);
    let over = w.wish(WalletTransfer, 1, 2, 11);
    let some = w.wish(WalletTransfer, 1, 2, 10);
    let back = w.wish(WalletTransfer, 2, 1, 3);
    let no_room = w.wish(WalletTransfer, 1, 3, 1);
    let applied = First(Outcome::Applied);
    let wanted =
        [applied, First(Outcome::InsufficientFunds), applied, applied, First(Outcome::Full)];
    assert_eq!(w.send(&[credit, over, some, back, no_room]), wanted);
    assert_eq!((w.player(1).unwrap().0, w.player(2).unwrap().0, w.player(3)), (3, 7, None));
    let top = w.wish(WalletCredit, 2, 0, u64::MAX - 7);
    let one_more = w.wish(WalletTransfer, 1, 2, 1);
    assert_eq!(w.send(&[top, one_more]), [applied, First(Outcome::Full)]);
    assert_eq!((w.player(1).unwrap().0, w.player(2).unwrap().0), (3, u64::MAX), "neither moved");
}

/// Two spend what only one can pay, over and over, in the same batch: the old
/// system let both read the wallet first.
#[test]
fn racing_spends_never_make_a_wallet_negative() {
    let mut w = World::new(LIMITS);
    let credit = w.wish(WalletCredit, 1, 0, 100);
    assert_eq!(w.one(credit), First(Outcome::Applied));
    let race: Vec<_> = (0..50)
        .map(|i| match i % 2 {
            0 => w.wish(WalletSpend, 1, 0, 30),
            _ => w.wish(WalletTransfer, 1, 2, 30),
        })
        .collect();
    let applied = w.send(&race).iter().filter(|a| **a == First(Outcome::Applied)).count();
    assert_eq!(applied, 3);
    assert_eq!((w.player(1).unwrap().0, w.player(2).unwrap().0), (10, 30));
}

#[test]
fn an_ended_hotspot_keeps_who_claimed_it() {
    let mut w = World::new(LIMITS);
    assert_eq!(w.spawn(3, &TICKET), First(Outcome::Applied));
    let claim = w.wish(Claim, 1, 3, 0);
    let expire = w.wish(HotspotExpire, 9, 3, 0);
    let late = w.wish(Claim, 2, 3, 0);
    let again = w.wish(HotspotExpire, 9, 3, 0);
    let nowhere = w.wish(HotspotExpire, 9, 4, 0);
    let applied = First(Outcome::Applied);
    let expired = First(Outcome::Expired);
    let wanted = [applied, applied, expired, expired, First(Outcome::NotFound)];
    assert_eq!(w.send(&[claim, expire, late, again, nowhere]), wanted);
    let index = w.home().index();
    let cell = index.cell(index.cell_slot(index.hunt(HUNT).unwrap(), 3).unwrap());
    assert_ne!(cell.claimed_by, 0);
    assert_eq!(w.player(9), None, "a game master is no player");
}

#[test]
fn a_spawn_replaces_what_stood_there() {
    let mut w = World::new(LIMITS);
    assert_eq!(w.spawn(3, &TICKET), First(Outcome::Applied));
    let claim = w.wish(Claim, 1, 3, 0);
    assert_eq!(w.one(claim), First(Outcome::Applied));
    let cell = |w: &World| {
        let index = w.home().index();
        *index.cell(index.cell_slot(index.hunt(HUNT).unwrap(), 3).unwrap())
    };
    assert_ne!(cell(&w).claimed_by, 0);
    assert_eq!(w.spawn(3, &CHEST), First(Outcome::Applied));
    let after = cell(&w);
    assert_eq!((after.kind(), after.claimed_by), (Some(HotspotKind::Chest), 0));
    assert_eq!(after.expiry_s, (START_MS / 1000) as u32 + 30);
    assert_eq!((after.remaining, after.item(), after.reward()), (2, 2, 40));
    assert_eq!(w.home().index().cells_len(), 1);
}

#[test]
fn log_time_alone_makes_things_expire() {
    let mut w = World::new(LIMITS);
    assert_eq!(w.spawn(2, &CHEST), First(Outcome::Applied));
    w.log_time_ms += 29_999;
    let early = w.wish(UseKey, 1, 2, 0);
    assert_eq!(w.one(early), First(Outcome::NoKey));
    w.log_time_ms += 1;
    let late = w.wish(UseKey, 1, 2, 0);
    assert_eq!(w.one(late), First(Outcome::Expired));
    // A stamp that goes back does not bring it to life again.
    w.log_time_ms -= 10_000;
    let later = w.wish(UseKey, 1, 2, 0);
    assert_eq!(w.one(later), First(Outcome::Expired));
}

#[test]
fn one_of_two_hundred_gets_the_ticket_whoever_retries() {
    let mut w = World::new(LIMITS);
    assert_eq!(w.spawn(3, &TICKET), First(Outcome::Applied));
    let claims: Vec<Wish> = (0..200).map(|player| w.wish(Claim, player, 3, 0)).collect();
    // All in one batch, each followed by an impatient retry of itself.
    let hurried: Vec<Wish> = claims.iter().flat_map(|claim| [*claim; 2]).collect();
    let answers = w.send(&hurried);
    let epoch = w.epoch;
    for (player, pair) in answers.chunks(2).enumerate() {
        let outcome = if player == 0 { Outcome::Applied } else { Outcome::AlreadyClaimed };
        assert_eq!(pair, [First(outcome), Again(outcome, epoch)], "player {player}");
    }
    for round in 0..3 {
        let mut retries = claims.clone();
        retries.rotate_left(round * 67);
        for (claim, answer) in retries.iter().zip(w.send_cut(&retries, &[1, 5, 24])) {
            let outcome =
                if claim.player == 0 { Outcome::Applied } else { Outcome::AlreadyClaimed };
            assert_eq!(answer, Again(outcome, epoch));
        }
    }
    assert_eq!(w.player(0), Some((100, 100, [0; 8])));
    assert_eq!(w.home().index().players_len(), 1, "who got nothing is not there");
    assert_eq!(w.home().outcomes()[DUPLICATES], 200 + 600);
}

#[test]
fn the_same_key_of_another_player_is_another_key() {
    let mut w = World::new(LIMITS);
    let credit = w.wish(WalletCredit, 1, 0, 5);
    let other = Wish { player: 2, ..credit };
    let answers = w.send(&[credit, other, credit]);
    let applied = Outcome::Applied;
    assert_eq!(answers, [First(applied), First(applied), Again(applied, w.epoch)]);
}

#[test]
fn what_is_too_old_too_new_or_malformed_is_not_recorded() {
    let mut w = World::new(LIMITS);
    let good = w.wish(WalletCredit, 1, 0, 5);
    let old = Wish { key_ms: START_MS - WINDOW_MS, ..good };
    let new = Wish { key_ms: START_MS + 2_001, ..good };
    let nonsense = Wish { argument: 0, ..good };
    for _ in 0..2 {
        assert_eq!(w.one(old), First(Outcome::TooOld));
        assert_eq!(w.one(new), First(Outcome::TooNew));
        assert_eq!(w.one(nonsense), First(Outcome::Malformed));
    }
    assert_eq!(w.one(good), First(Outcome::Applied), "the key was not used up");
    w.log_time_ms += 1;
    assert_eq!(w.one(new), First(Outcome::Applied), "new enough by now");
    let again = Wish { key_ms: START_MS - WINDOW_MS + 2, tag: 999, ..good };
    assert_eq!(w.one(again), First(Outcome::Applied), "just within the window");
    assert_eq!(w.player(1).unwrap().0, 15);
    let refused = w.one(Wish { argument: 0, ..good });
    assert_eq!(refused, First(Outcome::Malformed), "malformed comes before duplicate");
}

#[test]
fn hunts_cells_and_players_run_out() {
    let index = IndexLimits { cells_max: 2, players_max: 2, hunts_max: 1, ..LIMITS.index };
    let mut w = World::new(PartitionLimits { index, ..LIMITS });
    let alike = (HUNT + 1..)
        .find(|d| partition_of(*d, PARTITIONS) == partition_of(HUNT, PARTITIONS))
        .unwrap();
    let applied = First(Outcome::Applied);
    let full = First(Outcome::Full);
    assert_eq!((w.spawn(1, &ITEM), w.spawn(2, &TICKET)), (applied, applied));
    assert_eq!(w.spawn(3, &ITEM), full);
    assert_eq!(w.spawn(1, &ITEM), applied, "a cell that exists is set again");

    for (player, answer) in [(1, applied), (2, applied), (3, full), (1, applied)] {
        let credit = w.wish(WalletCredit, player, 0, 5);
        assert_eq!(w.one(credit), answer, "player {player}");
    }
    let collect = w.wish(CollectItem, 3, 1, 0);
    let claim = w.wish(Claim, 3, 2, 0);
    let spend = w.wish(WalletSpend, 3, 0, 1);
    assert_eq!(w.send(&[collect, claim, spend]), [full, full, First(Outcome::InsufficientFunds)]);

    let spawn = w.wish(HotspotSpawn, 1, 1, ITEM.pack().unwrap());
    let credit = w.wish(WalletCredit, 1, 0, 5);
    for wish in [spawn, credit] {
        assert_eq!(w.one(Wish { domain: alike, ..wish }), full, "no second hunt");
    }
    let index = w.home().index();
    assert_eq!((index.cells_len(), index.players_len(), index.hunts_len()), (2, 2, 1));
}

#[test]
fn a_refused_event_creates_nothing() {
    let index = IndexLimits { cells_max: 0, players_max: 0, hunts_max: 5, ..LIMITS.index };
    let mut w = World::new(PartitionLimits { index, ..LIMITS });
    assert_eq!(w.spawn(1, &ITEM), First(Outcome::Full));
    for (kind, argument, outcome) in [
        (WalletCredit, 1, Outcome::Full),
        (WalletSpend, 1, Outcome::InsufficientFunds),
        (CollectItem, 0, Outcome::NotFound),
    ] {
        let wish = w.wish(kind, 1, 1, argument);
        assert_eq!(w.one(wish), First(outcome));
    }
    assert_eq!(w.home().index().hunts_len(), 0);
    assert_eq!(w.home().digest().state, 0, "no record was written");
}

#[test]
fn an_entry_is_applied_once() {
    let mut w = World::new(LIMITS);
    let credit = w.wish(WalletCredit, 1, 0, 5);
    assert_eq!(w.one(credit), First(Outcome::Applied));
    let (epoch, digest) = (w.epoch, w.home().digest());
    let other = w.wish(WalletCredit, 1, 0, 5);
    w.seal(&[other], &[24]);
    let view_of_nothing = |w: &mut World, epoch| {
        let batch = w.pool.get(0);
        let view = BatchView::of_checked(batch.bytes()).unwrap();
        let range = view.ranges().next().unwrap();
        let partition = &mut w.partitions[usize::from(range.partition)];
        partition.apply(epoch, START_MS * 1_000_000, &view, &range, None);
    };
    for replayed in [epoch, epoch - 1, 0] {
        view_of_nothing(&mut w, replayed);
    }
    assert_eq!((w.home().epoch(), w.home().digest()), (epoch, digest));
    view_of_nothing(&mut w, epoch + 1);
    assert_eq!(w.player(1).unwrap().0, 10);
    let home = &mut w.partitions[usize::from(partition_of(HUNT, PARTITIONS))];
    home.apply_other(epoch + 5);
    home.apply_other(epoch + 3);
    assert_eq!(home.epoch(), epoch + 5);
}
