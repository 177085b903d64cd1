//! Where every frame went: the sums, each with its numbers, and whether it
//! closes.

use veltrix::admin::accounting::{by_action, exit, kernel_drops, total};
use veltrix::admin::status::{Counts, LaneStatus, Provider, Status};
use veltrix::config::value::show_count;
use veltrix_abi::{Action, Exit};

/// Counted outside Veltrix.
#[derive(Clone, Copy, Debug)]
pub enum Outside {
    /// By the two ends of the link.
    Interface {
        /// Frames the client's interface sent.
        sent: u64,
        /// Frames the server's interface took out of its rings.
        taken: u64,
        /// Frames that arrived at the client's interface.
        answers: u64,
        /// Frames that the server's interface could not hand to it.
        answers_refused: u64,
    },
    /// By the clients: event datagrams they handed to their sockets.
    Clients {
        /// Those datagrams.
        sent: u64,
    },
}

/// A sum: terms that must be equal.
#[derive(Clone, Debug)]
pub struct Sum {
    /// With numbers, in words.
    pub text: String,
    /// By how much its terms differ; 0 when it closes.
    pub off: u64,
}

impl Sum {
    fn new(text: String, left: u64, right: u64) -> Self {
        Self { text, off: left.abs_diff(right) }
    }
}

/// Frames of an exit, over queues, lanes and fallback.
#[must_use]
pub fn exits(status: &Status, wanted: Exit) -> u64 {
    all_lanes(status).map(|lane| exit(&lane.exits, wanted)).sum::<u64>()
        + status.xdp_queues.iter().map(|queue| exit(&queue.exits, wanted)).sum::<u64>()
}

fn all_lanes(status: &Status) -> impl Iterator<Item = &LaneStatus> {
    status.lanes.iter().chain(&status.fallback)
}

/// Frames that did not come through an AF_XDP socket though they should have.
#[must_use]
pub fn fallback_frames(status: &Status) -> u64 {
    let sums = &status.accounting;
    sums.fallback_expected.max(sums.fallback_received + sums.fallback_dropped)
}

/// Datagrams whose events joined a batch that the log did not take. Their clients
/// ask again and nothing is wrong with it, but it should not happen.
#[must_use]
pub fn lost_answers(status: &Status) -> u64 {
    all_lanes(status).map(|lane| lane.acks.lost).sum()
}

/// What the kernel's counters say was lost between two readings.
#[must_use]
pub fn kernel_losses(before: &Status, after: &Status) -> Vec<String> {
    type Counter = fn(&LaneStatus) -> u64;
    let counters: [(Counter, &str); 5] = [
        (
            |l| l.xdp_statistics.rx_ring_full,
            "frames found the lane's receive ring full (rx_ring_full)",
        ),
        (|l| l.xdp_statistics.rx_dropped, "frames found no free frame (rx_dropped)"),
        (|l| l.socket_drops, "datagrams found the socket's buffer full"),
        (|l| l.replies.dropped_tx_full, "acks found the lane's send ring full (dropped_tx_full)"),
        (|l| l.replies.withheld, "acks were withheld, larger than their request"),
    ];
    let sum = |status: &Status, counter: Counter| all_lanes(status).map(counter).sum::<u64>();
    counters
        .iter()
        .map(|(counter, what)| (sum(after, *counter).saturating_sub(sum(before, *counter)), what))
        .filter(|(lost, _)| *lost > 0)
        .map(|(lost, what)| format!("{} {what}", show_count(lost)))
        .collect()
}

/// A counter that is not zero: label, count, meaning.
pub type Row = (&'static str, u64, &'static str);

/// Every way out that a frame took, in the order it meets them.
#[must_use]
pub fn ways_out(status: &Status) -> Vec<(&'static str, Vec<Row>)> {
    type Counter = fn(&LaneStatus) -> u64;
    let rows = |counts: &Counts| -> Vec<Row> {
        let count = |e: &Exit| (e.label(), exit(counts, *e), e.doc());
        Exit::ALL.iter().map(count).filter(|(_, count, _)| *count > 0).collect()
    };
    let program = merged(status.xdp_queues.iter().map(|queue| &queue.exits));
    let lanes = merged(all_lanes(status).map(|lane| &lane.exits));
    let kernel: [(&str, Counter, &str); 3] = [
        ("rx_ring_full", |l| l.xdp_statistics.rx_ring_full, "The lane's receive ring was full."),
        ("rx_dropped", |l| l.xdp_statistics.rx_dropped, "There was no free frame."),
        ("socket_drops", |l| l.socket_drops, "The socket's receive buffer was full."),
    ];
    let kernel = kernel.map(|(label, counter, meaning)| {
        (label, all_lanes(status).map(counter).sum::<u64>(), meaning)
    });
    [
        ("in the XDP program", rows(&program)),
        (
            "dropped by the kernel before a lane had it",
            kernel.into_iter().filter(|(_, count, _)| *count > 0).collect(),
        ),
        ("in the lanes", rows(&lanes)),
    ]
    .into_iter()
    .filter(|(_, rows)| !rows.is_empty())
    .collect()
}

