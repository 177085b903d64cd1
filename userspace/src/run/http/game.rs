//! Reads of the game: hunts, leaderboards, players, cells.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use veltrix_abi::kinds::{CELL_BITS, HotspotKind};
use veltrix_abi::query::{
    COORDINATE_MAX, CellRow, HuntPhase, HuntRow, PlayerRow, ROWS_MAX, RankRow, Row, Wanted,
};

use super::App;
use super::asks::Found;
use super::hunts::{game_name, latency_name, phase_name, split};
use super::params::{Params, shown};
use super::refused::Refused;
use crate::index::position_of;

/// Rows of a page unless the caller says otherwise.
const LIMIT_DEFAULT: u64 = 10;

/// Cells of a page unless the caller says otherwise: a screen of a map.
const CELLS_LIMIT_DEFAULT: u64 = 100;

/// Ranks before and behind a player, unless the caller says otherwise and at the most.
const AROUND_DEFAULT: u64 = 5;
const AROUND_MAX: u64 = (ROWS_MAX as u64 - 1) / 2;

/// Largest cell id.
const CELL_MAX: u64 = (1 << CELL_BITS) - 1;

type Answer = Result<Json<Value>, Refused>;

/// `GET /v1/hunts/{hunt}`.
///
/// # Errors
///
/// No such hunt, or no answer; so for all of these.
pub async fn hunt(State(app): State<App>, params: Params) -> Answer {
    params.only(&["min_epoch"])?;
    let (hunt, found) = read::<HuntRow>(&app, &params, Wanted::Hunt).await?;
    let Some(row) = found.rows.first() else { return Err(none(hunt, "hunt", hunt)) };
    let game = game_name(row.game);
    let phase = row.phase().map_or("unknown", phase_name);
    let teams: Vec<Value> = (1..)
        .zip(row.banks.iter().zip(row.tiles))
        .filter(|(_, (bank, tiles))| **bank > 0 || *tiles > 0)
        .map(|(team, (bank, tiles))| json!({ "team": team, "bank": bank, "tiles": tiles }))
        .collect();
    Ok(Json(json!({
        "hunt": hunt,
        "cells": row.cells,
        "players": row.players,
        "ranked": row.ranked,
        "score_epoch": row.score_epoch,
        "game": game,
        "latency": latency_name(row.game),
        "phase": phase,
        "opened_s": row.opened_s,
        "ends_s": row.ends_s,
        "lots": row.lots,
        "pot": row.pot,
        "winner": (row.lots > 0 && row.phase() != Some(HuntPhase::Playing)).then_some(row.winner),
        "teams": teams,
        "tenant": (row.tenant > 0).then_some(row.tenant),
        "over_quota": row.over_quota,
        "split": row.region.map(split),
        "epoch": found.epoch,
        "age_ns": found.age_ns,
    })))
}

/// `GET /v1/hunts/{hunt}/leaderboard`.
///
/// # Errors
///
/// As [`hunt`]; the player asked `around` has no score.
pub async fn leaderboard(State(app): State<App>, params: Params) -> Answer {
    params.only(&["from", "limit", "around", "n", "min_epoch"])?;
    let around = params.text("around").map(|_| params.id("around", u64::MAX)).transpose()?;
    let wanted = if let Some(player) = around {
        for name in ["from", "limit"] {
            if params.text(name).is_some() {
                let error = format!("around and {name} contradict each other");
                return Err(Refused::bad(error, format!("leave {name} out, or around")));
            }
        }
        let around = params.number("n", AROUND_DEFAULT, 0, AROUND_MAX)?;
        Wanted::Rank { player, around: around as u16 }
    } else {
        if params.text("n").is_some() {
            return Err(Refused::bad("n goes with around", "add around=PLAYER, or use limit"));
        }
        let from = params.number("from", 1, 1, u32::MAX.into())? as u32;
        Wanted::Top { from, limit: limit(&params, LIMIT_DEFAULT)? }
    };
    let (hunt, found) = read::<RankRow>(&app, &params, wanted).await?;
    if let (Some(player), false) = (around, found.is_found) {
        return Err(none(hunt, "player with a score and the id", player));
    }
    let rows: Vec<Value> = found
        .rows
        .iter()
        .map(|row| {
            json!({
                "rank": row.rank,
                "player": row.player,
                "score": row.score,
                "score_epoch": row.score_epoch,
            })
        })
        .collect();
    Ok(page(hunt, "rows", rows, &found))
}

/// `GET /v1/hunts/{hunt}/players/{player}` and `GET /v1/players/{player}`.
///
/// # Errors
///
/// As [`hunt`]; no such player.
pub async fn player(State(app): State<App>, params: Params) -> Answer {
    params.only(&["hunt", "min_epoch"])?;
    let id = params.id("player", u64::MAX)?;
    let (hunt, found) = read::<PlayerRow>(&app, &params, Wanted::Player(id)).await?;
    let Some(row) = found.rows.first() else { return Err(none(hunt, "player", id)) };
    Ok(Json(json!({
        "hunt": hunt,
        "player": row.player,
        "wallet": row.wallet,
        "score": row.score,
        "score_epoch": row.score_epoch,
        "inventory": row.inventory,
        "rank": (row.rank > 0).then_some(row.rank),
        "team": (row.team > 0).then_some(row.team),
        "power": (row.power > 0).then_some(row.power),
        "epoch": found.epoch,
        "age_ns": found.age_ns,
    })))
}

