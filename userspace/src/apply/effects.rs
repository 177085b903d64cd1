//! Split hunts: what a player at home in one region wants of another.
//!
//! ```text
//!   collect, use-key, claim, transfer      home: the rule of the player, the key or amount reserved, a request kept
//!   request, in a later entry              region: judged once, by its key; a reply kept
//!   reply, in a later entry                home: paid or refunded; that entry is what the event is acknowledged by
//!   delivered, in the same entry           region: the reply is not kept any more
//! ```
//!
//! A request can be refused, and a reply cannot: the player's record was made, and seen
//! to be far from the end of its numbers, when the request was. One that comes there
//! meanwhile by other ways stays at the end. A request that finds no room for its reply
//! is not looked at: its home sends it again.
//!
//! Effects travel as events of runs that only lanes write
//! ([`crate::batch::Origin::Partition`]).

use veltrix_abi::kinds::{EventKind, ITEM_TYPES, REWARD_MAX, SCORE_MAX};
use veltrix_abi::limits::EVENT_FIXED_BYTES;
use veltrix_abi::partition::partition_of;
use veltrix_abi::split::Region;
use veltrix_abi::wire::Event;
use veltrix_abi::{Outcome, outcomes::DUPLICATE_BIT};
use zerocopy::IntoBytes;

use super::belt::Pending;
use super::games::{self, Payee};
use super::hotspots::hotspot_state;
use super::outbox::{EFFECTS_MAX, Effect, Reply, Request, Settled};
use super::partition::{Judged, Now, Partition, Whose, player_state};
use super::rules::{self, Action, PlayerState, Terms};
use crate::batch::BatchBuf;
use crate::dedupe::{self, OUTCOME_MAX, Verdict};
use crate::index::{GUEST, HuntId, Player, PlayerSlot};

/// In place of an outcome, in slots and in the dedupe table: a request is under way,
/// and its reply says what becomes of the event. No outcome has this code.
pub const RESERVED: u8 = OUTCOME_MAX;

const _: () = assert!(Outcome::from_code(RESERVED).is_none() && RESERVED & DUPLICATE_BIT == 0);

/// Kind of a reply.
const REPLY: u16 = 0xff01;
/// Kind of the note that replies were delivered.
const DELIVERED: u16 = 0xff02;

/// Bytes of the longest effect in a run.
pub const EFFECT_BYTES_MAX: usize = EVENT_FIXED_BYTES + 24;

/// Runs that [`Partition::send_into`] writes at the most: so many effects, and a note
/// that replies among them were delivered.
pub const SEND_RUNS_MAX: usize = EFFECTS_AT_ONCE + 1;

/// Effects of a partition that go into one batch together.
const EFFECTS_AT_ONCE: usize = 64;

/// Writes an effect to the start of `out`, which has [`EFFECT_BYTES_MAX`]; the bytes
/// written.
///
/// ```text
///  request    the event; argument = amount, payload = number | home | item, 7 x 0
///  reply      subject = number of the request, argument = points, payload = currency | outcome | item, 6 x 0
///  delivered  subject = first number, argument = last
/// ```
fn write(effect: &Effect<'_>, out: &mut [u8]) -> usize {
    let mut payload = [0; 24];
    let bytes = match effect {
        Effect::Request(request) => {
            payload[..8].copy_from_slice(&request.number.to_le_bytes());
            payload[8..16].copy_from_slice(&request.home.to_le_bytes());
            payload[16] = request.item;
            24
        }
        Effect::Reply(reply) => {
            payload[..8].copy_from_slice(&reply.currency.to_le_bytes());
            (payload[8], payload[9]) = (reply.outcome, reply.item);
            16
        }
    };
    let (key, player, kind, subject, argument) = match effect {
        Effect::Request(r) => (r.key, r.player, r.kind, r.subject, r.amount),
        Effect::Reply(r) => (r.key, r.player, REPLY, r.request, r.points),
    };
    let payload = &payload[..bytes];
    Event { key, player, subject, argument, kind, reserved: 0, payload }.write(out)
}

/// As [`write`], the note that replies `from` to `to` are in the same entry.
fn write_delivered(from: u64, to: u64, out: &mut [u8]) -> usize {
    let (key, payload) = ([0; 16], &[][..]);
    Event { key, player: 0, subject: from, argument: to, kind: DELIVERED, reserved: 0, payload }
        .write(out)
}

/// Whether the region is the one that an event belongs to.
pub(super) fn belongs(region: &Region, action: Action, pending: &Pending<'_>) -> bool {
    match action {
        Action::Open(_) | Action::Close | Action::Treasure | Action::Define => true,
        Action::Spawn(_) | Action::Expire => region.split.of_cell(pending.cell) == region.number,
        _ => region.split.home_of(pending.player) == region.number,
    }
}

