//! Bytes as a file of settings.

#![no_main]

use veltrix_fuzz::checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::config(bytes);
});
