//! `veltrix format`, `inspect` and `repair` as an operator meets them, on a
//! directory that was filled through the library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use serde_json::Value;
use veltrix::apply::{Partition, PartitionImage};
use veltrix::batch::{BatchView, Payload, Pool};
use veltrix::log::{Body, DataDir, LogEntry, LogId, Wal};
use veltrix::snapshot::{Anchor, Identity, LoadOptions, Position, RealDir, Recorder, newest_first};
use veltrix_abi::kinds::EventKind;
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::Event;

const PARTITIONS: u16 = 4;
const START_MS: u64 = 1_700_000_000_000;
/// Events of a batch; the last is the first once more.
const EVENTS: u64 = 6;

/// A folder that goes away with the value; `data` is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(format!("veltrix-data-directory-{}-{next}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// A formatted directory.
    fn formatted() -> Self {
        let folder = Self::new();
        let sizes = "--partitions 4 --segment-bytes 1048576 --segments 4 --cells-max 100 \
                     --players-max 100 --hunts-max 20 --dedupe-keys-max 1000 --dedupe-window 1h";
        let mut words = vec!["format"];
        words.extend(sizes.split_whitespace());
        words.extend(["--yes", "--json"]);
        let output = folder.veltrix(&words);
        assert_eq!(code(&output), 0, "{output:?}");
        assert_eq!(json(&output)["superblock"]["partitions"], 4);
        folder
    }

    fn veltrix(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veltrix"));
        command.args(words).arg("--data").arg(self.data()).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last line.
fn json(output: &Output) -> Value {
    lines(output).pop().unwrap()
}

/// The batch of an epoch: credits of one hunt, the first key twice.
fn batch(epoch: u64) -> Vec<u8> {
    let mut pool = Pool::new(1, PARTITIONS);
    let index = pool.take().unwrap();
    let buffer = pool.open_buffer(index);
    for i in 0..EVENTS {
        let mut key = [0; 16];
        key[..6].copy_from_slice(&(START_MS + epoch).to_be_bytes()[2..]);
        key[6] = 0x70;
        key[8] = 0x80;
        key[15] = (i % (EVENTS - 1)) as u8;
        let kind = EventKind::WalletCredit.code();
        let player = 1 + i % (EVENTS - 1);
        let event = Event { key, player, subject: 0, argument: 5, kind, reserved: 0, payload: &[] };
        let mut body = vec![0; event.wire_bytes()];
        event.write(&mut body);
        buffer.append(partition_of(epoch, PARTITIONS), epoch, &body, 1).unwrap();
    }
    buffer.seal(0, 1, epoch);
    buffer.bytes().to_vec()
}

fn log_time_ns(epoch: u64) -> u64 {
    (START_MS + epoch) * 1_000_000
}

/// Appends these epochs to the log.
fn append(data: &Path, epochs: std::ops::RangeInclusive<u64>) {
    let dir = DataDir::open(data).unwrap();
    let options = dir.superblock().wal_options().unwrap();
    let (mut wal, _) = Wal::open(&*dir.wal_disk(), options).unwrap();
    for epoch in epochs {
        let body = Body::Batch(Payload::Owned(Bytes::from(batch(epoch))));
        let id = LogId { term: 1, node: 1, index: epoch };
        wal.append(&[LogEntry { id, log_time_ns: log_time_ns(epoch), body }]).unwrap();
    }
}

/// Takes entries up to `epoch` away, as a server does when a snapshot has them.
fn purge(data: &Path, epoch: u64) {
    let dir = DataDir::open(data).unwrap();
    let options = dir.superblock().wal_options().unwrap();
    let (mut wal, _) = Wal::open(&*dir.wal_disk(), options).unwrap();
    wal.purge(LogId { term: 1, node: 1, index: epoch }).unwrap();
}

/// A snapshot of the state after `epoch`.
fn snapshot(data: &Path, epoch: u64) {
    let dir = DataDir::look(data).unwrap();
    let options = LoadOptions::of(dir.superblock(), &dir.snapshots(), 1);
    let identity = Identity::of(dir.superblock());
    let store = RealDir::open(&options.dir).unwrap();
    let mut recorder = Recorder::new(store, &options.dir, identity, None, &[]).unwrap();
    recorder.begin(epoch, log_time_ns(epoch)).unwrap();
    for number in 0..PARTITIONS {
        let mut partition =
            Partition::new(number, &options.limits, options.secret.clone()).unwrap();
        for before in 1..=epoch {
            let bytes = batch(before);
            let view = BatchView::check(&bytes, PARTITIONS).unwrap();
            for range in view.ranges().filter(|range| range.partition == number) {
                partition.apply(before, log_time_ns(before), &view, &range, None);
            }
        }
        partition.apply_other(epoch);
        partition.capture_begin(PartitionImage::new(&options.limits).unwrap());
        while !partition.capture_step(usize::MAX) {}
        recorder.add(&partition.capture_end()).unwrap();
    }
    let last = Position { term: 1, node: 1, index: epoch };
    recorder.finish(Anchor { last, membership: Vec::new() }).unwrap();
}

/// Flips a byte.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_directory_is_formatted_once() {
    let folder = Folder::formatted();
    let again = folder.veltrix(&["format", "--yes"]);
    assert_ne!(code(&again), 0);
    assert!(String::from_utf8_lossy(&again.stderr).contains("formatted already"), "{again:?}");
    let limits = folder.veltrix(&["inspect", "limits", "--json"]);
    assert_eq!((code(&limits), &json(&limits)["a_partition"]["cells_max"]), (0, &Value::from(25)));
    let text = String::from_utf8_lossy(&limits.stdout).to_lowercase();
    assert!(!text.contains("secret") && !text.contains("log_key"), "{text}");
    let log = folder.veltrix(&["inspect", "log", "--json"]);
    assert_eq!((code(&log), &json(&log)["entries"]), (0, &Value::from(0)));
}

