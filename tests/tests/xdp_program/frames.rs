//! Frames for the kernel half, every field at hand to be set wrong.

use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::wire::MAGIC;

/// The port that is ours in these tests.
pub const PORT: u16 = 4_747;

/// Largest payload in these tests.
pub const PAYLOAD_BYTES_MAX: usize = 1_232;

/// The network header.
#[derive(Clone, Debug)]
pub enum Ip {
    V4 {
        source: [u8; 4],
        /// Length in 4-byte words, as in the header; options are added from 6 on.
        ihl: u8,
        /// Flags and offset, as in the header.
        fragment: u16,
        protocol: u8,
        version: u8,
    },
    V6 {
        source: [u8; 16],
        version: u8,
        /// Number of each extension header and its bytes from the second on.
        extensions: Vec<(u8, Vec<u8>)>,
    },
}

/// A frame to be.
#[derive(Clone, Debug)]
pub struct Frame {
    pub mac: [u8; 6],
    /// Ethertypes of VLAN tags, outermost first.
    pub tags: Vec<u16>,
    pub ip: Ip,
    /// Instead of the right ethertype.
    pub ethertype: Option<u16>,
    pub source_port: u16,
    pub port: u16,
    pub payload: Vec<u8>,
    /// Instead of the right UDP length.
    pub udp_bytes: Option<u16>,
    /// Instead of the right length in the IP header.
    pub ip_bytes: Option<u16>,
}

pub fn payload(bytes: usize) -> Vec<u8> {
    let mut out: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
    for (to, from) in out.iter_mut().zip(MAGIC) {
        *to = from;
    }
    out
}

pub const SOURCE_V4: [u8; 4] = [192, 0, 2, 7];
pub const SOURCE_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];

impl Frame {
    pub fn v4() -> Self {
        let ip = Ip::V4 { source: SOURCE_V4, ihl: 5, fragment: 0x4000, protocol: 17, version: 4 };
        Self::new(ip)
    }

    pub fn v6() -> Self {
        Self::new(Ip::V6 { source: SOURCE_V6, version: 6, extensions: Vec::new() })
    }

    fn new(ip: Ip) -> Self {
        Self {
            mac: [0x02, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            ip,
            ethertype: None,
            source_port: 40_000,
            port: PORT,
            payload: payload(HEADER_BYTES + 48),
            udp_bytes: None,
            ip_bytes: None,
        }
    }

    /// Changes something of it.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn from_v4(address: [u8; 4]) -> Self {
        Self::v4().with(|f| {
            if let Ip::V4 { source, .. } = &mut f.ip {
                *source = address;
            }
        })
    }

    pub fn from_v6(address: std::net::Ipv6Addr) -> Self {
        Self::v6().with(|f| {
            if let Ip::V6 { source, .. } = &mut f.ip {
                *source = address.octets();
            }
        })
    }

    pub fn extensions(list: &[(u8, &[u8])]) -> Self {
        Self::v6().with(|f| {
            if let Ip::V6 { extensions, .. } = &mut f.ip {
                *extensions = list.iter().map(|(kind, rest)| (*kind, rest.to_vec())).collect();
            }
        })
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.mac.to_vec();
        out.extend([0x02, 0, 0, 0, 0, 2]);
        for tag in &self.tags {
            out.extend(tag.to_be_bytes());
            out.extend([0, 5]);
        }
        let udp_bytes = 8 + self.payload.len();
        match &self.ip {
            Ip::V4 { source, ihl, fragment, protocol, version } => {
                out.extend(self.ethertype.unwrap_or(0x0800).to_be_bytes());
                let header_bytes = usize::from(*ihl).max(5) * 4;
                let total = self.ip_bytes.unwrap_or((header_bytes + udp_bytes) as u16);
                let start = out.len();
                out.extend([version << 4 | ihl, 0]);
                out.extend(total.to_be_bytes());
                out.extend([0, 1]);
                out.extend(fragment.to_be_bytes());
                out.extend([64, *protocol, 0, 0]);
                out.extend(source);
                out.extend([192, 0, 2, 1]);
                out.resize(start + header_bytes, 1);
            }
            Ip::V6 { source, version, extensions } => {
                out.extend(self.ethertype.unwrap_or(0x86dd).to_be_bytes());
                let kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).chain([17]).collect();
                let extension_bytes: usize =
                    extensions.iter().map(|(_, rest)| 1 + rest.len()).sum();
                let length = self.ip_bytes.unwrap_or((extension_bytes + udp_bytes) as u16);
                out.extend([version << 4, 0, 0, 0]);
                out.extend(length.to_be_bytes());
                out.extend([kinds[0], 64]);
                out.extend(source);
                out.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
                for ((_, rest), next) in extensions.iter().zip(&kinds[1..]) {
                    out.push(*next);
                    out.extend(rest);
                }
            }
        }
        out.extend(self.source_port.to_be_bytes());
        out.extend(self.port.to_be_bytes());
        out.extend(self.udp_bytes.unwrap_or(udp_bytes as u16).to_be_bytes());
        out.extend([0, 0]);
        out.extend(&self.payload);
        out
    }
}
