//! The lab's kernel half: what stands at the two ends of the veth pair when
//! Veltrix is measured and tested. Never part of the appliance.
//!
//! ```text
//!   client namespace                                    server namespace
//!   TEST_RUN -> lab_generate -> redirect -> veltrix-c ===== veltrix-s -> lab_drop | lab_pass | veltrix
//!                               lab_sink <- veltrix-c ===== veltrix-s <- replies
//! ```
//!
//! [`lab_generate`](generate) makes frames, [`lab_feed`](feed) sends those it is
//! handed, [`lab_sink`](sink) counts
//! replies, [`lab_drop` and `lab_pass`](receive) are receivers that do nothing
//! else. Settings and counters are laid out in [`layout`], which the lab's
//! user half includes as a file.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "lab/feed.rs"]
mod feed;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "names of the user half")]
#[path = "lab/feed_layout.rs"]
mod feed_layout;
#[cfg(target_arch = "bpf")]
#[path = "lab/generate.rs"]
mod generate;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "names and constants of the user half")]
#[path = "lab/layout.rs"]
mod layout;
#[cfg(target_arch = "bpf")]
#[path = "lab/packet.rs"]
mod packet;
#[cfg(target_arch = "bpf")]
#[path = "lab/receive.rs"]
mod receive;
#[cfg(target_arch = "bpf")]
#[path = "lab/sink.rs"]
mod sink;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
