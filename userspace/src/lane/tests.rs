//! The lane's behaviour over a port that is a queue of byte vectors.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use veltrix_abi::frame::check_payload;
use veltrix_abi::limits::{ACK_ENTRY_FIXED_BYTES, PAYLOAD_BYTES_MAX_DEFAULT};
use veltrix_abi::wire::{Reply, decode_reply};

use super::*;
use datagrams::{datagram, event_bodies, events, events_with_bad, header, hello, ping};

#[path = "../../tests/support/datagrams.rs"]
#[allow(dead_code, reason = "the integration tests use the rest")]
pub(super) mod datagrams;

/// What a lane never gives a name to: the sender of a datagram.
pub(super) type Flow = u32;

pub(super) struct FakePacket {
    buffer: Vec<u8>,
    bytes: usize,
    flow: Flow,
}

#[derive(Default)]
pub(super) struct FakePort {
    pub(super) incoming: VecDeque<(Flow, Vec<u8>)>,
    /// Frames of the batch under way not yet taken.
    left: usize,
    /// Comes again and again.
    flood: Option<Vec<u8>>,
    pub(super) sent: Vec<(Flow, Vec<u8>)>,
    /// Packets in the lane's hands.
    pub(super) alive: usize,
    /// Replies taken before the next flush; the others find TX full.
    tx_room: usize,
    queued: usize,
    /// Replies that went before the turn was over.
    pub(super) early: usize,
    counters: Arc<LaneCounters>,
}

impl Port for FakePort {
    type Packet = FakePacket;
    type Path = Flow;

    fn path(&self, packet: &FakePacket) -> Flow {
        packet.flow
    }

    fn is_on_path(&self, path: &Flow, packet: &FakePacket) -> bool {
        *path == packet.flow
    }

    fn reply_on(&mut self, path: &Flow) -> Option<FakePacket> {
        self.alive += 1;
        let buffer = vec![0xee; PAYLOAD_BYTES_MAX_DEFAULT];
        Some(FakePacket { buffer, bytes: 0, flow: *path })
    }

    fn receive(&mut self, max: usize) -> usize {
        self.incoming.extend(self.flood.clone().map(|request| (1, request)));
        self.left = max.min(self.incoming.len());
        self.left
    }

    fn take(&mut self) -> Option<Result<FakePacket, Exit>> {
        self.left = self.left.checked_sub(1)?;
        let (flow, mut buffer) = self.incoming.pop_front()?;
        let bytes = buffer.len();
        let magic = || buffer.first_chunk().copied();
        if let Err(exit) = check_payload(bytes, PAYLOAD_BYTES_MAX_DEFAULT, magic) {
            return Some(Err(exit));
        }
        buffer.resize(PAYLOAD_BYTES_MAX_DEFAULT, 0xee);
        self.alive += 1;
        Some(Ok(FakePacket { buffer, bytes, flow }))
    }

    fn payload<'a>(&'a self, packet: &'a FakePacket) -> &'a [u8] {
        &packet.buffer[..packet.bytes]
    }

    fn buffer<'a>(&'a mut self, packet: &'a mut FakePacket) -> &'a mut [u8] {
        &mut packet.buffer
    }

    fn for_reply(&mut self, packet: FakePacket) -> FakePacket {
        packet
    }

    fn flow_hash(&self, packet: &FakePacket) -> u32 {
        packet.flow
    }

    fn is_same_flow(&self, a: &FakePacket, b: &FakePacket) -> bool {
        a.flow == b.flow
    }

    fn send(&mut self, mut packet: FakePacket, payload_bytes: usize) {
        self.alive -= 1;
        if self.queued == self.tx_room {
            self.counters.replies.dropped_tx_full.add(1);
            return;
        }
        self.queued += 1;
        self.counters.replies.sent.add(1);
        packet.buffer.truncate(payload_bytes);
        self.sent.push((packet.flow, packet.buffer));
    }

