//! The lab with the kernel half attached and sockets as a lane has them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use veltrix::base::counters::LaneCounters;
use veltrix::base::mem::HugePages;
use veltrix::base::port::Port;
use veltrix::lane::{Admission, Lane, ServerFacts};
use veltrix::nic::facts::NicFacts;
use veltrix::nic::program::{KernelHalf, Mode, Rate, Settings};
use veltrix::xsk::{Ladder, WaitMode, Xsk, XskPort, XskSpec};
use veltrix_abi::Exit;
use veltrix_abi::exits::{FRAMES_SLOT, XDP_SLOTS};
use veltrix_abi::limits::{BLOCK_ENTRIES_MAX_DEFAULT, PAYLOAD_BYTES_MAX_DEFAULT};

use crate::lab::{
    Datagram, FrameSpec, Generator, GeneratorSpec, Lab, LabSpec, SERVER_INTERFACE, Template, Vary,
};
use crate::testrun;

/// Port served in the lab.
pub const PORT: u16 = 4747;
/// Core of the generator, and with one queue of the receiving softirq.
pub const GENERATOR_CORE: usize = 0;
/// Core of whatever polls.
pub const POLLER_CORE: usize = 1;
/// RX ring of every socket measured, entries: large enough that one drain is
/// long beside a clock read.
pub const RX_RING_FRAMES: u32 = 4_096;
/// TX ring of every socket measured, entries.
pub const TX_RING_FRAMES: u32 = 2_048;
/// Frames a lane takes a turn: the default of `lanes.batch_frames`.
pub const LANE_BATCH: usize = 64;

/// See the module.
pub struct Rig {
    /// The network.
    pub lab: Lab,
    /// The kernel half.
    pub object: Vec<u8>,
}

/// The kernel half on the server's interface, as `veltrix run` loads it by default.
pub struct Attached {
    /// Program and maps.
    pub half: KernelHalf,
    start: [u64; XDP_SLOTS],
}

impl Rig {
    /// A lab of one queue.
    ///
    /// # Errors
    ///
    /// No object, or no privileges for the lab.
    pub fn new() -> Result<Self> {
        let object = testrun::object()?.context(
            "bench: no kernel half; run it as `cargo xtask bench path`, which builds it",
        )?;
        let lab = Lab::new(LabSpec::with_queues(1))?;
        Ok(Self { lab, object })
    }

    /// Attaches the kernel half.
    ///
    /// # Errors
    ///
    /// As [`KernelHalf::load`] and [`KernelHalf::attach`].
    pub fn attach(&self) -> Result<Attached> {
        let half = self.lab.server(|| -> Result<KernelHalf> {
            let nic = NicFacts::read(SERVER_INTERFACE)?;
            let mut half = KernelHalf::load(&self.object, &settings(1, Rate::Off))?;
            half.attach(&nic, Mode::Driver)?;
            Ok(half)
        })?;
        let start = half.exit_row(1)?;
        Ok(Attached { half, start })
    }

    /// A bound socket in the XSKMAP.
    ///
    /// # Errors
    ///
    /// As [`Xsk::open`].
    pub fn socket(&self, attached: &mut Attached) -> Result<Xsk> {
        let xsk = self.lab.server(|| -> Result<Xsk> {
            let nic = NicFacts::read(SERVER_INTERFACE)?;
            Ok(Xsk::open(&spec(nic.index, 0))?)
        })?;
        attached.half.xsk_insert(0, xsk.fd())?;
        Ok(xsk)
    }

    /// A generator of these templates on its core.
    ///
    /// # Errors
    ///
    /// As [`Generator::new`].
    pub fn generator(&self, templates: Vec<Template>, vary: Vary) -> Result<Generator> {
        let spec = GeneratorSpec { vary, ..GeneratorSpec::new(GENERATOR_CORE, templates) };
        Generator::new(&self.lab, spec)
    }
}

impl Attached {
    /// Counts since it was attached.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn exits(&self) -> Result<[u64; XDP_SLOTS]> {
        let mut row = self.half.exit_row(1)?;
        for (now, start) in row.iter_mut().zip(&self.start) {
            *now -= start;
        }
        Ok(row)
    }

    /// Frames it saw, frames handed to the kernel's stack for want of a socket.
    ///
    /// # Errors
    ///
    /// As [`Self::exits`].
    pub fn frames_and_fallback(&self) -> Result<(u64, u64)> {
        let row = self.exits()?;
        Ok((row[FRAMES_SLOT], row[Exit::PassFallback.slot()]))
    }
}

