//! Frames a second while the generator sends all it can.

use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use veltrix::base::counters::LaneCounters;
use veltrix::base::{cpu, poll};
use veltrix::udp::{Batch, Listener};
use veltrix::xsk::raw::RawXsk;
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;

use super::rig::{self, Attached, Mute, POLLER_CORE, PORT, Rig};
use crate::lab::{Generator, Receiver, ReceiverKind, SERVER_IPV4, Sent, Side};

/// How long one figure is measured.
const RUN: Duration = Duration::from_millis(1_200);

/// Empty polls before a loop sleeps: as a lane does it.
const EMPTY_POLLS_MAX: u32 = 32;

/// Sleep of an idle loop: as a lane does it.
const IDLE_SLEEP: Duration = Duration::from_millis(20);

/// Batch sizes of the baselines.
pub const BATCHES: [usize; 4] = [16, 64, 128, 256];

/// What one run gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// Frames the loop took, millions a second.
    pub mpps: f64,
    /// Frames offered, millions a second.
    pub offered_mpps: f64,
    /// Frames taken.
    pub frames: u64,
    /// System calls of the loop.
    pub syscalls: u64,
    /// Replies handed to the kernel.
    pub replies: u64,
    /// Frames that no counter explains.
    pub unaccounted: u64,
    /// Frames handed to the kernel's stack for want of a socket.
    pub fallback: u64,
}

impl Rate {
    fn of(frames: u64, sent: &Sent) -> Self {
        Self {
            mpps: frames as f64 / sent.elapsed.as_secs_f64() / 1e6,
            offered_mpps: sent.delivered_mpps(),
            frames,
            ..Self::default()
        }
    }
}

/// Runs `poll` on the poller's core until `stop`, with a lane's way of
/// waiting; gives the frames taken.
fn drive<T>(
    stop: &AtomicBool,
    state: &mut T,
    mut poll: impl FnMut(&mut T) -> usize,
    mut wait: impl FnMut(&mut T),
) -> u64 {
    let mut frames = 0;
    let mut empty_polls = 0;
    while !stop.load(Relaxed) {
        let taken = poll(state);
        frames += taken as u64;
        if taken > 0 {
            empty_polls = 0;
        } else if empty_polls < EMPTY_POLLS_MAX {
            empty_polls += 1;
            std::hint::spin_loop();
        } else {
            wait(state);
        }
    }
    loop {
        match poll(state) {
            0 => return frames,
            taken => frames += taken as u64,
        }
    }
}

/// Runs `work` pinned to the poller's core while the generator sends; gives
/// its result and what was sent.
fn beside_generator<R: Send>(
    generator: &mut Generator,
    work: impl FnOnce(&AtomicBool) -> R + Send,
) -> Result<(R, Sent)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let poller = scope.spawn(|| {
            if cpu::pin_to(POLLER_CORE) {
                Ok(work(&stop))
            } else {
                Err(anyhow!("bench: cannot pin to core {POLLER_CORE}; two cores are needed"))
            }
        });
        // Let it fall asleep first, as a lane that waits for a first packet.
        thread::sleep(Duration::from_millis(50));
        let sent = generator.send_for(RUN);
        // What is in the rings is still taken.
        thread::sleep(Duration::from_millis(30));
        stop.store(true, Relaxed);
        let result = poller.join().map_err(|_| anyhow!("bench: the poller panicked"))??;
        Ok((result, sent?))
    })
}

/// The minimal AF_XDP loop: receive and recycle, or receive and send back.
///
/// # Errors
///
/// What the rig says.
pub fn raw(rig: &Rig, generator: &mut Generator, batch: usize, echo: bool) -> Result<Rate> {
    let mut attached = rig.attach()?;
    let xsk = rig.socket(&mut attached)?;
    let counters = Arc::new(LaneCounters::default());
    let mut raw = RawXsk::new(xsk, Arc::clone(&counters));
    let (frames, sent) = beside_generator(generator, |stop| {
        let poll = |raw: &mut RawXsk| if echo { raw.echo(batch) } else { raw.recycle(batch) };
        drive(stop, &mut raw, poll, |raw| raw.wait(IDLE_SLEEP))
    })?;
    Ok(Rate { syscalls: counters.syscalls.get(), ..Rate::of(frames, &sent) })
}

