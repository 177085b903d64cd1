//! Look-ups, updates and boxes, timed.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use veltrix::base::cpu;
use veltrix::index::{CellBox, Index, IndexImage, position_of};

use super::ranks;
use super::world::{FIELD_SIDE, HUNTS, Place, Random, Scale, World, corner};

/// Operations of a round.
const ROUND: usize = 1 << 20;
/// Rounds of each kind; the median counts.
const ROUNDS: usize = 9;
/// Operations after one another in one partition.
const STRETCH: usize = 96;
/// Operations whose memory is asked for together.
const GROUP: usize = 32;
/// Boxes timed.
const BOXES: usize = 50_000;
/// Cells in a box, on average.
const BOX_CELLS: f64 = 100.0;

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct IndexNumbers {
    /// A cell looked up and read, groups asked for beforehand.
    pub get_ns: f64,
    /// The same without asking.
    pub get_plain_ns: f64,
    /// A cell looked up, read and written, groups asked for beforehand.
    pub update_ns: f64,
    /// The same without asking.
    pub update_plain_ns: f64,
    /// The same, groups asked for, while captures go on.
    pub update_captured_ns: f64,
    /// A new cell, its place in the order included; while filling.
    pub insert_ns: f64,
    /// A box of about 100 cells.
    pub box_p50_us: f64,
    /// Nine boxes in ten take at most this.
    pub box_p90_us: f64,
    /// Of 100 boxes the slowest but one.
    pub box_p99_us: f64,
    /// The slowest box.
    pub box_max_us: f64,
    /// Cells found in a box, on average.
    pub box_cells: f64,
    /// The ten nearest cells, the median.
    pub nearest_p50_us: f64,
    /// Of 100 the slowest but one.
    pub nearest_p99_us: f64,
    /// Copying 64 KiB of a capture, slowest step.
    pub capture_step_max_us: f64,
    /// Bytes reserved for cells, hash and order, for each cell.
    pub bytes_per_cell: f64,
    /// The same with all that rounding up to huge pages adds.
    pub bytes_per_cell_rounded: f64,
    /// An index from the image of a partition, for each of its cells, players
    /// and all.
    pub restore_ns_per_cell: f64,
}

/// Measures at `scale`.
///
/// # Errors
///
/// Memory that cannot be had; a core that cannot be had; wrong answers.
pub fn measure(scale: Scale, progress: impl Fn(&str)) -> Result<IndexNumbers> {
    if let Some(core) = cpu::allowed_cores().last() {
        ensure!(cpu::pin_to(*core), "bench: cannot pin to core {core}");
    }
    let millions = scale.partitions as f64 * f64::from(scale.cells) / 1e6;
    progress(&format!("{} partitions, {millions:.1} M cells", scale.partitions));
    let started = Instant::now();
    let mut world = World::new(scale)?;
    let insert_ns = started.elapsed().as_nanos() as f64 / (millions * 1e6);
    let mut random = Random(7);

    progress("look-ups and updates");
    let places = world.draw(ROUND, STRETCH, &mut random);
    let get_ns = median(|| get(&world, &places, GROUP));
    let get_plain_ns = median(|| get(&world, &places, 1));
    let update_ns = median(|| update(&mut world, &places, GROUP));
    let update_plain_ns = median(|| update(&mut world, &places, 1));
    let (update_captured_ns, capture_step_max_us) = captured(&mut world, &places, scale)?;
    progress("boxes");
    let boxes = boxes(&world, scale, &mut random)?;
    progress("nearest cells");
    let (nearest_p50_us, nearest_p99_us) = ranks::nearest(&world, &mut random)?;
    progress("restoring");
    let restore_ns_per_cell = restore(&mut world, scale)?;

    let bytes = Index::bytes_of(&scale.limits());
    let cells = bytes.cells + bytes.cell_hash + bytes.cell_order;
    let us = |quantile: f64| boxes.times_ns.value_at_quantile(quantile) as f64 / 1e3;
    Ok(IndexNumbers {
        get_ns,
        get_plain_ns,
        update_ns,
        update_plain_ns,
        update_captured_ns,
        insert_ns,
        box_p50_us: us(0.5),
        box_p90_us: us(0.9),
        box_p99_us: us(0.99),
        box_max_us: us(1.0),
        box_cells: boxes.cells as f64 / BOXES as f64,
        nearest_p50_us,
        nearest_p99_us,
        capture_step_max_us,
        bytes_per_cell: cells as f64 / f64::from(scale.cells),
        bytes_per_cell_rounded: (cells + bytes.rounding) as f64 / f64::from(scale.cells),
        restore_ns_per_cell,
    })
}

