//! Hunts: opened, joined, closed; power-ups, banks.

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{HuntSetup, PowerUp};
use veltrix_abi::split::Opening;

use super::{PlayerState, plus};
use crate::apply::games;
use crate::index::Hunt;

/// What a hunt holds before it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Players.
    pub players: bool,
    /// Cells.
    pub cells: bool,
}

/// The hunt, or this region of it, is a game of this type from now on, and may use so
/// much.
///
/// # Errors
///
/// `wrong-region` when the region has another domain key; `closed`; `already-done` when
/// it was opened before; `wrong-game` when there are players and they would have to be
/// in teams, which what they hold is not, or when a region has players or cells, which
/// may not belong there.
pub fn open(
    hunt: &Hunt,
    held: Held,
    setup: &HuntSetup,
    opening: &Opening,
    log_time_s: u32,
) -> Result<Hunt, Outcome> {
    if opening.region.is_some_and(|region| region.domain() != hunt.domain()) {
        return Err(Outcome::WrongRegion);
    }
    if hunt.is_over(log_time_s) {
        return Err(Outcome::Closed);
    }
    if hunt.game != 0 {
        return Err(Outcome::AlreadyDone);
    }
    let in_teams = games::known(setup.game).is_some_and(|row| row.is_in_teams);
    let in_regions = opening.region.is_some();
    if (held.players && (in_teams || in_regions)) || (held.cells && in_regions) {
        return Err(Outcome::WrongGame);
    }
    let ends_s = match setup.length_s {
        0 => 0,
        length_s => log_time_s.saturating_add(length_s),
    };
    let mut opened = *hunt;
    (opened.game, opened.settings) = (setup.game, setup.settings);
    (opened.opened_s, opened.ends_s) = (log_time_s, ends_s);
    let quota = &opening.quota;
    (opened.tenant, opened.events_per_s) = (quota.tenant, quota.events_per_s);
    (opened.cells_max, opened.players_max) = (quota.cells_max, quota.players_max);
    let bounds = [quota.cells_max, quota.players_max, quota.events_per_s];
    opened.is_bound = bounds.iter().any(|bound| *bound > 0).into();
    if let Some(region) = opening.region {
        (opened.root, opened.region) = (region.root, region.number);
        (opened.split_bits, opened.split_skip) = (region.split.bits, region.split.skip);
    }
    Ok(opened)
}

/// One event more in this second of log time: events of it, with this one.
///
/// # Errors
///
/// `over-quota`; what is refused so does not count.
pub fn count(hunt: &Hunt, log_time_s: u32) -> Result<u32, Outcome> {
    let events = if hunt.second == log_time_s { hunt.events } else { 0 };
    if hunt.events_per_s > 0 && events >= hunt.events_per_s {
        return Err(Outcome::OverQuota);
    }
    Ok(events.saturating_add(1))
}

/// The hunt plays no more, and its pot is the winner's, as far as the wallet can hold
/// it: nobody's wallet keeps a hunt open. The hunt and what the winner owns, as they
/// shall be.
///
/// # Errors
///
/// `closed` when it was before; a hunt whose time is up can still be closed.
pub fn close(
    hunt: &Hunt,
    winner: Option<PlayerState>,
) -> Result<(Hunt, Option<PlayerState>), Outcome> {
    if hunt.closed != 0 {
        return Err(Outcome::Closed);
    }
    let mut closed = *hunt;
    closed.closed = 1;
    let winner = winner.map(|winner| {
        let wallet = winner.wallet.saturating_add(hunt.pot);
        closed.pot -= wallet - winner.wallet;
        PlayerState { wallet, ..winner }
    });
    Ok((closed, winner))
}

/// The player joins, in `team` if the game is played in teams.
///
/// # Errors
///
/// `wrong-game` for a team where there are none, and for none where there are;
/// `already-done` for a player that is known, and in a team where there are teams;
/// `full`.
pub fn join(
    is_known: bool,
    player: Option<PlayerState>,
    team: u8,
    is_in_teams: bool,
) -> Result<PlayerState, Outcome> {
    if (team != 0) != is_in_teams {
        return Err(Outcome::WrongGame);
    }
    let player = player.ok_or(Outcome::Full)?;
    if is_known && (!is_in_teams || player.team != 0) {
        return Err(Outcome::AlreadyDone);
    }
    Ok(PlayerState { team, ..player })
}

