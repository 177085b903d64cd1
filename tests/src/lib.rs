//! The network lab: namespaces, veth pairs, packet generator.
pub mod lab;
