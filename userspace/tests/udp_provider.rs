//! The socket provider against real sockets on loopback.

mod support;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use support::datagrams;
use veltrix::base::counters::LaneCounters;
use veltrix::lane::{Admission, Lane, ServerFacts};
use veltrix::udp::{Listener, UdpMonitor, UdpPort};
use veltrix_abi::Exit;
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
use veltrix_abi::wire::{Header, Mode, Reply, decode_reply};

const BATCH: usize = 64;

fn listener(ip: impl Into<IpAddr>, port: u16) -> Listener<'static> {
    Listener {
        interface: None,
        address: SocketAddr::new(ip.into(), port),
        receive_buffer_bytes: 1 << 20,
        send_buffer_bytes: 1 << 20,
    }
}

struct Server {
    lane: Lane<UdpPort>,
    counters: Arc<LaneCounters>,
    address: SocketAddr,
}

impl Server {
    fn on(socket: UdpSocket) -> Self {
        let address = socket.local_addr().unwrap();
        let counters = Arc::new(LaneCounters::default());
        let port = UdpPort::new(socket, PAYLOAD_BYTES_MAX_DEFAULT, BATCH, Arc::clone(&counters));
        let facts = ServerFacts {
            partitions: 64,
            lanes: 1,
            port: address.port(),
            payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT as u16,
        };
        let admission = Admission::new(Duration::from_secs(3_600));
        let lane = Lane::new(port, facts, admission, BATCH, Arc::clone(&counters));
        Self { lane, counters, address }
    }

    fn localhost() -> Self {
        let (mut sockets, _) = listener(Ipv4Addr::LOCALHOST, 0).open(1).unwrap();
        Self::on(sockets.remove(0))
    }

    /// Serves what is there; gives the frames.
    fn serve(&mut self) -> usize {
        let mut frames = 0;
        loop {
            match self.lane.turn() {
                0 => return frames,
                n => frames += n,
            }
        }
    }

    fn assert_closed(&self) {
        let c = &self.counters;
        assert_eq!(c.frames.get(), c.exits_sum());
    }
}

fn client(ip: impl Into<IpAddr>) -> UdpSocket {
    let client = UdpSocket::bind(SocketAddr::new(ip.into(), 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client
}

fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        println!("skipped: IPv6 on loopback");
    }
    has
}

#[test]
fn a_taken_port_is_refused_with_a_hint() {
    let holder = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = holder.local_addr().unwrap();
    let error = listener(Ipv4Addr::LOCALHOST, taken.port()).open(1).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    let text = error.to_string();
    for part in
        [&taken.to_string(), "bind", "another process holds this port", "ss -ulpn", "--port"]
    {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
}

#[test]
fn a_port_shared_by_others_is_refused_too() {
    let (sockets, address) = listener(Ipv4Addr::LOCALHOST, 0).open(2).unwrap();
    let error = listener(Ipv4Addr::LOCALHOST, address.port()).open(1).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    drop(sockets);
    listener(Ipv4Addr::LOCALHOST, address.port()).open(1).unwrap();
}

#[test]
fn an_address_of_nobody_is_refused_with_a_hint() {
    // TEST-NET-1, which no host has.
    let error = listener(Ipv4Addr::new(192, 0, 2, 1), 0).open(1).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("no interface has this address"), "{error}");
}

#[test]
fn sockets_of_one_port_share_its_senders() {
    let (sockets, address) = listener(Ipv4Addr::LOCALHOST, 0).open(2).unwrap();
    assert!(sockets.iter().all(|s| s.local_addr().unwrap() == address));
    let mut servers: Vec<_> = sockets.into_iter().map(Server::on).collect();
    // Each of 64 senders falls to one socket by its hash: all to one of two
    // would be a chance of 2^-63.
    let clients: Vec<_> = (0..64).map(|_| client(Ipv4Addr::LOCALHOST)).collect();
    for (i, client) in clients.iter().enumerate() {
        client.send_to(&datagrams::ping(1, i as u64, 0), address).unwrap();
    }
    let served: Vec<_> = servers.iter_mut().map(Server::serve).collect();
    assert_eq!(served.iter().sum::<usize>(), 64);
    assert!(served.iter().all(|n| *n > 0), "{served:?}");
    let mut reply = [0; 2_048];
    for client in clients {
        assert_eq!(client.recv_from(&mut reply).unwrap().1, address);
    }
}

