//! Random histories through the real batch encoding and the real apply, beside
//! the reference model: every answer and every record must be the same, and a
//! partition captured under way and restored must go on as if nothing had
//! happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use veltrix::apply::{Partition, PartitionImage, PartitionLimits, apply_batch};
use veltrix::batch::{BatchView, Pool};
use veltrix::dedupe::Secret;
use veltrix_abi::kinds::{
    EventKind, Hotspot, HotspotKind, HuntSetup, LENGTH_S_MAX, LIFETIME_S_MAX, PowerUp, QuestPay,
    Quota, REWARD_MAX,
};
use veltrix_abi::outcomes::{DUPLICATE_BIT, Outcome};
use veltrix_abi::partition::partition_of;
use veltrix_tests::model::{Answer, Entry, Event, Limits, Model};
use veltrix_tests::sim::compare;

/// Log time at which histories begin, milliseconds.
const START_MS: u64 = 1_750_000_000_000;

const WINDOW_MS: u64 = 30_000;

/// One event, before it has a key of its own.
#[derive(Clone, Debug)]
struct Draft {
    domain: u64,
    player: u64,
    subject: u64,
    argument: u64,
    kind: u16,
    reserved: u32,
    payload: Vec<u8>,
    key: KeyDraft,
}

#[derive(Clone, Debug)]
enum KeyDraft {
    /// A new key, this much ahead of log time.
    New(i64),
    /// A new key of this time.
    At(u64),
    /// That of an earlier event: only the key, or the event as it was.
    Again { which: prop::sample::Index, whole: bool },
    /// No UUIDv7.
    Broken,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A batch, so much later than the last, milliseconds.
    Batch { later_ms: u64, drafts: Vec<Draft> },
    /// An entry without events.
    Blank,
    /// An image of every partition is begun, and steps of so many bytes are
    /// made after each entry; whole, it takes the partition's place.
    Capture { step_bytes: usize },
}

/// Where a kind of hotspot stands, mostly: so that what is asked for is often there.
fn cells_of(kind: HotspotKind) -> std::ops::Range<u64> {
    match kind {
        HotspotKind::Item => 0..2,
        HotspotKind::Chest => 2..4,
        HotspotKind::Ticket => 4..7,
    }
}

/// Cell and argument of a spawn.
fn hotspot() -> impl Strategy<Value = (u64, u64)> {
    let kind =
        prop_oneof![Just(HotspotKind::Item), Just(HotspotKind::Chest), Just(HotspotKind::Ticket)];
    let reward = prop_oneof![6 => 0u32..100, 1 => Just(REWARD_MAX)];
    let lifetime_s = prop_oneof![6 => Just(0u32), 2 => 1u32..20, 1 => Just(LIFETIME_S_MAX)];
    kind.prop_flat_map(move |kind| {
        let is_ticket = kind == HotspotKind::Ticket;
        let (items, times) = if is_ticket { (0u8..1, 1u16..2) } else { (0u8..2, 1u16..6) };
        let argument = (items, times, reward.clone(), lifetime_s.clone()).prop_map(
            move |(item, remaining, reward, lifetime_s)| {
                Hotspot { kind, item, remaining, reward, lifetime_s }.pack().expect("in range")
            },
        );
        (prop_oneof![6 => cells_of(kind), 1 => cell()], argument)
    })
}

/// What an event asks for.
#[derive(Clone, Debug)]
struct Act {
    kind: u16,
    subject: u64,
    argument: u64,
    payload: Vec<u8>,
}

/// A kind on subjects of its own, with arguments and payloads of its own.
fn kind(
    kind: EventKind,
    subject: impl Strategy<Value = u64>,
    argument: impl Strategy<Value = u64>,
    payload: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = Act> {
    (subject, argument, payload).prop_map(move |(subject, argument, payload)| Act {
        kind: kind.code(),
        subject,
        argument,
        payload,
    })
}

/// Cells, and players: both have the same small numbers.
fn cell() -> impl Strategy<Value = u64> {
    prop_oneof![16 => 0u64..4, 4 => 0u64..8, 1 => Just((1 << 60) - 1), 1 => Just(1 << 60)]
}

fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![7 => 1u64..100, 2 => Just(u64::MAX), 1 => Just(u64::MAX / 2)]
}

