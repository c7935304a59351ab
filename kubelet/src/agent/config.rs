//! What a kubelet is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::node::Thresholds;

/// The flags of `skep-kubelet run`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How the API is reached, and as whom: `system:node:<name>` of the group `system:nodes`.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// The Node's name; the host's by default.
    #[arg(long)]
    pub node_name: Option<String>,
    /// The node's addresses, the first being the primary one.
    #[arg(long = "node-ip", required = true)]
    pub node_ips: Vec<IpAddr>,
    /// containerd's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    pub containerd_socket: PathBuf,
    /// containerd's snapshotter.
    #[arg(long, default_value = "overlayfs")]
    pub snapshotter: String,
    /// Pods' volumes and files, and the kubelet's own keys.
    #[arg(long, default_value = "/var/lib/skep/kubelet")]
    pub root_dir: PathBuf,
    /// Pods' namespaces; what need not outlive a reboot.
    #[arg(long, default_value = "/run/skep/kubelet")]
    pub run_dir: PathBuf,
    /// Containers' logs.
    #[arg(long, default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Network configurations, the first by name being used.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// CNI plugins.
    #[arg(long = "cni-bin-dir", default_value = "/opt/cni/bin")]
    pub cni_bin_dirs: Vec<PathBuf>,
    /// The node's cgroup, below which pods' cgroups are made.
    #[arg(long, default_value = "/")]
    pub cgroup_root: PathBuf,
    /// Name servers of pods with `dnsPolicy: ClusterFirst`.
    #[arg(long = "cluster-dns")]
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The node's own resolver configuration, which pods with `dnsPolicy: Default` get.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Where logs, exec, attach and port-forward are served.
    #[arg(long, default_value = "0.0.0.0:10250")]
    pub listen: SocketAddr,
    /// The serving certificate; one is made, signed by itself, when none is named.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The serving certificate's key.
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Clients whose certificate this authority signed are who it says.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Labels that the Node is registered with, as `name=value`.
    #[arg(long, value_delimiter = ',', value_parser = label)]
    pub node_labels: Vec<(String, String)>,
    /// The most pods on the node.
    #[arg(long, default_value_t = 110)]
    pub max_pods: u32,
    /// When the node is under pressure, as `memory.available<100Mi,nodefs.available<10%`; upstream's thresholds by default.
    #[arg(long, value_parser = thresholds)]
    pub eviction_hard: Option<Thresholds>,
    /// Percent of the images' disk in use from which on unused images are removed; 100 is never.
    #[arg(long, default_value_t = 85, value_parser = clap::value_parser!(u8).range(..=100))]
    pub image_gc_high_threshold: u8,
    /// Percent of the images' disk in use down to which they are removed.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(..=100))]
    pub image_gc_low_threshold: u8,
    /// The size at which a container's log is put aside, in bytes.
    #[arg(long, default_value_t = 10 << 20)]
    pub container_log_max_size: u64,
    /// How many files of a container's log are kept.
    #[arg(long, default_value_t = 5)]
    pub container_log_max_files: usize,
}

fn thresholds(text: &str) -> Result<Thresholds, String> {
    Thresholds::parse(text).map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form name=value")),
    }
}
