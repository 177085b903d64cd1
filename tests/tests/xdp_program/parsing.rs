//! Every port, every ethertype, every truncation, and each way a frame can be wrong.

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use veltrix_abi::Exit;
use veltrix_abi::limits::HEADER_BYTES;
use veltrix_tests::testrun::FRAME_BYTES_MIN;

use super::frames::{Frame, Ip, PAYLOAD_BYTES_MAX, PORT, payload};
use super::{check, everything, plain, runner};

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

fn v4(change: impl FnOnce(&mut Frame)) -> Frame {
    Frame::v4().with(change)
}

/// Well-formed frames of every shape.
fn shapes() -> Vec<Frame> {
    let stacks: [&[u16]; 6] = [&[], &[VLAN], &[QINQ], &[QINQ, VLAN], &[VLAN, VLAN], &[VLAN, QINQ]];
    let mut out = Vec::new();
    for tags in stacks {
        for frame in [Frame::v4(), Frame::v6()] {
            out.push(frame.with(|f| f.tags = tags.to_vec()));
        }
    }
    out
}

#[test]
fn every_port() {
    let Some(mut runner) = runner("every_port", &everything()) else {
        return;
    };
    let mut bytes = Frame::v4().bytes();
    for port in 0..=u16::MAX {
        bytes[36..38].copy_from_slice(&port.to_be_bytes());
        let exit = check(&mut runner, &bytes);
        let wanted = if port == PORT { Exit::PassFallback } else { Exit::PassOtherPort };
        assert_eq!(exit, wanted, "port {port}");
    }
    runner.close().unwrap();
}

#[test]
fn every_ethertype() {
    let Some(mut runner) = runner("every_ethertype", &everything()) else {
        return;
    };
    let mut bytes = Frame::v4().bytes();
    for ethertype in 0..=u16::MAX {
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let exit = check(&mut runner, &bytes);
        let wanted = match ethertype {
            0x0800 => Exit::PassFallback,
            0x86dd => Exit::PassIpMalformed,
            // What follows is no tag, so no known ethertype is found behind it.
            _ => Exit::PassNotIp,
        };
        assert_eq!(exit, wanted, "ethertype {ethertype:#06x}");
    }
    runner.close().unwrap();
}

#[test]
fn every_truncation() {
    let Some(mut runner) = runner("every_truncation", &everything()) else {
        return;
    };
    for shape in shapes() {
        let whole = shape.bytes();
        for bytes in FRAME_BYTES_MIN..whole.len() {
            let exit = check(&mut runner, &whole[..bytes]);
            assert_ne!(exit, Exit::PassFallback, "{bytes} of {} bytes: {shape:?}", whole.len());
        }
        assert_eq!(check(&mut runner, &whole), Exit::PassFallback, "{shape:?}");
    }
    runner.close().unwrap();
}

#[test]
fn every_header_length() {
    let Some(mut runner) = runner("every_header_length", &everything()) else {
        return;
    };
    for words in 0..16 {
        let frame = v4(|f| {
            if let Ip::V4 { ihl, .. } = &mut f.ip {
                *ihl = words;
            }
        });
        let wanted = if words < 5 { Exit::PassIpMalformed } else { Exit::PassFallback };
        assert_eq!(check(&mut runner, &frame.bytes()), wanted, "IHL {words}");
        for bytes in FRAME_BYTES_MIN..frame.bytes().len() {
            check(&mut runner, &frame.bytes()[..bytes]);
        }
    }
    runner.close().unwrap();
}

#[test]
fn vlan_stacks() {
    let Some(mut runner) = runner("vlan_stacks", &everything()) else {
        return;
    };
    for depth in 0..=4 {
        for tag in [VLAN, QINQ] {
            for frame in [Frame::v4(), Frame::v6()] {
                let bytes = frame.with(|f| f.tags = vec![tag; depth]).bytes();
                let wanted = if depth > 2 { Exit::PassVlanDeep } else { Exit::PassFallback };
                assert_eq!(check(&mut runner, &bytes), wanted, "{depth} tags of {tag:#06x}");
            }
        }
    }
    runner.close().unwrap();
}