    fn recycle(&mut self, _: FakePacket) {
        self.alive -= 1;
    }

    fn send_now(&mut self) {
        self.early += std::mem::take(&mut self.queued);
    }

    fn flush(&mut self) {
        self.queued = 0;
    }

    fn waiting(&self) -> usize {
        self.incoming.len()
    }

    fn wait(&mut self, _: Duration, _: Option<std::os::fd::BorrowedFd<'_>>) {}
}

pub(super) const FACTS: ServerFacts = ServerFacts {
    partitions: 64,
    lanes: 3,
    port: 4747,
    payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT as u16,
};

fn lane_with(admission: Admission, batch: usize) -> Lane<FakePort> {
    let counters = Arc::new(LaneCounters::default());
    let port =
        FakePort { tx_room: usize::MAX, counters: Arc::clone(&counters), ..FakePort::default() };
    Lane::new(port, FACTS, admission, batch, counters)
}

pub(super) fn lane() -> Lane<FakePort> {
    lane_with(Admission::new(Duration::from_secs(3_600)), 64)
}

fn owed(counters: &LaneCounters) -> u64 {
    let owing = Exit::ALL.iter().filter(|e| e.action() == Action::Reply);
    owing.map(|e| counters.exits(*e)).sum()
}

impl Lane<FakePort> {
    /// Serves all of `requests`; gives what was sent for them.
    fn serve_all(
        &mut self,
        requests: impl IntoIterator<Item = (Flow, Vec<u8>)>,
    ) -> Vec<(Flow, Vec<u8>)> {
        self.port.incoming.extend(requests);
        while self.turn() > 0 {
            self.assert_closed();
        }
        self.assert_closed();
        std::mem::take(&mut self.port.sent)
    }

    fn serve_one(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let mut sent = self.serve_all([(1, request.to_vec())]);
        assert!(sent.len() <= 1, "one request, {} replies", sent.len());
        sent.pop().map(|(_, reply)| reply)
    }

    /// Every frame left by one exit, every reply owed met one fate, no packet
    /// outlived its turn.
    fn assert_closed(&self) {
        let c = &self.counters;
        assert_eq!(c.frames.get(), c.exits_sum());
        let r = &c.replies;
        let fates = r.sent.get() + r.coalesced.get() + r.dropped_tx_full.get() + r.withheld.get();
        assert_eq!(fates, owed(c));
        let outcomes: u64 = Outcome::ALL.iter().map(|o| c.outcomes(*o)).sum();
        assert_eq!(outcomes, c.events.get());
        assert_eq!(self.port.alive, 0);
    }
}

fn read(reply: &[u8]) -> (Header, Reply<'_>) {
    decode_reply(reply, crc_fast::crc32_iscsi).expect("a lane's reply is one a client can read")
}

/// Sequences and outcomes of every ack entry in `replies`, which hold nothing
/// else.
fn acked(replies: &[(Flow, Vec<u8>)]) -> BTreeMap<u64, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (_, reply) in replies {
        let (_, Reply::Ack(entries)) = read(reply) else { panic!("not an ack") };
        for entry in entries {
            assert_eq!((entry.mode, entry.epoch), (Mode::None, 0));
            let before = all.insert(entry.sequence, entry.outcomes.to_vec());
            assert!(before.is_none(), "sequence {} answered twice", entry.sequence);
        }
    }
    all
}

#[test]
fn a_ping_is_echoed() {
    let mut lane = lane();
    let before = unix_ns();
    let request = datagram(
        &Header { domain: 77, ..header(Kind::Ping, 9, 3) },
        &[[5; 8], [0; 8], [0; 8]].concat(),
    );
    let reply = lane.serve_one(&request).unwrap();
    let (header, Reply::Pong(pong)) = read(&reply) else { panic!("not a pong") };
    assert_eq!((header.session, header.sequence, header.domain), (9, 3, 77));
    assert_eq!((header.count, header.mode, header.cookie), (0, 0, 0));
    assert_eq!(pong.client_sent_ns, u64::from_le_bytes([5; 8]));
    assert!(before <= pong.server_received_ns && pong.server_received_ns <= pong.server_sent_ns);
    assert_eq!(reply.len(), request.len());
    assert_eq!(lane.counters.exits(Exit::Ping), 1);
    assert_eq!(lane.counters.payload_bytes.get(), 72);
}