/// Hotspots and wallets.
fn ordinary() -> impl Strategy<Value = Act> {
    let (none, no_payload) = (Just(0), Just(Vec::new()));
    let simple = |of| kind(of, cell(), none, no_payload.clone());
    let take = |of, spot| {
        let cell = prop_oneof![8 => cells_of(spot), 1 => cell()];
        // Of the items there are, what is named at times is what the chest wants.
        let named = if of == EventKind::UseKey { 0..3u64 } else { 0..1 };
        kind(of, cell, prop_oneof![3 => Just(0), 1 => named], Just(Vec::new()))
    };
    let paying = |of, amount| kind(of, cell(), amount, no_payload.clone());
    let (credit, spend) = (amount().boxed(), (1u64..150).boxed());
    prop_oneof![
        12 => hotspot().prop_map(|(subject, argument)| Act {
            kind: EventKind::HotspotSpawn.code(),
            subject,
            argument,
            payload: Vec::new(),
        }),
        14 => take(EventKind::CollectItem, HotspotKind::Item),
        10 => take(EventKind::UseKey, HotspotKind::Chest),
        14 => take(EventKind::Claim, HotspotKind::Ticket),
        5 => paying(EventKind::WalletCredit, credit),
        3 => paying(EventKind::WalletSpend, spend.clone()),
        5 => paying(EventKind::WalletTransfer, spend),
        2 => simple(EventKind::HotspotExpire),
    ]
}

/// Every game type; a race of some seconds, the others mostly without an end.
fn setup() -> impl Strategy<Value = u64> {
    let rounds = (
        prop_oneof![8 => 1u64..4, 1 => Just(0)],
        prop_oneof![8 => 2u64..4, 1 => Just(1)],
        prop_oneof![8 => 2u64..6, 1 => Just(1)],
    )
        .prop_map(|(round_s, every, factor)| round_s | every << 16 | factor << 24);
    let race = (prop_oneof![8 => 5u32..200, 1 => Just(0)], rounds);
    let length_s = prop_oneof![12 => Just(0u32), 2 => 1u32..90, 1 => Just(LENGTH_S_MAX)];
    let settings = prop_oneof![12 => Just(0u64), 1 => Just(1)];
    let other = (length_s, settings);
    // More of those with more to go wrong.
    let game =
        prop::sample::select(vec![0u8, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 6, 7]);
    (game, race, other).prop_map(|(game, race, other)| {
        let (length_s, settings) = if game == 2 { race } else { other };
        HuntSetup { game, length_s, settings }.pack().expect("in range")
    })
}

/// Mostly none; else few of something, or what is no quota.
fn quota() -> impl Strategy<Value = Vec<u8>> {
    let bound = || prop_oneof![2 => Just(0u32), 1 => 1u32..6];
    let few = (0u32..3, bound(), bound(), prop_oneof![2 => Just(0u32), 1 => 1u32..20]);
    let few = few.prop_map(|(tenant, cells_max, players_max, events_per_s)| {
        Quota { tenant, cells_max, players_max, events_per_s }.bytes().to_vec()
    });
    prop_oneof![8 => Just(Vec::new()), 3 => few, 1 => Just(vec![1; 15])]
}

fn power_up() -> impl Strategy<Value = u64> {
    let good = (0u8..2, 2u8..9, 1u32..20).prop_map(|(item, factor, seconds)| {
        PowerUp { item, factor, seconds }.pack().expect("in range")
    });
    prop_oneof![12 => good, 1 => any::<u64>()]
}

fn pay() -> impl Strategy<Value = u64> {
    let points = || prop_oneof![4 => 0u32..50, 1 => Just(REWARD_MAX)];
    let good = (points(), points())
        .prop_map(|(node, end)| QuestPay { node, end }.pack().expect("in range"));
    prop_oneof![20 => good, 1 => Just(1 << 40)]
}

