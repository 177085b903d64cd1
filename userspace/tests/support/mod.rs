//! What the integration tests of this crate share; the unit tests of the lane
//! and the AF_XDP port include single files from here by path.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod allocator;
pub mod datagrams;
