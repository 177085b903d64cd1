//! The packet generator: `BPF_PROG_TEST_RUN` with live frames on a thread
//! inside the client namespace, pinned to a core.
//!
//! ```text
//!  TEST_RUN call: template x N -> lab_generate -> redirect to veltrix-c -> ring of server queue (core % queues)
//!                                 |issued        |refused                 |ring_full   |delivered
//! ```
//!
//! Where each number comes from:
//!
//! | number | source |
//! |---|---|
//! | issued | the program's own counter, one a frame |
//! | delivered | `tx_queue_Q_xdp_xmit` of the client's interface: frames the server's ring Q took |
//! | ring_full | `tx_queue_Q_xdp_xmit_errors`: frames that ring refused |
//! | refused | the rest of issued: no program on the server, link down, frame longer than the MTU |
//! | left_in_ring | delivered less the growth of `rx_queue_Q_xdp_packets` of the server's interface |
//!
//! The receiving program runs on the sending core, right after each batch of
//! [`GeneratorSpec::batch_frames`], and a ring holds 256: it fills only with
//! larger batches, or where something holds the receiver's polling off (a
//! busy-polling socket). [`Pacing::Lossless`] prevents it there too.
//!
//! A delivered frame meets the receiving program unless that program is
//! detached first. Three things the receiver must know: frames come from a
//! page pool whose pages are used again, so a receiver must not rewrite them
//! in place (XDP_TX would turn the addresses of later frames around); the
//! receive queue follows from the core; and socket traffic of the client
//! namespace shares the server's rings, so [`Sent::left_in_ring`] is exact
//! only without any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::{ProgramError, TestRun as _, Xdp, XdpMode};
use aya::{Ebpf, TestRunAttrs, TestRunOptions};

use super::frames::Template;
use super::layout::{
    GENERATE_PROGRAM, GENERATED_MAP, GENERATOR_MAP, GeneratorCounts, GeneratorSettings,
};
use super::meter::{Meter, RING_SLOTS, Reserved};
use super::namespace::check;
use super::{CLIENT_INTERFACE, Lab, Shared, link, object};

/// Largest template, bytes: one page less the kernel's frame head, headroom
/// and tail.
pub const TEMPLATE_BYTES_MAX: usize = 3_400;

/// How fast frames go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacing {
    /// As fast as the core can.
    Full,
    /// At most this many frames a second, at least 1, evenly in slices of
    /// about a millisecond.
    RatePerS(u64),
    /// As fast as the receiver takes them: never more frames outstanding than
    /// half a ring, so none is refused as long as nobody else fills it.
    Lossless,
}

/// What changes from frame to frame, without a new template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vary {
    /// Bits of the source address (IPv6: of its last 32 bits) that take the
    /// frame's number. 0: the address stays.
    pub source_mask: u32,
    /// Bits of the UDP source port that take the frame's number, above the
    /// bits the address uses: all pairs appear, the address changing fastest.
    /// 0: the port stays.
    pub port_mask: u16,
}

/// What a generator sends and how.
#[derive(Clone, Debug)]
pub struct GeneratorSpec {
    /// Cores the thread is pinned to, one a TEST_RUN call in turn. veth puts
    /// the frames of core `c` into the server's receive queue `c % queues`.
    pub cores: Vec<usize>,
    /// Frames, one a TEST_RUN call in turn.
    pub templates: Vec<Template>,
    /// What changes from frame to frame.
    pub vary: Vary,
    /// How fast.
    pub pacing: Pacing,
    /// Frames of one TEST_RUN call. More: less overhead a call (about 15 us).
    /// Fewer: templates and cores change sooner.
    pub call_frames: u32,
    /// Frames the kernel runs between two flushes, 1 to 256.
    pub batch_frames: u32,
}

impl GeneratorSpec {
    /// Full speed on one core, no variation.
    #[must_use]
    pub fn new(core: usize, templates: Vec<Template>) -> Self {
        Self {
            cores: vec![core],
            templates,
            vary: Vary::default(),
            pacing: Pacing::Full,
            call_frames: 4_096,
            batch_frames: 64,
        }
    }

