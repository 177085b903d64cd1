//! The control core's view of a running server: status, blocklist, alarms.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use veltrix_abi::exits::{FRAMES_SLOT, RATE_OBSERVED_SLOT, XDP_SLOTS};
use veltrix_abi::{Exit, Outcome};

use super::alarms::Alarms;
use super::lanes::{LaneHandle, Monitor};
use super::log::Log;
use super::start::{KernelSide, Running};
use super::state::Live;
use crate::admin::protocol::Blocked;
use crate::admin::server::Handler;
use crate::admin::status::{
    Acks, Counts, LaneStatus, NicStatus, Provider, QueueStatus, Replies, RingDepths, Status,
    XdpStatistics,
};
use crate::base::clock::monotonic_ns;
use crate::config::Config;
use crate::nic::attached::{Attached, AttachedMode};
use crate::nic::blocklist::{NEVER, Prefix};
use crate::nic::facts::NicFacts;

/// Readings before sums that do not close are reported.
const READINGS_MAX: u32 = 3;

/// Datagrams that a turn of a lane with a log may answer: those of a few
/// batches, which one event each makes many.
const ANSWERS_A_TURN: u64 = 4 * crate::batch::format::BATCH_RUNS_MAX as u64;

/// Pause between them: many batches long, and nothing beside the second
/// between two looks.
const READING_PAUSE: Duration = Duration::from_millis(1);

/// A running server as its control core sees it. One thread: the cell is
/// borrowed for the length of a call.
pub struct Server {
    running: RefCell<Running>,
    alarms: RefCell<Alarms>,
    queues_grew: Cell<bool>,
    live: Option<Rc<Live>>,
    config: Config,
    started: Instant,
    log: Log,
}

impl Server {
    /// Takes over what was started.
    #[must_use]
    pub fn new(running: Running, live: Option<Rc<Live>>, config: Config, log: Log) -> Self {
        Self {
            live,
            running: RefCell::new(running),
            alarms: RefCell::new(Alarms::default()),
            queues_grew: Cell::new(false),
            config,
            started: Instant::now(),
            log,
        }
    }

    /// The log and the state behind it, if there are any.
    #[must_use]
    pub const fn live(&self) -> Option<&Rc<Live>> {
        self.live.as_ref()
    }

    /// Looks after what changes by itself: expired blocks, queue counts, the
    /// program on the NIC, dead lanes, sums that do not close. Called about
    /// once a second.
    pub fn tend(&self) {
        if let Some(kernel) = &mut self.running.borrow_mut().kernel {
            #[cfg(feature = "debug-log")]
            if let Some(debug_log) = &mut kernel.debug_log {
                debug_log.print();
            }
            match kernel.half.block_purge_expired(monotonic_ns()) {
                Ok(expired) => {
                    for prefix in expired {
                        self.log.info(&format!("block of {prefix} expired"));
                    }
                }
                Err(e) => self.log.warn(&e.to_string()),
            }
        }
        if let Some(live) = &self.live {
            live.next_second();
        }
        let status = self.reading();
        let running = self.running.borrow();
        let dead = running.lanes.iter().chain(&running.fallback).filter(|l| l.is_dead()).count();
        self.alarms.borrow_mut().judge(&status, dead, &self.log);
    }

    /// Carries what lanes seal into the log, for ever; without a log only waits.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch an eventfd.
    pub async fn serve_log(&self) -> std::io::Result<()> {
        match &self.live {
            Some(live) => live.serve().await,
            None => std::future::pending().await,
        }
    }

    /// Sums up for the status what tenants have, for ever.
    pub async fn walk_hunts(&self) {
        match &self.live {
            Some(live) => live.walk_hunts().await,
            None => std::future::pending().await,
        }
    }

    /// Looks after the log; called about ten times a second.
    pub async fn tend_log(&self) {
        if let Some(live) = &self.live {
            live.tend().await;
        }
    }

    /// Why the log has ended, if there was one and it has.
    #[must_use]
    pub fn log_ended(&self) -> Option<String> {
        self.live.as_ref().and_then(|live| live.has_ended())
    }

    /// Lets no more packets into lanes with a socket in the XSKMAP.
    pub fn close_gates(&self) {
        self.running.borrow_mut().close_gates();
    }

    /// Waits until what is owed is answered, and ends the log.
    pub async fn settle(&self) {
        if let Some(live) = &self.live {
            live.stop().await;
        }
    }

    /// Whether every lane still runs.
    #[must_use]
    pub fn lanes_alive(&self) -> bool {
        let running = self.running.borrow();
        !running.lanes.iter().chain(&running.fallback).any(LaneHandle::is_dead)
    }

    /// Ends it; true when every part ended in good order.
    #[must_use]
    pub fn stop(self) -> bool {
        self.running.into_inner().stop()
    }

    /// Everything but the alarms. A reading whose sums do not close is taken
    /// again: frames that the kernel has redirected are in their ring only at
    /// the end of its batch.
    fn reading(&self) -> Status {
        for _ in 1..READINGS_MAX {
            let status = self.read();
            if status.accounting.closes {
                return status;
            }
            std::thread::sleep(READING_PAUSE);
        }
        self.read()
    }

