//! `cargo xtask bench ingest`: events a second from the client to the disk and
//! back, generator and node on the same two cores, beside Redis Streams.
//!
//! ```text
//!   core 0: swarm, softirq of its frames, control core of the node, log writer
//!   core 1: the node's lane
//! ```
//!
//! | part | loop | figure |
//! |---|---|---|
//! | maximum | window, the best of those tried, 24 events a datagram | events_per_s, cpu_ns_per_event, ack_ns |
//! | half | half of that rate, open | ack_ns_half |
//! | single | window, one event a datagram, 64 sessions | single_event_per_s |
//! | socket | window, a new node on UDP sockets | socket_events_per_s |
//! | redis | pipelines over connections | redis_streams_events_per_s, over_redis |
//!
//! The maximum is measured once as many keys were sent as the node remembers,
//! and goes on until its time is over, the log was written around and two
//! snapshots were taken in it. At the end of the first three the node's own
//! counts are held against the acks: each event that was acknowledged as applied
//! must have been applied, and once.
//!
//! What can lie: nothing here crosses a wire, so the link costs no latency; and
//! the generator takes a share of the cores that a client elsewhere would not.

pub mod cores;
pub mod node;
pub mod phases;
pub mod redis;
pub mod report;
