//! `veltrix ping`: round trips to a server's lanes, without events.
//!
//! One ping each interval, whether or not the one before was answered, over a
//! kernel UDP socket. The round trip is taken from just before the send to
//! just after the receive, so the kernel's half of this host is in it; the
//! time inside the server, which the pong carries, is shown beside it.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use veltrix_abi::limits::PAYLOAD_BYTES_LIMIT;
use veltrix_abi::wire::Reply;
use veltrix_client::codec;

use super::{CliError, ExitStatus, json_line, print};

/// Where `ping` and `load` look for a server when no address is given: the
/// address of `veltrix run` without arguments.
pub const ADDR_DEFAULT: &str = "127.0.0.1:4747";

/// After the last ping, and for each: no answer within it is a loss.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// How long one of several addresses of a name is given to show life.
const PROBE_WAIT: Duration = Duration::from_millis(200);

/// Longest round trip a histogram tells from another, nanoseconds.
const RTT_NS_MAX: u64 = 10_000_000_000;

/// Arguments of `veltrix ping`.
#[derive(clap::Args, Clone, Debug)]
pub struct PingArgs {
    /// Server to ping: HOST:PORT.
    #[arg(default_value = ADDR_DEFAULT)]
    pub addr: String,

    /// Pings to send.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,

    /// Time between two pings, such as `10ms`.
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    pub interval: Duration,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What a run of pings found.
#[derive(Clone, Debug, Serialize)]
pub struct PingReport {
    /// The server.
    pub addr: SocketAddr,
    /// Pings sent.
    pub sent: u32,
    /// Pings answered in time.
    pub received: u32,
    /// Share of the pings lost, percent.
    pub loss_percent: f64,
    /// Pongs for a ping already answered, or given up.
    pub surplus: u32,
    /// Whether the host said that nothing listens on the port.
    pub port_closed: bool,
    /// Round trips; none when nothing answered.
    pub rtt_ns: Option<Percentiles>,
    /// Time from a lane's taking a ping to its giving the pong away.
    pub server_ns: Option<Percentiles>,
}

/// Percentiles of a histogram of nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Least value.
    pub min: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Greatest value.
    pub max: u64,
}

impl Percentiles {
    /// The percentiles of `histogram`; `None` when nothing was recorded.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |ns: u64| ns as f64 / 1e3;
        write!(
            f,
            "min {:.1} us  p50 {:.1} us  p99 {:.1} us  p99.9 {:.1} us  max {:.1} us",
            us(self.min),
            us(self.p50),
            us(self.p99),
            us(self.p999),
            us(self.max)
        )
    }
}

/// Runs `veltrix ping`.
///
/// # Errors
///
/// When the address does not resolve or a socket cannot be had. That nothing
/// answers is no error but the status [`ExitStatus::Unhealthy`].
pub fn run(args: PingArgs) -> Result<ExitStatus, CliError> {
    let socket = connect(&args.addr)?;
    let report = drive(&socket, args.count, args.interval).map_err(|error| {
        CliError::new(ExitStatus::Error, format!("ping {}: {error}", args.addr))
    })?;
    print(&if args.json { json_line(&report)? } else { text(&report) })?;
    Ok(if report.received == 0 { ExitStatus::Unhealthy } else { ExitStatus::Ok })
}

fn text(report: &PingReport) -> String {
    let mut out = String::new();
    let PingReport { addr, sent, received, loss_percent, .. } = report;
    let _ = writeln!(out, "{addr}: {sent} sent, {received} answered, {loss_percent:.1} % lost");
    if report.surplus > 0 {
        let _ = writeln!(out, "  {} late or doubled answers", report.surplus);
    }
    if let (Some(rtt), Some(server)) = (report.rtt_ns, report.server_ns) {
        let _ = writeln!(out, "  round trip  {rtt}");
        let _ = writeln!(out, "  in server   {server}");
    } else if report.port_closed {
        let _ = writeln!(out, "  nothing listens on that port; start a server with `veltrix run`");
    } else {
        let _ = writeln!(
            out,
            "  no answer within {ANSWER_WAIT:?}; `veltrix status` on the server shows by which exit they left"
        );
    }
    out
}

/// Sends `count` pings at `interval` over a connected socket and gathers the
/// answers.
///
/// # Errors
///
/// The system's, other than a closed port, which counts as loss.
pub fn drive(socket: &UdpSocket, count: u32, interval: Duration) -> io::Result<PingReport> {
    let mut pings = Pings {
        socket,
        session: codec::random_u64(),
        started: Instant::now(),
        sent_ns: Vec::with_capacity(count as usize),
        received: 0,
        surplus: 0,
        port_closed: false,
        rtt: histogram(),
        server: histogram(),
    };
    for i in 0..count {
        pings.receive_until(pings.started + interval * i)?;
        pings.send()?;
    }
    let end = Instant::now() + ANSWER_WAIT;
    while pings.received < count && Instant::now() < end {
        pings.receive_until(end)?;
    }
    Ok(PingReport {
        addr: socket.peer_addr()?,
        sent: count,
        received: pings.received,
        loss_percent: f64::from(count - pings.received) * 100.0 / f64::from(count.max(1)),
        surplus: pings.surplus,
        port_closed: pings.port_closed,
        rtt_ns: Percentiles::of(&pings.rtt),
        server_ns: Percentiles::of(&pings.server),
    })
}