/// Graphs of a few shapes, of any shape, and what is none.
fn graph() -> impl Strategy<Value = Vec<u8>> {
    let graphs = prop::sample::select(vec![
        // One node; three without edges; a chain; a diamond with a tail.
        vec![0, 0],
        vec![2, 0],
        vec![2, 0, 0, 1, 1, 2],
        vec![4, 0, 0, 1, 0, 2, 1, 3, 2, 3, 3, 4],
        // To the last node from two sides.
        vec![255, 0, 0, 255, 1, 255],
    ]);
    let none = prop::sample::select(vec![
        // Empty, cut, a reserved byte, an unknown node, an edge twice, circles.
        vec![],
        vec![3],
        vec![3, 0, 0],
        vec![3, 1, 0, 1],
        vec![1, 0, 0, 2],
        vec![2, 0, 0, 1, 0, 1],
        vec![1, 0, 1, 1],
        vec![3, 0, 0, 1, 1, 2, 2, 3, 3, 1],
    ]);
    let edge = (0u8..5, 0u8..5).prop_map(|(a, b)| [a.min(b), a.max(b)]);
    let any = (0u8..5, prop::collection::vec(edge, 0..5))
        .prop_map(|(last, edges)| [&[last, 0], &edges.concat()[..]].concat());
    prop_oneof![6 => graphs, 1 => none, 1 => any]
}

/// Hunts, teams, quests, rewards.
fn rarer() -> impl Strategy<Value = Act> {
    let (none, no_payload) = (Just(0u64), Just(Vec::new()));
    let nowhere = || prop_oneof![20 => Just(0u64), 1 => Just(1)];
    let team = prop_oneof![4 => Just(0u64), 8 => 1u64..4, 1 => Just(16), 1 => Just(17)];
    let quest = || prop_oneof![16 => 0u64..3, 1 => Just((1 << 56) - 1), 1 => Just(1 << 56)];
    let node = (0u64..3, prop_oneof![5 => 0u64..2, 5 => 1u64..5, 1 => Just(255)]);
    let number = prop_oneof![8 => 0u64..4, 3 => 254u64..258, 1 => Just(u64::MAX)];
    let bytes = prop::collection::vec(any::<u8>(), 0..4);
    let treasure = prop_oneof![8 => bytes, 1 => Just(vec![7; 512])];
    let bank = || prop_oneof![4 => 1u64..60, 2 => Just(u64::MAX / 2), 2 => Just(u64::MAX)].boxed();
    let simple = |of, subject, argument| kind(of, subject, argument, no_payload.clone());
    prop_oneof![
        24 => kind(EventKind::HuntOpen, nowhere(), setup(), quota()),
        5 => simple(EventKind::HuntClose, nowhere().boxed(), none.boxed()),
        50 => simple(EventKind::PlayerJoin, nowhere().boxed(), team.boxed()),
        10 => simple(EventKind::LocationPing, cell().boxed(), none.boxed()),
        24 => simple(EventKind::PowerUp, nowhere().boxed(), power_up().boxed()),
        24 => kind(EventKind::TreasureType, 0u64..2, none, treasure),
        24 => kind(EventKind::QuestDefine, quest(), pay(), graph()),
        90 => simple(
            EventKind::Checkpoint,
            node.prop_map(|(quest, node)| quest * 256 + node).boxed(),
            none.boxed(),
        ),
        14 => simple(EventKind::QuestAbandon, quest().boxed(), none.boxed()),
        24 => simple(EventKind::RewardIssued, number.boxed(), amount().boxed()),
        30 => simple(EventKind::BankDeposit, nowhere().boxed(), bank()),
        20 => simple(EventKind::BankWithdraw, nowhere().boxed(), bank()),
    ]
}

/// Any kind, a few that do not exist, with fields that may be another's.
fn mixed() -> impl Strategy<Value = Act> {
    let argument = prop_oneof![Just(0), Just(1), any::<u64>()];
    (0u16..24, cell(), argument, graph()).prop_map(|(kind, subject, argument, payload)| Act {
        kind,
        subject,
        argument,
        payload,
    })
}

