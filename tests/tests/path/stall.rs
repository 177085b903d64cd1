//! A lane that stands still, and one whose frames do not come back.

use std::sync::Arc;
use std::time::Duration;

use veltrix::admin::accounting::kernel_drops;
use veltrix::base::counters::LaneCounters;
use veltrix::base::port::Port as _;
use veltrix_abi::Exit;
use veltrix_abi::exits::FRAMES_SLOT;
use veltrix_tests::bench::rig::{self, Rig, event_templates};
use veltrix_tests::bench::service::{Pinger, Provider};
use veltrix_tests::lab::{
    GENERATED_PORT, Generator, GeneratorSpec, Lab, LabSpec, Side, Sink, Vary,
};
use veltrix_tests::server::{Server, require};

#[test]
fn a_stalled_lane_is_counted_and_does_not_block_the_interface() {
    if !require("a_stalled_lane_is_counted_and_does_not_block_the_interface") {
        return;
    }
    const FRAMES: u64 = 200_000;
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let _sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let spec =
        GeneratorSpec { cores: vec![0, 1], ..GeneratorSpec::new(0, event_templates(1).unwrap()) };
    let mut generator = Generator::new(&lab, spec).unwrap();
    server.signal("STOP").unwrap();
    let sent = generator.send(FRAMES).unwrap();
    // The interface took them all: the program ran for each, nothing piled up.
    assert_eq!((sent.issued, sent.refused, sent.left_in_ring), (FRAMES, 0, 0), "{sent:?}");
    assert!(sent.delivered > FRAMES / 2, "{sent:?}");
    server.signal("CONT").unwrap();
    let status = server.settled().unwrap();
    assert_eq!(status.accounting.frames_in, sent.delivered);
    for lane in &status.lanes {
        assert!(lane.xdp_statistics.rx_ring_full > 0, "{lane:#?}");
        assert_eq!(lane.xdp_statistics.rx_dropped, 0, "{lane:#?}");
        // A ring of the default size was served after the stall.
        assert_eq!(lane.frames, 2_048, "{lane:#?}");
    }
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    let dropped: u64 = status.lanes.iter().map(kernel_drops).sum();
    assert_eq!(status.accounting.kernel_dropped, dropped);
    let mut pinger = Pinger::new(&lab).unwrap();
    assert!(pinger.ping(Duration::from_secs(1)).unwrap().is_some());
    assert_eq!(server.stop().unwrap().code, Some(0));
}

/// In copy mode a frame that finds FILL empty is in `rx_dropped`, and once
/// more in `rx_fill_ring_empty_descs`: the first is the term of the sums.
#[test]
fn a_starved_fill_ring_is_counted_as_rx_dropped() {
    if !require("a_starved_fill_ring_is_counted_as_rx_dropped") {
        return;
    }
    const FRAMES: u64 = 20_000;
    let rig = Rig::new().unwrap();
    let mut attached = rig.attach().unwrap();
    let xsk = rig.socket(&mut attached).unwrap();
    let ifindex = rig.lab.ifindex(Side::Server).unwrap();
    let monitor = xsk.monitor(&rig::spec(ifindex, 0)).unwrap();
    let frames = u64::from(xsk.umem().frames());
    let counters = Arc::new(LaneCounters::default());
    let mut port = rig::port(xsk, &counters);
    let mut generator = rig.generator(event_templates(1).unwrap(), Vary::default()).unwrap();
    // Takes what arrives and keeps it, so that less and less is lent.
    let mut delivered = 0;
    let mut kept = Vec::with_capacity(frames as usize);
    while delivered < FRAMES {
        delivered += generator.send(1_000).unwrap().delivered;
        while port.receive(rig::LANE_BATCH) > 0 {
            while let Some(packet) = port.take() {
                kept.push(packet.unwrap());
            }
            port.flush();
        }
    }
    let taken = kept.len() as u64;
    let row = attached.exits().unwrap();
    let statistics = monitor.statistics().unwrap();
    println!("{delivered} delivered, {taken} taken, {statistics:?}");
    assert_eq!(row[FRAMES_SLOT], delivered);
    assert_eq!(row[Exit::RedirectXsk.slot()], delivered);
    // Each frame that can be lent was used once; the port keeps a batch back for replies.
    let lent = frames - rig::LANE_BATCH as u64..=frames;
    assert!(lent.contains(&taken), "{taken} of {frames} frames");
    assert_eq!(statistics.rx_dropped, delivered - taken);
    assert_eq!(statistics.rx_fill_ring_empty_descs, delivered - taken);
    assert_eq!(statistics.rx_ring_full, 0);
    // Given back, they are lent again and receive again.
    for packet in kept {
        port.recycle(packet);
    }
    port.flush();
    let again = generator.send(50).unwrap().delivered;
    assert_eq!(port.receive(rig::LANE_BATCH) as u64, again);
}
