//! The rules of the game, as functions of what was there and what is asked.
//!
//! Nothing here looks up, stores or counts: a rule gets the hotspot and the
//! player as they are and gives them as they shall be, or says why not. Time is
//! log time in seconds, arithmetic is checked, and what is refused changes
//! nothing. The table of rules, outcomes and tests is on the page of
//! [`crate::apply`].

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{CELL_BITS, EventKind, Hotspot, HotspotKind, ITEM_TYPES, SCORE_MAX};

/// What an event asks for, once its fields are known to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put this hotspot onto the cell.
    Spawn(Hotspot),
    /// Take an item from the item hotspot on the cell.
    Collect,
    /// Open the chest on the cell with a key.
    UseKey,
    /// Claim the ticket on the cell.
    Claim,
    /// Add to the wallet.
    Credit(u64),
    /// Take from the wallet.
    Spend(u64),
    /// Move so much to the wallet of another player.
    Transfer(u64),
    /// End the hotspot on the cell.
    Expire,
}

impl Action {
    /// What an event that is well formed by itself asks for; `None` when it is
    /// of no known kind, has an argument that means nothing to its kind, a
    /// subject that is no cell where a cell is meant, or pays the player itself.
    #[must_use]
    #[inline(always)]
    pub fn of(kind: u16, player: u64, subject: u64, argument: u64) -> Option<Self> {
        let action = match EventKind::from_code(kind)? {
            EventKind::HotspotSpawn => Self::Spawn(Hotspot::unpack(argument)?),
            EventKind::CollectItem if argument == 0 => Self::Collect,
            EventKind::UseKey if argument == 0 => Self::UseKey,
            EventKind::Claim if argument == 0 => Self::Claim,
            EventKind::HotspotExpire if argument == 0 => Self::Expire,
            EventKind::CollectItem
            | EventKind::UseKey
            | EventKind::Claim
            | EventKind::HotspotExpire => return None,
            EventKind::WalletCredit | EventKind::WalletSpend | EventKind::WalletTransfer
                if argument == 0 =>
            {
                return None;
            }
            EventKind::WalletTransfer if subject == player => return None,
            EventKind::WalletTransfer => Self::Transfer(argument),
            EventKind::WalletCredit => Self::Credit(argument),
            EventKind::WalletSpend => Self::Spend(argument),
        };
        (!action.wants_cell() || subject >> CELL_BITS == 0).then_some(action)
    }

    /// Whether its subject is a cell.
    #[inline(always)]
    const fn wants_cell(&self) -> bool {
        matches!(self, Self::Spawn(_) | Self::Collect | Self::UseKey | Self::Claim | Self::Expire)
    }
}

/// A hotspot as it stands on a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotspotState {
    /// What it is.
    pub kind: HotspotKind,
    /// Item type it gives, or wants as a key.
    pub item: u8,
    /// Times it can still be taken.
    pub remaining: u16,
    /// What taking it pays.
    pub reward: u32,
    /// Second of log time, since the Unix epoch, from which it is expired; 0 =
    /// never.
    pub expiry_s: u32,
    /// Whether it is a ticket that a player has claimed.
    pub claimed: bool,
}

impl HotspotState {
    #[inline(always)]
    const fn is_expired(&self, log_time_s: u32) -> bool {
        self.expiry_s != 0 && self.expiry_s <= log_time_s
    }
}

/// What a player owns in one hunt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayerState {
    /// Currency.
    pub wallet: u64,
    /// Points, at most [`SCORE_MAX`].
    pub score: u64,
    /// Items by type.
    pub inventory: [u16; ITEM_TYPES as usize],
}

/// Seconds of log time; stands still at the end of `u32`, in 2106.
#[must_use]
pub const fn log_time_s(log_time_ns: u64) -> u32 {
    let seconds = log_time_ns / 1_000_000_000;
    if seconds > u32::MAX as u64 { u32::MAX } else { seconds as u32 }
}