fn key() -> impl Strategy<Value = KeyDraft> {
    prop_oneof![
        12 => (-1_000i64..1_000).prop_map(KeyDraft::New),
        1 => (1_995i64..2_005).prop_map(KeyDraft::New),
        1 => (-(WINDOW_MS as i64) - 5..5 - WINDOW_MS as i64).prop_map(KeyDraft::New),
        4 => any::<(prop::sample::Index, bool)>()
            .prop_map(|(which, whole)| KeyDraft::Again { which, whole }),
        1 => prop_oneof![Just(0), Just((1 << 48) - 1), 0..1u64 << 48].prop_map(KeyDraft::At),
        1 => Just(KeyDraft::Broken),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let player = prop_oneof![4 => 0u64..4, 1 => 0u64..6];
    let act = prop_oneof![30 => ordinary(), 30 => rarer(), 1 => mixed()];
    let reserved = prop_oneof![40 => Just(0u32), 1 => Just(1)];
    (0u64..4, player, act, reserved, key()).prop_map(|(domain, player, act, reserved, key)| {
        let Act { kind, subject, argument, payload } = act;
        Draft { domain, player, subject, argument, kind, reserved, payload, key }
    })
}

fn step() -> impl Strategy<Value = Step> {
    // Log time does not go back: that is the clock's part.
    let later = prop_oneof![8 => 0u64..500, 2 => 0u64..20_000];
    prop_oneof![
        12 => (later, prop::collection::vec(draft(), 1..80))
            .prop_map(|(later_ms, drafts)| Step::Batch { later_ms, drafts }),
        1 => Just(Step::Blank),
        2 => prop_oneof![1usize..20_000, 1usize..400]
            .prop_map(|step_bytes| Step::Capture { step_bytes }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let roomy = [1_000usize, 1_000, 100, 100, 1_000].map(Just);
    let tight = [1usize..20, 1..20, 1..5, 1..8, 1..20];
    (1u16..5, prop_oneof![2 => roomy, 1 => tight]).prop_map(
        |(partitions, [cells_max, players_max, hunts_max, definitions_max, deeds_max])| Limits {
            partitions,
            cells_max,
            players_max,
            hunts_max,
            definitions_max,
            deeds_max,
            keys_max: 20_000,
            window_ms: WINDOW_MS,
        },
    )
}

/// The real thing and the model, given the same entries.
struct Both {
    model: Model,
    limits: Limits,
    partition_limits: PartitionLimits,
    secret: Arc<Secret>,
    partitions: Vec<Partition>,
    capturing: Option<usize>,
    pool: Pool,
    log_time_ms: u64,
    keys: u64,
    sent: Vec<Event>,
    /// Answers are followed instead of foretold: the store may drop keys.
    follow: bool,
    /// How often an event of a kind, in a hunt of a game type, got an outcome at its
    /// first judgement.
    met: Met,
}

impl Both {
    fn new(limits: Limits, follow: bool) -> Self {
        let secret = Arc::new(Secret::new([7; 192]));
        let partition_limits = compare::partition_limits(&limits);
        let partitions = (0..limits.partitions)
            .map(|number| Partition::new(number, &partition_limits, Arc::clone(&secret)).unwrap())
            .collect();
        Self {
            model: Model::new(limits),
            limits,
            partition_limits,
            secret,
            partitions,
            capturing: None,
            pool: Pool::new(1, limits.partitions),
            log_time_ms: START_MS,
            keys: 0,
            sent: Vec::new(),
            follow,
            met: BTreeMap::new(),
        }
    }

    fn event(&mut self, draft: &Draft) -> Event {
        let mut event = Event {
            domain: draft.domain,
            key: [0; 16],
            player: draft.player,
            subject: draft.subject,
            argument: draft.argument,
            kind: draft.kind,
            reserved: draft.reserved,
            payload: draft.payload.clone(),
        };
        self.keys += 1;
        let mut new = |ms: u64| {
            event.key[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
            event.key[6] = 0x70;
            event.key[8..].copy_from_slice(&(1 << 63 | self.keys).to_be_bytes());
        };
        match &draft.key {
            KeyDraft::New(ahead) => new(self.log_time_ms.saturating_add_signed(*ahead)),
            KeyDraft::At(ms) => new(*ms),
            KeyDraft::Broken => {}
            KeyDraft::Again { .. } if self.sent.is_empty() => new(self.log_time_ms),
            KeyDraft::Again { which, whole } => {
                let old = which.get(&self.sent);
                if *whole {
                    return old.clone();
                }
                (event.key, event.player, event.domain) = (old.key, old.player, old.domain);
            }
        }
        self.sent.push(event.clone());
        event
    }

    fn batch(&mut self, later_ms: u64, drafts: &[Draft]) -> Result<(), String> {
        self.log_time_ms += later_ms;
        let events: Vec<Event> = drafts.iter().map(|draft| self.event(draft)).collect();
        let entry = Entry {
            epoch: self.model.epoch() + 1,
            log_time_ns: self.log_time_ms * 1_000_000 + 999,
            events,
        };
        let found = self.apply(&entry);
        self.meet(&entry, &found);
        if self.follow {
            return self.model.follow(&entry, &found).map_err(|wrong| wrong.to_string());
        }
        let wanted = self.model.apply(&entry);
        match (0..wanted.len()).find(|i| wanted[*i] != found[*i]) {
            None => Ok(()),
            Some(i) => Err(format!(
                "epoch {}, event {i}: {:?}, the model says {:?}: {:?}",
                entry.epoch, found[i], wanted[i], entry.events[i]
            )),
        }
    }

    fn meet(&mut self, entry: &Entry, found: &[Answer]) {
        for (event, answer) in entry.events.iter().zip(found) {
            let Some(kind) = EventKind::from_code(event.kind) else { continue };
            let setup = self.model.hunt(event.domain).and_then(|hunt| hunt.state.setup);
            let game = setup.map_or(0, |setup| setup.game);
            if answer.first_epoch.is_none() {
                *self.met.entry((kind, game, answer.outcome)).or_default() += 1;
            }
        }
    }

    /// Through the batch's encoding, and what its slots say then.
    fn apply(&mut self, entry: &Entry) -> Vec<Answer> {
        let partitions = self.limits.partitions;
        let index = self.pool.take().expect("nobody holds it");
        let buffer = self.pool.open_buffer(index);
        for event in &entry.events {
            let wire = event.wire();
            let mut body = vec![0; wire.wire_bytes()];
            wire.write(&mut body);
            let partition = partition_of(event.domain, partitions);
            buffer.append(partition, event.domain, &body, 1).expect("it fits");
        }
        buffer.seal(0, 1, entry.epoch);
        let view = BatchView::check(buffer.bytes(), partitions).expect("as it was sealed");
        let slots = buffer.slots();
        let Entry { epoch, log_time_ns, .. } = *entry;
        apply_batch(&mut self.partitions[..], epoch, log_time_ns, &view, Some(slots));
        (0..entry.events.len() as u32)
            .map(|slot| {
                let byte = slots.outcome(slot);
                Answer {
                    outcome: Outcome::from_code(byte & !DUPLICATE_BIT).expect("an outcome"),
                    first_epoch: (byte & DUPLICATE_BIT != 0).then(|| slots.first_epoch(slot)),
                }
            })
            .collect()
    }

    fn blank(&mut self) {
        let epoch = self.model.epoch() + 1;
        let log_time_ns = self.log_time_ms * 1_000_000;
        self.model.apply(&Entry { epoch, log_time_ns, events: Vec::new() });
        for partition in &mut self.partitions {
            partition.apply_other(epoch);
        }
    }

    fn capture_begin(&mut self, step_bytes: usize) {
        if self.capturing.replace(step_bytes).is_none() {
            for partition in &mut self.partitions {
                let image = PartitionImage::new(&self.partition_limits).unwrap();
                partition.capture_begin(image);
            }
        }
    }
}

/// A partition that was captured, and the entries since: it must come to where
/// the one it was taken from is.
struct Branch {
    images: Vec<PartitionImage>,
    from: usize,
}

/// What was met.
type Met = BTreeMap<(EventKind, u8, Outcome), u32>;

fn run(limits: Limits, follow: bool, steps: &[Step]) -> Result<Met, String> {
    let mut both = Both::new(limits, follow);
    let mut images: Vec<Branch> = Vec::new();
    let mut begun = 0;
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Batch { later_ms, drafts } => both.batch(*later_ms, drafts)?,
            Step::Blank => both.blank(),
            Step::Capture { step_bytes } => {
                if both.capturing.is_none() {
                    begun = number;
                }
                both.capture_begin(*step_bytes);
            }
        }
        let Some(step_bytes) = both.capturing else { continue };
        let mut complete = true;
        for partition in &mut both.partitions {
            complete &= partition.capture_step(step_bytes);
        }
        if complete {
            both.capturing = None;
            let taken = both.partitions.iter_mut().map(Partition::capture_end).collect();
            images.push(Branch { images: taken, from: begun });
        }
    }
    for (partition, wanted) in both.partitions.iter().zip(both.model.partitions()) {
        compare::state(partition, wanted).map_err(|e| format!("{}: {e}", partition.number()))?;
    }
    for branch in images {
        replay(limits, follow, steps, &both, branch)?;
    }
    Ok(both.met)
}

/// The history again, over partitions restored from images: what they hold is
/// skipped, and all ends as it did.
fn replay(
    limits: Limits,
    follow: bool,
    steps: &[Step],
    first: &Both,
    branch: Branch,
) -> Result<(), String> {
    let mut again = Both::new(limits, follow);
    for (step, number) in steps.iter().zip(0..) {
        if number == branch.from {
            again.partitions = branch
                .images
                .iter()
                .map(|image| {
                    let secret = Arc::clone(&again.secret);
                    Partition::restore(&again.partition_limits, secret, image).unwrap()
                })
                .collect();
        }
        match step {
            Step::Batch { later_ms, drafts } => again.batch(*later_ms, drafts)?,
            Step::Blank => again.blank(),
            Step::Capture { .. } => {}
        }
    }
    for (partition, wanted) in again.partitions.iter().zip(&first.partitions) {
        if (partition.digest(), partition.epoch()) != (wanted.digest(), wanted.epoch()) {
            return Err(format!("partition {} came to another digest", partition.number()));
        }
    }
    for (partition, wanted) in again.partitions.iter().zip(first.model.partitions()) {
        compare::state(partition, wanted)?;
    }
    Ok(())
}

/// Some of the hunts are opened before anybody is there: those in teams can be only
/// then.
fn history() -> impl Strategy<Value = (Limits, Vec<Step>)> {
    let opening = (0u64..4, setup(), key()).prop_map(|(domain, argument, key)| Draft {
        domain,
        player: 0,
        subject: 0,
        argument,
        kind: EventKind::HuntOpen.code(),
        reserved: 0,
        payload: Vec::new(),
        key,
    });
    let openings = prop::collection::vec(opening, 0..4);
    let steps = (openings, prop::collection::vec(step(), 1..40)).prop_map(|(drafts, steps)| {
        let first = Step::Batch { later_ms: 0, drafts };
        std::iter::once(first).chain(steps).collect()
    });
    (limits(), steps)
}

/// As many histories as `PROPTEST_CASES` says, or 300.
fn config() -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(300)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn apply_answers_and_holds_what_the_model_says((limits, steps) in history()) {
        run(limits, false, &steps).map_err(TestCaseError::fail)?;
    }

    /// With a dedupe store that is far too small: nothing is applied twice, no
    /// key below the horizon is taken, and the horizon never falls.
    #[test]
    fn a_store_that_drops_keys_never_applies_one_twice(
        (limits, steps) in history(),
        keys_max in 1usize..60,
    ) {
        run(Limits { keys_max, ..limits }, true, &steps).map_err(TestCaseError::fail)?;
    }
}

/// Outcomes that the table of rules has for a kind, apart from what any kind can get.
fn outcomes_of(kind: EventKind) -> &'static [Outcome] {
    use Outcome::{
        AlreadyClaimed, AlreadyDone, Applied, Closed, Expired, Full, InsufficientFunds, Malformed,
        NoKey, NotFound, NotJoined, OutOfOrder, OverQuota, WrongGame,
    };
    match kind {
        EventKind::HotspotSpawn => &[Closed, Full, OverQuota, Applied],
        EventKind::CollectItem | EventKind::Claim => {
            &[NotFound, Closed, Expired, AlreadyClaimed, Full, NotJoined, OverQuota, Applied]
        }
        EventKind::UseKey => {
            // Without a team nobody has come by a key.
            &[NotFound, Closed, Expired, AlreadyClaimed, NoKey, Full, Applied]
        }
        EventKind::WalletCredit => &[Full, OverQuota, Applied],
        EventKind::WalletSpend => &[InsufficientFunds, Applied],
        EventKind::WalletTransfer => &[InsufficientFunds, Full, Applied],
        EventKind::HotspotExpire => &[NotFound, Closed, Expired, Applied],
        EventKind::HuntOpen => &[Malformed, Full, Closed, AlreadyDone, WrongGame, Applied],
        EventKind::HuntClose => &[NotFound, Closed, Applied],
        EventKind::PlayerJoin => {
            &[NotFound, Closed, WrongGame, Full, AlreadyDone, OverQuota, Applied]
        }
        EventKind::LocationPing => &[NotFound, Closed, Applied],
        EventKind::PowerUp => &[NotFound, Closed, NoKey, Applied],
        EventKind::TreasureType => &[NotFound, Closed, Full, Applied],
        EventKind::QuestDefine => &[NotFound, Closed, Malformed, AlreadyDone, Full, Applied],
        EventKind::Checkpoint => {
            &[NotFound, Closed, NotJoined, AlreadyDone, OutOfOrder, Full, Applied]
        }
        EventKind::QuestAbandon => &[NotFound, Closed, Applied],
        EventKind::RewardIssued => &[AlreadyDone, Full, Applied],
        // A bank too full for more takes more luck than these histories have.
        EventKind::BankDeposit => &[NotFound, WrongGame, NotJoined, InsufficientFunds, Applied],
        EventKind::BankWithdraw => {
            &[NotFound, WrongGame, NotJoined, InsufficientFunds, Full, Applied]
        }
    }
}

