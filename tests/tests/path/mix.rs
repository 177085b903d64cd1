//! One frame for each way out: what the generator sends to meet them all.

use std::net::{IpAddr, Ipv4Addr};

use veltrix_abi::frame::accept;
use veltrix_abi::limits::{HEADER_BYTES, PAYLOAD_BYTES_MAX_DEFAULT, TAG_BYTES};
use veltrix_abi::wire::{self, Event, FLAG_SEALED, Header, Kind, Mode};
use veltrix_abi::{Action, Exit};
use veltrix_tests::bench::rig::PORT;
use veltrix_tests::lab::{Datagram, FrameSpec, Template};

/// Sources of this prefix are blocked before a mix is sent.
pub const BLOCKED: &str = "10.99.0.0/16";

/// A frame and where it must leave.
pub struct Case {
    /// What it is, for messages.
    pub name: &'static str,
    /// The frame.
    pub template: Template,
    /// Its last exit: the program's, or the lane's behind `redirect_xsk`.
    pub exit: Exit,
    /// Whether its reply is withheld, being larger than the request.
    pub withheld: bool,
}

impl Case {
    /// The program's exit.
    pub fn program_exit(&self) -> Exit {
        if self.exit.is_xdp() { self.exit } else { Exit::RedirectXsk }
    }
}

/// A datagram of any header, with the right CRC.
pub fn datagram(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    header.write(&mut bytes);
    bytes.extend(body);
    wire::finish(&mut bytes, crc_fast::crc32_iscsi);
    bytes
}

fn event() -> Vec<u8> {
    let event = Event {
        key: *uuid::Uuid::now_v7().as_bytes(),
        player: 1,
        subject: 2,
        argument: 3,
        kind: 1,
        reserved: 0,
        payload: &[],
    };
    let mut body = vec![0; event.wire_bytes()];
    event.write(&mut body);
    body
}

fn ping() -> Vec<u8> {
    Datagram::default().ping(1)
}

