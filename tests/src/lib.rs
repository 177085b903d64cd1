//! Whole-system tests: the network lab, single frames, benchmarks, the demo.

pub mod bench;
pub mod chromium;
pub mod crash;
pub mod demo;
pub mod lab;
pub mod loopback;
pub mod model;
pub mod server;
pub mod sim;
pub mod swarm;
pub mod testrun;
