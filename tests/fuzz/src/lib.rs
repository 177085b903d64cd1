//! What the fuzz targets call: the decoders on arbitrary bytes, and what must
//! hold of whatever they say.
//!
//! ```text
//!   tests/corpus/TARGET ──> cargo xtask fuzz TARGET ──> target/fuzz/artifacts/TARGET (a find)
//!           ^     |                                              |
//!           |     └──> cargo test --test corpus (stable)         |
//!           └──────────────── named by hand ─────────────────────┘
//! ```
//!
//! [`checks`] and [`durable`] are also modules of `tests/tests/corpus.rs`, so a committed file
//! is judged by the same rules on stable, and a frame by the loaded kernel
//! half besides.
//!
//! # Keeping a find
//!
//! 1. Make it small: `cargo +nightly fuzz tmin --fuzz-dir tests/fuzz TARGET FILE`.
//! 2. Copy it to `tests/corpus/TARGET/WHAT.VERDICT.bin` (`.toml` for `config`).
//!    WHAT says what is peculiar about it, in words: `v4-options-cut-short`.
//!    VERDICT is what the decoder ought to say: the label of an exit, the kind
//!    of an accepted datagram, `ok` or `bad` for settings, the target's own name
//!    or `damaged` for batches, records and snapshots.
//! 3. `cargo test -p veltrix-tests --test corpus` fails until the bug is mended,
//!    and names the verdict if the file name has another.
//!
//! Files that the builders in `tests/tests/corpus/` write are rewritten with
//! `VELTRIX_BLESS=1 cargo test -p veltrix-tests --test corpus`.

pub mod checks;
pub mod durable;
