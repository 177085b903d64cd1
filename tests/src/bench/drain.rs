//! Nanoseconds a frame while a ring that was filled before is drained: the
//! poller's own cost, which a generator that is slower than it would hide.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use veltrix::base::counters::LaneCounters;
use veltrix::base::cpu;
use veltrix::xsk::raw::RawXsk;

use super::rig::{self, Mute, POLLER_CORE, RX_RING_FRAMES, Rig};
use crate::lab::{Generator, Pacing};

/// Frames put into the ring before each drain.
const FILL_FRAMES: u64 = RX_RING_FRAMES as u64 - 256;

/// Nanoseconds a frame over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The tenth fastest of a hundred: interrupts, preemption and a host's
    /// other guests only ever add to a thread's own time.
    pub tenth_ns: f64,
    /// The median, with all of that in it.
    pub median_ns: f64,
}

/// Drains of each kind.
const ROUNDS: usize = 100;

/// Fills and drains a ring [`ROUNDS`] times.
fn drain(generator: &mut Generator, mut turn: impl FnMut() -> usize) -> Result<Cost> {
    let mut costs = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let sent = generator.send(FILL_FRAMES)?;
        let started = Instant::now();
        let mut frames = 0;
        loop {
            match turn() {
                0 => break,
                taken => frames += taken,
            }
        }
        let ns = started.elapsed().as_nanos() as f64;
        ensure!(
            frames as u64 == sent.delivered,
            "bench: {} frames were delivered and {frames} drained",
            sent.delivered
        );
        costs.push(ns / frames as f64);
    }
    costs.sort_by(f64::total_cmp);
    Ok(Cost { tenth_ns: costs[ROUNDS / 10], median_ns: costs[ROUNDS / 2] })
}

/// The minimal loop: receive and recycle.
///
/// # Errors
///
/// What the rig says.
pub fn raw(rig: &Rig, generator: &mut Generator, batch: usize) -> Result<Cost> {
    let mut attached = rig.attach()?;
    let mut raw = RawXsk::new(rig.socket(&mut attached)?, Arc::new(LaneCounters::default()));
    pinned(|| {
        generator.set_pacing(Pacing::Lossless)?;
        drain(generator, || raw.recycle(batch))
    })
}

/// The lane: decode, checks, outcomes, acks, accounting; replies are made and
/// not sent.
///
/// # Errors
///
/// What the rig says.
pub fn lane(rig: &Rig, generator: &mut Generator) -> Result<Cost> {
    let mut attached = rig.attach()?;
    let counters = Arc::new(LaneCounters::default());
    let port = Mute(rig::port(rig.socket(&mut attached)?, &counters));
    let mut lane = rig::lane(port, 1, &counters);
    pinned(|| {
        generator.set_pacing(Pacing::Lossless)?;
        drain(generator, || lane.turn())
    })
}

/// Runs on the poller's core. The generator enters a thread of its own core.
fn pinned<R: Send>(work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                ensure!(cpu::pin_to(POLLER_CORE), "bench: cannot pin to core {POLLER_CORE}");
                work()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("bench: the drain panicked"))?
    })
}