/// What a spawn puts onto its cell, whatever stood there.
#[must_use]
#[inline]
pub const fn spawn(hotspot: &Hotspot, log_time_s: u32) -> HotspotState {
    let expiry_s = match hotspot.lifetime_s {
        0 => 0,
        lifetime_s => log_time_s.saturating_add(lifetime_s),
    };
    HotspotState {
        kind: hotspot.kind,
        item: hotspot.item,
        remaining: hotspot.remaining,
        reward: hotspot.reward,
        expiry_s,
        claimed: false,
    }
}

/// The hotspot of a cell, if it is of the kind wanted and may be taken from.
#[inline(always)]
fn open(
    hotspot: Option<HotspotState>,
    wanted: HotspotKind,
    log_time_s: u32,
) -> Result<HotspotState, Outcome> {
    let hotspot = hotspot.filter(|h| h.kind as u8 == wanted as u8).ok_or(Outcome::NotFound)?;
    if hotspot.is_expired(log_time_s) {
        return Err(Outcome::Expired);
    }
    if hotspot.remaining == 0 {
        return Err(Outcome::AlreadyClaimed);
    }
    Ok(hotspot)
}

#[inline(always)]
fn plus(a: u64, b: u64) -> Result<u64, Outcome> {
    a.checked_add(b).ok_or(Outcome::Full)
}

/// A score with a reward more.
#[inline(always)]
fn scored(score: u64, reward: u32) -> Result<u64, Outcome> {
    let score = score.saturating_add(u64::from(reward));
    if score > SCORE_MAX { Err(Outcome::Full) } else { Ok(score) }
}

/// One item to the player, one less on the cell, the reward to the score.
///
/// `player` is the player as known, a new one where unknown, and `None` where
/// unknown and without room; so in every rule below.
///
/// # Errors
///
/// The outcome it is refused with: `not-found`, `expired`, `already-claimed`,
/// `full`.
#[inline(always)]
pub fn collect(
    hotspot: Option<HotspotState>,
    player: Option<PlayerState>,
    log_time_s: u32,
) -> Result<(HotspotState, PlayerState), Outcome> {
    let mut hotspot = open(hotspot, HotspotKind::Item, log_time_s)?;
    let mut player = player.ok_or(Outcome::Full)?;
    let held = player.inventory.get_mut(usize::from(hotspot.item)).ok_or(Outcome::Full)?;
    *held = held.checked_add(1).ok_or(Outcome::Full)?;
    player.score = scored(player.score, hotspot.reward)?;
    hotspot.remaining -= 1;
    Ok((hotspot, player))
}

/// One key from the player, one less in the chest, the reward to wallet and
/// score.
///
/// # Errors
///
/// `not-found`, `expired`, `already-claimed`, `no-key`, `full`.
#[inline(always)]
pub fn use_key(
    hotspot: Option<HotspotState>,
    player: Option<PlayerState>,
    log_time_s: u32,
) -> Result<(HotspotState, PlayerState), Outcome> {
    let mut hotspot = open(hotspot, HotspotKind::Chest, log_time_s)?;
    let mut player = player.ok_or(Outcome::NoKey)?;
    let held = player.inventory.get_mut(usize::from(hotspot.item)).ok_or(Outcome::NoKey)?;
    *held = held.checked_sub(1).ok_or(Outcome::NoKey)?;
    player.wallet = plus(player.wallet, u64::from(hotspot.reward))?;
    player.score = scored(player.score, hotspot.reward)?;
    hotspot.remaining -= 1;
    Ok((hotspot, player))
}

/// The ticket becomes the player's, the reward goes to wallet and score.
///
/// # Errors
///
/// `not-found`, `expired`, `already-claimed`, `full`.
#[inline(always)]
pub fn claim(
    hotspot: Option<HotspotState>,
    player: Option<PlayerState>,
    log_time_s: u32,
) -> Result<(HotspotState, PlayerState), Outcome> {
    let mut hotspot = open(hotspot, HotspotKind::Ticket, log_time_s)?;
    let mut player = player.ok_or(Outcome::Full)?;
    player.wallet = plus(player.wallet, u64::from(hotspot.reward))?;
    player.score = scored(player.score, hotspot.reward)?;
    hotspot.remaining = 0;
    hotspot.claimed = true;
    Ok((hotspot, player))
}

