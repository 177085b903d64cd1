//! Bytes as a datagram that a server receives.

#![no_main]

use veltrix_fuzz::checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::request(bytes);
});