#[test]
fn one_socket_serves_both_families() {
    if !has_ipv6() {
        return;
    }
    let (socket, address) = listener(Ipv4Addr::UNSPECIFIED, 0).open_any(0).unwrap();
    assert!(address.is_ipv6());
    let mut server = Server::on(socket);
    let mut reply = [0; 2_048];
    for ip in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv4Addr::new(127, 0, 0, 2).into(),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let to = SocketAddr::new(ip, address.port());
        let unspecified: IpAddr =
            if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let client = client(unspecified);
        client.send_to(&datagrams::ping(1, 2, 3), to).unwrap();
        assert_eq!(server.serve(), 1);
        let (bytes, from) = client.recv_from(&mut reply).unwrap();
        assert_eq!(from, to, "a reply comes from the address the request was sent to");
        assert!(matches!(
            decode_reply(&reply[..bytes], crc_fast::crc32_iscsi),
            Ok((_, Reply::Pong(_)))
        ));
    }
}

/// One sender that uses two of our addresses is two ways: acks do not share a
/// datagram, since each leaves from the address its request was sent to.
#[test]
fn replies_leave_from_the_address_asked() {
    let (mut sockets, address) = listener(Ipv4Addr::UNSPECIFIED, 0).open(1).unwrap();
    let mut server = Server::on(sockets.remove(0));
    let client = client(Ipv4Addr::UNSPECIFIED);
    for (sequence, last) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
        let to = SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), address.port());
        client.send_to(&datagrams::events(9, sequence, Mode::None, 2), to).unwrap();
    }
    assert_eq!(server.serve(), 4);
    server.assert_closed();
    let mut answered = BTreeSet::new();
    let mut reply = [0; 2_048];
    while answered.len() < 4 {
        let (bytes, from) = client.recv_from(&mut reply).unwrap();
        let IpAddr::V4(ip) = from.ip() else { panic!("an IPv6 reply") };
        let Ok((_, Reply::Ack(acks))) = decode_reply(&reply[..bytes], crc_fast::crc32_iscsi) else {
            panic!("not an ack")
        };
        for entry in acks {
            assert!(answered.insert(entry.sequence), "{} answered twice", entry.sequence);
            assert_eq!(u64::from(ip.octets()[3]), entry.sequence % 2 + 1, "asked elsewhere");
        }
    }
}

#[test]
fn datagrams_of_every_wrong_size_are_counted() {
    let mut server = Server::localhost();
    let client = client(Ipv4Addr::LOCALHOST);
    client.connect(server.address).unwrap();
    let full = datagrams::datagram(
        &Header { count: 1, ..datagrams::header(veltrix_abi::wire::Kind::Query, 1, 1) },
        &[0; PAYLOAD_BYTES_MAX_DEFAULT - 48],
    );
    let mut larger = full.clone();
    for size in [full.len(), full.len() + 1, full.len() + 8, full.len() + 9, 9_000] {
        larger.resize(size, 0);
        client.send(&larger).unwrap();
    }
    for size in [0, 0, 1, 47, 48] {
        client.send(&vec![0; size]).unwrap();
    }
    client.send(&datagrams::ping(1, 1, 1)).unwrap();
    assert_eq!(server.serve(), 11);
    server.assert_closed();
    for (exit, frames) in [
        (Exit::QueryUnavailable, 1),
        (Exit::DropTooLarge, 4),
        (Exit::DropEmpty, 2),
        (Exit::DropHeaderShort, 2),
        (Exit::DropMagic, 1),
        (Exit::Ping, 1),
    ] {
        assert_eq!(server.counters.exits(exit), frames, "{exit:?}");
    }
    assert_eq!(server.counters.replies.sent.get(), 2);
}

