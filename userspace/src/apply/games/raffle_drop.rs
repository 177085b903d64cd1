//! Everybody pays into the pot, one wins it.

use super::{GameType, Payee};

pub(super) struct RaffleDrop;

impl GameType for RaffleDrop {
    fn payee(&self) -> Payee {
        Payee::Pot
    }
}
