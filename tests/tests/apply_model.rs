//! Random histories through the real batch encoding and the real apply, beside
//! the reference model: every answer and every record must be the same, and a
//! partition captured under way and restored must go on as if nothing had
//! happened.

use std::sync::Arc;

use proptest::prelude::*;
use veltrix::apply::{Partition, PartitionImage, PartitionLimits, apply_batch};
use veltrix::batch::{BatchView, Pool};
use veltrix::dedupe::Secret;
use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, LIFETIME_S_MAX, REWARD_MAX};
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

fn hotspot() -> impl Strategy<Value = u64> {
    let kind =
        prop_oneof![Just(HotspotKind::Item), Just(HotspotKind::Chest), Just(HotspotKind::Ticket)];
    let reward = prop_oneof![4 => 0u32..100, 1 => Just(REWARD_MAX)];
    let lifetime_s = prop_oneof![3 => Just(0u32), 3 => 1u32..20, 1 => Just(LIFETIME_S_MAX)];
    (kind, 0u8..3, 1u16..4, reward, lifetime_s).prop_map(
        |(kind, item, remaining, reward, lifetime_s)| {
            let (item, remaining) =
                if kind == HotspotKind::Ticket { (0, 1) } else { (item, remaining) };
            Hotspot { kind, item, remaining, reward, lifetime_s }.pack().expect("in range")
        },
    )
}

fn kind_and_argument() -> impl Strategy<Value = (u16, u64)> {
    let amount = prop_oneof![8 => 1u64..100, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2)];
    let spend = 1u64..150;
    prop_oneof![
        5 => hotspot().prop_map(|argument| (EventKind::HotspotSpawn.code(), argument)),
        5 => Just((EventKind::CollectItem.code(), 0)),
        4 => Just((EventKind::UseKey.code(), 0)),
        4 => Just((EventKind::Claim.code(), 0)),
        3 => amount.prop_map(|amount| (EventKind::WalletCredit.code(), amount)),
        2 => spend.clone().prop_map(|amount| (EventKind::WalletSpend.code(), amount)),
        3 => spend.prop_map(|amount| (EventKind::WalletTransfer.code(), amount)),
        2 => Just((EventKind::HotspotExpire.code(), 0)),
        1 => (0u16..11, prop_oneof![Just(0), Just(1), any::<u64>()]),
    ]
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
    let subject = prop_oneof![20 => 0u64..8, 1 => Just((1 << 60) - 1), 1 => Just(1 << 60)];
    let reserved = prop_oneof![40 => Just(0u32), 1 => Just(1)];
    (0u64..6, 0u64..6, subject, kind_and_argument(), reserved, key()).prop_map(
        |(domain, player, subject, (kind, argument), reserved, key)| Draft {
            domain,
            player,
            subject,
            argument,
            kind,
            reserved,
            key,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    // Log time does not go back: that is the clock's part.
    let later = prop_oneof![8 => 0u64..500, 2 => 0u64..20_000];
    prop_oneof![
        12 => (later, prop::collection::vec(draft(), 1..80))
            .prop_map(|(later_ms, drafts)| Step::Batch { later_ms, drafts }),
        1 => Just(Step::Blank),
        2 => (1usize..20_000).prop_map(|step_bytes| Step::Capture { step_bytes }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let roomy = (Just(1_000usize), Just(1_000usize), Just(100usize));
    let tight = (1usize..20, 1usize..20, 1usize..5);
    (1u16..5, prop_oneof![roomy, tight]).prop_map(
        |(partitions, (cells_max, players_max, hunts_max))| Limits {
            partitions,
            cells_max,
            players_max,
            hunts_max,
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
                    return *old;
                }
                (event.key, event.player, event.domain) = (old.key, old.player, old.domain);
            }
        }
        self.sent.push(event);
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

fn run(limits: Limits, follow: bool, steps: &[Step]) -> Result<(), String> {
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
    Ok(())
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn apply_answers_and_holds_what_the_model_says(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(limits, false, &steps).map_err(TestCaseError::fail)?;
    }

    /// With a dedupe store that is far too small: nothing is applied twice, no
    /// key below the horizon is taken, and the horizon never falls.
    #[test]
    fn a_store_that_drops_keys_never_applies_one_twice(
        limits in limits(),
        keys_max in 1usize..60,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(Limits { keys_max, ..limits }, true, &steps).map_err(TestCaseError::fail)?;
    }
}
