//! Teams that hold ground.

use super::GameType;

pub(super) struct Territory;

impl GameType for Territory {
    fn is_in_teams(&self) -> bool {
        true
    }

    fn holds_ground(&self) -> bool {
        true
    }
}
