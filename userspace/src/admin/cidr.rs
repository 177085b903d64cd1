//! IP prefixes, as an operator writes them and the blocklist keeps them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A prefix: no bit is set behind its length, and it is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix_bits: u8,
}

impl Cidr {
    /// The prefix of `prefix_bits` that begins with `address`.
    ///
    /// # Errors
    ///
    /// A length that the family does not have, bits set behind it, the empty
    /// prefix (it would block every sender), an IPv4 address in IPv6 clothes
    /// (no packet carries one).
    pub fn new(address: IpAddr, prefix_bits: u8) -> Result<Self, String> {
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        if prefix_bits > bits_max {
            return Err(format!("`{address}/{prefix_bits}`: wanted a length of 1 to {bits_max}"));
        }
        if prefix_bits == 0 {
            return Err(format!(
                "`{address}/0` holds every sender; to serve nobody, stop the server instead"
            ));
        }
        if let IpAddr::V6(v6) = address
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return Err(format!("`{address}` is an IPv4 address: wanted `{v4}`"));
        }
        let network = network_of(address, prefix_bits);
        if network != address {
            return Err(format!(
                "`{address}/{prefix_bits}` has bits set behind its length: wanted \
                 `{network}/{prefix_bits}` for the whole network, or `{address}/{bits_max}` for this address alone"
            ));
        }
        Ok(Self { address, prefix_bits })
    }

    /// First address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Bits that must match.
    #[must_use]
    pub const fn prefix_bits(self) -> u8 {
        self.prefix_bits
    }
}

fn network_of(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX << (32 - u32::from(prefix_bits));
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (128 - u32::from(prefix_bits));
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// An address alone is that address only.
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!("found `{text}`, wanted an address or prefix, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32")
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wanted())?;
        let bits = match bits {
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().map_err(|_| wanted())?
            }
            Some(_) => return Err(wanted()),
            None if address.is_ipv4() => 32,
            None => 128,
        };
        Self::new(address, bits)
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_and_single_addresses() {
        for (text, shown) in [
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.7", "203.0.113.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("128.0.0.0/1", "128.0.0.0/1"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_refused_says_what_was_wanted() {
        for (text, wanted) in [
            ("203.0.113.7/24", "203.0.113.0/24"),
            ("203.0.113.0/33", "1 to 32"),
            ("2001:db8::/129", "1 to 128"),
            ("0.0.0.0/0", "every sender"),
            ("::/0", "every sender"),
            ("::ffff:1.2.3.4/128", "wanted `1.2.3.4`"),
            ("host", "wanted an address or prefix"),
            ("1.2.3.4/", "wanted an address or prefix"),
            ("1.2.3.4/+8", "wanted an address or prefix"),
            ("1.2.3.4/999", "wanted an address or prefix"),
            ("", "wanted an address or prefix"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn the_network_of_any_address_is_accepted_and_read_back(bits in any::<u128>(), prefix in 1..=128u8) {
            let v6 = network_of(Ipv6Addr::from_bits(bits | 1 << 127).into(), prefix);
            let cidr = Cidr::new(v6, prefix).unwrap();
            prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<Cidr>();
        }
    }
}
