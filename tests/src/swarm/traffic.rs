//! What the swarm sends: a world of hotspots, and players that act on it such
//! that nearly every event is applied.
//!
//! Every byte of a datagram follows from the world, the seed, the datagram's
//! number and the milliseconds its keys are stamped with. So a retry is made
//! anew instead of kept, and an ack names its events by a number.
//!
//! | role of an event | by | so that it is applied |
//! |---|---|---|
//! | collect | any player, any item hotspot | hotspots hold 65,535 items each |
//! | open | the collector before it, a chest that wants the item | the collector has one, in the same datagram |
//! | credit | any player | always |
//! | spend | the player credited before it | no more than the credit |
//! | put | any player, a ticket's cell | sets the ticket anew |
//! | claim | any player, the ticket put before it | it was put in the same datagram |

use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, ITEM_TYPES};
use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::wire::{self, Header, Kind, Mode};

/// Events of a full datagram of 1,232 bytes.
pub const EVENTS_MAX: usize = 24;

/// Cells of a hunt repeat their kinds after so many: one chest, one ticket and
/// fourteen item hotspots in each 16, and a chest for every item in each 128.
const CELLS_PERIOD: u32 = 128;

/// Times a hotspot can be taken.
const REMAINING: u16 = u16::MAX;

/// Part of a full datagram an event plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Collect,
    Open,
    Credit,
    Spend,
    Put,
    Claim,
}

/// Full datagrams: 14 collect, 3 open, 4 credit, 1 spend, 1 put, 1 claim.
const FULL: [Role; EVENTS_MAX] = {
    use Role::{Claim, Collect, Credit, Open, Put, Spend};
    [
        Collect, Collect, Open, Collect, Collect, Open, Collect, Collect, Open, Credit, Credit,
        Spend, Put, Claim, Collect, Collect, Collect, Credit, Collect, Collect, Collect, Collect,
        Collect, Credit,
    ]
};

/// Datagrams of one event repeat their roles after so many: a ticket put, its
/// claim half a period later, every fourth a credit, the rest collects.
const SINGLE_PERIOD: u64 = 32;

/// A world and who plays in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// Hunts, each a consistency domain.
    pub hunts: u32,
    /// Cells with a hotspot in each hunt: a multiple of 128.
    pub cells: u32,
    /// Players of each hunt.
    pub players: u32,
    /// Makes all keys of a run different from those of another.
    pub seed: u64,
}

/// One datagram of players of one hunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Play {
    /// Their hunt.
    pub hunt: u32,
    /// 1 to [`EVENTS_MAX`].
    pub events: u8,
    /// Whether the last of its events makes no sense.
    pub malformed: bool,
}

impl Play {
    /// Bytes of the datagram.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        HEADER_BYTES + self.events as usize * EVENT_FIXED_BYTES
    }
}

/// Which datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Puts every hotspot of the world, in as few datagrams as hold them.
    Found,
    /// Players at work, so many events a datagram.
    Play {
        /// 1 to [`EVENTS_MAX`].
        events: u8,
    },
}

impl Traffic {
    /// Events of each datagram.
    #[must_use]
    pub const fn events(self) -> usize {
        match self {
            Self::Found => EVENTS_MAX,
            Self::Play { events } => events as usize,
        }
    }

    /// Bytes of each datagram.
    #[must_use]
    pub const fn bytes(self) -> usize {
        HEADER_BYTES + self.events() * EVENT_FIXED_BYTES
    }
}

/// What the header of a datagram needs besides its events.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// Session it is sent from.
    pub session: u64,
    /// Its number at the wire.
    pub sequence: u64,
    /// Ack mode asked for.
    pub mode: Mode,
    /// Stamp of its keys, milliseconds since the Unix epoch.
    pub key_ms: u64,
}

impl World {
    /// Datagrams that [`Traffic::Found`] takes.
    #[must_use]
    pub fn found_datagrams(&self) -> u64 {
        u64::from(self.hunts) * u64::from(self.cells.div_ceil(EVENTS_MAX as u32))
    }

    /// Domain key of a hunt.
    #[must_use]
    pub const fn domain(&self, hunt: u32) -> u64 {
        1 + hunt as u64
    }