#[test]
fn a_hello_is_answered_with_the_servers_facts() {
    let mut lane = lane();
    let before = unix_ns();
    let request = hello(9, 4);
    let reply = lane.serve_one(&request).unwrap();
    let (header, Reply::Welcome(welcome)) = read(&reply) else { panic!("not a welcome") };
    assert_eq!((header.session, header.sequence), (9, 4));
    assert!(welcome.log_time_ns >= before);
    let wanted = Welcome {
        log_time_ns: welcome.log_time_ns,
        epoch: 0,
        partitions: 64,
        lanes: 3,
        port_first: 4747,
        port_last: 4747,
        modes: Welcome::mode_bit(Mode::None),
        version_min: VERSION,
        version_max: VERSION,
        role: 1,
        payload_bytes_max: 1_232,
        events_max: 24,
        cookie: 0,
        cluster_id: 0,
        features: 0,
    };
    assert_eq!(welcome, wanted);
    assert_eq!(reply.len(), request.len());
    assert_eq!(lane.counters.exits(Exit::Hello), 1);
}

#[test]
fn events_are_acknowledged_one_by_one() {
    let mut lane = lane();
    let request = events_with_bad(9, 5, Mode::None, 24, |i| i % 5 == 0);
    let reply = lane.serve_one(&request).unwrap();
    let (header, Reply::Ack(mut entries)) = read(&reply) else { panic!("not an ack") };
    assert_eq!((header.session, header.sequence, header.count), (9, 5, 1));
    let entry = entries.next().unwrap();
    assert_eq!((entry.sequence, entry.mode, entry.epoch), (5, Mode::None, 0));
    let wanted: Vec<u8> = (0..24)
        .map(|i| if i % 5 == 0 { Outcome::Malformed } else { Outcome::Accepted }.code())
        .collect();
    assert_eq!(entry.outcomes, wanted);
    let c = &lane.counters;
    assert_eq!((c.exits(Exit::Accepted), c.events.get()), (1, 24));
    assert_eq!((c.outcomes(Outcome::Malformed), c.outcomes(Outcome::Accepted)), (5, 19));
}

