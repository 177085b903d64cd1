//! A lane of the simulated node: its receiving half batches and acknowledges,
//! its owning half applies. Real batches, real partitions; rings are queues.
//!
//! ```text
//!   datagrams -> open batch -> sealed -> (the log) -> inbox -> apply -> outcome slots
//!                                 \--> waiting, in order, until its slots are full --> acks
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use veltrix::apply::{Partition, PartitionImage};
use veltrix::batch::{BatchBuf, BatchView, OutcomeSlots, Payload, Pool};
use veltrix_abi::outcomes::{DUPLICATE_BIT, Outcome};
use veltrix_abi::partition::partition_of;

use super::clients::Datagram;
use super::oracle::{Oracle, Violation};
use crate::model::{Answer, Event};

/// Buffers of a lane. Few, so that a lane runs out of them now and then.
const POOL_BATCHES: usize = 4;

/// Datagrams of a batch at the most: the simulated segments are small.
const BATCH_DATAGRAMS_MAX: usize = 40;

/// A datagram in a batch, and the slot of its first event.
type Placed = (Datagram, u32);

/// A batch that was sealed.
#[derive(Debug)]
pub struct Sealed {
    /// A reference of the lane's own: without one, the pool would give the
    /// buffer out again.
    buffer: Arc<BatchBuf>,
    datagrams: Vec<Placed>,
}

/// What the control core tells an owner, in epoch order.
#[derive(Debug)]
pub enum Command {
    /// An entry committed; one without events only lets its epoch pass.
    Apply {
        /// Its index.
        epoch: u64,
        /// Its log time.
        log_time_ns: u64,
        /// Its events.
        batch: Option<Payload>,
    },
    /// Give a partition away.
    Release(u16),
    /// Wait for a partition, and own it.
    Adopt(u16),
    /// Capture each partition owned, one after the other.
    Capture,
}

/// An answer that goes back to a client.
#[derive(Debug)]
pub struct Ack {
    /// What is answered.
    pub datagram: Datagram,
    /// Epoch of its batch.
    pub epoch: u64,
    /// One for each event.
    pub answers: Vec<Answer>,
}

/// See the module.
pub struct Lane {
    number: u32,
    life: u64,
    batches: u64,
    pool: Pool,
    open: Option<(usize, Vec<Placed>)>,
    sealed: VecDeque<Sealed>,
    waiting: VecDeque<Sealed>,
    /// Commands not yet carried out.
    pub inbox: VecDeque<Command>,
    /// Partitions owned.
    pub partitions: BTreeMap<u16, Partition>,
    epoch: u64,
    adopting: Option<u16>,
    capturing: Option<u16>,
    to_capture: VecDeque<u16>,
}

impl Lane {
    /// Lane `number` of a life of the node, with its partitions as of `epoch`.
    #[must_use]
    pub fn new(
        number: u32,
        life: u64,
        partitions: u16,
        owned: BTreeMap<u16, Partition>,
        epoch: u64,
    ) -> Self {
        Self {
            number,
            life,
            batches: 0,
            pool: Pool::new(POOL_BATCHES, partitions),
            open: None,
            sealed: VecDeque::new(),
            waiting: VecDeque::new(),
            inbox: VecDeque::new(),
            partitions: owned,
            epoch,
            adopting: None,
            capturing: None,
            to_capture: VecDeque::new(),
        }
    }

    /// Takes a datagram into the open batch; false = shed, all buffers are in
    /// flight.
    pub fn receive(&mut self, datagram: &Datagram, partitions: u16) -> bool {
        if self.open.as_ref().is_some_and(|(_, placed)| placed.len() == BATCH_DATAGRAMS_MAX) {
            self.seal();
        }
        if self.open.is_none() {
            let Some(index) = self.pool.take() else { return false };
            self.open = Some((index, Vec::new()));
        }
        let Some((index, placed)) = &mut self.open else { return false };
        let domain = datagram.domain();
        let first = self.pool.open_buffer(*index).append(
            partition_of(domain, partitions),
            domain,
            &datagram.body(),
            datagram.events.len() as u16,
        );
        let Some(first) = first else { return false };
        placed.push((datagram.clone(), first));
        true
    }

    /// Seals the open batch, if it holds anything.
    pub fn seal(&mut self) {
        let Some((index, datagrams)) = self.open.take_if(|(_, placed)| !placed.is_empty()) else {
            return;
        };
        self.batches += 1;
        self.pool.open_buffer(index).seal(self.number, self.life, self.batches);
        self.sealed.push_back(Sealed { buffer: self.pool.share(index), datagrams });
    }

    /// The next batch for the log, and its events by slot. From here on the
    /// lane waits for its outcomes.
    pub fn submit(&mut self) -> Option<(Payload, Vec<Event>)> {
        let sealed = self.sealed.pop_front()?;
        let payload = Payload::Pooled(Arc::clone(&sealed.buffer));
        let events = sealed.datagrams.iter().flat_map(|(d, _)| d.events.clone()).collect();
        self.waiting.push_back(sealed);
        Some((payload, events))
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_none()
            && self.sealed.is_empty()
            && self.waiting.is_empty()
            && self.inbox.is_empty()
            && self.adopting.is_none()
            && !self.is_capturing()
    }

    /// Last epoch it carried out.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it waits for a partition.
    #[must_use]
    pub const fn is_adopting(&self) -> bool {
        self.adopting.is_some()
    }

    /// Whether a capture is under way or about to begin.
    #[must_use]
    pub fn is_capturing(&self) -> bool {
        self.capturing.is_some() || !self.to_capture.is_empty()
    }