    fn validate(&self) -> Result<()> {
        ensure!(!self.cores.is_empty(), "generator: no core, wanted at least 1");
        ensure!(!self.templates.is_empty(), "generator: no template, wanted at least 1");
        ensure!(self.call_frames >= 1, "generator: call_frames is 0, wanted at least 1");
        ensure!(
            (1..=256).contains(&self.batch_frames),
            "generator: batch_frames is {}, wanted 1 to 256",
            self.batch_frames
        );
        ensure!(
            self.pacing != Pacing::RatePerS(0),
            "generator: a rate of 0 frames a second, wanted at least 1"
        );
        for (index, template) in self.templates.iter().enumerate() {
            let bytes = template.bytes().len();
            ensure!(
                (14..=TEMPLATE_BYTES_MAX).contains(&bytes),
                "generator: template {index} has {bytes} bytes, wanted 14 to {TEMPLATE_BYTES_MAX}"
            );
            if let (Some(ip), true) = (template.ip(), self.vary.port_mask != 0) {
                ensure!(
                    ip.source_port & !self.vary.port_mask != 0,
                    "generator: template {index}: source port {} under port_mask {:#06x} would become 0; \
                     choose a port with a bit outside the mask",
                    ip.source_port,
                    self.vary.port_mask
                );
            }
        }
        Ok(())
    }
}

/// Frames of one template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TemplateSent {
    /// Frames made.
    pub issued: u64,
    /// Frames the receiver's ring took.
    pub delivered: u64,
}

/// What became of the frames of one `send`; sources in the module's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames made.
    pub issued: u64,
    /// Frames handed to the receiving program.
    pub delivered: u64,
    /// Frames a full ring refused.
    pub ring_full: u64,
    /// Frames that did not reach a ring.
    pub refused: u64,
    /// Delivered frames not yet taken out of the ring when the wait for them
    /// (1 s) ended; 0 when all were.
    pub left_in_ring: u64,
    /// By template, in the spec's order.
    pub templates: Vec<TemplateSent>,
    /// Delivered by server receive queue.
    pub delivered_by_queue: Vec<u64>,
    /// TEST_RUN calls.
    pub calls: u64,
    /// From the first call to the end of the last.
    pub elapsed: Duration,
}

impl Sent {
    /// Delivered frames a second, in millions.
    #[must_use]
    pub fn delivered_mpps(&self) -> f64 {
        self.delivered as f64 / self.elapsed.as_secs_f64().max(1e-9) / 1e6
    }
}

/// When a `send` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// After so many frames were issued.
    Frames(u64),
    /// After so long, at the end of a call.
    Time(Duration),
}

/// See the module.
pub struct Generator {
    // Before the anchor: the program leaves the interface before another may have it.
    ebpf: Ebpf,
    _anchor: Anchor,
    spec: GeneratorSpec,
    shared: Arc<Shared>,
    ifindex: u32,
    /// Calls made so far: templates and cores go on where the last send ended.
    calls: u64,
}

impl Generator {
    /// Loads a generator of its own.
    ///
    /// # Errors
    ///
    /// A spec that cannot be, no object, or the kernel refuses.
    pub fn new(lab: &Lab, spec: GeneratorSpec) -> Result<Self> {
        spec.validate()?;
        let mut ebpf = object::load()?;
        let program = object::program(&mut ebpf, GENERATE_PROGRAM)?;
        let anchor = Anchor::take(&lab.shared)?;
        let attached = lab.client(|| program.attach(&anchor.interface, XdpMode::Skb));
        attached
            .with_context(|| format!("generator: attach to its anchor {}", anchor.interface))?;
        let ifindex = link::ifindex(&lab.shared.client, CLIENT_INTERFACE)?;
        Ok(Self { ebpf, _anchor: anchor, spec, shared: Arc::clone(&lab.shared), ifindex, calls: 0 })
    }

    /// Changes the pacing of later sends.
    ///
    /// # Errors
    ///
    /// A rate of 0.
    pub fn set_pacing(&mut self, pacing: Pacing) -> Result<()> {
        let spec = GeneratorSpec { pacing, ..self.spec.clone() };
        spec.validate()?;
        self.spec = spec;
        Ok(())
    }

    /// Sends `count` frames and waits until the receiver took them.
    ///
    /// # Errors
    ///
    /// The kernel refuses, another generator feeds the same queue, or with
    /// [`Pacing::Lossless`] the receiver takes nothing for a second.
    pub fn send(&mut self, count: u64) -> Result<Sent> {
        self.run(Bound::Frames(count), &Control::default())
    }