/// Requests that a lane refuses, the exit each leaves by and the reason it is
/// told; `None` where the reply would be larger than the request.
fn refused_requests() -> Vec<(Vec<u8>, Exit, Option<Refusal>)> {
    let of = |kind| header(kind, 1, 2);
    let version = |version, body: &[u8]| datagram(&Header { version, ..of(Kind::Ping) }, body);
    let kind = |kind, body: &[u8]| datagram(&Header { kind, ..of(Kind::Ping) }, body);
    let ping_with = |header: Header| datagram(&header, &[0; 24]);
    let events_with =
        |mode, count, body: &[u8]| datagram(&Header { mode, count, ..of(Kind::Events) }, body);
    let one = event_bodies(1, |_| false);
    let mut padded = one.clone();
    padded[42] = 3;
    padded.extend([1, 2, 3, 0, 0, 0, 0, 4]);
    vec![
        (version(0, &[0; 24]), Exit::Version, Some(Refusal::Version)),
        (version(2, &[0; 24]), Exit::Version, Some(Refusal::Version)),
        (version(255, &[0; 8]), Exit::Version, Some(Refusal::Version)),
        (version(2, &[0; 7]), Exit::Version, None),
        (version(2, &[]), Exit::Version, None),
        (kind(0, &[0; 24]), Exit::Kind, Some(Refusal::Kind)),
        (kind(11, &[0; 24]), Exit::Kind, Some(Refusal::Kind)),
        (kind(255, &[]), Exit::Kind, None),
        (ping_with(Header { flags: 2, ..of(Kind::Ping) }), Exit::Reserved, Some(Refusal::Reserved)),
        (
            ping_with(Header { reserved: 1, ..of(Kind::Ping) }),
            Exit::Reserved,
            Some(Refusal::Reserved),
        ),
        (ping_with(Header { mode: 1, ..of(Kind::Ping) }), Exit::Reserved, Some(Refusal::Reserved)),
        (ping_with(Header { count: 1, ..of(Kind::Ping) }), Exit::Reserved, Some(Refusal::Reserved)),
        (datagram(&of(Kind::Ping), &[0; 16]), Exit::Malformed, Some(Refusal::Malformed)),
        (datagram(&of(Kind::Ping), &[0; 32]), Exit::Malformed, Some(Refusal::Malformed)),
        (datagram(&of(Kind::Ping), &[]), Exit::Malformed, None),
        (datagram(&of(Kind::Hello), &[0; 56]), Exit::Malformed, Some(Refusal::Malformed)),
        (datagram(&of(Kind::Hello), &[0; 72]), Exit::Malformed, Some(Refusal::Malformed)),
        (datagram(&of(Kind::Hello), &[]), Exit::Malformed, None),
        (events_with(1, 0, &one), Exit::Malformed, Some(Refusal::Malformed)),
        (events_with(1, 0, &[]), Exit::Malformed, None),
        (events_with(1, 2, &one), Exit::Malformed, Some(Refusal::Malformed)),
        (
            events_with(1, 1, &[&one[..], &[0; 8]].concat()),
            Exit::Malformed,
            Some(Refusal::Malformed),
        ),
        (events_with(1, 1, &one[..40]), Exit::Malformed, Some(Refusal::Malformed)),
        (events_with(1, 1, &padded), Exit::Malformed, Some(Refusal::Malformed)),
        (events_with(0, 1, &one), Exit::Mode, Some(Refusal::Mode)),
        (events_with(3, 1, &one), Exit::Mode, Some(Refusal::Mode)),
        (events_with(2, 1, &one), Exit::DurableUnavailable, Some(Refusal::DurableUnavailable)),
        (
            datagram(&Header { count: 1, ..of(Kind::Query) }, &[0; 48]),
            Exit::QueryUnavailable,
            Some(Refusal::QueryUnavailable),
        ),
        (datagram(&of(Kind::Query), &[0; 48]), Exit::Malformed, Some(Refusal::Malformed)),
        (datagram(&of(Kind::Query), &[]), Exit::Malformed, None),
        (sealed(&[0; 24]), Exit::Sealed, Some(Refusal::Sealed)),
        (sealed(&[]), Exit::Sealed, Some(Refusal::Sealed)),
    ]
}

/// A ping with the sealed flag; its CRC does not cover the tag.
fn sealed(body: &[u8]) -> Vec<u8> {
    let header = Header { flags: wire::FLAG_SEALED, ..header(Kind::Ping, 1, 2) };
    let mut out = datagram(&header, body);
    out.extend([0xab; 16]);
    out
}

#[test]
fn refusals_say_why() {
    for (request, exit, reason) in refused_requests() {
        let mut lane = lane();
        let reply = lane.serve_one(&request);
        assert_eq!(lane.counters.exits(exit), 1, "{exit:?}");
        assert_eq!(lane.counters.replies.withheld.get(), u64::from(reason.is_none()), "{exit:?}");
        let told = reply.as_deref().map(|reply| {
            let (header, Reply::Refused { reason, version_min, version_max }) = read(reply) else {
                panic!("{exit:?} was not answered with a refusal")
            };
            assert_eq!((header.session, header.sequence), (1, 2));
            assert_eq!((version_min, version_max), (VERSION, VERSION));
            assert!(reply.len() <= request.len());
            reason
        });
        assert_eq!(told, reason.map(Refusal::code), "{exit:?}");
    }
}

