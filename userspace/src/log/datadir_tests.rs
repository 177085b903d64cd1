//! Data directories on the real file system, and what is refused about them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::disk::{RealDisk, WriteMode};
use super::superblock::{
    DataError, FORMAT_VERSION, FormatOptions, LOCK_FILE, SEGMENT_BYTES_MIN, SUPERBLOCK_FILE,
    sizes_for,
};
use super::test_support::*;
use super::*;

/// A directory that goes when the test does.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("veltrix-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn dir(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn small() -> FormatOptions {
    FormatOptions {
        segment_bytes: Some(SEGMENT_BYTES_MIN),
        segments_max: Some(4),
        ..FormatOptions::default()
    }
}

fn format(dir: &Path) -> Superblock {
    DataDir::format(dir, &small(), &mut |_, _| {}).unwrap()
}

#[test]
fn what_is_formatted_is_opened_and_written() {
    let scratch = Scratch::new("formatted");
    let mut seen = Vec::new();
    let made = DataDir::format(&scratch.dir(), &small(), &mut |done, all| seen.push((done, all)));
    let made = made.unwrap();
    assert_eq!(seen.first(), Some(&(0, 4 << 20)));
    assert_eq!(seen.last(), Some(&(4 << 20, 4 << 20)));
    for life in 1..4 {
        let data = DataDir::open(&scratch.dir()).unwrap();
        assert_eq!(data.superblock(), &made);
        let options = data.superblock().wal_options().unwrap();
        let (mut wal, _) = Wal::open(&*data.wal_disk(), options).unwrap();
        assert_eq!(wal.state().last.map_or(0, |last| last.index), (life - 1) * 9);
        for index in (life - 1) * 9 + 1..=life * 9 {
            wal.append(&[entry(index, 1, 100_000)]).unwrap();
            if index > 5 {
                wal.purge(entry(index - 5, 1, 0).id).unwrap();
            }
        }
    }
}

#[test]
fn both_ways_to_write_hold_what_was_written() {
    for buffered in [false, true] {
        let scratch = Scratch::new(if buffered { "buffered" } else { "direct" });
        let disk =
            if buffered { RealDisk::buffered(&scratch.0) } else { RealDisk::new(&scratch.0) };
        Wal::format(&disk, &options(0), &mut |_| {}).unwrap();
        let (mut wal, _) = Wal::open(&disk, options(1)).unwrap();
        assert!(!buffered || wal.mode() == WriteMode::Buffered);
        wal.append(&[entry(1, 1, 10_000), entry(2, 1, 5)]).unwrap();
        let before = Model::of(&wal);
        let (wal, _) = Wal::open(&disk, options(2)).unwrap();
        assert_eq!(Model::of(&wal), before);
    }
}

#[test]
fn a_second_user_is_refused_with_the_firsts_pid() {
    let scratch = Scratch::new("locked");
    format(&scratch.dir());
    let first = DataDir::open(&scratch.dir()).unwrap();
    let pid = std::process::id();
    assert_eq!(DataDir::user(&scratch.dir()), Some(pid));
    let error = DataDir::open(&scratch.dir()).unwrap_err();
    assert!(error.to_string().contains(&format!("in use by process {pid}")), "{error}");
    // Looking is allowed.
    DataDir::look(&scratch.dir()).unwrap();
    drop(first);
    assert_eq!(DataDir::user(&scratch.dir()), None);
    DataDir::open(&scratch.dir()).unwrap();
}

#[test]
fn a_directory_that_holds_anything_is_not_formatted() {
    let scratch = Scratch::new("not-empty");
    fs::create_dir(scratch.dir()).unwrap();
    fs::write(scratch.dir().join("letter.txt"), "dear").unwrap();
    let error = DataDir::format(&scratch.dir(), &small(), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("not empty: it holds \"letter.txt\""), "{error}");
    assert_eq!(fs::read(scratch.dir().join("letter.txt")).unwrap(), b"dear");
    fs::remove_file(scratch.dir().join("letter.txt")).unwrap();
    format(&scratch.dir());
    let error = DataDir::format(&scratch.dir(), &small(), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("its data would be lost"), "{error}");
    DataDir::open(&scratch.dir()).unwrap();
}

#[test]
fn an_interrupted_format_is_named_and_can_be_done_again() {
    let scratch = Scratch::new("interrupted");
    format(&scratch.dir());
    fs::write(scratch.dir().join("format-in-progress"), "").unwrap();
    fs::remove_file(scratch.dir().join(SUPERBLOCK_FILE)).unwrap();
    let error = DataDir::open(&scratch.dir()).unwrap_err().to_string();
    assert!(error.contains("(formatting it was interrupted)"), "{error}");
    assert!(error.contains("veltrix format --data"), "{error}");
    format(&scratch.dir());
    DataDir::open(&scratch.dir()).unwrap();
}