    /// Sends for `duration` and waits until the receiver took the frames.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn send_for(&mut self, duration: Duration) -> Result<Sent> {
        self.run(Bound::Time(duration), &Control::default())
    }

    /// Sends on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(mut self, bound: Bound) -> Result<Running> {
        let control = Arc::new(Control::default());
        let inner = Arc::clone(&control);
        let thread = thread::Builder::new()
            .name("lab-generator".to_owned())
            .spawn(move || {
                let sent = self.run(bound, &inner);
                (self, sent)
            })
            .context("generator: start of its thread")?;
        Ok(Running { control, thread: Some(thread) })
    }

    fn run(&mut self, bound: Bound, control: &Control) -> Result<Sent> {
        let shared = Arc::clone(&self.shared);
        let _reserved = Reserved::new(&shared, &self.spec.cores)?;
        shared.client.enter(|| self.run_inside(bound, control))
    }

    fn run_inside(&mut self, bound: Bound, control: &Control) -> Result<Sent> {
        let shared = Arc::clone(&self.shared);
        let mut meter = Meter::new(&shared)?;
        let mut sent = Sent {
            templates: vec![TemplateSent::default(); self.spec.templates.len()],
            ..Sent::default()
        };
        let mut issued_before = self.issued()?;
        let mut core = None;
        let start = Instant::now();
        while !control.stop.load(Ordering::Relaxed) {
            let left = match bound {
                Bound::Frames(count) => count - sent.issued,
                Bound::Time(duration) if start.elapsed() < duration => u64::MAX,
                Bound::Time(_) => 0,
            };
            let frames = left.min(self.call_frames()) as u32;
            if frames == 0 {
                break;
            }
            let next_core = self.spec.cores[self.calls as usize % self.spec.cores.len()];
            if core.replace(next_core) != Some(next_core) {
                pin(next_core)?;
            }
            if !self.pace(start, bound, &sent, &mut meter, next_core, control)? {
                break;
            }
            let template = self.calls as usize % self.spec.templates.len();
            self.call(template, frames)?;
            let issued = self.issued()? - issued_before;
            issued_before += issued;
            let delta = meter.advance(next_core)?;
            sent.issued += issued;
            sent.delivered += delta.delivered;
            sent.ring_full += delta.ring_full;
            sent.templates[template].issued += issued;
            sent.templates[template].delivered += delta.delivered;
            sent.calls += 1;
            control.issued.store(sent.issued, Ordering::Relaxed);
            control.delivered.store(sent.delivered, Ordering::Relaxed);
        }
        sent.elapsed = start.elapsed();
        sent.refused = sent.issued.saturating_sub(sent.delivered + sent.ring_full);
        sent.left_in_ring = meter.drain()?;
        sent.delivered_by_queue = meter.delivered;
        Ok(sent)
    }

    fn call_frames(&self) -> u64 {
        let frames = u64::from(self.spec.call_frames);
        match self.spec.pacing {
            Pacing::Full => frames,
            Pacing::RatePerS(rate) => frames.min((rate / 1_000).max(1)),
            Pacing::Lossless => frames.min(RING_SLOTS / 2),
        }
    }

    /// Waits until the next call may go; false when the bound or a stop came first.
    fn pace(
        &self,
        start: Instant,
        bound: Bound,
        sent: &Sent,
        meter: &mut Meter<'_>,
        core: usize,
        control: &Control,
    ) -> Result<bool> {
        match self.spec.pacing {
            Pacing::Full => Ok(true),
            Pacing::Lossless => meter.wait_for_room(core).map(|()| true),
            Pacing::RatePerS(rate) => {
                let due = Duration::from_nanos(
                    (u128::from(sent.issued) * 1_000_000_000 / u128::from(rate)) as u64,
                );
                loop {
                    let elapsed = start.elapsed();
                    let over = matches!(bound, Bound::Time(duration) if elapsed >= duration);
                    if over || control.stop.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    match due.checked_sub(elapsed) {
                        None | Some(Duration::ZERO) => return Ok(true),
                        // A sleep overshoots by about 60 us; short of that, spin.
                        Some(wait) if wait > Duration::from_micros(100) => {
                            thread::sleep(
                                (wait - Duration::from_micros(80)).min(Duration::from_millis(50)),
                            );
                        }
                        Some(_) => std::hint::spin_loop(),
                    }
                }
            }
        }
    }

    /// One TEST_RUN call. A signal may cut it short; the program's counter
    /// knows how far it came.
    fn call(&mut self, template: usize, frames: u32) -> Result<()> {
        let Self { ebpf, spec, .. } = self;
        let frame = &spec.templates[template];
        let mut settings =
            GeneratorSettings { ifindex: self.ifindex, ..GeneratorSettings::default() };
        if let Some(ip) = frame.ip() {
            settings.l3 = ip.l3;
            settings.family = ip.family;
            settings.source_mask = spec.vary.source_mask;
            settings.port_mask = u32::from(spec.vary.port_mask);
            settings.port_shift = spec.vary.source_mask.count_ones();
        }
        object::settings(ebpf, GENERATOR_MAP)?
            .set(0, settings, 0)
            .context("generator: settings")?;
        let program: &Xdp = ebpf
            .program(GENERATE_PROGRAM)
            .context("generator: the object has no program")?
            .try_into()?;
        let options = TestRunOptions {
            data_in: Some(frame.bytes()),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(spec.batch_frames),
            ..TestRunOptions::new()
        };
        self.calls += 1;
        match program.test_run(options) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EINTR) =>
            {
                Ok(())
            }
            Err(error) => Err(error).with_context(|| {
                format!(
                    "generator: TEST_RUN of {frames} live frames of template {template} ({} bytes)",
                    frame.bytes().len()
                )
            }),
        }
    }

    /// Frames issued since the object was loaded.
    fn issued(&self) -> Result<u64> {
        let counts: Vec<GeneratorCounts> = object::counts(&self.ebpf, GENERATED_MAP, 0)?;
        Ok(counts.iter().map(|c| c.frames).sum())
    }
}

