//! Bytes as a datagram that a client receives.

#![no_main]

use veltrix_fuzz::checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::reply(bytes);
});
