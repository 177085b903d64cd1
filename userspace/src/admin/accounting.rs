//! Whether every frame is accounted for: a pure function over the counters.
//!
//! ```text
//!  per queue   frames            = sum of the program's exits                                     (exits)
//!              redirect_xsk      = lane frames + rx_dropped + rx_ring_full + waiting in the ring  (ring)
//!  per lane    frames            = sum of the lane's exits                                        (lane)
//!              exits that reply  = sent + coalesced + dropped_tx_full + withheld                  (replies)
//!              events            = sum of outcomes                                                (events)
//!  in total    pass_fallback     = fallback frames + socket drops + lost in the kernel's stack    (fallback)
//! ```
//!
//! Each counter stands on one side of at least one line and never on both, so
//! none can be lost unseen: a test takes each away and wants a line to break.
//! `rx_fill_ring_empty_descs` is a remark: in copy mode such a frame is already
//! in `rx_dropped`, with zero-copy the program never saw it.
//!
//! The counters of a server under load are not read at one instant. What came
//! meanwhile ([`QueueStatus::arrived_while_reading`]) bounds how far a line may
//! be off; on a quiet server the bound is zero and every line is exact.

use serde::{Deserialize, Serialize};
use veltrix_abi::limits::{PAYLOAD_BYTES_LIMIT, events_max};
use veltrix_abi::{Action, Exit};

use super::status::{Counts, LaneStatus, QueueStatus};

/// Frames that may be on their way between two counters while traffic flows:
/// a NAPI batch in the kernel and the largest lane batch.
const UNDER_WAY_MAX: u64 = 64 + 256;

/// The sums over all queues and lanes, and whether every line closes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accounting {
    /// Frames the XDP program saw; without XDP datagrams that reached the sockets.
    pub frames_in: u64,
    /// Not ours, handed to the kernel.
    pub passed: u64,
    /// Ours and dropped by the program.
    pub dropped: u64,
    /// Redirected to AF_XDP sockets.
    pub redirected: u64,
    /// Redirected and then dropped by the kernel (`rx_dropped`, `rx_ring_full`);
    /// without XDP dropped at the sockets.
    pub kernel_dropped: u64,
    /// Redirected and waiting in a ring.
    pub in_flight: u64,
    /// Frames that lanes took and let go by an exit, the fallback's not included.
    pub lane_exits: u64,
    /// Handed to the fallback socket.
    pub fallback_expected: u64,
    /// Received from the fallback socket without having met the program, on
    /// queues that were added after it was attached.
    pub past_program: u64,
    /// Received from the fallback socket.
    pub fallback_received: u64,
    /// Dropped at the fallback socket.
    pub fallback_dropped: u64,
    /// Handed to the kernel's stack and not come to the fallback socket: dropped
    /// by the stack, or still on the way. The one term that is not counted but
    /// follows from the others.
    pub lost_in_stack: u64,
    /// Frames, replies and events by which lines are off beyond what came
    /// while reading; 0 when all close.
    pub unaccounted: i64,
    /// Whether all lines close.
    pub closes: bool,
    /// Lines that do not.
    pub gaps: Vec<Gap>,
}

/// A line that does not close.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Where: `queue 0`, `lane 1`, `fallback`.
    pub place: String,
    /// The line, in words.
    pub line: String,
    /// Value of its left side.
    pub left: u64,
    /// Value of its right side.
    pub right: u64,
    /// How far it may be off, for what came while reading.
    pub tolerance: u64,
}

/// Sums the counters and checks every line.
#[must_use]
pub fn close(
    queues: &[QueueStatus],
    lanes: &[LaneStatus],
    fallback: Option<&LaneStatus>,
) -> Accounting {
    close_grown(queues, lanes, fallback, false)
}

