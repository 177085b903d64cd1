//! Bytes as a record of the log.

#![no_main]

use veltrix_fuzz::durable;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    durable::record(bytes);
});
