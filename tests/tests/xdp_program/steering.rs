//! Which row a queue counts in, and what goes to a socket.

use std::os::fd::AsFd as _;

use socket2::{Domain, Socket, Type};
use veltrix::base::sockopt::set_int;
use veltrix::nic::program::Settings;
use veltrix_abi::Exit;
use veltrix_abi::exits::FRAMES_SLOT;
use veltrix_tests::lab::{Lab, LabSpec, Side, require_privileges};
use veltrix_tests::testrun::{Queue, action};

use super::frames::Frame;
use super::{plain, runner};

/// An AF_XDP socket with an RX ring, which is all that the map asks for.
fn socket() -> Socket {
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None).unwrap();
    set_int(socket.as_fd(), libc::SOL_XDP, libc::XDP_RX_RING, 64).unwrap();
    socket
}

#[test]
fn a_queue_with_a_socket_is_redirected() {
    let Some(mut runner) = runner("a_queue_with_a_socket_is_redirected", &plain()) else {
        return;
    };
    let frame = Frame::v4().bytes();
    assert_eq!(runner.frame(&frame).unwrap().exit, Exit::PassFallback);
    let socket = socket();
    runner.half.xsk_insert(0, socket.as_fd()).unwrap();
    let outcome = runner.frame(&frame).unwrap();
    assert_eq!((outcome.exit, outcome.action), (Exit::RedirectXsk, action::REDIRECT));
    let other = Frame::v4().with(|f| f.port += 1).bytes();
    assert_eq!(runner.frame(&other).unwrap().exit, Exit::PassOtherPort);
    runner.half.xsk_remove(0).unwrap();
    let outcome = runner.frame(&frame).unwrap();
    assert_eq!((outcome.exit, outcome.action), (Exit::PassFallback, action::PASS));
    let beyond = runner.half.xsk_insert(1, socket.as_fd()).unwrap_err();
    assert!(beyond.to_string().contains("socket of queue 1"), "{beyond}");
    runner.close().unwrap();
}

#[test]
fn a_socket_that_closes_leaves_the_fallback() {
    let name = "a_socket_that_closes_leaves_the_fallback";
    let Some(mut runner) = runner(name, &plain()) else {
        return;
    };
    let socket = socket();
    runner.half.xsk_insert(0, socket.as_fd()).unwrap();
    drop(socket);
    assert_eq!(runner.frame(&Frame::v4().bytes()).unwrap().exit, Exit::PassFallback);
}

#[test]
fn each_queue_counts_in_its_own_row_and_unknown_ones_in_row_0() {
    let name = "each_queue_counts_in_its_own_row_and_unknown_ones_in_row_0";
    if !require_privileges(name) {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(5)).unwrap();
    let interface = lab.ifindex(Side::Server).unwrap();
    lab.server(|| {
        let Some(mut runner) = runner(name, &Settings { queues: 3, ..plain() }) else {
            return;
        };
        let socket = socket();
        runner.half.xsk_insert(1, socket.as_fd()).unwrap();
        let frame = Frame::v6().bytes();
        for queue in 0..5 {
            let row = if queue < 3 { queue + 1 } else { 0 };
            let outcome = runner.frame_on(&frame, Some(Queue { interface, queue }), row).unwrap();
            let wanted = if queue == 1 { Exit::RedirectXsk } else { Exit::PassFallback };
            assert_eq!(outcome.exit, wanted, "queue {queue}");
        }
        let frames: Vec<u64> =
            runner.half.exits().unwrap().iter().map(|row| row[FRAMES_SLOT]).collect();
        assert_eq!(frames, [2, 1, 1, 1]);
        runner.close().unwrap();
    });
}