#[test]
fn every_refusal_was_refused() {
    let refused = refused_requests();
    for reason in Refusal::ALL {
        assert!(refused.iter().any(|(_, _, r)| *r == Some(*reason)), "{reason:?}");
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    let mut silent = vec![(datagrams::damaged(ping(1, 2, 3)), Exit::Checksum)];
    for kind in [Kind::Ack, Kind::Pong, Kind::Answer, Kind::Welcome, Kind::Busy, Kind::Refused] {
        for header in [
            header(kind, 1, 2),
            Header { count: 3, ..header(kind, 1, 2) },
            Header { mode: 1, ..header(kind, 1, 2) },
        ] {
            silent.push((datagram(&header, &[0; 200]), Exit::ReplyKind));
        }
    }
    silent.push((vec![], Exit::DropEmpty));
    silent.push((ping(1, 2, 3)[..47].to_vec(), Exit::DropHeaderShort));
    silent.push((vec![0; 72], Exit::DropMagic));
    silent.push((datagram(&header(Kind::Query, 1, 2), &[0; 1_185]), Exit::DropTooLarge));
    // The tag of a sealed datagram does not fit.
    let flagged = Header { flags: wire::FLAG_SEALED, ..header(Kind::Ping, 1, 2) };
    silent.push((datagram(&flagged, &[0; 15]), Exit::Checksum));
    for (request, exit) in silent {
        let mut lane = lane();
        assert_eq!(lane.serve_one(&request), None, "{exit:?}");
        assert_eq!(lane.counters.exits(exit), 1, "{exit:?}");
        assert_eq!(owed(&lane.counters), 0, "{exit:?}");
    }
}

/// A lane's replies, sent to a lane, end there: two servers never talk.
#[test]
fn replies_are_not_answered() {
    let mut lane = lane();
    let mut requests = vec![ping(1, 1, 0), hello(1, 2), events(1, 3, Mode::None, 3)];
    requests.extend(refused_requests().into_iter().map(|(request, ..)| request));
    let replies = lane.serve_all(requests.into_iter().map(|r| (1, r)));
    assert!(replies.len() > 20);
    let count = replies.len() as u64;
    assert_eq!(lane.serve_all(replies), []);
    assert_eq!(lane.counters.exits(Exit::ReplyKind), count);
}

#[test]
fn acks_of_one_sender_share_a_datagram() {
    let mut lane = lane();
    let replies = lane.serve_all((0..6).map(|i| (1, events(7, i, Mode::None, 1 + i as u16))));
    assert_eq!(replies.len(), 1);
    let (header, _) = read(&replies[0].1);
    assert_eq!((header.session, header.count), (7, 6));
    let acked = acked(&replies);
    assert!((0..6).all(|i| acked[&i].len() == 1 + i as usize));
    assert_eq!(lane.counters.replies.coalesced.get(), 5);
    assert_eq!(lane.counters.replies.sent.get(), 1);
}

#[test]
fn other_senders_sessions_and_turns_have_acks_of_their_own() {
    let mut lane = lane();
    // Flows and sessions 256 apart want the same slot.
    let requests = [(1, 7), (257, 7), (1, 263), (1, 7)]
        .into_iter()
        .enumerate()
        .map(|(i, (flow, session))| (flow, events(session, i as u64, Mode::None, 1)));
    let replies = lane.serve_all(requests);
    let who: Vec<_> = replies.iter().map(|(flow, r)| (*flow, read(r).0.session)).collect();
    assert_eq!(who, [(1, 7), (257, 7), (1, 263), (1, 7)]);
    assert_eq!(lane.counters.replies.coalesced.get(), 0);

    let first = lane.serve_all([(1, events(7, 10, Mode::None, 1))]);
    let second = lane.serve_all([(1, events(7, 11, Mode::None, 1))]);
    assert_eq!((first.len(), second.len()), (1, 1), "no ack waits for another turn");
}

#[test]
fn a_full_ack_closes() {
    let mut lane = lane();
    let entries_max = (PAYLOAD_BYTES_MAX_DEFAULT - HEADER_BYTES) / (ACK_ENTRY_FIXED_BYTES + 8);
    let requests = (0..=entries_max as u64).map(|i| (1, events(7, i, Mode::None, 8)));
    let replies = lane.serve_all(requests);
    let counts: Vec<_> = replies.iter().map(|(_, r)| usize::from(read(r).0.count)).collect();
    assert_eq!(counts, [entries_max, 1]);
    assert_eq!(acked(&replies).len(), entries_max + 1);
    assert!(replies.iter().all(|(_, r)| r.len() <= PAYLOAD_BYTES_MAX_DEFAULT));
}

#[test]
fn more_senders_than_open_acks_are_all_answered() {
    let mut lane = lane_with(Admission::new(Duration::from_secs(3_600)), 256);
    // Two rounds of 100 senders: sharing is lost where they collide.
    let requests = (0..200u32).map(|i| (i % 100, events(0, u64::from(i), Mode::None, 2)));
    let replies = lane.serve_all(requests);
    assert_eq!(acked(&replies).len(), 200);
    for (flow, reply) in &replies {
        let (_, Reply::Ack(entries)) = read(reply) else { panic!("not an ack") };
        assert!(entries.into_iter().all(|e| e.sequence % 100 == u64::from(*flow)));
    }
}

#[test]
fn an_overloaded_lane_answers_busy() {
    let mut lane = lane_with(Admission::new(Duration::from_nanos(1)), 64);
    assert_eq!(acked(&lane.serve_all([(1, events(7, 0, Mode::None, 3))])).len(), 1);
    let reply = lane.serve_one(&events_with_bad(7, 1, Mode::None, 3, |i| i == 0)).unwrap();
    let (header, Reply::Busy { retry_after_us }) = read(&reply) else { panic!("not busy") };
    assert_eq!((header.session, header.sequence), (7, 1));
    assert_eq!(retry_after_us, 1, "no shorter time can be named");
    let c = &lane.counters;
    assert_eq!((c.exits(Exit::Accepted), c.exits(Exit::Shed)), (1, 1));
    assert_eq!((c.outcomes(Outcome::Accepted), c.outcomes(Outcome::Overloaded)), (3, 3));

    // Probes and refusals are cheap and tell the truth about the wait.
    let others = [(1, ping(7, 2, 0)), (1, hello(7, 3)), (1, datagrams::newer_version(7, 4))];
    let replies = lane.serve_all(others);
    let kinds: Vec<_> = replies.iter().map(|(_, r)| read(r).0.kind).collect();
    assert_eq!(kinds, [Kind::Pong as u8, Kind::Welcome as u8, Kind::Refused as u8]);
}

#[test]
fn replies_that_find_no_room_are_counted() {
    let mut lane = lane();
    lane.port.tx_room = 3;
    let sent = lane.serve_all((0..10).map(|i| (1, ping(1, i, 0))));
    assert_eq!(sent.len(), 3);
    assert_eq!(lane.counters.replies.dropped_tx_full.get(), 7);
    assert_eq!(lane.counters.exits(Exit::Ping), 10, "an exit does not depend on the reply's fate");
}

#[test]
fn a_lane_told_to_stop_serves_what_it_was_sent() {
    let mut lane = lane();
    lane.port.incoming.extend((0..200).map(|i| (1, ping(1, i, 0))));
    lane.run(&AtomicBool::new(true));
    assert_eq!(lane.port.sent.len(), 200);
    lane.assert_closed();
}

#[test]
fn a_lane_told_to_stop_stops_in_a_flood() {
    let mut lane = lane();
    lane.port.flood = Some(ping(1, 1, 0));
    lane.port.tx_room = 0;
    lane.run(&AtomicBool::new(true));
    assert!(lane.counters.frames.get() > 0);
    lane.assert_closed();
}

/// Bytes with a right magic and CRC that are otherwise anything, most of them
/// nearly a request.
fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
    let header = (
        prop_oneof![8 => Just(VERSION), 1 => any::<u8>()],
        prop_oneof![4 => Just(Kind::Events as u8), 4 => 0u8..13, 1 => any::<u8>()],
        prop_oneof![4 => Just(1u8), 4 => Just(0), 1 => any::<u8>()],
        prop_oneof![12 => Just(0u8), 1 => Just(wire::FLAG_SEALED), 1 => any::<u8>()],
        prop_oneof![4 => Just(0u16), 1 => any::<u16>(), 4 => 1u16..25],
        prop_oneof![12 => Just(0u16), 1 => any::<u16>()],
        0u64..3,
        any::<u64>(),
    )
        .prop_map(|(version, kind, mode, flags, count, reserved, session, sequence)| Header {
            version,
            kind,
            mode,
            flags,
            count,
            reserved,
            session,
            sequence,
            domain: 3,
            cookie: 0,
        });
    (header, body(), any::<bool>()).prop_map(|(mut header, (events, body), is_right)| {
        if is_right && events > 0 {
            header.count = events;
        }
        datagram(&header, &body)
    })
}