/// What the kernel half is loaded with.
#[must_use]
pub fn settings(queues: u32, rate: Rate) -> Settings {
    Settings {
        port: PORT,
        payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT,
        queues,
        block_entries_max: BLOCK_ENTRIES_MAX_DEFAULT,
        blocklist: true,
        rate,
    }
}

/// A lane's socket on `queue`.
#[must_use]
pub fn spec(ifindex: u32, queue: u32) -> XskSpec {
    XskSpec {
        ifindex,
        queue,
        rx_ring_frames: RX_RING_FRAMES,
        tx_ring_frames: TX_RING_FRAMES,
        frame_bytes: 2_048,
        zero_copy: Ladder::Auto,
        wait: WaitMode::Wakeup,
        huge_pages: HugePages::Auto,
    }
}

/// A lane on `port`, of `lanes`.
#[must_use]
pub fn lane<P: Port>(port: P, lanes: u16, counters: &Arc<LaneCounters>) -> Lane<P> {
    let facts = ServerFacts {
        partitions: 64,
        lanes,
        port: PORT,
        payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT as u16,
    };
    let admission = Admission::new(Duration::from_millis(50));
    Lane::new(port, facts, admission, LANE_BATCH, Arc::clone(counters))
}

/// A lane's port on a socket.
#[must_use]
pub fn port(xsk: Xsk, counters: &Arc<LaneCounters>) -> XskPort {
    XskPort::new(xsk, PORT, PAYLOAD_BYTES_MAX_DEFAULT, Arc::clone(counters))
}

/// A frame with `events` events of one domain; 64 of them differ in session,
/// sequence and domain.
///
/// # Errors
///
/// As [`Template::new`].
pub fn event_templates(events: u16) -> Result<Vec<Template>> {
    (0..64)
        .map(|i| {
            let datagram = Datagram { session: i, sequence: i, domain: i, ..Datagram::default() };
            Template::new(&FrameSpec::ipv4(PORT), &datagram.events(events, 0))
        })
        .collect()
}

/// A ping frame.
///
/// # Errors
///
/// As [`Template::new`].
pub fn ping_template() -> Result<Template> {
    Template::new(&FrameSpec::ipv4(PORT), &Datagram::default().ping(1))
}

/// Wraps a port so that replies are made and then not sent: the lane without
/// the kernel's cost of sending.
pub struct Mute<P: Port>(pub P);

impl<P: Port> Port for Mute<P> {
    type Packet = P::Packet;
    type Path = P::Path;

    #[inline]
    fn receive(&mut self, max: usize) -> usize {
        self.0.receive(max)
    }

    #[inline(always)]
    fn take(&mut self) -> Option<Result<P::Packet, Exit>> {
        self.0.take()
    }

    #[inline(always)]
    fn payload<'a>(&'a self, packet: &'a P::Packet) -> &'a [u8] {
        self.0.payload(packet)
    }

    #[inline(always)]
    fn buffer<'a>(&'a mut self, packet: &'a mut P::Packet) -> &'a mut [u8] {
        self.0.buffer(packet)
    }

    #[inline(always)]
    fn for_reply(&mut self, packet: P::Packet) -> P::Packet {
        self.0.for_reply(packet)
    }

    #[inline(always)]
    fn flow_hash(&self, packet: &P::Packet) -> u32 {
        self.0.flow_hash(packet)
    }

    #[inline(always)]
    fn is_same_flow(&self, a: &P::Packet, b: &P::Packet) -> bool {
        self.0.is_same_flow(a, b)
    }

    #[inline(always)]
    fn send(&mut self, packet: P::Packet, _: usize) {
        self.0.recycle(packet);
    }

    #[inline(always)]
    fn recycle(&mut self, packet: P::Packet) {
        self.0.recycle(packet);
    }

    #[inline(always)]
    fn send_now(&mut self) {
        self.0.send_now();
    }

    #[inline(always)]
    fn flush(&mut self) {
        self.0.flush();
    }

    #[inline(always)]
    fn waiting(&self) -> usize {
        self.0.waiting()
    }

    fn path(&self, packet: &P::Packet) -> P::Path {
        self.0.path(packet)
    }

    fn is_on_path(&self, path: &P::Path, packet: &P::Packet) -> bool {
        self.0.is_on_path(path, packet)
    }

    fn reply_on(&mut self, path: &P::Path) -> Option<P::Packet> {
        self.0.reply_on(path)
    }

    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) {
        self.0.wait(timeout, waker);
    }
}
