//! The list of hunts: partition by partition, in each in the order in which they were
//! first seen.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use veltrix_abi::query::HuntPhase;
use veltrix_abi::split::Region;

use super::App;
use super::params::Params;
use super::refused::Refused;
use crate::apply::games;
use crate::read::hunts::HuntLine;

/// Rows of a page unless the caller says otherwise, and at the most.
const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 100;

/// Reads for one page. A page that would take more is short, and says where to go on.
const READS_MAX: usize = 64;

/// Hunts that one partition can number.
const NUMBERS: u64 = 1 << 16;

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    partition: u16,
    number: u16,
}

impl Place {
    const fn of(from: u64) -> Self {
        Self { partition: (from / NUMBERS) as u16, number: (from % NUMBERS) as u16 }
    }

    const fn mark(self) -> u64 {
        self.partition as u64 * NUMBERS + self.number as u64
    }

    const fn next_partition(self) -> Self {
        Self { partition: self.partition.saturating_add(1), number: 0 }
    }
}

/// `GET /v1/hunts`.
///
/// # Errors
///
/// Parameters; the server has no log, or no lane answers.
pub async fn list(State(app): State<App>, params: Params) -> Result<Json<Value>, Refused> {
    params.only(&["tenant", "from", "limit", "min_epoch"])?;
    let tenant = match params.text("tenant") {
        Some(_) => Some(params.id("tenant", u32::MAX.into())? as u32),
        None => None,
    };
    let limit = params.number("limit", LIMIT_DEFAULT, 1, LIMIT_MAX)? as usize;
    let min_epoch = params.number("min_epoch", 0, 0, u64::MAX)?;
    let partitions = app.asks.totals().await?.lanes.iter().map(Vec::len).sum::<usize>();
    let from_max = (partitions as u64 * NUMBERS).saturating_sub(1);
    let mut at = Place::of(params.number("from", 0, 0, from_max)?);
    let mut rows = Vec::new();
    let (mut epoch, mut age_ns) = (u64::MAX, 0);
    let mut reads = 0;
    while usize::from(at.partition) < partitions && rows.len() < limit && reads < READS_MAX {
        reads += 1;
        let piece = app.asks.hunts(at.partition, at.number, min_epoch).await?;
        epoch = epoch.min(piece.epoch);
        age_ns = age_ns.max(piece.age_ns);
        let mut left = piece.lines.iter();
        for line in left.by_ref() {
            at.number = at.number.saturating_add(1);
            if tenant.is_none_or(|tenant| line.tenant == tenant) {
                rows.push(row(line));
            }
            if rows.len() == limit {
                break;
            }
        }
        if left.len() == 0 && piece.next.is_none() {
            at = at.next_partition();
        }
    }
    let has_more = usize::from(at.partition) < partitions;
    Ok(Json(json!({
        "hunts": rows,
        "next": has_more.then(|| at.mark()),
        "epoch": epoch,
        "age_ns": age_ns,
    })))
}

/// Which region of which hunt it is.
#[must_use]
pub fn split(region: Region) -> Value {
    json!({
        "root": region.root,
        "region": region.number,
        "regions": region.split.regions(),
        "bits": region.split.bits,
        "skip": region.split.skip,
    })
}

fn row(line: &HuntLine) -> Value {
    json!({
        "hunt": line.domain,
        "tenant": (line.tenant > 0).then_some(line.tenant),
        "game": game_name(line.game),
        "latency": latency_name(line.game),
        "phase": line.phase().map_or("unknown", phase_name),
        "cells": line.cells,
        "players": line.players,
        "split": line.region().map(split),
        "opened_s": line.opened_s,
        "ends_s": line.ends_s,
        "events": line.events,
        "over_quota": line.over_quota,
    })
}

/// Name of a game type; `None` for a hunt that nobody has opened.
#[must_use]
pub fn game_name(code: u8) -> Option<&'static str> {
    (code > 0).then(|| games::known(code).map_or("unknown", |row| row.name))
}

/// Latency class of a game type; that of free-roam for a hunt that nobody has opened.
#[must_use]
pub fn latency_name(code: u8) -> &'static str {
    games::known(code.max(1)).map_or("unknown", |row| row.latency.name())
}

/// How a hunt stands, as answers name it.
#[must_use]
pub const fn phase_name(phase: HuntPhase) -> &'static str {
    match phase {
        HuntPhase::Playing => "playing",
        HuntPhase::Over => "over",
        HuntPhase::Closed => "closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_says_of_which_hunt_it_is() {
        let sixteen = veltrix_abi::split::Split::new(4, 2).unwrap();
        let found = split(Region { root: 42, split: sixteen, number: 3 });
        let wanted = json!({ "root": 42, "region": 3, "regions": 16, "bits": 4, "skip": 2 });
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_mark_names_its_place() {
        for place in [
            Place { partition: 0, number: 0 },
            Place { partition: 63, number: 65_535 },
            Place { partition: 4_095, number: 7 },
        ] {
            assert_eq!(Place::of(place.mark()), place);
        }
        let last = Place { partition: 2, number: 9 };
        assert_eq!(last.next_partition().mark(), 3 * NUMBERS);
    }
}
