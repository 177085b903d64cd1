//! What must hold, whatever was broken on the way.
//!
//! ```text
//!   proposed --> read back --> applied (by each partition, in every life) --> acknowledged
//!        \________ the same bytes       \____ the same answers, the same digests
//! ```
//!
//! The oracle sees every entry, every answer and every ack of all lives of the
//! node, and keeps what it saw across crashes, which the node does not:
//!
//! - an index that was durable keeps its entry, byte for byte;
//! - a partition answers an entry the same way whenever it applies it, and its
//!   digest after an epoch is the same;
//! - answers are those of the model over the durable log;
//! - an acknowledged event is in that log, and was judged in the epoch and with
//!   the outcome that was promised; none was judged twice;
//! - once an entry was acknowledged, every recovery reaches at least its epoch;
//! - the vote never goes back.

use std::collections::{BTreeMap, HashMap};

use veltrix::apply::{Digest, Partition};
use veltrix::log::{Body, LogEntry, Vote};
use veltrix_abi::outcomes::Outcome;
use veltrix_abi::partition::partition_of;

use super::clients::Datagram;
use super::compare;
use crate::model::{Answer, Entry, Event, Limits, Model};

/// What the oracle found wrong, in words.
pub type Violation = String;

/// An entry as it was proposed.
#[derive(Debug)]
struct Logged {
    entry: LogEntry,
    /// Its events in the order of their slots.
    events: Vec<Event>,
    /// What was answered, as far as it was applied.
    answers: Vec<Option<Answer>>,
    /// The node said so, or found it at a start: it may be applied.
    is_committed: bool,
}

/// A key in the partition that judges it.
type Name = (u16, u64, [u8; 16]);

/// See the module.
#[derive(Debug)]
pub struct Oracle {
    limits: Limits,
    log: BTreeMap<u64, Logged>,
    model: Model,
    /// What was promised for a key: outcome and epoch of its judgement.
    promised: HashMap<Name, (Outcome, u64)>,
    /// Greatest epoch that anything was acknowledged of.
    acked: u64,
    digests: HashMap<(u16, u64), Digest>,
    vote: Option<Vote>,
    /// Events acknowledged.
    pub events_acked: u64,
    /// Of these, duplicates.
    pub duplicates_acked: u64,
}

