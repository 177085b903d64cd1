//! Whole-system tests: the network lab, single frames, benchmarks, the demo.

/// The real binary in the lab.
pub mod bench;
pub mod demo;
pub mod lab;
pub mod server;
pub mod testrun;
