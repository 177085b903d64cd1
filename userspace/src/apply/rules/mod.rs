//! The rules of the game, as functions of what was there and what is asked.
//!
//! Nothing here looks up, stores or counts: a rule gets the hotspot and the
//! player as they are and gives them as they shall be, or says why not. Time is
//! log time in seconds, arithmetic is checked, and what is refused changes
//! nothing. The table of rules, outcomes and tests is on the page of
//! [`crate::apply`].

pub mod hunts;
pub mod quests;
#[cfg(test)]
mod tests;

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{
    CELL_BITS, EventKind, Hotspot, HotspotKind, HuntSetup, ITEM_TYPES, PowerUp, QUEST_BITS,
    QuestPay, SCORE_MAX, TEAMS,
};
use veltrix_abi::split::Opening;

use super::games::{self, Payee};

/// What an event asks for, once its fields are known to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put this hotspot onto the cell.
    Spawn(Hotspot),
    /// Take an item from the item hotspot on the cell.
    Collect,
    /// Open the chest on the cell with a key: of this item type, or of whatever the
    /// chest wants.
    UseKey(Option<u8>),
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
    /// Open the hunt.
    Open(HuntSetup),
    /// Close the hunt.
    Close,
    /// Join the hunt in this team; 0 = in none.
    Join(u8),
    /// Stand on the cell.
    Ping,
    /// Spend an item for more points.
    PowerUp(PowerUp),
    /// Set a treasure type.
    Treasure,
    /// Define a quest.
    Define,
    /// Pass this node of this quest.
    Pass(u64, u8),
    /// Give this quest up.
    Abandon,
    /// Pay a reward.
    Reward(u64),
    /// Move so much to the bank of the team.
    Deposit(u64),
    /// Move so much from the bank of the team.
    Withdraw(u64),
}

impl Action {
    /// What an event that is well formed by itself asks for; `None` when it is
    /// of no known kind, has an argument, subject or payload that means nothing to
    /// its kind, or pays the player itself.
    #[must_use]
    #[inline(always)]
    pub fn of(kind: u16, player: u64, subject: u64, argument: u64, payload: &[u8]) -> Option<Self> {
        let kind = EventKind::from_code(kind)?;
        let action = match kind {
            EventKind::HotspotSpawn => Self::Spawn(Hotspot::unpack(argument)?),
            EventKind::CollectItem if argument == 0 => Self::Collect,
            EventKind::UseKey if argument <= ITEM_TYPES.into() => {
                Self::UseKey((argument as u8).checked_sub(1))
            }
            EventKind::Claim if argument == 0 => Self::Claim,
            EventKind::HotspotExpire if argument == 0 => Self::Expire,
            EventKind::CollectItem
            | EventKind::UseKey
            | EventKind::Claim
            | EventKind::HotspotExpire => return None,
            EventKind::LocationPing if argument == 0 => Self::Ping,
            EventKind::LocationPing => return None,
            EventKind::WalletCredit | EventKind::WalletSpend | EventKind::WalletTransfer
                if argument == 0 =>
            {
                return None;
            }
            EventKind::WalletTransfer if subject == player => return None,
            EventKind::WalletTransfer => Self::Transfer(argument),
            EventKind::WalletCredit => Self::Credit(argument),
            EventKind::WalletSpend => Self::Spend(argument),
            rarer => Self::rarer(rarer, subject, argument, payload)?,
        };
        (!kind.names_a_cell() || subject >> CELL_BITS == 0).then_some(action)
    }

    /// [`Self::of`] for what is not asked for all the time.
    fn rarer(kind: EventKind, subject: u64, argument: u64, payload: &[u8]) -> Option<Self> {
        let nowhere = subject == 0;
        let is_quest = subject >> QUEST_BITS == 0;
        Some(match kind {
            EventKind::HuntOpen if nowhere => {
                let setup = HuntSetup::unpack(argument);
                let game = games::known(setup.game)?;
                let is_split = Opening::of(payload)?.region.is_some();
                let takes = (game.takes)(&setup) && (!is_split || game.may_be_split());
                return takes.then_some(Self::Open(setup));
            }
            EventKind::HuntClose if nowhere && argument == 0 => Self::Close,
            EventKind::PlayerJoin if nowhere && argument <= TEAMS as u64 => {
                Self::Join(argument as u8)
            }
            EventKind::PowerUp if nowhere => Self::PowerUp(PowerUp::unpack(argument)?),
            EventKind::TreasureType if argument == 0 && !payload.is_empty() => Self::Treasure,
            EventKind::QuestDefine if is_quest => {
                QuestPay::unpack(argument)?;
                quests::Graph::of(payload)?;
                Self::Define
            }
            EventKind::Checkpoint if argument == 0 => Self::Pass(subject >> 8, subject as u8),
            EventKind::QuestAbandon if is_quest && argument == 0 => Self::Abandon,
            EventKind::RewardIssued if argument != 0 => Self::Reward(argument),
            EventKind::BankDeposit if nowhere && argument != 0 => Self::Deposit(argument),
            EventKind::BankWithdraw if nowhere && argument != 0 => Self::Withdraw(argument),
            _ => return None,
        })
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
    /// Team, 1 to 16; 0 = none.
    pub team: u8,
    /// What points are multiplied by until [`Self::power_until_s`].
    pub power: u8,
    /// Second of log time at which the power-up ends; 0 = there was none.
    pub power_until_s: u32,
    /// Cell id of the last ping, plus 1; 0 = there was none.
    pub place: u64,
}

impl PlayerState {
    /// What the player's points are multiplied by.
    #[must_use]
    #[inline(always)]
    pub const fn factor(&self, log_time_s: u32) -> u32 {
        if log_time_s < self.power_until_s { self.power as u32 } else { 1 }
    }
}

/// How the hunt's game changes what taking something pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What points are multiplied by for everybody.
    pub factor: u32,
    /// Whose the currency is.
    pub payee: Payee,
    /// Log time.
    pub log_time_s: u32,
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
pub(super) fn plus(a: u64, b: u64) -> Result<u64, Outcome> {
    a.checked_add(b).ok_or(Outcome::Full)
}

impl PlayerState {
    /// With so many points more, multiplied as the game and the player's power-up say.
    ///
    /// # Errors
    ///
    /// `full`.
    #[inline(always)]
    pub fn scored(self, points: u64, factor: u32, log_time_s: u32) -> Result<Self, Outcome> {
        let factor = u64::from(factor) * u64::from(self.factor(log_time_s));
        let score = self.score.saturating_add(points.saturating_mul(factor));
        if score > SCORE_MAX { Err(Outcome::Full) } else { Ok(Self { score, ..self }) }
    }

