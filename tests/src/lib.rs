//! Whole-system tests: the network lab, single frames, benchmarks, the demo.

pub mod bench;
pub mod demo;
pub mod lab;
/// The real binary in the lab.
pub mod server;
pub mod testrun;
