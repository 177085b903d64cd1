//! Which XDP program the kernel says is attached to an interface, and in which
//! mode: asked by netlink, in the network namespace of the calling thread.
//!
//! A bpf link does not tell its mode, and a request for one mode is no proof
//! that it was granted; this is.

use std::io::{self, Read};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Longest interface name, bytes (`IFNAMSIZ` with its NUL is 16).
const NAME_BYTES_MAX: usize = 15;

/// A reply is one datagram; an interface with many virtual functions has tens
/// of kilobytes, and the kernel never builds one above this.
const REPLY_BYTES_MAX: usize = 256 * 1024;

/// The kernel answers within the send call; a lost answer must not hang a start.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(2);

const NETLINK_HEADER_BYTES: usize = 16;
const IFINFO_BYTES: usize = 16;

// Attribute numbers of <linux/if_link.h>.
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// No program.
    None,
    /// In the driver, before a socket buffer is made.
    Driver,
    /// In the kernel's generic path: works on every driver, slowly.
    Generic,
    /// On the NIC itself.
    Hardware,
    /// Several programs in different modes.
    Several,
}

impl AttachedMode {
    /// The word in `status`, JSON and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Driver => "driver",
            Self::Generic => "generic",
            Self::Hardware => "hardware",
            Self::Several => "several",
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Driver,
            2 => Self::Generic,
            3 => Self::Hardware,
            4 => Self::Several,
            _ => return None,
        })
    }
}

/// What is attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Index of the interface in this namespace.
    pub index: u32,
    /// The mode.
    pub mode: AttachedMode,
    /// Ids of the programs, without doubles; empty when there is none.
    pub programs: Vec<u32>,
}

impl Attached {
    /// Asks the kernel about `interface`.
    ///
    /// # Errors
    ///
    /// What the kernel answers: `ENODEV` for an interface that is not there.
    pub fn read(interface: &str) -> io::Result<Self> {
        let request = request(interface)?;
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        socket.set_read_timeout(Some(REPLY_WAIT_MAX))?;
        socket.send(&request)?;
        let mut reply = vec![0; REPLY_BYTES_MAX];
        let bytes = (&socket).read(&mut reply)?;
        parse(&reply[..bytes])
    }
}

/// An `RTM_GETLINK` for one interface by name.
fn request(interface: &str) -> io::Result<Vec<u8>> {
    let name = interface.as_bytes();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let attribute_bytes = 4 + name.len() + 1;
    let bytes = NETLINK_HEADER_BYTES + IFINFO_BYTES + attribute_bytes.next_multiple_of(4);
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&(bytes as u32).to_ne_bytes());
    out.extend_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    out.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    out.resize(NETLINK_HEADER_BYTES + IFINFO_BYTES, 0);
    out.extend_from_slice(&(attribute_bytes as u16).to_ne_bytes());
    out.extend_from_slice(&libc::IFLA_IFNAME.to_ne_bytes());
    out.extend_from_slice(name);
    out.resize(bytes, 0);
    Ok(out)
}

fn parse(reply: &[u8]) -> io::Result<Attached> {
    let cut_short = || io::Error::new(io::ErrorKind::InvalidData, "netlink reply cut short");
    let kind = u16_at(reply, 4).ok_or_else(cut_short)?;
    let body = reply.get(NETLINK_HEADER_BYTES..).ok_or_else(cut_short)?;
    if i32::from(kind) == libc::NLMSG_ERROR {
        let errno = u32_at(body, 0).ok_or_else(cut_short)? as i32;
        return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
    }
    if kind != libc::RTM_NEWLINK {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("netlink message type {kind} where RTM_NEWLINK was asked for"),
        ));
    }
    let index = u32_at(body, 4).ok_or_else(cut_short)?;
    let mut attached = Attached { index, mode: AttachedMode::None, programs: Vec::new() };
    let attributes = body.get(IFINFO_BYTES..).ok_or_else(cut_short)?;
    let Some(xdp) = Attributes(attributes).find(|(kind, _)| *kind == IFLA_XDP) else {
        return Ok(attached);
    };
    for (kind, value) in Attributes(xdp.1) {
        match kind {
            IFLA_XDP_ATTACHED => {
                let code = value.first().copied().ok_or_else(cut_short)?;
                attached.mode = AttachedMode::from_code(code).ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("XDP attach mode {code}, which is newer than this program"),
                    )
                })?;
            }
            IFLA_XDP_PROG_ID | IFLA_XDP_DRV_PROG_ID | IFLA_XDP_SKB_PROG_ID
            | IFLA_XDP_HW_PROG_ID => {
                let id = u32_at(value, 0).ok_or_else(cut_short)?;
                if id != 0 && !attached.programs.contains(&id) {
                    attached.programs.push(id);
                }
            }
            _ => {}
        }
    }
    Ok(attached)
}

/// Netlink attributes: length, kind, value, padded to 4 bytes. Ends at the
/// first that does not fit.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = usize::from(u16_at(self.0, 0)?);
        // The two top bits are flags.
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..bytes)?;
        self.0 = self.0.get(bytes.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn reply(attributes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; NETLINK_HEADER_BYTES + IFINFO_BYTES];
        out[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        out[20..24].copy_from_slice(&7u32.to_ne_bytes());
        out.extend_from_slice(attributes);
        out
    }

    #[test]
    fn a_driver_program_is_read_with_its_id() {
        let mut xdp = attribute(IFLA_XDP_ATTACHED, &[1]);
        xdp.extend(attribute(IFLA_XDP_PROG_ID, &42u32.to_ne_bytes()));
        xdp.extend(attribute(IFLA_XDP_DRV_PROG_ID, &42u32.to_ne_bytes()));
        let mut all = attribute(libc::IFLA_IFNAME, b"v0\0");
        all.extend(attribute(IFLA_XDP | 0x8000, &xdp));
        let attached = parse(&reply(&all)).unwrap();
        assert_eq!(attached, Attached { index: 7, mode: AttachedMode::Driver, programs: vec![42] });
    }

    #[test]
    fn no_truncation_of_a_reply_panics() {
        let mut xdp = attribute(IFLA_XDP_ATTACHED, &[2]);
        xdp.extend(attribute(IFLA_XDP_SKB_PROG_ID, &42u32.to_ne_bytes()));
        let whole = reply(&attribute(IFLA_XDP, &xdp));
        for bytes in 0..whole.len() {
            let _ = parse(&whole[..bytes]);
        }
    }

    #[test]
    fn the_loopback_can_be_asked_and_nonsense_is_refused() {
        assert_eq!(Attached::read("lo").unwrap().index, 1);
        for name in ["", "no-such-interface-name", "nosuchif0"] {
            let error = Attached::read(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}: {error}");
        }
    }
}
