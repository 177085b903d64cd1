//! What this machine takes for a cache line at random while others are under
//! way: the floor under every look-up of the pipeline.

use std::hint::black_box;
use std::io;
use std::time::Instant;

use veltrix::base::table::{Table, prefetch};

use super::traffic::mix;

/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// Lines asked for before the first of them is read.
const GROUP: usize = 16;

/// Most bytes it looks through: pages beyond are no farther away, and the memory
/// that was measured still stands.
const BYTES_MAX: u64 = 1 << 30;

/// Lines of a pass.
const LINES: usize = 1 << 16;

/// Passes; their median counts.
const PASSES: u64 = 25;

/// Nanoseconds a line, at random in a table of `bytes`, at most 1 GiB.
///
/// # Errors
///
/// The kernel's refusal to give as much memory.
pub fn line_ns(bytes: u64) -> io::Result<f64> {
    let words: Table<u64> = Table::new(bytes.min(BYTES_MAX) as usize / 8)?;
    let lines = (words.len() / LINE_WORDS) as u64;
    let mut passes = Vec::new();
    for pass in 0..PASSES {
        let at: Vec<usize> = (0..LINES as u64)
            .map(|n| (mix(pass * LINES as u64 + n) % lines) as usize * LINE_WORDS)
            .collect();
        let started = Instant::now();
        for group in at.chunks(GROUP) {
            group.iter().for_each(|at| prefetch(&words, *at));
            black_box(group.iter().fold(0, |sum, at| sum ^ words[*at]));
        }
        passes.push(started.elapsed().as_nanos() as f64 / LINES as f64);
    }
    passes.sort_by(f64::total_cmp);
    Ok(passes[passes.len() / 2])
}
