//! Settings of a client and how it comes to be.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{ToSocketAddrs, UdpSocket, lookup_host};
use veltrix_abi::Refusal;
use veltrix_abi::limits::{
    EVENT_FIXED_BYTES, HEADER_BYTES, PAYLOAD_BYTES_LIMIT, PAYLOAD_BYTES_MAX_DEFAULT,
};
use veltrix_abi::wire::{Mode, Reply, Welcome};

use crate::Client;
use crate::codec;
use crate::error::{ConnectError, RefusedReason};
use crate::event::ServerInfo;

/// Hellos go out at this distance until a welcome comes: above the round trip
/// of a mobile network, well below the patience of whoever waits.
const HELLO_INTERVAL: Duration = Duration::from_millis(100);

/// Settings of a [`Client`]; [`Client::builder`] starts with the defaults.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    pub(crate) mode: Mode,
    pub(crate) payload_bytes_max: usize,
    pub(crate) linger: Duration,
    pub(crate) deadline: Duration,
    pub(crate) retry_base: Duration,
    pub(crate) retry_cap: Duration,
    pub(crate) events_in_flight_max: usize,
    pub(crate) connect_timeout: Duration,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            mode: Mode::Durable,
            payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT,
            linger: Duration::from_micros(200),
            deadline: Duration::from_secs(2),
            retry_base: Duration::from_millis(2),
            retry_cap: Duration::from_millis(250),
            events_in_flight_max: 65_536,
            connect_timeout: Duration::from_secs(2),
        }
    }
}

impl ClientBuilder {
    /// What an ack must promise; [`Mode::Durable`] unless set. A server that
    /// lacks the mode makes [`connect`](Self::connect) fail by name.
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Largest datagram, bytes of UDP payload; 1,232 unless set, and never
    /// more than the server's own limit.
    pub const fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Longest time a batch stays open while more events keep coming; 200 us
    /// unless set. A batch leaves at once when nothing more is queued, so a
    /// lone event never waits for it. Zero is allowed.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Longest time from taking an event over to its outcome, or a query to its
    /// answer, all retries included; 2 s unless set.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Least wait before a retry; 2 ms unless set.
    pub const fn retry_base(mut self, base: Duration) -> Self {
        self.retry_base = base;
        self
    }

    /// Longest wait before a retry; 250 ms unless set. A busy answer may ask
    /// for more.
    pub const fn retry_cap(mut self, cap: Duration) -> Self {
        self.retry_cap = cap;
        self
    }

    /// Events that may wait for an outcome at a time, together with the calls
    /// that wait for rows; 65,536 unless set. It bounds the client's memory:
    /// past it, `send` and queries wait and `try_send` fails.
    pub const fn events_in_flight_max(mut self, events: usize) -> Self {
        self.events_in_flight_max = events;
        self
    }

    /// How long [`connect`](Self::connect) asks for a welcome; 2 s unless set.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Says hello and gives a client once the server answers. Of several
    /// addresses a name resolves to, the first that answers is taken.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(self, addr: impl ToSocketAddrs) -> Result<Client, ConnectError> {
        self.check()?;
        let addrs: Vec<SocketAddr> =
            lookup_host(addr).await.map_err(ConnectError::Resolve)?.collect();
        let share = self.connect_timeout / u32::try_from(addrs.len().max(1)).unwrap_or(u32::MAX);
        let mut failed = None;
        let last = addrs.len().saturating_sub(1);
        for (index, addr) in addrs.into_iter().enumerate() {
            match greet(addr, share, index == last).await {
                Ok(greeting) => return self.accept(addr, greeting),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| {
            ConnectError::Resolve(std::io::Error::other("the name has no address"))
        }))
    }

    fn accept(self, addr: SocketAddr, greeting: Greeting) -> Result<Client, ConnectError> {
        if !greeting.server.offers(self.mode) {
            let offered: Vec<_> = [Mode::None, Mode::Durable]
                .into_iter()
                .filter(|mode| greeting.server.offers(*mode))
                .map(Mode::name)
                .collect();
            let offered = offered.join(", ");
            return Err(ConnectError::ModeUnavailable { addr, wanted: self.mode, offered });
        }
        Ok(Client::start(&self, greeting))
    }

    /// Largest datagram that both sides take, bytes.
    pub(crate) fn datagram_bytes_max(&self, welcome: &Welcome) -> usize {
        self.payload_bytes_max.min(welcome.payload_bytes_max.into())
    }

    fn check(&self) -> Result<(), ConnectError> {
        let payload_bytes_min = HEADER_BYTES + EVENT_FIXED_BYTES;
        let checks = [
            (
                (payload_bytes_min..=PAYLOAD_BYTES_LIMIT).contains(&self.payload_bytes_max),
                "payload_bytes_max",
                self.payload_bytes_max.to_string(),
                "96 to 3456 bytes",
            ),
            (!self.deadline.is_zero(), "deadline", format!("{:?}", self.deadline), "above zero"),
            (
                !self.connect_timeout.is_zero(),
                "connect_timeout",
                format!("{:?}", self.connect_timeout),
                "above zero",
            ),
            (
                !self.retry_base.is_zero(),
                "retry_base",
                format!("{:?}", self.retry_base),
                "above zero",
            ),
            (
                self.retry_cap >= self.retry_base,
                "retry_cap",
                format!("{:?}", self.retry_cap),
                "at least retry_base",
            ),
            (
                (1..=tokio::sync::Semaphore::MAX_PERMITS).contains(&self.events_in_flight_max),
                "events_in_flight_max",
                self.events_in_flight_max.to_string(),
                "1 to 2^61 - 1",
            ),
        ];
        for (holds, key, seen, wanted) in checks {
            if !holds {
                return Err(ConnectError::Setting { key, seen, wanted });
            }
        }
        Ok(())
    }
}

