//! The owning half of a lane: applies committed entries to its partitions, in
//! epoch order.
//!
//! ```text
//!   command ring -> Apply: ranges of own partitions -> outcome slots; last owner wakes the sealer
//!                -> Release / Adopt: a partition changes its owner between two epochs
//!                -> Capture: its partitions, one after the other, into the lane's image
//! ```
//!
//! A command that has to wait (a partition that has not arrived yet) holds back
//! all after it: order is what is promised. Capturing holds back nothing.
//!
//! An entry is applied in slices, so that the lane looks at its ring in between. Of
//! its partitions one may then be half applied: nobody reads it or begins to capture
//! it until it is through. Every other one is as after the entry, and its own epoch
//! says so, or as before it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rtrb::{Consumer, Producer};

use super::effects::Sending;
use super::link::{DIGEST_EPOCHS, LaneCommand, LaneLink, LaneReport};
use super::samples::{Sample, Sampler};
use super::stages::StageTimes;
use crate::apply::games::ClassCounts;
use crate::apply::{OUTCOME_SLOTS, Partition, PartitionImage, Place, apply_slice};
use crate::base::clock::monotonic_ns;
use crate::batch::pool::Stamp;
use crate::batch::{BatchView, OutcomeSlots, Payload};
use crate::read::Shown;
use crate::snapshot::LaneImages;

/// Bytes of state copied a turn while a partition is captured: some 10 us.
const CAPTURE_BYTES: usize = 64 << 10;

/// How long a turn applies, at the least and at the most: a query that comes meanwhile
/// waits for its end. As long as the turn's frames took, in between: a lane that took
/// in more than it applied would fall behind, and catch up slowly after a burst.
const SLICE_NS: (u64, u64) = (50_000, 500_000);

/// Where a capture of the lane's partitions stands.
#[derive(Clone, Copy, Debug)]
enum Capture {
    Off,
    /// The next partition is this one or above.
    Next(u16),
    Copying(u16),
}

/// An entry that is being applied.
struct UnderWay {
    epoch: u64,
    log_time_ns: u64,
    batch: Payload,
    place: Place,
}

/// See the module.
pub(super) struct Owner {
    pub(super) partitions: Vec<Option<Box<Partition>>>,
    /// Some of them may owe something that was not sent yet.
    pub(super) has_unsent: bool,
    pub(super) sending: Sending,
    /// Lanes by number: whoever sealed a batch is woken when it is done.
    lanes: Arc<[Arc<LaneLink>]>,
    link: Arc<LaneLink>,
    commands: Consumer<LaneCommand>,
    reports: Producer<LaneReport>,
    sampler: Sampler,
    images: Option<LaneImages<PartitionImage>>,
    /// An image that was got and is not in use yet.
    image: Option<PartitionImage>,
    capture: Capture,
    round: u64,
    next_round: Option<u64>,
    under_way: Option<UnderWay>,
    slice_ns: (u64, u64),
    /// A partition that has not arrived yet.
    adopting: Option<(u16, Consumer<Box<Partition>>)>,
    /// A set of histograms to fill next.
    spare_times: Option<Box<StageTimes>>,
    epoch: u64,
    /// Log time of the last entry, with or without events, nanoseconds since the
    /// Unix epoch.
    log_time_ns: u64,
    /// Time spent in applying since the start, nanoseconds.
    apply_ns: u64,
    /// Events decided since the start by latency class, those of the replay left out.
    classes: ClassCounts,
    /// When the lane last had applied all that the log had handed out, monotonic
    /// nanoseconds.
    current_ns: u64,
}

