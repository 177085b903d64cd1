//! The swarm: many players behind one thread, for benchmarks and crash tests
//! in the lab. It founds a world, plays in it as fast as acks come or at a fixed
//! rate, sends again what is not answered, and counts what acks say.
//!
//! ```text
//!   traffic (bytes of datagram n) -> feed (TEST_RUN) -> veltrix-c ==== veltrix-s -> the node
//!   book (what was sent)  <- acks <- AF_XDP on veltrix-c ============ veltrix-s <-
//! ```
//!
//! The datagrams are the SDK's, byte for byte; only the way onto the link is
//! short, since generator and node share a machine's cores here. Nothing is
//! counted but from acks; a latency runs from the time a datagram was meant to
//! be sent (at a fixed rate) or was sent (in a window) to the moment its ack was
//! decoded.
//!
//! | owner | what |
//! |---|---|
//! | [`feed`] | the frames of the call under way |
//! | [`book`] | every datagram sent and not answered, the counts |
//! | [`reads`] | every query sent and not answered |
//! | [`game`] | the loops of mixed traffic: events, retries, nonsense, queries |
//! | [`drive`] | the loops: founding, a window, a fixed rate, the end |

pub mod book;
pub mod drive;
pub mod feed;
pub mod game;
pub mod reads;
pub mod traffic;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use veltrix::base::counters::LaneCounters;
use veltrix::base::cpu;
use veltrix::base::mem::HugePages;
use veltrix::base::port::Port as _;
use veltrix::nic::facts::NicFacts;
use veltrix::nic::program::{KernelHalf, Mode as XdpMode, Rate, Settings};
use veltrix::xsk::{Ladder, WaitMode, Xsk, XskPort, XskSpec};
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
use veltrix_abi::wire::{self, HELLO_BODY_BYTES, Header, Kind, Mode, Reply, Welcome};

use crate::lab::{CLIENT_INTERFACE, FrameSpec, Lab, Side};
use crate::testrun;
use book::Book;
use feed::Feed;
use reads::Reads;
use traffic::{Envelope, Traffic, World};

/// UDP port that the players send from, all of them: they differ in address.
const PLAYER_PORT: u16 = 40_747;

/// Bytes of Ethernet, IPv4 and UDP headers.
const HEADERS_BYTES: usize = 42;

/// Receive ring, frames: acks of a whole batch arrive at once.
const RX_RING_FRAMES: u32 = 4_096;

/// Frames taken in one go.
const RECEIVE_FRAMES: usize = 256;

/// Unanswered datagrams that can be told apart, the newest before the oldest.
const FLIGHTS: usize = 1 << 16;

/// Longest wait for the answer to a hello.
const HELLO_WAIT: Duration = Duration::from_millis(20);

/// What a swarm is.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Where it plays.
    pub world: World,
    /// UDP port of the server.
    pub server_port: u16,
    /// Sessions, each with an address of its own; datagrams go through them in
    /// turn.
    pub sessions: u16,
    /// Ack mode asked for.
    pub mode: Mode,
    /// Core of its thread.
    pub core: usize,
    /// Wait before an unanswered datagram is sent again.
    pub retry_after: Duration,
}

/// Log time: the server's, carried on by our monotonic clock.
#[derive(Clone, Copy, Debug)]
struct LogClock {
    log_ns: u64,
    at: Instant,
}

/// See the module. Made and used by one thread inside the client's namespace:
/// [`Swarm::run`].
pub struct Swarm {
    spec: Spec,
    feed: Feed,
    port: XskPort,
    /// Holds the receiving program on the client's interface.
    _half: KernelHalf,
    book: Book,
    reads: Reads,
    clock: LogClock,
    /// Zero of the nanoseconds that flights are timed in.
    started: Instant,
    /// Headers of a frame of each session, for the length they were made for.
    headers: Vec<[u8; HEADERS_BYTES]>,
    headers_of: usize,
    /// The same for datagrams of any length, by their length in words of 8 bytes.
    headers_by_words: Vec<Vec<[u8; HEADERS_BYTES]>>,
    session: u64,
    welcome: Option<Welcome>,
    /// Datagrams to send again, and room for them.
    due: Vec<(u64, u64)>,
    retries_seen_ns: u64,
    undelivered: u64,
}

