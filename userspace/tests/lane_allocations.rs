//! After start a lane asks nothing of the allocator: this binary counts every
//! call by thread, while a lane serves sockets on loopback and sleeps on them.

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use support::allocator::{Calls, Counting, calls};
use support::datagrams;
use veltrix::apply::{Partition, PartitionLimits};
use veltrix::base::counters::LaneCounters;
use veltrix::base::port::Port;
use veltrix::base::waker::Waker;
use veltrix::batch::Payload;
use veltrix::dedupe::{DedupeLimits, Secret};
use veltrix::index::IndexLimits;
use veltrix::lane::link::{ControlEnds, LaneCommand, LogFacts, link};
use veltrix::lane::reads::mesh;
use veltrix::lane::{Admission, Lane, LogHalfSpec, ServerFacts};
use veltrix::udp::{Listener, UdpPort};
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
use veltrix_abi::wire::Mode;
use veltrix_abi::{Action, Exit};

#[global_allocator]
static COUNTING: Counting = Counting;

const BATCH: usize = 64;

/// Calls since `before`.
fn since(before: Calls) -> Calls {
    let now = calls();
    Calls {
        allocations: now.allocations - before.allocations,
        deallocations: now.deallocations - before.deallocations,
    }
}

const NOTHING: Calls = Calls { allocations: 0, deallocations: 0 };

fn port() -> (UdpPort, Arc<LaneCounters>, SocketAddr) {
    let listener = Listener {
        interface: None,
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        receive_buffer_bytes: 4 << 20,
        send_buffer_bytes: 1 << 20,
    };
    let (mut sockets, address) = listener.open(1).unwrap();
    let counters = Arc::new(LaneCounters::default());
    let port =
        UdpPort::new(sockets.remove(0), PAYLOAD_BYTES_MAX_DEFAULT, BATCH, Arc::clone(&counters));
    (port, counters, address)
}

fn lane(
    port: UdpPort,
    address: SocketAddr,
    counters: &Arc<LaneCounters>,
    deadline: Duration,
) -> Lane<UdpPort> {
    let facts = ServerFacts {
        partitions: 64,
        lanes: 1,
        port: address.port(),
        payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT as u16,
    };
    Lane::new(port, facts, Admission::new(deadline), BATCH, Arc::clone(counters))
}

fn client(address: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(address).unwrap();
    client.set_nonblocking(true).unwrap();
    client
}

/// One of everything: events of every fill, probes, refusals and rubbish.
fn requests() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for i in 1..=24u16 {
        let n = u64::from(i);
        all.push(datagrams::events(n % 3, n, Mode::None, i));
        all.push(datagrams::events_with_bad(1, n, Mode::None, i, |i| i % 2 == 0));
        all.push(datagrams::ping(1, n, n));
        all.push(datagrams::events(1, n, Mode::Durable, i));
        all.push(datagrams::damaged(datagrams::events(1, n, Mode::None, i)));
    }
    all.push(datagrams::hello(1, 1));
    all.push(datagrams::newer_version(1, 2));
    let mut lying = datagrams::events(1, 3, Mode::None, 3);
    lying[12] = 4;
    veltrix_abi::wire::finish(&mut lying, crc_fast::crc32_iscsi);
    all.push(lying);
    all.push(vec![]);
    all.push(vec![1; 20]);
    all.push(vec![1; 200]);
    all.push(vec![1; PAYLOAD_BYTES_MAX_DEFAULT + 1]);
    all.push(vec![1; PAYLOAD_BYTES_MAX_DEFAULT + 100]);
    all
}

/// Sends `requests` and turns until all are served and every reply is taken;
/// gives the replies.
fn round(
    client: &UdpSocket,
    lane: &mut Lane<UdpPort>,
    requests: &[Vec<u8>],
    reply: &mut [u8],
) -> usize {
    let mut replies = 0;
    for some in requests.chunks(BATCH / 2) {
        for request in some {
            assert!(client.send(request).is_ok());
        }
        while lane.turn() > 0 {}
        while client.recv(reply).is_ok() {
            replies += 1;
        }
    }
    replies
}

fn owed(counters: &LaneCounters) -> u64 {
    let owing = Exit::ALL.iter().filter(|e| e.action() == Action::Reply);
    owing.map(|e| counters.exits(*e)).sum()
}

#[test]
fn turns_over_sockets_allocate_nothing() {
    const FRAMES: u64 = 20_000;
    let requests = requests();
    // Accepted, and shed after the first turns.
    for deadline in [Duration::from_secs(3_600), Duration::from_nanos(1)] {
        let (port, counters, address) = port();
        let mut lane = lane(port, address, &counters, deadline);
        let client = client(address);
        let mut reply = [0; 2_048];

        let before = calls();
        let mut replies = 0;
        while counters.frames.get() < FRAMES {
            replies += round(&client, &mut lane, &requests, &mut reply);
        }
        assert_eq!(since(before), NOTHING);

        assert_eq!(counters.frames.get(), counters.exits_sum());
        assert_eq!(counters.replies.sent.get(), replies as u64);
        let r = &counters.replies;
        let fates = r.sent.get() + r.coalesced.get() + r.dropped_tx_full.get() + r.withheld.get();
        assert_eq!(fates, owed(&counters));
        for exit in [
            Exit::DropEmpty,
            Exit::DropHeaderShort,
            Exit::DropTooLarge,
            Exit::DropMagic,
            Exit::Checksum,
            Exit::Version,
            Exit::Malformed,
            Exit::DurableUnavailable,
            Exit::Ping,
            Exit::Hello,
            Exit::Accepted,
        ] {
            assert!(counters.exits(exit) > 0, "{exit:?} was not on the way");
        }
        assert_eq!(counters.exits(Exit::Shed) > 0, deadline < Duration::from_secs(1));
    }
}

