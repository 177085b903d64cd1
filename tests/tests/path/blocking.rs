//! The blocklist of a running server, while the blocked keep sending.

use std::time::{Duration, Instant};

use veltrix::admin::accounting::exit;
use veltrix::admin::status::Status;
use veltrix_abi::Exit;
use veltrix_tests::bench::rig::{PORT, ping_template};
use veltrix_tests::bench::service::Provider;
use veltrix_tests::lab::{
    Bound, Datagram, FrameSpec, GENERATED_PORT, Generator, GeneratorSpec, Lab, LabSpec, Pacing,
    Running, Sink, Template,
};
use veltrix_tests::server::{Server, require};

fn blocked(status: &Status) -> u64 {
    status.xdp_queues.iter().map(|row| exit(&row.exits, Exit::DropBlocked)).sum()
}

fn sending(lab: &Lab, template: Template) -> Running {
    let spec =
        GeneratorSpec { pacing: Pacing::RatePerS(20_000), ..GeneratorSpec::new(0, vec![template]) };
    let generator = Generator::new(lab, spec).unwrap();
    generator.start(Bound::Time(Duration::from_secs(60))).unwrap()
}

/// Whether replies come within `wait`.
fn answered(sink: &Sink, wait: Duration) -> bool {
    let before = sink.read().unwrap().dropped.frames;
    std::thread::sleep(wait);
    sink.read().unwrap().dropped.frames > before
}

/// A frame on its way and a reply in a ring: gone after so long.
const IN_FLIGHT: Duration = Duration::from_millis(100);

#[test]
fn a_block_takes_hold_and_expires_while_traffic_runs() {
    if !require("a_block_takes_hold_and_expires_while_traffic_runs") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let running = sending(&lab, ping_template().unwrap());
    server.until(Duration::from_secs(2), |s| s.accounting.lane_exits > 1_000).unwrap();
    assert!(answered(&sink, IN_FLIGHT));

    let add = ["block", "add", "10.78.0.0/24", "--ttl", "2s", "--reason", "test"];
    let added = Instant::now();
    let done = server.cli(&lab, &add).unwrap();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.out, "blocked 10.78.0.0/24 for 2s\n");
    std::thread::sleep(IN_FLIGHT);
    assert!(!answered(&sink, Duration::from_millis(300)), "a blocked source is answered");
    let status = server.status().unwrap();
    assert!(blocked(&status) > 1_000, "{status:#?}");
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    let list = server.cli(&lab, &["block", "list", "--json"]).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(rows[0]["cidr"], "10.78.0.0/24", "{}", list.out);
    assert_eq!(rows[0]["reason"], "test");
    assert!((1..=2).contains(&rows[0]["expires_in_s"].as_u64().unwrap()), "{}", list.out);
    let list = server.cli(&lab, &["block", "list"]).unwrap();
    assert!(list.out.contains("10.78.0.0/24") && list.out.contains("test"), "{}", list.out);

    // The program goes by its coarse clock (4 ms), whatever the control loop does.
    while !answered(&sink, Duration::from_millis(20)) {
        assert!(added.elapsed() < Duration::from_secs(4), "the block does not expire");
    }
    let held = added.elapsed();
    println!("a block of 2 s held {held:?}");
    assert!(held > Duration::from_millis(1_950), "it ended early: {held:?}");
    assert!(held < Duration::from_millis(2_300), "it ended late: {held:?}");
    let list = server.cli(&lab, &["block", "list"]).unwrap();
    assert_eq!(list.out, "nothing is blocked\n");
    // The control loop removes the entry within its next round.
    while !server.said().contains("block of 10.78.0.0/24 expired") {
        assert!(added.elapsed() < Duration::from_secs(5), "{}", server.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    running.stop();
    let (_, sent) = running.join().unwrap();
    let status = server.settled().unwrap();
    assert_eq!(status.accounting.frames_in, sent.delivered);
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    assert_eq!(server.stop().unwrap().code, Some(0));
}

#[test]
fn an_ipv6_prefix_is_blocked_and_unblocked() {
    if !require("an_ipv6_prefix_is_blocked_and_unblocked") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let template = Template::new(&FrameSpec::ipv6(PORT), &Datagram::default().ping(1)).unwrap();
    let _running = sending(&lab, template);
    server.until(Duration::from_secs(2), |s| s.accounting.lane_exits > 1_000).unwrap();
    let cli = |arguments: &[&str]| server.cli(&lab, arguments).unwrap();
    let add = |cidr| cli(&["block", "add", cidr, "--ttl", "forever", "--reason", "test"]);

    assert_eq!(add("fd78::/64").code, Some(0));
    std::thread::sleep(IN_FLIGHT);
    assert!(!answered(&sink, IN_FLIGHT), "a blocked source is answered");
    assert!(cli(&["block", "list"]).out.contains("never"));
    let deleted = cli(&["block", "del", "fd78::/64"]);
    assert_eq!((deleted.code, &*deleted.out), (Some(0), "unblocked fd78::/64\n"));
    std::thread::sleep(IN_FLIGHT);
    assert!(answered(&sink, IN_FLIGHT), "an unblocked source is not answered");
    let again = cli(&["block", "del", "fd78::/64"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("fd78::/64 is not blocked"), "{}", again.err);

    // Another prefix of the same length is not concerned.
    assert_eq!(add("fd79::/64").code, Some(0));
    std::thread::sleep(IN_FLIGHT);
    assert!(answered(&sink, IN_FLIGHT));

    for (cidr, wanted) in [
        ("10.78.0.0/33", "32"),
        ("10.78.0.300", "192.0.2.0/24"),
        ("10.78.0.1/24", "10.78.0.0/24"),
        ("fd78::/129", "128"),
        ("", "192.0.2.0/24"),
    ] {
        let bad = add(cidr);
        assert_eq!(bad.code, Some(2), "{bad:?}");
        // What was seen and what was wanted.
        assert!(bad.err.contains(cidr) && bad.err.contains(wanted), "{}", bad.err);
    }
    let long = "x".repeat(41);
    let bad = cli(&["block", "add", "10.0.0.1", "--ttl", "1s", "--reason", &long]);
    assert_eq!(bad.code, Some(2), "{bad:?}");
    assert!(bad.err.contains("found a reason of 41 bytes, wanted 1 to 40"), "{}", bad.err);
}
