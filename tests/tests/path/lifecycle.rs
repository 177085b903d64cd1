//! Kill, restart, and who else may hold the interface.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use veltrix_tests::bench::rig::event_templates;
use veltrix_tests::bench::service::{Pinger, Provider};
use veltrix_tests::lab::{
    Bound, GENERATED_PORT, Generator, GeneratorSpec, Lab, LabSpec, Pacing, Receiver, ReceiverKind,
    Side, Sink,
};
use veltrix_tests::server::{Server, programs, require};

/// Waits for a pong; a loaded link loses pings.
fn pong(pinger: &mut Pinger, wait: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < wait {
        if pinger.ping(Duration::from_millis(5)).unwrap().is_some() {
            return true;
        }
    }
    false
}

#[test]
fn a_killed_server_leaves_nothing_and_its_successor_serves() {
    if !require("a_killed_server_leaves_nothing_and_its_successor_serves") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    let mut server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let _sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let first_program = programs(&lab, Side::Server).unwrap();
    assert_eq!(first_program.len(), 1);
    let mut pinger = Pinger::new(&lab).unwrap();
    assert!(pong(&mut pinger, Duration::from_secs(2)));
    let load = GeneratorSpec {
        cores: vec![0, 1],
        pacing: Pacing::RatePerS(100_000),
        ..GeneratorSpec::new(0, event_templates(1).unwrap())
    };
    let load = Generator::new(&lab, load).unwrap();
    let running = load.start(Bound::Time(Duration::from_secs(60))).unwrap();
    server.until(Duration::from_secs(2), |s| s.accounting.frames_in > 10_000).unwrap();

    assert!(pong(&mut pinger, Duration::from_secs(2)));
    let last_pong = Instant::now();
    server.kill().unwrap();
    let gone = Instant::now();
    while !programs(&lab, Side::Server).unwrap().is_empty() {
        assert!(gone.elapsed() < Duration::from_secs(1), "the program outlives its process");
    }
    let server = server.restart(&lab).unwrap();
    assert!(pong(&mut pinger, Duration::from_secs(5)), "{}", server.said());
    let gap = last_pong.elapsed();
    println!("restart gap under load: {:.1} ms", gap.as_secs_f64() * 1e3);

    server.until(Duration::from_secs(2), |s| s.accounting.frames_in > 10_000).unwrap();
    let now = programs(&lab, Side::Server).unwrap();
    assert!(now.len() == 1 && now != first_program, "{now:?}");
    running.stop();
    running.join().unwrap();
    let status = server.settled().unwrap();
    assert_eq!(status.nic.as_ref().unwrap().program_id, now[0]);
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    let ended = server.stop().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(programs(&lab, Side::Server).unwrap(), Vec::<u32>::new());
}

/// Clients do not wait for a server to start: what comes before the program is
/// attached, before its sockets are, and after, is accounted for.
#[test]
fn a_start_while_clients_send_leaves_no_gap_in_the_sums() {
    if !require("a_start_while_clients_send_leaves_no_gap_in_the_sums") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion fails.
        let _stop = StopOnDrop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                let mut pinger = Pinger::new(&lab).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    pinger.ping(Duration::from_micros(200)).unwrap();
                }
            });
        }
        for _ in 0..5 {
            let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
            server.until(Duration::from_secs(5), |s| s.accounting.lane_exits > 200).unwrap();
            let status = server.status().unwrap();
            assert!(status.accounting.closes, "{:#?}", status.accounting);
            assert_eq!(server.stop().unwrap().code, Some(0));
        }
    });
}

/// Sets a flag at the end of its scope.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_second_server_is_refused_and_told_who_is_there() {
    if !require("a_second_server_is_refused_and_told_who_is_there") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let other_socket = server.dir().join("other.sock");
    let other_socket = other_socket.to_str().unwrap();
    let program = programs(&lab, Side::Server).unwrap()[0];

    // The control socket is taken before the NIC is touched.
    let same = server.cli(&lab, &["run", "--nic", "veltrix-s"]).unwrap();
    assert_eq!(same.code, Some(3), "{same:?}");
    assert!(same.err.contains("already running with the control socket"), "{}", same.err);

    let arguments = ["run", "--nic", "veltrix-s", "--control-socket", other_socket];
    let other_port = server.cli(&lab, &[&arguments[..], &["--port", "4800"]].concat()).unwrap();
    assert_eq!(other_port.code, Some(3), "{other_port:?}");
    assert!(
        other_port.err.contains(&format!("another XDP program, id {program}, is attached")),
        "{}",
        other_port.err
    );

    // On the same port too the interface is the reason that matters.
    let same_port = server.cli(&lab, &arguments).unwrap();
    assert_eq!(same_port.code, Some(3), "{same_port:?}");
    assert!(
        same_port.err.contains(&format!("id {program}")) || same_port.err.contains("`ss -ulpn`"),
        "{}",
        same_port.err
    );
    let mut pinger = Pinger::new(&lab).unwrap();
    assert!(pong(&mut pinger, Duration::from_secs(1)), "the first one suffered");
    assert_eq!(programs(&lab, Side::Server).unwrap(), [program]);
    assert_eq!(server.stop().unwrap().code, Some(0));
}

#[test]
fn a_foreign_program_is_named_and_once_it_is_gone_the_server_starts() {
    if !require("a_foreign_program_is_named_and_once_it_is_gone_the_server_starts") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let foreign = Receiver::attach(&lab, Side::Server, ReceiverKind::Drop).unwrap();
    let id = programs(&lab, Side::Server).unwrap()[0];
    let refused = match Server::start(&lab, Provider::Xdp, &[]) {
        Ok(_) => panic!("it took the interface from another"),
        Err(refused) => format!("{refused:#}"),
    };
    assert!(refused.contains("exit status: 3"), "{refused}");
    assert!(refused.contains(&format!("another XDP program, id {id}, is attached")), "{refused}");
    assert!(refused.contains("ip link set dev veltrix-s xdp off"), "{refused}");
    assert_eq!(programs(&lab, Side::Server).unwrap(), [id], "the other one was detached");
    drop(foreign);
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let mut pinger = Pinger::new(&lab).unwrap();
    assert!(pong(&mut pinger, Duration::from_secs(1)));
    assert_eq!(server.stop().unwrap().code, Some(0));
}