impl Owner {
    pub(super) fn new(
        partitions: Vec<Option<Box<Partition>>>,
        images: Option<LaneImages<PartitionImage>>,
        epoch: u64,
        lanes: Arc<[Arc<LaneLink>]>,
        link: Arc<LaneLink>,
        (commands, reports): (Consumer<LaneCommand>, Producer<LaneReport>),
        samples: Producer<Sample>,
    ) -> Self {
        link.set_applied_epoch(epoch);
        Self {
            sending: Sending::new(partitions.len()),
            has_unsent: true,
            partitions,
            lanes,
            link,
            commands,
            reports,
            sampler: Sampler::new(samples),
            images,
            image: None,
            capture: Capture::Off,
            round: 0,
            next_round: None,
            under_way: None,
            slice_ns: SLICE_NS,
            adopting: None,
            spare_times: Some(Box::default()),
            epoch,
            log_time_ns: 0,
            apply_ns: 0,
            classes: ClassCounts::default(),
            current_ns: 0,
        }
    }

    /// As short slices as there can be, whatever the clock says.
    #[cfg(test)]
    pub(super) fn set_least_slices(&mut self) {
        self.slice_ns = (0, 0);
    }

    /// Partition `number`, if it is here.
    pub(super) fn partition(&self, number: u16) -> Option<&Partition> {
        self.partitions.get(usize::from(number))?.as_deref()
    }

    /// Whether partition `number` must not be read: an entry is half applied to it.
    pub(super) fn is_half_applied(&self, number: u16) -> bool {
        self.under_way.as_ref().is_some_and(|entry| entry.place.half_applied() == Some(number))
    }

    fn is_current(&self) -> bool {
        self.commands.is_empty() && self.under_way.is_none() && self.adopting.is_none()
    }

    /// What answers from a partition say of themselves: it may be through with the
    /// entry under way before the others are.
    pub(super) fn shown(&self, partition: Option<&Partition>) -> Shown {
        let age_ns = if self.is_current() { 0 } else { monotonic_ns() - self.current_ns };
        let epoch = self.epoch.max(partition.map_or(0, Partition::epoch));
        Shown { epoch, log_time_ns: self.log_time_ns, age_ns }
    }

    /// Whether a turn would find something to do.
    pub(super) fn has_work(&self) -> bool {
        let can_go_on = self.adopting.as_ref().is_none_or(|(_, from)| !from.is_empty());
        let capturing = match &self.capture {
            Capture::Off => false,
            // An image that is being written comes back within a millisecond or
            // so; the idle sleep is short enough to look again.
            Capture::Next(_) => self.image.is_some(),
            Capture::Copying(_) => true,
        };
        self.under_way.is_some() || (can_go_on && !self.commands.is_empty()) || capturing
    }

    /// Carries out what waits until the time of a turn is over, whose frames took
    /// `frames_ns`; gives the entries that were applied or gone on with.
    #[inline]
    pub(super) fn turn(&mut self, now_ns: u64, frames_ns: u64) -> usize {
        let mut applied = 0;
        let (least, most) = self.slice_ns;
        let (mut at_ns, until_ns) = (now_ns, now_ns + frames_ns.clamp(least, most));
        while self.next_entry() {
            applied += 1;
            let begun_ns = std::mem::replace(&mut at_ns, self.apply_until(until_ns));
            self.apply_ns += at_ns.saturating_sub(begun_ns);
            if at_ns >= until_ns {
                break;
            }
        }
        if self.is_current() {
            self.current_ns = now_ns;
        }
        self.go_on_capturing();
        applied
    }

    /// Whether an entry is under way, carrying out all commands before the next one.
    #[inline]
    fn next_entry(&mut self) -> bool {
        while self.under_way.is_none() {
            if !self.may_go_on() {
                return false;
            }
            let Ok(command) = self.commands.pop() else { return false };
            self.carry_out(command);
        }
        true
    }

    /// Takes over the partition that is waited for, if it has arrived.
    #[inline]
    fn may_go_on(&mut self) -> bool {
        let Some((number, from)) = &mut self.adopting else { return true };
        let Ok(partition) = from.pop() else { return false };
        let number = *number;
        self.partitions[usize::from(number)] = Some(partition);
        self.has_unsent = true;
        self.adopting = None;
        self.report(LaneReport::Adopted { partition: number });
        true
    }

