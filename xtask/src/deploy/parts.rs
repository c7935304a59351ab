//! The processes of a cluster, and the words that they are started with. Pure.

use std::ffi::OsString;
use std::path::Path;

use serde_json::json;

use super::layout::{Layout, Node};

/// Where pods find the cluster's DNS: an address of the link itself, so that each node's own agent answers.
const DNS: &str = "169.254.20.10";
const DNS_DOMAIN: &str = "cluster.local";
/// The nodes share the machine's disk and memory with everything else on it: they are under pressure when the machine is
/// nearly out of them, not at a node's own share.
const EVICTION: &str = "memory.available<100Mi,nodefs.available<1Gi,imagefs.available<1Gi";
/// The node's end of its uplink.
pub(crate) const UPLINK: &str = "eth0";

/// A process that a deployment starts and keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// API server, scheduler and controllers.
    ControlPlane,
    /// The container runtime of all nodes.
    Containerd,
    /// The registry that has the suite's images, where they were asked for.
    Registry,
    /// A node's network agent.
    NetworkAgent(Node),
    /// A node's kubelet.
    Kubelet(Node),
}

impl Part {
    /// Every part of a cluster, in the order of their start.
    pub(crate) fn all(layout: &Layout) -> Vec<Self> {
        let mut parts = vec![Self::ControlPlane, Self::Containerd, Self::Registry];
        for node in layout.nodes() {
            parts.extend([Self::NetworkAgent(node.clone()), Self::Kubelet(node)]);
        }
        parts
    }

    /// What people and log files call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::ControlPlane => "skep-control-plane".to_owned(),
            Self::Containerd => "containerd".to_owned(),
            Self::Registry => "registry".to_owned(),
            Self::NetworkAgent(node) => format!("{}-ebpf-proxy", node.name),
            Self::Kubelet(node) => format!("{}-kubelet", node.name),
        }
    }

    /// The program and its arguments.
    pub(crate) fn command(&self, layout: &Layout, trees: &Trees) -> Vec<OsString> {
        match self {
            Self::ControlPlane => control_plane(layout),
            Self::Containerd => words(["containerd", "--config"]).and(layout.containerd_config()).done(),
            Self::Registry => words(["docker-registry", "serve"]).and(layout.registry_config()).done(),
            Self::NetworkAgent(node) => network_agent(layout, node, trees),
            Self::Kubelet(node) => kubelet(layout, node),
        }
    }

    /// Whether a process with this executable and these arguments is this part. Pids are used again and pid files get
    /// lost; what a process was started with is known by the kernel as long as it lives.
    pub(crate) fn is(&self, layout: &Layout, executable: &Path, arguments: &[String]) -> bool {
        let has = |value: &Path| arguments.iter().any(|argument| Path::new(argument) == value);
        let of = |binary: &str, node: &Node| {
            is_binary(executable, &layout.binary(binary))
                && arguments.iter().any(|argument| argument == "run")
                && arguments.windows(2).any(|pair| pair[0] == "--node-name" && pair[1] == node.name)
        };
        match self {
            Self::ControlPlane => {
                is_binary(executable, &layout.binary("skep-control-plane"))
                    && arguments.get(1).is_some_and(|word| word == "serve")
            }
            Self::Containerd => {
                executable.file_name().is_some_and(|name| name.to_string_lossy().starts_with("containerd"))
                    && has(&layout.containerd_config())
            }
            Self::Registry => {
                executable.file_name().is_some_and(|name| name.to_string_lossy().starts_with("docker-registry"))
                    && has(&layout.registry_config())
            }
            Self::NetworkAgent(node) => of("skep-ebpf-proxy", node),
            Self::Kubelet(node) => of("skep-kubelet", node),
        }
    }
}

/// Whether a process is the shim of a container of this cluster's containerd.
pub(crate) fn is_shim(layout: &Layout, arguments: &[String]) -> bool {
    // Both 1.x and 2.x name the socket that the shim reports to.
    let socket = layout.containerd_socket();
    arguments.first().is_some_and(|program| program.contains("containerd-shim-"))
        && arguments.iter().any(|argument| Path::new(argument.trim_end_matches(".ttrpc")) == socket)
}

/// `/proc/PID/exe` of a file that was replaced since has a note behind its name.
fn is_binary(executable: &Path, binary: &Path) -> bool {
    let shown = executable.to_string_lossy();
    Path::new(shown.trim_end_matches(" (deleted)")) == binary
}