/// A whole lane; `mute` leaves out the sending of replies.
///
/// # Errors
///
/// What the rig says.
pub fn lane(rig: &Rig, generator: &mut Generator, mute: bool) -> Result<Rate> {
    let mut attached = rig.attach()?;
    let xsk = rig.socket(&mut attached)?;
    let monitor = xsk.monitor(&rig::spec(0, 0))?;
    let counters = Arc::new(LaneCounters::default());
    let port = rig::port(xsk, &counters);
    let ((), sent) = if mute {
        let mut lane = rig::lane(Mute(port), 1, &counters);
        beside_generator(generator, move |stop| lane.run(stop))?
    } else {
        let mut lane = rig::lane(port, 1, &counters);
        beside_generator(generator, move |stop| lane.run(stop))?
    };
    let frames = counters.frames.get();
    let statistics = monitor.statistics()?;
    let unaccounted = unaccounted(&attached, &sent, &counters, statistics)?;
    let (_, fallback) = attached.frames_and_fallback()?;
    Ok(Rate {
        syscalls: counters.syscalls.get(),
        replies: counters.replies.sent.get(),
        unaccounted,
        fallback,
        ..Rate::of(frames, &sent)
    })
}

/// Differences of the equation, summed: the generator's count against the
/// kernel half's, its exits against its frames, redirected frames against the
/// lane's and the kernel's drops, the lane's exits against its frames.
fn unaccounted(
    attached: &Attached,
    sent: &Sent,
    counters: &LaneCounters,
    statistics: veltrix::xsk::XdpStatistics,
) -> Result<u64> {
    use veltrix_abi::Exit;
    use veltrix_abi::exits::FRAMES_SLOT;
    ensure!(sent.left_in_ring == 0, "bench: {} frames were never taken", sent.left_in_ring);
    let row = attached.exits()?;
    let exits: u64 = Exit::ALL.iter().filter(|e| e.is_xdp()).map(|e| row[e.slot()]).sum();
    let redirected = row[Exit::RedirectXsk.slot()];
    let arrived = counters.frames.get() + statistics.rx_dropped + statistics.rx_ring_full;
    Ok(sent.delivered.abs_diff(row[FRAMES_SLOT])
        + exits.abs_diff(row[FRAMES_SLOT])
        + redirected.abs_diff(arrived)
        + counters.exits_sum().abs_diff(counters.frames.get()))
}

/// A kernel UDP socket read by `recvmmsg`, behind an XDP program that passes
/// everything (veth hands redirected frames to no other interface).
///
/// # Errors
///
/// What the lab says.
pub fn kernel_udp(rig: &Rig, generator: &mut Generator, batch: usize) -> Result<Rate> {
    let _receiver = Receiver::attach(&rig.lab, Side::Server, ReceiverKind::Pass)?;
    let listener = Listener {
        interface: None,
        address: (SERVER_IPV4, PORT).into(),
        receive_buffer_bytes: 4 << 20,
        send_buffer_bytes: 4 << 20,
    };
    let socket = rig.lab.server(|| listener.open(1))?.0.pop().context("bench: no socket")?;
    let slots: Vec<u32> = (0..batch as u32).collect();
    let mut state = (socket, Batch::new(batch, PAYLOAD_BYTES_MAX_DEFAULT + 8, batch));
    let mut syscalls = 0;
    let (frames, sent) = beside_generator(generator, |stop| {
        drive(
            stop,
            &mut state,
            |(socket, batch): &mut (UdpSocket, Batch)| {
                syscalls += 1;
                batch.receive(socket.as_fd(), &slots, |_, _| {}).unwrap_or(0)
            },
            |(socket, _)| poll::readable(socket.as_fd(), None, IDLE_SLEEP),
        )
    })?;
    Ok(Rate { syscalls, ..Rate::of(frames, &sent) })
}
