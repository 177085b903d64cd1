//! What each kind of event does to a hunt.
//!
//! A rule works on a copy of what it touches and gives it back only when the
//! event is applied: so a refused event changes nothing, whatever the rule did
//! before it found out.

use std::collections::HashMap;

use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, ITEM_TYPES, SCORE_MAX};
use veltrix_abi::outcomes::Outcome;

use super::{Event, Limits, Partition};

/// A hunt that a spawn or a credit created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hunt {
    /// Hotspots by cell.
    pub cells: HashMap<u64, HotspotState>,
    /// Players by id.
    pub players: HashMap<u64, Player>,
    /// Players in the order in which they were first given something.
    pub seen: Vec<u64>,
}

impl Hunt {
    /// Cells of the hotspots from `from` to `to`, both included, ascending.
    #[must_use]
    pub fn cells_in(&self, from: u64, to: u64) -> Vec<u64> {
        let mut cells: Vec<u64> =
            self.cells.keys().copied().filter(|cell| (from..=to).contains(cell)).collect();
        cells.sort_unstable();
        cells
    }

    /// Everybody with a score, the best first: more points, then points for
    /// longer, then seen before.
    #[must_use]
    pub fn leaderboard(&self) -> Vec<u64> {
        let mut scored: Vec<(usize, u64)> = self.seen.iter().copied().enumerate().collect();
        scored.retain(|(_, player)| self.players[player].score > 0);
        scored.sort_by_key(|(seen, player)| {
            let player = &self.players[player];
            (std::cmp::Reverse(player.score), player.score_epoch, *seen)
        });
        scored.into_iter().map(|(_, player)| player).collect()
    }

    fn put(&mut self, player: u64, mut state: Player, epoch: u64) {
        let before = self.players.get(&player);
        if before.is_none() {
            self.seen.push(player);
        }
        if before.map_or(0, |before| before.score) != state.score {
            state.score_epoch = epoch;
        }
        self.players.insert(player, state);
    }
}

/// A hotspot as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotspotState {
    /// What it is.
    pub kind: HotspotKind,
    /// Item it gives, or wants as a key.
    pub item: u8,
    /// Times it can still be taken.
    pub remaining: u16,
    /// What taking it adds.
    pub reward: u32,
    /// Log time at which it is gone, seconds since the Unix epoch; 0 = never.
    pub expiry_s: u64,
    /// Who claimed the ticket.
    pub claimed_by: Option<u64>,
}

/// A player in one hunt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Player {
    /// Money.
    pub wallet: u64,
    /// Points.
    pub score: u64,
    /// Epoch since which the score is what it is; 0 if it never changed.
    pub score_epoch: u64,
    /// Items of each type.
    pub inventory: [u16; ITEM_TYPES as usize],
}

/// What an applied event leaves behind; what it did not touch is `None`.
#[derive(Default)]
struct Change {
    hotspot: Option<HotspotState>,
    player: Option<Player>,
    /// Another player than the one that acts.
    payee: Option<Player>,
}

/// Judges an event that was not judged before, and does what it asks for.
pub(super) fn outcome(
    partition: &mut Partition,
    limits: &Limits,
    epoch: u64,
    log_time_s: u64,
    kind: EventKind,
    event: &Event,
) -> Outcome {
    let has_hunt = partition.hunts.contains_key(&event.domain);
    let hunt = partition.hunts.entry(event.domain).or_default();
    let hotspot = hunt.cells.get(&event.subject).copied();
    let player = hunt.players.get(&event.player).copied();
    // Only a transfer has a player for its subject.
    let payee = hunt.players.get(&event.subject).copied();
    let judged = match kind {
        EventKind::HotspotSpawn => spawn(event, log_time_s),
        EventKind::CollectItem => take(hotspot, HotspotKind::Item, log_time_s, player, collect),
        EventKind::UseKey => take(hotspot, HotspotKind::Chest, log_time_s, player, use_key),
        EventKind::Claim => {
            take(hotspot, HotspotKind::Ticket, log_time_s, player, |spot, player| {
                spot.remaining = 0;
                spot.claimed_by = Some(event.player);
                pay(player, spot.reward)
            })
        }
        EventKind::WalletCredit => credit(player, event.argument),
        EventKind::WalletSpend => spend(player, event.argument),
        EventKind::WalletTransfer => spend(player, event.argument)
            .and_then(|paid| Ok(Change { payee: credit(payee, event.argument)?.player, ..paid })),
        EventKind::HotspotExpire => expire(hotspot, log_time_s),
    };
    let made = judged.and_then(|change| {
        let new_cell = change.hotspot.is_some() && hotspot.is_none();
        let new_player = change.player.is_some() && player.is_none()
            || change.payee.is_some() && payee.is_none();
        // The hunt may be the empty one that was put there just now.
        let hunts = partition.hunts.len() - usize::from(!has_hunt);
        if !has_hunt && hunts >= limits.hunts_max
            || new_cell && partition.cells_len() >= limits.cells_max
            || new_player && partition.players_len() >= limits.players_max
        {
            return Err(Outcome::Full);
        }
        partition.cells += usize::from(new_cell);
        partition.players += usize::from(new_player);
        Ok(change)
    });
    match made {
        Ok(change) => {
            let hunt = partition.hunts.entry(event.domain).or_default();
            hunt.cells.extend(change.hotspot.map(|hotspot| (event.subject, hotspot)));
            for (player, state) in [(event.player, change.player), (event.subject, change.payee)] {
                if let Some(state) = state {
                    hunt.put(player, state, epoch);
                }
            }
            Outcome::Applied
        }
        Err(outcome) => {
            if !has_hunt {
                partition.hunts.remove(&event.domain);
            }
            outcome
        }
    }
}