/// The other region that an event is about; `None` for one of the home alone.
pub(super) fn elsewhere(region: &Region, action: Action, pending: &Pending<'_>) -> Option<u64> {
    let other = match action {
        Action::Collect | Action::UseKey(_) | Action::Claim => region.split.of_cell(pending.cell),
        Action::Transfer(_) => region.split.home_of(pending.cell),
        _ => return None,
    };
    (other != region.number).then(|| region.split.domain(region.root, other))
}

/// What taking something there would pay at the most, for every request that a home
/// can have under way: each factor is 15 at the most, and 8.
const POINTS_MAX: u64 = EFFECTS_MAX as u64 * REWARD_MAX as u64 * 15 * 8;

/// Whether all that is under way can be paid to a player, whatever it turns out to be.
fn has_headroom(player: &PlayerState) -> bool {
    player.score <= SCORE_MAX - POINTS_MAX
        && player.wallet <= u64::MAX - POINTS_MAX
        && player.inventory.iter().all(|n| usize::from(*n) + EFFECTS_MAX <= u16::MAX.into())
}

/// At home, before.
impl Partition {
    /// Reserves what the event costs and keeps a request to the region `to`.
    pub(super) fn ask(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        action: Action,
        hunt: HuntId,
        to: u64,
    ) -> Result<Judged, Outcome> {
        if !matches!(action, Action::Transfer(_)) {
            self.playing(now, pending)?;
        }
        let (slot, player) = self.player_of(Some(hunt), pending);
        let is_near_the_end = player.is_some_and(|player| !has_headroom(&player));
        let mut request = Request { to, home: pending.domain, ..Request::default() };
        let player = match action {
            Action::UseKey(named) => {
                request.item = named.map_or(0, |item| item + 1);
                rules::reserve_key(slot.and(player), named)?
            }
            Action::Transfer(amount) => {
                request.amount = amount;
                rules::spend(slot.and(player), amount)?
            }
            _ => player.ok_or(Outcome::Full)?,
        };
        if is_near_the_end {
            return Err(Outcome::Full);
        }
        if !self.outbox.requests.has_room() {
            return Ok(Judged::Refused(Outcome::Full));
        }
        self.write_player(Whose::of(hunt, pending), slot, &player)?;
        (request.player, request.key) = (pending.player, pending.key);
        (request.subject, request.kind) = (pending.cell, pending.kind());
        request.asker = now.asker(pending.slot);
        self.outbox.ask(request);
        self.digest.effect(request.as_bytes());
        Ok(Judged::Reserved)
    }
}

/// What arrives.
impl Partition {
    /// Takes an effect in. The outcome slot is that of the event that a reply settles,
    /// else 0.
    pub(super) fn effect(&mut self, now: &Now<'_>, pending: &Pending<'_>) {
        let outcome = match pending.kind() {
            REPLY => self.take_reply(now, pending),
            DELIVERED => {
                self.outbox.delivered(pending.cell, pending.argument);
                None
            }
            _ => {
                self.take_request(now, pending);
                None
            }
        };
        now.set_slot(pending.slot, outcome.unwrap_or(0));
    }

    /// A request of another region: judged, unless it was before.
    fn take_request(&mut self, now: &Now<'_>, pending: &Pending<'_>) {
        let Some((number, home, item)) = request_of(pending.payload) else {
            self.outbox.repeated += 1;
            return;
        };
        if !self.outbox.replies.has_room() {
            self.outbox.repeated += 1;
            return;
        }
        // The same key was seen by its home, which may be in this partition too.
        let print = pending.fingerprint.asked_from(home);
        let key_ms = dedupe::key_ms(&pending.key);
        let mut reply = Reply { request: number, home, from: pending.domain, ..Reply::default() };
        (reply.player, reply.key) = (pending.player, pending.key);
        let outcome = match self.dedupe.check(print, key_ms, now.log_time_ms()) {
            Verdict::Duplicate { .. } => {
                self.outbox.repeated += 1;
                return;
            }
            // Judged long ago, and its reply is still on the way.
            Verdict::TooOld if self.outbox.has_reply(home, number) => {
                self.outbox.repeated += 1;
                return;
            }
            // It was never judged, or the home has its reply.
            Verdict::TooOld => Outcome::TooOld,
            // It comes again.
            Verdict::TooNew => {
                self.outbox.repeated += 1;
                return;
            }
            Verdict::Fresh => {
                let judged = self.judge_request(now, pending, item, &mut reply);
                let outcome = judged.err().unwrap_or(Outcome::Applied);
                self.dedupe.record(print, key_ms, outcome.code(), now.epoch());
                outcome
            }
        };
        reply.outcome = outcome.code();
        self.outbox.reply(reply);
        self.digest.effect(reply.as_bytes());
    }

