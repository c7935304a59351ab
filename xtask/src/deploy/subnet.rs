//! IPv4 networks: which addresses the machine and the nodes have, and which range is free. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nodes are numbered from 1, and have this number's next addresses of their network; those below are for the machine.
const FIRST_NODE: u32 = 10;

/// An IPv4 network, as `172.30.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// A network by its first address and the length of its prefix.
    pub(crate) const fn new([a, b, c, d]: [u8; 4], prefix: u8) -> Self {
        Self { address: Ipv4Addr::new(a, b, c, d), prefix }
    }

    /// The length of the prefix.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The machine's address in it: the first.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() + 1)
    }

    /// The address of a node by its number from 1; none where the network is too small.
    pub(crate) fn node(self, number: u8) -> Option<Ipv4Addr> {
        let offset = FIRST_NODE + u32::from(number);
        // The last address is for broadcasts.
        (offset < !self.mask()).then(|| Ipv4Addr::from_bits(self.address.to_bits() + offset))
    }

    /// Whether two networks have an address in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.address.to_bits() & mask == other.address.to_bits() & mask
    }

    /// The first of some private /24 networks that overlaps none of those that are taken.
    pub(crate) fn choose(taken: &[Self]) -> Option<Self> {
        let candidates =
            [[172, 30], [172, 31], [10, 213]].into_iter().flat_map(|[a, b]| (0..=255).map(move |c| [a, b, c, 0]));
        candidates.map(|address| Self::new(address, 24)).find(|one| !taken.iter().any(|other| other.overlaps(*one)))
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: a network such as 172.30.0.0/24");
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let subnet = Self {
            address: address.parse().map_err(|_| wrong())?,
            prefix: prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(wrong)?,
        };
        if subnet.address.to_bits() & !subnet.mask() != 0 {
            return Err(format!("{text}: the address has bits beyond the prefix"));
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a network")
    }

    #[test]
    fn the_machine_has_the_first_address_and_nodes_follow() {
        let network = subnet("172.30.0.0/24");
        assert_eq!(network.gateway().to_string(), "172.30.0.1");
        assert_eq!(network.node(2).expect("room").to_string(), "172.30.0.12");
        assert_eq!(network.node(245), None);
        assert_eq!(subnet("172.30.0.0/28").node(5), None);
    }

    #[test]
    fn a_free_range_overlaps_nothing_that_is_taken() {
        assert_eq!(Subnet::choose(&[]), Some(subnet("172.30.0.0/24")));
        assert_eq!(Subnet::choose(&[subnet("172.30.0.7/32")]), Some(subnet("172.30.1.0/24")));
        assert_eq!(Subnet::choose(&[subnet("172.16.0.0/12")]), Some(subnet("10.213.0.0/24")));
        assert_eq!(Subnet::choose(&[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.1/24", "a/8", "10.0.0.0/"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
