//! Every state that a crash can leave behind, enumerated: what was acknowledged is
//! there, nothing else is, and recovery can crash too.

use super::simdisk::{Flush, Image, Op, SimDisk};
use super::test_support::*;
use super::*;

/// What the writer of a script believed after each flush.
fn run_script(disk: &SimDisk) -> Vec<Model> {
    let (mut wal, _) = Wal::open(disk, options(1)).unwrap();
    let mut model = Model::default();
    let mut states = vec![model.clone()];
    disk.record();
    for (number, step) in script().into_iter().enumerate() {
        for staged in &step {
            model.apply(staged);
            stage(&mut wal, staged);
        }
        wal.flush().unwrap();
        states.push(model.clone());
        disk.note(number as u64 + 1);
    }
    states
}

/// Votes, appends, cuts and purges, one inner list a record, over the ring twice.
fn script() -> Vec<Vec<Action>> {
    use Action::{Append, Committed, Purge, Truncate, Vote};
    let mut script = vec![vec![Vote(1)]];
    let mut next = 1;
    for round in 0..14u64 {
        let term = 1 + round / 4;
        script.push(vec![Append(next, term, 300), Append(next + 1, term, 0)]);
        script.push(vec![Append(next + 2, term, 7_000)]);
        script.push(vec![Committed(next), Append(next + 3, term, 500)]);
        next += 4;
        match round % 4 {
            1 => script.push(vec![Purge(next - 4)]),
            2 => {
                script.push(vec![Truncate(next - 2), Vote(term), Append(next - 1, term, 900)]);
            }
            3 => {
                script.push(vec![Vote(term + 1)]);
                script.push(vec![Purge(next - 3)]);
            }
            _ => {}
        }
    }
    script
}

/// Calls `see` with every choice of some of the sectors that `crash` asks about: all
/// choices of up to `all_max` sectors, else some and the extremes.
fn each_choice(
    all_max: u32,
    crash: &dyn Fn(&mut dyn FnMut() -> bool) -> Image,
    see: &mut dyn FnMut(Image) -> Result<(), String>,
) -> Result<(), String> {
    let mut sectors = 0u32;
    crash(&mut || {
        sectors += 1;
        false
    });
    let mut choose_by = |bit: &dyn Fn(u32) -> bool| {
        let mut at = 0;
        see(crash(&mut || {
            at += 1;
            bit(at - 1)
        }))
    };
    if sectors <= all_max {
        return (0..1u32 << sectors).try_for_each(|mask| choose_by(&|at| mask >> at & 1 == 1));
    }
    choose_by(&|_| true)?;
    choose_by(&|_| false)?;
    for one in 0..sectors {
        choose_by(&|at| at == one)?;
        choose_by(&|at| at != one)?;
    }
    for seed in 0..16u64 {
        choose_by(&|at| {
            (seed * 7 + 1).wrapping_mul(0x9e37_79b9 + u64::from(at) * 31) >> 13 & 1 == 1
        })?;
    }
    Ok(())
}

/// Opens what a crash left; the state must be one of those allowed.
fn judge(image: Image, allowed: &[Model], twice: bool) -> Result<(), String> {
    let disk = SimDisk::of_image(image);
    disk.record();
    let (wal, report) = Wal::open(&disk, options(2)).map_err(|e| format!("refused: {e}"))?;
    let found = Model::of(&wal);
    if !allowed.contains(&found) {
        return Err(format!("found {found:?}, allowed {allowed:?}, {report:?}"));
    }
    drop(wal);
    if !twice {
        return Ok(());
    }
    // The second crash: during the recovery's own operations, during those of a third
    // life, which writes over the second's beginning, and right after them.
    let first_over = disk.ops().len();
    Wal::open(&disk, options(3)).map_err(|e| format!("refused the second time: {e}"))?;
    let ops = disk.ops();
    for n in 0..=ops.len() {
        let over = n >= first_over;
        let crash = |choose: &mut dyn FnMut() -> bool| disk.crash(n, choose);
        each_choice(8, &crash, &mut |image| {
            if over {
                // What the first recovery returned was acted upon.
                judge(image, std::slice::from_ref(&found), false)
            } else {
                judge(image, allowed, false)
            }
        })?;
    }
    Ok(())
}

