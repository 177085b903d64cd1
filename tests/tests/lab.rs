//! The lab measured against itself: it comes up, it vanishes, and its
//! generator's and sink's counts are exact. What other tests measure with it
//! is only as good as this.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use veltrix_abi::wire::Kind;
use veltrix_tests::lab::{
    Bound, CLIENT_INTERFACE, CLIENT_IPV4, CLIENT_IPV6, Datagram, FrameSpec, GENERATED_PORT,
    Generator, GeneratorSpec, Lab, LabSpec, Pacing, Receiver, ReceiverKind, SERVER_INTERFACE,
    SERVER_IPV4, SERVER_IPV6, Side, Sink, Template, Vary, require, require_privileges,
};

const PORT: u16 = 7_000;

/// One event: 138 bytes of frame.
fn small() -> Template {
    Template::new(&FrameSpec::ipv4(PORT), &Datagram::default().events(1, 0)).unwrap()
}

/// 25 events: 1,290 bytes of frame.
fn large() -> Template {
    Template::new(&FrameSpec::ipv4(PORT), &Datagram::default().events(25, 0)).unwrap()
}

fn one_core(templates: Vec<Template>) -> GeneratorSpec {
    GeneratorSpec::new(0, templates)
}

/// Polls until `done` or three seconds are over.
fn eventually(done: impl FnMut() -> bool) -> bool {
    let mut done = done;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        if done() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Whether any thread on the host is in the network namespace `inode`, or
/// any process holds a descriptor of it.
fn namespace_is_held(inode: u64) -> bool {
    let is_it = |path: &std::path::Path| std::fs::metadata(path).is_ok_and(|m| m.ino() == inode);
    let entries =
        |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let name = format!("net:[{inode}]");
    entries("/proc".into())
        .filter(|process| process.file_name().to_string_lossy().parse::<u32>().is_ok())
        .any(|process| {
            entries(process.path().join("task")).any(|task| is_it(&task.path().join("ns/net")))
                || entries(process.path().join("fd")).any(|fd| {
                    std::fs::read_link(fd.path())
                        .is_ok_and(|target| target.to_string_lossy() == name)
                })
        })
}

fn host_interfaces() -> String {
    let output = Command::new("ip").args(["-br", "link"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn lab_comes_up_silent_and_both_families_talk() {
    if !require_privileges("lab_comes_up_silent_and_both_families_talk") {
        return;
    }
    let host_before = host_interfaces();
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    assert_eq!(host_interfaces(), host_before, "the lab shows on the host");
    assert_eq!((lab.queues(Side::Server).unwrap(), lab.queues(Side::Client).unwrap()), (2, 2));
    for (side, interface) in [(Side::Server, SERVER_INTERFACE), (Side::Client, CLIENT_INTERFACE)] {
        let queues = format!("/sys/class/net/{interface}/queues/rx-0");
        assert!(lab.on(side, || std::path::Path::new(&queues).exists()), "{interface} not in /sys");
    }
    // Unsolicited reports and solicitations would come within a second or two.
    thread::sleep(Duration::from_secs(2));
    for side in [Side::Server, Side::Client] {
        let counters = lab.counters(side).unwrap();
        assert_eq!((counters.rx_packets, counters.tx_packets), (0, 0), "{side:?} is not silent");
    }
    let pairs: [(IpAddr, IpAddr); 2] =
        [(SERVER_IPV4.into(), CLIENT_IPV4.into()), (SERVER_IPV6.into(), CLIENT_IPV6.into())];
    for (server, client) in pairs {
        let server = lab.server(|| UdpSocket::bind((server, PORT))).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let client = lab.client(|| UdpSocket::bind((client, 0))).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        client.send_to(b"there", server.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        let (bytes, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..bytes], from), (&b"there"[..], client.local_addr().unwrap()));
        server.send_to(b"back", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    }
    for side in [Side::Server, Side::Client] {
        let counters = lab.counters(side).unwrap();
        assert_eq!(
            (counters.rx_packets, counters.tx_packets),
            (2, 2),
            "{side:?} counts others' packets"
        );
    }
}

#[test]
fn lab_vanishes_when_dropped() {
    if !require_privileges("lab_vanishes_when_dropped") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let inodes = lab.namespace_inodes();
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let mut child = lab.spawn_server(sleep).unwrap();
    assert!(inodes.iter().all(|inode| namespace_is_held(*inode)));
    drop(lab);
    // The child outlives the handle it was started with, not the lab.
    assert!(eventually(|| child.try_wait().unwrap().is_some()), "a child outlives its lab");
    assert!(eventually(|| !inodes.iter().any(|inode| namespace_is_held(*inode))));
}

/// Makes [`hold_a_lab_until_killed`] do so.
const HOLD_ENV: &str = "VELTRIX_TEST_HOLD_LAB";

/// Not a test by itself: what `lab_vanishes_when_killed` starts and kills.
#[test]
fn hold_a_lab_until_killed() {
    if std::env::var_os(HOLD_ENV).is_none() {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let _receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let generator = Generator::new(&lab, one_core(vec![small()])).unwrap();
    let _running = generator.start(Bound::Time(Duration::from_secs(30))).unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let child = lab.spawn_client(sleep).unwrap();
    let [server, client] = lab.namespace_inodes();
    println!("held {server} {client} {}", child.id());
    thread::sleep(Duration::from_secs(30));
}

#[test]
fn lab_vanishes_when_killed() {
    if !require("lab_vanishes_when_killed") {
        return;
    }
    let host_before = host_interfaces();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_a_lab_until_killed", "--nocapture"])
        .env(HOLD_ENV, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let held = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("held ").map(|(_, rest)| rest.to_owned()))
        .expect("the holder came up");
    let numbers: Vec<u64> = held.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(namespace_is_held(numbers[0]) && namespace_is_held(numbers[1]));
    // SIGKILL: nothing in the holder runs any more.
    holder.kill().unwrap();
    holder.wait().unwrap();
    let gone = eventually(|| !namespace_is_held(numbers[0]) && !namespace_is_held(numbers[1]));
    assert!(gone, "a namespace outlives the process that made it");
    // Its child has no parent to reap it but init; a zombie is dead enough.
    let dead = |pid: u64| {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
    };
    assert!(eventually(|| dead(numbers[2])), "a child outlives the process that made the lab");
    assert_eq!(host_interfaces(), host_before);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("nsfs"), "a namespace is pinned by a mount");
}

#[test]
fn a_child_runs_inside_its_namespace() {
    if !require_privileges("a_child_runs_inside_its_namespace") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let mut ip = Command::new("ip");
    ip.args(["-br", "addr", "show", CLIENT_INTERFACE]).stdout(Stdio::piped());
    let mut child = lab.spawn_client(ip).unwrap();
    let text = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(text.contains("10.77.0.2/24") && text.contains("fd77::2/64"), "{text}");
    assert!(!text.contains("fe80"), "a link-local address speaks by itself: {text}");
}

/// A million frames, alternating sizes: generator, interface and receiver agree.
fn exact_over_a_million(queues: u32, cores: Vec<usize>) {
    const FRAMES: u64 = 1_000_000;
    let lab = Lab::new(LabSpec::with_queues(queues)).unwrap();
    let receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let queues_fed: BTreeSet<usize> = cores.iter().map(|core| core % queues as usize).collect();
    let (small, large) = (small(), large());
    let (small_bytes, large_bytes) = (small.bytes().len() as u64, large.bytes().len() as u64);
    assert_eq!((small_bytes, large_bytes), (138, 1_290));
    // Three cores' worth of turns against two templates mixes both.
    let spec = GeneratorSpec { cores, call_frames: 3_000, ..one_core(vec![small, large]) };
    let mut generator = Generator::new(&lab, spec).unwrap();
    let sent = generator.send(FRAMES).unwrap();
    println!("{queues} queues: {:.2} Mpps {sent:?}", sent.delivered_mpps());

    assert_eq!(sent.issued, FRAMES);
    assert_eq!((sent.refused, sent.left_in_ring), (0, 0));
    assert_eq!(sent.delivered + sent.ring_full, FRAMES);
    assert!(sent.delivered > FRAMES / 2, "most frames were refused: {sent:?}");
    let received = receiver.read().unwrap();
    assert_eq!(received.frames, sent.delivered);
    let [small, large] = sent.templates[..] else { panic!("{sent:?}") };
    assert_eq!(small.issued + large.issued, FRAMES);
    assert_eq!(small.delivered + large.delivered, sent.delivered);
    assert_eq!(received.bytes, small.delivered * small_bytes + large.delivered * large_bytes);
    let counters = lab.counters(Side::Server).unwrap();
    assert_eq!(counters.sum(|q| q.xdp_packets), sent.delivered);
    assert_eq!(counters.sum(|q| q.xdp_drops), sent.delivered);
    for (queue, delivered) in sent.delivered_by_queue.iter().enumerate() {
        assert_eq!(counters.queues[queue].xdp_packets, *delivered, "queue {queue}");
        assert_eq!(*delivered > 0, queues_fed.contains(&queue), "queue {queue}");
    }
}

#[test]
fn generator_is_exact_over_a_million_frames_and_one_queue() {
    if require("generator_is_exact_over_a_million_frames_and_one_queue") {
        exact_over_a_million(1, vec![0]);
    }
}

#[test]
fn generator_is_exact_over_a_million_frames_and_two_queues() {
    if require("generator_is_exact_over_a_million_frames_and_two_queues") {
        exact_over_a_million(2, vec![0, 1, 1]);
    }
}

#[test]
fn two_generators_at_once_are_exact_each_and_one_queue_takes_one() {
    if !require("two_generators_at_once_are_exact_each_and_one_queue_takes_one") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    let receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let start = |core| {
        let spec = GeneratorSpec { cores: vec![core], ..one_core(vec![small()]) };
        let bound = Bound::Time(Duration::from_secs(60));
        Generator::new(&lab, spec).unwrap().start(bound).unwrap()
    };
    let (first, second) = (start(0), start(1));
    assert!(eventually(|| first.issued() > 0));
    let refused = Generator::new(&lab, one_core(vec![small()])).unwrap().send(1).unwrap_err();
    assert!(refused.to_string().contains("feed receive queue 0 of 2"), "{refused:#}");
    assert!(eventually(|| first.issued() > 300_000 && second.issued() > 300_000));
    first.stop();
    second.stop();
    let (_, first) = first.join().unwrap();
    let (_, second) = second.join().unwrap();
    let counters = lab.counters(Side::Server).unwrap();
    assert_eq!(counters.queues[0].xdp_packets, first.delivered, "{first:?}");
    assert_eq!(counters.queues[1].xdp_packets, second.delivered, "{second:?}");
    assert_eq!(receiver.read().unwrap().frames, first.delivered + second.delivered);
}

#[test]
fn without_a_receiver_every_frame_is_refused_and_counted() {
    if !require("without_a_receiver_every_frame_is_refused_and_counted") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let mut generator = Generator::new(&lab, one_core(vec![small()])).unwrap();
    let sent = generator.send(10_000).unwrap();
    assert_eq!((sent.issued, sent.delivered, sent.refused), (10_000, 0, 10_000), "{sent:?}");
}

#[test]
fn a_frame_longer_than_the_mtu_is_counted_out() {
    if !require("a_frame_longer_than_the_mtu_is_counted_out") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let long = Template::raw(vec![0; 1_519]);
    let fits = Template::raw(vec![0; 1_518]);
    let spec = GeneratorSpec { call_frames: 100, ..one_core(vec![long, fits]) };
    let sent = Generator::new(&lab, spec).unwrap().send(200).unwrap();
    assert_eq!((sent.templates[0].delivered, sent.templates[1].delivered), (0, 100), "{sent:?}");
    assert_eq!(receiver.read().unwrap().frames, 100);
}

/// Sends `frames` to a kernel socket behind a passing receiver; gives the
/// distinct sources. The kernel drops what has a wrong checksum.
fn sources_seen(spec: &FrameSpec, vary: Vary, frames: u64) -> (u64, BTreeSet<SocketAddr>) {
    let lab = Lab::new(LabSpec::default()).unwrap();
    let _receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Pass).unwrap();
    let socket = lab.server(|| UdpSocket::bind((spec.destination, PORT))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let template = Template::new(spec, &Datagram::default().events(1, 0)).unwrap();
    let mut generator =
        Generator::new(&lab, GeneratorSpec { vary, ..one_core(vec![template]) }).unwrap();
    let (mut count, mut sources, mut buffer) = (0, BTreeSet::new(), [0; 2_048]);
    while count < frames {
        // No more at a time than a socket buffer of the default size holds.
        let sent = generator.send((frames - count).min(25)).unwrap();
        assert_eq!(sent.delivered, sent.issued, "{sent:?}");
        for _ in 0..sent.issued {
            let Ok((_, from)) = socket.recv_from(&mut buffer) else {
                return (count, sources);
            };
            sources.insert(from);
            count += 1;
        }
    }
    (count, sources)
}

#[test]
fn variation_varies_and_checksums_hold() {
    if !require("variation_varies_and_checksums_hold") {
        return;
    }
    let vary = Vary { source_mask: 0x1f, port_mask: 0x7 };
    for spec in [
        FrameSpec::ipv4(PORT),
        FrameSpec { udp_checksum: true, ..FrameSpec::ipv4(PORT) },
        FrameSpec::ipv6(PORT),
    ] {
        let (count, sources) = sources_seen(&spec, vary, 1_000);
        assert_eq!(count, 1_000, "the kernel refused frames of {spec:?}");
        // Five bits of address times three of port, the rest as in the template.
        assert_eq!(sources.len(), 256, "{spec:?}");
        let ports: BTreeSet<u16> = sources.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, (0..8).map(|low| GENERATED_PORT & !7 | low).collect());
        if spec.source.is_ipv4() {
            let addresses: BTreeSet<IpAddr> = sources.iter().map(SocketAddr::ip).collect();
            let wanted = (0..32).map(|low| IpAddr::from(Ipv4Addr::new(10, 78, 0, low)));
            assert_eq!(addresses, wanted.collect());
        }
        let (count, sources) = sources_seen(&spec, Vary::default(), 200);
        assert_eq!((count, sources.len()), (200, 1));
    }
}

#[test]
fn pacing_holds_the_rate_and_lossless_loses_nothing() {
    if !require("pacing_holds_the_rate_and_lossless_loses_nothing") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let mut generator = Generator::new(&lab, one_core(vec![small()])).unwrap();
    generator.set_pacing(Pacing::RatePerS(50_000)).unwrap();
    let sent = generator.send_for(Duration::from_millis(500)).unwrap();
    // A busy machine may fall behind; it must never run ahead.
    assert!((10_000..=25_100).contains(&sent.issued), "{sent:?}");
    generator.set_pacing(Pacing::Lossless).unwrap();
    let lossless = generator.send(500_000).unwrap();
    println!("lossless: {:.2} Mpps", lossless.delivered_mpps());
    assert_eq!((lossless.delivered, lossless.ring_full), (500_000, 0), "{lossless:?}");
    assert_eq!(receiver.read().unwrap().frames, sent.delivered + 500_000);
    let zero = generator.set_pacing(Pacing::RatePerS(0)).unwrap_err();
    assert!(zero.to_string().contains("wanted at least 1"), "{zero:#}");
}

#[test]
fn a_running_generator_can_be_stopped() {
    if !require("a_running_generator_can_be_stopped") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let generator = Generator::new(&lab, one_core(vec![small()])).unwrap();
    let running = generator.start(Bound::Time(Duration::from_secs(60))).unwrap();
    assert!(eventually(|| running.delivered() > 10_000));
    running.stop();
    let (mut generator, sent) = running.join().unwrap();
    assert!(sent.elapsed < Duration::from_secs(30));
    let again = generator.send(1_000).unwrap();
    assert_eq!(receiver.read().unwrap().frames, sent.delivered + again.delivered);
}

#[test]
fn queues_change_live_under_attached_programs() {
    if !require("queues_change_live_under_attached_programs") {
        return;
    }
    let lab = Lab::new(LabSpec { queues: 2, queues_max: 8, ..LabSpec::default() }).unwrap();
    let receiver = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let _sink = Sink::attach(&lab, None).unwrap();
    for queues in [4, 1, 8, 2] {
        lab.set_queues_both(queues).unwrap();
        assert_eq!(lab.queues(Side::Server).unwrap(), queues);
        assert_eq!(lab.queues(Side::Client).unwrap(), queues);
    }
    let refused = lab.set_queues(Side::Server, 1).unwrap_err();
    assert!(format!("{refused:#}").contains("veltrix-c has 2 rx and 2 tx queues"), "{refused:#}");
    let mut generator = Generator::new(&lab, one_core(vec![small()])).unwrap();
    let sent = generator.send(10_000).unwrap();
    assert_eq!(receiver.read().unwrap().frames, sent.delivered);
}

#[test]
fn sink_counts_crafted_replies() {
    if !require("sink_counts_crafted_replies") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let sink = Sink::attach(&lab, Some(41_000..=41_999)).unwrap();
    let datagram = Datagram::default();
    let many: Vec<(u64, &[u8])> = (0..33).map(|sequence| (sequence, &[1_u8][..])).collect();
    let mut cut = datagram.ack(&[(1, &[1; 8]), (2, &[1; 8])]);
    cut.truncate(cut.len() - 24);
    let replies = [
        datagram.ack(&[(1, &[1; 3]), (2, &[1; 9]), (3, &[1; 24])]),
        datagram.ack(&many[..32]),
        // One more than is walked, and one that ends inside its second entry.
        datagram.ack(&many),
        cut,
        datagram.of_kind(Kind::Pong, &[0; 24]),
        datagram.of_kind(Kind::Busy, &[0; 8]),
        datagram.of_kind(Kind::Refused, &[0; 8]),
        b"no magic, though long enough for a header: forty-eight bytes".to_vec(),
        b"short".to_vec(),
    ];
    let server = lab.server(|| UdpSocket::bind((SERVER_IPV4, PORT))).unwrap();
    let sdk = lab.client(|| UdpSocket::bind((CLIENT_IPV4, 50_000))).unwrap();
    sdk.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    for port in [41_000, 41_999, 50_000] {
        for reply in &replies {
            server.send_to(reply, (CLIENT_IPV4, port)).unwrap();
        }
    }
    for reply in &replies {
        let mut buffer = [0; 4_096];
        let bytes = sdk.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], &reply[..], "a socket's reply did not pass untouched");
    }
    let reading = sink.detach().unwrap();
    for (counts, times) in [(reading.dropped, 2), (reading.passed, 1)] {
        assert_eq!(counts.frames, 9 * times);
        assert_eq!(counts.foreign, 2 * times);
        assert_eq!(counts.kind(Kind::Ack), 4 * times);
        assert_eq!(counts.kind(Kind::Pong), times);
        assert_eq!(counts.kind(Kind::Busy), times);
        assert_eq!(counts.kind(Kind::Refused), times);
        assert_eq!(counts.kind(Kind::Welcome), 0);
        assert_eq!(counts.ack_entries, (3 + 32 + 32 + 1) * times);
        assert_eq!(counts.acked_events, (36 + 32 + 32 + 8) * times);
        assert_eq!(counts.acks_cut, 2 * times);
        let bytes: usize = replies.iter().map(|reply| reply.len() + 42).sum();
        assert_eq!(counts.bytes, bytes as u64 * times);
    }
}

#[test]
fn sink_finds_replies_behind_vlan_tags_and_in_ipv6() {
    if !require("sink_finds_replies_behind_vlan_tags_and_in_ipv6") {
        return;
    }
    let lab = Lab::new(LabSpec::default()).unwrap();
    let sink = Sink::attach(&lab, Some(41_000..=41_000)).unwrap();
    let ack = Datagram::default().ack(&[(1, &[1; 5])]);
    let to_client = |spec: FrameSpec| FrameSpec { source_port: 41_000, ..spec }.reversed();
    let mut frames = Vec::new();
    for base in [FrameSpec::ipv4(PORT), FrameSpec::ipv6(PORT)] {
        for vlans in [vec![], vec![7], vec![7, 8]] {
            frames.push(to_client(FrameSpec { vlans, ..base.clone() }).build(&ack).unwrap());
        }
    }
    lab.transmit(Side::Server, &frames).unwrap();
    let reading = || sink.read().unwrap().dropped;
    assert!(eventually(|| reading().frames == 6), "{:?}", sink.read().unwrap());
    assert_eq!((reading().kind(Kind::Ack), reading().acked_events), (6, 30));
    assert_eq!(sink.read().unwrap().passed.frames, 0);
}