    fn carry_out(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::Apply { epoch, log_time_ns, batch } => {
                self.begin(epoch, log_time_ns, batch);
            }
            LaneCommand::Release { partition, mut to } => {
                if let Some(mut state) = self.partitions[usize::from(partition)].take() {
                    state.apply_other(self.epoch);
                    // Made for one: there is room.
                    let _ = to.push(state);
                }
            }
            LaneCommand::Adopt { partition, from } => self.adopting = Some((partition, from)),
            LaneCommand::Capture { round } => {
                // One that was given up runs to its end first.
                self.next_round = Some(round);
                if matches!(self.capture, Capture::Off) {
                    self.capture = self.begin_round();
                }
            }
            LaneCommand::Stages(empty) => self.spare_times = Some(empty),
        }
    }

    fn begin(&mut self, epoch: u64, log_time_ns: u64, batch: Option<Payload>) {
        if epoch / DIGEST_EPOCHS > self.epoch / DIGEST_EPOCHS && self.epoch > 0 {
            self.report_digests(epoch / DIGEST_EPOCHS * DIGEST_EPOCHS);
        }
        match batch {
            Some(batch) => {
                let place = Place::default();
                self.under_way = Some(UnderWay { epoch, log_time_ns, batch, place });
            }
            None => self.end(epoch, log_time_ns),
        }
    }

    /// Goes on with the entry under way until it is through or the time is; gives the
    /// time then.
    fn apply_until(&mut self, until_ns: u64) -> u64 {
        let Some(UnderWay { epoch, log_time_ns, batch, mut place }) = self.under_way.take() else {
            return monotonic_ns();
        };
        if let Some(view) = BatchView::of_checked(batch.as_slice()) {
            let entry = (epoch, log_time_ns);
            let is_over = || monotonic_ns() >= until_ns;
            let slots = batch.slots();
            let partitions = &mut self.partitions[..];
            if !apply_slice(partitions, entry, &view, slots, &mut place, is_over) {
                self.under_way = Some(UnderWay { epoch, log_time_ns, batch, place });
                return monotonic_ns();
            }
            self.look_at_effects(&view);
            if let Some(slots) = slots {
                self.done(slots, epoch, &view);
            }
        }
        self.end(epoch, log_time_ns);
        monotonic_ns()
    }

    /// An entry is applied.
    fn end(&mut self, epoch: u64, log_time_ns: u64) {
        self.epoch = epoch;
        self.log_time_ns = self.log_time_ns.max(log_time_ns);
        self.link.set_applied_epoch(epoch);
    }

    /// What the entry has made its partitions owe, and what it has settled.
    #[inline]
    fn look_at_effects(&mut self, view: &BatchView<'_>) {
        for range in view.ranges() {
            let place = self.partitions.get_mut(usize::from(range.partition));
            let Some(partition) = place.and_then(Option::as_deref_mut) else { continue };
            self.has_unsent |= partition.has_unsent();
            if partition.has_settled() {
                partition.take_settled(|settled| {
                    if let Some(lane) = self.lanes.get(settled.asker.lane as usize) {
                        lane.settle(settled);
                    }
                });
            }
        }
    }

    /// Our slots are filled; the last owner tells the lane that waits. The batch
    /// is still held, so its slots stay until they are looked at.
    fn done(&mut self, slots: &OutcomeSlots, epoch: u64, view: &BatchView<'_>) {
        let now_ns = monotonic_ns();
        slots.stamp(Stamp::Applied, now_ns);
        let waited_ns = now_ns.saturating_sub(slots.stamped(Stamp::Sealed));
        for range in view.ranges() {
            if let Some(Some(partition)) = self.partitions.get(usize::from(range.partition)) {
                self.classes.count(partition.decided(), waited_ns);
            }
        }
        if slots.owner_done()
            && let Some(sealer) = self.lanes.get(view.header().lane as usize)
        {
            sealer.waker.wake();
        }
        let watch = &self.link.watch;
        if watch.wanted.load(Relaxed) {
            let owned =
                |number: u16| self.partitions.get(usize::from(number)).is_some_and(Option::is_some);
            self.sampler.look((epoch, now_ns), view, slots, watch, owned);
        }
    }

    #[cold]
    fn report_digests(&mut self, boundary: u64) {
        for number in 0..self.partitions.len() {
            let Some(partition) = &self.partitions[number] else { continue };
            // Loaded from a snapshot that is further: what it was then is not known.
            if partition.epoch() >= boundary {
                continue;
            }
            let digest = partition.digest();
            self.report(LaneReport::Digest { partition: number as u16, epoch: boundary, digest });
        }
    }

    /// Says something to the control core, which may have nothing else to wake
    /// up for.
    fn report(&mut self, report: LaneReport) {
        if self.reports.push(report).is_err() {
            self.link.reports_lost.fetch_add(1, Relaxed);
        }
        self.link.control.wake();
    }

    /// Exchanges histograms with the control core when it asks.
    #[inline]
    pub(super) fn exchange_times(&mut self, times: &mut Box<StageTimes>) {
        if self.link.stages_wanted.load(Relaxed)
            && let Some(empty) = self.spare_times.take()
        {
            self.link.stages_wanted.store(false, Relaxed);
            let filled = std::mem::replace(times, empty);
            let mut judged = [0; OUTCOME_SLOTS];
            let (mut requests, mut replies, mut repeated) = (0, 0, 0);
            for (partition, of_partition) in self.partitions.iter().zip(&self.link.judged) {
                let Some(partition) = partition else { continue };
                of_partition.store(partition.outcomes().iter().sum(), Relaxed);
                let owed = partition.owed();
                (requests, replies) = (requests + owed.0 as u64, replies + owed.1 as u64);
                repeated += partition.effects_repeated();
                for (sum, count) in judged.iter_mut().zip(partition.outcomes()) {
                    *sum += count;
                }
            }
            self.link.apply_ns.store(self.apply_ns, Relaxed);
            self.link.requests_owed.store(requests, Relaxed);
            self.link.replies_owed.store(replies, Relaxed);
            self.link.effects_repeated.store(repeated, Relaxed);
            self.report(LaneReport::Measured { times: filled, judged, classes: self.classes });
        }
    }

    #[inline]
    fn go_on_capturing(&mut self) {
        if !matches!(self.capture, Capture::Off) {
            self.capture_some();
        }
    }

    fn capture_some(&mut self) {
        self.capture = match self.capture {
            Capture::Off => Capture::Off,
            Capture::Next(from) => self.capture_next(from),
            Capture::Copying(number) => self.capture_more(number),
        };
    }

    fn begin_round(&mut self) -> Capture {
        match self.next_round.take() {
            Some(round) => {
                self.round = round;
                Capture::Next(0)
            }
            None => Capture::Off,
        }
    }

    fn capture_next(&mut self, from: u16) -> Capture {
        let owned = (usize::from(from)..self.partitions.len())
            .find(|number| self.partitions[*number].is_some());
        let Some(number) = owned else { return self.begin_round() };
        if self.is_half_applied(number as u16) {
            return Capture::Next(from);
        }
        if self.image.is_none() {
            self.image = self.images.as_mut().and_then(LaneImages::take);
        }
        let (Some(partition), Some(image)) = (&mut self.partitions[number], self.image.take())
        else {
            return Capture::Next(from);
        };
        partition.apply_other(self.epoch);
        partition.capture_begin(image);
        Capture::Copying(number as u16)
    }

    fn capture_more(&mut self, number: u16) -> Capture {
        // Moves wait for captures: the partition is still here.
        let Some(partition) = &mut self.partitions[usize::from(number)] else {
            return Capture::Next(number + 1);
        };
        if !partition.capture_step(CAPTURE_BYTES) {
            return Capture::Copying(number);
        }
        let image = partition.capture_end();
        if let Some(images) = &mut self.images
            && let Err(image) = images.deliver(self.round, image)
        {
            self.image = Some(image);
        }
        Capture::Next(number + 1)
    }
}
