//! Bytes as a frame from the wire, through the decoder that both halves use.

#![no_main]

use veltrix_fuzz::checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::frame(bytes);
});