/// A well-formed IPv4 frame around `payload`, changed by `change`, whose
/// argument is the frame: Ethernet 14, IPv4 20, UDP 8.
fn v4(payload: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Template {
    let mut frame = FrameSpec::ipv4(PORT).build(payload).expect("a frame that can be");
    change(&mut frame);
    Template::raw(frame)
}

/// A well-formed IPv6 frame with `extensions` empty destination options.
fn v6_with_extensions(payload: &[u8], extensions: usize) -> Template {
    const DESTINATION_OPTIONS: u8 = 60;
    const UDP: u8 = 17;
    let mut frame = FrameSpec::ipv6(PORT).build(payload).expect("a frame that can be");
    let l3 = 14;
    frame[l3 + 6] = DESTINATION_OPTIONS;
    let length = u16::from_be_bytes([frame[l3 + 4], frame[l3 + 5]]) + 8 * extensions as u16;
    frame[l3 + 4..l3 + 6].copy_from_slice(&length.to_be_bytes());
    for left in 0..extensions {
        let next = if left == 0 { UDP } else { DESTINATION_OPTIONS };
        // Next header, length 0 (8 bytes), a PadN option of 4 bytes.
        frame.splice(l3 + 40..l3 + 40, [next, 0, 1, 4, 0, 0, 0, 0]);
    }
    Template::raw(frame)
}

/// Rewrites the IPv4 header checksum.
fn checksum(frame: &mut [u8]) {
    let header = 14..34;
    frame[24..26].fill(0);
    let mut sum: u32 =
        frame[header].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Frames that the program passes to the kernel.
fn passed() -> Vec<(&'static str, Template, Exit)> {
    let other_port = FrameSpec::ipv4(PORT + 1);
    let mut arp = FrameSpec::ipv4(PORT).build(&[0; 46]).expect("a frame that can be");
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let tag = [0x81, 0x00, 0, 5];
    vec![
        ("an ARP ethertype", Template::raw(arp), Exit::PassNotIp),
        (
            "three VLAN tags",
            v4(&ping(), |f| {
                for _ in 0..3 {
                    f.splice(12..12, tag);
                }
            }),
            Exit::PassVlanDeep,
        ),
        ("an IPv4 header of 16 bytes", v4(&ping(), |f| f[14] = 0x44), Exit::PassIpMalformed),
        (
            "not UDP",
            v4(&ping(), |f| {
                f[23] = 253;
                checksum(f);
            }),
            Exit::PassNotUdp,
        ),
        (
            "a later fragment",
            v4(&ping(), |f| {
                f[20..22].copy_from_slice(&[0, 9]);
                checksum(f);
            }),
            Exit::PassFragmentTail,
        ),
        ("an IPv6 chain", v6_with_extensions(&ping(), 2), Exit::PassIpv6Chain),
        (
            "a cut UDP header",
            v4(&ping(), |f| {
                f[16..18].copy_from_slice(&24_u16.to_be_bytes());
                checksum(f);
            }),
            Exit::PassUdpShort,
        ),
        (
            "another port",
            Template::new(&other_port, &ping()).expect("a frame that can be"),
            Exit::PassOtherPort,
        ),
    ]
}

/// Frames that are ours and that the program drops.
fn dropped() -> Vec<(&'static str, Template, Exit)> {
    let from = |source: [u8; 4], source_port| {
        let spec = FrameSpec {
            source: IpAddr::V4(Ipv4Addr::from(source)),
            source_port,
            ..FrameSpec::ipv4(PORT)
        };
        Template::raw(spec.build(&ping()).expect("a frame that can be"))
    };
    let udp_bytes = |bytes: u16| v4(&ping(), |f| f[38..40].copy_from_slice(&bytes.to_be_bytes()));
    let mut no_magic = ping();
    no_magic[0] = b'v';
    vec![
        (
            "a first fragment",
            v4(&ping(), |f| {
                f[20..22].copy_from_slice(&[0x20, 0]);
                checksum(f);
            }),
            Exit::DropFragment,
        ),
        ("one IPv6 extension", v6_with_extensions(&ping(), 1), Exit::DropIpv6Extension),
        (
            "a multicast MAC",
            v4(&ping(), |f| {
                f[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
            }),
            Exit::DropNotUnicast,
        ),
        (
            "a multicast destination",
            v4(&ping(), |f| {
                f[30..34].copy_from_slice(&[224, 0, 0, 1]);
                checksum(f);
            }),
            Exit::DropNotUnicast,
        ),
        (
            "a loopback destination",
            v4(&ping(), |f| {
                f[30..34].copy_from_slice(&[127, 0, 0, 1]);
                checksum(f);
            }),
            Exit::DropNotUnicast,
        ),
        ("a loopback source", from([127, 0, 0, 1], 40_000), Exit::DropBadSource),
        ("source port 0", from([10, 78, 0, 1], 0), Exit::DropBadSource),
        ("a UDP length of 7", udp_bytes(7), Exit::DropUdpLength),
        ("a UDP length beyond the packet", udp_bytes(500), Exit::DropUdpLength),
        ("no payload", v4(&[], |_| {}), Exit::DropEmpty),
        ("a short header", v4(&ping()[..47], |_| {}), Exit::DropHeaderShort),
        (
            "too large",
            v4(&[&ping()[..], &[0; PAYLOAD_BYTES_MAX_DEFAULT]].concat(), |_| {}),
            Exit::DropTooLarge,
        ),
        ("a wrong magic", v4(&no_magic, |_| {}), Exit::DropMagic),
        ("a blocked source", from([10, 99, 0, 1], 40_000), Exit::DropBlocked),
    ]
}

/// Datagrams that reach a lane, and whether their reply is withheld.
fn served() -> Vec<(&'static str, Vec<u8>, Exit, bool)> {
    let ping_header = Header::new(Kind::Ping);
    let ping_with = |header: Header| datagram(&header, &[0; 24]);
    let events_header = Header { mode: Mode::None as u8, count: 1, ..Header::new(Kind::Events) };
    let mut bad_crc = ping();
    bad_crc[60] ^= 1;
    let sealed = {
        let header = Header { flags: FLAG_SEALED, ..ping_header };
        [&ping_with(header)[..], &[0; TAG_BYTES]].concat()
    };
    let durable = Datagram { mode: Mode::Durable, ..Datagram::default() };
    vec![
        ("a bad CRC", bad_crc, Exit::Checksum, false),
        (
            "a kind that servers send",
            Datagram::default().of_kind(Kind::Pong, &[0; 24]),
            Exit::ReplyKind,
            false,
        ),
        ("version 9", ping_with(Header { version: 9, ..ping_header }), Exit::Version, false),
        (
            "version 9 and no body",
            datagram(&Header { version: 9, ..ping_header }, &[]),
            Exit::Version,
            true,
        ),
        ("kind 99", ping_with(Header { kind: 99, ..ping_header }), Exit::Kind, false),
        (
            "a reserved field",
            ping_with(Header { reserved: 1, ..ping_header }),
            Exit::Reserved,
            false,
        ),
        ("sealed", sealed, Exit::Sealed, false),
        ("a ping of the wrong length", datagram(&ping_header, &[0; 16]), Exit::Malformed, false),
        (
            "a count that lies",
            datagram(&Header { count: 2, ..events_header }, &event()),
            Exit::Malformed,
            false,
        ),
        ("mode 7", datagram(&Header { mode: 7, ..events_header }, &event()), Exit::Mode, false),
        ("durable events", durable.events(2, 0), Exit::DurableUnavailable, false),
        (
            "a query",
            datagram(&Header { count: 1, ..Header::new(Kind::Query) }, &[0; 48]),
            Exit::QueryUnavailable,
            false,
        ),
        ("a ping", ping(), Exit::Ping, false),
        ("a hello", Datagram::default().hello(), Exit::Hello, false),
        // Nine events: so that an ack of a full datagram has no more entries
        // than the sink walks.
        ("events", Datagram::default().events(9, 0), Exit::Accepted, false),
    ]
}

/// Every case. Their number is odd, so that two cores in turn meet each.
pub fn cases() -> Vec<Case> {
    let program = passed().into_iter().chain(dropped());
    let mut cases: Vec<Case> = program
        .map(|(name, template, exit)| Case { name, template, exit, withheld: false })
        .collect();
    let mut lane = |name, spec: &FrameSpec, payload: &[u8], exit, withheld| {
        let template = Template::new(spec, payload).expect("a frame that can be");
        cases.push(Case { name, template, exit, withheld });
    };
    let plain = FrameSpec::ipv4(PORT);
    for (name, payload, exit, withheld) in served() {
        lane(name, &plain, &payload, exit, withheld);
    }
    let tagged = |vlans: &[u16], spec: FrameSpec| FrameSpec { vlans: vlans.to_vec(), ..spec };
    let events = Datagram::default().events(9, 0);
    let v6 = || FrameSpec::ipv6(PORT);
    lane("events by IPv6", &v6(), &events, Exit::Accepted, false);
    let one = tagged(&[5], FrameSpec::ipv4(PORT));
    lane("a ping behind a tag", &one, &ping(), Exit::Ping, false);
    let two = tagged(&[5, 6], v6());
    lane("a ping behind two tags", &two, &ping(), Exit::Ping, false);
    if cases.len().is_multiple_of(2) {
        let sums = FrameSpec { udp_checksum: true, ..FrameSpec::ipv4(PORT) };
        let template = Template::new(&sums, &ping()).expect("a frame that can be");
        cases.push(Case {
            name: "a ping with a checksum",
            template,
            exit: Exit::Ping,
            withheld: false,
        });
    }
    cases
}

/// A ping from the broadcast address of the lab's IPv4 subnet.
pub fn unanswerable() -> Case {
    let source = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 255));
    let spec = FrameSpec { source, ..FrameSpec::ipv4(PORT) };
    let frame = spec.build(&ping()).expect("a frame that can be");
    Case {
        name: "a ping from a broadcast address",
        template: Template::raw(frame),
        exit: Exit::Ping,
        withheld: false,
    }
}

#[test]
fn the_mix_meets_every_exit_that_needs_no_overload() {
    let cases = cases();
    assert_eq!(cases.len() % 2, 1);
    // Met elsewhere: a queue without a lane, the rate limit, a bug, overload, a log.
    let elsewhere = [
        Exit::PassFallback,
        Exit::RedirectXsk,
        Exit::DropRate,
        Exit::LaneDisagrees,
        Exit::Shed,
        Exit::Query,
    ];
    for exit in Exit::ALL {
        let met = cases.iter().any(|case| case.exit == *exit);
        assert!(met || elsewhere.contains(exit), "{exit:?} is in no case");
    }
    for Case { name, template, exit, .. } in &cases {
        let accepted = accept(template.bytes(), PORT, PAYLOAD_BYTES_MAX_DEFAULT);
        let found = match accepted {
            Err(found) => found,
            Ok(_) if *exit == Exit::DropBlocked => continue,
            Ok(at) => {
                let payload = &template.bytes()[at.payload..][..at.payload_bytes];
                match wire::decode(payload, crc_fast::crc32_iscsi) {
                    Err(found) => found,
                    Ok(_) => continue,
                }
            }
        };
        assert_eq!(found, *exit, "{name}");
        assert_ne!(exit.action(), Action::Deliver, "{name}");
    }
}
