//! Teams that save together.

use super::{GameType, Payee};

pub(super) struct TeamHunt;

impl GameType for TeamHunt {
    const IS_IN_TEAMS: bool = true;
    const PAYEE: Payee = Payee::Bank;
}