    /// The rule of the cell or of the payee; `reply` says what it pays.
    fn judge_request(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        item: Option<u8>,
        reply: &mut Reply,
    ) -> Result<(), Outcome> {
        match EventKind::from_code(pending.kind()) {
            Some(EventKind::CollectItem) => {
                self.give(now, pending, PlayerState::default(), reply, rules::collect)
            }
            Some(EventKind::UseKey) => {
                let mut holder = PlayerState::default();
                let held = item.and_then(|item| holder.inventory.get_mut(usize::from(item)));
                *held.ok_or(Outcome::NoKey)? = 1;
                self.give(now, pending, holder, reply, |hotspot, player, terms| {
                    rules::use_key(item, hotspot, player, terms)
                })
            }
            Some(EventKind::Claim) => {
                self.give(now, pending, PlayerState::default(), reply, rules::claim)
            }
            Some(EventKind::WalletTransfer) => self.pay(pending),
            _ => Err(Outcome::Malformed),
        }
    }

    /// The hotspot gives what it gives to somebody who has nothing but what the rule
    /// asks for: what that player has then is what the reply pays.
    fn give(
        &mut self,
        now: &Now<'_>,
        pending: &Pending<'_>,
        player: PlayerState,
        reply: &mut Reply,
        rule: impl FnOnce(
            Option<rules::HotspotState>,
            Option<PlayerState>,
            &Terms,
        ) -> Result<(rules::HotspotState, PlayerState), Outcome>,
    ) -> Result<(), Outcome> {
        let (hunt, record) = self.playing(now, pending)?;
        let factor = (games::of(record).factor)(record, now.log_time_s);
        let terms = Terms { factor, payee: Payee::Wallet, log_time_s: now.log_time_s };
        let slot = self.index.cell_slot_near(pending.cell_hint, hunt, pending.cell);
        let slot = slot.ok_or(Outcome::NotFound)?;
        let mut cell = *self.index.cell(slot);
        let (hotspot, paid) = rule(hotspot_state(&cell), Some(player), &terms)?;
        if hotspot.claimed {
            cell.claimed_by = self.guest(hunt, pending.player)?.mark();
        }
        cell.remaining = hotspot.remaining;
        self.index.cell_write(slot, cell);
        let claimed_by = hotspot.claimed.then_some(pending.player);
        self.digest.cell(pending.domain, pending.cell, &hotspot, claimed_by);
        (reply.points, reply.currency) = (paid.score, paid.wallet);
        reply.item = (1..).zip(&paid.inventory).find(|(_, n)| **n > 0).map_or(0, |(item, _)| item);
        Ok(())
    }

    /// A player of another region, to be named by a cell.
    fn guest(&mut self, hunt: HuntId, player: u64) -> Result<PlayerSlot, Outcome> {
        if let Some(slot) = self.index.player_slot(hunt, player) {
            return Ok(slot);
        }
        let mut record = Player::new(hunt, player);
        record.team = GUEST;
        self.index.player_insert(record).map_err(|_| Outcome::Full)
    }

    /// The amount of a transfer goes to its payee.
    fn pay(&mut self, pending: &Pending<'_>) -> Result<(), Outcome> {
        let hunt = self.hunt_of(pending).ok_or(Outcome::NotFound)?;
        let slot = self.index.player_slot(hunt, pending.cell);
        let player = rules::credit(self.player_in(slot), pending.argument)?;
        let whose = Whose { player: pending.cell, ..Whose::of(hunt, pending) };
        // Who pays is not asked to wait for the payee's quota.
        self.write_player(whose, slot, &player).map_err(|_| Outcome::Full)?;
        Ok(())
    }

    /// The reply to a request: paid or refunded, once.
    fn take_reply(&mut self, now: &Now<'_>, pending: &Pending<'_>) -> Option<u8> {
        let hunt = self.hunt_of(pending)?;
        let slot = self.index.player_slot(hunt, pending.player)?;
        let taken = reply_of(pending.payload).and_then(|(currency, code, item)| {
            let outcome = Outcome::from_code(code)?;
            let request = self.outbox.take_request(pending.cell, pending.player, &pending.key)?;
            Some((request, currency, outcome, item))
        });
        let Some((request, currency, outcome, item)) = taken else {
            self.outbox.repeated += 1;
            return None;
        };
        let before = player_state(self.index.player(slot));
        let gain = rules::Gain { points: pending.argument, currency, item };
        let player = match outcome {
            Outcome::Applied => rules::gain(before, &gain, now.log_time_s),
            _ => rules::refund(before, request.item.checked_sub(1), request.amount),
        };
        if self.write_player(Whose::of(hunt, pending), Some(slot), &player).is_err() {
            debug_assert!(false, "a record that is there is always written");
        }
        let code = outcome.code();
        let key_ms = dedupe::key_ms(&pending.key);
        self.dedupe.settle(pending.fingerprint, key_ms, code, now.epoch());
        self.count_outcome(&pending.key, code);
        self.outbox.settle(Settled { asker: request.asker, outcome: code, epoch: now.epoch() });
        Some(code)
    }
}