impl Swarm {
    /// Makes a swarm in `lab` and runs `f` with it on a thread of its own, inside
    /// the client's namespace and pinned to the core asked for.
    ///
    /// # Errors
    ///
    /// What `f` gives; no kernel half, or the lab's interface refuses.
    pub fn run<R: Send>(
        lab: &Lab,
        spec: Spec,
        f: impl FnOnce(&mut Self) -> Result<R> + Send,
    ) -> Result<R> {
        ensure!(spec.sessions > 0, "swarm: no session");
        let cells = spec.world.cells;
        ensure!(
            cells > 0
                && cells.is_multiple_of(128)
                && spec.world.hunts > 0
                && spec.world.players > 0,
            "swarm: {:?}, wanted hunts, players and a multiple of 128 cells",
            spec.world
        );
        let feed = Feed::new(lab)?;
        lab.on(Side::Client, || {
            ensure!(cpu::pin_to(spec.core), "swarm: core {} cannot be had", spec.core);
            // Players have machines of their own: here they share a core with
            // threads of the node that have this precedence.
            ensure!(cpu::set_nice(cpu::NICE_FIRST), "swarm: nice level {}", cpu::NICE_FIRST);
            cpu::sharpen_timers();
            let mut swarm = Self::here(spec, feed)?;
            f(&mut swarm)
        })
    }

    /// In the namespace of the calling thread.
    fn here(spec: Spec, feed: Feed) -> Result<Self> {
        let object = testrun::object()?
            .context("swarm: no kernel half: run it by `cargo xtask`, which builds it")?;
        let settings = Settings {
            port: PLAYER_PORT,
            payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT,
            queues: 1,
            block_entries_max: 1,
            blocklist: false,
            rate: Rate::Off,
        };
        let nic = NicFacts::read(CLIENT_INTERFACE)?;
        let mut half = KernelHalf::load(&object, &settings)?;
        half.attach(&nic, XdpMode::Driver)?;
        let xsk = Xsk::open(&XskSpec {
            ifindex: nic.index,
            queue: 0,
            rx_ring_frames: RX_RING_FRAMES,
            tx_ring_frames: 64,
            frame_bytes: 2_048,
            zero_copy: Ladder::Off,
            wait: WaitMode::Wakeup,
            huge_pages: HugePages::Auto,
        })?;
        half.xsk_insert(0, xsk.fd())?;
        let counters = Arc::new(LaneCounters::default());
        let port = XskPort::new(xsk, PLAYER_PORT, PAYLOAD_BYTES_MAX_DEFAULT, counters);
        let retry_after_ns = u64::try_from(spec.retry_after.as_nanos()).unwrap_or(u64::MAX / 2);
        Ok(Self {
            spec,
            feed,
            port,
            _half: half,
            book: Book::new(FLIGHTS, retry_after_ns),
            reads: Reads::default(),
            clock: LogClock { log_ns: 0, at: Instant::now() },
            started: Instant::now(),
            headers: Vec::new(),
            headers_of: 0,
            headers_by_words: Vec::new(),
            session: veltrix_client::codec::random_u64(),
            welcome: None,
            due: Vec::with_capacity(feed::CALL_FRAMES_MAX),
            retries_seen_ns: 0,
            undelivered: 0,
        })
    }

    /// What was sent and what became of it.
    #[must_use]
    pub fn book(&mut self) -> &mut Book {
        &mut self.book
    }