fn check_every_crash(flush: Flush) -> Result<u64, String> {
    let disk = formatted();
    disk.set_flush(flush);
    let states = run_script(&disk);
    let ops = disk.ops();
    let (mut acked, mut seen) = (0usize, 0u64);
    for (n, op) in ops.iter().enumerate() {
        if let Op::Note(number) = op {
            acked = *number as usize;
        }
        let allowed = &states[acked..(acked + 2).min(states.len())];
        let crash = |choose: &mut dyn FnMut() -> bool| disk.crash(n, choose);
        each_choice(12, &crash, &mut |image| {
            seen += 1;
            judge(image, allowed, seen.is_multiple_of(41))
                .map_err(|e| format!("crash in operation {n}, {acked} acknowledged: {e}"))
        })?;
    }
    Ok(seen)
}

#[test]
fn whatever_a_power_cut_leaves_what_was_acknowledged_is_there() {
    let seen = check_every_crash(Flush::Honest).unwrap();
    assert!(seen > 1_000, "{seen} crash states");
}

/// The check above can fail: a flush that is left out, or one that is over only after
/// the acknowledgement, is found.
#[test]
fn a_disk_that_lies_is_found_out() {
    for flush in [Flush::Forgotten, Flush::Late(1), Flush::Never] {
        let error = check_every_crash(flush).unwrap_err();
        assert!(error.contains("acknowledged: "), "{flush:?}: {error}");
    }
}

/// A killed process leaves writes in caches: a start that reads them must make them
/// durable before it acts on them.
fn killed_then_power_cut(sync: Flush) -> Result<(), String> {
    for at in 0..20 {
        let disk = formatted();
        let (mut wal, _) = Wal::open(&disk, options(1)).unwrap();
        disk.kill_at_write(at);
        let mut index = 1;
        while wal.append(&[entry(index, 1, 400)]).is_ok() {
            index += 1;
        }
        let again = disk.restart();
        again.set_flush(sync);
        let (wal, _) = Wal::open(&again, options(2)).map_err(|e| e.to_string())?;
        let found = Model::of(&wal);
        if found.last.map(|id| id.index) != Some(index) {
            return Err("a write that the cache had taken was not found".into());
        }
        let (wal, _) = Wal::open(&again.power_on(at), options(3)).map_err(|e| e.to_string())?;
        if Model::of(&wal) != found {
            return Err(format!("found {found:?}, and after a power cut {:?}", Model::of(&wal)));
        }
    }
    Ok(())
}

#[test]
fn what_a_start_found_in_caches_is_durable_when_it_returns() {
    killed_then_power_cut(Flush::Honest).unwrap();
    killed_then_power_cut(Flush::Never).unwrap_err();
}

/// Records of the log in `image` that are still needed, in order: file and offset.
fn records(image: &Image) -> Vec<(String, u64)> {
    let disk = SimDisk::of_image(image.clone());
    let mut found = Vec::new();
    let mut visit = |file: &str, offset: u64, record: &record::Record<'_>| {
        let file = file.strip_prefix("memory/wal/").unwrap().to_owned();
        found.push((record.header.segment, file, offset));
    };
    let inspection = recover::inspect(&disk, &options(9), &mut visit).unwrap();
    assert!(inspection.damage.is_none());
    let (wal, _) = Wal::open(&disk, options(9)).unwrap();
    let oldest = wal.oldest_segment();
    let needed = found.into_iter().filter(|(segment, ..)| *segment >= oldest);
    needed.map(|(_, file, offset)| (file, offset)).collect()
}