    /// Id of a cell: spread over the 60 bits.
    const fn cell_id(cell: u32) -> u64 {
        (cell as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 4
    }

    fn player_id(&self, hunt: u32, bits: u32) -> u64 {
        let index = (u64::from(bits) * u64::from(self.players)) >> 32;
        1 + u64::from(hunt) * u64::from(self.players) + index
    }

    /// The hotspot that stands on a cell when the world is founded.
    fn hotspot(cell: u32) -> u64 {
        let (kind, item, remaining) = match cell % 16 {
            0 => (HotspotKind::Chest, item_of_chest(cell), REMAINING),
            1 => (HotspotKind::Ticket, 0, 1),
            _ => (HotspotKind::Item, item_of(cell), REMAINING),
        };
        let hotspot = Hotspot { kind, item, remaining, reward: 10, lifetime_s: 0 };
        hotspot.pack().expect("every field is in its range")
    }

    /// Writes datagram `number` of `traffic` at the start of `out`, its CRC
    /// included; gives its bytes.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`Traffic::bytes`].
    #[inline]
    pub fn write(
        &self,
        traffic: Traffic,
        number: u64,
        envelope: &Envelope,
        out: &mut [u8],
    ) -> usize {
        let out = &mut out[..traffic.bytes()];
        let hunt = match traffic {
            Traffic::Found => (number / u64::from(self.found_each())) as u32,
            Traffic::Play { events: 1 } => self.single_hunt(number),
            Traffic::Play { .. } => below(mix(self.seed ^ number), self.hunts),
        };
        let header = Header {
            mode: envelope.mode as u8,
            count: traffic.events() as u16,
            session: envelope.session,
            sequence: envelope.sequence,
            domain: self.domain(hunt),
            ..Header::new(Kind::Events)
        };
        header.write(out);
        let mut writer = Writer {
            world: self,
            hunt,
            key_ms: envelope.key_ms,
            unique: number.wrapping_mul(EVENTS_MAX as u64),
            player: 0,
            cell: 0,
            // Keys of the founding and of play differ in one bit of their source.
            source: (self.seed as u16 & 0x1ff) << 1 | u16::from(traffic == Traffic::Found),
        };
        let (events, _) = out[HEADER_BYTES..].as_chunks_mut::<EVENT_FIXED_BYTES>();
        match traffic {
            Traffic::Found => {
                let first = (number % u64::from(self.found_each())) as u32 * EVENTS_MAX as u32;
                for (i, event) in (0u32..).zip(events) {
                    writer.found(event, (first + i) % self.cells);
                }
            }
            Traffic::Play { events: 1 } => writer.single(&mut events[0], number),
            Traffic::Play { .. } => {
                for (role, event) in FULL.iter().zip(events) {
                    writer.play(event, *role);
                }
            }
        }
        wire::finish(out, crc_fast::crc32_iscsi);
        out.len()
    }

    /// Writes datagram `number` of players of one hunt at the start of `out`, its
    /// CRC included. The parts of its events begin at any that wants none before it.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`Play::bytes`].
    pub fn write_play(&self, play: &Play, number: u64, envelope: &Envelope, out: &mut [u8]) {
        let out = &mut out[..play.bytes()];
        let header = Header {
            mode: envelope.mode as u8,
            count: play.events.into(),
            session: envelope.session,
            sequence: envelope.sequence,
            domain: self.domain(play.hunt),
            ..Header::new(Kind::Events)
        };
        header.write(out);
        let mut writer = Writer {
            world: self,
            hunt: play.hunt,
            key_ms: envelope.key_ms,
            unique: number.wrapping_mul(EVENTS_MAX as u64),
            player: 0,
            cell: 0,
            source: (self.seed as u16 & 0x1ff) << 1,
        };
        let mut first = below(mix(number), EVENTS_MAX as u32) as usize;
        while matches!(FULL[first], Role::Open | Role::Spend | Role::Claim) {
            first -= 1;
        }
        let (events, _) = out[HEADER_BYTES..].as_chunks_mut::<EVENT_FIXED_BYTES>();
        for (role, event) in FULL.iter().cycle().skip(first).zip(&mut *events) {
            writer.play(event, *role);
        }
        if play.malformed
            && let Some(last) = events.last_mut()
        {
            last[40..42].fill(0);
        }
        wire::finish(out, crc_fast::crc32_iscsi);
    }

    /// A cell of any hunt, and a player of `hunt`, by 64 random bits.
    #[must_use]
    pub fn somebody(&self, hunt: u32, bits: u64) -> (u64, u64) {
        (Self::cell_id(below(bits << 32, self.cells)), self.player_id(hunt, (bits >> 32) as u32))
    }

    /// Key of event `index` of a datagram, as [`Self::write`] makes it.
    #[must_use]
    pub fn key(&self, traffic: Traffic, number: u64, key_ms: u64, index: usize) -> [u8; 16] {
        let mut datagram = [0; HEADER_BYTES + EVENTS_MAX * EVENT_FIXED_BYTES];
        let envelope = Envelope { session: 0, sequence: 0, mode: Mode::None, key_ms };
        let bytes = self.write(traffic, number, &envelope, &mut datagram);
        let at = HEADER_BYTES + index * EVENT_FIXED_BYTES;
        assert!(at + 16 <= bytes, "the datagram has no event {index}");
        *datagram[at..].first_chunk().expect("the length was checked")
    }

    fn found_each(&self) -> u32 {
        self.cells.div_ceil(EVENTS_MAX as u32)
    }

    /// A ticket's put and its claim are of one hunt.
    fn single_hunt(&self, number: u64) -> u32 {
        let of = if number.is_multiple_of(SINGLE_PERIOD / 2) {
            !(number / SINGLE_PERIOD)
        } else {
            number
        };
        below(mix(self.seed ^ of), self.hunts)
    }
}

const fn item_of(cell: u32) -> u8 {
    (cell % ITEM_TYPES as u32) as u8
}

const fn item_of_chest(chest: u32) -> u8 {
    (chest / 16 % ITEM_TYPES as u32) as u8
}

/// The finalizer of splitmix64: a permutation.
#[inline(always)]
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number below `bound` from the upper half of `bits`.
#[inline(always)]
const fn below(bits: u64, bound: u32) -> u32 {
    (((bits >> 32) * bound as u64) >> 32) as u32
}

/// Writes the events of one datagram, in order.
struct Writer<'a> {
    world: &'a World,
    hunt: u32,
    key_ms: u64,
    /// Number of the next event, of all events of its kind of traffic.
    unique: u64,
    /// Of the event before.
    player: u64,
    cell: u32,
    source: u16,
}

