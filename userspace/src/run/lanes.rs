//! Lane threads: started with everything they need, watched from outside.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::counters::LaneCounters;
use crate::base::cpu::{self, RunDelay};
use crate::base::port::Port;
use crate::lane::{Admission, Lane, LogHalfSpec, ServerFacts};
use crate::udp::UdpMonitor;
use crate::xsk::XskMonitor;

/// What the control core can see of a lane's socket.
#[derive(Debug)]
pub enum Monitor {
    /// An AF_XDP socket.
    Xsk(Box<XskMonitor>),
    /// A kernel UDP socket.
    Udp(UdpMonitor),
}

/// Facts of a lane that do not change while it runs.
#[derive(Clone, Debug)]
pub struct LaneFacts {
    /// NIC queue it serves; `None` on UDP sockets.
    pub queue: Option<u32>,
    /// Core it is pinned to; `None` when it runs where the scheduler likes.
    pub core: Option<usize>,
    /// Whether the kernel said that packets are not copied.
    pub zero_copy: bool,
    /// Wait mode, as status words it.
    pub wait: &'static str,
    /// Pages of its packet memory, as status words them.
    pub pages: &'static str,
    /// Bytes of its packet memory.
    pub memory_bytes: usize,
}

/// A running lane.
#[derive(Debug)]
pub struct LaneHandle {
    /// What it is.
    pub facts: LaneFacts,
    /// Its counters.
    pub counters: Arc<LaneCounters>,
    /// Its socket, from outside.
    pub monitor: Monitor,
    /// How long others have kept it off its core.
    pub run_delay: RunDelay,
    /// Whether it takes part in a log.
    pub has_log: bool,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What every lane is made from.
#[derive(Clone, Copy, Debug)]
pub struct LaneSpec {
    /// What a hello is answered with.
    pub facts: ServerFacts,
    /// Deadline of the admission.
    pub deadline: Duration,
    /// Frames a turn.
    pub batch: usize,
}

impl LaneHandle {
    /// Starts a lane on `port`, which counts into `counters`, with its part of
    /// the log if there is one; returns when its thread is pinned and about to
    /// receive.
    ///
    /// # Errors
    ///
    /// When the thread cannot be made or pinned.
    pub fn start<P: Port + Send + 'static>(
        name: String,
        port: P,
        spec: &LaneSpec,
        facts: LaneFacts,
        counters: Arc<LaneCounters>,
        monitor: Monitor,
        log: Option<LogHalfSpec>,
    ) -> io::Result<Self> {
        let has_log = log.is_some();
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = {
            let (stop, counters, spec, core) =
                (Arc::clone(&stop), Arc::clone(&counters), *spec, facts.core);
            std::thread::Builder::new().name(name).spawn(move || {
                let pinned = core.is_none_or(cpu::pin_to);
                // Without leave it goes without: where there is a log, its control core says so.
                let _ = cpu::set_nice(cpu::NICE_FIRST);
                cpu::sharpen_timers();
                let admission = Admission::new(spec.deadline);
                let lane = Lane::new(port, spec.facts, admission, spec.batch, counters);
                let mut lane = match log {
                    Some(log) => lane.with_log(log),
                    None => lane,
                };
                // The starter may have given up; then stop is set.
                let _ = ready.send((pinned, RunDelay::of_this_thread()));
                lane.run(&stop);
            })?
        };
        let Ok((is_pinned, run_delay)) = started.recv() else {
            return Err(io::Error::other("a lane's thread ended before it began"));
        };
        let thread = Some(thread);
        let mut handle = Self { facts, counters, monitor, run_delay, has_log, stop, thread };
        if !is_pinned {
            handle.stop();
            let core = handle.facts.core;
            return Err(io::Error::other(format!(
                "the kernel refused to pin a lane to core {core:?}"
            )));
        }
        Ok(handle)
    }

    /// Whether its thread has ended: by [`Self::stop`], or by a panic.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Tells the lane to serve what has arrived and end.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Stops the lane and waits for its end; its socket closes. True when it
    /// ended in good order.
    pub fn stop(&mut self) -> bool {
        self.ask_to_stop();
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for LaneHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