/// As [`close`]; with `queues_grew`, datagrams that reach the fallback socket
/// beyond those the program handed to it came past the program: veth runs
/// none on a queue that was added after the attach.
#[must_use]
pub fn close_grown(
    queues: &[QueueStatus],
    lanes: &[LaneStatus],
    fallback: Option<&LaneStatus>,
    queues_grew: bool,
) -> Accounting {
    let mut sums = Accounting::default();
    let mut lines = Lines::default();
    for queue in queues {
        queue_lines(queue, lanes, &mut sums, &mut lines);
    }
    for lane in lanes {
        lane_lines(&format!("lane {}", lane.lane), lane, &mut lines);
        let exits = total(&lane.exits);
        sums.lane_exits = sums.lane_exits.saturating_add(exits);
        match lane.queue {
            Some(queue) => {
                sums.in_flight = sums.in_flight.saturating_add(lane.rings.rx.into());
                sums.kernel_dropped = sums.kernel_dropped.saturating_add(kernel_drops(lane));
                if !queues.iter().any(|row| row.queue == Some(queue)) {
                    let line = "frames of a queue that the program does not count";
                    lines.check(&format!("lane {}", lane.lane), line, 0, lane.frames, 0);
                }
            }
            None => {
                sums.kernel_dropped = sums.kernel_dropped.saturating_add(lane.socket_drops);
                let reached = lane.frames.saturating_add(lane.socket_drops);
                sums.frames_in = sums.frames_in.saturating_add(reached);
            }
        }
    }
    if let Some(fallback) = fallback {
        lane_lines("fallback", fallback, &mut lines);
        sums.fallback_received = fallback.frames;
        sums.fallback_dropped = fallback.socket_drops;
    }
    fallback_line(queues, fallback, queues_grew, &mut sums, &mut lines);
    sums.unaccounted = lines.off;
    sums.closes = lines.gaps.is_empty();
    sums.gaps = lines.gaps;
    sums
}

/// Checked lines: what does not close is kept.
#[derive(Default)]
struct Lines {
    gaps: Vec<Gap>,
    off: i64,
}

impl Lines {
    fn check(&mut self, place: &str, line: &str, left: u64, right: u64, tolerance: u64) {
        let beyond = left.abs_diff(right).saturating_sub(tolerance);
        if beyond > 0 {
            self.off = self.off.saturating_add_unsigned(beyond);
            self.gaps.push(Gap {
                place: place.to_owned(),
                line: line.to_owned(),
                left,
                right,
                tolerance,
            });
        }
    }
}

fn queue_lines(
    queue: &QueueStatus,
    lanes: &[LaneStatus],
    sums: &mut Accounting,
    lines: &mut Lines,
) {
    let place = match queue.queue {
        Some(number) => format!("queue {number}"),
        None => "queues beyond those at start".to_owned(),
    };
    let tolerance = tolerance(queue.arrived_while_reading);
    lines.check(&place, "frames = sum of exits", queue.frames, total(&queue.exits), tolerance);

    let redirected = exit(&queue.exits, Exit::RedirectXsk);
    let mut reached = 0_u64;
    let mut lane_tolerance = 0_u64;
    let own = |lane: &&LaneStatus| queue.queue.is_some() && lane.queue == queue.queue;
    for lane in lanes.iter().filter(own) {
        let parts = [lane.frames, kernel_drops(lane), lane.rings.rx.into()];
        reached = parts.into_iter().fold(reached, u64::saturating_add);
        lane_tolerance = lane_tolerance.saturating_add(self::tolerance(lane.arrived_while_reading));
    }
    lines.check(
        &place,
        "redirect_xsk = lane frames + rx_dropped + rx_ring_full + waiting",
        redirected,
        reached,
        tolerance.saturating_add(lane_tolerance),
    );

    sums.frames_in = sums.frames_in.saturating_add(queue.frames);
    sums.redirected = sums.redirected.saturating_add(redirected);
    sums.passed = sums.passed.saturating_add(by_action(&queue.exits, Action::Pass));
    sums.dropped = sums.dropped.saturating_add(by_action(&queue.exits, Action::Drop));
    let expected = exit(&queue.exits, Exit::PassFallback);
    sums.fallback_expected = sums.fallback_expected.saturating_add(expected);
}

