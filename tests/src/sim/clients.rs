//! Clients: phones on a bad network, that ask again until they hear.
//!
//! ```text
//!   Fleet::send --> datagram of one domain: new events, or one sent before,
//!                   whole or with one changed under its old key
//!   Fleet::hear <-- the node's answers
//! ```
//!
//! The worlds are small on purpose: few hunts, players and cells, so that
//! most events meet something that another event left there.

use veltrix_abi::kinds::{CELL_BITS, EventKind, Hotspot, HotspotKind, LIFETIME_S_MAX, REWARD_MAX};

use super::rng::Rng;
use crate::model::Event;

/// Datagrams kept to be sent again.
const KEPT_MAX: usize = 60;

/// What a client puts into one UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The client's number of it.
    pub sequence: u64,
    /// Its events, all of one domain.
    pub events: Vec<Event>,
}

impl Datagram {
    /// Domain key of the header.
    #[must_use]
    pub fn domain(&self) -> u64 {
        self.events.first().map_or(0, |event| event.domain)
    }

    /// The events as they are on the wire.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for event in &self.events {
            let wire = event.wire();
            let start = body.len();
            body.resize(start + wire.wire_bytes(), 0);
            wire.write(&mut body[start..]);
        }
        body
    }
}

/// All clients.
#[derive(Debug)]
pub struct Fleet {
    rng: Rng,
    domains: Vec<u64>,
    players: u64,
    cells: u64,
    sequence: u64,
    keys: u64,
    /// Sent and not answered, as far as the clients know; then what was
    /// answered, since a network repeats old packets too.
    waiting: Vec<Datagram>,
    answered: Vec<Datagram>,
}

impl Fleet {
    /// Clients of `domains` hunts.
    #[must_use]
    pub fn new(mut rng: Rng, domains: u64) -> Self {
        let first = rng.any();
        let domains = (0..domains).map(|i| first.wrapping_add(i)).collect();
        let (players, cells) = (rng.between(2, 12), rng.between(2, 24));
        let (waiting, answered) = (Vec::new(), Vec::new());
        Self { rng, domains, players, cells, sequence: 0, keys: 0, waiting, answered }
    }

    /// Something to send. `log_time_ms` is what the clients believe it to be.
    pub fn send(&mut self, log_time_ms: u64) -> Datagram {
        let datagram = match self.rng.below(100) {
            0..25 if !self.waiting.is_empty() => {
                let index = self.rng.index(self.waiting.len());
                self.waiting[index].clone()
            }
            25..35 if !self.answered.is_empty() => {
                let index = self.rng.index(self.answered.len());
                let mut datagram = self.answered[index].clone();
                if self.rng.percent(20) {
                    self.change(&mut datagram);
                }
                datagram
            }
            _ => {
                let count = self.rng.between(1, 8);
                let domain = self.domains[self.rng.index(self.domains.len())];
                let events = (0..count).map(|_| self.event(domain, log_time_ms)).collect();
                self.sequence += 1;
                let datagram = Datagram { sequence: self.sequence, events };
                self.waiting.push(datagram.clone());
                if self.waiting.len() > KEPT_MAX {
                    // Nobody asks for ever.
                    self.waiting.remove(0);
                }
                return datagram;
            }
        };
        self.sequence += 1;
        Datagram { sequence: self.sequence, ..datagram }
    }

    /// The node's answer to a datagram arrived.
    pub fn hear(&mut self, datagram: &Datagram) {
        self.waiting.retain(|waiting| waiting.events != datagram.events);
        self.answered.push(datagram.clone());
        if self.answered.len() > KEPT_MAX {
            let index = self.rng.index(self.answered.len());
            self.answered.remove(index);
        }
    }

    /// An old key on something else, or an old event twice.
    fn change(&mut self, datagram: &mut Datagram) {
        let index = self.rng.index(datagram.events.len());
        if self.rng.percent(30) {
            let twice = datagram.events[index];
            datagram.events.push(twice);
            return;
        }
        let old = datagram.events[index];
        let (kind, subject, argument) = self.action();
        datagram.events[index] = Event { kind: kind.code(), subject, argument, ..old };
    }

    fn event(&mut self, domain: u64, log_time_ms: u64) -> Event {
        let (kind, subject, argument) = self.action();
        let event = Event {
            domain,
            key: self.key(log_time_ms),
            player: self.rng.below(self.players),
            subject,
            argument,
            kind: kind.code(),
            reserved: 0,
        };
        if self.rng.percent(3) { self.spoil(event) } else { event }
    }

    /// A UUIDv7. Most clocks are right within a second; a few are not.
    fn key(&mut self, log_time_ms: u64) -> [u8; 16] {
        let ms = match self.rng.below(100) {
            0..85 => log_time_ms.saturating_sub(self.rng.below(1_000)),
            85..95 => (log_time_ms + 2_010).saturating_sub(self.rng.below(20)),
            95..98 => log_time_ms.saturating_sub(self.rng.below(120_000)),
            98 => self.rng.below(1 << 48),
            _ => 0,
        };
        self.keys += 1;
        let mut key = [0; 16];
        key[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        key[6..8].copy_from_slice(&(0x7000 | self.rng.below(0x1000) as u16).to_be_bytes());
        key[8..].copy_from_slice(&(1 << 63 | self.keys).to_be_bytes());
        key
    }

    fn action(&mut self) -> (EventKind, u64, u64) {
        let cell = self.rng.below(self.cells);
        let rng = &mut self.rng;
        match rng.below(100) {
            0..22 => (EventKind::HotspotSpawn, cell, hotspot(rng)),
            22..45 => (EventKind::CollectItem, cell, 0),
            45..58 => (EventKind::UseKey, cell, 0),
            58..75 => (EventKind::Claim, cell, 0),
            75..88 => {
                let amount = match rng.below(20) {
                    0 => u64::MAX - rng.below(3),
                    1 => u64::MAX / 2,
                    _ => rng.between(1, 100),
                };
                (EventKind::WalletCredit, rng.any(), amount)
            }
            88..93 => (EventKind::WalletSpend, cell, rng.between(1, 200)),
            // Cells and players have the same small numbers.
            93..98 => (EventKind::WalletTransfer, cell, rng.between(1, 200)),
            _ => (EventKind::HotspotExpire, cell, 0),
        }
    }

    /// One field is made nonsense.
    fn spoil(&mut self, mut event: Event) -> Event {
        match self.rng.below(6) {
            0 => event.kind = self.rng.below(20) as u16,
            1 => event.reserved = 1,
            2 => event.key[6] = 0x40,
            3 => event.key[8] &= 0x3f,
            4 => event.subject |= 1 << (CELL_BITS + self.rng.below(4) as u32),
            _ => event.argument = self.rng.any(),
        }
        event
    }
}

fn hotspot(rng: &mut Rng) -> u64 {
    let kind = [HotspotKind::Item, HotspotKind::Chest, HotspotKind::Ticket][rng.index(3)];
    let ticket = kind == HotspotKind::Ticket;
    let hotspot = Hotspot {
        kind,
        item: if ticket { 0 } else { rng.below(2) as u8 },
        remaining: if ticket { 1 } else { rng.between(1, 4) as u16 },
        reward: if rng.percent(10) { REWARD_MAX } else { rng.below(50) as u32 },
        lifetime_s: match rng.below(10) {
            0..5 => 0,
            5..9 => rng.between(1, 20) as u32,
            _ => LIFETIME_S_MAX,
        },
    };
    hotspot.pack().unwrap_or(0)
}