/// One item less, and the player's points are multiplied from now on, whatever was
/// in force before.
///
/// # Errors
///
/// `no-key`.
pub fn power_up(
    player: &PlayerState,
    power_up: &PowerUp,
    log_time_s: u32,
) -> Result<PlayerState, Outcome> {
    let mut player = *player;
    let held = player.inventory.get_mut(usize::from(power_up.item)).ok_or(Outcome::NoKey)?;
    *held = held.checked_sub(1).ok_or(Outcome::NoKey)?;
    player.power = power_up.factor;
    player.power_until_s = log_time_s.saturating_add(power_up.seconds);
    Ok(player)
}

/// From the player's wallet to the bank of its team: both, as they shall be.
///
/// # Errors
///
/// `insufficient-funds`, `full`.
pub fn deposit(
    player: &PlayerState,
    bank: u64,
    amount: u64,
) -> Result<(PlayerState, u64), Outcome> {
    let wallet = player.wallet.checked_sub(amount).ok_or(Outcome::InsufficientFunds)?;
    Ok((PlayerState { wallet, ..*player }, plus(bank, amount)?))
}

/// From the bank of the team to the player's wallet: both, as they shall be.
///
/// # Errors
///
/// `insufficient-funds` of the bank, `full`.
pub fn withdraw(
    player: &PlayerState,
    bank: u64,
    amount: u64,
) -> Result<(PlayerState, u64), Outcome> {
    let bank = bank.checked_sub(amount).ok_or(Outcome::InsufficientFunds)?;
    Ok((PlayerState { wallet: plus(player.wallet, amount)?, ..*player }, bank))
}

#[cfg(test)]
mod tests {
    use super::*;
    use veltrix_abi::kinds::Quota;

    const NOW_S: u32 = 1_000;
    const NOTHING: Held = Held { players: false, cells: false };
    const PLAYERS: Held = Held { players: true, cells: false };

    fn with(quota: Quota) -> Opening {
        Opening { quota, region: None }
    }

    #[test]
    fn so_many_events_a_second_and_no_more() {
        let setup = HuntSetup { game: 1, length_s: 0, settings: 0 };
        let quota = Quota { tenant: 9, events_per_s: 2, ..Quota::default() };
        let mut hunt = open(&Hunt::new(5), NOTHING, &setup, &with(quota), NOW_S).unwrap();
        assert_eq!((hunt.tenant, hunt.is_bound), (9, 1));
        for second in [NOW_S, NOW_S + 1, NOW_S + 9] {
            for events in 1..=2 {
                assert_eq!(count(&hunt, second), Ok(events));
                (hunt.second, hunt.events) = (second, events);
            }
            assert_eq!(count(&hunt, second), Err(Outcome::OverQuota));
        }
        let unbound = open(
            &Hunt::new(5),
            NOTHING,
            &setup,
            &with(Quota { tenant: 9, ..Quota::default() }),
            NOW_S,
        )
        .unwrap();
        assert_eq!(unbound.is_bound, 0);
    }