/// The sum of several rows of counters, without zeros.
fn merged<'a>(rows: impl Iterator<Item = &'a Counts>) -> Counts {
    let mut sum = Counts::new();
    for (label, count) in rows.flatten() {
        *sum.entry(label.clone()).or_default() += count;
    }
    sum.retain(|_, count| *count > 0);
    sum
}

/// The sums of a quiet server.
#[must_use]
pub fn sums(status: &Status, outside: &Outside) -> Vec<Sum> {
    let mut sums = match (status.provider, outside) {
        (Provider::Xdp, Outside::Interface { sent, taken, .. }) => xdp_sums(status, *sent, *taken),
        (_, Outside::Interface { sent, .. } | Outside::Clients { sent }) => {
            vec![client_sum(status, *sent)]
        }
    };
    sums.extend(lane_sums(status));
    if let Outside::Interface { answers, answers_refused, .. } = outside {
        let sent: u64 = all_lanes(status).map(|lane| lane.replies.sent).sum();
        let n = show_count;
        sums.push(Sum::new(
            format!(
                "{} answers sent = {} arrived at the peer interface + {} refused by it",
                n(sent),
                n(*answers),
                n(*answers_refused)
            ),
            sent,
            answers + answers_refused,
        ));
    }
    sums
}

fn xdp_sums(status: &Status, sent: u64, taken: u64) -> Vec<Sum> {
    let n = show_count;
    let a = &status.accounting;
    let by = |action| status.xdp_queues.iter().map(|q| by_action(&q.exits, action)).sum::<u64>();
    let fallback = exits(status, Exit::PassFallback);
    let redirected = exits(status, Exit::RedirectXsk);
    let (dropped, passed) = (by(Action::Drop), by(Action::Pass));
    let lane_frames: u64 = status.lanes.iter().map(|l| l.frames).sum();
    let kernel: u64 = status.lanes.iter().map(kernel_drops).sum();
    vec![
        Sum::new(
            format!("{} sent by the peer interface = {} taken by veltrix-s", n(sent), n(taken)),
            sent,
            taken,
        ),
        Sum::new(
            format!("{} taken by veltrix-s = {} seen by the XDP program", n(taken), n(a.frames_in)),
            taken,
            a.frames_in,
        ),
        Sum::new(
            format!(
                "{} seen = {} redirected + {} not ours + {} dropped + {} fallback",
                n(a.frames_in),
                n(redirected),
                n(passed),
                n(dropped),
                n(fallback)
            ),
            a.frames_in,
            redirected + passed + dropped + fallback,
        ),
        Sum::new(
            format!(
                "{} redirected = {} taken by lanes + {} dropped by the kernel + {} waiting",
                n(redirected),
                n(lane_frames),
                n(kernel),
                n(a.in_flight)
            ),
            redirected,
            lane_frames + kernel + a.in_flight,
        ),
    ]
}

fn client_sum(status: &Status, sent: u64) -> Sum {
    let n = show_count;
    let frames: u64 = status.lanes.iter().map(|l| l.frames).sum();
    let drops: u64 = status.lanes.iter().map(|l| l.socket_drops).sum();
    let hellos = exits(status, Exit::Hello);
    Sum::new(
        format!(
            "{} event datagrams sent by the clients + {} hellos = {} taken by lanes + {} dropped at the socket",
            n(sent),
            n(hellos),
            n(frames),
            n(drops)
        ),
        sent + hellos,
        frames + drops,
    )
}

fn lane_sums(status: &Status) -> [Sum; 3] {
    let n = show_count;
    let of = |counter: fn(&LaneStatus) -> u64| all_lanes(status).map(counter).sum::<u64>();
    let frames = of(|lane| lane.frames);
    let exits = merged(all_lanes(status).map(|lane| &lane.exits));
    let owed = by_action(&exits, Action::Reply);
    let replies = of(|lane| lane.replies.sum());
    let events = of(|lane| lane.events);
    let outcomes = merged(all_lanes(status).map(|lane| &lane.outcomes));
    [
        Sum::new(
            format!("{} taken by lanes = {}", n(frames), spelt(&exits)),
            frames,
            total(&exits),
        ),
        Sum::new(
            format!(
                "{} replies owed = {} sent + {} sharing a datagram with others + {} not sent + {} pending + {} lost",
                n(owed),
                n(of(|lane| lane.replies.sent)),
                n(of(|lane| lane.replies.coalesced)),
                n(of(|lane| lane.replies.dropped_tx_full + lane.replies.withheld)),
                n(of(|lane| lane.acks.pending)),
                n(of(|lane| lane.acks.lost))
            ),
            owed,
            replies + of(|lane| lane.acks.pending + lane.acks.lost),
        ),
        Sum::new(
            format!(
                "{} events in them = {} + {} pending + {} lost",
                n(events),
                spelt(&outcomes),
                n(of(|lane| lane.acks.events_pending)),
                n(of(|lane| lane.acks.events_lost))
            ),
            events,
            total(&outcomes) + of(|lane| lane.acks.events_pending + lane.acks.events_lost),
        ),
    ]
}

/// `1,234 accepted + 5 hello`, the largest first.
fn spelt(counts: &Counts) -> String {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let terms: Vec<_> =
        rows.iter().map(|(label, count)| format!("{} {label}", show_count(**count))).collect();
    if terms.is_empty() { "0".to_owned() } else { terms.join(" + ") }
}