/// Where the machine's cgroup trees are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trees {
    /// The mount of version 2, to which eBPF programs attach.
    pub(crate) unified: std::path::PathBuf,
}

fn control_plane(layout: &Layout) -> Vec<OsString> {
    let settings = &layout.settings;
    let mut command = words(["serve", "--data-dir"]).and(&layout.data_dir);
    command = command.and("--listen").and(settings.listen.to_string());
    let everywhere = settings.listen.ip().is_unspecified();
    if !everywhere {
        command = command.and("--listen").and(layout.api_for_nodes().to_string());
    }
    command
        .and("--advertise-address")
        .and(layout.gateway().to_string())
        .and("--service-cluster-ip-range")
        .and(settings.service_cidr.to_string())
        .and("--cluster-cidr")
        .and(settings.cluster_cidr.to_string())
        .of(layout.binary("skep-control-plane"))
}

fn network_agent(layout: &Layout, node: &Node, trees: &Trees) -> Vec<OsString> {
    let cgroup = node.cgroup.strip_prefix("/").unwrap_or(&node.cgroup);
    words(["--bpf-dir"])
        .and(layout.bpffs().join(&node.name))
        .and("run")
        .and("--kubeconfig")
        .and(node.agent_kubeconfig())
        .and("--node-name")
        .and(&node.name)
        .and("--node-ip")
        .and(node.address.to_string())
        .and("--cgroup")
        .and(trees.unified.join(cgroup))
        .and("--ebpf-object")
        .and(layout.ebpf_object())
        .and("--cni-socket")
        .and(node.cni_socket())
        .and("--pod-state-dir")
        .and(node.data.join("pods"))
        .and("--uplink")
        .and(UPLINK)
        .and("--dns-listen")
        .and(format!("{DNS}:53"))
        .and("--cluster-domain")
        .and(DNS_DOMAIN)
        .and("--cluster-cidr")
        .and(layout.settings.cluster_cidr.to_string())
        .within(node, layout.binary("skep-ebpf-proxy"))
}

fn kubelet(layout: &Layout, node: &Node) -> Vec<OsString> {
    let pki = node.pki();
    words(["run", "--kubeconfig"])
        .and(node.kubelet_kubeconfig())
        .and("--node-name")
        .and(&node.name)
        .and("--node-ip")
        .and(node.address.to_string())
        .and("--containerd-socket")
        .and(layout.containerd_socket())
        .and("--snapshotter")
        .and("overlayfs")
        .and("--root-dir")
        .and(node.data.join("kubelet"))
        .and("--run-dir")
        .and(node.run.join("pods"))
        .and("--pod-logs-dir")
        .and(node.data.join("pod-logs"))
        .and("--cni-conf-dir")
        .and(node.cni_conf_dir())
        .and("--cni-bin-dir")
        .and(layout.bin_dir())
        .and("--cgroup-root")
        .and(&node.cgroup)
        .and("--cluster-dns")
        .and(DNS)
        .and("--cluster-domain")
        .and(DNS_DOMAIN)
        .and("--listen")
        .and(format!("{}:10250", node.address))
        .and("--tls-cert-file")
        .and(pki.join("tls.crt"))
        .and("--tls-private-key-file")
        .and(pki.join("tls.key"))
        .and("--client-ca-file")
        .and(pki.join("ca.crt"))
        .and("--eviction-hard")
        .and(EVICTION)
        // Never: the nodes share one containerd, and what one does not use may be another's.
        .and("--image-gc-high-threshold")
        .and("100")
        .within(node, layout.binary("skep-kubelet"))
}

/// The CNI configuration of a node: our own plugin, which asks the node's agent.
pub(crate) fn cni_configuration(node: &Node) -> String {
    let plugin = json!({ "type": "skep-cni", "socket": node.cni_socket(), "capabilities": { "portMappings": true } });
    json!({ "cniVersion": "1.1.0", "name": "skep", "plugins": [plugin] }).to_string()
}

