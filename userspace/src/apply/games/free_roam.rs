//! Everybody for themselves: the rules as they are.

use super::GameType;

pub(super) struct FreeRoam;

impl GameType for FreeRoam {}