/// Pins the calling thread.
fn pin(core: usize) -> Result<()> {
    ensure!(core < libc::CPU_SETSIZE as usize, "generator: core {core} does not exist");
    // SAFETY: all zeros is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core was checked against the size of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: a valid set of the size given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
        .with_context(|| format!("generator: core {core} cannot be had"))
}

/// An interface that is never up, with the generator's program on it.
///
/// A TEST_RUN call patches its program into the kernel's XDP dispatcher and
/// out again, and each patch waits out an RCU grace period: 25 ms a call.
/// A program attached somewhere is in the dispatcher already, so the call
/// has nothing to patch: 15 us.
struct Anchor {
    interface: String,
    shared: Arc<Shared>,
}

impl Anchor {
    fn take(shared: &Arc<Shared>) -> Result<Self> {
        let mut anchors = shared.anchors();
        if anchors.free.is_empty() {
            anchors.free = link::create_anchors(&shared.client, anchors.pairs)?;
            anchors.pairs += 1;
        }
        let interface = anchors.free.pop().context("generator: no anchor was made")?;
        Ok(Self { interface, shared: Arc::clone(shared) })
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.shared.anchors().free.push(std::mem::take(&mut self.interface));
    }
}

/// What the sending thread and its handle share.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    issued: AtomicU64,
    delivered: AtomicU64,
}

/// A generator at work on its own thread. Dropped, it is stopped and waited for.
pub struct Running {
    control: Arc<Control>,
    thread: Option<thread::JoinHandle<(Generator, Result<Sent>)>>,
}

impl Running {
    /// Frames issued so far.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.control.issued.load(Ordering::Relaxed)
    }

    /// Frames delivered so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.control.delivered.load(Ordering::Relaxed)
    }

    /// Whether it came to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Asks it to end after the call under way.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end; gives the generator back and what became of the frames.
    ///
    /// # Errors
    ///
    /// As [`Generator::send`], or a panic of its thread.
    pub fn join(mut self) -> Result<(Generator, Sent)> {
        let thread = self.thread.take().context("generator: its thread was joined before")?;
        let (generator, sent) =
            thread.join().map_err(|_| anyhow!("generator: its thread panicked"))?;
        Ok((generator, sent?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // Whoever drops the handle does not want its result.
            drop(thread.join());
        }
    }
}
