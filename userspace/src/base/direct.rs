//! What a data directory asks of the kernel and std does not offer.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that a process without privilege may still write to the file system
/// that holds `path`.
///
/// # Errors
///
/// What the kernel says; a path with a zero byte.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a C string and a statvfs to write to, both alive during the call.
    let rc = unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zero is a statvfs, and the kernel has filled it in.
    let facts = unsafe { facts.assume_init() };
    #[allow(clippy::unnecessary_cast)] // narrower on other targets
    let (blocks, block_bytes) = (facts.f_bavail as u64, facts.f_frsize as u64);
    Ok(blocks.saturating_mul(block_bytes))
}

/// The user that files made by this process belong to.
#[must_use]
pub fn effective_uid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_free_bytes_and_a_missing_one_an_error() {
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
        assert!(free_bytes(Path::new("/does/not/exist")).is_err());
    }
}