    /// Carries out the next command. `mail` holds partitions between lanes.
    ///
    /// # Errors
    ///
    /// What the oracle says of it.
    pub fn turn(
        &mut self,
        mail: &mut BTreeMap<u16, Partition>,
        oracle: &mut Oracle,
    ) -> Result<(), Violation> {
        if let Some(number) = self.adopting {
            let Some(partition) = mail.remove(&number) else { return Ok(()) };
            self.partitions.insert(number, partition);
            self.adopting = None;
        }
        match self.inbox.pop_front() {
            None => {}
            Some(Command::Release(number)) => {
                if let Some(mut partition) = self.partitions.remove(&number) {
                    partition.apply_other(self.epoch);
                    mail.insert(number, partition);
                }
            }
            Some(Command::Adopt(number)) => self.adopting = Some(number),
            Some(Command::Capture) => self.to_capture = self.partitions.keys().copied().collect(),
            Some(Command::Apply { epoch, log_time_ns, batch }) => {
                if let Some(batch) = &batch {
                    let own = apply(&mut self.partitions, epoch, log_time_ns, batch, oracle)?;
                    if let Some(slots) = batch.slots().filter(|_| own > 0) {
                        slots.owner_done();
                    }
                }
                self.epoch = epoch;
            }
        }
        Ok(())
    }

    /// Captures some more; gives an image that is whole.
    ///
    /// # Errors
    ///
    /// There is no memory for an image.
    pub fn capture(
        &mut self,
        bytes_max: usize,
        image: impl FnOnce() -> io::Result<PartitionImage>,
    ) -> io::Result<Option<PartitionImage>> {
        let number = match self.capturing {
            Some(number) => number,
            None => match self.to_capture.pop_front() {
                Some(number) => number,
                None => return Ok(None),
            },
        };
        let begins = self.capturing.replace(number).is_none();
        let Some(partition) = self.partitions.get_mut(&number) else {
            self.capturing = None;
            return Ok(None);
        };
        if begins {
            partition.apply_other(self.epoch);
            partition.capture_begin(image()?);
        } else if partition.capture_step(bytes_max) {
            self.capturing = None;
            return Ok(Some(partition.capture_end()));
        }
        Ok(None)
    }

    /// Answers of the oldest batch in flight, if all its outcomes are there.
    pub fn acknowledge(&mut self) -> Vec<Ack> {
        let Some(front) = self.waiting.front() else { return Vec::new() };
        let slots = front.buffer.slots();
        if !slots.is_done() {
            return Vec::new();
        }
        let epoch = slots.epoch();
        let acks = front.datagrams.iter().filter_map(|(datagram, first)| {
            let answers = (*first..).take(datagram.events.len()).map(|slot| answer(slots, slot));
            // Silence for a batch that was lost.
            Some(Ack {
                datagram: datagram.clone(),
                epoch: epoch?,
                answers: answers.collect::<Option<_>>()?,
            })
        });
        let acks = acks.collect();
        self.waiting.pop_front();
        acks
    }
}

/// What a slot says; `None` when nobody filled it.
fn answer(slots: &OutcomeSlots, slot: u32) -> Option<Answer> {
    let byte = slots.outcome(slot);
    Some(Answer {
        outcome: Outcome::from_code(byte & !DUPLICATE_BIT)?,
        first_epoch: (byte & DUPLICATE_BIT != 0).then(|| slots.first_epoch(slot)),
    })
}

/// Applies the ranges of `partitions`, and shows the oracle what they answer.
/// Gives how many there are.
///
/// # Errors
///
/// What the oracle says of it.
pub fn apply(
    partitions: &mut BTreeMap<u16, Partition>,
    epoch: u64,
    log_time_ns: u64,
    batch: &Payload,
    oracle: &mut Oracle,
) -> Result<usize, Violation> {
    let Some(slots) = batch.slots() else { return Ok(0) };
    let view = BatchView::of_checked(batch.as_slice()).ok_or("a batch without a header")?;
    apply_with(partitions, epoch, log_time_ns, &view, slots, oracle)
}

/// [`apply`] for bytes that came from the disk and have no slots of their own.
///
/// # Errors
///
/// What the oracle says of it.
pub fn apply_with(
    partitions: &mut BTreeMap<u16, Partition>,
    epoch: u64,
    log_time_ns: u64,
    view: &BatchView<'_>,
    slots: &OutcomeSlots,
    oracle: &mut Oracle,
) -> Result<usize, Violation> {
    let mut own = 0;
    for range in view.ranges() {
        let Some(partition) = partitions.get_mut(&range.partition) else { continue };
        own += 1;
        let numbers: Vec<u32> =
            view.runs(&range).flat_map(|run| (run.first_event..).take(run.events.len())).collect();
        // A buffer is used again: what an earlier batch left is no answer.
        for slot in &numbers {
            slots.set(*slot, 0);
        }
        let skips = epoch <= partition.epoch();
        partition.apply(epoch, log_time_ns, view, &range, Some(slots));
        if skips {
            continue;
        }
        let answers: Vec<(u32, Answer)> =
            numbers.iter().filter_map(|slot| Some((*slot, answer(slots, *slot)?))).collect();
        if answers.len() != numbers.len() {
            return Err(format!(
                "partition {}: an event of epoch {epoch} was not answered",
                range.partition
            ));
        }
        oracle.applied(epoch, partition, &answers)?;
    }
    Ok(own)
}