impl Oracle {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            log: BTreeMap::new(),
            model: Model::new(limits),
            promised: HashMap::new(),
            acked: 0,
            digests: HashMap::new(),
            vote: None,
            events_acked: 0,
            duplicates_acked: 0,
        }
    }

    /// The leader gave an entry its index. `events` are in the order of slots.
    ///
    /// # Errors
    ///
    /// The index was given to another entry that somebody relies on.
    pub fn proposed(&mut self, entry: &LogEntry, events: Vec<Event>) -> Result<(), Violation> {
        let index = entry.id.index;
        if index <= self.model.epoch().max(self.acked) {
            return Err(format!("index {index} is given anew, and was applied before"));
        }
        let batches = self.log.values().rev().filter(|l| !l.events.is_empty());
        if let Some(before) = batches.map(|l| l.entry.log_time_ns).next()
            && entry.log_time_ns <= before
        {
            return Err(format!("log time {} after {before}", entry.log_time_ns));
        }
        let mut entry = entry.clone();
        if let Body::Batch(payload) = &entry.body {
            // The node's buffer is used again; ours stays as it is.
            let bytes = payload.as_slice().to_vec();
            entry.body = Body::Batch(veltrix::batch::Payload::Owned(bytes.into()));
        }
        let answers = vec![None; events.len()];
        self.log.insert(index, Logged { entry, events, answers, is_committed: false });
        Ok(())
    }

    /// The node holds the entry at `index` to be committed.
    pub fn committed(&mut self, index: u64) {
        if let Some(logged) = self.log.get_mut(&index) {
            logged.is_committed = true;
        }
    }

    /// The disk said that the vote is durable.
    pub fn voted(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    /// A start found this vote, and the log ending at `last`.
    ///
    /// # Errors
    ///
    /// Something durable is gone.
    pub fn found(&mut self, vote: Option<Vote>, last: u64) -> Result<(), Violation> {
        // One written and not yet acknowledged may be found, too.
        if self.vote.is_some_and(|kept| vote.is_none_or(|found| found.term < kept.term)) {
            return Err(format!("the vote went back: {vote:?} after {:?}", self.vote));
        }
        self.vote = vote;
        if last < self.acked {
            return Err(format!("the log ends at {last}, {} was acknowledged", self.acked));
        }
        if last < self.model.epoch() {
            return Err(format!("the log ends at {last}, {} was applied", self.model.epoch()));
        }
        self.log.retain(|index, _| *index <= last);
        Ok(())
    }

    /// A start read this entry.
    ///
    /// # Errors
    ///
    /// It is not the one that was proposed.
    pub fn read_back(&mut self, entry: &LogEntry) -> Result<(), Violation> {
        let index = entry.id.index;
        match self.log.get_mut(&index) {
            Some(logged) if logged.entry == *entry => {
                logged.is_committed = true;
                Ok(())
            }
            Some(logged) => Err(format!(
                "index {index} holds {} of {} bytes, proposed was {} of {} bytes",
                entry.id,
                entry.body.as_slice().len(),
                logged.entry.id,
                logged.entry.body.as_slice().len(),
            )),
            None => Err(format!("index {index} was never proposed: a phantom")),
        }
    }

    /// A partition applied its part of an entry: `answers` by slot.
    ///
    /// # Errors
    ///
    /// It answered or came out otherwise than it did before, or than the model.
    pub fn applied(
        &mut self,
        epoch: u64,
        partition: &Partition,
        answers: &[(u32, Answer)],
    ) -> Result<(), Violation> {
        let number = partition.number();
        let digest = partition.digest();
        let before = self.digests.insert((number, epoch), digest);
        if before.is_some_and(|before| before != digest) {
            return Err(format!("partition {number}: another digest at epoch {epoch} than before"));
        }
        let logged =
            self.log.get_mut(&epoch).ok_or_else(|| format!("epoch {epoch} was never proposed"))?;
        for (slot, answer) in answers {
            let place = logged
                .answers
                .get_mut(*slot as usize)
                .ok_or_else(|| format!("epoch {epoch} has no slot {slot}"))?;
            if place.replace(*answer).is_some_and(|before| before != *answer) {
                return Err(format!("epoch {epoch}, slot {slot}: another answer than before"));
            }
        }
        self.judge()
    }

    /// Lets the model judge as far as the answers are known without a gap.
    fn judge(&mut self) -> Result<(), Violation> {
        let next = |model: &Model| model.epoch() + 1;
        while let Some(logged) = self.log.get(&next(&self.model)).filter(|l| l.is_committed) {
            let Some(found) = logged.answers.iter().copied().collect::<Option<Vec<Answer>>>()
            else {
                return Ok(());
            };
            let entry = Entry {
                epoch: logged.entry.id.index,
                log_time_ns: logged.entry.log_time_ns,
                events: logged.events.clone(),
            };
            self.model.follow(&entry, &found).map_err(|wrong| wrong.to_string())?;
        }
        Ok(())
    }

    /// The node promised answers to a datagram's events.
    ///
    /// # Errors
    ///
    /// Another promise was made for one of them.
    pub fn acknowledged(
        &mut self,
        datagram: &Datagram,
        epoch: u64,
        answers: &[Answer],
    ) -> Result<(), Violation> {
        self.acked = self.acked.max(epoch);
        for (event, answer) in datagram.events.iter().zip(answers) {
            self.events_acked += 1;
            self.duplicates_acked += u64::from(answer.first_epoch.is_some());
            use Outcome::{Malformed, OverQuota, TooNew, TooOld, WrongRegion};
            if [Malformed, OverQuota, TooNew, TooOld, WrongRegion].contains(&answer.outcome) {
                continue;
            }
            let name = self.name(event);
            let judged = (answer.outcome, answer.first_epoch.unwrap_or(epoch));
            match self.promised.insert(name, judged) {
                Some(before) if before != judged => {
                    return Err(format!(
                        "answered {judged:?} after {before:?} to the same key: {event:?}"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The node has applied its log up to `last`, and rests: everything is held
    /// against the model.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn at_rest<'a>(
        &mut self,
        last: u64,
        partitions: impl Iterator<Item = &'a Partition>,
    ) -> Result<(), Violation> {
        self.judge()?;
        let epoch = self.model.epoch();
        if epoch != last {
            return Err(format!(
                "epoch {} was never applied whole, the log ends at {last}",
                epoch + 1
            ));
        }
        let mut count = 0;
        for partition in partitions {
            let number = partition.number();
            let wanted = &self.model.partitions()[usize::from(number)];
            compare::state(partition, wanted)
                .map_err(|what| format!("partition {number} at epoch {epoch}: {what}"))?;
            count += 1;
        }
        if count != self.limits.partitions {
            return Err(format!("{count} partitions are there of {}", self.limits.partitions));
        }
        for ((number, player, key), promised) in &self.promised {
            let judged = self.model.partitions()[usize::from(*number)].judged(*player, *key);
            if judged != Some(*promised) {
                return Err(format!(
                    "promised {promised:?} to player {player}, the log has {judged:?} for key {key:02x?}"
                ));
            }
        }
        Ok(())
    }

    /// Last epoch that is applied everywhere.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.model.epoch()
    }

    fn name(&self, event: &Event) -> Name {
        (partition_of(event.domain, self.limits.partitions), event.player, event.key)
    }
}
