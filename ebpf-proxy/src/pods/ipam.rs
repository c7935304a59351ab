//! Which pod has which address: pure choice, and a file that is written before the choice is used.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cni::wire::{Attachment, PortMapping};

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// The API has not said which network is this node's.
    #[error("this node has no pod network yet (spec.podCIDR)")]
    NoNetwork,
    /// All are taken.
    #[error("no address is free in {0}")]
    Full(Cidr),
    /// The file can't be read or written.
    #[error("can't keep addresses in {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// Its first address.
    pub address: Ipv4Addr,
    /// The bits of its prefix, at most 32.
    pub length: u8,
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is no IPv4 network");
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let (address, length): (Ipv4Addr, u8) =
            (address.parse().map_err(|_| invalid())?, length.parse().map_err(|_| invalid())?);
        if length > 32 {
            return Err(invalid());
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Ok(Self { address: (address.to_bits() & mask).into(), length })
    }
}

impl Cidr {
    /// The addresses that pods may have: all but the network's and the broadcast's own.
    fn hosts(self) -> std::ops::Range<u32> {
        let first = self.address.to_bits();
        let last = first | u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
        first.saturating_add(1)..last
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// The address that was given last: the next one is after it, so that one isn't used again at once.
    last: Option<Ipv4Addr>,
    addresses: Vec<(Attachment, Ipv4Addr)>,
    /// Of those that have any.
    #[serde(default)]
    ports: Vec<(Attachment, Vec<PortMapping>)>,
}

/// The addresses of this node's pods, and the node's ports that lead to them.
pub(super) struct Ipam {
    file: PathBuf,
    network: Option<Cidr>,
    last: Option<Ipv4Addr>,
    addresses: BTreeMap<Attachment, Ipv4Addr>,
    ports: BTreeMap<Attachment, Vec<PortMapping>>,
}

impl Ipam {
    pub(super) fn open(state_dir: &Path) -> Result<Self, IpamError> {
        let file = state_dir.join("addresses.json");
        let failed = |source| IpamError::File { path: file.clone(), source };
        std::fs::create_dir_all(state_dir).map_err(failed)?;
        let kept: Kept = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(failed(error)),
        };
        let (addresses, ports) = (kept.addresses.into_iter().collect(), kept.ports.into_iter().collect());
        Ok(Self { file, network: None, last: kept.last, addresses, ports })
    }

    pub(super) fn set_network(&mut self, network: Cidr) {
        self.network = Some(network);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.network.is_some()
    }

    pub(super) fn get(&self, attachment: &Attachment) -> Option<Ipv4Addr> {
        self.addresses.get(attachment).copied()
    }

    pub(super) fn attachments(&self) -> Vec<Attachment> {
        self.addresses.keys().cloned().collect()
    }

    /// The node's ports, each with the address that it leads to.
    pub(super) fn ports(&self) -> impl Iterator<Item = (&PortMapping, Ipv4Addr)> {
        let owned = self.ports.iter().filter_map(|(attachment, ports)| Some((ports, self.get(attachment)?)));
        owned.flat_map(|(ports, address)| ports.iter().map(move |port| (port, address)))
    }

    pub(super) fn allocate(&mut self, attachment: &Attachment, ports: Vec<PortMapping>) -> Result<Ipv4Addr, IpamError> {
        if let Some(address) = self.get(attachment) {
            return Ok(address);
        }
        let network = self.network.ok_or(IpamError::NoNetwork)?;
        let taken: BTreeSet<Ipv4Addr> = self.addresses.values().copied().collect();
        let address = choose(network, self.last, &taken).ok_or(IpamError::Full(network))?;
        self.addresses.insert(attachment.clone(), address);
        if !ports.is_empty() {
            self.ports.insert(attachment.clone(), ports);
        }
        let before = self.last.replace(address);
        self.write().inspect_err(|_| {
            self.addresses.remove(attachment);
            self.ports.remove(attachment);
            self.last = before;
        })?;
        Ok(address)
    }

    pub(super) fn release(&mut self, attachment: &Attachment) -> Result<(), IpamError> {
        let Some(address) = self.addresses.remove(attachment) else { return Ok(()) };
        let ports = self.ports.remove(attachment);
        self.write().inspect_err(|_| {
            self.addresses.insert(attachment.clone(), address);
            self.ports.extend(ports.map(|ports| (attachment.clone(), ports)));
        })
    }

    /// The whole file anew, and moved over the old one: a crash leaves one of the two.
    fn write(&self) -> Result<(), IpamError> {
        let failed = |source| IpamError::File { path: self.file.clone(), source };
        let addresses = self.addresses.iter().map(|(attachment, address)| (attachment.clone(), *address)).collect();
        let ports = self.ports.iter().map(|(attachment, ports)| (attachment.clone(), ports.clone())).collect();
        let bytes =
            serde_json::to_vec(&Kept { last: self.last, addresses, ports }).map_err(|error| failed(error.into()))?;
        let fresh = self.file.with_extension("new");
        let mut file = std::fs::File::create(&fresh).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&fresh, &self.file).map_err(failed)
    }
}

fn choose(network: Cidr, last: Option<Ipv4Addr>, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let hosts = network.hosts();
    let next = last
        .map_or(hosts.start, |last| last.to_bits().saturating_add(1))
        .clamp(hosts.start, hosts.end.max(hosts.start));
    (next..hosts.end).chain(hosts.start..next).map(Ipv4Addr::from).find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(id: &str) -> Attachment {
        Attachment { container_id: id.to_owned(), ifname: "eth0".to_owned() }
    }

    fn ports() -> Vec<PortMapping> {
        let protocol = "tcp".to_owned();
        vec![PortMapping { host_port: 8080, container_port: 80, protocol, host_ip: String::new() }]
    }

    #[test]
    fn an_address_survives_a_restart_and_is_not_used_again_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let network = "10.244.1.9/29".parse().expect("a network");
        let mut ipam = Ipam::open(folder.path()).expect("opened");
        assert!(matches!(ipam.allocate(&attachment("a"), ports()), Err(IpamError::NoNetwork)));
        ipam.set_network(network);
        let first = ipam.allocate(&attachment("a"), ports()).expect("free");
        assert_eq!(first, Ipv4Addr::new(10, 244, 1, 9));
        let mut ipam = Ipam::open(folder.path()).expect("opened");
        ipam.set_network(network);
        assert_eq!(ipam.allocate(&attachment("a"), ports()).expect("kept"), first);
        assert_eq!(ipam.ports().map(|(port, to)| (port.host_port, to)).collect::<Vec<_>>(), [(8080, first)]);
        ipam.release(&attachment("a")).expect("released");
        assert_eq!(ipam.ports().count(), 0);
        for (id, last) in [("b", 10), ("c", 11), ("d", 12), ("e", 13), ("f", 14), ("g", 9)] {
            assert_eq!(ipam.allocate(&attachment(id), Vec::new()).expect("free"), Ipv4Addr::new(10, 244, 1, last));
        }
        assert!(matches!(ipam.allocate(&attachment("h"), Vec::new()), Err(IpamError::Full(_))));
    }

    #[test]
    fn a_network_without_room_gives_nothing() {
        for text in ["10.0.0.0/31", "10.0.0.0/32", "255.255.255.255/32"] {
            assert_eq!(choose(text.parse().expect("a network"), None, &BTreeSet::new()), None, "{text}");
        }
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
    }
}