    /// As [`Handler::status`], for those who ask often: the log is carried on
    /// between two readings.
    pub async fn status_in_turn(&self) -> Status {
        let mut status = self.read();
        for _ in 1..READINGS_MAX {
            if status.accounting.closes {
                break;
            }
            tokio::time::sleep(READING_PAUSE).await;
            status = self.read();
        }
        self.with_alarms(status)
    }

    fn with_alarms(&self, status: Status) -> Status {
        Status { alarms: self.alarms.borrow().raised(), ..status }
    }

    /// One reading. The lanes are read between two readings of the XDP
    /// counters, so that every difference that frames in flight can make is
    /// bounded by what arrived meanwhile.
    fn read(&self) -> Status {
        let running = self.running.borrow();
        let before = running.kernel.as_ref().map(xdp_rows);
        let lanes = running.lanes.iter().enumerate().map(|(i, l)| lane_status(i, l)).collect();
        let fallback = running.fallback.as_ref().map(|l| lane_status(0, l));
        let after = running.kernel.as_ref().map(xdp_rows);
        let xdp_queues = match (before, after) {
            (Some(before), Some(after)) => queue_rows(&before, &after),
            _ => Vec::new(),
        };
        let nic = running.kernel.as_ref().map(nic_status);
        if nic.as_ref().is_some_and(|nic| nic.rx_queues > nic.queues_at_start) {
            self.queues_grew.set(true);
        }
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            provider: if running.kernel.is_some() { Provider::Xdp } else { Provider::Udp },
            provider_reason: running.reason.clone(),
            nic,
            queues_grew: self.queues_grew.get(),
            listen: running.address.to_string(),
            port: running.address.port(),
            partitions: running.partitions,
            payload_bytes_max: self.config.server.payload_bytes_max,
            lanes,
            fallback,
            xdp_queues,
            log: self.live.as_ref().map(|live| Box::new(live.status())),
            ..Status::default()
        };
        status.close();
        status
    }
}

type XdpRows = Vec<[u64; XDP_SLOTS]>;

/// A map that cannot be read gives no rows; the sums then do not close, which
/// is an alarm.
fn xdp_rows(kernel: &KernelSide) -> XdpRows {
    kernel.half.exits().unwrap_or_default()
}

fn queue_rows(before: &XdpRows, after: &XdpRows) -> Vec<QueueStatus> {
    before
        .iter()
        .zip(after)
        .enumerate()
        .filter(|(row, (b, _))| *row > 0 || b[FRAMES_SLOT] > 0)
        .map(|(row, (before, after))| QueueStatus {
            queue: row.checked_sub(1).map(|q| q as u32),
            frames: before[FRAMES_SLOT],
            exits: counts(
                Exit::ALL.iter().filter(|e| e.is_xdp()).map(|e| (e.label(), before[e.slot()])),
            ),
            rate_observed: before[RATE_OBSERVED_SLOT],
            arrived_while_reading: after[FRAMES_SLOT].wrapping_sub(before[FRAMES_SLOT]),
        })
        .collect()
}

