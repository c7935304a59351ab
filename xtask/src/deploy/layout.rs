//! Where everything of a cluster is, and what it is called. Pure: every other file here asks this one, so that what `up` makes is what `down` removes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::settings::Settings;

/// What of the data directory is ours; `cluster.json`, which leads to the rest, is the last to go.
pub(crate) const DATA_PARTS: [&str; 9] =
    ["pki", "store", "run", "log", "bin", "containerd", "nodes", "admin.kubeconfig", Settings::file()];

/// A cluster's names and places.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// What it was asked to be.
    pub(crate) settings: Settings,
    /// Its data, which outlives a restart of the machine.
    pub(crate) data_dir: PathBuf,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name in the cluster.
    pub(crate) name: String,
    /// Its number, from 1.
    pub(crate) number: u8,
    /// Its address in the nodes' network.
    pub(crate) address: Ipv4Addr,
    /// Its network namespace's name for `ip -n`.
    pub(crate) netns: String,
    /// Its uplink's end on the bridge; the other end is `eth0` in the node.
    pub(crate) port: String,
    /// Its cgroup, absolute in every tree.
    pub(crate) cgroup: PathBuf,
    /// Its data.
    pub(crate) data: PathBuf,
    /// Its sockets and mounts.
    pub(crate) run: PathBuf,
}

impl Layout {
    pub(crate) fn new(settings: Settings, data_dir: &Path) -> Self {
        Self { settings, data_dir: data_dir.to_owned() }
    }

    /// The cluster's name.
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Sockets, mounts and the container runtime's state: what a restart of the machine ends.
    pub(crate) fn run_dir(&self) -> PathBuf {
        Path::new("/run").join(self.name())
    }

    /// Names the data directory that a run directory belongs to.
    pub(crate) fn owner_file(&self) -> PathBuf {
        self.run_dir().join("data-dir")
    }

    /// The bridge that joins the nodes.
    pub(crate) fn bridge(&self) -> String {
        format!("{}0", self.name())
    }

    /// The cgroup above all nodes', absolute in every tree.
    pub(crate) fn cgroup(&self) -> PathBuf {
        Path::new("/").join(self.name())
    }

    /// The machine's address in the nodes' network.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.settings.node_network.gateway()
    }

    /// Where nodes find the API.
    pub(crate) fn api_for_nodes(&self) -> SocketAddr {
        SocketAddr::from((self.gateway(), self.settings.listen.port()))
    }

    /// A mounted bpffs of the cluster's own.
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.run_dir().join("bpf")
    }

    /// The cluster's own copies of its binaries: what runs does not change when the sources are built again.
    pub(crate) fn bin_dir(&self) -> PathBuf {
        self.data_dir.join("bin")
    }

    /// A binary's copy.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.bin_dir().join(name)
    }

    /// The eBPF programs' copy.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.bin_dir().join("skep-ebpf.o")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// The administrator's certificate as files.
    pub(crate) fn admin_dir(&self) -> PathBuf {
        self.run_dir().join("admin")
    }

    /// A process's log.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.data_dir.join("log").join(format!("{process}.log"))
    }

    /// containerd's images and snapshots.
    pub(crate) fn containerd_root(&self) -> PathBuf {
        self.data_dir.join("containerd")
    }

    /// containerd's state, which is about what runs.
    pub(crate) fn containerd_state(&self) -> PathBuf {
        self.run_dir().join("containerd/state")
    }

    /// containerd's configuration.
    pub(crate) fn containerd_config(&self) -> PathBuf {
        self.run_dir().join("containerd/config.toml")
    }

    /// containerd's socket.
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.run_dir().join("containerd/containerd.sock")
    }

    /// Where containerd looks for the mirrors of a registry, a folder a registry's name.
    pub(crate) fn containerd_hosts(&self) -> PathBuf {
        self.run_dir().join("containerd/hosts")
    }

    /// The configuration of the registry on the loopback.
    pub(crate) fn registry_config(&self) -> PathBuf {
        self.run_dir().join("registry/config.yml")
    }

    /// The nodes, by number.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        // The settings were checked to have an address for each.
        (1..=self.settings.nodes).filter_map(|number| self.node(number)).collect()
    }

    fn node(&self, number: u8) -> Option<Node> {
        let name = format!("node-{number}");
        Some(Node {
            address: self.settings.node_network.node(number)?,
            netns: format!("{}-{name}", self.name()),
            port: format!("{}-{number}", self.name()),
            cgroup: self.cgroup().join(&name),
            data: self.data_dir.join("nodes").join(&name),
            run: self.run_dir().join(&name),
            name,
            number,
        })
    }
}

impl Node {
    /// The file that keeps the network namespace.
    pub(crate) fn netns_file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.netns)
    }

    /// The kubelet's kubeconfig.
    pub(crate) fn kubelet_kubeconfig(&self) -> PathBuf {
        self.data.join("kubelet.kubeconfig")
    }

    /// The agent's kubeconfig.
    pub(crate) fn agent_kubeconfig(&self) -> PathBuf {
        self.data.join("network-agent.kubeconfig")
    }

    /// The kubelet's serving certificate, its key, and the cluster's authority.
    pub(crate) fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The CNI configuration that the kubelet reads.
    pub(crate) fn cni_conf_dir(&self) -> PathBuf {
        self.data.join("cni")
    }

    /// Where `skep-cni` finds the node's agent.
    pub(crate) fn cni_socket(&self) -> PathBuf {
        self.run.join("cni.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::settings::Wishes;
    use crate::deploy::subnet::Subnet;

    fn layout(name: &str) -> Layout {
        let wishes = Wishes { name: Some(name.to_owned()), nodes: Some(200), ..Wishes::default() };
        let settings = Settings::resolve(None, &wishes, || Ok(Subnet::new([172, 30, 0, 0], 24))).expect("settings");
        Layout::new(settings, Path::new("/data"))
    }

    #[test]
    fn names_of_links_are_short_enough_for_the_kernel_and_all_different() {
        let layout = layout("longesttt1");
        let mut names: Vec<String> = layout.nodes().into_iter().map(|node| node.port).collect();
        names.push(layout.bridge());
        assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn two_clusters_share_no_name() {
        let (one, other) = (layout("skep"), layout("skeptest"));
        assert_ne!(one.bridge(), other.bridge());
        assert_ne!(one.run_dir(), other.run_dir());
        assert!(one.nodes().iter().zip(other.nodes()).all(|(a, b)| a.netns != b.netns && a.cgroup != b.cgroup));
    }
}