/// A body and the events it holds.
fn body() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let bytes = |n| proptest::collection::vec(any::<u8>(), n);
    prop_oneof![
        4 => (1u16..25, any::<u32>())
            .prop_map(|(n, bad)| (n, event_bodies(n, |i| bad >> i & 1 == 1))),
        1 => Just((0, vec![])),
        1 => bytes(24..=24).prop_map(|b| (0, b)),
        1 => bytes(64..=64).prop_map(|b| (0, b)),
        1 => bytes(1..=16).prop_map(|b| (0, b)),
        1 => bytes(0..=1_184).prop_map(|b| (0, b)),
    ]
}

proptest! {
    #[test]
    fn no_reply_is_larger_than_its_request(request in nearly_a_request()) {
        let mut lane = lane();
        if let Some(reply) = lane.serve_one(&request) {
            prop_assert!(reply.len() <= request.len(), "{} for {}", reply.len(), request.len());
            prop_assert!(decode_reply(&reply, crc_fast::crc32_iscsi).is_ok());
        }
    }

    #[test]
    fn no_sender_gets_more_bytes_than_it_sent(
        requests in proptest::collection::vec((0u32..4, nearly_a_request()), 1..70),
        deadline_ns in prop_oneof![Just(1u64), Just(u64::MAX)],
        tx_room in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..8],
    ) {
        let mut lane = lane_with(Admission::new(Duration::from_nanos(deadline_ns)), 32);
        lane.port.tx_room = tx_room;
        let mut sent_bytes = BTreeMap::<Flow, usize>::new();
        for (flow, request) in &requests {
            *sent_bytes.entry(*flow).or_default() += request.len();
        }
        let frames = requests.len() as u64;
        let mut got_bytes = BTreeMap::<Flow, usize>::new();
        for (flow, reply) in lane.serve_all(requests) {
            prop_assert!(decode_reply(&reply, crc_fast::crc32_iscsi).is_ok());
            *got_bytes.entry(flow).or_default() += reply.len();
        }
        for (flow, bytes) in got_bytes {
            prop_assert!(bytes <= sent_bytes[&flow]);
        }
        prop_assert_eq!(lane.counters.frames.get(), frames);
    }

    #[test]
    fn any_bytes_leave_by_one_exit(
        requests in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..1_400)),
            1..20,
        ),
    ) {
        let mut lane = lane();
        let frames = requests.len() as u64;
        lane.serve_all(requests.into_iter().map(|(has_magic, mut bytes)| {
            if has_magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&wire::MAGIC);
            }
            (1, bytes)
        }));
        prop_assert_eq!(lane.counters.frames.get(), frames);
        prop_assert_eq!(lane.counters.exits_sum(), frames);
    }
}