/// Adds to the wallet.
///
/// # Errors
///
/// `full`.
#[inline(always)]
pub fn credit(player: Option<PlayerState>, amount: u64) -> Result<PlayerState, Outcome> {
    let player = player.ok_or(Outcome::Full)?;
    Ok(PlayerState { wallet: plus(player.wallet, amount)?, ..player })
}

/// Takes from the wallet.
///
/// # Errors
///
/// `insufficient-funds`.
#[inline(always)]
pub fn spend(player: Option<PlayerState>, amount: u64) -> Result<PlayerState, Outcome> {
    let player = player.ok_or(Outcome::InsufficientFunds)?;
    let wallet = player.wallet.checked_sub(amount).ok_or(Outcome::InsufficientFunds)?;
    Ok(PlayerState { wallet, ..player })
}

/// Moves `amount` from one wallet to another: the payer, then the payee, as
/// they shall be.
///
/// # Errors
///
/// `insufficient-funds` of the payer, and then `full` of the payee.
#[inline(always)]
pub fn transfer(
    payer: Option<PlayerState>,
    payee: Option<PlayerState>,
    amount: u64,
) -> Result<(PlayerState, PlayerState), Outcome> {
    Ok((spend(payer, amount)?, credit(payee, amount)?))
}

/// The hotspot is over from this second on. What was claimed stays claimed.
///
/// # Errors
///
/// `not-found`; `expired` when it was over before.
#[inline(always)]
pub fn expire(hotspot: Option<HotspotState>, log_time_s: u32) -> Result<HotspotState, Outcome> {
    let hotspot = hotspot.ok_or(Outcome::NotFound)?;
    if hotspot.is_expired(log_time_s) {
        return Err(Outcome::Expired);
    }
    // 0 would mean never.
    let expiry_s = if log_time_s == 0 { 1 } else { log_time_s };
    Ok(HotspotState { expiry_s, ..hotspot })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u32 = 1_000;

    fn hotspot(kind: HotspotKind) -> HotspotState {
        HotspotState { kind, item: 3, remaining: 2, reward: 50, expiry_s: 0, claimed: false }
    }

    fn player(items: u16) -> PlayerState {
        let mut inventory = [0; 8];
        inventory[3] = items;
        PlayerState { wallet: 7, score: 9, inventory }
    }

    type Take = fn(
        Option<HotspotState>,
        Option<PlayerState>,
        u32,
    ) -> Result<(HotspotState, PlayerState), Outcome>;

    /// Each rule that takes from a hotspot, its kind, and one it is not.
    const TAKES: [(Take, HotspotKind, HotspotKind); 3] = [
        (collect, HotspotKind::Item, HotspotKind::Chest),
        (use_key, HotspotKind::Chest, HotspotKind::Ticket),
        (claim, HotspotKind::Ticket, HotspotKind::Item),
    ];

    #[test]
    fn what_is_not_there_is_not_found() {
        for (take, _, other) in TAKES {
            assert_eq!(take(None, Some(player(1)), NOW_S), Err(Outcome::NotFound));
            let wrong = Some(hotspot(other));
            assert_eq!(take(wrong, Some(player(1)), NOW_S), Err(Outcome::NotFound));
            assert_eq!(take(wrong, None, NOW_S), Err(Outcome::NotFound));
        }
    }

    #[test]
    fn expiry_is_looked_at_before_what_remains() {
        for (take, kind, _) in TAKES {
            for remaining in [0, 2] {
                let at = |expiry_s| Some(HotspotState { expiry_s, remaining, ..hotspot(kind) });
                let someone = Some(player(1));
                assert_eq!(take(at(NOW_S), someone, NOW_S), Err(Outcome::Expired));
                assert_eq!(take(at(1), someone, NOW_S), Err(Outcome::Expired));
                assert_ne!(take(at(NOW_S + 1), someone, NOW_S), Err(Outcome::Expired));
                assert_ne!(take(at(0), someone, NOW_S), Err(Outcome::Expired));
            }
        }
    }

    #[test]
    fn nothing_remaining_is_already_claimed() {
        for (take, kind, _) in TAKES {
            let empty = Some(HotspotState { remaining: 0, ..hotspot(kind) });
            assert_eq!(take(empty, Some(player(0)), NOW_S), Err(Outcome::AlreadyClaimed));
            assert_eq!(take(empty, None, NOW_S), Err(Outcome::AlreadyClaimed));
        }
    }

    #[test]
    fn collecting_moves_one_item_and_pays_score() {
        let before = hotspot(HotspotKind::Item);
        let (after, owner) = collect(Some(before), Some(player(4)), NOW_S).unwrap();
        assert_eq!(after, HotspotState { remaining: 1, ..before });
        assert_eq!(owner, PlayerState { score: 59, ..player(5) });
    }

    #[test]
    fn collecting_without_room_is_full() {
        let item = Some(hotspot(HotspotKind::Item));
        assert_eq!(collect(item, None, NOW_S), Err(Outcome::Full));
        assert_eq!(collect(item, Some(player(u16::MAX)), NOW_S), Err(Outcome::Full));
        let rich = PlayerState { score: SCORE_MAX - 49, ..player(0) };
        assert_eq!(collect(item, Some(rich), NOW_S), Err(Outcome::Full));
        let nearly = PlayerState { score: SCORE_MAX - 50, ..player(u16::MAX - 1) };
        let (_, owner) = collect(item, Some(nearly), NOW_S).unwrap();
        assert_eq!(owner, PlayerState { score: SCORE_MAX, ..player(u16::MAX) });
    }

    #[test]
    fn a_key_opens_a_chest_and_is_used_up() {
        let before = hotspot(HotspotKind::Chest);
        let (after, owner) = use_key(Some(before), Some(player(1)), NOW_S).unwrap();
        assert_eq!(after, HotspotState { remaining: 1, ..before });
        assert_eq!(owner, PlayerState { wallet: 57, score: 59, ..player(0) });
    }

    #[test]
    fn without_the_key_of_the_chest_there_is_no_key() {
        let chest = Some(hotspot(HotspotKind::Chest));
        assert_eq!(use_key(chest, None, NOW_S), Err(Outcome::NoKey));
        let mut other_keys = player(0);
        other_keys.inventory[2] = 5;
        assert_eq!(use_key(chest, Some(other_keys), NOW_S), Err(Outcome::NoKey));
    }

    #[test]
    fn a_reward_that_overflows_is_full() {
        for (take, kind) in [(use_key as Take, HotspotKind::Chest), (claim, HotspotKind::Ticket)] {
            let there = Some(hotspot(kind));
            for rich in [
                PlayerState { wallet: u64::MAX - 49, ..player(1) },
                PlayerState { score: SCORE_MAX - 49, ..player(1) },
            ] {
                assert_eq!(take(there, Some(rich), NOW_S), Err(Outcome::Full));
            }
        }
    }

    #[test]
    fn a_claim_is_hotspot_wallet_and_score_in_one_step() {
        let before = HotspotState { remaining: 1, ..hotspot(HotspotKind::Ticket) };
        let (after, owner) = claim(Some(before), Some(player(1)), NOW_S).unwrap();
        assert_eq!(after, HotspotState { remaining: 0, claimed: true, ..before });
        assert_eq!(owner, PlayerState { wallet: 57, score: 59, ..player(1) });
        assert_eq!(claim(Some(before), None, NOW_S), Err(Outcome::Full));
        assert_eq!(claim(Some(after), Some(player(0)), NOW_S), Err(Outcome::AlreadyClaimed));
    }

    #[test]
    fn credits_stop_at_the_end_of_the_number() {
        assert_eq!(credit(Some(player(0)), 5).unwrap().wallet, 12);
        assert_eq!(credit(Some(player(0)), u64::MAX - 7).unwrap().wallet, u64::MAX);
        assert_eq!(credit(Some(player(0)), u64::MAX - 6), Err(Outcome::Full));
        assert_eq!(credit(None, 1), Err(Outcome::Full));
    }

    #[test]
    fn a_wallet_never_goes_below_zero() {
        assert_eq!(spend(Some(player(2)), 7).unwrap(), PlayerState { wallet: 0, ..player(2) });
        assert_eq!(spend(Some(player(2)), 8), Err(Outcome::InsufficientFunds));
        assert_eq!(spend(None, 1), Err(Outcome::InsufficientFunds));
    }

    #[test]
    fn a_transfer_takes_what_it_gives_or_nothing() {
        let (payer, payee) = (player(1), player(2));
        let (poorer, richer) = transfer(Some(payer), Some(payee), 7).unwrap();
        assert_eq!(poorer, PlayerState { wallet: 0, ..payer });
        assert_eq!(richer, PlayerState { wallet: 14, ..payee });
        let rich = Some(PlayerState { wallet: u64::MAX - 6, ..payee });
        assert_eq!(transfer(Some(payer), rich, 7), Err(Outcome::Full));
        assert_eq!(transfer(Some(payer), None, 7), Err(Outcome::Full));
        for payee in [Some(payee), rich, None] {
            assert_eq!(transfer(Some(payer), payee, 8), Err(Outcome::InsufficientFunds));
            assert_eq!(transfer(None, payee, 1), Err(Outcome::InsufficientFunds));
        }
    }

    #[test]
    fn an_ended_hotspot_gives_no_more() {
        for (take, kind, _) in TAKES {
            for expiry_s in [0, NOW_S + 1, u32::MAX] {
                let before = HotspotState { expiry_s, claimed: true, ..hotspot(kind) };
                let after = expire(Some(before), NOW_S).unwrap();
                assert_eq!(after, HotspotState { expiry_s: NOW_S, ..before });
                assert_eq!(take(Some(after), Some(player(1)), NOW_S), Err(Outcome::Expired));
                assert_eq!(expire(Some(after), NOW_S), Err(Outcome::Expired));
            }
            assert_eq!(expire(Some(hotspot(kind)), 0).unwrap().expiry_s, 1, "0 means never");
        }
        assert_eq!(expire(None, NOW_S), Err(Outcome::NotFound));
    }

    #[test]
    fn spawned_hotspots_expire_after_their_life() {
        let wanted =
            Hotspot { kind: HotspotKind::Chest, item: 3, remaining: 2, reward: 50, lifetime_s: 0 };
        assert_eq!(spawn(&wanted, NOW_S), hotspot(HotspotKind::Chest));
        assert_eq!(spawn(&Hotspot { lifetime_s: 60, ..wanted }, NOW_S).expiry_s, NOW_S + 60);
        assert_eq!(spawn(&Hotspot { lifetime_s: 60, ..wanted }, u32::MAX - 1).expiry_s, u32::MAX);
        assert_eq!(log_time_s(1_999_999_999), 1);
        assert_eq!(log_time_s(u64::MAX), u32::MAX);
    }

    #[test]
    fn nonsense_is_no_action() {
        let spawn =
            Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 1, lifetime_s: 1 };
        let packed = spawn.pack().unwrap();
        let high = 1 << CELL_BITS;
        let whole = high - 1;
        for (kind, argument, action) in [
            (EventKind::HotspotSpawn, packed, Action::Spawn(spawn)),
            (EventKind::CollectItem, 0, Action::Collect),
            (EventKind::UseKey, 0, Action::UseKey),
            (EventKind::Claim, 0, Action::Claim),
            (EventKind::HotspotExpire, 0, Action::Expire),
        ] {
            assert_eq!(Action::of(kind.code(), 1, whole, argument), Some(action));
            assert_eq!(Action::of(kind.code(), 1, high, argument), None);
            // A spawn without a kind of hotspot, the others with an argument.
            let nonsense = if argument == 0 { 4 } else { argument & !3 };
            assert_eq!(Action::of(kind.code(), 1, 0, nonsense), None);
        }
        for (kind, action) in [
            (EventKind::WalletCredit, Action::Credit(9)),
            (EventKind::WalletSpend, Action::Spend(9)),
            (EventKind::WalletTransfer, Action::Transfer(9)),
        ] {
            assert_eq!(Action::of(kind.code(), 1, u64::MAX, 9), Some(action));
            assert_eq!(Action::of(kind.code(), 1, 0, 0), None);
        }
        let to_self = Action::of(EventKind::WalletTransfer.code(), 5, 5, 9);
        assert_eq!(to_self, None, "a wallet that pays itself");
        for kind in [0, EventKind::ALL.len() as u16 + 1, u16::MAX] {
            assert_eq!(Action::of(kind, 1, 0, 0), None);
        }
    }
}
