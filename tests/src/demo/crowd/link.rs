//! A socket and its session: what was sent and not answered, and when it is
//! sent again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use veltrix::udp::Batch;
use veltrix_abi::limits::PAYLOAD_BYTES_LIMIT;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::{AckEntry, Reply};
use veltrix_client::codec::{self, Random, random_u64};

use super::super::world::Event;

/// Wait before the first retry, nanoseconds; doubled each time.
const RETRY_NS_FIRST: u64 = 80_000_000;

/// Longest wait before a retry, nanoseconds.
const RETRY_NS_MAX: u64 = 640_000_000;

/// Datagrams taken by one call.
const CALL_DATAGRAMS: usize = 32;

/// Receive buffer asked for: acks of a whole batch come at once.
const BUFFER_BYTES: usize = 4 << 20;

/// A datagram sent and not answered.
pub struct Flight {
    /// As it was sent.
    pub bytes: Box<[u8]>,
    /// Its events.
    pub events: Box<[Event]>,
    /// When it was sent first.
    pub first_ns: u64,
    /// When it is sent again.
    pub retry_ns: u64,
    /// Times it was sent again.
    pub tries: u32,
    /// Outages before it was first sent.
    pub life: u32,
    /// Whether an ack of it did not reach its player.
    pub ignored: bool,
}

/// What a reply said.
pub enum Heard {
    /// Greeted.
    Welcome {
        /// The node's log time, nanoseconds.
        log_time_ns: u64,
    },
    /// To be sent again later.
    Busy,
    /// Not to be sent again.
    Refused {
        /// By the wire's code.
        reason: u8,
    },
    /// An answer to each event of a datagram: outcome code, whether it was a
    /// duplicate, and the epoch it was first decided at.
    Ack {
        /// Of which datagram.
        sequence: u64,
        /// The answers.
        told: Vec<(u8, bool, u64)>,
    },
}

/// See the module.
pub struct Link {
    socket: UdpSocket,
    batch: Batch,
    slots: Vec<u32>,
    arrived: Vec<(u32, usize)>,
    /// Reused by whoever calls [`Link::read`].
    pub heard: Vec<Heard>,
    /// Session id.
    pub session: u64,
    /// Cookie of the last welcome.
    pub cookie: u64,
    /// Whether the last hello was answered.
    pub greeted: bool,
    sequence: u64,
    /// Sent and not answered, by sequence.
    pub flights: HashMap<u64, Flight>,
    /// Where the answers to a datagram begin in the list of all.
    pub answered: HashMap<u64, usize>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Link {
    /// A socket to the node.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        let buffers = socket2::SockRef::from(&socket);
        // With less, a burst of acks may be lost; the retry gets them again.
        let _ = buffers.set_recv_buffer_size(BUFFER_BYTES);
        let _ = buffers.set_send_buffer_size(BUFFER_BYTES);
        Ok(Self {
            socket,
            batch: Batch::new(CALL_DATAGRAMS, PAYLOAD_BYTES_LIMIT, CALL_DATAGRAMS),
            slots: (0..CALL_DATAGRAMS as u32).collect(),
            arrived: Vec::with_capacity(CALL_DATAGRAMS),
            heard: Vec::new(),
            session: random_u64(),
            cookie: 0,
            greeted: false,
            sequence: 0,
            flights: HashMap::new(),
            answered: HashMap::new(),
            due: BinaryHeap::new(),
        })
    }

    /// Says hello; one that is lost is for the caller to repeat.
    pub fn hello(&mut self) {
        let sequence = self.next_sequence();
        // A closed port is a lost hello.
        let _ = self.socket.send(&codec::hello(self.session, sequence));
    }

    /// The next sequence of this session.
    pub const fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Notes a datagram that is about to be sent first.
    pub fn put(&mut self, sequence: u64, mut flight: Flight, now_ns: u64, random: &mut Random) {
        flight.retry_ns = now_ns + wait_ns(0, random);
        self.due.push(Reverse((flight.retry_ns, sequence)));
        self.flights.insert(sequence, flight);
    }

    /// Hands a flight's datagram to the kernel.
    pub fn transmit(&self, sequence: u64) -> Result<()> {
        let Some(flight) = self.flights.get(&sequence) else { return Ok(()) };
        for _ in 0..2 {
            match self.socket.send(&flight.bytes) {
                Ok(_) => return Ok(()),
                // Tells of an earlier datagram; this one has not left yet.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                // Lost, as on any network.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("demo: a UDP socket of the crowd"),
            }
        }
        Ok(())
    }

