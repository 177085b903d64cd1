//! Seeds of what is durable: one of every shape, and one of every way to be
//! wrong. Built by the server's own encoders, so a change of the format shows
//! here as a stale file.

use std::path::Path;
use std::sync::Arc;

use veltrix::apply::{Partition, PartitionImage, PartitionLimits};
use veltrix::batch::{BatchView, Pool};
use veltrix::dedupe::{DedupeLimits, Secret};
use veltrix::index::IndexLimits;
use veltrix::log::record::{Base, FLAG_LIFE, FLAG_SEGMENT, Item, RecordBuilder, RecordHeader};
use veltrix::log::{BodyKind, LogId, Vote};
use veltrix::snapshot::{Anchor, Identity, Limits, Position, Recorder};
use veltrix_abi::Outcome;
use veltrix_abi::partition::partition_of;
use veltrix_tests::sim::files::SimDir;
use veltrix_tests::sim::rng::Rng;

use super::durable::{DAMAGED, LOG_KEY, PARTITIONS};
use super::seeds::{Seed, cut, events_body, seed};
use super::seeds_games;

/// A batch of `datagrams`: domain and payload length of each event.
fn batch(datagrams: &[(u64, &[usize])]) -> Vec<u8> {
    let mut pool = Pool::new(1, PARTITIONS);
    let index = pool.take().expect("nobody holds it");
    let buffer = pool.open_buffer(index);
    for (domain, payloads) in datagrams {
        let (partition, body) = (partition_of(*domain, PARTITIONS), events_body(payloads));
        buffer.append(partition, *domain, &body, payloads.len() as u16).expect("it fits");
    }
    buffer.seal(1, 2, 3);
    buffer.bytes().to_vec()
}

