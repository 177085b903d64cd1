//! Random histories with crashes against a plain model.

use proptest::prelude::*;

use super::simdisk::SimDisk;
use super::test_support::*;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Vote(u64),
    Truncate(u64),
    Purge(u64),
    PurgeBeyond(u64),
    Committed(u64),
    Reopen,
    PowerCut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(prop_oneof![0usize..600, 3_000usize..9_000], 1..5)
            .prop_map(Step::Append),
        1 => (0u64..3).prop_map(Step::Vote),
        1 => (0u64..6).prop_map(Step::Truncate),
        3 => (0u64..12).prop_map(Step::Purge),
        1 => (1u64..4).prop_map(Step::PurgeBeyond),
        1 => (0u64..4).prop_map(Step::Committed),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

/// A log, its model, and what the disk may throw away with power.
struct Pair {
    disk: SimDisk,
    wal: Wal,
    model: Model,
    term: u64,
    salt: u64,
}

impl Pair {
    fn new() -> Self {
        let disk = formatted();
        let (wal, _) = Wal::open(&disk, options(1)).unwrap();
        Self { disk, wal, model: Model::default(), term: 1, salt: 1 }
    }

    fn reopen(&mut self) {
        self.salt += 1;
        (self.wal, _) = Wal::open(&self.disk, options(self.salt)).unwrap();
    }

    fn next(&self) -> u64 {
        self.model.last.map_or(1, |last| last.index + 1)
    }

    fn id(&self, index: u64) -> LogId {
        let entry = self.model.entries.get(&index);
        entry.map_or(LogId { term: 1, node: 1, index }, |entry| entry.id)
    }