#[test]
fn ip_headers() {
    let Some(mut runner) = runner("ip_headers", &everything()) else {
        return;
    };
    let ip4 = |v: u8, p: u8, frag: u16| {
        v4(|f| {
            if let Ip::V4 { version, protocol, fragment, .. } = &mut f.ip {
                (*version, *protocol, *fragment) = (v, p, frag);
            }
        })
    };
    let mut cases = vec![
        ("fragment, first", ip4(4, 17, 0x2000), Exit::DropFragment),
        ("fragment, middle", ip4(4, 17, 0x2001), Exit::PassFragmentTail),
        ("fragment, last", ip4(4, 17, 0x00b9), Exit::PassFragmentTail),
        ("reserved flag", ip4(4, 17, 0x8000), Exit::PassFallback),
        ("TCP", ip4(4, 6, 0), Exit::PassNotUdp),
        ("total below header", v4(|f| f.ip_bytes = Some(19)), Exit::PassIpMalformed),
        ("total zero", v4(|f| f.ip_bytes = Some(0)), Exit::PassIpMalformed),
        ("total ends in UDP header", v4(|f| f.ip_bytes = Some(27)), Exit::PassUdpShort),
        ("total below UDP length", v4(|f| f.ip_bytes = Some(60)), Exit::DropUdpLength),
        (
            "v6 length below UDP length",
            Frame::v6().with(|f| f.ip_bytes = Some(60)),
            Exit::DropUdpLength,
        ),
        ("v6 length zero", Frame::v6().with(|f| f.ip_bytes = Some(0)), Exit::PassUdpShort),
        (
            "v6 in v4's ethertype",
            Frame::v6().with(|f| f.ethertype = Some(0x0800)),
            Exit::PassIpMalformed,
        ),
    ];
    for version in (0..16).filter(|v| *v != 4) {
        cases.push(("version", ip4(version, 17, 0), Exit::PassIpMalformed));
    }
    for (name, frame, exit) in cases {
        assert_eq!(check(&mut runner, &frame.bytes()), exit, "{name}");
    }
    runner.close().unwrap();
}

#[test]
fn ipv6_extensions() {
    let Some(mut runner) = runner("ipv6_extensions", &everything()) else {
        return;
    };
    let short: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    let long: Vec<u8> = [vec![1], vec![0; 14]].concat();
    let longest: Vec<u8> = [vec![255], vec![0; 2_046]].concat();
    let fragment =
        |offset: u16| [vec![0], offset.to_be_bytes().to_vec(), vec![0, 0, 0, 9]].concat();
    let cases: Vec<(Frame, Exit)> = vec![
        (Frame::extensions(&[(0, short)]), Exit::DropIpv6Extension),
        (Frame::extensions(&[(43, short)]), Exit::DropIpv6Extension),
        (Frame::extensions(&[(60, &long)]), Exit::DropIpv6Extension),
        (Frame::extensions(&[(135, &longest)]), Exit::DropIpv6Extension),
        (Frame::extensions(&[(0, short), (60, short)]), Exit::PassIpv6Chain),
        (Frame::extensions(&[(0, short), (44, &fragment(1))]), Exit::PassIpv6Chain),
        (Frame::extensions(&[(44, &fragment(1))]), Exit::DropFragment),
        (Frame::extensions(&[(44, &fragment(0))]), Exit::DropFragment),
        (Frame::extensions(&[(44, &fragment(0x0100))]), Exit::PassFragmentTail),
        (Frame::extensions(&[(44, &fragment(0xfff9))]), Exit::PassFragmentTail),
        // ESP, authentication and "no next header" are not UDP.
        (Frame::extensions(&[(50, short)]), Exit::PassNotUdp),
        (Frame::extensions(&[(51, short)]), Exit::PassNotUdp),
        (Frame::extensions(&[(59, short)]), Exit::PassNotUdp),
    ];
    for (frame, exit) in &cases {
        let whole = frame.bytes();
        assert_eq!(check(&mut runner, &whole), *exit, "{frame:?}");
        for bytes in FRAME_BYTES_MIN..whole.len().min(200) {
            check(&mut runner, &whole[..bytes]);
        }
        let elsewhere = frame.clone().with(|f| f.port = PORT + 1).bytes();
        check(&mut runner, &elsewhere);
    }
    runner.close().unwrap();
}

#[test]
fn sources_that_must_not_be_answered() {
    let Some(mut runner) = runner("sources_that_must_not_be_answered", &everything()) else {
        return;
    };
    for first in 0..=255u8 {
        let exit = check(&mut runner, &Frame::from_v4([first, 1, 2, 3]).bytes());
        let bad = first == 0 || first == 127 || first >= 224;
        assert_eq!(exit == Exit::DropBadSource, bad, "{first}.1.2.3");
    }
    let bad = ["::", "::1", "::ffff:192.0.2.7", "ff02::1", "ff00::"];
    let good = ["2001:db8::1", "fe80::1", "fd00::1", "0:0:0:1::", "100::"];
    for (addresses, exit) in [(bad, Exit::DropBadSource), (good, Exit::PassFallback)] {
        for address in addresses {
            let bytes = Frame::from_v6(address.parse().unwrap()).bytes();
            assert_eq!(check(&mut runner, &bytes), exit, "{address}");
        }
    }
    for frame in [Frame::v4(), Frame::v6()] {
        let port_zero = frame.clone().with(|f| f.source_port = 0).bytes();
        assert_eq!(check(&mut runner, &port_zero), Exit::DropBadSource);
        for mac in [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
            let group = frame.clone().with(|f| f.mac = mac).bytes();
            assert_eq!(check(&mut runner, &group), Exit::DropNotUnicast);
        }
    }
    runner.close().unwrap();
}

