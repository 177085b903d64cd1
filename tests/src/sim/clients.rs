//! Clients: phones on a bad network, that ask again until they hear.
//!
//! ```text
//!   Fleet::send --> datagram of one domain: new events, or one sent before,
//!                   whole or with one changed under its old key
//!   Fleet::hear <-- the node's answers
//! ```
//!
//! The worlds are small on purpose: few hunts, players and cells, so that
//! most events meet something that another event left there. What a fleet does
//! most is drawn with it: in one world it is banks, in another quests.

use veltrix_abi::kinds::{
    CELL_BITS, EventKind, Hotspot, HotspotKind, HuntSetup, LIFETIME_S_MAX, PowerUp, QuestPay,
    Quota, REWARD_MAX,
};

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
    /// Of a hundred acts, those with hotspots and wallets.
    ordinary: u64,
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
        let ordinary = rng.between(30, 80);
        let (waiting, answered) = (Vec::new(), Vec::new());
        Self { rng, domains, players, cells, ordinary, sequence: 0, keys: 0, waiting, answered }
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
            let twice = datagram.events[index].clone();
            datagram.events.push(twice);
            return;
        }
        let act = self.act();
        let old = &mut datagram.events[index];
        (old.kind, old.subject, old.argument) = (act.kind.code(), act.subject, act.argument);
        old.payload = act.payload;
    }

    fn event(&mut self, domain: u64, log_time_ms: u64) -> Event {
        let Act { kind, subject, argument, payload } = self.act();
        let event = Event {
            domain,
            key: self.key(log_time_ms),
            player: self.rng.below(self.players),
            subject,
            argument,
            kind: kind.code(),
            reserved: 0,
            payload,
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

    fn act(&mut self) -> Act {
        let (cell, is_ordinary) = (self.rng.below(self.cells), self.rng.percent(self.ordinary));
        if is_ordinary { ordinary(&mut self.rng, cell) } else { rarer(&mut self.rng, cell) }
    }

    /// One field is made nonsense.
    fn spoil(&mut self, mut event: Event) -> Event {
        match self.rng.below(7) {
            0 => event.kind = self.rng.below(25) as u16,
            1 => event.reserved = 1,
            2 => event.key[6] = 0x40,
            3 => event.key[8] &= 0x3f,
            4 => event.subject |= 1 << (CELL_BITS + self.rng.below(4) as u32),
            5 => event.payload = (0..self.rng.below(9)).map(|_| self.rng.below(4) as u8).collect(),
            _ => event.argument = self.rng.any(),
        }
        event
    }
}

/// What an event asks for.
struct Act {
    kind: EventKind,
    subject: u64,
    argument: u64,
    payload: Vec<u8>,
}

impl Act {
    fn new(kind: EventKind, subject: u64, argument: u64) -> Self {
        Self { kind, subject, argument, payload: Vec::new() }
    }

    fn with(self, payload: Vec<u8>) -> Self {
        Self { payload, ..self }
    }
}

/// Hotspots and wallets.
fn ordinary(rng: &mut Rng, cell: u64) -> Act {
    match rng.below(100) {
        0..22 => Act::new(EventKind::HotspotSpawn, cell, hotspot(rng)),
        22..45 => Act::new(EventKind::CollectItem, cell, 0),
        45..58 => Act::new(EventKind::UseKey, cell, 0),
        58..75 => Act::new(EventKind::Claim, cell, 0),
        75..88 => Act::new(EventKind::WalletCredit, rng.any(), amount(rng)),
        88..93 => Act::new(EventKind::WalletSpend, cell, rng.between(1, 200)),
        // Cells and players have the same small numbers.
        93..98 => Act::new(EventKind::WalletTransfer, cell, rng.between(1, 200)),
        _ => Act::new(EventKind::HotspotExpire, cell, 0),
    }
}

/// Hunts, teams, quests, rewards.
fn rarer(rng: &mut Rng, cell: u64) -> Act {
    let quest = rng.below(4);
    match rng.below(200) {
        0..20 => Act::new(EventKind::HuntOpen, 0, setup(rng)).with(quota(rng)),
        // For good: a hunt that is closed shows little more.
        20..22 => Act::new(EventKind::HuntClose, 0, 0),
        22..52 => Act::new(EventKind::PlayerJoin, 0, rng.below(4)),
        52..60 => Act::new(EventKind::LocationPing, cell, 0),
        60..72 => Act::new(EventKind::PowerUp, 0, power_up(rng)),
        72..80 => {
            let payload = (0..rng.between(1, 40)).map(|_| rng.any() as u8).collect();
            Act::new(EventKind::TreasureType, rng.below(3), 0).with(payload)
        }
        80..95 => Act::new(EventKind::QuestDefine, quest, pay(rng)).with(graph(rng)),
        95..145 => Act::new(EventKind::Checkpoint, quest * 256 + rng.below(5), 0),
        145..153 => Act::new(EventKind::QuestAbandon, quest, 0),
        153..168 => {
            let number = rng.below(3) * 256 + rng.below(3);
            Act::new(EventKind::RewardIssued, number, amount(rng))
        }
        168..186 => Act::new(EventKind::BankDeposit, 0, rng.between(1, 60)),
        _ => Act::new(EventKind::BankWithdraw, 0, rng.between(1, 100)),
    }
}

fn amount(rng: &mut Rng) -> u64 {
    match rng.below(20) {
        0 => u64::MAX - rng.below(3),
        1 => u64::MAX / 2,
        _ => rng.between(1, 100),
    }
}

fn setup(rng: &mut Rng) -> u64 {
    let game = rng.between(1, 6) as u8;
    let is_race = game == 2;
    let settings = rng.between(1, 3) | rng.between(2, 3) << 16 | rng.between(2, 5) << 24;
    let setup = HuntSetup {
        game,
        length_s: if is_race || rng.percent(10) { rng.between(1, 6) as u32 } else { 0 },
        settings: if is_race { settings } else { 0 },
    };
    setup.pack().unwrap_or(0)
}

/// Mostly none.
fn quota(rng: &mut Rng) -> Vec<u8> {
    if !rng.percent(15) {
        return Vec::new();
    }
    let quota = Quota {
        tenant: rng.below(3) as u32,
        cells_max: rng.below(20) as u32,
        players_max: rng.below(10) as u32,
        events_per_s: rng.below(2) as u32 * rng.between(1, 60) as u32,
    };
    quota.bytes().to_vec()
}

fn power_up(rng: &mut Rng) -> u64 {
    let power_up = PowerUp {
        item: rng.below(2) as u8,
        factor: rng.between(2, 8) as u8,
        seconds: rng.between(1, 4) as u32,
    };
    power_up.pack().unwrap_or(0)
}

fn pay(rng: &mut Rng) -> u64 {
    let pay = QuestPay { node: rng.below(50) as u32, end: rng.below(200) as u32 };
    pay.pack().unwrap_or(0)
}

/// A graph of up to five nodes; now and then one that is none.
fn graph(rng: &mut Rng) -> Vec<u8> {
    let last = rng.below(5);
    let mut payload = vec![last as u8, 0];
    for _ in 0..rng.below(2 * last + 1) {
        let from = rng.below(last);
        let to = if rng.percent(95) { rng.between(from + 1, last) } else { rng.below(6) };
        payload.extend([from as u8, to as u8]);
    }
    if rng.percent(3) {
        payload.pop();
    }
    payload
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
