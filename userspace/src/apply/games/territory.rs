//! Teams that hold ground.

use super::GameType;

pub(super) struct Territory;

impl GameType for Territory {
    const IS_IN_TEAMS: bool = true;
    const HOLDS_GROUND: bool = true;
}
