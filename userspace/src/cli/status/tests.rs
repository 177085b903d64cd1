//! What an operator sees.

use expect_test::expect;

use super::*;
use crate::admin::status::{Alarm, Counts, NicStatus, Replies, RingDepths, XdpStatistics};

fn counts(rows: &[(Exit, u64)]) -> Counts {
    rows.iter().map(|(exit, count)| (exit.label().to_owned(), *count)).collect()
}

fn lane(number: u16, pings: u64) -> LaneStatus {
    LaneStatus {
        lane: number,
        core: Some(2 + usize::from(number)),
        queue: Some(number.into()),
        wait: "wakeup".into(),
        umem_pages: "hugetlb".into(),
        umem_bytes: 32 << 20,
        frames: pings,
        exits: counts(&[(Exit::Ping, pings)]),
        replies: Replies { sent: pings, ..Replies::default() },
        syscalls: pings / 100,
        sleeps: 12,
        run_delay_ns: Some(18_615_000_000),
        ..LaneStatus::default()
    }
}

fn queue(number: u32, exits: &[(Exit, u64)]) -> QueueStatus {
    let frames = exits.iter().map(|(_, count)| count).sum();
    QueueStatus { queue: Some(number), frames, exits: counts(exits), ..QueueStatus::default() }
}

fn xdp() -> Status {
    let mut full = lane(1, 1_000_000);
    full.xdp_statistics = XdpStatistics { rx_ring_full: 2_500, ..XdpStatistics::default() };
    full.rings = RingDepths { rx: 64, ..RingDepths::default() };
    let mut status = Status {
        version: "0.1.0".into(),
        pid: 4242,
        uptime_s: 3_723,
        provider: Provider::Xdp,
        provider_reason: "server.nic names veth0".into(),
        nic: Some(NicStatus {
            name: "veth0".into(),
            driver: "veth".into(),
            xdp_mode: "driver".into(),
            program_id: 17,
            instructions: 305,
            rx_queues: 2,
            tx_queues: 2,
            queues_at_start: 2,
        }),
        listen: "[::]:4747".into(),
        port: 4747,
        partitions: 64,
        payload_bytes_max: 1_232,
        lanes: vec![lane(0, 1_234_567), full],
        fallback: Some(LaneStatus {
            umem_pages: "4k".into(),
            wait: "wakeup".into(),
            ..LaneStatus::default()
        }),
        xdp_queues: vec![
            queue(0, &[(Exit::RedirectXsk, 1_234_567), (Exit::PassNotIp, 3), (Exit::DropMagic, 5)]),
            queue(1, &[(Exit::RedirectXsk, 1_002_564), (Exit::DropBlocked, 70)]),
        ],
        ..Status::default()
    };
    status.close();
    status
}

