//! Embeds the kernel half when `VELTRIX_EBPF_OBJECT` names it; without it the
//! binary still runs, on UDP sockets.

use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ebpf_object)");
    println!("cargo::rerun-if-env-changed=VELTRIX_EBPF_OBJECT");
    let Some(object) = std::env::var_os("VELTRIX_EBPF_OBJECT").map(PathBuf::from) else {
        return;
    };
    println!("cargo::rerun-if-changed={}", object.display());
    assert!(
        object.is_file(),
        "VELTRIX_EBPF_OBJECT names {}, which is not there: run `cargo xtask build-ebpf`",
        object.display()
    );
    println!("cargo::rustc-env=VELTRIX_EBPF_OBJECT={}", object.display());
    println!("cargo::rustc-cfg=ebpf_object");
}