    /// With the points of a reward, and the reward itself if it goes to the wallet.
    #[inline(always)]
    fn paid(self, reward: u32, terms: &Terms) -> Result<Self, Outcome> {
        let reward = u64::from(reward);
        let wallet = match terms.payee {
            Payee::Wallet => plus(self.wallet, reward)?,
            Payee::Bank | Payee::Pot | Payee::Nobody => self.wallet,
        };
        Self { wallet, ..self }.scored(reward, terms.factor, terms.log_time_s)
    }
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
    terms: &Terms,
) -> Result<(HotspotState, PlayerState), Outcome> {
    let mut hotspot = open(hotspot, HotspotKind::Item, terms.log_time_s)?;
    let mut player = player.ok_or(Outcome::Full)?;
    let held = player.inventory.get_mut(usize::from(hotspot.item)).ok_or(Outcome::Full)?;
    *held = held.checked_add(1).ok_or(Outcome::Full)?;
    let player = player.scored(u64::from(hotspot.reward), terms.factor, terms.log_time_s)?;
    hotspot.remaining -= 1;
    Ok((hotspot, player))
}

/// One key from the player, one less in the chest, the reward to wallet and
/// score. The key must be what the chest wants, and what was `named`, if any was.
///
/// # Errors
///
/// `not-found`, `expired`, `already-claimed`, `no-key`, `full`.
#[inline(always)]
pub fn use_key(
    named: Option<u8>,
    hotspot: Option<HotspotState>,
    player: Option<PlayerState>,
    terms: &Terms,
) -> Result<(HotspotState, PlayerState), Outcome> {
    let mut hotspot = open(hotspot, HotspotKind::Chest, terms.log_time_s)?;
    if named.is_some_and(|item| item != hotspot.item) {
        return Err(Outcome::NoKey);
    }
    let mut player = player.ok_or(Outcome::NoKey)?;
    let held = player.inventory.get_mut(usize::from(hotspot.item)).ok_or(Outcome::NoKey)?;
    *held = held.checked_sub(1).ok_or(Outcome::NoKey)?;
    let player = player.paid(hotspot.reward, terms)?;
    hotspot.remaining -= 1;
    Ok((hotspot, player))
}

/// The named key from the player, for a chest in another region.
///
/// # Errors
///
/// `no-key`; also when none is named, since what the chest wants is not known here.
pub fn reserve_key(player: Option<PlayerState>, named: Option<u8>) -> Result<PlayerState, Outcome> {
    let mut player = player.ok_or(Outcome::NoKey)?;
    let held = named.and_then(|item| player.inventory.get_mut(usize::from(item)));
    let held = held.ok_or(Outcome::NoKey)?;
    *held = held.checked_sub(1).ok_or(Outcome::NoKey)?;
    Ok(player)
}

/// What a hotspot in another region pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    /// Points, multiplied as its game says.
    pub points: u64,
    /// Currency.
    pub currency: u64,
    /// One item of this type.
    pub item: Option<u8>,
}

/// The player with what was gained, points multiplied by the player's power-up. Nothing
/// overflows that was asked for with headroom; what would stops at the end of the
/// number.
#[must_use]
pub fn gain(player: PlayerState, gain: &Gain, log_time_s: u32) -> PlayerState {
    let mut player = match player.scored(gain.points, 1, log_time_s) {
        Ok(player) => player,
        Err(_) => PlayerState { score: SCORE_MAX, ..player },
    };
    player.wallet = player.wallet.saturating_add(gain.currency);
    refund(player, gain.item, 0)
}

/// The player with an item and an amount more.
#[must_use]
pub fn refund(mut player: PlayerState, item: Option<u8>, amount: u64) -> PlayerState {
    player.wallet = player.wallet.saturating_add(amount);
    if let Some(held) = item.and_then(|item| player.inventory.get_mut(usize::from(item))) {
        *held = held.saturating_add(1);
    }
    player
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
    terms: &Terms,
) -> Result<(HotspotState, PlayerState), Outcome> {
    let mut hotspot = open(hotspot, HotspotKind::Ticket, terms.log_time_s)?;
    let player = player.ok_or(Outcome::Full)?.paid(hotspot.reward, terms)?;
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
