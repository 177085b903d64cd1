//! What a driver says of itself through the ethtool ioctl: its name, its bus
//! address and its channel counts.
//!
//! Reading needs no privilege. The control socket belongs to the network
//! namespace of the thread that opened it, so these answers are right inside
//! a namespace where `/sys/class/net` still shows another one.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;

use super::netif::{IFNAME_BYTES, InterfaceName};

/// `ETHTOOL_GDRVINFO` of `linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x0000_0003;
/// `ETHTOOL_GCHANNELS` of `linux/ethtool.h`.
const ETHTOOL_GCHANNELS: u32 = 0x0000_003c;

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DrvInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved2: [u8; 12],
    n_priv_flags: u32,
    n_stats: u32,
    testinfo_len: u32,
    eedump_len: u32,
    regdump_len: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// `struct ifreq` as the ethtool ioctl reads it: a name and a pointer.
#[repr(C)]
struct EthtoolRequest {
    name: [libc::c_char; IFNAME_BYTES],
    data: *mut libc::c_void,
    // The kernel copies a whole ifreq in, whose union is 24 bytes long.
    rest: [u8; 16],
}

const _: () = assert!(size_of::<DrvInfo>() == 196);
const _: () = assert!(size_of::<RawChannels>() == 36);
const _: () = assert!(size_of::<EthtoolRequest>() >= size_of::<libc::ifreq>());

/// A driver's name and where its device sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverInfo {
    /// The driver, such as `veth`, `virtio_net` or `ena`.
    pub driver: String,
    /// Bus address, such as `0000:00:05.0`; empty for a device without a bus.
    pub bus: String,
}

/// Channel counts as the driver reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Most receive-only channels.
    pub rx_max: u32,
    /// Most transmit-only channels.
    pub tx_max: u32,
    /// Most combined channels; 0 when the driver has only the other two.
    pub combined_max: u32,
    /// Receive-only channels now.
    pub rx: u32,
    /// Transmit-only channels now.
    pub tx: u32,
    /// Combined channels now.
    pub combined: u32,
}

/// A socket to put questions about interfaces of this thread's namespace to.
pub struct ControlSocket(UnixDatagram);

impl ControlSocket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// What socket(2) says: no descriptor left, or no memory.
    pub fn open() -> io::Result<Self> {
        // Interface ioctls are answered for every socket family; a Unix
        // socket is there even in a kernel or sandbox without IPv4.
        UnixDatagram::unbound().map(Self)
    }

    /// The descriptor, for the interface ioctls of `netif`.
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Asks for the driver's name and bus address.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the device has none (`lo`), `ENODEV` when there is
    /// no such interface.
    pub fn driver(&self, name: &InterfaceName) -> io::Result<DriverInfo> {
        let mut info = DrvInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            version: [0; 32],
            fw_version: [0; 32],
            bus_info: [0; 32],
            erom_version: [0; 32],
            reserved2: [0; 12],
            n_priv_flags: 0,
            n_stats: 0,
            testinfo_len: 0,
            eedump_len: 0,
            regdump_len: 0,
        };
        self.ask(name, (&raw mut info).cast())?;
        Ok(DriverInfo {
            driver: bytes_to_string(&info.driver),
            bus: bytes_to_string(&info.bus_info),
        })
    }

    /// Asks for the channel counts.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the driver has no channels to report, `ENODEV` when
    /// there is no such interface.
    pub fn channels(&self, name: &InterfaceName) -> io::Result<Channels> {
        let mut raw = RawChannels { cmd: ETHTOOL_GCHANNELS, ..RawChannels::default() };
        self.ask(name, (&raw mut raw).cast())?;
        Ok(Channels {
            rx_max: raw.max_rx,
            tx_max: raw.max_tx,
            combined_max: raw.max_combined,
            rx: raw.rx_count,
            tx: raw.tx_count,
            combined: raw.combined_count,
        })
    }

    /// One `SIOCETHTOOL`. `data` points to the structure that belongs to the
    /// command in its first word.
    fn ask(&self, name: &InterfaceName, data: *mut libc::c_void) -> io::Result<()> {
        let mut request = EthtoolRequest { name: name.to_c_chars(), data, rest: [0; 16] };
        // SAFETY: `request` is at least a whole ifreq, and its data pointer
        // is a live local of the caller, sized for the command it begins with.
        let rc = unsafe { libc::ioctl(self.fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Text up to the first NUL.
fn bytes_to_string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_channels() {
        let socket = ControlSocket::open().expect("a socket");
        let lo = InterfaceName::new("lo").expect("a legal name");
        let error = socket.channels(&lo).expect_err("lo has no channels");
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    #[test]
    fn an_absent_interface_is_enodev() {
        let socket = ControlSocket::open().expect("a socket");
        let name = InterfaceName::new("absent0").expect("a legal name");
        let error = socket.driver(&name).expect_err("there is none");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn text_ends_at_the_first_nul() {
        assert_eq!(bytes_to_string(b"veth\0\0junk"), "veth");
        assert_eq!(bytes_to_string(b"full"), "full");
    }
}
