//! The receiving half on a named interface, with traffic from outside.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use veltrix::base::counters::LaneCounters;
use veltrix::base::cpu;
use veltrix::nic::facts::NicFacts;
use veltrix::nic::program::{KernelHalf, Mode, Rate};
use veltrix::xsk::Xsk;
use veltrix::xsk::raw::RawXsk;
use veltrix_abi::Exit;
use veltrix_abi::exits::FRAMES_SLOT;

use super::rig;
use crate::testrun;

/// Sleep of an idle loop.
const IDLE_SLEEP: Duration = Duration::from_millis(20);

/// Sets queue counts by the script that operators use, and undoes it in the end.
pub struct QueueSetter<'a> {
    nic: &'a str,
    is_changed: bool,
}

impl<'a> QueueSetter<'a> {
    /// Nothing is changed yet.
    #[must_use]
    pub fn new(nic: &'a str) -> Self {
        Self { nic, is_changed: false }
    }

    /// Gives the interface `queues` queues, if it has not.
    ///
    /// # Errors
    ///
    /// When the script fails; it has said why.
    pub fn set(&mut self, queues: u32) -> Result<()> {
        let now = NicFacts::read(self.nic)?.queues;
        if (now.rx, now.tx) == (queues, queues) {
            return Ok(());
        }
        self.is_changed = true;
        ensure!(self.script(&["apply", self.nic, &queues.to_string()])?, "nic-queues.sh failed");
        Ok(())
    }

    fn script(&self, args: &[&str]) -> Result<bool> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/nic-queues.sh");
        Ok(Command::new(script).args(args).stdout(std::io::stderr()).status()?.success())
    }
}

impl Drop for QueueSetter<'_> {
    fn drop(&mut self) {
        if self.is_changed && !matches!(self.script(&["undo", self.nic]), Ok(true)) {
            eprintln!("bench path: run scripts/nic-queues.sh undo {}", self.nic);
        }
    }
}

/// Receives on `queues` queues of `nic` for `run` with the raw loop, then as
/// long with lanes; gives the figures.
///
/// # Errors
///
/// An interface with another queue count (the command that sets it is named),
/// or what the kernel says.
pub fn receive(nic_name: &str, queues: u32, run: Duration) -> Result<Value> {
    let nic = NicFacts::read(nic_name)?;
    ensure!(
        nic.queues.rx == queues && nic.queues.tx == queues,
        "`{nic_name}` has {} rx and {} tx queues, wanted {queues} of each: scripts/nic-queues.sh apply {nic_name} {queues}",
        nic.queues.rx,
        nic.queues.tx,
    );
    let raw = measure(&nic, queues, run, false)?;
    let lanes = measure(&nic, queues, run, true)?;
    Ok(json!({ "queues": queues, "driver": nic.driver, "raw": raw, "lanes": lanes }))
}

fn measure(nic: &NicFacts, queues: u32, run: Duration, lanes: bool) -> Result<Value> {
    let object = testrun::object()?.context("bench: no kernel half")?;
    let mut half = KernelHalf::load(&object, &rig::settings(queues, Rate::Off))?;
    half.attach(nic, Mode::Driver)?;
    let mut sockets = Vec::new();
    let mut monitors = Vec::new();
    for queue in 0..queues {
        let spec = rig::spec(nic.index, queue);
        let xsk = Xsk::open(&spec)?;
        monitors.push(xsk.monitor(&spec)?);
        half.xsk_insert(queue, xsk.fd())?;
        sockets.push(xsk);
    }
    let zero_copy = sockets.iter().all(Xsk::is_zero_copy);
    let counters: Vec<Arc<LaneCounters>> =
        (0..queues).map(|_| Arc::new(LaneCounters::default())).collect();
    let stop = AtomicBool::new(false);
    let cores = cpu::allowed_cores();
    let started = Instant::now();
    let frames: u64 = thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .into_iter()
            .enumerate()
            .map(|(i, xsk)| {
                let (stop, counters) = (&stop, &counters[i]);
                let core = cores[(cores.len() - 1 - i % cores.len()) % cores.len()];
                scope.spawn(move || {
                    let _ = cpu::pin_to(core);
                    if lanes {
                        rig::lane(rig::port(xsk, counters), queues as u16, counters).run(stop);
                        return counters.frames.get();
                    }
                    let mut raw = RawXsk::new(xsk, Arc::clone(counters));
                    let mut frames = 0;
                    while !stop.load(Relaxed) {
                        match raw.recycle(rig::LANE_BATCH) {
                            0 => raw.wait(IDLE_SLEEP),
                            taken => frames += taken as u64,
                        }
                    }
                    frames
                })
            })
            .collect();
        thread::sleep(run);
        for queue in 0..queues {
            // An empty slot is what is wanted.
            let _ = half.xsk_remove(queue);
        }
        thread::sleep(Duration::from_millis(20));
        stop.store(true, Relaxed);
        threads.into_iter().map(|t| t.join().unwrap_or(0)).sum()
    });
    let seconds = started.elapsed().as_secs_f64();
    let rows = half.exits()?;
    let total = |slot: usize| rows.iter().map(|r| r[slot]).sum::<u64>();
    let mut dropped = 0;
    for monitor in &monitors {
        let s = monitor.statistics()?;
        dropped += s.rx_dropped + s.rx_ring_full;
    }
    let redirected = total(Exit::RedirectXsk.slot());
    Ok(json!({
        "mpps": frames as f64 / seconds / 1e6,
        "frames": frames,
        "xdp_frames": total(FRAMES_SLOT),
        "fallback_frames": total(Exit::PassFallback.slot()),
        "kernel_dropped": dropped,
        "unaccounted_frames": redirected.abs_diff(frames + dropped),
        "zero_copy": zero_copy,
    }))
}
