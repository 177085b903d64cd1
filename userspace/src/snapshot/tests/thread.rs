//! The thread: rounds, images going round, alarms.

use std::sync::mpsc;

use super::super::{Done, SnapshotWriter, WriterOptions};
use super::*;

struct Rig {
    writer: SnapshotWriter,
    lanes: Vec<super::super::LaneImages<Plain>>,
    done: mpsc::Receiver<Option<u64>>,
}

fn rig(dir: &Path, missing: u64) -> Rig {
    let options = WriterOptions {
        dir: dir.to_owned(),
        identity: identity(4),
        bytes_per_s: None,
        refused: Vec::new(),
    };
    let (tell, done) = mpsc::channel();
    let images = vec![vec![Plain::default()], vec![Plain::default()]];
    let find = Box::new(move |epoch| match epoch {
        epoch if epoch == missing => Err(io::ErrorKind::NotFound.into()),
        epoch => Ok(anchor(epoch)),
    });
    let on_done = Box::new(move |done: &Done| {
        let epoch = match done {
            Done::Written(written) => Some(written.manifest.last.index),
            Done::Failed(_) => None,
        };
        let _ = tell.send(epoch);
    });
    let (writer, lanes) = SnapshotWriter::start(&options, images, find, on_done).unwrap();
    Rig { writer, lanes, done }
}

impl Rig {
    /// Delivers the partitions, two of each lane.
    fn deliver(&mut self, round: u64, epoch: u64) {
        for number in 0..4u16 {
            let lane = &mut self.lanes[usize::from(number / 2)];
            let _ = loop {
                match lane.take() {
                    Some(image) => break image,
                    None => std::thread::yield_now(),
                }
            };
            lane.deliver(round, Plain::new(number, epoch + u64::from(number), 5_000)).unwrap();
        }
    }
}

#[test]
fn rounds_become_snapshots_and_images_come_back() {
    let folder = Folder::new();
    let dir = folder.0.join("snapshots");
    let mut rig = rig(&dir, 0);
    for epoch in [100, 200, 300] {
        let round = rig.writer.begin(epoch);
        rig.deliver(round, epoch);
        assert_eq!(rig.done.recv().unwrap(), Some(epoch));
        let newest = &super::super::newest_first(&dir).unwrap()[0];
        let snapshot = Snapshot::open(newest).unwrap();
        snapshot.verify(|_| {}).unwrap();
        assert_eq!((snapshot.header().created_ns, snapshot.manifest().last.index), (epoch, epoch));
    }
    let status = rig.writer.status();
    assert_eq!((status.written, status.kept.clone()), (3, vec![200, 300]));
    assert_eq!((status.newest(), status.purge_upto(), status.running), (300, 200, None));
    assert_eq!(status.last.unwrap().raw_bytes, 4 * 3 * 5_000);
    rig.writer.stop();
}

#[test]
fn a_failed_round_is_an_alarm_until_one_succeeds() {
    let folder = Folder::new();
    let mut rig = rig(&folder.0.join("snapshots"), 100);
    let round = rig.writer.begin(1);
    rig.deliver(round, 100);
    assert_eq!(rig.done.recv().unwrap(), None, "the log has no entry 100");
    assert!(rig.writer.status().alarm.unwrap().contains("not in the log"));
    // What comes late for a round that is over is given back, and no more.
    rig.deliver(round, 500);
    let round = rig.writer.begin(2);
    rig.writer.abandon(round);
    assert_eq!(rig.done.recv().unwrap(), None);
    let first = rig.writer.begin(3);
    let second = rig.writer.begin(4);
    assert_eq!(rig.done.recv().unwrap(), None, "the round before is given up");
    rig.deliver(first, 600);
    rig.deliver(second, 700);
    assert_eq!(rig.done.recv().unwrap(), Some(700));
    let status = rig.writer.status();
    assert_eq!((status.written, status.failed, status.alarm), (1, 3, None));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let options = WriterOptions {
        dir: "/proc/none/snapshots".into(),
        identity: identity(1),
        bytes_per_s: None,
        refused: Vec::new(),
    };
    let find = Box::new(|epoch| Ok(anchor(epoch)));
    let started = SnapshotWriter::start::<Plain>(&options, Vec::new(), find, Box::new(|_| {}));
    let error = started.err().unwrap().to_string();
    assert!(error.contains("/proc/none/snapshots"), "{error}");
}