fn lane_lines(place: &str, lane: &LaneStatus, lines: &mut Lines) {
    let tolerance = tolerance(lane.arrived_while_reading);
    lines.check(place, "frames = sum of exits", lane.frames, total(&lane.exits), tolerance);
    lines.check(
        place,
        "exits that reply = sent + coalesced + dropped_tx_full + withheld + acks pending + lost",
        by_action(&lane.exits, Action::Reply),
        lane.replies.sum().saturating_add(lane.acks.pending).saturating_add(lane.acks.lost),
        tolerance,
    );
    let events_tolerance = tolerance.saturating_mul(events_max(PAYLOAD_BYTES_LIMIT) as u64);
    lines.check(
        place,
        "events = sum of outcomes + pending + lost",
        lane.events,
        total(&lane.outcomes)
            .saturating_add(lane.acks.events_pending)
            .saturating_add(lane.acks.events_lost),
        events_tolerance,
    );
}

/// The one line that spans queues: the kernel may hand a queue's datagram to
/// the fallback socket only. Datagrams behind two IPv6 extension headers arrive
/// there too when they are ours, which the program cannot know; so many more
/// may arrive than were sent there.
fn fallback_line(
    queues: &[QueueStatus],
    fallback: Option<&LaneStatus>,
    queues_grew: bool,
    sums: &mut Accounting,
    lines: &mut Lines,
) {
    if queues.is_empty() && fallback.is_none() {
        return;
    }
    let chains = queues.iter().map(|queue| exit(&queue.exits, Exit::PassIpv6Chain));
    let chains = chains.fold(0, u64::saturating_add);
    let parts = [sums.fallback_received, sums.fallback_dropped];
    let arrived = parts.into_iter().fold(0, u64::saturating_add);
    if queues_grew {
        sums.past_program = arrived.saturating_sub(sums.fallback_expected);
    }
    let expected = sums.fallback_expected.saturating_add(sums.past_program);
    let slack = queues
        .iter()
        .map(|queue| tolerance(queue.arrived_while_reading))
        .chain(fallback.map(|lane| tolerance(lane.arrived_while_reading)))
        .fold(0, u64::saturating_add);
    // What the stack dropped on the way (a checksum, a firewall, an address that
    // is not this host's) is known by its absence only.
    sums.lost_in_stack = expected.saturating_sub(arrived);
    let line = "pass_fallback = fallback frames + socket drops + lost in the stack";
    let arrived = arrived.saturating_add(sums.lost_in_stack);
    lines.check("fallback", line, expected, arrived, slack.saturating_add(chains));
}

const fn tolerance(arrived_while_reading: u64) -> u64 {
    match arrived_while_reading {
        0 => 0,
        arrived => arrived.saturating_add(UNDER_WAY_MAX),
    }
}

/// Frames redirected to a lane's socket that the kernel then dropped.
#[must_use]
pub const fn kernel_drops(lane: &LaneStatus) -> u64 {
    lane.xdp_statistics.rx_dropped.saturating_add(lane.xdp_statistics.rx_ring_full)
}

/// Sum of all counters of a map.
#[must_use]
pub fn total(counts: &Counts) -> u64 {
    counts.values().fold(0, |sum, count| sum.saturating_add(*count))
}

/// One exit's counter.
#[must_use]
pub fn exit(counts: &Counts, exit: Exit) -> u64 {
    counts.get(exit.label()).copied().unwrap_or(0)
}

/// Sum of the counters of exits with one action.
#[must_use]
pub fn by_action(counts: &Counts, action: Action) -> u64 {
    Exit::ALL
        .iter()
        .filter(|exit| exit.action() == action)
        .fold(0, |sum, exit| sum.saturating_add(self::exit(counts, *exit)))
}

#[cfg(test)]
mod tests;