#[test]
fn nonsense_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    for (words, wanted) in [
        (&["format", "--yes", "--cells-max", "0"][..], 2),
        (&["format", "--yes", "--dedupe-window", "0s"], 2),
        (&["format", "--yes", "--partitions", "0"], 2),
        (&["inspect", "log"], 3),
        (&["repair", "log"], 2),
    ] {
        let output = folder.veltrix(words);
        assert_eq!(code(&output), wanted, "{output:?}");
    }
    assert!(!folder.data().exists());
}

#[test]
fn every_event_and_what_became_of_it_can_be_dumped() {
    let folder = Folder::formatted();
    append(&folder.data(), 1..=10);
    let events = lines(&folder.veltrix(&["inspect", "log", "--events", "--json"]));
    assert_eq!(events.len() as u64, 10 * EVENTS + 1);
    let first = &events[0];
    assert_eq!((&first["epoch"], &first["player"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(first["kind"], "wallet-credit");
    assert_eq!(first["log_time_ns"], log_time_ns(1));
    let records = lines(&folder.veltrix(&["inspect", "log", "--records", "--json"]));
    assert!(records.len() > 10, "{records:?}");

    let outcomes = lines(&folder.veltrix(&["inspect", "log", "--outcomes", "--json"]));
    assert_eq!(outcomes.len() as u64, 10 * EVENTS + 1);
    for (i, line) in (0..10 * EVENTS).zip(&outcomes) {
        let duplicate = i % EVENTS == EVENTS - 1;
        assert_eq!(
            (&line["outcome"], &line["duplicate"]),
            (&Value::from("applied"), &Value::from(duplicate))
        );
        let first_epoch = if duplicate { Value::from(i / EVENTS + 1) } else { Value::Null };
        assert_eq!(
            (&line["epoch"], &line["first_epoch"]),
            (&Value::from(i / EVENTS + 1), &first_epoch)
        );
    }
    let whole = outcomes.last().unwrap()["dump"]["digests"].clone();

    // From a snapshot, the same state in the end.
    snapshot(&folder.data(), 4);
    snapshot(&folder.data(), 7);
    purge(&folder.data(), 4);
    let outcomes = lines(&folder.veltrix(&["inspect", "log", "--outcomes", "--json"]));
    let dump = &outcomes.last().unwrap()["dump"];
    assert_eq!((&dump["from_snapshot_of_epoch"], &dump["digests"]), (&Value::from(4), &whole));
    assert_eq!(outcomes[0]["epoch"], 5);
}

#[test]
fn a_directory_in_use_can_be_looked_at() {
    let folder = Folder::formatted();
    append(&folder.data(), 1..=2);
    let _held = DataDir::open(&folder.data()).unwrap();
    let output = folder.veltrix(&["inspect", "log", "--json"]);
    assert_eq!((code(&output), &json(&output)["in_use_by"]), (0, &Value::from(std::process::id())));
    let output = folder.veltrix(&["repair", "log", "--accept-loss"]);
    assert_ne!(code(&output), 0, "{output:?}");
}

#[test]
fn damage_to_the_log_is_named_and_mended_only_on_request() {
    let folder = Folder::formatted();
    append(&folder.data(), 1..=10);
    let records = lines(&folder.veltrix(&["inspect", "log", "--records", "--json"]));
    let of_entry = |index: u64| {
        records.iter().find(|r| r["items"][0]["id"]["index"] == index).unwrap().clone()
    };
    let third = of_entry(3);
    let file = Path::new(third["file"].as_str().unwrap()).file_name().unwrap().to_owned();
    let offset = third["offset"].as_u64().unwrap();
    flip(&folder.data().join("wal").join(file), offset as usize + 200);
    let output = folder.veltrix(&["inspect", "log", "--json"]);
    assert_eq!((code(&output), &json(&output)["verdict"]), (11, &Value::from("damaged")));
    let damage = json(&output)["damage"].as_str().unwrap().to_owned();
    assert!(damage.contains(&offset.to_string()) && damage.contains("repair log"), "{damage}");
    assert_eq!(code(&folder.veltrix(&["repair", "log"])), 2, "loss was not accepted");
    let output = folder.veltrix(&["repair", "log", "--accept-loss", "--json"]);
    assert_eq!((code(&output), &json(&output)["last"]), (0, &Value::from(2)), "{output:?}");
    let output = folder.veltrix(&["inspect", "log", "--events", "--json"]);
    assert_eq!((code(&output), lines(&output).len() as u64), (0, 2 * EVENTS + 1));
}

#[test]
fn damage_to_a_snapshot_is_named() {
    let folder = Folder::formatted();
    let output = folder.veltrix(&["inspect", "snapshot", "--json"]);
    assert_eq!((code(&output), &json(&output)["snapshots"]), (0, &Value::Array(Vec::new())));
    snapshot(&folder.data(), 4);
    snapshot(&folder.data(), 7);
    let output = folder.veltrix(&["inspect", "snapshot", "--records", "--json"]);
    let found = lines(&output);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(found.iter().filter(|line| line["record"] == "player").count(), 7 * 5);
    assert_eq!(found.last().unwrap()["snapshots"][0]["facts"]["keys"], 7 * 5);
    let newest = &newest_first(&folder.data().join("snapshots")).unwrap()[0];
    flip(newest, 200);
    let output = folder.veltrix(&["inspect", "snapshot", "--json"]);
    let files = &json(&output)["snapshots"];
    assert_eq!(code(&output), 11);
    assert_eq!(
        (&files[0]["verdict"], &files[1]["verdict"]),
        (&Value::from("refused"), &Value::from("sound"))
    );
    assert!(files[0]["fault"].as_str().unwrap().contains("at byte"), "{files}");
}