    /// The world it plays in.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.spec.world
    }

    /// Frames that the link did not take: nobody listens at its other end.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// Nanoseconds since it was made.
    #[inline]
    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Milliseconds of log time, for keys.
    fn log_ms(&self) -> u64 {
        (self.clock.log_ns + self.clock.at.elapsed().as_nanos() as u64) / 1_000_000
    }

    /// Asks the server for its facts, and takes its log time; waits for as long
    /// as `wait`.
    ///
    /// # Errors
    ///
    /// When nobody answers, or the mode is not served.
    pub fn hello(&mut self, wait: Duration) -> Result<Welcome> {
        let asked = Instant::now();
        self.welcome = None;
        while asked.elapsed() < wait {
            let mut datagram = [0; wire_bytes_of_hello()];
            Header { session: self.session, ..Header::new(Kind::Hello) }.write(&mut datagram);
            wire::finish(&mut datagram, crc_fast::crc32_iscsi);
            self.set_headers(datagram.len())?;
            let frame = self.feed.frame(0);
            frame[..HEADERS_BYTES].copy_from_slice(&self.headers[0]);
            frame[HEADERS_BYTES..HEADERS_BYTES + datagram.len()].copy_from_slice(&datagram);
            self.undelivered += self.feed.send(1, HEADERS_BYTES + datagram.len())?;
            let sent = Instant::now();
            while sent.elapsed() < HELLO_WAIT {
                if self.receive() == 0 {
                    self.port.wait(Duration::from_millis(1), None);
                }
                if let Some(welcome) = self.welcome {
                    let bit = Welcome::mode_bit(self.spec.mode);
                    ensure!(
                        welcome.modes & bit != 0,
                        "swarm: the server gives no acks of mode {}",
                        self.spec.mode.name()
                    );
                    return Ok(welcome);
                }
            }
        }
        anyhow::bail!("swarm: the server answered no hello for {wait:?}")
    }

    /// Makes the headers of every session for datagrams of `payload_bytes`.
    fn set_headers(&mut self, payload_bytes: usize) -> Result<()> {
        if self.headers_of == payload_bytes {
            return Ok(());
        }
        self.headers = self.headers_for(payload_bytes)?;
        self.headers_of = payload_bytes;
        Ok(())
    }

    /// Headers of every session for datagrams of `payload_bytes`.
    fn headers_for(&self, payload_bytes: usize) -> Result<Vec<[u8; HEADERS_BYTES]>> {
        let mut headers = Vec::new();
        let payload = vec![0; payload_bytes];
        for session in 0..self.spec.sessions {
            let [high, low] = session.to_be_bytes();
            let source = IpAddr::V4(Ipv4Addr::new(10, 78, high, low.wrapping_add(1)));
            let spec = FrameSpec {
                source,
                source_port: PLAYER_PORT,
                ..FrameSpec::ipv4(self.spec.server_port)
            };
            let frame = spec.build(&payload)?;
            let first = frame.first_chunk().context("swarm: a frame without headers")?;
            headers.push(*first);
        }
        Ok(headers)
    }

    /// Writes the frame of a datagram into place `index` of the next call.
    #[inline]
    fn place(&mut self, index: usize, traffic: Traffic, sequence: u64, key_ms: u64) {
        let session = sequence % u64::from(self.spec.sessions);
        let frame = self.feed.frame(index);
        frame[..HEADERS_BYTES].copy_from_slice(&self.headers[session as usize]);
        let envelope = Envelope {
            session: self.session.wrapping_add(session),
            sequence,
            mode: self.spec.mode,
            key_ms,
        };
        self.spec.world.write(traffic, sequence, &envelope, &mut frame[HEADERS_BYTES..]);
    }

    /// Sends the frames placed.
    fn send(&mut self, frames: usize, traffic: Traffic) -> Result<()> {
        self.undelivered += self.feed.send(frames, HEADERS_BYTES + traffic.bytes())?;
        Ok(())
    }

    /// Takes what has arrived; gives the datagrams.
    fn receive(&mut self) -> usize {
        let frames = self.port.receive(RECEIVE_FRAMES);
        if frames == 0 {
            return 0;
        }
        let now_ns = self.now_ns();
        while let Some(taken) = self.port.take() {
            let Ok(packet) = taken else { continue };
            // What does not decode was damaged on its way, or is for nobody here.
            if let Ok((header, reply)) =
                wire::decode_reply(self.port.payload(&packet), crc_fast::crc32_iscsi)
                && header.session.wrapping_sub(self.session) < u64::from(self.spec.sessions)
            {
                match reply {
                    Reply::Ack(acks) => acks.for_each(|entry| self.book.ack(&entry, now_ns)),
                    Reply::Busy { .. } | Reply::Refused { .. }
                        if reads::is_read(header.sequence) =>
                    {
                        self.reads.turned_away(header.sequence);
                    }
                    Reply::Answer(entries) => {
                        self.reads.answered(header.sequence, entries, now_ns);
                    }
                    Reply::Busy { retry_after_us } => {
                        self.book.busy(header.sequence, now_ns, retry_after_us);
                    }
                    Reply::Refused { .. } => self.book.refused(header.sequence),
                    Reply::Welcome(welcome) => {
                        self.clock = LogClock { log_ns: welcome.log_time_ns, at: Instant::now() };
                        self.welcome = Some(welcome);
                    }
                    Reply::Pong(_) => {}
                }
            }
            self.port.recycle(packet);
        }
        self.port.flush();
        frames
    }
}

const fn wire_bytes_of_hello() -> usize {
    veltrix_abi::limits::HEADER_BYTES + HELLO_BODY_BYTES
}
