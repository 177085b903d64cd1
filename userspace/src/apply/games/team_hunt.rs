//! Teams that save together.

use super::{GameType, Payee};

pub(super) struct TeamHunt;

impl GameType for TeamHunt {
    fn is_in_teams(&self) -> bool {
        true
    }

    fn payee(&self) -> Payee {
        Payee::Bank
    }
}