#[test]
fn udp_lengths_and_payloads() {
    let Some(mut runner) = runner("udp_lengths_and_payloads", &everything()) else {
        return;
    };
    for shape in [Frame::v4(), Frame::v6()] {
        let right = 8 + shape.payload.len() as u16;
        for udp_bytes in (0..=right + 64).chain([0x7fff, 0x8000, u16::MAX]) {
            let exit =
                check(&mut runner, &shape.clone().with(|f| f.udp_bytes = Some(udp_bytes)).bytes());
            let wanted = match udp_bytes {
                0..8 => Exit::DropUdpLength,
                8 => Exit::DropEmpty,
                b if b > right => Exit::DropUdpLength,
                b if usize::from(b) < 8 + HEADER_BYTES => Exit::DropHeaderShort,
                _ => Exit::PassFallback,
            };
            assert_eq!(exit, wanted, "UDP length {udp_bytes}");
        }
        for bytes in 0..=PAYLOAD_BYTES_MAX + 16 {
            let exit =
                check(&mut runner, &shape.clone().with(|f| f.payload = payload(bytes)).bytes());
            let wanted = match bytes {
                0 => Exit::DropEmpty,
                1..HEADER_BYTES => Exit::DropHeaderShort,
                b if b > PAYLOAD_BYTES_MAX => Exit::DropTooLarge,
                _ => Exit::PassFallback,
            };
            assert_eq!(exit, wanted, "{bytes} bytes of payload");
        }
        // Ethernet pads short frames; the padding is not payload.
        let mut padded = shape.clone().with(|f| f.payload = payload(HEADER_BYTES)).bytes();
        padded.extend([0; 46]);
        assert_eq!(check(&mut runner, &padded), Exit::PassFallback);
        for bit in 0..32 {
            let frame = shape.clone().with(|f| f.payload[bit / 8] ^= 1 << (bit % 8));
            assert_eq!(check(&mut runner, &frame.bytes()), Exit::DropMagic, "bit {bit}");
        }
    }
    runner.close().unwrap();
}

/// Random damage to well-formed frames: a few bytes overwritten, then cut or
/// extended. Fixed seed, so a failure repeats.
#[test]
fn both_halves_agree_on_random_damage() {
    let Some(mut runner) = runner("both_halves_agree_on_random_damage", &plain()) else {
        return;
    };
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut below = |n: usize| rng.next_u64() as usize % n;
    let mut bases: Vec<Vec<u8>> = shapes().iter().map(Frame::bytes).collect();
    bases.push(Frame::extensions(&[(0, &[0, 1, 4, 0, 0, 0, 0])]).bytes());
    bases.push(Frame::extensions(&[(44, &[0, 0, 1, 0, 0, 0, 9])]).bytes());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let mut bytes = bases[below(bases.len())].clone();
        // Mostly in the headers, where it decides something.
        for _ in 0..=below(4) {
            let anywhere = below(4) == 0;
            let range = if anywhere { bytes.len() } else { bytes.len().min(70) };
            let at = below(range);
            bytes[at] = match below(3) {
                0 => [0, 1, 0x40, 0x45, 0x81, 0x86, 0xff][below(7)],
                1 => bytes[at] ^ (1 << below(8)),
                _ => below(256) as u8,
            };
        }
        match below(4) {
            0 => bytes.truncate(FRAME_BYTES_MIN + below(bytes.len() - FRAME_BYTES_MIN)),
            1 => bytes.extend(std::iter::repeat_n(0, below(64))),
            _ => {}
        }
        seen.insert(check(&mut runner, &bytes));
    }
    assert!(seen.len() >= 15, "the damage reached only {seen:?}");
    runner.close().unwrap();
}

#[test]
fn random_bytes() {
    let Some(mut runner) = runner("random_bytes", &everything()) else {
        return;
    };
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]);
    for _ in 0..5_000 {
        let mut bytes = vec![0; FRAME_BYTES_MIN + rng.next_u32() as usize % 200];
        rng.fill_bytes(&mut bytes);
        // Half of them pretend to be IP.
        if bytes[0] & 1 == 0 {
            let ethertype = [[0x08, 0x00], [0x86, 0xdd]][usize::from(bytes[1] & 1)];
            bytes[12..14].copy_from_slice(&ethertype);
        }
        check(&mut runner, &bytes);
    }
    runner.close().unwrap();
}
