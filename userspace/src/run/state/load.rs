//! Where the load is: events a second of each partition, and how much of a core
//! they take. From what lanes say once a second.

use std::sync::atomic::Ordering::Relaxed;

use crate::admin::log_status::HotPartition;
use crate::lane::link::LaneLink;

/// Partitions that are told of.
const TOLD: usize = 8;

/// See the module.
pub(super) struct Load {
    /// By lane: when it was last heard, and its time in applying by then.
    lanes: Vec<(u64, u64)>,
    partitions: Vec<Partition>,
}

#[derive(Clone, Copy, Default)]
struct Partition {
    lane: u16,
    judged: u64,
    events_per_s: f64,
    core_share: f64,
}

impl Load {
    pub(super) fn new(lanes: usize, partitions: u16) -> Self {
        Self {
            lanes: vec![(0, 0); lanes],
            partitions: vec![Partition::default(); usize::from(partitions)],
        }
    }

    /// A lane, which owns the partitions of which `owned` says so, has written what
    /// it did until now.
    pub(super) fn measured(
        &mut self,
        lane: usize,
        link: &LaneLink,
        owned: impl Fn(usize) -> bool,
        now_ns: u64,
    ) {
        let Some((heard_ns, apply_ns_before)) = self.lanes.get_mut(lane) else { return };
        let apply_ns = link.apply_ns.load(Relaxed);
        let is_first = *heard_ns == 0;
        let seconds = now_ns.saturating_sub(*heard_ns).max(1) as f64 / 1e9;
        let busy = apply_ns.saturating_sub(*apply_ns_before) as f64 / 1e9 / seconds;
        (*heard_ns, *apply_ns_before) = (now_ns, apply_ns);
        let mut events = 0;
        let here = || link.judged.iter().enumerate().filter(|(number, _)| owned(*number));
        for (number, judged) in here() {
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            let judged = judged.load(Relaxed);
            // A new owner has not written it yet.
            let new = judged.saturating_sub(partition.judged);
            partition.judged = partition.judged.max(judged);
            partition.lane = lane as u16;
            partition.events_per_s = if is_first { 0.0 } else { new as f64 / seconds };
            events += new;
        }
        let of_all = events.max(1) as f64 / seconds;
        for (number, _) in here() {
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            partition.core_share = busy * partition.events_per_s / of_all;
        }
    }

    /// The partitions with the most events, most first.
    pub(super) fn hottest(&self) -> Vec<HotPartition> {
        let row = |(number, partition): (usize, &Partition)| HotPartition {
            partition: number as u16,
            lane: partition.lane,
            events_per_s: partition.events_per_s.round() as u64,
            core_share: partition.core_share,
        };
        let mut rows: Vec<HotPartition> = self.partitions.iter().enumerate().map(row).collect();
        rows.retain(|row| row.events_per_s > 0);
        rows.sort_by_key(|row| std::cmp::Reverse(row.events_per_s));
        rows.truncate(TOLD);
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::waker::Waker;
    use crate::lane::link::link;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn the_hottest_partition_is_told_first_with_its_share_of_a_core() {
        let waker = Arc::new(Waker::new().unwrap());
        let (_lane, control) = link(1, 4, waker).unwrap();
        let mut load = Load::new(1, 4);
        let say = |load: &mut Load, judged: [u64; 4], apply_ns, now_s: u64| {
            control.link.judged.iter().zip(judged).for_each(|(to, n)| to.store(n, Relaxed));
            control.link.apply_ns.store(apply_ns, Relaxed);
            load.measured(0, &control.link, |partition| partition != 3, now_s * SECOND_NS);
        };
        say(&mut load, [500, 0, 70, 9], SECOND_NS, 10);
        assert!(load.hottest().is_empty(), "one look is no rate");
        // Of 2 s, half a second was spent in applying 400 events.
        say(&mut load, [600, 0, 370, 900], 3 * SECOND_NS / 2, 12);
        let rows = load.hottest();
        let seen: Vec<_> = rows.iter().map(|r| (r.partition, r.events_per_s)).collect();
        assert_eq!(seen, [(2, 150), (0, 50)]);
        assert!((rows[0].core_share - 0.1875).abs() < 1e-9, "{rows:?}");
        assert!((rows[1].core_share - 0.0625).abs() < 1e-9, "{rows:?}");
        say(&mut load, [600, 0, 370, 900], 3 * SECOND_NS / 2, 13);
        assert!(load.hottest().is_empty(), "nothing more has come");
    }
}