fn changed(mut bytes: Vec<u8>, at: usize, to: &[u8]) -> Vec<u8> {
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// The last of its bytes another.
fn tail_changed(bytes: Vec<u8>) -> Vec<u8> {
    let last = bytes.len() - 1;
    changed(bytes, last, &[0x5a])
}

pub fn batches() -> Vec<Seed> {
    let several = batch(&[(1, &[0, 3]), (2, &[8]), (1, &[0]), (7, &[0]), (2, &[1])]);
    let order = u32::from_le_bytes(*several[24..].first_chunk().expect("a header")) as usize;
    let second = *several[order + 4..].first_chunk::<4>().expect("several runs");
    vec![
        seed("one-event", "batch", batch(&[(1, &[0])])),
        seed("empty", "batch", batch(&[])),
        seed("several-partitions", "batch", several.clone()),
        seed("cut-in-table", DAMAGED, cut(several.clone(), several.len() - 1)),
        seed("cut-in-header", DAMAGED, cut(several.clone(), 40)),
        seed("version-2", DAMAGED, changed(several.clone(), 4, &[2])),
        seed("reserved-set", DAMAGED, changed(several.clone(), 63, &[1])),
        seed("more-events-than-there-are", DAMAGED, changed(several.clone(), 16, &[9])),
        seed("order-names-a-run-twice", DAMAGED, changed(several.clone(), order, &second)),
        seed("order-points-into-a-run", DAMAGED, changed(several.clone(), order, &[66])),
        seed("order-behind-the-end", DAMAGED, changed(several.clone(), 24, &[0xff; 4])),
        seed("last-range-counts-others", DAMAGED, tail_changed(several)),
    ]
}

const ID: LogId = LogId { term: 2, node: 1, index: 9 };

fn record(flags: u16, items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = RecordBuilder::new();
    for item in items {
        builder.push(item);
    }
    let header = RecordHeader {
        flags,
        salt: 3,
        sequence: 4,
        segment: 5,
        durable_upto: 6,
        chain: 7,
        ..RecordHeader::default()
    };
    builder.finish(header, LOG_KEY).0.to_vec()
}

pub fn records() -> Vec<Seed> {
    let entry = |kind, bytes| Item::Entry { id: ID, log_time_ns: 11, kind, bytes };
    let vote = Vote { term: 2, node: 1, committed: true };
    let base = Base {
        vote: Some(vote),
        purged: Some(LogId { index: 3, ..ID }),
        committed: Some(LogId { index: 8, ..ID }),
        last: Some(LogId { index: 8, ..ID }),
    };
    let bytes = batch(&[(1, &[0])]);
    let whole = record(
        FLAG_SEGMENT,
        &[
            Item::Base(base),
            entry(BodyKind::Blank, &[]),
            entry(BodyKind::Batch, &bytes),
            entry(BodyKind::Digests, &[1, 2, 3]),
            Item::Vote(vote),
            Item::Truncate(Some(ID)),
            Item::Truncate(None),
            Item::Purge(ID),
            Item::Committed(ID),
        ],
    );
    vec![
        seed("first-of-a-life", "record", record(FLAG_LIFE, &[Item::Base(Base::default())])),
        seed("items-of-every-kind", "record", whole.clone()),
        seed("cut-in-header", DAMAGED, cut(whole.clone(), 63)),
        seed("cut-in-padding", DAMAGED, cut(whole.clone(), 4_095)),
        seed("padding-changed", DAMAGED, tail_changed(whole.clone())),
        seed("unknown-flag", DAMAGED, changed(whole.clone(), 6, &[4])),
        seed("group-1", DAMAGED, changed(whole.clone(), 8, &[1])),
        seed("length-over-all", DAMAGED, changed(whole.clone(), 48, &[0xff; 4])),
        seed("item-of-no-kind", DAMAGED, changed(whole.clone(), 64, &[99])),
        seed("item-longer-than-the-record", DAMAGED, changed(whole, 68, &[0xff; 4])),
    ]
}

/// What the snapshots are of can hold so much.
const LIMITS: PartitionLimits = PartitionLimits {
    index: IndexLimits {
        cells_max: 4,
        players_max: 4,
        hunts_max: 4,
        definitions_max: 4,
        deeds_max: 4,
    },
    dedupe: DedupeLimits { keys_max: 16, window_ms: 60_000 },
};

/// A snapshot of one partition in which so many domains have a credit.
fn credits(domains: u64) -> Vec<u8> {
    let credit = |domain: u64| {
        let mut body = events_body(&[0]);
        // A credit of 5.
        body = changed(body, 32, &5u64.to_le_bytes());
        body = changed(body, 40, &5u16.to_le_bytes());
        changed(body, 10, &[domain as u8])
    };
    snapshot(&(0..domains).map(|domain| (domain, credit(domain))).collect::<Vec<_>>())
}

/// A snapshot of one partition that was given these events: the domain and the body of
/// a datagram of one event each.
fn snapshot(datagrams: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let secret = Arc::new(Secret::new([9; 192]));
    let mut partition = Partition::new(0, &LIMITS, secret).expect("memory");
    let mut pool = Pool::new(1, 1);
    let index = pool.take().expect("nobody holds it");
    for (domain, body) in datagrams {
        pool.open_buffer(index).append(0, *domain, body, 1).expect("it fits");
    }
    pool.open_buffer(index).seal(1, 2, 3);
    let view = BatchView::check(pool.get(index).bytes(), 1).expect("as it was sealed");
    for range in view.ranges() {
        // When the keys of `events_body` were made.
        partition.apply(7, 0x019a_0000_0000 * 1_000_000, &view, &range, None);
    }
    let applied = partition.outcomes()[usize::from(Outcome::Applied.code())];
    assert_eq!(applied, datagrams.len() as u64, "an event was refused");
    partition.apply_other(7);
    partition.capture_begin(PartitionImage::new(&LIMITS).expect("memory"));
    while !partition.capture_step(1 << 20) {}
    let image = partition.capture_end();

    let folder = SimDir::new(Rng::new(1));
    let identity = Identity {
        cluster_id: 1,
        node: 1,
        partitions: 1,
        secret_digest: 2,
        limits: Limits {
            cells_max: LIMITS.index.cells_max,
            players_max: LIMITS.index.players_max,
            hunts_max: LIMITS.index.hunts_max,
            definitions_max: LIMITS.index.definitions_max,
            deeds_max: LIMITS.index.deeds_max,
            dedupe_keys_max: LIMITS.dedupe.keys_max,
            dedupe_window_ms: LIMITS.dedupe.window_ms,
        },
    };
    let place = Path::new("snapshots");
    let mut recorder = Recorder::new(folder.clone(), place, identity, None, &[]).expect("a folder");
    recorder.begin(77, 88).expect("it begins");
    recorder.add(&image).expect("it is added");
    let last = Position { term: 1, node: 1, index: 7 };
    recorder.finish(Anchor { last, membership: Vec::new() }).expect("it is complete");
    let (_, name) = folder.snapshots().pop().expect("there is one");
    folder.read(&name).expect("it is there")
}

pub fn snapshots() -> Vec<Seed> {
    let whole = credits(3);
    let game = snapshot(&seeds_games::game());
    let trailer = whole.len() - 48;
    vec![
        seed("empty-partition", "snapshot", credits(0)),
        seed("every-section", "snapshot", game.clone()),
        seed("every-section-cut", DAMAGED, cut(game.clone(), game.len() - 100)),
        seed("version-4", DAMAGED, changed(whole.clone(), 8, &[4])),
        seed("some-players", "snapshot", whole.clone()),
        seed("cut-in-trailer", DAMAGED, cut(whole.clone(), trailer + 47)),
        seed("cut-before-trailer", DAMAGED, cut(whole.clone(), trailer)),
        seed("cut-in-header", DAMAGED, cut(whole.clone(), 100)),
        seed("version-9", DAMAGED, changed(whole.clone(), 8, &[9])),
        seed("other-file-id", DAMAGED, changed(whole.clone(), 16, &[1])),
        seed("first-block-of-another-partition", DAMAGED, changed(whole.clone(), 136, &[1])),
        seed("first-block-of-no-codec", DAMAGED, changed(whole.clone(), 139, &[9])),
        seed("first-block-longer-than-the-file", DAMAGED, changed(whole.clone(), 148, &[0xff; 4])),
        seed("manifest-behind-the-end", DAMAGED, changed(whole.clone(), trailer + 16, &[0xff; 8])),
        seed("last-byte-changed", DAMAGED, tail_changed(whole)),
    ]
}
