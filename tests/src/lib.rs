//! The network lab: namespaces, veth pairs, packet generator.
pub mod lab;
pub mod testrun;
pub mod bench;
pub mod demo;
/// The real binary in the lab.
pub mod server;
