//! The figures of `bench game` and their goals.

use crate::bench::ingest::report::Wanted::{AtLeast, AtMost, Nothing};
use crate::bench::ingest::report::{Figure, figure};

/// Every figure, in the order of the table.
pub const FIGURES: &[Figure] = &[
    figure("events_per_s", Nothing, "applied and acknowledged at the maximum, queries beside them"),
    figure("reads_per_s", Nothing, "queries answered, at the same time"),
    figure("over_ingest", AtLeast(0.7), "events_per_s over the events of bench ingest, by turns"),
    figure("ingest_events_per_s", Nothing, "those, in datagrams as full on the mean"),
    figure("datagram_fill", Nothing, "events a datagram, from each session's timing"),
    figure("ingest_fill", Nothing, "events of each datagram beside it"),
    figure("hot_share", AtLeast(0.1), "of all events, in the hottest of 1,000 hunts"),
    figure("read_share", Nothing, "of all requests"),
    figure("repeated_share", Nothing, "of all events, sent again after their answer"),
    figure("malformed_share", Nothing, "of all events"),
    figure("ack_ns_max.p50", Nothing, "events, send to ack at the maximum"),
    figure("ack_ns_max.p99", Nothing, ""),
    figure("read_ns_max.p50", Nothing, "queries, send to answer at the maximum"),
    figure("read_ns_max.p99", Nothing, ""),
    figure("open_events_per_s", Nothing, "open loop at half the maximum"),
    figure("open_reads_per_s", Nothing, ""),
    figure("ack_ns.p50", Nothing, "events, intended send time to ack, open loop"),
    figure("ack_ns.p99", Nothing, ""),
    figure("ack_ns.p999", Nothing, ""),
    figure("ack_ns.max", Nothing, ""),
    figure("read_ns.p50", Nothing, "queries, intended send time to answer, open loop"),
    figure("read_ns.p99", AtMost(200_000.0), ""),
    figure("read_ns.p999", Nothing, ""),
    figure("read_ns.max", Nothing, ""),
    figure("lost", AtMost(0.0), "datagrams of events that were never answered"),
    figure("duplicated", AtMost(0.0), "events decided twice"),
    figure(
        "retries",
        Nothing,
        "datagrams of events sent again after 400 ms: the node did not get them",
    ),
    figure("reads_lost", Nothing, "queries without an answer; not sent again"),
    figure("reads_turned_away", Nothing, "queries answered busy"),
    figure("reads_other", Nothing, "queries answered moving, too-much and the like"),
    figure("events_busy", Nothing, "datagrams of events answered busy, then sent again"),
    figure("box_p99_us", AtMost(30.0), "a box of 100 cells, in the lane"),
    figure("nearest_p99_us", AtMost(50.0), "the ten nearest cells, in the lane"),
    figure("rank_p99_us", AtMost(5.0), "rank of one of 10 M players, in the lane"),
    figure("top100_us", AtMost(20.0), "the first hundred of them, median"),
    figure("world_gib", AtMost(4.0), "12 M cells, 10 M players, 29 M keys, reserved"),
];
