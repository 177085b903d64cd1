//! Everybody pays into the pot, one wins it.

use super::{GameType, Payee};

pub(super) struct RaffleDrop;

impl GameType for RaffleDrop {
    const PAYEE: Payee = Payee::Pot;
}