/// `GET /v1/hunts/{hunt}/cells` and `GET /v1/cells`.
///
/// # Errors
///
/// As [`hunt`]; a box that is none.
pub async fn cells(State(app): State<App>, params: Params) -> Answer {
    params.only(&["hunt", "x", "y", "bbox", "limit", "from", "min_epoch"])?;
    let (x, y) = box_of(&params)?;
    let from = params.number("from", 0, 0, CELL_MAX)?;
    let limit = limit(&params, CELLS_LIMIT_DEFAULT)?;
    let wanted = Wanted::CellsInBox { x, y, from, limit };
    let (hunt, found) = read::<CellRow>(&app, &params, wanted).await?;
    Ok(page(hunt, "cells", found.rows.iter().map(cell_json).collect(), &found))
}

/// `GET /v1/hunts/{hunt}/nearest`.
///
/// # Errors
///
/// As [`hunt`].
pub async fn nearest(State(app): State<App>, params: Params) -> Answer {
    params.only(&["cell", "limit", "min_epoch"])?;
    let to = params.id("cell", CELL_MAX)?;
    let wanted = Wanted::NearestCells { to, limit: limit(&params, LIMIT_DEFAULT)? };
    let (hunt, found) = read::<CellRow>(&app, &params, wanted).await?;
    Ok(page(hunt, "cells", found.rows.iter().map(cell_json).collect(), &found))
}

/// `GET /v1/hunts/{hunt}/cells/{cell}`.
///
/// # Errors
///
/// As [`hunt`]; no hotspot was ever there.
pub async fn cell(State(app): State<App>, params: Params) -> Answer {
    params.only(&["min_epoch"])?;
    let id = params.id("cell", CELL_MAX)?;
    let (hunt, found) = read::<CellRow>(&app, &params, Wanted::Cell(id)).await?;
    let Some(row) = found.rows.first() else { return Err(none(hunt, "cell", id)) };
    let mut answer = cell_json(row);
    answer["hunt"] = hunt.into();
    answer["epoch"] = found.epoch.into();
    answer["age_ns"] = found.age_ns.into();
    Ok(Json(answer))
}

async fn read<R: Row>(
    app: &App,
    params: &Params,
    wanted: Wanted,
) -> Result<(u64, Found<R>), Refused> {
    let hunt = params.id("hunt", u64::MAX)?;
    let min_epoch = params.number("min_epoch", 0, 0, u64::MAX)?;
    Ok((hunt, app.asks.game(hunt, min_epoch, wanted).await?))
}

fn page<R>(hunt: u64, name: &str, rows: Vec<Value>, found: &Found<R>) -> Json<Value> {
    Json(json!({
        "hunt": hunt,
        name: rows,
        "next": found.next,
        "epoch": found.epoch,
        "age_ns": found.age_ns,
    }))
}

fn cell_json(row: &CellRow) -> Value {
    let (x, y) = position_of(row.cell);
    json!({
        "cell": row.cell,
        "x": x,
        "y": y,
        "kind": row.hotspot_kind().map(kind_name),
        "item": row.item,
        "remaining": row.remaining,
        "reward": row.reward,
        "expiry_s": (row.expiry_s > 0).then_some(row.expiry_s),
        "claimed_by": row.claimed.then_some(row.claimed_by),
    })
}

/// Name of a kind of hotspot, as events give it.
#[must_use]
pub const fn kind_name(kind: HotspotKind) -> &'static str {
    match kind {
        HotspotKind::Item => "item",
        HotspotKind::Chest => "chest",
        HotspotKind::Ticket => "ticket",
    }
}

fn none(hunt: u64, what: &str, id: u64) -> Refused {
    Refused::new(
        StatusCode::NOT_FOUND,
        format!("hunt {hunt} has no {what} {id}"),
        "it is there once an event about it is applied; ?min_epoch=EPOCH waits for one",
    )
}

fn limit(params: &Params, default: u64) -> Result<u16, Refused> {
    Ok(params.number("limit", default, 1, ROWS_MAX.into())? as u16)
}

/// The box of `x` and `y`, or of `bbox`; all there is without either.
fn box_of(params: &Params) -> Result<([u32; 2], [u32; 2]), Refused> {
    let (x, y) = if params.text("bbox").is_some() {
        if params.text("x").or(params.text("y")).is_some() {
            return Err(Refused::bad("bbox contradicts x and y", "give bbox, or x and y"));
        }
        let wanted = "X_MIN,Y_MIN,X_MAX,Y_MAX";
        let found = params.list("bbox", COORDINATE_MAX, wanted)?;
        let [x_min, y_min, x_max, y_max] = found.unwrap_or_default();
        ([x_min, x_max], [y_min, y_max])
    } else {
        let side = |name| params.list::<2>(name, COORDINATE_MAX, "MIN,MAX");
        let whole = [0, COORDINATE_MAX];
        (side("x")?.unwrap_or(whole), side("y")?.unwrap_or(whole))
    };
    for (name, [min, max]) in [("x", x), ("y", y)] {
        if min > max {
            let given = params.text("bbox").or(params.text(name)).unwrap_or_default();
            let error = format!(
                "the box is inverted: {} has {name} from {min} down to {max}, wanted from low to high",
                shown(given)
            );
            return Err(Refused::bad(error, format!("swap {min} and {max}")));
        }
    }
    Ok((x, y))
}
