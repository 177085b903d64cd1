//! Bytes as a snapshot file.

#![no_main]

use veltrix_fuzz::durable;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    durable::snapshot(bytes);
});