/// A histogram of 1 ns to 10 s in three digits.
pub(super) fn histogram() -> Histogram<u64> {
    // The bounds are constants that its constructor accepts.
    Histogram::new_with_bounds(1, RTT_NS_MAX, 3).expect("1 ns to 10 s in 3 digits")
}

struct Pings<'a> {
    socket: &'a UdpSocket,
    session: u64,
    started: Instant,
    /// Send time of each ping since `started`; the sequence is the index plus
    /// one. `None` once answered.
    sent_ns: Vec<Option<u64>>,
    received: u32,
    surplus: u32,
    port_closed: bool,
    rtt: Histogram<u64>,
    server: Histogram<u64>,
}

impl Pings<'_> {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn send(&mut self) -> io::Result<()> {
        let sequence = self.sent_ns.len() as u64 + 1;
        let sent_ns = self.now_ns();
        self.sent_ns.push(Some(sent_ns));
        let sent = self.socket.send(&codec::ping(self.session, sequence, sent_ns));
        self.tolerate(sent.map(|_| ()))
    }

    /// A closed port is the report of an earlier ping's fate, not a failure.
    fn tolerate(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.port_closed = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Takes answers until `until`, or until all pings sent so far have one
    /// and nothing more is to be waited for.
    fn receive_until(&mut self, until: Instant) -> io::Result<()> {
        let mut buffer = [0; PAYLOAD_BYTES_LIMIT];
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            if self.sent_ns.len() == self.received as usize {
                std::thread::sleep(wait);
                return Ok(());
            }
            self.socket.set_read_timeout(Some(wait))?;
            match self.socket.recv(&mut buffer) {
                Ok(bytes) => self.on_datagram(&buffer[..bytes]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => self.tolerate(Err(e))?,
            }
        }
    }

    fn on_datagram(&mut self, datagram: &[u8]) {
        let now_ns = self.now_ns();
        let Ok((header, Reply::Pong(pong))) = codec::read(datagram) else { return };
        if header.session != self.session {
            return;
        }
        let index = usize::try_from(header.sequence.wrapping_sub(1)).unwrap_or(usize::MAX);
        let slot = self.sent_ns.get_mut(index);
        match slot.and_then(Option::take) {
            Some(sent_ns) if now_ns - sent_ns <= ANSWER_WAIT.as_nanos() as u64 => {
                self.received += 1;
                self.rtt.saturating_record((now_ns - sent_ns).max(1));
                let inside = pong.server_sent_ns.saturating_sub(pong.server_received_ns);
                self.server.saturating_record(inside.max(1));
            }
            _ => self.surplus += 1,
        }
    }
}

/// A UDP socket connected to `addr`, HOST:PORT. Of several addresses a name
/// has, the first that answers a ping; the last, unasked, if none does.
///
/// # Errors
///
/// [`ExitStatus::Usage`] when `addr` does not parse or resolve,
/// [`ExitStatus::Error`] when a socket cannot be had.
pub(super) fn connect(addr: &str) -> Result<UdpSocket, CliError> {
    let addrs: Vec<SocketAddr> = addr
        .to_socket_addrs()
        .map_err(|error| {
            let message =
                format!("address `{addr}`: {error}; wanted HOST:PORT, such as {ADDR_DEFAULT}");
            CliError::new(ExitStatus::Usage, message)
        })?
        .collect();
    let mut chosen = None;
    for (i, addr) in addrs.iter().enumerate() {
        let socket = open(*addr).map_err(|error| {
            CliError::new(ExitStatus::Error, format!("UDP socket towards {addr}: {error}"))
        })?;
        let last = i + 1 == addrs.len();
        let answered = !last && answers(&socket);
        chosen = Some(socket);
        if answered {
            break;
        }
    }
    chosen.ok_or_else(|| {
        CliError::new(ExitStatus::Usage, format!("address `{addr}`: the name has no address"))
    })
}

/// An unnamed port of `addr`'s family, connected to it.
pub(super) fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(addr)?;
    Ok(socket)
}

fn answers(socket: &UdpSocket) -> bool {
    let mut buffer = [0; PAYLOAD_BYTES_LIMIT];
    let session = codec::random_u64();
    let mut ask = || -> io::Result<bool> {
        socket.set_read_timeout(Some(PROBE_WAIT))?;
        socket.send(&codec::ping(session, 1, 0))?;
        let bytes = socket.recv(&mut buffer)?;
        Ok(codec::read(&buffer[..bytes]).is_ok_and(|(header, _)| header.session == session))
    };
    // Any failure means the same here: try the next address.
    ask().unwrap_or(false)
}