#[test]
fn rot_below_what_was_durable_is_fenced_and_above_it_cut() {
    let disk = formatted();
    let states = run_script(&disk);
    let image = disk.image();
    let records = records(&image);
    let last = records.last().unwrap().clone();
    for (file, offset) in &records {
        for within in [0, 1, 17, 40, 61, 64, 70, 300, 4095] {
            let rotten = SimDisk::of_image(image.clone());
            rotten.rot(file, offset + within, 0x10);
            let opened = Wal::open(&rotten, options(2));
            if (file, *offset) == (&last.0, last.1) {
                let found = Model::of(&opened.unwrap().0);
                assert_eq!(found, states[states.len() - 2], "byte {within} of the last record");
                continue;
            }
            let Err(WalError::Rot { file: named, offset: at, repair, .. }) = opened else {
                panic!("{file}, offset {offset} + {within} was not found");
            };
            assert_eq!((named, at), (format!("memory/wal/{file}"), *offset), "+ {within}");
            assert_eq!(repair, "veltrix repair log --data memory --accept-loss");
        }
    }
}

/// Any byte of any file: the same state, the one before, or a refusal.
#[test]
fn no_flipped_byte_changes_what_is_recovered() {
    let disk = formatted();
    let states = run_script(&disk);
    let image = disk.image();
    let allowed = &states[states.len() - 2..];
    for (file, bytes) in &image {
        for offset in (0..bytes.len() as u64).step_by(509) {
            let rotten = SimDisk::of_image(image.clone());
            rotten.rot(file, offset, 1 << (offset % 8));
            if let Ok((wal, _)) = Wal::open(&rotten, options(2)) {
                assert!(allowed.contains(&Model::of(&wal)), "{file}, byte {offset}");
            }
        }
    }
}

#[test]
fn a_repair_cuts_at_the_damage_and_the_log_goes_on() {
    let disk = formatted();
    let states = run_script(&disk);
    let image = disk.image();
    let records = records(&image);
    for (number, (file, offset)) in records.iter().enumerate() {
        let rotten = SimDisk::of_image(image.clone());
        rotten.rot(file, offset + 65, 1);
        let before = rotten.image();
        let report = repair::repair(&rotten, &options(2)).unwrap();
        let is_last = number + 1 == records.len();
        assert_eq!(report.cut.is_none(), is_last);
        assert_eq!(report.saved.is_empty(), is_last);
        for saved in &report.saved {
            let original = saved.split_once(".saved-").unwrap().0;
            assert_eq!(rotten.image()[saved], before[original]);
        }
        let (mut wal, _) = Wal::open(&rotten, options(3)).unwrap();
        let found = Model::of(&wal);
        assert!(found == Model::default() || states.contains(&found), "record {number}");
        let next = found.last.map_or(1, |id| id.index + 1);
        wal.append(&[entry(next, 9, 100)]).unwrap();
        let (wal, _) = Wal::open(&rotten, options(4)).unwrap();
        assert_eq!(wal.state().last.map(|id| id.index), Some(next));
    }
}

#[test]
fn a_failed_write_closes_the_log() {
    let disk = formatted();
    let (mut wal, _) = Wal::open(&disk, options(1)).unwrap();
    wal.append(&[entry(1, 1, 10)]).unwrap();
    disk.fail_write(0, std::io::ErrorKind::StorageFull);
    assert!(matches!(wal.append(&[entry(2, 1, 10)]), Err(WalError::Io { .. })));
    assert!(matches!(wal.append(&[entry(2, 1, 10)]), Err(WalError::Closed)));
    let (wal, _) = Wal::open(&disk, options(2)).unwrap();
    assert_eq!(wal.state().last.map(|id| id.index), Some(1));
}

#[test]
fn files_of_another_shape_are_refused_by_name() {
    let disk = formatted();
    disk.remove("segment-00002.vwal").unwrap();
    let error = Wal::open(&disk, options(1)).unwrap_err().to_string();
    assert!(error.contains("memory/wal/segment-00002.vwal: a segment is missing"), "{error}");
    disk.create("segment-00002.vwal", 4096, &mut |_| {}).unwrap();
    let error = Wal::open(&disk, options(1)).unwrap_err().to_string();
    assert!(error.contains("a segment of 4096 bytes, 32768 wanted"), "{error}");
}
