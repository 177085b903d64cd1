//! A session with a server: its number, its sequences, the server's clock.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES, PAYLOAD_BYTES_LIMIT};
use veltrix_abi::wire::{Mode, Welcome};
use veltrix_client::codec;

use crate::cli::load::sockets::{greet, socket_error};
use crate::cli::ping::{connect, open};
use crate::cli::{CliError, ExitStatus};

/// Socket buffers asked for; the host's limits may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What a client knows of itself and its server.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// 64 random bits.
    pub id: u64,
    /// What the server wants in requests.
    pub cookie: u64,
    sequence: u64,
    log_time_ns: u64,
    at: Instant,
}

impl Session {
    fn new(id: u64, sequence: u64, welcome: &Welcome) -> Self {
        let mut session = Self { id, cookie: 0, sequence, log_time_ns: 0, at: Instant::now() };
        session.on_welcome(welcome);
        session
    }

    /// Takes over what a welcome says.
    pub fn on_welcome(&mut self, welcome: &Welcome) {
        self.cookie = welcome.cookie;
        self.log_time_ns = welcome.log_time_ns;
        self.at = Instant::now();
    }

    /// Milliseconds of log time, for keys.
    #[must_use]
    pub fn log_ms(&self) -> u64 {
        let elapsed_ns = u64::try_from(self.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.log_time_ns.saturating_add(elapsed_ns) / 1_000_000
    }

    /// A number for the next datagram.
    pub fn next_sequence(&mut self) -> u64 {
        let sequence = self.sequence;
        self.sequence += 1;
        sequence
    }
}

/// A server and the sessions with it.
#[derive(Debug)]
pub struct Server {
    /// Its address.
    pub addr: SocketAddr,
    /// What it said of itself.
    pub welcome: Welcome,
    /// At least one socket with its session.
    pub links: Vec<(UdpSocket, Session)>,
}

impl Server {
    /// Greets the server at `addr` (HOST:PORT) over `connections` sockets, or over
    /// as many as it has lanes.
    ///
    /// # Errors
    ///
    /// When it does not answer, gives no durable acks, or a socket cannot be had.
    pub fn connect(addr: &str, connections: Option<u16>) -> Result<Self, CliError> {
        let greeted = |socket: &UdpSocket| -> Result<(Session, Welcome), CliError> {
            let buffers = socket2::SockRef::from(socket);
            // Best effort: with less, a burst of acks may be lost, and is asked for again.
            let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
            let _ = buffers.set_send_buffer_size(SOCKET_BUFFER_BYTES);
            let id = codec::random_u64();
            let (welcome, sequence) = greet(socket, id, addr)?;
            Ok((Session::new(id, sequence, &welcome), welcome))
        };
        let socket = connect(addr)?;
        let (session, welcome) = greeted(&socket)?;
        let peer = socket.peer_addr().map_err(|error| socket_error(&error))?;
        if welcome.modes & Welcome::mode_bit(Mode::Durable) == 0 {
            let message = format!(
                "{peer} keeps nothing: a world wants a server with a log, \
                 `veltrix format --data DIR` and `veltrix run --data DIR`"
            );
            return Err(CliError::new(ExitStatus::Error, message));
        }
        let mut links = vec![(socket, session)];
        for _ in 1..connections.unwrap_or(welcome.lanes).min(CONNECTIONS_MAX) {
            let socket = open(peer).map_err(|error| socket_error(&error))?;
            let (session, _) = greeted(&socket)?;
            links.push((socket, session));
        }
        Ok(Self { addr: peer, welcome, links })
    }

    /// Events of a full datagram, at least 1.
    #[must_use]
    pub fn fill(&self) -> u16 {
        let room = usize::from(self.welcome.payload_bytes_max).min(PAYLOAD_BYTES_LIMIT);
        let most = room.saturating_sub(HEADER_BYTES) / EVENT_FIXED_BYTES;
        (most as u16).clamp(1, self.welcome.events_max.max(1))
    }
}

/// Most sockets of one load; each has a thread.
pub const CONNECTIONS_MAX: u16 = 64;
