//! Where everything of the upstream cluster is, and what it is called. Pure.
//!
//! All of it, the API server included, is in one network namespace: its packet filters, bridges and ports are no other cluster's,
//! and go with the namespace.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::deploy::subnet::Subnet;

/// The name of its network namespace, its cgroup and, with a number, its link. One cluster a machine.
pub(super) const NAME: &str = "rival";
/// The node's name.
pub(super) const NODE: &str = "rival-node";
/// The pods' network, within the namespace.
pub(super) const PODS: &str = "10.98.0.0/16";
/// The node's share of it.
pub(super) const NODE_PODS: &str = "10.98.0.0/24";
/// Services' addresses, within the namespace.
pub(super) const SERVICES: &str = "10.97.0.0/16";
/// The first of them.
pub(super) const KUBERNETES_SERVICE: &str = "10.97.0.1";
/// The one of the DNS service.
pub(super) const DNS: &str = "10.97.0.10";
/// The link's end in the namespace.
pub(super) const UPLINK: &str = "eth0";
/// The port of the API.
pub(super) const API_PORT: u16 = 6443;

/// An upstream cluster's names and places.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    data_dir: PathBuf,
    network: Subnet,
}

impl Layout {
    /// The cluster in a data directory, whose namespace and the machine share a network.
    pub(super) fn new(data_dir: &Path, network: Subnet) -> Self {
        Self { data_dir: data_dir.to_owned(), network }
    }

    /// Everything but the cgroup, the link and the namespace is in here.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A file or folder of the cluster.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    /// The same as text for a flag, behind its name.
    pub(super) fn flag(&self, flag: impl Display, name: &str) -> String {
        format!("{flag}={}", self.path(name).display())
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// The containerd's socket.
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.path("containerd/containerd.sock")
    }

    /// A process's log.
    pub(super) fn log(&self, process: &str) -> PathBuf {
        self.path("log").join(format!("{process}.log"))
    }

    /// The file that keeps the network namespace.
    pub(super) fn netns_file(&self) -> PathBuf {
        Path::new("/run/netns").join(NAME)
    }

    /// The machine's end of the link into the namespace.
    pub(super) fn link(&self) -> String {
        format!("{NAME}0")
    }

    /// The cgroup of all pods, absolute in every tree.
    pub(super) fn cgroup(&self) -> PathBuf {
        Path::new("/").join(NAME)
    }

    /// The machine's address on the link, with its prefix.
    pub(super) fn machine(&self) -> (Ipv4Addr, u8) {
        (self.network.gateway(), self.network.prefix())
    }

    /// The node's address: the last but one of a network of four, and in a larger one the next after the machine's.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.gateway().to_bits() + 1)
    }

    /// Where the API is served.
    pub(crate) fn api(&self) -> SocketAddr {
        SocketAddr::from((self.address(), API_PORT))
    }
}

#[cfg(test)]
pub(super) fn example() -> Layout {
    Layout::new(Path::new("/data"), Subnet::new([172, 30, 0, 0], 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_beside_the_machine_in_their_network() {
        let layout = example();
        assert_eq!(layout.machine(), (Ipv4Addr::new(172, 30, 0, 1), 24));
        assert_eq!(layout.api().to_string(), "172.30.0.2:6443");
    }

    #[test]
    fn the_link_has_a_name_that_the_kernel_takes() {
        assert!(example().link().len() <= 15);
    }
}
