//! The writer thread: order, what readers see, what is told when the disk fails.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::{AlignedBuf, BLOCK_BYTES};
use super::simdisk::SimDisk;
use super::test_support::*;
use super::writer::{Done, WriterOptions};
use super::*;

const SOON: Duration = Duration::from_secs(20);

struct Bench {
    disk: SimDisk,
    writer: WalWriter,
    fatal: Receiver<String>,
    log: WalHandle,
}

fn bench(cache_bytes_max: usize) -> Bench {
    let disk = formatted();
    let (wal, _) = Wal::open(&disk, options(1)).unwrap();
    let (tell, fatal) = channel();
    let options = WriterOptions { record_bytes: 8 << 10, cache_bytes_max, core: None };
    let on_fatal = Box::new(move |error: &WalError| tell.send(error.to_string()).unwrap());
    let writer = WalWriter::start(wal, options, on_fatal).unwrap();
    let log = writer.handle();
    Bench { disk, writer, fatal, log }
}

/// A callback, and where its result arrives.
fn done() -> (Done, Receiver<std::io::Result<()>>) {
    let (tell, told) = channel();
    (Box::new(move |result| tell.send(result).unwrap()), told)
}

fn wait(told: &Receiver<std::io::Result<()>>) -> std::io::Result<()> {
    told.recv_timeout(SOON).unwrap()
}

#[test]
fn callbacks_come_in_order_and_what_they_promise_is_durable() {
    let bench = bench(1 << 20);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut index = 1;
    for number in 0..12u64 {
        let entries: Vec<_> = (0..3).map(|i| entry(index + i, 1, 300)).collect();
        index += 3;
        let (order, disk) = (Arc::clone(&order), bench.disk.clone());
        let last = entries.last().unwrap().id;
        let done = Box::new(move |result: std::io::Result<()>| {
            result.unwrap();
            // A power cut right now loses nothing of it.
            let (wal, _) = Wal::open(&disk.power_on(number), options(2)).unwrap();
            assert!(wal.state().last >= Some(last));
            order.lock().unwrap().push(number);
        });
        bench.log.append(entries, done).unwrap();
    }
    let (done, told) = done();
    bench.log.save_vote(vote(3), done).unwrap();
    wait(&told).unwrap();
    assert_eq!(*order.lock().unwrap(), (0..12).collect::<Vec<_>>());
    assert_eq!(bench.log.durable_index(), Some(36));
    let counters = bench.log.counters();
    assert_eq!((counters.entries, counters.queued), (36, 0));
    assert_eq!(bench.log.take_flush_ns().len(), counters.records);
    assert_eq!(bench.log.take_flush_ns().len(), 0);
    let disk = bench.disk.clone();
    drop(bench.writer);
    let (wal, _) = Wal::open(&disk, options(3)).unwrap();
    assert_eq!(wal.state().vote, Some(vote(3)));
}

#[test]
fn what_is_appended_can_be_read_at_once_and_after_it_was_forgotten() {
    let bench = bench(1 << 20);
    let entries: Vec<_> = (1..=9).map(|index| entry(index, 1, 500)).collect();
    let (done_one, told) = done();
    bench.log.append(entries.clone(), done_one).unwrap();
    assert_eq!(bench.log.read(1, 100, usize::MAX).unwrap(), entries);
    assert_eq!(bench.log.state().last, Some(entries[8].id));
    wait(&told).unwrap();
    for below in [0, 4, 9, 100] {
        bench.log.forget_below(below);
        assert_eq!(bench.log.read(3, 6, usize::MAX).unwrap(), entries[2..5]);
        assert_eq!(bench.log.read(3, 6, 1).unwrap(), entries[2..3]);
        assert!(bench.log.read(10, 12, usize::MAX).unwrap().is_empty());
    }
    let (done_two, told) = done();
    bench.log.truncate_after(Some(entries[5].id), done_two).unwrap();
    assert_eq!(bench.log.read(6, 100, usize::MAX).unwrap(), entries[5..6]);
    let (done_three, _told) = done();
    bench.log.append(vec![entry(7, 2, 10)], done_three).unwrap();
    assert_eq!(bench.log.read(7, 100, usize::MAX).unwrap(), [entry(7, 2, 10)]);
    wait(&told).unwrap();
    let (done_four, told) = done();
    bench.log.purge(entries[3].id, done_four).unwrap();
    assert!(matches!(bench.log.read(4, 6, 0), Err(WalError::Purged { index: 4, first: 5 })));
    wait(&told).unwrap();
    assert_eq!(bench.log.read(5, 6, 0).unwrap(), entries[4..5]);
}

#[test]
fn the_cache_gives_way_to_its_bound() {
    let bench = bench(4_000);
    for index in 1..=20 {
        let (done, told) = done();
        bench.log.append(vec![entry(index, 1, 1_000)], done).unwrap();
        wait(&told).unwrap();
    }
    // Both come, those that are cached and those that must be read from the disk.
    for index in 1..=20 {
        assert_eq!(bench.log.read(index, index + 1, 0).unwrap(), [entry(index, 1, 1_000)]);
    }
    let mut from = 1;
    while from <= 20 {
        let read = bench.log.read(from, 21, usize::MAX).unwrap();
        assert!(!read.is_empty());
        from += read.len() as u64;
    }
}

#[test]
fn a_failed_write_is_told_to_all_and_ends_the_log() {
    let bench = bench(1 << 20);
    bench.disk.fail_write(0, std::io::ErrorKind::StorageFull);
    let (done_one, told) = done();
    bench.log.append(vec![entry(1, 1, 100)], done_one).unwrap();
    assert_eq!(wait(&told).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let said = bench.fatal.recv_timeout(SOON).unwrap();
    assert!(said.contains("writing a record"), "{said}");
    let (done_two, _told) = done();
    assert!(matches!(bench.log.append(vec![entry(2, 1, 100)], done_two), Err(WalError::Closed)));
    assert_eq!(bench.log.durable_index(), None);
}

#[test]
fn contradictions_are_refused_before_they_are_queued() {
    let bench = bench(1 << 20);
    let (done_one, _told) = done();
    bench.log.append(vec![entry(1, 1, 10)], done_one).unwrap();
    for entries in [vec![entry(3, 1, 10)], vec![entry(2, 1, 10), entry(4, 1, 10)]] {
        let refused = bench.log.append(entries, done().0);
        assert!(matches!(refused, Err(WalError::Contradiction { .. })));
    }
    let refused = bench.log.truncate_after(Some(entry(5, 1, 0).id), done().0);
    assert!(matches!(refused, Err(WalError::Contradiction { .. })));
    let (done_two, told) = done();
    bench.log.append(vec![entry(2, 1, 10)], done_two).unwrap();
    wait(&told).unwrap();
}

#[test]
fn huge_buffers_begin_at_a_block_are_zeroed_and_keep_what_they_hold() {
    let mut buffer = AlignedBuf::huge(1);
    assert!(buffer.as_slice().len() >= 1 << 20 && buffer.as_slice().iter().all(|b| *b == 0));
    assert_eq!(buffer.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0);
    buffer.as_mut_slice()[7] = 9;
    let before = buffer.as_slice().len();
    buffer.grow(before);
    assert_eq!(buffer.as_slice().len(), before);
    buffer.grow(before + 1);
    assert!(buffer.as_slice().len() > before && buffer.as_slice()[7] == 9);
    assert!(buffer.as_slice()[8..].iter().all(|b| *b == 0));
}
