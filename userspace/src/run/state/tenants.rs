//! What tenants have: sums over the hunts of all partitions, for the status.
//!
//! ```text
//!   partition 0, 1, 2 ... --read job: at most 40 hunts--> owner's lane --> sums by tenant
//! ```
//!
//! Once a second the control core walks all hunts, with one job under way and a pause
//! after every few: a lane is held up for some microseconds, and for less than 1 % of
//! its time, however many hunts there are. With many the walk takes longer, and says
//! how long. A partition that is between two lanes is waited for. Sums of one walk are
//! of moments up to that far apart.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::live::Live;
use crate::admin::log_status::{TenantRow, TenantSums, TenantsStatus};
use crate::base::clock::monotonic_ns;
use crate::read::hunts::{HuntLine, LINES_MAX, Piece};

/// Tenants with a row of their own.
const TOLD: usize = 16;

/// Tenants that are told apart; hunts of those beyond count for the others.
const TENANTS_MAX: usize = 16_384;

/// Time from the beginning of a walk to that of the next, if it took no longer.
const INTERVAL: Duration = Duration::from_secs(1);

/// Jobs between two pauses.
const JOBS_A_STEP: u32 = 16;

/// Pause after so many jobs: 640 jobs a second, some 25,000 hunts.
const PAUSE: Duration = Duration::from_millis(25);

/// What the hunts of a tenant have.
#[derive(Clone, Copy, Default)]
struct Sums {
    hunts: u64,
    cells: u64,
    players: u64,
    events: u64,
    events_per_s: u64,
    over_quota: u64,
    cells_max: Quota,
    players_max: Quota,
    events_per_s_max: Quota,
}

/// What hunts may use together.
#[derive(Clone, Copy, Default)]
struct Quota {
    sum: u64,
    /// Some hunt has no bound.
    is_open: bool,
}

impl Quota {
    fn add(&mut self, bound: u32) {
        self.sum += u64::from(bound);
        self.is_open |= bound == 0;
    }

    fn join(&mut self, other: Self) {
        self.sum += other.sum;
        self.is_open |= other.is_open;
    }

    fn bound(self) -> Option<u64> {
        (!self.is_open).then_some(self.sum)
    }
}

impl Sums {
    fn add(&mut self, line: &HuntLine) {
        self.hunts += 1;
        self.cells += u64::from(line.cells);
        self.players += u64::from(line.players);
        self.events += line.events;
        self.over_quota += line.over_quota;
        self.cells_max.add(line.cells_max);
        self.players_max.add(line.players_max);
        self.events_per_s_max.add(line.events_per_s);
    }

    fn join(&mut self, other: &Self) {
        self.hunts += other.hunts;
        self.cells += other.cells;
        self.players += other.players;
        self.events += other.events;
        self.events_per_s += other.events_per_s;
        self.over_quota += other.over_quota;
        self.cells_max.join(other.cells_max);
        self.players_max.join(other.players_max);
        self.events_per_s_max.join(other.events_per_s_max);
    }

    fn told(&self) -> TenantSums {
        // Of no hunts there is no quota.
        let bound = |quota: Quota| quota.bound().filter(|_| self.hunts > 0);
        TenantSums {
            hunts: self.hunts,
            cells: self.cells,
            players: self.players,
            events: self.events,
            events_per_s: self.events_per_s,
            over_quota: self.over_quota,
            cells_max: bound(self.cells_max),
            players_max: bound(self.players_max),
            events_per_s_max: bound(self.events_per_s_max),
        }
    }
}

/// Sums of a walk under way.
#[derive(Default)]
struct Walk {
    by_tenant: BTreeMap<u32, Sums>,
    /// Of tenants that found no place.
    beyond: Sums,
}

impl Walk {
    fn add(&mut self, line: &HuntLine) {
        let has_place = self.by_tenant.len() < TENANTS_MAX;
        match self.by_tenant.get_mut(&line.tenant) {
            Some(sums) => sums.add(line),
            None if has_place => self.by_tenant.entry(line.tenant).or_default().add(line),
            None => self.beyond.add(line),
        }
    }
}

/// The last walk that came to its end.
#[derive(Default)]
pub(super) struct Tenants {
    by_tenant: BTreeMap<u32, Sums>,
    beyond: Sums,
    /// When it ended, monotonic nanoseconds; 0 before the first.
    ended_ns: u64,
    took_ns: u64,
}

impl Tenants {
    fn walked(&mut self, walk: Walk, begun_ns: u64, now_ns: u64) {
        let Walk { mut by_tenant, beyond } = walk;
        let is_first = self.ended_ns == 0;
        let seconds = now_ns.saturating_sub(self.ended_ns).max(1) as f64 / 1e9;
        for (tenant, sums) in &mut by_tenant {
            let before = self.by_tenant.get(tenant).map_or(0, |before| before.events);
            let new = sums.events.saturating_sub(before);
            // One look is no rate.
            sums.events_per_s = if is_first { 0 } else { (new as f64 / seconds).round() as u64 };
        }
        let took_ns = now_ns.saturating_sub(begun_ns);
        *self = Self { by_tenant, beyond, ended_ns: now_ns, took_ns };
    }