fn counts(all: impl Iterator<Item = (&'static str, u64)>) -> Counts {
    all.filter(|(_, n)| *n > 0).map(|(label, n)| (label.to_owned(), n)).collect::<BTreeMap<_, _>>()
}

fn lane_status(lane: usize, handle: &LaneHandle) -> LaneStatus {
    let c = &handle.counters;
    let frames = c.frames.get();
    let turns_ended = c.turns_ended.get();
    fence(Ordering::SeqCst);
    // The kernel's side first: a frame that leaves its ring now is then seen
    // twice at most, never missed.
    let mut status = LaneStatus {
        lane: lane as u16,
        core: handle.facts.core,
        queue: handle.facts.queue,
        zero_copy: handle.facts.zero_copy,
        wait: handle.facts.wait.into(),
        umem_pages: handle.facts.pages.into(),
        umem_bytes: handle.facts.memory_bytes as u64,
        ..LaneStatus::default()
    };
    match &handle.monitor {
        Monitor::Xsk(xsk) => {
            let d = xsk.depths();
            status.rings =
                RingDepths { rx: d.rx, tx: d.tx, fill: d.fill, completion: d.completion };
            if let Ok(s) = xsk.statistics() {
                status.xdp_statistics = XdpStatistics {
                    rx_dropped: s.rx_dropped,
                    rx_invalid_descs: s.rx_invalid_descs,
                    tx_invalid_descs: s.tx_invalid_descs,
                    rx_ring_full: s.rx_ring_full,
                    rx_fill_ring_empty_descs: s.rx_fill_ring_empty_descs,
                    tx_ring_empty_descs: s.tx_ring_empty_descs,
                };
            }
        }
        Monitor::Udp(udp) => status.socket_drops = udp.drops().unwrap_or(0).into(),
    }
    status.exits = counts(Exit::ALL.iter().map(|e| (e.label(), c.exits(*e))));
    let outcomes = Outcome::ALL.iter().map(|o| (o.label(), c.outcomes(*o)));
    status.outcomes = counts(outcomes.chain([("duplicate", c.duplicates.get())]));
    status.acks = Acks {
        pending: c.acks.pending.get(),
        events_pending: c.acks.events_pending.get(),
        lost: c.acks.lost.get(),
        events_lost: c.acks.events_lost.get(),
    };
    status.frames = frames;
    status.payload_bytes = c.payload_bytes.get();
    status.events = c.events.get();
    status.replies = Replies {
        sent: c.replies.sent.get(),
        coalesced: c.replies.coalesced.get(),
        dropped_tx_full: c.replies.dropped_tx_full.get(),
        withheld: c.replies.withheld.get(),
    };
    status.syscalls = c.syscalls.get();
    status.turns = c.turns.get();
    status.sleeps = c.sleeps.get();
    status.run_delay_ns = handle.run_delay.ns();
    status.alien_frames = c.alien_frames.get();
    fence(Ordering::SeqCst);
    // A turn under way moves counters although no frame comes; one that answers
    // batches may move them by as many datagrams as these held.
    let turns = c.turns.get().wrapping_sub(turns_ended);
    let moved = if handle.has_log { turns.saturating_mul(ANSWERS_A_TURN) } else { turns.min(1) };
    status.arrived_while_reading = c.frames.get().wrapping_sub(frames).max(moved);
    status
}

fn nic_status(kernel: &KernelSide) -> NicStatus {
    let name = &kernel.nic.name;
    let program = kernel.half.facts().ok();
    let now = NicFacts::read(name).ok();
    let queues = now.as_ref().map(|n| (n.queues.rx, n.queues.tx));
    // The mode counts only while the program attached is ours.
    let mode = match (Attached::read(name), &program) {
        (Ok(attached), Some(program)) if attached.programs.contains(&program.id) => attached.mode,
        _ => AttachedMode::None,
    };
    NicStatus {
        name: name.clone(),
        driver: kernel.nic.driver.clone(),
        xdp_mode: mode.name().into(),
        program_id: program.as_ref().map_or(0, |p| p.id),
        instructions: program.as_ref().map_or(0, |p| p.instructions),
        rx_queues: queues.map_or(0, |q| q.0),
        tx_queues: queues.map_or(0, |q| q.1),
        queues_at_start: kernel.nic.queues.rx,
    }
}

const NO_LOG: &str =
    "this server keeps no state: start it with --data DIR (made by `veltrix format --data DIR`)";

const NO_BLOCKLIST: &str = "this server runs on UDP sockets, which have no blocklist: blocked sources are dropped by the XDP program, which needs --nic";

impl Handler for Server {
    fn status(&self) -> Status {
        self.with_alarms(self.reading())
    }

    fn block_add(
        &self,
        prefix: Prefix,
        ttl: Option<Duration>,
        reason: &str,
    ) -> Result<String, String> {
        let mut running = self.running.borrow_mut();
        let kernel = running.kernel.as_mut().ok_or(NO_BLOCKLIST)?;
        let now_ns = monotonic_ns();
        let expires_ns = ttl.map_or(NEVER, |ttl| {
            now_ns.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX))
        });
        kernel.half.block_add(prefix, expires_ns, reason, now_ns).map_err(|e| e.to_string())?;
        let until = ttl.map_or_else(
            || "until it is unblocked or the server ends".into(),
            |ttl| format!("for {}", humantime::format_duration(ttl)),
        );
        let said = format!("blocked {prefix} {until}");
        self.log.info(&format!("{said}: {reason}"));
        Ok(said)
    }

    fn block_del(&self, prefix: Prefix) -> Result<String, String> {
        let mut running = self.running.borrow_mut();
        let kernel = running.kernel.as_mut().ok_or(NO_BLOCKLIST)?;
        match kernel.half.block_del(prefix) {
            Ok(true) => {
                let said = format!("unblocked {prefix}");
                self.log.info(&said);
                Ok(said)
            }
            Ok(false) => {
                Err(format!("{prefix} is not blocked; `veltrix block list` shows what is"))
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn partition_move(&self, partition: u16, lane: u16) -> Result<String, String> {
        self.live.as_ref().ok_or(NO_LOG)?.move_partition(partition, lane)
    }

    fn snapshot(&self) -> Result<String, String> {
        self.live.as_ref().ok_or(NO_LOG)?.snapshot_now()
    }

    fn block_list(&self) -> Result<Vec<Blocked>, String> {
        let running = self.running.borrow();
        let kernel = running.kernel.as_ref().ok_or(NO_BLOCKLIST)?;
        let now_ns = monotonic_ns();
        Ok(kernel
            .half
            .block_list()
            .into_iter()
            .filter(|b| b.expires_ns > now_ns)
            .map(|b| Blocked {
                cidr: b.prefix,
                expires_in_s: (b.expires_ns != NEVER)
                    .then(|| (b.expires_ns - now_ns).div_ceil(1_000_000_000)),
                reason: b.reason,
            })
            .collect())
    }
}
