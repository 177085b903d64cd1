//! A world as text: CSV, one line an event, in the order of events; and its
//! checksum.
//!
//! ```text
//!   hunt,kind,player,subject,argument
//!   1,hotspot-spawn,0,1009387610294856123,8388613
//! ```
//!
//! Keys are not in it: their time part is that of the load. The checksum is the
//! XXH128 of the text, as `xxhsum -H128` prints it.

use std::io::{self, Write};

use xxhash_rust::xxh3::Xxh3;

use super::generator::World;

/// First line.
pub const HEADER: &str = "hunt,kind,player,subject,argument\n";

/// Bytes gathered between two writes.
const CHUNK_BYTES: usize = 64 << 10;

/// Longest line: four numbers of 20 digits, the longest kind, commas.
const LINE_BYTES_MAX: usize = 120;

/// Writes a world; gives its checksum.
///
/// # Errors
///
/// What `out` says.
pub fn write(world: &World, out: &mut dyn Write) -> io::Result<u128> {
    let mut hash = Xxh3::new();
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    chunk.extend_from_slice(HEADER.as_bytes());
    for event in world.iter() {
        if chunk.len() + LINE_BYTES_MAX > CHUNK_BYTES {
            hash.update(&chunk);
            out.write_all(&chunk)?;
            chunk.clear();
        }
        put(&mut chunk, event.hunt);
        chunk.push(b',');
        chunk.extend_from_slice(event.kind.label().as_bytes());
        for number in [event.player, event.subject, event.argument] {
            chunk.push(b',');
            put(&mut chunk, number);
        }
        chunk.push(b'\n');
    }
    hash.update(&chunk);
    out.write_all(&chunk)?;
    out.flush()?;
    Ok(hash.digest128())
}

/// The checksum alone.
#[must_use]
pub fn checksum(world: &World) -> u128 {
    // A sink takes everything.
    write(world, &mut io::sink()).unwrap_or_default()
}

/// Decimal digits of a number.
fn put(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 4_294_967_296, u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