#[test]
fn an_overrun_receive_buffer_is_counted() {
    const SENT: u32 = 2_000;
    let small = Listener { receive_buffer_bytes: 8_192, ..listener(Ipv4Addr::LOCALHOST, 0) };
    let (mut sockets, _) = small.open(1).unwrap();
    let monitor = UdpMonitor::new(&sockets[0]).unwrap();
    let mut server = Server::on(sockets.remove(0));
    assert_eq!(monitor.drops().unwrap(), 0);
    let client = client(Ipv4Addr::LOCALHOST);
    client.connect(server.address).unwrap();
    for i in 0..SENT {
        client.send(&datagrams::ping(1, u64::from(i), 0)).unwrap();
    }
    let served = server.serve() as u32;
    let lost = monitor.drops().unwrap();
    assert!(served > 0 && lost > 0);
    assert_eq!(served + lost, SENT, "every datagram was served or counted as lost");
    client.send(&datagrams::ping(1, 0, 0)).unwrap();
    assert_eq!(server.serve(), 1, "what was lost does not stop what follows");
}

#[test]
fn refused_sends_are_counted_and_lose_no_slot() {
    let (mut sockets, address) = listener(Ipv4Addr::UNSPECIFIED, 0).open(1).unwrap();
    let mut server = Server::on(sockets.remove(0));
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
    // Many more rounds than there are slots, each sender gone before its reply.
    for i in 0..1_000u64 {
        let gone = client(Ipv4Addr::LOCALHOST);
        gone.send_to(&datagrams::ping(1, i, 0), to).unwrap();
        drop(gone);
        server.serve();
    }
    let r = &server.counters.replies;
    assert_eq!(server.counters.exits(Exit::Ping), 1_000);
    assert_eq!(r.sent.get() + r.dropped_tx_full.get(), 1_000);
}

#[test]
fn a_running_lane_answers_thousands() {
    const REQUESTS: u64 = 6_000;
    /// Requests under way: far below what the receive buffers hold.
    const WINDOW: u64 = 50;
    let server = Server::localhost();
    let Server { mut lane, counters, address } = server;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| lane.run(&stop));
        let client = client(Ipv4Addr::LOCALHOST);
        client.connect(address).unwrap();
        let mut reply = [0; 2_048];
        let mut answered = BTreeSet::new();
        let mut sent = 0;
        while (answered.len() as u64) < REQUESTS {
            while sent < REQUESTS && sent < answered.len() as u64 + WINDOW {
                let request = match sent % 4 {
                    0 => datagrams::ping(7, sent, 0),
                    1 => datagrams::hello(7, sent),
                    _ => datagrams::events(7, sent, Mode::None, 1 + (sent % 24) as u16),
                };
                client.send(&request).unwrap();
                sent += 1;
            }
            let bytes = client.recv(&mut reply).expect("every request is answered");
            let (header, reply) = decode_reply(&reply[..bytes], crc_fast::crc32_iscsi).unwrap();
            match reply {
                Reply::Pong(_) | Reply::Welcome(_) => {
                    assert!(answered.insert(header.sequence), "{} twice", header.sequence);
                }
                Reply::Ack(acks) => {
                    for entry in acks {
                        assert!(answered.insert(entry.sequence), "{} twice", entry.sequence);
                        assert_eq!(entry.outcomes.len() as u64, 1 + entry.sequence % 24);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(counters.frames.get(), REQUESTS);
    assert_eq!(counters.exits_sum(), REQUESTS);
    assert_eq!(counters.exits(Exit::Accepted), REQUESTS / 2);
    let r = &counters.replies;
    assert_eq!(r.sent.get() + r.coalesced.get(), REQUESTS);
    assert_eq!(r.dropped_tx_full.get() + r.withheld.get(), 0);
}