#[test]
fn more_than_the_disk_has_is_refused_before_anything_is_made() {
    let scratch = Scratch::new("no-space");
    let options = FormatOptions {
        segment_bytes: Some(1 << 30),
        segments_max: Some(1_000_000),
        ..FormatOptions::default()
    };
    let error = DataDir::format(&scratch.dir(), &options, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, DataError::NoSpace { .. }), "{error}");
    assert_eq!(fs::read_dir(scratch.dir()).unwrap().count(), 0);
}

#[test]
fn values_out_of_range_are_refused() {
    let scratch = Scratch::new("values");
    for options in [
        FormatOptions { segment_bytes: Some(1 << 19), ..small() },
        FormatOptions { segment_bytes: Some((1 << 20) + 512), ..small() },
        FormatOptions { segments_max: Some(3), ..small() },
        FormatOptions { partitions: 0, ..small() },
    ] {
        let error = DataDir::format(&scratch.dir(), &options, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, DataError::Value(_)), "{error}");
    }
}

#[test]
fn a_changed_superblock_is_refused() {
    let scratch = Scratch::new("superblock");
    format(&scratch.dir());
    let path = scratch.dir().join(SUPERBLOCK_FILE);
    let good = fs::read_to_string(&path).unwrap();
    let refuse = |text: &str| {
        fs::write(&path, text).unwrap();
        DataDir::open(&scratch.dir()).unwrap_err().to_string()
    };
    let error = refuse(&good.replace("\"partitions\": 64", "\"partitions\": 65"));
    assert!(error.contains("superblock.json: the superblock is damaged: its crc32c"), "{error}");
    let version = |version: u32| format!("\"format_version\": {version}");
    let error = refuse(&good.replace(&version(FORMAT_VERSION), &version(FORMAT_VERSION + 1)));
    let wanted =
        format!("format version {}, this veltrix knows {FORMAT_VERSION}", FORMAT_VERSION + 1);
    assert!(error.contains(&wanted), "{error}");
    let error = refuse(&good.replace("\"partitions\"", "\"partitionz\""));
    assert!(error.contains("a field is wrong"), "{error}");
    for cut in 0..good.len() - 2 {
        refuse(&good[..cut]);
    }
    for at in 0..good.len() {
        let mut bad = good.clone().into_bytes();
        bad[at] ^= 1;
        let _ = Superblock::decode(&path, &bad);
    }
    fs::write(&path, &good).unwrap();
    DataDir::open(&scratch.dir()).unwrap();
}

#[test]
fn another_clusters_directory_is_refused() {
    let scratch = Scratch::new("cluster");
    let made = format(&scratch.dir());
    let data = DataDir::open(&scratch.dir()).unwrap();
    data.expect_cluster(made.cluster_id).unwrap();
    let error = data.expect_cluster(made.cluster_id ^ 1).unwrap_err().to_string();
    assert!(error.contains("belongs to cluster"), "{error}");
}

#[test]
fn what_others_may_write_to_is_refused() {
    let scratch = Scratch::new("owner");
    format(&scratch.dir());
    fs::set_permissions(scratch.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = DataDir::open(&scratch.dir()).unwrap_err().to_string();
    assert!(error.contains("mode 0777") && error.contains("chmod go-w"), "{error}");
    fs::set_permissions(scratch.dir(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(scratch.dir().join(LOCK_FILE)).unwrap();
    DataDir::open(&scratch.dir()).unwrap();
}

#[test]
fn sizes_fit_the_disk() {
    assert_eq!(sizes_for(1 << 40, None, None), (128 << 20, 32));
    assert_eq!(sizes_for(4 << 30, None, None), (128 << 20, 8));
    assert_eq!(sizes_for(400 << 20, None, None), (8 << 20, 12));
    assert_eq!(sizes_for(1 << 20, None, None), (1 << 20, 4));
    assert_eq!(sizes_for(1 << 40, Some(1 << 20), Some(5)), (1 << 20, 5));
    assert_eq!(sizes_for(1 << 30, None, Some(16)), (16 << 20, 16));
}

/// What was let in before a look at the room finds none must not be refused, though
/// what is in flight was written meanwhile and is counted as in flight as well.
#[test]
fn what_may_be_in_flight_fits_after_as_much_was_written() {
    let scratch = Scratch::new("room");
    let mut superblock = format(&scratch.dir());
    for segment_bytes in [1 << 20, 16 << 20, 128 << 20] {
        for batches in [1, 32, 64, 200] {
            superblock.segment_bytes = segment_bytes;
            superblock.segments_max = 1_000;
            let in_flight = batches * ((256 << 10) + 8_192);
            let min = superblock.room_bytes_min(batches);
            let written = in_flight.next_multiple_of(segment_bytes);
            let left = min.next_multiple_of(segment_bytes) - written;
            assert!(left >= in_flight, "{segment_bytes} {batches}: {left} of {in_flight}");
            superblock.segments_max = 4;
            assert!(superblock.room_bytes_min(batches) <= segment_bytes, "a small log is usable");
        }
    }
}
