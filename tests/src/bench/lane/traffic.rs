//! Datagrams as clients send them, made in rounds before they are timed.
//!
//! A world of hunts, as many in each partition as in any other, so that full
//! partitions are full together. Each hunt has its share of cells (three in five
//! give an item, one in five is a chest, one in five a ticket) and of players.
//! A datagram is a game server's: 24 events of one hunt. Everything is drawn by
//! a seeded generator: two runs have the same events.

use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind};
use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::{self, Event, Header, Kind, Mode};

/// Partitions of the node.
pub const PARTITIONS: u16 = 64;
/// Events of a datagram: a full one of 1,232 bytes.
pub const EVENTS: u16 = 24;
/// Bytes of such a datagram.
pub const DATAGRAM_BYTES: usize = HEADER_BYTES + EVENTS as usize * EVENT_FIXED_BYTES;
/// Log time at which the world begins, ms since the Unix epoch.
const START_MS: u64 = 1_800_000_000_000;
/// Log time between two events, ns: 100,000 a second. At that pace 2 M keys
/// last for 20 s and 29 M for five minutes, as dedupe is configured for; at the
/// pace of the measurement itself they would last for less than it takes
/// clients to answer.
pub const EVENT_NS: u64 = 10_000;
/// A key is at most this much older than its event's place in the log, ms:
/// clients are not in step.
const KEY_AGE_MS_MAX: u64 = 100;
/// Players of a hunt who collected last: those who then open a chest.
const COLLECTORS: usize = 64;

/// How large the world is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Hunts of each partition.
    pub hunts_per_partition: u32,
    /// Cells with a hotspot, of each hunt.
    pub cells_per_hunt: u32,
    /// Players of each hunt.
    pub players_per_hunt: u32,
    /// Idempotency keys that the node remembers.
    pub keys: u32,
}

impl Scale {
    /// Hunts of the node.
    #[must_use]
    pub const fn hunts(&self) -> u32 {
        self.hunts_per_partition * PARTITIONS as u32
    }

    /// Cells of the node.
    #[must_use]
    pub const fn cells(&self) -> u64 {
        self.hunts() as u64 * self.cells_per_hunt as u64
    }

    /// Players of the node, counted once for each hunt.
    #[must_use]
    pub const fn players(&self) -> u64 {
        self.hunts() as u64 * self.players_per_hunt as u64
    }
}

/// Log time when so many events were sent, nanoseconds since the Unix epoch.
#[must_use]
pub const fn log_time_ns(events: u64) -> u64 {
    START_MS * 1_000_000 + events * EVENT_NS
}

struct Hunt {
    domain: u64,
    /// Tickets claimed so far, and tickets put back, in turn around the hunt.
    claims: u32,
    respawns: u32,
    collectors: [u32; COLLECTORS],
}

/// See the module.
pub struct Traffic {
    scale: Scale,
    hunts: Vec<Hunt>,
    random: u64,
    /// Events written.
    events: u64,
    sequence: u64,
}

/// Finalizer of splitmix64.
pub(super) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What an event does, before it has a key.
struct Deed {
    kind: EventKind,
    player: u64,
    subject: u64,
    argument: u64,
}

