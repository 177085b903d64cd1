//! Socket options that neither `std` nor `socket2` offers, as typed calls.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Types the kernel may fill with any bytes.
///
/// # Safety
///
/// Every bit pattern is a valid value, and there is no padding that matters.
unsafe trait Plain: Copy {}

// SAFETY: integers and C structs of integers.
unsafe impl Plain for libc::c_int {}
// SAFETY: as above.
unsafe impl Plain for [u32; 9] {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: as above; the kernel only reads it.
unsafe impl Plain for libc::xdp_umem_reg {}

fn set<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for the size given, and the fd is open.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the bytes the kernel filled in; older kernels fill fewer.
fn get<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut T) -> io::Result<usize> {
    let mut bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable for `bytes`, any bytes are a valid T, and
    // the fd is open.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(value).cast(),
            &raw mut bytes,
        )
    };
    if rc == 0 { Ok(bytes as usize) } else { Err(io::Error::last_os_error()) }
}

/// Sets an integer option.
///
/// # Errors
///
/// The kernel's.
pub fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(fd, level, name, &value)
}

/// Datagrams the kernel dropped for want of receive buffer, since the socket
/// was made (`SO_MEMINFO`). 32 bits in the kernel: it wraps.
///
/// # Errors
///
/// The kernel's.
pub fn receive_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` in `linux/sock_diag.h`.
    const DROPS: usize = 8;
    let mut info = [0u32; 9];
    get(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info)?;
    Ok(info[DROPS])
}

/// Registers packet memory with an AF_XDP socket.
///
/// # Errors
///
/// The kernel's; ENOBUFS or EPERM when RLIMIT_MEMLOCK is too small.
pub fn xdp_umem_register(fd: BorrowedFd<'_>, umem: &libc::xdp_umem_reg) -> io::Result<()> {
    set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, umem)
}

/// Where the four rings of an AF_XDP socket keep their cursors.
///
/// # Errors
///
/// The kernel's; kernels before 5.4 answer in an older form, which is refused.
pub fn xdp_offsets(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: all zeroes is a valid value of a struct of integers.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let bytes = get(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    if bytes == size_of::<libc::xdp_mmap_offsets>() {
        Ok(offsets)
    } else {
        Err(io::Error::other("kernel is older than 5.4: AF_XDP rings without wakeup flags"))
    }
}

/// All six counters of an AF_XDP socket.
///
/// # Errors
///
/// The kernel's.
pub fn xdp_statistics(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_statistics> {
    // SAFETY: all zeroes is a valid value of a struct of integers.
    let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
    get(fd, libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics)?;
    Ok(statistics)
}

/// Whether the kernel moves this socket's packets without copying: the only
/// honest answer there is.
///
/// # Errors
///
/// The kernel's.
pub fn xdp_is_zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut options = libc::xdp_options { flags: 0 };
    get(fd, libc::SOL_XDP, libc::XDP_OPTIONS, &mut options)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}
