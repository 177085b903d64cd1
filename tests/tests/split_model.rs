//! Random histories of a split hunt beside a model that knows nothing of regions but
//! where things lie: every answer, every wallet and every cell must be the same,
//! whatever is lost, repeated, captured and restored on the way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use veltrix::apply::effects::RESERVED;
use veltrix::apply::{Partition, PartitionImage, PartitionLimits, Settled};
use veltrix::batch::{BatchView, Pool};
use veltrix::dedupe::{DedupeLimits, Secret};
use veltrix::index::IndexLimits;
use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, HuntSetup, PowerUp, Quota};
use veltrix_abi::outcomes::Outcome;
use veltrix_abi::partition::partition_of;
use veltrix_abi::split::{Opening, Region, Split};
use veltrix_abi::wire::Event;

const PARTITIONS: u16 = 3;
const SPLIT: Split = Split { bits: 2, skip: 1 };
const ROOT: u64 = 4;
const START_MS: u64 = 1_750_000_000_000;
const PLAYERS: u64 = 7;

const LIMITS: PartitionLimits = PartitionLimits {
    index: IndexLimits {
        cells_max: 100,
        players_max: 100,
        hunts_max: 8,
        definitions_max: 1,
        deeds_max: 1,
    },
    dedupe: DedupeLimits { keys_max: 10_000, window_ms: 60_000 },
};

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Act {
    kind: EventKind,
    player: u64,
    subject: u64,
    argument: u64,
}

impl Act {
    /// The region it is sent to.
    fn region(&self) -> u16 {
        match self.kind {
            EventKind::HotspotSpawn | EventKind::HotspotExpire => SPLIT.of_cell(self.subject),
            _ => SPLIT.home_of(self.player),
        }
    }