    /// Appends one by one, so that the model knows where a full log stopped.
    fn append(&mut self, sizes: &[usize]) {
        for bytes in sizes {
            let (index, term) = (self.next(), self.term);
            match self.wal.append(&[entry(index, term, *bytes)]) {
                Ok(()) => self.model.apply(&Action::Append(index, term, *bytes)),
                Err(WalError::Full { .. }) => {
                    // Purging relieves it, whatever it holds.
                    let last = self.model.last.map_or(0, |last| last.index);
                    self.purge(last);
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        // What rides along is written with the entries.
        self.model.committed = self.wal.state().committed;
    }

    fn purge(&mut self, upto: u64) {
        let id = match self.model.last {
            Some(last) if last.index == upto => last,
            _ => self.id(upto),
        };
        match self.wal.purge(id) {
            Ok(()) => {}
            // One that frees nothing may not take what is kept for those that do.
            Err(WalError::Full { .. }) => {
                let last = self.model.last.map_or(0, |last| last.index);
                assert!(upto < last);
                return self.purge(last);
            }
            Err(error) => panic!("{error}"),
        }
        if self.model.purged.is_none_or(|purged| purged.index < upto) {
            self.model.purged = Some(id);
            if self.model.last.is_none_or(|last| last.index < upto) {
                self.model.last = Some(id);
            }
            self.model.entries.retain(|index, _| *index > upto);
        }
    }

    fn step(&mut self, step: &Step) {
        let last = self.model.last.map_or(0, |last| last.index);
        let purged = self.model.purged.map_or(0, |purged| purged.index);
        match step {
            Step::Append(sizes) => self.append(sizes),
            Step::Vote(more) => {
                self.term += more;
                match self.wal.save_vote(vote(self.term)) {
                    Ok(()) => self.model.vote = Some(vote(self.term)),
                    Err(WalError::Full { .. }) => self.purge(last),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Truncate(back) => {
                let to = last.saturating_sub(*back).max(purged);
                let to = match self.model.entries.get(&to) {
                    Some(entry) => Some(entry.id),
                    None => self.model.purged,
                };
                match self.wal.truncate_after(to) {
                    Ok(()) => {
                        self.model.last = to;
                        let to = to.map_or(0, |to| to.index);
                        self.model.entries.retain(|index, _| *index <= to);
                    }
                    Err(WalError::Full { .. }) => self.purge(last),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Purge(kept) => self.purge(last.saturating_sub(*kept)),
            Step::PurgeBeyond(more) => self.purge(last + more),
            Step::Committed(back) => self.wal.set_committed(self.id(last.saturating_sub(*back))),
            Step::Reopen => self.reopen(),
            Step::PowerCut(seed) => {
                let (index, term) = (self.next(), self.term);
                self.disk.cut_power_at_write(0, *seed);
                let cut = entry(index, term, 2_000);
                let full = matches!(self.wal.append(&[cut]), Err(WalError::Full { .. }));
                self.disk = self.disk.power_on(*seed);
                self.reopen();
                // In flight: there or not.
                let there = self.wal.state().last.is_some_and(|last| last.index == index);
                if there && !full {
                    self.model.apply(&Action::Append(index, term, 2_000));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_log_holds_what_it_was_given(steps in proptest::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            let mut found = Model::of(&pair.wal);
            // Written with whatever comes next: not the model's business.
            found.committed = None;
            pair.model.committed = None;
            prop_assert_eq!(&found, &pair.model, "after {:?}", step);
        }
        pair.reopen();
        let mut found = Model::of(&pair.wal);
        found.committed = None;
        prop_assert_eq!(&found, &pair.model);
    }
}

#[test]
fn a_full_log_takes_no_entry_but_votes_and_purges() {
    let disk = formatted();
    let (mut wal, _) = Wal::open(&disk, options(1)).unwrap();
    let mut index = 1;
    while wal.append(&[entry(index, 1, 3_000)]).is_ok() {
        index += 1;
    }
    assert_eq!(wal.state().free_bytes, 0);
    let error = wal.append(&[entry(index, 1, 3_000)]).unwrap_err();
    assert!(matches!(error, WalError::Full { segments_used: 3, segments_max: 4 }), "{error}");
    let mut votes = 0;
    while wal.save_vote(vote(votes + 1)).is_ok() {
        votes += 1;
    }
    assert!(votes > 2, "{votes} votes");
    let (mut wal, _) = Wal::open(&disk, options(2)).unwrap();
    assert_eq!(wal.state().vote, Some(vote(votes)));
    wal.purge(LogId { term: 1, node: 1, index: index - 1 }).unwrap();
    assert!(wal.state().free_bytes > 0);
    wal.append(&[entry(index, 1, 3_000)]).unwrap();
}

#[test]
fn restarts_alone_never_fill_a_log() {
    let disk = formatted();
    let (mut wal, _) = Wal::open(&disk, options(1)).unwrap();
    let mut index = 1;
    while wal.append(&[entry(index, 1, 3_000)]).is_ok() {
        index += 1;
    }
    while wal.save_vote(vote(index)).is_ok() {
        index += 1;
    }
    let before = Model::of(&wal);
    for salt in 2..40 {
        let (wal, _) = Wal::open(&disk, options(salt)).unwrap();
        assert_eq!(Model::of(&wal), before);
    }
}

#[test]
fn the_vote_survives_every_turn_of_the_ring() {
    let disk = formatted();
    let (mut wal, _) = Wal::open(&disk, options(1)).unwrap();
    wal.save_vote(vote(7)).unwrap();
    for index in 1..200 {
        wal.append(&[entry(index, 7, 5_000)]).unwrap();
        wal.purge(LogId { term: 7, node: 1, index }).unwrap();
    }
    let (wal, report) = Wal::open(&disk, options(2)).unwrap();
    assert_eq!(wal.state().vote, Some(vote(7)));
    assert!(report.segments <= 2, "{report:?}");
}

#[test]
fn contradictions_change_nothing() {
    let disk = formatted();
    let (mut wal, _) = Wal::open(&disk, options(1)).unwrap();
    wal.append(&[entry(1, 1, 10), entry(2, 1, 10)]).unwrap();
    wal.save_vote(vote(5)).unwrap();
    let before = Model::of(&wal);
    assert!(wal.append(&[entry(4, 1, 10)]).is_err());
    assert!(wal.append(&[entry(3, 1, 40_000)]).is_err());
    assert!(wal.save_vote(vote(4)).is_err());
    assert!(wal.truncate_after(Some(entry(3, 1, 0).id)).is_err());
    assert_eq!(Model::of(&wal), before);
    let largest = wal.body_bytes_max();
    wal.append(&[entry(3, 1, largest)]).unwrap();
    assert!(wal.append(&[entry(4, 1, largest + 8)]).is_err());
}