/// Number, home and named item of a request.
fn request_of(payload: &[u8]) -> Option<(u64, u64, Option<u8>)> {
    let ([number, home, rest], []) = payload.as_chunks::<8>() else { return None };
    let item = rest[0].checked_sub(1);
    let is_item = item.is_none_or(|item| item < ITEM_TYPES);
    is_item.then_some((u64::from_le_bytes(*number), u64::from_le_bytes(*home), item))
}

/// Currency, outcome and item of a reply.
fn reply_of(payload: &[u8]) -> Option<(u64, u8, Option<u8>)> {
    let ([currency, rest], []) = payload.as_chunks::<8>() else { return None };
    Some((u64::from_le_bytes(*currency), rest[0], rest[1].checked_sub(1)))
}

/// For whoever sends what is owed.
impl Partition {
    /// Whether something is owed that was not sent yet.
    #[must_use]
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.outbox.has_unsent()
    }

    /// What was sent may be lost: those requests and those replies of which the oldest
    /// is the same as in an earlier [`Self::oldest_owed`] are sent again.
    pub fn send_stuck_again(&mut self, before: (u64, u64)) {
        self.outbox.send_stuck_again(before);
    }

    /// Whether everything that is owed is of hunts and players that are there: an image
    /// could say otherwise.
    pub(super) fn owes_soundly(&self) -> bool {
        self.outbox.requests.iter().filter(|request| request.waits == 1).all(|request| {
            let hunt = self.index.hunt(request.home);
            hunt.is_some_and(|hunt| self.index.player_slot(hunt, request.player).is_some())
        })
    }

    /// Numbers of the oldest request and the oldest reply that are owed.
    #[must_use]
    pub fn oldest_owed(&self) -> (u64, u64) {
        self.outbox.oldest()
    }

    /// Appends effects that were not sent yet to a batch of a cluster of `partitions`,
    /// which has room for [`SEND_RUNS_MAX`] runs of [`EFFECT_BYTES_MAX`]. How many, those
    /// among them that need not be sent any more.
    pub fn send_into(&mut self, batch: &mut BatchBuf, partitions: u16) -> usize {
        let mut bytes = [0; EFFECT_BYTES_MAX];
        let mut delivered: Option<(u64, u64, u64)> = None;
        let sent = self.outbox.send(EFFECTS_AT_ONCE, |effect| {
            let len = write(&effect, &mut bytes);
            let to = match effect {
                Effect::Request(request) => request.to,
                Effect::Reply(reply) => reply.home,
            };
            let appended = batch.append_effect(partition_of(to, partitions), to, &bytes[..len]);
            if let (Some(_), Effect::Reply(reply)) = (appended, effect) {
                let first = delivered.map_or(reply.number, |(first, ..)| first);
                delivered = Some((first, reply.number, reply.from));
            }
            appended.is_some()
        });
        // In the same entry as the replies: it commits with them, or neither does.
        if let Some((from, to, domain)) = delivered {
            let len = write_delivered(from, to, &mut bytes);
            let noted = batch.append_effect(self.number, domain, &bytes[..len]).is_some();
            debug_assert!(noted, "there was room for one more");
        }
        sent
    }

    /// Whether something was settled since the last call of [`Self::take_settled`].
    #[must_use]
    #[inline]
    pub fn has_settled(&self) -> bool {
        self.outbox.has_settled()
    }

    /// Takes the answers that were settled since the last call.
    pub fn take_settled(&mut self, visit: impl FnMut(Settled)) {
        self.outbox.take_settled(visit);
    }

    /// Requests that wait for their reply, and replies that wait for delivery.
    #[must_use]
    pub fn owed(&self) -> (usize, usize) {
        (self.outbox.requests.len(), self.outbox.replies.len())
    }

    /// Effects that came again, or found no room, and were not taken.
    #[must_use]
    pub fn effects_repeated(&self) -> u64 {
        self.outbox.repeated
    }
}