#[test]
fn a_healthy_server_on_a_nic_with_the_queue_that_loses_frames_first() {
    let status = xdp();
    assert!(status.is_healthy(), "{:?}", status.accounting.gaps);
    expect![[r#"
        veltrix 0.1.0, process 4242, up 1h 2m 3s
        provider  AF_XDP: server.nic names veth0
        nic       veth0 (veth), XDP driver mode, program 17 of 305 instructions, queues 2 rx 2 tx, 2 at start
        serving   UDP port 4747, sockets on [::]:4747, payload up to 1,232 B, 64 partitions

        queue  lane  core  mode    zero-copy  wait       frames  frames/s    to lane  passed  dropped  fallback  ring full  rx dropped  waiting
            1     1     3  driver  no         wakeup  1,002,634         -  1,002,564       0       70         0      2,500           0       64
            0     0     2  driver  no         wakeup  1,234,575         -  1,234,567       3        5         0          0           0        0
        fallback socket: 0 received, 0 dropped by the kernel

        lane         frames  events    replies  shared  lost  withheld  syscalls/1k  sleeps  kept off  memory  pages
        0         1,234,567       0  1,234,567       0     0         0         10.0      12    0.50 %  32 MiB  hugetlb
        1         1,000,000       0  1,000,000       0     0         0         10.0      12    0.50 %  32 MiB  hugetlb
        fallback          0       0          0       0     0         0            -       0         -     0 B  4k

        exit          action     program      lanes
        drop_blocked  drop            70          -
        drop_magic    drop             5          -
        redirect_xsk  deliver  2,237,131          -
        ping          reply            -  2,234,567
        pass_not_ip   pass             3          -

        frames in 2,237,209 = passed 3 + dropped 75 + redirected 2,237,131 + fallback 0
        redirected 2,237,131 = lane exits 2,234,567 + dropped by kernel 2,500 + in flight 64
        fallback 0 = received 0 + dropped at the socket 0 + lost in the stack 0
        closes
    "#]].assert_eq(&render(&status, None));
}

#[test]
fn alarms_and_gaps_stand_at_the_top() {
    let mut status = xdp();
    status.lanes[0].frames -= 10;
    status.alarms.push(Alarm {
        name: "queue-count-changed".into(),
        since_s: 12,
        message: "veth0 has 4 receive queues, lanes serve 2; restart the server".into(),
    });
    status.close();
    assert!(!status.is_healthy());
    let text = render(&status, None);
    let top: Vec<_> = text.lines().take(4).collect();
    expect![[r#"
        ALARM queue-count-changed for 12s: veth0 has 4 receive queues, lanes serve 2; restart the server
        DOES NOT CLOSE queue 0: redirect_xsk = lane frames + rx_dropped + rx_ring_full + waiting: 1,234,567 against 1,234,557
        DOES NOT CLOSE lane 0: frames = sum of exits: 1,234,557 against 1,234,567
    "#]].assert_eq(&top.join("\n"));
    assert!(text.ends_with("DOES NOT CLOSE by 20\n"), "{text}");
}

#[test]
fn sockets_with_rates_from_an_earlier_reading() {
    let mut old = Status {
        version: "0.1.0".into(),
        pid: 7,
        uptime_s: 60,
        provider_reason: "no server.nic is set".into(),
        listen: "127.0.0.1:4747".into(),
        port: 4747,
        partitions: 64,
        payload_bytes_max: 1_232,
        lanes: vec![LaneStatus {
            queue: None,
            core: None,
            umem_pages: "4k".into(),
            ..lane(0, 500)
        }],
        ..Status::default()
    };
    old.close();
    let mut now = old.clone();
    now.lanes[0].frames = 2_500;
    now.lanes[0].exits = counts(&[(Exit::Ping, 2_490), (Exit::DropMagic, 10)]);
    now.lanes[0].replies.sent = 2_490;
    now.lanes[0].socket_drops = 3;
    now.lanes[0].arrived_while_reading = 4;
    now.close();
    expect![[r#"
        veltrix 0.1.0, process 7, up 1m
        provider  UDP sockets: no server.nic is set
        serving   UDP port 4747, sockets on 127.0.0.1:4747, payload up to 1,232 B, 64 partitions

        lane  core  wait    datagrams  datagrams/s  dropped by kernel
           0   any  wakeup      2,500        1,000                  3

        lane  frames  events  replies  shared  lost  withheld  syscalls/1k  sleeps  kept off  memory  pages
        0      2,500       0    2,490       0     0         0          2.0      12   31.02 %  32 MiB  4k

        exit        action  program  lanes
        drop_magic  drop          -     10
        ping        reply         -  2,490

        datagrams in 2,503 = lane exits 2,500 + dropped by kernel 3
        closes, within what came while it was read (4)
    "#]]
    .assert_eq(&render(&now, Some((&old, Duration::from_secs(2)))));
}

#[test]
fn a_server_that_has_seen_nothing() {
    let mut status = Status { lanes: vec![LaneStatus::default()], ..Status::default() };
    status.close();
    let text = render(&status, None);
    assert!(text.contains("no frame has left by any exit yet"), "{text}");
    assert!(text.ends_with("closes\n"), "{text}");
}

#[test]
fn a_restarted_server_has_no_rates_yet() {
    let now = xdp();
    let mut old = xdp();
    old.pid += 1;
    let text = render(&now, Some((&old, Duration::from_secs(1))));
    assert_eq!(text, render(&now, None));
}

#[test]
fn times_to_watch() {
    assert_eq!(parse_watch("1s"), Ok(Duration::from_secs(1)));
    for bad in ["0s", "1ms", "1", ""] {
        assert!(parse_watch(bad).is_err(), "{bad}");
    }
}