#[test]
fn a_sleeping_port_allocates_nothing() {
    let (mut port, counters, address) = port();
    let client = client(address);
    let request = datagrams::ping(1, 1, 1);

    let before = calls();
    // Nothing comes; then something wakes it.
    port.wait(Duration::from_millis(1), None);
    assert!(client.send(&request).is_ok());
    port.wait(Duration::from_secs(10), None);
    assert_eq!(port.receive(BATCH), 1);
    assert_eq!(since(before), NOTHING);
    assert_eq!(counters.sleeps.get(), 2);
}

#[test]
fn a_running_lane_allocates_nothing() {
    let (port, counters, address) = port();
    let mut lane = lane(port, address, &counters, Duration::from_secs(3_600));
    let stop = AtomicBool::new(false);
    let requests = requests();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = client(address);
            for some in requests.chunks(30) {
                for request in some {
                    assert!(client.send(request).is_ok());
                }
                // Longer than the lane polls before it sleeps.
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Relaxed);
        });
        let before = calls();
        lane.run(&stop);
        assert_eq!(since(before), NOTHING);
    });
    assert_eq!(counters.frames.get(), requests.len() as u64);
    assert!(counters.sleeps.get() > 0, "the lane was idle in between");
}

/// A lane with a log that owns all of `PARTITIONS`, and its control core's ends.
fn with_log(lane: Lane<UdpPort>) -> (Lane<UdpPort>, ControlEnds) {
    const PARTITIONS: u16 = 4;
    let (ends, control) = link(4, PARTITIONS, Arc::new(Waker::new().unwrap())).unwrap();
    let facts = Arc::new(LogFacts::default());
    facts.ready.store(true, Relaxed);
    facts.replayed.store(true, Relaxed);
    let owner_of: Arc<[AtomicU16]> = (0..PARTITIONS).map(|_| AtomicU16::new(0)).collect();
    let limits = PartitionLimits {
        index: IndexLimits {
            cells_max: 200,
            players_max: 500,
            hunts_max: 16,
            definitions_max: 16,
            deeds_max: 100,
        },
        dedupe: DedupeLimits { keys_max: 20_000, window_ms: 60_000 },
    };
    let secret = Arc::new(Secret::new(std::array::from_fn(|i| i as u8 ^ 0x5a)));
    let partition = |n| Partition::new(n, &limits, Arc::clone(&secret)).unwrap();
    let lane = lane.with_log(LogHalfSpec {
        lane: 0,
        life: 1,
        partitions: PARTITIONS,
        batches: 4,
        deadline: Duration::from_secs(3_600),
        ends,
        facts,
        lanes: Arc::new([Arc::clone(&control.link)]),
        owned: (0..PARTITIONS).map(|n| Some(Box::new(partition(n)))).collect(),
        images: None,
        epoch: 0,
        reads: mesh(1, 1, &owner_of).0.remove(0),
    });
    (lane, control)
}

#[test]
fn a_lane_with_a_log_allocates_nothing_watched_or_not() {
    const ROUNDS: u64 = 200;
    let (port, counters, address) = port();
    let (mut lane, mut control) =
        with_log(lane(port, address, &counters, Duration::from_secs(3_600)));
    let client = client(address);
    let mut reply = [0; 2_048];
    let (mut epoch, mut samples) = (0, 0);
    for round in 0..ROUNDS {
        control.link.watch.wanted.store(round % 2 == 1, Relaxed);
        assert!(client.send(&datagrams::events(1, round, Mode::Durable, 24)).is_ok());
        let mut turn = || {
            let before = calls();
            while lane.turn() > 0 {}
            assert_eq!(since(before), NOTHING, "round {round}");
        };
        while control.submissions.is_empty() {
            turn();
        }
        while let Ok(batch) = control.submissions.pop() {
            epoch += 1;
            batch.slots().committed(epoch, 1);
            let batch = Some(Payload::Pooled(batch));
            let apply = LaneCommand::Apply { epoch, log_time_ns: epoch << 40, batch };
            assert!(control.commands.push(apply).is_ok());
        }
        turn();
        assert!(client.recv(&mut reply).is_ok(), "round {round} is answered");
        // The ring is left to run full now and then.
        if round % 50 == 49 {
            while control.samples.pop().is_ok() {
                samples += 1;
            }
        }
    }
    assert!(samples > 0 && epoch == ROUNDS, "{samples} samples, {epoch} batches");
    let events = counters.events.get();
    assert_eq!(events, 24 * ROUNDS);
}
