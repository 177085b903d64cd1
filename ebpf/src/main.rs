//! The kernel half: the XDP program `veltrix`, one per interface.
//!
//! ```text
//!  frame -> program (parse, blocklist, limit) -> steer -> XSK of its queue
//!              |                                   |
//!              +--> pass or drop                   +--> kernel UDP socket
//! ```
//!
//! Straight-line: no loop, no per-queue constant. Every frame is counted when
//! it comes in and once more at the one exit it leaves by. Off the BPF target
//! this is an empty `main`, so that plain cargo works on it.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![deny(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

#[cfg(target_arch = "bpf")]
mod blocklist;
#[cfg(target_arch = "bpf")]
mod bucket;
#[cfg(target_arch = "bpf")]
mod limit;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod program;
#[cfg(target_arch = "bpf")]
mod settings;
#[cfg(target_arch = "bpf")]
mod steer;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The kernel reads it at load; no helper in use asks for the GPL.
// SAFETY: the section holds nothing but this string, and no Rust code reads it.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";

/// Required by the language and unreachable: nothing in the program can
/// panic, and the verifier would refuse a loop that is reached.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
