//! Real files of snapshots.

use std::os::unix::fs::MetadataExt as _;
use std::{fs, io};

use super::Folder;
use crate::log::disk::{AlignedBuf, BLOCK_BYTES};
use crate::snapshot::store::{RealDir, SnapshotDir as _, SnapshotFile as _};

/// What a removed file held does not show in the next, shorter or longer.
#[test]
fn files_are_written_over() {
    let temp = Folder::new();
    let dir = RealDir::open(&temp.0).unwrap();
    let block = |byte: u8| {
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
        block.as_mut_slice().fill(byte);
        block
    };
    let make = |name: &str, blocks: u64, byte: u8, bytes: u64| {
        let mut file = dir.create(name).unwrap();
        for at in 0..blocks {
            file.write_at(block(byte).as_ref(), at * BLOCK_BYTES as u64).unwrap();
        }
        file.finish(bytes).unwrap();
        let read = fs::read(temp.0.join(name)).unwrap();
        assert_eq!(read.len() as u64, bytes);
        assert!(read.iter().all(|found| *found == byte), "{name}");
    };
    let inode = |name: &str| fs::metadata(temp.0.join(name)).unwrap().ino();
    make("a", 600, 1, 600 * 4096 - 100);
    let first = inode("a");
    dir.retire("a").unwrap();
    assert_eq!(dir.list().unwrap(), ["snapshot.spare"]);
    make("b", 3, 2, 3 * 4096 - 1);
    assert_eq!((inode("b"), dir.list().unwrap()), (first, vec!["b".to_owned()]));
    dir.retire("b").unwrap();
    make("c", 700, 3, 700 * 4096);
    make("d", 1, 4, 4096);
    assert_eq!(inode("c"), first);
    dir.retire("c").unwrap();
    dir.retire("d").unwrap();
    assert_eq!(dir.list().unwrap(), ["snapshot.spare"], "one is enough");
    assert_eq!(dir.retire("a").unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// Who reads a snapshot, or has linked it, goes on seeing it.
#[test]
fn what_somebody_has_is_not_written_over() {
    let temp = Folder::new();
    let dir = RealDir::open(&temp.0).unwrap();
    let spare = temp.0.join("snapshot.spare");
    fs::write(&spare, b"read").unwrap();
    let reader = fs::File::open(&spare).unwrap();
    reader.lock_shared().unwrap();
    dir.create("a").unwrap().finish(0).unwrap();
    assert_eq!(io::read_to_string(&reader).unwrap(), "read");

    let linked = temp.0.join("linked");
    fs::write(&linked, b"linked").unwrap();
    fs::hard_link(&linked, &spare).unwrap();
    dir.create("b").unwrap().finish(0).unwrap();
    assert_eq!(fs::read(&linked).unwrap(), b"linked");
    assert!(!spare.exists());
}