    /// For the operator.
    pub(super) fn status(&self, now_ns: u64) -> TenantsStatus {
        let mut all: Vec<_> = self.by_tenant.iter().collect();
        all.sort_by_key(|(tenant, sums)| {
            (Reverse(sums.events_per_s), Reverse(sums.cells), **tenant)
        });
        let (told, rest) = all.split_at(all.len().min(TOLD));
        let row = |(tenant, sums): &(&u32, &Sums)| TenantRow {
            tenant: (**tenant > 0).then_some(**tenant),
            sums: sums.told(),
        };
        let mut others = self.beyond;
        rest.iter().for_each(|(_, sums)| others.join(sums));
        TenantsStatus {
            rows: told.iter().map(row).collect(),
            others: rest.len() as u64 + u64::from(self.beyond.hunts > 0),
            others_sums: others.told(),
            age_ms: (self.ended_ns > 0).then(|| now_ns.saturating_sub(self.ended_ns) / 1_000_000),
            walk_ms: self.took_ns / 1_000_000,
        }
    }
}

impl Live {
    /// Walks all hunts about once a second, for ever.
    pub async fn walk_hunts(&self) {
        loop {
            let (begun, begun_ns) = (Instant::now(), monotonic_ns());
            let walk = self.walk().await;
            self.tenants.borrow_mut().walked(walk, begun_ns, monotonic_ns());
            sleep_until(begun + INTERVAL).await;
        }
    }

    async fn walk(&self) -> Walk {
        let mut walk = Walk::default();
        let mut jobs = 0;
        for partition in 0..self.owner_of.len() as u16 {
            let mut from = Some(0);
            while let Some(number) = from {
                jobs += 1;
                if jobs % JOBS_A_STEP == 0 {
                    sleep(PAUSE).await;
                }
                let (tell, told) = oneshot::channel();
                self.read_hunts(partition, number, LINES_MAX as u16, tell);
                let answer = told.await;
                let piece = match &answer {
                    Ok(Ok(bytes)) => Piece::read(bytes).filter(|piece| piece.is_here),
                    _ => None,
                };
                match piece {
                    Some(piece) => {
                        piece.lines().for_each(|line| walk.add(&line));
                        from = piece.next;
                    }
                    // On its way to another lane, or all reads are under way.
                    None => sleep(PAUSE).await,
                }
            }
        }
        walk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn line(tenant: u32, events: u64, cells_max: u32) -> HuntLine {
        let mut line = HuntLine::default();
        (line.tenant, line.events, line.cells_max) = (tenant, events, cells_max);
        (line.cells, line.players) = (10, 3);
        line
    }

    fn walk(lines: &[HuntLine]) -> Walk {
        let mut walk = Walk::default();
        lines.iter().for_each(|line| walk.add(line));
        walk
    }

    #[test]
    fn hunts_are_summed_up_by_tenant_the_busiest_first() {
        let mut tenants = Tenants::default();
        assert_eq!(tenants.status(5), TenantsStatus::default());
        let hunts = [line(7, 100, 20), line(0, 0, 0), line(9, 50, 20), line(7, 100, 30)];
        tenants.walked(walk(&hunts), 4 * SECOND_NS, 5 * SECOND_NS);
        let hunts = [line(7, 150, 20), line(0, 9, 0), line(9, 550, 20), line(7, 100, 30)];
        tenants.walked(walk(&hunts), 6 * SECOND_NS, 7 * SECOND_NS);
        let status = tenants.status(9 * SECOND_NS);
        let seen: Vec<_> = status
            .rows
            .iter()
            .map(|row| (row.tenant, row.sums.hunts, row.sums.cells, row.sums.events_per_s))
            .collect();
        assert_eq!(seen, [(Some(9), 1, 10, 250), (Some(7), 2, 20, 25), (None, 1, 10, 5)]);
        assert_eq!((status.others, status.age_ms, status.walk_ms), (0, Some(2_000), 1_000));
        let of_seven = status.rows[1].sums;
        assert_eq!((of_seven.players, of_seven.events, of_seven.cells_max), (6, 250, Some(50)));
        assert_eq!(of_seven.players_max, None, "no hunt of it has such a bound");
        assert_eq!(status.rows[2].sums.cells_max, None);
    }

    #[test]
    fn one_hunt_without_a_bound_leaves_the_tenant_without() {
        let mut tenants = Tenants::default();
        tenants.walked(walk(&[line(1, 0, 20), line(1, 0, 0)]), 0, 1);
        assert_eq!(tenants.status(2).rows[0].sums.cells_max, None);
    }

    #[test]
    fn beyond_sixteen_rows_tenants_are_summed_up() {
        let mut tenants = Tenants::default();
        let hunts: Vec<_> = (1..=20).map(|tenant| line(tenant, u64::from(tenant), 5)).collect();
        tenants.walked(walk(&[]), 0, SECOND_NS);
        tenants.walked(walk(&hunts), SECOND_NS, 2 * SECOND_NS);
        let status = tenants.status(2 * SECOND_NS);
        let told: Vec<_> = status.rows.iter().filter_map(|row| row.tenant).collect();
        assert_eq!(told, (5..=20).rev().collect::<Vec<_>>());
        let others = status.others_sums;
        assert_eq!((status.others, others.hunts, others.events_per_s), (4, 4, 1 + 2 + 3 + 4));
        assert_eq!((others.cells, others.cells_max), (40, Some(20)));
    }

    #[test]
    fn no_number_of_tenants_makes_it_grow() {
        let mut sums = Walk::default();
        for tenant in 0..TENANTS_MAX as u32 + 5 {
            sums.add(&line(tenant, 1, 5));
        }
        assert_eq!((sums.by_tenant.len(), sums.beyond.hunts), (TENANTS_MAX, 5));
        let mut tenants = Tenants::default();
        tenants.walked(sums, 0, 1);
        let status = tenants.status(1);
        let told: u64 = status.rows.iter().map(|row| row.sums.hunts).sum();
        assert_eq!(told + status.others_sums.hunts, TENANTS_MAX as u64 + 5);
    }
}
