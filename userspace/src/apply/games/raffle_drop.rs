//! Everybody pays into the pot, one wins it.

use super::{GameType, Latency, Payee};

pub(super) struct RaffleDrop;

impl GameType for RaffleDrop {
    const LATENCY: Latency = Latency::Relaxed;
    const PAYEE: Payee = Payee::Pot;
}
