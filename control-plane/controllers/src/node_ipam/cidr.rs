//! Networks as address and prefix length, and their division into equal parts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: the address has no bits set beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not of the form `address/prefix`.
    #[error("{0:?} is not a network in CIDR notation")]
    Form(String),
    /// The prefix is longer than an address.
    #[error("{0:?} has a prefix that is longer than its address")]
    Prefix(String),
}

impl Cidr {
    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// How many parts of that prefix length it has; 0 if that is shorter than its own, and at most 2^16 (a bound on what is
    /// remembered: no cluster has more nodes).
    #[must_use]
    pub fn parts(&self, prefix: u8) -> u32 {
        match prefix.checked_sub(self.prefix) {
            Some(bits) if prefix <= self.width() => 1 << bits.min(16),
            _ => 0,
        }
    }

    /// The part with that number, of [`Cidr::parts`].
    #[must_use]
    pub fn part(&self, prefix: u8, index: u32) -> Option<Self> {
        if index >= self.parts(prefix) {
            return None;
        }
        let shift = self.width() - prefix;
        // A prefix of 0 has one part, number 0, and the shift by the whole width is not made.
        let offset = u128::from(index).checked_shl(shift.into()).unwrap_or(0);
        Some(self.at(self.bits() | offset, prefix))
    }

    /// The numbers of the parts of that prefix length that `other` lies in or covers.
    #[must_use]
    pub fn overlapping(&self, prefix: u8, other: &Self) -> Option<std::ops::RangeInclusive<u32>> {
        let parts = self.parts(prefix);
        if parts == 0 || self.is_ipv4() != other.is_ipv4() {
            return None;
        }
        let shared = self.prefix.min(other.prefix);
        if self.masked(shared) != other.masked(shared) {
            return None;
        }
        if other.prefix <= self.prefix {
            return Some(0..=parts - 1);
        }
        let shift = u32::from(self.width() - prefix);
        let number = |bits: u128| u32::try_from((bits ^ self.bits()).checked_shr(shift).unwrap_or(0)).ok();
        let first = number(other.bits())?;
        let last = number(other.last())?;
        (first < parts).then(|| first..=last.min(parts - 1))
    }

    fn width(&self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    fn bits(&self) -> u128 {
        match self.address {
            IpAddr::V4(address) => u32::from(address).into(),
            IpAddr::V6(address) => address.into(),
        }
    }

    fn host_mask(&self, prefix: u8) -> u128 {
        let host_bits = u32::from(self.width() - prefix);
        1u128.checked_shl(host_bits).map_or(u128::MAX, |value| value - 1)
    }

    fn masked(&self, prefix: u8) -> u128 {
        self.bits() & !self.host_mask(prefix)
    }

    fn last(&self) -> u128 {
        self.bits() | self.host_mask(self.prefix)
    }

    fn at(&self, bits: u128, prefix: u8) -> Self {
        let address = if self.is_ipv4() {
            // An IPv4 network's bits are within 32: they come from a u32 and an offset below its width.
            IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)))
        } else {
            IpAddr::V6(Ipv6Addr::from(bits))
        };
        Self { address, prefix }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let form = || CidrError::Form(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let prefix: u8 = prefix.parse().map_err(|_| form())?;
        let whole = Self { address, prefix: 0 };
        if prefix > whole.width() {
            return Err(CidrError::Prefix(text.to_owned()));
        }
        Ok(whole.at(whole.masked(prefix), prefix))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a network")
    }

    #[test]
    fn a_network_is_divided_into_equal_parts() {
        let cluster = cidr("10.244.0.0/16");
        assert_eq!(cluster.parts(24), 256);
        assert_eq!(cluster.part(24, 0), Some(cidr("10.244.0.0/24")));
        assert_eq!(cluster.part(24, 255), Some(cidr("10.244.255.0/24")));
        assert_eq!(cluster.part(24, 256), None);
        assert_eq!(cluster.parts(8), 0);
        assert_eq!(cidr("fd00::/48").part(64, 5), Some(cidr("fd00:0:0:5::/64")));
        assert_eq!(cidr("0.0.0.0/0").part(0, 0), Some(cidr("0.0.0.0/0")));
    }

    #[test]
    fn a_part_knows_its_number_and_a_foreign_network_none() {
        let cluster = cidr("10.244.0.0/16");
        assert_eq!(cluster.overlapping(24, &cidr("10.244.7.0/24")), Some(7..=7));
        assert_eq!(cluster.overlapping(24, &cidr("10.244.4.0/22")), Some(4..=7));
        assert_eq!(cluster.overlapping(24, &cidr("10.244.9.128/25")), Some(9..=9));
        assert_eq!(cluster.overlapping(24, &cidr("10.0.0.0/8")), Some(0..=255));
        assert_eq!(cluster.overlapping(24, &cidr("192.168.0.0/24")), None);
        assert_eq!(cluster.overlapping(24, &cidr("fd00::/64")), None);
    }

    #[test]
    fn host_bits_are_cleared_and_nonsense_is_refused() {
        assert_eq!(cidr("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert!("10.0.0.0".parse::<Cidr>().is_err() && "10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("x/8".parse::<Cidr>().is_err() && "10.0.0.0/-1".parse::<Cidr>().is_err());
    }
}
