//! The sockets behind the socket provider.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::base::sockopt;

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("UDP socket on {address}: {step}: {source}{hint}")]
pub struct ListenError {
    /// Address asked for.
    pub address: SocketAddr,
    /// What was being done.
    pub step: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
    /// What to do about it.
    pub hint: &'static str,
}

/// Makes the sockets of one port.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'a> {
    /// Take only what comes by this interface.
    pub interface: Option<&'a str>,
    /// Local address; port 0 lets the kernel choose for the first socket.
    pub address: SocketAddr,
    /// Bytes of receive buffer asked for; the kernel may grant less.
    pub receive_buffer_bytes: usize,
    /// Bytes of send buffer asked for.
    pub send_buffer_bytes: usize,
}

impl Listener<'_> {
    /// Opens `count` sockets that share the address. Gives them with the
    /// address they are bound to.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; also when another process holds the address, which
    /// `SO_REUSEPORT` alone would let us share unnoticed.
    pub fn open(&self, count: usize) -> Result<(Vec<UdpSocket>, SocketAddr), ListenError> {
        let probe = self.socket(self.address, false)?;
        let address = probe.local_addr().map_err(self.at(self.address, "read the address"))?;
        drop(probe);
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            sockets.push(self.socket(address, true)?);
        }
        Ok((sockets, address))
    }

    /// All addresses of both families on `port`; IPv4 alone where the host has
    /// no IPv6.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_any(&self, port: u16) -> Result<(UdpSocket, SocketAddr), ListenError> {
        let any = |ip: std::net::IpAddr| Self { address: SocketAddr::new(ip, port), ..*self };
        let v6 = any(Ipv6Addr::UNSPECIFIED.into());
        let opened = match v6.open(1) {
            Err(e) if e.source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                any(Ipv4Addr::UNSPECIFIED.into()).open(1)
            }
            other => other,
        };
        opened.map(|(mut sockets, address)| (sockets.remove(0), address))
    }

    fn at(&self, address: SocketAddr, step: &'static str) -> impl FnOnce(io::Error) -> ListenError {
        move |source| {
            let hint = match source.raw_os_error() {
                Some(libc::EADDRINUSE) => {
                    "; another process holds this port: `ss -ulpn` names it, `--port` takes another"
                }
                Some(libc::EADDRNOTAVAIL) => {
                    "; no interface has this address: `ip address` lists them"
                }
                Some(libc::EACCES) => "; ports below 1024 need CAP_NET_BIND_SERVICE",
                _ => "",
            };
            ListenError { address, step, source, hint }
        }
    }

    fn socket(&self, address: SocketAddr, reuse: bool) -> Result<UdpSocket, ListenError> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))
            .map_err(self.at(address, "make"))?;
        if reuse {
            socket.set_reuse_port(true).map_err(self.at(address, "share the port"))?;
        }
        if domain == Domain::IPV6 {
            socket.set_only_v6(false).map_err(self.at(address, "serve IPv4 too"))?;
            for option in [
                libc::IPV6_RECVPKTINFO,
                libc::IPV6_RECVHOPOPTS,
                libc::IPV6_RECVRTHDR,
                libc::IPV6_RECVDSTOPTS,
            ] {
                sockopt::set_int(socket.as_fd(), libc::IPPROTO_IPV6, option, 1)
                    .map_err(self.at(address, "ask for addresses and extension headers"))?;
            }
        }
        // On an IPv6 socket this concerns the IPv4 datagrams it receives.
        sockopt::set_int(socket.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
            .map_err(self.at(address, "ask for destination addresses"))?;
        if let Some(interface) = self.interface {
            socket
                .bind_device(Some(interface.as_bytes()))
                .map_err(self.at(address, "take only one interface's datagrams"))?;
        }
        self.set_buffers(&socket).map_err(self.at(address, "size the buffers"))?;
        socket.bind(&address.into()).map_err(self.at(address, "bind"))?;
        Ok(socket.into())
    }

    /// Past the host's limit with CAP_NET_ADMIN, else up to it.
    fn set_buffers(&self, socket: &Socket) -> io::Result<()> {
        for (bytes, force, plain) in [
            (self.receive_buffer_bytes, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (self.send_buffer_bytes, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            let fd = socket.as_fd();
            if sockopt::set_int(fd, libc::SOL_SOCKET, force, bytes).is_err() {
                sockopt::set_int(fd, libc::SOL_SOCKET, plain, bytes)?;
            }
        }
        Ok(())
    }
}

/// Read-only view of a lane's socket for the control core.
#[derive(Debug)]
pub struct UdpMonitor(OwnedFd);

impl UdpMonitor {
    /// Watches `socket`, from a descriptor of its own.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be duplicated.
    pub fn new(socket: &UdpSocket) -> io::Result<Self> {
        socket.as_fd().try_clone_to_owned().map(Self)
    }

    /// Datagrams lost since the receive buffer was full; wraps at 2^32.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn drops(&self) -> io::Result<u32> {
        sockopt::receive_drops(self.0.as_fd())
    }
}