/// containerd's configuration: everything in the cluster's own folders, none of the machine's.
pub(crate) fn containerd_configuration(layout: &Layout) -> String {
    let text = |path: std::path::PathBuf| serde_json::Value::from(path.to_string_lossy()).to_string();
    let (root, state, socket) = (layout.containerd_root(), layout.containerd_state(), layout.containerd_socket());
    let opt = text(root.join("opt"));
    // The kubelet calls CNI itself, so that containerd finds no network of its own.
    let no_cni = text(layout.run_dir().join("containerd/no-cni"));
    let hosts = text(layout.containerd_hosts());
    let (root, state, socket) = (text(root), text(state), text(socket));
    format!(
        "version = 2\n\
         root = {root}\n\
         state = {state}\n\
         disabled_plugins = [\"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\", \
         \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n\
         \n\
         [grpc]\n\
         address = {socket}\n\
         \n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n\
         path = {opt}\n\
         \n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         disable_apparmor = true\n\
         restrict_oom_score_adj = true\n\
         \n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         bin_dir = {no_cni}\n\
         conf_dir = {no_cni}\n\
         \n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
         config_path = {hosts}\n\
         \n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
         snapshotter = \"overlayfs\"\n"
    )
}

struct Words(Vec<OsString>);

fn words<const N: usize>(first: [&str; N]) -> Words {
    Words(first.into_iter().map(OsString::from).collect())
}

impl Words {
    fn and(mut self, word: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.push(word.as_ref().to_owned());
        self
    }

    fn done(self) -> Vec<OsString> {
        self.0
    }

    /// As the arguments of a program.
    fn of(mut self, program: std::path::PathBuf) -> Vec<OsString> {
        self.0.insert(0, program.into_os_string());
        self.0
    }

    /// As the arguments of a program in a node's network namespace. `nsenter`, not `ip netns exec`: mounts that the
    /// kubelet makes must be containerd's as well.
    fn within(self, node: &Node, program: std::path::PathBuf) -> Vec<OsString> {
        let mut all =
            vec![OsString::from("nsenter"), format!("--net={}", node.netns_file().display()).into(), "--".into()];
        all.extend(self.of(program));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::settings::{Settings, Wishes};
    use crate::deploy::subnet::Subnet;

    fn layout() -> Layout {
        let free = || Ok(Subnet::new([172, 30, 0, 0], 24));
        Layout::new(Settings::resolve(None, &Wishes::default(), free).expect("settings"), Path::new("/data"))
    }

    fn started(layout: &Layout, part: &Part) -> (std::path::PathBuf, Vec<String>) {
        let trees = Trees { unified: "/sys/fs/cgroup".into() };
        let words = part.command(layout, &trees);
        let mut words: Vec<String> = words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
        // nsenter becomes the program that it starts.
        if words[0] == "nsenter" {
            words.drain(..3);
        }
        (words[0].clone().into(), words)
    }

    #[test]
    fn each_process_is_told_from_all_others_by_what_it_was_started_with() {
        let layout = layout();
        let parts = Part::all(&layout);
        for part in &parts {
            let (executable, arguments) = started(&layout, part);
            let found: Vec<&Part> = parts.iter().filter(|other| other.is(&layout, &executable, &arguments)).collect();
            assert_eq!(found, [part]);
        }
    }

    #[test]
    fn a_process_whose_file_was_replaced_is_still_known() {
        let layout = layout();
        let part = Part::Kubelet(layout.nodes().remove(0));
        let (executable, arguments) = started(&layout, &part);
        let replaced = format!("{} (deleted)", executable.display());
        assert!(part.is(&layout, Path::new(&replaced), &arguments));
    }

    #[test]
    fn a_log_driver_is_no_kubelet() {
        let layout = layout();
        let arguments =
            ["/data/bin/skep-kubelet", "log-driver", "1,2,/data/nodes/node-1/pod-logs/a"].map(str::to_owned);
        let executable = Path::new("/data/bin/skep-kubelet");
        assert!(Part::all(&layout).iter().all(|part| !part.is(&layout, executable, &arguments)));
    }

    #[test]
    fn only_the_shims_of_our_own_containerd_are_ours() {
        let layout = layout();
        let shim = |socket: &str| {
            ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-address", socket].map(str::to_owned)
        };
        assert!(is_shim(&layout, &shim("/run/skep/containerd/containerd.sock")));
        assert!(!is_shim(&layout, &shim("/run/containerd/containerd.sock")));
        assert!(!is_shim(&layout, &["vi", "/run/skep/containerd/containerd.sock"].map(str::to_owned)));
    }

    #[test]
    fn the_api_is_served_to_nodes_as_well_unless_it_is_served_everywhere() {
        let mut layout = layout();
        let count = |layout: &Layout| control_plane(layout).iter().filter(|word| *word == "--listen").count();
        assert_eq!(count(&layout), 2);
        layout.settings.listen = "0.0.0.0:6443".parse().expect("an address");
        assert_eq!(count(&layout), 1);
    }
}