/// Histories in which everything must be met.
const HISTORIES_MAX: u32 = 2_000;

/// Rows of the table that were not met.
fn never_met(met: &Met) -> Vec<(EventKind, Outcome)> {
    let known: BTreeSet<(EventKind, Outcome)> =
        met.keys().map(|(kind, _, outcome)| (*kind, *outcome)).collect();
    let rows = EventKind::ALL
        .iter()
        .flat_map(|kind| outcomes_of(*kind).iter().map(move |outcome| (*kind, *outcome)));
    rows.filter(|row| !known.contains(row)).collect()
}

/// Game types in which a kind that pays was hardly ever applied.
fn hardly_met(met: &Met) -> Vec<(EventKind, u8)> {
    let paying = [EventKind::Claim, EventKind::UseKey, EventKind::Checkpoint];
    let all = (0..7).flat_map(|game| paying.map(|kind| (kind, game)));
    all.filter(|(kind, game)| met.get(&(*kind, *game, Outcome::Applied)).is_none_or(|n| *n < 5))
        .collect()
}

/// What never happens in the histories is not tested by them. These are always the
/// same.
#[test]
fn histories_meet_every_row_of_the_table() {
    let mut runner = TestRunner::deterministic();
    let mut met = Met::new();
    let mut missing = Vec::new();
    for number in 1..=HISTORIES_MAX {
        let (limits, steps) = history().new_tree(&mut runner).unwrap().current();
        for (what, count) in run(limits, false, &steps).unwrap() {
            *met.entry(what).or_default() += count;
        }
        if number % 200 == 0 {
            missing = never_met(&met);
            if missing.is_empty() && hardly_met(&met).is_empty() {
                break;
            }
        }
    }
    assert!(missing.is_empty(), "never met: {missing:?} of {met:#?}");
    assert!(hardly_met(&met).is_empty(), "hardly met: {:?} of {met:#?}", hardly_met(&met));
}
