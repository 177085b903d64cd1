//! Interfaces of the calling thread's network namespace: names, index, flags,
//! MTU and hardware address.
//!
//! All by system call and none through `/sys`, which may be mounted for
//! another namespace than the caller's.

use std::ffi::CStr;
use std::io;

use super::ethtool::ControlSocket;

/// Bytes of an interface name, the NUL included (`IFNAMSIZ`).
pub const IFNAME_BYTES: usize = libc::IFNAMSIZ;

/// A name that the kernel could give an interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks `name` by the kernel's own rule (`dev_valid_name`): 1 to 15
    /// bytes, not `.` or `..`, no slash, colon, blank or NUL.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..IFNAME_BYTES).contains(&name.len());
        let dots = name == "." || name == "..";
        let clean = name
            .bytes()
            .all(|b| b != b'/' && b != b':' && b != 0 && !b.is_ascii_whitespace() && b != 0x0b);
        (fits && !dots && clean).then(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the kernel's fixed, NUL-padded array.
    pub(super) fn to_c_chars(&self) -> [libc::c_char; IFNAME_BYTES] {
        let mut chars = [0; IFNAME_BYTES];
        for (slot, byte) in chars.iter_mut().zip(self.0.bytes()) {
            *slot = byte.cast_signed() as libc::c_char;
        }
        chars
    }
}

/// What the interface ioctls tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Hardware address; `None` when the device has none of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Up, and with a carrier (`IFF_RUNNING`).
    pub running: bool,
}

/// Reads index, MTU, hardware address and flags.
///
/// # Errors
/// `ENODEV` when this namespace has no such interface.
pub fn link(socket: &ControlSocket, name: &InterfaceName) -> io::Result<Link> {
    let index = interface_ioctl(socket, name, libc::SIOCGIFINDEX as libc::c_ulong)?;
    let mtu = interface_ioctl(socket, name, libc::SIOCGIFMTU as libc::c_ulong)?;
    let flags = interface_ioctl(socket, name, libc::SIOCGIFFLAGS as libc::c_ulong)?;
    let hardware = interface_ioctl(socket, name, libc::SIOCGIFHWADDR as libc::c_ulong)?;
    let flags = i32::from(flags.short());
    Ok(Link {
        index: index.word(),
        mtu: mtu.word(),
        mac: hardware.mac(),
        up: flags & libc::IFF_UP != 0,
        running: flags & libc::IFF_RUNNING != 0,
    })
}

/// The union of an `ifreq` as plain bytes, so that reading a member is safe.
#[repr(C, align(8))]
struct Answer([u8; 24]);

/// A whole `ifreq`.
#[repr(C)]
struct Request {
    name: [libc::c_char; IFNAME_BYTES],
    answer: Answer,
}

const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());

impl Answer {
    fn word(&self) -> u32 {
        u32::from_ne_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    fn short(&self) -> i16 {
        i16::from_ne_bytes([self.0[0], self.0[1]])
    }

    /// The bytes of a `sockaddr` behind its family, which for a hardware
    /// address is an ARP type.
    fn mac(&self) -> Option<[u8; 6]> {
        let kind = u16::from_ne_bytes([self.0[0], self.0[1]]);
        let six = matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK);
        six.then(|| [2, 3, 4, 5, 6, 7].map(|at| self.0[at]))
    }
}

fn interface_ioctl(
    socket: &ControlSocket,
    name: &InterfaceName,
    request: libc::c_ulong,
) -> io::Result<Answer> {
    let mut ifreq = Request { name: name.to_c_chars(), answer: Answer([0; 24]) };
    // SAFETY: `ifreq` is a whole, initialised ifreq; the requests used here
    // read its name and write its union, nothing else.
    let rc = unsafe { libc::ioctl(socket.fd(), request as _, &raw mut ifreq) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ifreq.answer)
}

/// Names of all interfaces in the calling thread's namespace, in index order.
///
/// # Errors
/// What if_nameindex(3) says.
pub fn interface_names() -> io::Result<Vec<String>> {
    // SAFETY: takes no argument; the list it returns is ours to free.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut names = Vec::new();
    let mut at = list;
    loop {
        // SAFETY: `at` walks the array up to, not past, its null entry.
        let entry = unsafe { at.read() };
        if entry.if_name.is_null() {
            break;
        }
        // SAFETY: a non-null name of the list is a NUL-terminated string.
        let name = unsafe { CStr::from_ptr(entry.if_name) };
        names.push(name.to_string_lossy().into_owned());
        // SAFETY: the entry just read was not the last, so one more follows.
        at = unsafe { at.add(1) };
    }
    // SAFETY: `list` came from if_nameindex and is freed once, here.
    unsafe { libc::if_freenameindex(list) };
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kernels_rule() {
        for good in ["lo", "eth0", "enp0s31f6", "fifteen-bytes-x", "a.100", "va@b"] {
            assert!(InterfaceName::new(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\0b", "sixteen-bytes-xx"] {
            assert!(InterfaceName::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn loopback_is_there() {
        let socket = ControlSocket::open().expect("a socket");
        let lo = InterfaceName::new("lo").expect("a legal name");
        let link = link(&socket, &lo).expect("lo");
        assert!(link.index > 0);
        assert!(link.mtu > 0);
        assert_eq!(link.mac, Some([0; 6]));
        assert!(interface_names().expect("names").contains(&"lo".to_owned()));
    }

    #[test]
    fn an_absent_interface_is_enodev() {
        let socket = ControlSocket::open().expect("a socket");
        let name = InterfaceName::new("absent0").expect("a legal name");
        let error = link(&socket, &name).expect_err("there is none");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