    /// The region that has its say.
    fn other(&self) -> u16 {
        match self.kind {
            EventKind::CollectItem | EventKind::UseKey | EventKind::Claim => {
                SPLIT.of_cell(self.subject)
            }
            EventKind::WalletTransfer => SPLIT.home_of(self.subject),
            _ => self.region(),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Event(Act),
    /// What everybody owes travels in an entry.
    Carry,
    /// It is sealed, and its entry never commits.
    Lose,
    /// The last entry commits once more.
    Repeat,
    SendAgain,
    Restart,
    Later(u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ModelPlayer {
    wallet: u64,
    score: u64,
    items: [u16; 8],
    power_until_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ModelCell {
    kind: HotspotKind,
    item: usize,
    remaining: u16,
    reward: u64,
    expiry_s: u64,
    claimed_by: Option<u64>,
}

/// One hunt, one table of players, one of cells, and what is on its way.
#[derive(Default)]
struct Model {
    players: BTreeMap<u64, ModelPlayer>,
    cells: BTreeMap<u64, ModelCell>,
    asked: VecDeque<(usize, Act)>,
    answered: VecDeque<(usize, Act, Result<ModelPlayer, Outcome>)>,
    now_s: u64,
}

impl Model {
    /// What a take gives, as a player who had nothing but the key would have it.
    fn take(&mut self, act: &Act, wanted: HotspotKind) -> Result<ModelPlayer, Outcome> {
        let cell = self.cells.get_mut(&act.subject).filter(|cell| cell.kind == wanted);
        let cell = cell.ok_or(Outcome::NotFound)?;
        if cell.expiry_s != 0 && cell.expiry_s <= self.now_s {
            return Err(Outcome::Expired);
        }
        if cell.remaining == 0 {
            return Err(Outcome::AlreadyClaimed);
        }
        let mut gain = ModelPlayer { score: cell.reward, ..ModelPlayer::default() };
        match wanted {
            HotspotKind::Item => gain.items[cell.item] = 1,
            HotspotKind::Chest if act.argument != cell.item as u64 + 1 => {
                return Err(Outcome::NoKey);
            }
            HotspotKind::Chest => gain.wallet = cell.reward,
            HotspotKind::Ticket => {
                gain.wallet = cell.reward;
                cell.claimed_by = Some(act.player);
            }
        }
        cell.remaining -= 1;
        Ok(gain)
    }

    fn there(&mut self, act: &Act) -> Result<ModelPlayer, Outcome> {
        match act.kind {
            EventKind::CollectItem => self.take(act, HotspotKind::Item),
            EventKind::UseKey => self.take(act, HotspotKind::Chest),
            EventKind::Claim => self.take(act, HotspotKind::Ticket),
            _ => {
                self.players.entry(act.subject).or_default().wallet += act.argument;
                Ok(ModelPlayer::default())
            }
        }
    }

    /// Takes what it costs; whether the player can pay.
    fn reserve(&mut self, act: &Act) -> Result<(), Outcome> {
        match act.kind {
            EventKind::UseKey => {
                let player = self.players.get_mut(&act.player).ok_or(Outcome::NoKey)?;
                let item = act.argument.checked_sub(1).ok_or(Outcome::NoKey)?;
                let held = &mut player.items[item as usize];
                *held = held.checked_sub(1).ok_or(Outcome::NoKey)?;
            }
            EventKind::WalletTransfer => {
                let broke = Outcome::InsufficientFunds;
                let player = self.players.get_mut(&act.player).ok_or(broke)?;
                player.wallet = player.wallet.checked_sub(act.argument).ok_or(broke)?;
            }
            _ => {
                self.players.entry(act.player).or_default();
            }
        }
        Ok(())
    }

    fn settle(&mut self, act: &Act, there: &Result<ModelPlayer, Outcome>) {
        let now_s = self.now_s;
        let player = self.players.entry(act.player).or_default();
        match there {
            Ok(gain) => {
                let factor = if now_s < player.power_until_s { 3 } else { 1 };
                player.score += gain.score * factor;
                player.wallet += gain.wallet;
                player.items.iter_mut().zip(gain.items).for_each(|(held, more)| *held += more);
            }
            Err(_) if act.kind == EventKind::UseKey => {
                player.items[act.argument as usize - 1] += 1;
            }
            Err(_) if act.kind == EventKind::WalletTransfer => player.wallet += act.argument,
            Err(_) => {}
        }
    }

    /// The outcome; `None` when it is still to come.
    fn act(&mut self, number: usize, act: &Act) -> Option<Outcome> {
        let done = |result: Result<(), Outcome>| Some(result.err().unwrap_or(Outcome::Applied));
        match act.kind {
            EventKind::HotspotSpawn => {
                let hotspot = Hotspot::unpack(act.argument).unwrap();
                let lifetime_s = u64::from(hotspot.lifetime_s);
                let cell = ModelCell {
                    kind: hotspot.kind,
                    item: hotspot.item.into(),
                    remaining: hotspot.remaining,
                    reward: hotspot.reward.into(),
                    expiry_s: if lifetime_s == 0 { 0 } else { self.now_s + lifetime_s },
                    claimed_by: None,
                };
                self.cells.insert(act.subject, cell);
                done(Ok(()))
            }
            EventKind::WalletCredit => {
                self.players.entry(act.player).or_default().wallet += act.argument;
                done(Ok(()))
            }
            EventKind::PowerUp => {
                let now_s = self.now_s;
                let Some(player) = self.players.get_mut(&act.player) else {
                    return done(Err(Outcome::NoKey));
                };
                let wanted = PowerUp::unpack(act.argument).unwrap();
                let held = &mut player.items[usize::from(wanted.item)];
                if *held == 0 {
                    return done(Err(Outcome::NoKey));
                }
                *held -= 1;
                player.power_until_s = now_s + u64::from(wanted.seconds);
                done(Ok(()))
            }
            _ if act.other() != act.region() => match self.reserve(act) {
                Ok(()) => {
                    self.asked.push_back((number, *act));
                    None
                }
                Err(outcome) => done(Err(outcome)),
            },
            // All in one region: what is refused there has changed nothing here.
            _ => done(self.at_once(act)),
        }
    }

    fn at_once(&mut self, act: &Act) -> Result<(), Outcome> {
        let before = self.players.clone();
        let can_pay = self.reserve(act);
        if act.kind == EventKind::WalletTransfer {
            can_pay?;
            self.there(act)?;
            return Ok(());
        }
        // The cell is looked at first; a key must be held by who opens.
        let cells = self.cells.clone();
        let there = self.there(act);
        let result = match (can_pay, there) {
            (_, Err(outcome)) | (Err(outcome), Ok(_)) => Err(outcome),
            (Ok(()), Ok(gain)) => {
                self.settle(act, &Ok(gain));
                return Ok(());
            }
        };
        (self.players, self.cells) = (before, cells);
        result
    }

    /// What was asked is judged, what was answered is settled: in the order in which
    /// partitions stand in an entry.
    fn carry(&mut self, settled: &mut Vec<(usize, Outcome)>) {
        let partition = |region| partition_of(SPLIT.domain(ROOT, region), PARTITIONS);
        let mut answered: Vec<_> = self.answered.drain(..).collect();
        let mut asked: Vec<_> = self.asked.drain(..).collect();
        // Senders in turn, each with its replies first.
        asked.sort_by_key(|(_, act)| partition(act.region()));
        answered.sort_by_key(|(_, act, _)| partition(act.other()));
        for (number, act, there) in answered {
            self.settle(&act, &there);
            settled.push((number, there.err().unwrap_or(Outcome::Applied)));
        }
        for (number, act) in asked {
            let there = self.there(&act);
            self.answered.push_back((number, act, there));
        }
    }
}

/// The real partitions.
struct Real {
    partitions: Vec<Partition>,
    pool: Pool,
    epoch: u64,
    log_time_ms: u64,
    secret: Arc<Secret>,
    settled: Vec<Settled>,
}

impl Real {
    fn new() -> Self {
        let secret = Arc::new(Secret::new([9; 192]));
        let partition = |number| Partition::new(number, &LIMITS, Arc::clone(&secret)).unwrap();
        let mut real = Self {
            partitions: (0..PARTITIONS).map(partition).collect(),
            pool: Pool::new(1, PARTITIONS),
            epoch: 0,
            log_time_ms: START_MS,
            secret: Arc::clone(&secret),
            settled: Vec::new(),
        };
        let argument = HuntSetup { game: 1, length_s: 0, settings: 0 }.pack().unwrap();
        for number in 0..SPLIT.regions() {
            let region = Region { root: ROOT, split: SPLIT, number };
            let payload = Opening::bytes_of_region(&Quota::default(), &region);
            let open = Act { kind: EventKind::HuntOpen, player: 0, subject: 0, argument };
            real.seal(Some((number.into(), region.domain(), &open, &payload)), false);
            assert_eq!(real.apply(), Outcome::Applied.code());
        }
        real
    }

    /// Slot 0 is the event's, if there is one.
    fn seal(&mut self, event: Option<(u64, u64, &Act, &[u8])>, carry: bool) {
        let index = self.pool.take().unwrap();
        let batch = self.pool.open_buffer(index);
        if let Some((number, domain, act, payload)) = event {
            let mut key = [0; 16];
            key[..6].copy_from_slice(&self.log_time_ms.to_be_bytes()[2..]);
            key[6] = 0x70;
            key[8..].copy_from_slice(&(1 << 63 | number).to_be_bytes());
            let Act { kind, player, subject, argument } = *act;
            let kind = kind.code();
            let event = Event { key, player, subject, argument, kind, reserved: 0, payload };
            let mut body = vec![0; event.wire_bytes()];
            event.write(&mut body);
            batch.append(partition_of(domain, PARTITIONS), domain, &body, 1).unwrap();
        }
        for sender in self.partitions.iter_mut().filter(|_| carry) {
            while sender.has_unsent() {
                sender.send_into(batch, PARTITIONS);
            }
        }
        batch.seal(0, 1, self.epoch + 1);
    }

    fn apply(&mut self) -> u8 {
        self.epoch += 1;
        let batch = self.pool.get(0);
        let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
        for range in view.ranges() {
            let partition = &mut self.partitions[usize::from(range.partition)];
            let slots = Some(batch.slots());
            partition.apply(self.epoch, self.log_time_ms * 1_000_000, &view, &range, slots);
            partition.take_settled(|settled| self.settled.push(settled));
        }
        batch.slots().outcome(0)
    }

    fn has_unsent(&self) -> bool {
        self.partitions.iter().any(Partition::has_unsent)
    }

    fn send_again(&mut self) {
        for partition in &mut self.partitions {
            partition.send_stuck_again(partition.oldest_owed());
        }
    }

    fn restart(&mut self) {
        for partition in &mut self.partitions {
            partition.capture_begin(PartitionImage::new(&LIMITS).unwrap());
            while !partition.capture_step(999) {}
            let image = partition.capture_end();
            *partition = Partition::restore(&LIMITS, Arc::clone(&self.secret), &image).unwrap();
        }
    }

    fn compare(&self, model: &Model) -> Result<(), TestCaseError> {
        let (mut players, mut cells) = (BTreeMap::new(), BTreeMap::new());
        for partition in &self.partitions {
            let index = partition.index();
            let mut named = BTreeMap::new();
            for (mark, player) in (1..).zip(index.players()) {
                named.insert(mark, player.player());
                if !player.is_guest() {
                    let (wallet, score) = (player.wallet, player.score);
                    let found = ModelPlayer {
                        wallet,
                        score,
                        items: player.inventory,
                        power_until_s: player.power_until_s.into(),
                    };
                    prop_assert!(players.insert(player.player(), found).is_none(), "two homes");
                }
            }
            for cell in index.cells() {
                let found = ModelCell {
                    kind: cell.kind().unwrap(),
                    item: cell.item().into(),
                    remaining: cell.remaining,
                    reward: cell.reward().into(),
                    expiry_s: cell.expiry_s.into(),
                    claimed_by: named.get(&cell.claimed_by).copied(),
                };
                cells.insert(cell.id(), found);
            }
        }
        prop_assert_eq!(&players, &model.players);
        prop_assert_eq!(&cells, &model.cells);
        Ok(())
    }
}

/// Everything sent so far is judged and settled, in both.
fn carry(
    real: &mut Real,
    model: &mut Model,
    sent: &BTreeMap<u64, usize>,
) -> Result<(), TestCaseError> {
    real.seal(None, true);
    real.apply();
    let mut wanted = Vec::new();
    model.carry(&mut wanted);
    let mut found: Vec<_> = real
        .settled
        .drain(..)
        .map(|s| (sent[&s.asker.batch], Outcome::from_code(s.outcome).unwrap()))
        .collect();
    found.sort_by_key(|(number, _)| *number);
    wanted.sort_by_key(|(number, _)| *number);
    prop_assert_eq!(found, wanted);
    Ok(())
}

fn play(steps: &[Step]) -> Result<usize, TestCaseError> {
    let (mut real, mut model) = (Real::new(), Model::default());
    let mut sent = BTreeMap::new();
    for (number, step) in (100..).zip(steps) {
        model.now_s = real.log_time_ms / 1_000;
        match step {
            Step::Event(act) => {
                let domain = SPLIT.domain(ROOT, act.region());
                real.seal(Some((number as u64, domain, act, &[])), false);
                // Named by the batch that it is the only event of.
                sent.insert(real.epoch + 1, number);
                let byte = real.apply();
                let wanted = model.act(number, act).map_or(RESERVED, Outcome::code);
                prop_assert_eq!(byte, wanted, "step {}: {:?}", number, act);
            }
            Step::Carry if real.has_unsent() => carry(&mut real, &mut model, &sent)?,
            // Then everything is sent again, in its order; a part of it alone would be
            // judged in another order than the model's.
            Step::Lose => {
                real.seal(None, true);
                real.send_again();
            }
            Step::Repeat if real.epoch > 8 && !real.has_unsent() => {
                real.apply();
                prop_assert!(real.settled.is_empty(), "settled twice");
            }
            Step::SendAgain if !real.has_unsent() => real.send_again(),
            Step::Restart => real.restart(),
            Step::Later(ms) => real.log_time_ms += ms,
            Step::Carry | Step::Repeat | Step::SendAgain => {}
        }
        real.compare(&model)?;
    }
    while real.has_unsent() || !model.asked.is_empty() || !model.answered.is_empty() {
        model.now_s = real.log_time_ms / 1_000;
        real.send_again();
        carry(&mut real, &mut model, &sent)?;
        real.compare(&model)?;
    }
    prop_assert!(real.partitions.iter().all(|partition| partition.owed() == (0, 0)));
    Ok(sent.len())
}

fn cell() -> impl Strategy<Value = u64> {
    // The first bit does not count, the two behind it are the region.
    (0u64..2, 0u64..4, 0u64..2).prop_map(|(skipped, region, n)| skipped << 59 | region << 57 | n)
}

fn spawn() -> impl Strategy<Value = Act> {
    let hotspot = prop_oneof![
        (0u8..2, 1u16..4).prop_map(|(item, remaining)| (HotspotKind::Item, item, remaining)),
        (0u8..2, 1u16..3).prop_map(|(item, remaining)| (HotspotKind::Chest, item, remaining)),
        Just((HotspotKind::Ticket, 0, 1)),
    ];
    let lifetime_s = prop_oneof![3 => Just(0u32), 1 => 1u32..5];
    (hotspot, 0u32..50, lifetime_s, cell()).prop_map(
        |((kind, item, remaining), reward, lifetime_s, subject)| {
            let argument = Hotspot { kind, item, remaining, reward, lifetime_s }.pack().unwrap();
            Act { kind: EventKind::HotspotSpawn, player: 0, subject, argument }
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let player = 1..=PLAYERS;
    let take = |kind| {
        let argument = if kind == EventKind::UseKey { 1u64..3 } else { 0..1 };
        (1..=PLAYERS, cell(), argument).prop_map(move |(player, subject, argument)| Act {
            kind,
            player,
            subject,
            argument,
        })
    };
    let power = PowerUp { item: 1, factor: 3, seconds: 3 }.pack().unwrap();
    prop_oneof![
        3 => spawn(),
        6 => take(EventKind::CollectItem),
        4 => take(EventKind::UseKey),
        3 => take(EventKind::Claim),
        2 => (player.clone(), 1u64..30).prop_map(|(player, argument)| Act {
            kind: EventKind::WalletCredit, player, subject: 0, argument
        }),
        2 => (player.clone(), player.clone(), 1u64..60).prop_map(|(player, payee, argument)| {
            let subject = if payee == player { payee % PLAYERS + 1 } else { payee };
            Act { kind: EventKind::WalletTransfer, player, subject, argument }
        }),
        1 => player.prop_map(move |player| Act {
            kind: EventKind::PowerUp, player, subject: 0, argument: power
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => act().prop_map(Step::Event),
        5 => Just(Step::Carry),
        1 => Just(Step::Lose),
        1 => Just(Step::Repeat),
        1 => Just(Step::SendAgain),
        1 => Just(Step::Restart),
        1 => (0u64..3_000).prop_map(Step::Later),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_split_hunt_is_one_hunt(steps in prop::collection::vec(step(), 40..160)) {
        play(&steps)?;
    }
}
