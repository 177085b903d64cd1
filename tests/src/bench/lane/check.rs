//! Holds the pipeline against the reference model: every outcome, and in the
//! end every cell and player, of the hunts that are watched.

use anyhow::{Result, ensure};
use veltrix::index::{Cell, Player};
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::{self, Reply, Request};

use super::pipeline::{Pipeline, Round, limits};
use super::traffic::{PARTITIONS, Traffic};
use crate::model::{self, Model};

/// See the module.
pub struct Check {
    model: Model,
    /// Domain keys of the hunts that are watched, sorted. Hunts do not touch
    /// each other while nothing is full, so any of them stand for themselves.
    watched: Vec<u64>,
    /// Events that the model judged as the pipeline did.
    pub events: u64,
}

impl Check {
    /// Watches every `one_in`th hunt.
    #[must_use]
    pub fn new(traffic: &Traffic, one_in: u32) -> Self {
        let limits = limits(traffic.scale());
        let model = Model::new(model::Limits {
            partitions: PARTITIONS,
            cells_max: limits.index.cells_max as usize,
            players_max: limits.index.players_max as usize,
            hunts_max: usize::from(limits.index.hunts_max),
            definitions_max: limits.index.definitions_max as usize,
            deeds_max: limits.index.deeds_max as usize,
            keys_max: limits.dedupe.keys_max as usize,
            window_ms: limits.dedupe.window_ms,
        });
        let hunts = (0..traffic.scale().hunts()).step_by(one_in as usize);
        let mut watched: Vec<u64> = hunts.map(|hunt| traffic.domain(hunt)).collect();
        watched.sort_unstable();
        Self { model, watched, events: 0 }
    }

    /// Hunts that are watched.
    #[must_use]
    pub fn hunts(&self) -> usize {
        self.watched.len()
    }

    /// Runs the round's batches through the model and compares the acks.
    ///
    /// # Errors
    ///
    /// The first event whose outcome is another.
    pub fn follow(&mut self, round: &Round, pipeline: &Pipeline) -> Result<()> {
        for batch in &pipeline.sealed {
            let mut events = Vec::new();
            let mut outcomes: Vec<u8> = Vec::new();
            for number in batch.datagrams.clone() {
                let request = wire::decode(round.datagram(number), crc_fast::crc32_iscsi);
                let Ok((header, Request::Events(_, of_datagram))) = request else { continue };
                if self.watched.binary_search(&header.domain).is_err() {
                    continue;
                }
                events.extend(of_datagram.map(|e| model::Event::of_wire(header.domain, &e)));
                let ack = wire::decode_reply(pipeline.acks.datagram(number), crc_fast::crc32_iscsi);
                let Ok((_, Reply::Ack(mut entries))) = ack else {
                    anyhow::bail!("ack {number} does not decode: {ack:?}");
                };
                let entry = entries.next().filter(|e| e.sequence == header.sequence);
                ensure!(entry.is_some(), "ack {number} answers another datagram");
                outcomes.extend(entry.iter().flat_map(|entry| entry.outcomes));
            }
            let wanted = self.model.apply(&model::Entry {
                epoch: batch.epoch,
                log_time_ns: batch.log_time_ns,
                events: events.clone(),
            });
            ensure!(wanted.len() == outcomes.len(), "one outcome an event");
            for ((event, wanted), found) in events.iter().zip(&wanted).zip(&outcomes) {
                let same = wanted.first_epoch.is_none() && wanted.outcome.code() == *found;
                ensure!(same, "{event:?}: the model says {wanted:?}, the ack says {found:#x}");
            }
            self.events += events.len() as u64;
        }
        Ok(())
    }

    /// Compares every cell and player of the watched hunts.
    ///
    /// # Errors
    ///
    /// The first that differs.
    pub fn compare_state(&self, pipeline: &Pipeline) -> Result<()> {
        for domain in &self.watched {
            let partition = partition_of(*domain, PARTITIONS);
            let index = pipeline.partitions()[usize::from(partition)].index();
            let (Some(wanted), Some(hunt)) = (self.model.hunt(*domain), index.hunt(*domain)) else {
                anyhow::bail!("hunt {domain} is not on both sides");
            };
            let cells = index.cells_in(hunt, 0, u64::MAX).count();
            ensure!(cells == wanted.cells.len(), "hunt {domain}: {cells} cells");
            let players: Vec<&Player> = index.players().collect();
            let claimer = |cell: &Cell| {
                let number = cell.claimed_by.checked_sub(1)?;
                players.get(number as usize).map(|player| player.player())
            };
            for (id, wanted) in &wanted.cells {
                let found = index.cell_slot(hunt, *id).map(|slot| index.cell(slot));
                let same = found.is_some_and(|found| {
                    found.kind() == Some(wanted.kind)
                        && found.item() == wanted.item
                        && found.remaining == wanted.remaining
                        && found.reward() == wanted.reward
                        && u64::from(found.expiry_s) == wanted.expiry_s
                        && claimer(found) == wanted.claimed_by
                });
                ensure!(same, "hunt {domain}, cell {id}: {found:?}, the model has {wanted:?}");
            }
            let of_hunt = players.iter().filter(|p| p.hunt() == hunt).count();
            ensure!(of_hunt == wanted.players.len(), "hunt {domain}: {of_hunt} players");
            for (id, wanted) in &wanted.players {
                let found = index.player_slot(hunt, *id).map(|slot| index.player(slot));
                let same = found.is_some_and(|found| {
                    found.wallet == wanted.wallet
                        && found.score == wanted.score
                        && found.inventory == wanted.inventory
                });
                ensure!(same, "hunt {domain}, player {id}: {found:?}, the model has {wanted:?}");
            }
        }
        Ok(())
    }
}
