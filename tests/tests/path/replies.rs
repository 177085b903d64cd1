//! Replies through the AF_XDP lane as the network sees them: ordinary sockets
//! accept them, and every header is what it should be.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use veltrix_abi::Outcome;
use veltrix_abi::wire::{Reply, decode_reply};
use veltrix_tests::bench::rig::PORT;
use veltrix_tests::bench::service::Provider;
use veltrix_tests::lab::{
    CLIENT_MAC, Datagram, FrameSpec, Lab, LabSpec, SERVER_IPV4, SERVER_IPV6, SERVER_MAC, Side, Sink,
};
use veltrix_tests::server::{Server, require};

const REPLY_WAIT_MAX: Duration = Duration::from_secs(1);

fn client(lab: &Lab, server: IpAddr) -> UdpSocket {
    lab.client(|| {
        let any: SocketAddr = match server {
            IpAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
            IpAddr::V6(_) => "[::]:0".parse().unwrap(),
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect((server, PORT)).unwrap();
        socket.set_read_timeout(Some(REPLY_WAIT_MAX)).unwrap();
        socket
    })
}

/// Sends a request and checks its reply: the kernel has checked addresses,
/// ports and checksums before it gives it to the socket.
fn exchange(socket: &UdpSocket, session: u64, sequence: u64) {
    let mut buffer = [0; 2_048];
    let datagram = Datagram { session, sequence, ..Datagram::default() };
    // 48 + 4 x (48 + 248) = 1,232 bytes: the largest datagram.
    let largest = datagram.events(4, 248);
    assert_eq!(largest.len(), 1_232);
    for request in [datagram.ping(7), datagram.hello(), datagram.events(1, 0), largest] {
        socket.send(&request).unwrap();
        let bytes = socket.recv(&mut buffer).expect("a reply");
        assert!(bytes <= request.len(), "{bytes} bytes answer {}", request.len());
        let (header, reply) = decode_reply(&buffer[..bytes], crc_fast::crc32_iscsi).unwrap();
        assert_eq!((header.session, header.sequence), (session, sequence));
        match reply {
            Reply::Pong(pong) => assert_eq!(pong.client_sent_ns, 7),
            Reply::Welcome(welcome) => assert_eq!(welcome.port_first, PORT),
            Reply::Ack(acks) => {
                let outcomes: Vec<u8> = acks.flat_map(|entry| entry.outcomes.to_vec()).collect();
                assert!(!outcomes.is_empty());
                assert!(outcomes.iter().all(|o| *o == Outcome::Accepted.code()), "{outcomes:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn eight_clients_of_both_families_are_answered_by_the_lanes_alone() {
    if !require("eight_clients_of_both_families_are_answered_by_the_lanes_alone") {
        return;
    }
    const ROUNDS: u64 = 200;
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let families: [IpAddr; 2] = [SERVER_IPV4.into(), SERVER_IPV6.into()];
    std::thread::scope(|scope| {
        for session in 0..8_u64 {
            let lab = &lab;
            scope.spawn(move || {
                let socket = client(lab, families[session as usize % 2]);
                for sequence in 0..ROUNDS {
                    exchange(&socket, session, sequence);
                }
            });
        }
    });
    let status = server.settled().unwrap();
    assert_eq!(status.accounting.lane_exits, 8 * ROUNDS * 4);
    assert_eq!(status.accounting.fallback_expected, 0);
    assert_eq!(status.fallback.as_ref().unwrap().frames, 0);
    assert!(status.is_healthy(), "{status:#?}");
    assert_eq!(server.stop().unwrap().code, Some(0));
}

/// A checksum that veth leaves to the receiver's device is no reason to drop:
/// the datagram's own CRC stands for it.
#[test]
fn every_wait_mode_answers() {
    if !require("every_wait_mode_answers") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    for wait in ["wakeup", "spin", "prefer-busy"] {
        let server = Server::start(&lab, Provider::Xdp, &["--wait", wait]).unwrap();
        let socket = client(&lab, SERVER_IPV4.into());
        for sequence in 1..=50 {
            exchange(&socket, 7, sequence);
        }
        let status = server.settled().unwrap();
        assert_eq!(status.lanes[0].wait, wait);
        assert!(status.accounting.closes, "{wait}: {:#?}", status.accounting.gaps);
        let (sent, frames) = (status.lanes[0].replies.sent, status.lanes[0].frames);
        assert!(sent >= 200 && frames >= 200, "{wait}: {sent} replies, {frames} frames");
        assert_eq!(server.stop().unwrap().code, Some(0), "{wait}");
    }
}

#[test]
fn clients_with_offloaded_checksums_are_answered() {
    if !require("clients_with_offloaded_checksums_are_answered") {
        return;
    }
    let spec = LabSpec { checksum_offload: true, ..LabSpec::with_queues(1) };
    let lab = Lab::new(spec).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    for (session, address) in [SERVER_IPV4.into(), SERVER_IPV6.into()].into_iter().enumerate() {
        exchange(&client(&lab, address), session as u64, 1);
    }
    let status = server.settled().unwrap();
    assert_eq!((status.accounting.lane_exits, status.accounting.fallback_received), (8, 0));
}

/// Everything the client's interfaces receive.
fn listener(lab: &Lab) -> Socket {
    const ETH_P_ALL: u16 = 3;
    lab.client(|| {
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    })
}

/// The next frame from the server's MAC address.
fn next_frame(mut socket: &Socket) -> Vec<u8> {
    let started = Instant::now();
    let mut buffer = [0; 4_096];
    while started.elapsed() < REPLY_WAIT_MAX {
        if let Ok(bytes) = socket.read(&mut buffer)
            && buffer[6..12] == SERVER_MAC
        {
            return buffer[..bytes].to_vec();
        }
    }
    panic!("no frame from the server within {REPLY_WAIT_MAX:?}")
}

#[test]
fn a_reply_is_the_frame_that_turns_its_request_around() {
    if !require("a_reply_is_the_frame_that_turns_its_request_around") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let sink = Sink::attach(&lab, None).unwrap();
    let listener = listener(&lab);
    let mut sent = 0;
    for base in [FrameSpec::ipv4(PORT), FrameSpec::ipv6(PORT)] {
        for vlans in [vec![], vec![5], vec![5, 6]] {
            let request = FrameSpec { vlans, ..base.clone() };
            let bytes_before = sink.read().unwrap().passed.bytes;
            let frame = request.build(&Datagram::default().ping(1)).unwrap();
            lab.transmit(Side::Client, std::slice::from_ref(&frame)).unwrap();
            let reply = next_frame(&listener);
            sent += 1;
            // The kernel takes the outer tag off before a packet socket sees
            // the frame; the sink's program saw all of it.
            let seen_bytes = sink.read().unwrap().passed.bytes - bytes_before;
            assert_eq!(seen_bytes, frame.len() as u64, "{request:?}");
            let inner = request.vlans.iter().skip(1).copied().collect();
            let payload = reply[reply.len() - 72..].to_vec();
            let (_, pong) = decode_reply(&payload, crc_fast::crc32_iscsi).unwrap();
            assert!(matches!(pong, Reply::Pong(_)), "{pong:?}");
            // Whole checksums, MAC and IP addresses and ports turned around.
            let wanted = FrameSpec { vlans: inner, udp_checksum: true, ..request.clone() };
            let wanted = wanted.reversed().build(&payload).unwrap();
            assert_eq!(reply, wanted, "{request:?}");
            assert_eq!((&reply[..6], &reply[6..12]), (&CLIENT_MAC[..], &SERVER_MAC[..]));
        }
    }
    let status = server.settled().unwrap();
    assert_eq!((status.accounting.lane_exits, status.accounting.fallback_received), (sent, 0));
}
