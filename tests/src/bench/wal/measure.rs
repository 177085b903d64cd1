//! Rounds of all subjects in turn.

use std::collections::VecDeque;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::subjects::Subject;

/// A size of payload, and how many of them one block of measurements appends.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// KiB of a payload.
    pub kib: usize,
    /// Appends in a block at the most.
    pub appends: usize,
}

/// A block that takes this long ends before its number of appends: a disk may take
/// 30 us for a flush or 3 ms.
const BLOCK_TIME_MAX: Duration = Duration::from_millis(250);

/// Sizes measured.
pub const SIZES: [Size; 4] = [
    Size { kib: 4, appends: 2_000 },
    Size { kib: 64, appends: 1_000 },
    Size { kib: 256, appends: 500 },
    Size { kib: 1024, appends: 120 },
];

/// Appends in flight where several are.
pub const DEPTH: usize = 8;

/// What one subject did with one size.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Payload bytes made durable.
    pub bytes: u64,
    /// Time it took.
    pub time: Duration,
    /// From the append to the message that it is durable, ns.
    pub latency_ns: Histogram<u64>,
}

impl Cell {
    fn new() -> Result<Self> {
        Ok(Self { bytes: 0, time: Duration::ZERO, latency_ns: Histogram::new(3)? })
    }

    /// Million payload bytes a second.
    #[must_use]
    pub fn mb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.time.as_secs_f64()
    }

    /// A quantile of the latency, us.
    #[must_use]
    pub fn us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// One subject's results: one by one, and with [`DEPTH`] in flight, for each size.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// One append at a time.
    pub single: Vec<Cell>,
    /// Several in flight.
    pub pipelined: Vec<Cell>,
}

/// Measures all subjects, `rounds` times in turn.
///
/// # Errors
/// What a subject says.
pub fn measure(
    subjects: &mut [Box<dyn Subject>],
    rounds: usize,
    say: impl Fn(usize),
) -> Result<Vec<Row>> {
    let cells = || SIZES.iter().map(|_| Cell::new()).collect::<Result<Vec<_>>>();
    let mut rows = Vec::new();
    for subject in subjects.iter() {
        rows.push(Row { name: subject.name(), single: cells()?, pipelined: cells()? });
    }
    // One turn that does not count: code, caches and blocks of the disk touched once.
    for round in 0..=rounds {
        say(round);
        for (i, size) in SIZES.iter().enumerate() {
            for depth in [1, DEPTH] {
                for (subject, row) in subjects.iter_mut().zip(&mut rows) {
                    let mut warming = Cell::new()?;
                    let cell = match (round, depth) {
                        (0, _) => &mut warming,
                        (_, 1) => &mut row.single[i],
                        _ => &mut row.pipelined[i],
                    };
                    block(&mut **subject, *size, depth, cell)?;
                }
            }
        }
    }
    Ok(rows)
}

/// Appends one block with up to `depth` in flight.
fn block(subject: &mut dyn Subject, size: Size, depth: usize, cell: &mut Cell) -> Result<()> {
    let bytes = size.kib << 10;
    subject.prepare(bytes, size.appends);
    let (tell, told) = sync_channel(depth);
    let mut in_flight: VecDeque<Instant> = VecDeque::with_capacity(depth);
    let start = Instant::now();
    let mut appends = 0;
    loop {
        let may_append = appends < size.appends && start.elapsed() < BLOCK_TIME_MAX;
        if may_append && in_flight.len() < depth {
            in_flight.push_back(Instant::now());
            subject.append(&tell)?;
            appends += 1;
        } else if let Some(since) = in_flight.pop_front() {
            told.recv()??;
            cell.latency_ns.record(since.elapsed().as_nanos() as u64)?;
        } else {
            break;
        }
    }
    cell.time += start.elapsed();
    cell.bytes += (bytes * appends) as u64;
    subject.purge()
}