    #[test]
    fn a_hunt_is_opened_once_and_closed_once() {
        let setup = HuntSetup { game: 2, length_s: 60, settings: 7 };
        let hunt = open(&Hunt::new(5), NOTHING, &setup, &Opening::default(), NOW_S).unwrap();
        assert_eq!((hunt.game, hunt.opened_s, hunt.ends_s, hunt.settings), (2, 1_000, 1_060, 7));
        assert_eq!(
            open(&hunt, NOTHING, &setup, &Opening::default(), NOW_S),
            Err(Outcome::AlreadyDone)
        );
        assert!(!hunt.is_over(1_059) && hunt.is_over(1_060));
        assert_eq!(open(&hunt, NOTHING, &setup, &Opening::default(), 1_060), Err(Outcome::Closed));
        let (closed, none) = close(&hunt, None).unwrap();
        assert!(closed.is_over(NOW_S) && none.is_none());
        assert_eq!(close(&closed, None), Err(Outcome::Closed));
        assert_eq!(
            open(&closed, NOTHING, &setup, &Opening::default(), NOW_S),
            Err(Outcome::Closed)
        );

        let teams = HuntSetup { game: 3, length_s: 0, settings: 0 };
        assert_eq!(
            open(&Hunt::new(5), PLAYERS, &teams, &Opening::default(), NOW_S),
            Err(Outcome::WrongGame)
        );
        assert!(open(&Hunt::new(5), PLAYERS, &setup, &Opening::default(), NOW_S).is_ok());

        let endless = HuntSetup { length_s: 0, ..setup };
        let hunt = open(&Hunt::new(5), NOTHING, &endless, &Opening::default(), NOW_S).unwrap();
        assert!(!hunt.is_over(u32::MAX));
        let late = open(&Hunt::new(5), NOTHING, &setup, &Opening::default(), u32::MAX - 1).unwrap();
        assert_eq!(late.ends_s, u32::MAX);
    }

    #[test]
    fn closing_pays_the_pot_once() {
        let mut hunt = Hunt::new(5);
        (hunt.pot, hunt.lots, hunt.winner) = (40, 2, 1);
        let (closed, winner) = close(&hunt, Some(PlayerState::default())).unwrap();
        assert_eq!((closed.pot, winner.map(|w| w.wallet)), (0, Some(40)));
        let rich = PlayerState { wallet: u64::MAX - 39, ..PlayerState::default() };
        let (closed, winner) = close(&hunt, Some(rich)).unwrap();
        assert_eq!((closed.pot, winner.map(|w| w.wallet)), (1, Some(u64::MAX)));
    }

    #[test]
    fn teams_are_joined_once_and_only_where_there_are_any() {
        let new = Some(PlayerState::default());
        assert_eq!(join(false, new, 3, true).unwrap().team, 3);
        assert_eq!(join(true, new, 3, true).unwrap().team, 3, "known, and in no team yet");
        let joined = Some(PlayerState { team: 3, ..PlayerState::default() });
        for team in [3, 4] {
            assert_eq!(join(true, joined, team, true), Err(Outcome::AlreadyDone));
        }
        assert_eq!(join(false, new, 0, true), Err(Outcome::WrongGame));
        assert_eq!(join(false, new, 1, false), Err(Outcome::WrongGame));
        assert!(join(false, new, 0, false).is_ok());
        assert_eq!(join(true, new, 0, false), Err(Outcome::AlreadyDone));
        assert_eq!(join(false, None, 0, false), Err(Outcome::Full));
    }

    #[test]
    fn a_power_up_costs_an_item_and_ends() {
        let mut player = PlayerState::default();
        let wanted = PowerUp { item: 2, factor: 3, seconds: 60 };
        assert_eq!(power_up(&player, &wanted, NOW_S), Err(Outcome::NoKey));
        player.inventory[2] = 1;
        let powered = power_up(&player, &wanted, NOW_S).unwrap();
        assert_eq!(powered.inventory[2], 0);
        assert_eq!([999, 1_000, 1_059, 1_060].map(|s| powered.factor(s)), [3, 3, 3, 1]);
        assert_eq!(player.factor(0), 1, "never any");
    }

    #[test]
    fn a_bank_never_goes_below_zero() {
        let player = PlayerState { wallet: 10, ..PlayerState::default() };
        let (poorer, bank) = deposit(&player, 5, 7).unwrap();
        assert_eq!((poorer.wallet, bank), (3, 12));
        assert_eq!(deposit(&player, 5, 11), Err(Outcome::InsufficientFunds));
        assert_eq!(deposit(&player, u64::MAX - 6, 7), Err(Outcome::Full));
        let (richer, bank) = withdraw(&player, 12, 12).unwrap();
        assert_eq!((richer.wallet, bank), (22, 0));
        assert_eq!(withdraw(&player, 12, 13), Err(Outcome::InsufficientFunds));
        let rich = PlayerState { wallet: u64::MAX - 6, ..player };
        assert_eq!(withdraw(&rich, 12, 7), Err(Outcome::Full));
    }
}