impl Traffic {
    /// A world of this scale, in which nothing has happened.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let mut wanted = vec![scale.hunts_per_partition; usize::from(PARTITIONS)];
        let domains = (1u64..).filter(|domain| {
            let left = &mut wanted[usize::from(partition_of(*domain, PARTITIONS))];
            let taken = *left > 0;
            *left -= u32::from(taken);
            taken
        });
        let hunts = domains
            .take(scale.hunts() as usize)
            .map(|domain| Hunt { domain, claims: 0, respawns: 0, collectors: [0; COLLECTORS] })
            .collect();
        Self { scale, hunts, random: 0x5eed, events: 0, sequence: 0 }
    }

    /// Its scale.
    #[must_use]
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Domain key of a hunt.
    #[must_use]
    pub fn domain(&self, hunt: u32) -> u64 {
        self.hunts[hunt as usize].domain
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random)
    }

    /// Evenly from 0 to `below`.
    fn below(&mut self, below: u32) -> u32 {
        ((u64::from(self.random() as u32) * u64::from(below)) >> 32) as u32
    }

    /// Datagrams that make the world: a spawn for each cell, a credit for each
    /// player, hunt after hunt in turn.
    pub fn birth_datagrams(&self) -> u64 {
        let each = self.scale.cells_per_hunt.div_ceil(u32::from(EVENTS))
            + self.scale.players_per_hunt.div_ceil(u32::from(EVENTS));
        u64::from(each) * u64::from(self.scale.hunts())
    }

    /// Writes the `number`th datagram of [`Self::birth_datagrams`].
    pub fn birth(&mut self, number: u64, out: &mut Vec<u8>) {
        let hunts = u64::from(self.scale.hunts());
        let (hunt, part) = ((number % hunts) as u32, (number / hunts) as u32);
        let per = u32::from(EVENTS);
        let spawns = self.scale.cells_per_hunt.div_ceil(per);
        let (first, end, is_spawn) = match part.checked_sub(spawns) {
            None => (part * per, self.scale.cells_per_hunt, true),
            Some(part) => (part * per, self.scale.players_per_hunt, false),
        };
        let deeds = (first..end.min(first + per)).map(|i| match is_spawn {
            true => self.spawn(hunt, i),
            false => Deed {
                kind: EventKind::WalletCredit,
                player: player_id(hunt, i),
                subject: 0,
                argument: 1_000,
            },
        });
        let deeds: Vec<Deed> = deeds.collect();
        self.datagram(hunt, &deeds, out);
    }

    /// Writes a datagram of an ordinary moment.
    pub fn ordinary(&mut self, out: &mut Vec<u8>) {
        let hunt = self.below(self.scale.hunts());
        let deeds: [Deed; EVENTS as usize] = std::array::from_fn(|_| self.deed(hunt));
        self.datagram(hunt, &deeds, out);
    }

    fn spawn(&self, hunt: u32, cell: u32) -> Deed {
        // Every other item is of type 0, which is also what chests want.
        let (kind, item, remaining) = match cell % 5 {
            0..3 => (
                HotspotKind::Item,
                if cell.is_multiple_of(2) { 0 } else { (cell % 8) as u8 },
                u16::MAX,
            ),
            3 => (HotspotKind::Chest, 0, u16::MAX),
            _ => (HotspotKind::Ticket, 0, 1),
        };
        let reward = 1 + cell % 1_000;
        let hotspot = Hotspot { kind, item, remaining, reward, lifetime_s: 0 };
        let argument = hotspot.pack().expect("fields are in range");
        Deed { kind: EventKind::HotspotSpawn, player: 0, subject: cell_id(hunt, cell), argument }
    }

    /// A cell of the hunt whose number is `rest` modulo 5.
    fn cell_of(&mut self, rest: u32) -> u32 {
        self.below(self.scale.cells_per_hunt / 5) * 5 + rest
    }

    fn deed(&mut self, hunt: u32) -> Deed {
        let player = self.below(self.scale.players_per_hunt);
        let on = |kind, player, cell| Deed {
            kind,
            player: player_id(hunt, player),
            subject: cell_id(hunt, cell),
            argument: 0,
        };
        let tickets = self.scale.cells_per_hunt / 5;
        match self.below(100) {
            0..60 => {
                let rest = self.below(3);
                let cell = self.cell_of(rest);
                if cell.is_multiple_of(2) {
                    let place = self.below(COLLECTORS as u32) as usize;
                    self.hunts[hunt as usize].collectors[place] = player;
                }
                on(EventKind::CollectItem, player, cell)
            }
            60..72 => {
                let place = self.below(COLLECTORS as u32) as usize;
                let player = self.hunts[hunt as usize].collectors[place];
                let cell = self.cell_of(3);
                on(EventKind::UseKey, player, cell)
            }
            72..78 => {
                let claims = &mut self.hunts[hunt as usize].claims;
                *claims = (*claims + 1) % tickets;
                let cell = scatter(*claims, tickets) * 5 + 4;
                on(EventKind::Claim, player, cell)
            }
            78..84 => {
                let respawns = &mut self.hunts[hunt as usize].respawns;
                *respawns = (*respawns + 1) % tickets;
                let cell = scatter(*respawns, tickets) * 5 + 4;
                self.spawn(hunt, cell)
            }
            84..94 => Deed { argument: 10, ..on(EventKind::WalletCredit, player, 0) },
            _ => Deed { argument: 7, ..on(EventKind::WalletSpend, player, 0) },
        }
    }

    fn datagram(&mut self, hunt: u32, deeds: &[Deed], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + HEADER_BYTES + deeds.len() * EVENT_FIXED_BYTES, 0);
        self.sequence += 1;
        let header = Header {
            mode: Mode::Durable as u8,
            count: deeds.len() as u16,
            session: mix(u64::from(hunt)),
            sequence: self.sequence,
            domain: self.domain(hunt),
            ..Header::new(Kind::Events)
        };
        header.write(&mut out[start..]);
        for (i, deed) in deeds.iter().enumerate() {
            let event = Event {
                key: self.key(),
                player: deed.player,
                subject: deed.subject,
                argument: deed.argument,
                kind: deed.kind.code(),
                reserved: 0,
                payload: &[],
            };
            event.write(&mut out[start + HEADER_BYTES + i * EVENT_FIXED_BYTES..]);
            self.events += 1;
        }
        wire::finish(&mut out[start..], crc_fast::crc32_iscsi);
    }

    /// A fresh UUIDv7, up to [`KEY_AGE_MS_MAX`] old.
    fn key(&mut self) -> [u8; 16] {
        let (a, b) = (self.random(), self.random());
        let age_ms = a % (KEY_AGE_MS_MAX + 1);
        let made_ms = log_time_ns(self.events) / 1_000_000 - age_ms;
        let mut key = [0; 16];
        key[..6].copy_from_slice(&made_ms.to_be_bytes()[2..]);
        key[6..8].copy_from_slice(&((a >> 52) as u16 | 0x7000).to_be_bytes());
        key[8..].copy_from_slice(&(b >> 2 | 1 << 63).to_be_bytes());
        key
    }
}

/// 60 bits, alike for no two cells of a hunt.
fn cell_id(hunt: u32, cell: u32) -> u64 {
    mix(u64::from(hunt) << 32 | u64::from(cell)) >> 4
}

fn player_id(hunt: u32, player: u32) -> u64 {
    mix(!(u64::from(hunt) << 32 | u64::from(player)))
}

/// Numbers below `of` in another order: neighbours lie far apart.
fn scatter(number: u32, of: u32) -> u32 {
    // A prime larger than any count of tickets shares no divisor with it.
    (u64::from(number) * 2_654_435_761 % u64::from(of)) as u32
}