/// A socket on which a server has answered.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) socket: UdpSocket,
    pub(crate) session: u64,
    /// First sequence not used yet.
    pub(crate) sequence: u64,
    pub(crate) server: ServerInfo,
    pub(crate) welcomed_at: Instant,
}

/// Asks `addr` until it answers. With `last` unset, a closed port ends it at
/// once, since another address is there to try; otherwise the server may just
/// be starting.
async fn greet(addr: SocketAddr, timeout: Duration, last: bool) -> Result<Greeting, ConnectError> {
    let socket = open(addr).await.map_err(|source| ConnectError::Socket { addr, source })?;
    let session = codec::random_u64();
    let started = Instant::now();
    let mut sent: Vec<Instant> = Vec::new();
    let mut port_closed = false;
    let mut buffer = vec![0; PAYLOAD_BYTES_LIMIT];
    while started.elapsed() < timeout && (last || !port_closed) {
        let sequence = sent.len() as u64 + 1;
        // A datagram that will not leave is as good as a lost one: the next follows.
        let result = socket.send(&codec::hello(session, sequence)).await;
        port_closed |= result.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        sent.push(Instant::now());
        let until = tokio::time::Instant::now()
            + HELLO_INTERVAL.min(timeout.saturating_sub(started.elapsed()));
        loop {
            let received = match tokio::time::timeout_at(until, socket.recv(&mut buffer)).await {
                Err(_) => break,
                Ok(Err(error)) => {
                    port_closed |= error.kind() == ErrorKind::ConnectionRefused;
                    if last { continue } else { break }
                }
                Ok(Ok(bytes)) => bytes,
            };
            let now = Instant::now();
            let Ok((header, reply)) = codec::read(&buffer[..received]) else {
                continue;
            };
            let asked = header.sequence.checked_sub(1).and_then(|i| sent.get(i as usize));
            let (true, Some(asked)) = (header.session == session, asked) else {
                continue;
            };
            match reply {
                Reply::Welcome(welcome) => {
                    let server = ServerInfo { welcome, round_trip: now - *asked };
                    let sequence = sent.len() as u64 + 1;
                    return Ok(Greeting { socket, session, sequence, server, welcomed_at: now });
                }
                Reply::Refused { reason, version_min, version_max } => {
                    let code = reason;
                    let reason = Refusal::from_code(code);
                    let reason = RefusedReason { reason, code, version_min, version_max };
                    return Err(ConnectError::Refused { addr, reason });
                }
                // Busy: the next hello is due soon enough.
                _ => {}
            }
        }
    }
    let hellos = sent.len() as u32;
    Err(ConnectError::NoAnswer { addr, waited: started.elapsed(), hellos, port_closed })
}

/// An unnamed port of the server's address family, connected, so that the
/// system drops what others send and reports a closed port.
async fn open(addr: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    Ok(socket)
}