/// Nanoseconds an operation, the median of [`ROUNDS`] after one to warm up.
fn median(mut round: impl FnMut() -> u64) -> f64 {
    black_box(round());
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            black_box(round());
            started.elapsed().as_nanos() as f64 / ROUND as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// Asks for the memory of a group: hash lines, then records.
#[inline(always)]
fn ask(index: &Index, group: &[Place]) {
    if group.len() > 1 {
        group.iter().for_each(|place| index.prefetch_cell_hash(place.hunt, place.id));
        group.iter().for_each(|place| index.prefetch_cell(place.hunt, place.id));
    }
}

fn get(world: &World, places: &[Place], group: usize) -> u64 {
    let mut sum = 0;
    for stretch in places.chunks(STRETCH) {
        let index = &world.partitions[stretch[0].partition];
        for group in stretch.chunks(group) {
            ask(index, group);
            for place in group {
                if let Some(slot) = index.cell_slot(place.hunt, place.id) {
                    sum += u64::from(index.cell(slot).remaining);
                }
            }
        }
    }
    sum
}

fn update(world: &mut World, places: &[Place], group: usize) -> u64 {
    let mut found = 0;
    for stretch in places.chunks(STRETCH) {
        let index = &mut world.partitions[stretch[0].partition];
        for group in stretch.chunks(group) {
            ask(index, group);
            for place in group {
                if let Some(slot) = index.cell_slot(place.hunt, place.id) {
                    let mut cell = *index.cell(slot);
                    cell.remaining = cell.remaining.wrapping_sub(1);
                    index.cell_write(slot, cell);
                    found += 1;
                }
            }
        }
    }
    found
}

/// Updates while one partition after the other is captured, as a lane does it:
/// 64 KiB between two batches. Nanoseconds an update without the steps; the
/// slowest step, microseconds.
fn captured(world: &mut World, places: &[Place], scale: Scale) -> Result<(f64, f64)> {
    let mut image = Some(IndexImage::new(&scale.limits())?);
    let (mut partition, mut step_ns_max, mut steps_ns) = (0, 0, 0u64);
    let started = Instant::now();
    for batch in places.chunks(STRETCH * 64) {
        let now = Instant::now();
        let index = &mut world.partitions[partition % scale.partitions];
        if let Some(image) = image.take() {
            index.capture_begin(image);
        }
        if index.capture_step(64 << 10) {
            image = Some(index.capture_end());
            partition += 1;
        }
        let ns = now.elapsed().as_nanos() as u64;
        step_ns_max = step_ns_max.max(ns);
        steps_ns += ns;
        black_box(update(world, batch, GROUP));
    }
    let all_ns = started.elapsed().as_nanos() as u64 - steps_ns;
    if image.is_none() {
        world.partitions[partition % scale.partitions].capture_end();
    }
    Ok((all_ns as f64 / places.len() as f64, step_ns_max as f64 / 1e3))
}

struct Boxes {
    times_ns: Histogram<u64>,
    cells: usize,
}

/// Squares at random places of random hunts.
fn boxes(world: &World, scale: Scale, random: &mut Random) -> Result<Boxes> {
    let share = BOX_CELLS * f64::from(HUNTS) / f64::from(scale.cells);
    let side = (f64::from(FIELD_SIDE) * share.min(1.0).sqrt()) as u32;
    // Grows as it must: a histogram that clamps would hide the slow ones.
    let mut boxes = Boxes { times_ns: Histogram::new(3)?, cells: 0 };
    for _ in 0..BOXES {
        let partition = random.below(world.partitions.len());
        let (hunt, _) = world.cells[partition][random.below(world.cells[partition].len())];
        let (x, y) = corner(partition, hunt);
        let mut place = || random.below((FIELD_SIDE - side) as usize + 1) as u32;
        let (x_min, y_min) = (x + place(), y + place());
        let field = CellBox { x_min, x_max: x_min + side - 1, y_min, y_max: y_min + side - 1 };
        let mut sum = 0;
        let started = Instant::now();
        let index = &world.partitions[partition];
        index.cells_in_box(hunt, &field, 0, 1_000, &mut { usize::MAX }, |cell| {
            sum += u64::from(cell.remaining);
            boxes.cells += 1;
        });
        boxes.times_ns.record(started.elapsed().as_nanos() as u64)?;
        black_box(sum);
    }
    check_a_box(world, side)?;
    ensure!(boxes.times_ns.min() > 0, "a box took no time: the clock or the histogram is wrong");
    Ok(boxes)
}

/// One box against a look at every cell.
fn check_a_box(world: &World, side: u32) -> Result<()> {
    let (hunt, id) = world.cells[0][0];
    let (x, y) = position_of(id);
    let field = CellBox { x_min: x, x_max: x + side, y_min: y, y_max: y + side };
    let is_inside = |id: u64| {
        let (x, y) = position_of(id);
        (field.x_min..=field.x_max).contains(&x) && (field.y_min..=field.y_max).contains(&y)
    };
    let wanted = world.cells[0].iter().filter(|(h, id)| *h == hunt && is_inside(*id)).count();
    let mut found = 0;
    let mut steps = usize::MAX;
    world.partitions[0].cells_in_box(hunt, &field, 0, usize::MAX, &mut steps, |_| found += 1);
    ensure!(found == wanted, "a box holds {found} cells, a look at every cell finds {wanted}");
    Ok(())
}

/// Nanoseconds for each cell of a partition restored, the median of some.
fn restore(world: &mut World, scale: Scale) -> Result<f64> {
    let mut image = IndexImage::new(&scale.limits())?;
    let mut times = Vec::new();
    for index in world.partitions.iter_mut().take(ROUNDS) {
        index.capture_begin(image);
        image = index.capture_end();
        let started = Instant::now();
        let restored = Index::restore(&scale.limits(), &image)?;
        times.push(started.elapsed().as_nanos() as f64 / f64::from(scale.cells));
        ensure!(restored.cells_len() == index.cells_len(), "not every cell was restored");
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