/// A hotspot is put there, whatever was there before.
fn spawn(event: &Event, log_time_s: u64) -> Result<Change, Outcome> {
    let Hotspot { kind, item, remaining, reward, lifetime_s } =
        Hotspot::unpack(event.argument).ok_or(Outcome::Malformed)?;
    let expiry_s = if lifetime_s == 0 { 0 } else { log_time_s + u64::from(lifetime_s) };
    let hotspot = HotspotState { kind, item, remaining, reward, expiry_s, claimed_by: None };
    Ok(Change { hotspot: Some(hotspot), ..Change::default() })
}

/// A hotspot that is not over yet is over now.
fn expire(hotspot: Option<HotspotState>, log_time_s: u64) -> Result<Change, Outcome> {
    let mut hotspot = hotspot.ok_or(Outcome::NotFound)?;
    if hotspot.expiry_s != 0 && hotspot.expiry_s <= log_time_s {
        return Err(Outcome::Expired);
    }
    hotspot.expiry_s = log_time_s;
    Ok(Change { hotspot: Some(hotspot), ..Change::default() })
}

/// What collecting, opening and claiming have in common: the hotspot must be
/// there, be of the right kind, be alive, and not be used up.
fn take(
    hotspot: Option<HotspotState>,
    wanted: HotspotKind,
    log_time_s: u64,
    player: Option<Player>,
    rule: impl FnOnce(&mut HotspotState, &mut Player) -> Result<(), Outcome>,
) -> Result<Change, Outcome> {
    let mut hotspot = hotspot.filter(|h| h.kind == wanted).ok_or(Outcome::NotFound)?;
    if hotspot.expiry_s != 0 && hotspot.expiry_s <= log_time_s {
        return Err(Outcome::Expired);
    }
    if hotspot.remaining == 0 {
        return Err(Outcome::AlreadyClaimed);
    }
    let mut player = player.unwrap_or_default();
    rule(&mut hotspot, &mut player)?;
    Ok(Change { hotspot: Some(hotspot), player: Some(player), ..Change::default() })
}

fn collect(spot: &mut HotspotState, player: &mut Player) -> Result<(), Outcome> {
    spot.remaining -= 1;
    let held = &mut player.inventory[usize::from(spot.item)];
    *held = held.checked_add(1).ok_or(Outcome::Full)?;
    score(player, spot.reward)
}

fn use_key(spot: &mut HotspotState, player: &mut Player) -> Result<(), Outcome> {
    spot.remaining -= 1;
    let held = &mut player.inventory[usize::from(spot.item)];
    *held = held.checked_sub(1).ok_or(Outcome::NoKey)?;
    pay(player, spot.reward)
}

/// A reward that is money and points.
fn pay(player: &mut Player, reward: u32) -> Result<(), Outcome> {
    player.wallet = player.wallet.checked_add(reward.into()).ok_or(Outcome::Full)?;
    score(player, reward)
}

/// Points, of which there can be so many and no more.
fn score(player: &mut Player, reward: u32) -> Result<(), Outcome> {
    player.score += u64::from(reward);
    if player.score > SCORE_MAX { Err(Outcome::Full) } else { Ok(()) }
}

fn credit(player: Option<Player>, amount: u64) -> Result<Change, Outcome> {
    let mut player = player.unwrap_or_default();
    player.wallet = player.wallet.checked_add(amount).ok_or(Outcome::Full)?;
    Ok(Change { player: Some(player), ..Change::default() })
}

fn spend(player: Option<Player>, amount: u64) -> Result<Change, Outcome> {
    let mut player = player.ok_or(Outcome::InsufficientFunds)?;
    player.wallet = player.wallet.checked_sub(amount).ok_or(Outcome::InsufficientFunds)?;
    Ok(Change { player: Some(player), ..Change::default() })
}