    /// Sends again what is due, at most `most`; gives how many.
    pub fn retry(&mut self, now_ns: u64, most: usize, random: &mut Random) -> Result<usize> {
        let mut retries = 0;
        while retries < most
            && let Some(Reverse((due_ns, sequence))) = self.due.peek().copied()
            && due_ns <= now_ns
        {
            self.due.pop();
            // What was answered, or put off, has left a stale entry.
            let Some(flight) = self.flights.get_mut(&sequence) else { continue };
            if flight.retry_ns != due_ns {
                continue;
            }
            flight.tries += 1;
            flight.retry_ns = now_ns + wait_ns(flight.tries, random);
            codec::restamp(&mut flight.bytes, sequence, self.cookie);
            self.due.push(Reverse((flight.retry_ns, sequence)));
            self.transmit(sequence)?;
            retries += 1;
        }
        Ok(retries)
    }

    /// Lets everything unanswered go again within `spread_ns`.
    pub fn spread(&mut self, now_ns: u64, spread_ns: u64, random: &mut Random) {
        for (sequence, flight) in &mut self.flights {
            flight.retry_ns = now_ns + random.below(spread_ns);
            self.due.push(Reverse((flight.retry_ns, *sequence)));
        }
    }

    /// Takes waiting datagrams; how many, `None` when there is none.
    pub fn receive(&mut self) -> Option<usize> {
        self.arrived.clear();
        let arrived = &mut self.arrived;
        // Errors tell of a closed port; what is unanswered is sent again.
        let (socket, slots) = (self.socket.as_fd(), &self.slots);
        let taken = self.batch.receive(socket, slots, |slot, got| arrived.push((slot, got.bytes)));
        taken.ok()?;
        (!self.arrived.is_empty()).then_some(self.arrived.len())
    }

    /// Reads a datagram that was taken.
    pub fn read(&mut self, number: usize, now_ns: u64, heard: &mut Vec<Heard>) {
        let (slot, bytes) = self.arrived[number];
        let bytes = self.batch.slot(slot as usize).get(..bytes).unwrap_or(&[]);
        let (header, reply) = match codec::read(bytes) {
            Ok((header, reply)) if header.session == self.session => (header, reply),
            _ => return,
        };
        match reply {
            Reply::Ack(acks) => acks.for_each(|entry| heard.push(ack(&entry))),
            Reply::Busy { retry_after_us } => {
                if let Some(flight) = self.flights.get_mut(&header.sequence) {
                    // A little later for some, so that they do not all come at once.
                    let wait_ns = u64::from(retry_after_us) * 1_000;
                    flight.retry_ns = now_ns + wait_ns + (header.sequence % 8) * wait_ns / 16;
                    self.due.push(Reverse((flight.retry_ns, header.sequence)));
                }
                heard.push(Heard::Busy);
            }
            Reply::Refused { reason, .. } => heard.push(Heard::Refused { reason }),
            Reply::Welcome(welcome) => {
                self.cookie = welcome.cookie;
                self.greeted = true;
                heard.push(Heard::Welcome { log_time_ns: welcome.log_time_ns });
            }
            Reply::Pong(_) | Reply::Answer(_) => {}
        }
    }
}

fn ack(entry: &AckEntry<'_>) -> Heard {
    let mut first_epochs = entry.duplicate_epochs();
    let told = entry.outcomes.iter().map(|byte| {
        let duplicate = byte & DUPLICATE_BIT != 0;
        let first = if duplicate { first_epochs.next() } else { None };
        (byte & !DUPLICATE_BIT, duplicate, first.unwrap_or(entry.epoch))
    });
    Heard::Ack { sequence: entry.sequence, told: told.collect() }
}

/// Wait before the next retry: doubled each time, a quarter of it by chance.
fn wait_ns(tries: u32, random: &mut Random) -> u64 {
    let wait = (RETRY_NS_FIRST << tries.min(8)).min(RETRY_NS_MAX);
    wait - random.below(wait / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_most() {
        let mut random = Random::new(5);
        for tries in 0..40 {
            let most = (RETRY_NS_FIRST << tries.min(8)).min(RETRY_NS_MAX);
            let wait = wait_ns(tries, &mut random);
            assert!(wait <= most && wait > most / 4 * 3 - 1, "{tries}: {wait}");
        }
    }

    #[test]
    fn what_is_answered_is_not_sent_again() -> Result<()> {
        let node = UdpSocket::bind("127.0.0.1:0")?;
        node.set_nonblocking(true)?;
        let mut link = Link::open(node.local_addr()?)?;
        let mut random = Random::new(5);
        for sequence in 1..=2 {
            let flight = Flight {
                bytes: codec::hello(1, sequence).into(),
                events: Box::new([]),
                first_ns: 0,
                retry_ns: 0,
                tries: 0,
                life: 0,
                ignored: false,
            };
            link.put(sequence, flight, 0, &mut random);
        }
        link.flights.remove(&1);
        assert_eq!(link.retry(RETRY_NS_FIRST / 2, 9, &mut random)?, 0);
        assert_eq!(link.retry(RETRY_NS_FIRST, 9, &mut random)?, 1);
        assert_eq!(link.retry(RETRY_NS_FIRST, 9, &mut random)?, 0);
        assert_eq!(link.retry(RETRY_NS_FIRST * 3, 9, &mut random)?, 1);
        Ok(())
    }
}