impl Writer<'_> {
    /// Writes one event; `choose` gets 64 random bits and says kind, subject
    /// and argument.
    #[inline(always)]
    fn event(
        &mut self,
        out: &mut [u8; EVENT_FIXED_BYTES],
        choose: impl FnOnce(&mut Self, u64) -> (EventKind, u64, u64),
    ) {
        // A permutation of the number: no two are alike, and random enough to
        // choose by.
        let bits = mix(self.unique ^ self.world.seed);
        self.unique += 1;
        let (kind, subject, argument) = choose(self, bits);
        // A UUIDv7: 48 bits of time, version, then 12 and 62 bits. The two of
        // `bits` that the last part has no room for go to the one before.
        let high = self.key_ms << 16 | 0x7000 | u64::from(self.source) << 2 | bits >> 62;
        let low = 1 << 63 | bits & (u64::MAX >> 2);
        out[0..8].copy_from_slice(&high.to_be_bytes());
        out[8..16].copy_from_slice(&low.to_be_bytes());
        out[16..24].copy_from_slice(&self.player.to_le_bytes());
        out[24..32].copy_from_slice(&subject.to_le_bytes());
        out[32..40].copy_from_slice(&argument.to_le_bytes());
        out[40..48].copy_from_slice(&u64::from(kind.code()).to_le_bytes());
    }

    fn found(&mut self, out: &mut [u8; EVENT_FIXED_BYTES], cell: u32) {
        self.player = 1;
        self.event(out, |_, _| {
            (EventKind::HotspotSpawn, World::cell_id(cell), World::hotspot(cell))
        });
    }

    #[inline(always)]
    fn play(&mut self, out: &mut [u8; EVENT_FIXED_BYTES], role: Role) {
        let (world, hunt) = (self.world, self.hunt);
        self.event(out, |this, bits| {
            if !matches!(role, Role::Open | Role::Spend) {
                this.player = world.player_id(hunt, bits as u32);
            }
            match role {
                Role::Collect => {
                    // Sixteen cells, fourteen of which hold items.
                    let block = below(bits, world.cells / 16);
                    this.cell = block * 16 + 2 + (((bits >> 8 & 0xff) * 14) >> 8) as u32;
                    (EventKind::CollectItem, World::cell_id(this.cell), 0)
                }
                Role::Open => {
                    let block = below(bits, world.cells / CELLS_PERIOD);
                    let chest = block * CELLS_PERIOD + u32::from(item_of(this.cell)) * 16;
                    (EventKind::UseKey, World::cell_id(chest), 0)
                }
                Role::Credit => (EventKind::WalletCredit, 0, 100),
                Role::Spend => (EventKind::WalletSpend, 0, 50),
                Role::Put => {
                    this.cell = below(bits, world.cells / 16) * 16 + 1;
                    let ticket = World::hotspot(this.cell);
                    (EventKind::HotspotSpawn, World::cell_id(this.cell), ticket)
                }
                Role::Claim => (EventKind::Claim, World::cell_id(this.cell), 0),
            }
        });
    }

    fn single(&mut self, out: &mut [u8; EVENT_FIXED_BYTES], number: u64) {
        let role = match number % SINGLE_PERIOD {
            0 => Role::Put,
            n if n == SINGLE_PERIOD / 2 => Role::Claim,
            n if n % 4 == 1 => Role::Credit,
            _ => Role::Collect,
        };
        if matches!(role, Role::Put | Role::Claim) {
            let (ticket, cells) = (number / SINGLE_PERIOD, self.world.cells);
            self.cell = below(mix(ticket), cells / 16) * 16 + 1;
        }
        match role {
            Role::Put => {
                self.player = 1;
                let cell = self.cell;
                self.event(out, |_, _| {
                    (EventKind::HotspotSpawn, World::cell_id(cell), World::hotspot(cell))
                });
            }
            role => self.play(out, role),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use veltrix_abi::wire::{Request, decode};

    const WORLD: World = World { hunts: 5, cells: 256, players: 40, seed: 77 };

    /// Key, player, kind, subject, argument.
    type Seen = ([u8; 16], u64, u16, u64, u64);

    /// Domain and events of a datagram, decoded as a server does.
    fn events(traffic: Traffic, number: u64) -> (u64, Vec<Seen>) {
        let mut out = [0; 2_048];
        let envelope =
            Envelope { session: 9, sequence: number + 3, mode: Mode::Durable, key_ms: 123_456 };
        let bytes = WORLD.write(traffic, number, &envelope, &mut out);
        let (header, request) = decode(&out[..bytes], crc_fast::crc32_iscsi).unwrap();
        assert_eq!((header.session, header.sequence), (9, number + 3));
        let Request::Events(Mode::Durable, events) = request else { panic!("{request:?}") };
        let of = |(index, event): (usize, wire::Event<'_>)| {
            assert!(event.is_well_formed(), "{event:?}");
            assert_eq!(event.key, WORLD.key(traffic, number, 123_456, index));
            assert_eq!(event.key[..6], 123_456u64.to_be_bytes()[2..]);
            (event.key, event.player, event.kind, event.subject, event.argument)
        };
        (header.domain, events.enumerate().map(of).collect())
    }

    #[test]
    fn no_key_repeats_and_a_datagram_can_be_made_again() {
        let mut keys = HashSet::new();
        let traffics = [Traffic::Found, Traffic::Play { events: 24 }, Traffic::Play { events: 1 }];
        for traffic in &traffics[..2] {
            for number in 0..WORLD.found_datagrams() {
                let made = events(*traffic, number);
                assert_eq!(made, events(*traffic, number));
                assert!(made.1.iter().all(|event| keys.insert(event.0)), "{traffic:?} {number}");
            }
        }
    }

    #[test]
    fn play_of_one_hunt_is_sound_from_wherever_it_begins() {
        let envelope = Envelope { session: 1, sequence: 2, mode: Mode::Durable, key_ms: 3 };
        let mut firsts = HashSet::new();
        for number in 0..2_000 {
            let events = 1 + (number % EVENTS_MAX as u64) as u8;
            let play = Play { hunt: 3, events, malformed: number % 7 == 0 };
            let mut out = vec![0; play.bytes()];
            WORLD.write_play(&play, number, &envelope, &mut out);
            let (header, request) = decode(&out, crc_fast::crc32_iscsi).unwrap();
            assert_eq!((header.domain, header.count), (WORLD.domain(3), events.into()));
            let Request::Events(Mode::Durable, list) = request else { panic!("{request:?}") };
            let kinds: Vec<u16> = list.map(|event| event.kind).collect();
            assert_eq!(
                kinds.iter().filter(|kind| **kind == 0).count(),
                usize::from(play.malformed)
            );
            assert_eq!(play.malformed, kinds[kinds.len() - 1] == 0);
            let wants_another = [EventKind::UseKey, EventKind::WalletSpend, EventKind::Claim];
            assert!(wants_another.iter().all(|kind| kind.code() != kinds[0]), "{kinds:?}");
            firsts.insert(kinds[0]);
        }
        assert!(firsts.len() >= 3, "collects, credits and puts begin datagrams: {firsts:?}");
    }

    #[test]
    fn every_cell_is_founded_once_a_hunt() {
        let mut cells = HashSet::new();
        for number in 0..WORLD.found_datagrams() {
            let (domain, events) = events(Traffic::Found, number);
            for (_, _, kind, cell, argument) in events {
                assert_eq!(kind, EventKind::HotspotSpawn.code());
                assert!(cell < 1 << 60 && Hotspot::unpack(argument).is_some());
                cells.insert((domain, cell));
            }
        }
        assert_eq!(cells.len(), (WORLD.hunts * WORLD.cells) as usize);
    }

    /// The kind of hotspot and item that the founding puts on a cell id.
    fn standing(cell: u64) -> Hotspot {
        let index = (0..WORLD.cells).find(|index| World::cell_id(*index) == cell).unwrap();
        Hotspot::unpack(World::hotspot(index)).unwrap()
    }

    #[test]
    fn full_datagrams_meet_what_they_need() {
        for number in 0..200 {
            let (_, events) = events(Traffic::Play { events: 24 }, number);
            for pair in events.windows(2) {
                let (before, (_, player, kind, subject, argument)) = (&pair[0], pair[1]);
                match EventKind::from_code(kind).unwrap() {
                    EventKind::CollectItem => {
                        assert_eq!(standing(subject).kind, HotspotKind::Item);
                    }
                    EventKind::UseKey => {
                        assert_eq!(before.2, EventKind::CollectItem.code());
                        assert_eq!(player, before.1);
                        let chest = standing(subject);
                        assert_eq!(chest.kind, HotspotKind::Chest);
                        assert_eq!(chest.item, standing(before.3).item);
                    }
                    EventKind::Claim => assert_eq!((before.2, before.3), (1, subject)),
                    EventKind::HotspotSpawn => {
                        let ticket = Hotspot::unpack(argument).unwrap();
                        assert_eq!(ticket.kind, HotspotKind::Ticket);
                    }
                    EventKind::WalletSpend => {
                        assert_eq!((before.1, before.2), (player, 5));
                        assert!(argument <= before.4);
                    }
                    EventKind::WalletCredit => assert!(argument > 0),
                    _ => panic!("the swarm asks for no {kind}"),
                }
            }
        }
    }

    #[test]
    fn single_claims_follow_their_ticket() {
        for ticket in 0..50 {
            let put = events(Traffic::Play { events: 1 }, ticket * SINGLE_PERIOD);
            let claim =
                events(Traffic::Play { events: 1 }, ticket * SINGLE_PERIOD + SINGLE_PERIOD / 2);
            assert_eq!((put.0, put.1[0].3), (claim.0, claim.1[0].3));
            assert_eq!((put.1[0].2, claim.1[0].2), (1, 4));
        }
    }
}
