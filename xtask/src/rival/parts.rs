//! The upstream cluster's processes, and the words that they are started with. Pure.

use std::path::Path;

use super::layout::{KUBERNETES_SERVICE, Layout, NODE, PODS, SERVICES};

/// A process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Registry,
    Kubelet,
    Proxy,
}

impl Part {
    /// All of them, in the order of their start.
    pub(super) const ALL: [Self; 8] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Containerd,
        Self::Registry,
        Self::Kubelet,
        Self::Proxy,
    ];

    /// The program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Registry => "docker-registry",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }

    /// Its arguments; one of them names something in the data directory, by which [`Self::is`] knows it again.
    pub(super) fn arguments(self, layout: &Layout) -> Vec<String> {
        let kubeconfig = || layout.flag("--kubeconfig", "admin.kubeconfig");
        let fixed = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Etcd => {
                let mut words = fixed(&[
                    "--listen-client-urls=http://127.0.0.1:2379",
                    "--advertise-client-urls=http://127.0.0.1:2379",
                    "--listen-peer-urls=http://127.0.0.1:2380",
                ]);
                words.push(layout.flag("--data-dir", "etcd"));
                words
            }
            Self::ApiServer => api_server(layout),
            Self::ControllerManager => {
                let mut words = fixed(&[
                    "--leader-elect=false",
                    "--use-service-account-credentials=true",
                    "--allocate-node-cidrs=true",
                    "--bind-address=127.0.0.1",
                ]);
                words.extend([
                    kubeconfig(),
                    format!("--cluster-cidr={PODS}"),
                    format!("--service-cluster-ip-range={SERVICES}"),
                    layout.flag("--service-account-private-key-file", "pki/service-account.key"),
                    layout.flag("--root-ca-file", "pki/ca.crt"),
                    layout.flag("--cluster-signing-cert-file", "pki/ca.crt"),
                    layout.flag("--cluster-signing-key-file", "pki/ca.key"),
                    layout.flag("--flex-volume-plugin-dir", "kubelet/flexvolumes"),
                ]);
                words
            }
            Self::Scheduler => {
                let mut words = fixed(&["--leader-elect=false", "--bind-address=127.0.0.1"]);
                words.push(kubeconfig());
                words
            }
            Self::Containerd => {
                vec!["--config".to_owned(), layout.path("containerd/config.toml").display().to_string()]
            }
            Self::Registry => vec!["serve".to_owned(), layout.path("registry.yml").display().to_string()],
            Self::Kubelet => {
                let mut words = vec![kubeconfig(), format!("--hostname-override={NODE}")];
                words.extend([
                    format!("--node-ip={}", layout.address()),
                    layout.flag("--config", "kubelet.yaml"),
                    layout.flag("--root-dir", "kubelet"),
                    layout.flag("--cert-dir", "kubelet/pki"),
                ]);
                words
            }
            Self::Proxy => {
                let mut words = fixed(&[
                    "--proxy-mode=nftables",
                    "--metrics-bind-address=127.0.0.1:10249",
                    // They are the machine's, not the namespace's.
                    "--conntrack-max-per-core=0",
                    "--conntrack-tcp-timeout-established=0s",
                    "--conntrack-tcp-timeout-close-wait=0s",
                ]);
                words.extend([kubeconfig(), format!("--hostname-override={NODE}"), format!("--cluster-cidr={PODS}")]);
                words
            }
        }
    }

    /// Whether a process with this executable and these arguments is this part of the cluster in a data directory.
    pub(super) fn is(self, data_dir: &Path, executable: &Path, arguments: &[String]) -> bool {
        // Behind the name of a file that was replaced the kernel puts a note.
        let name = executable.file_name().unwrap_or_default().to_string_lossy();
        name.trim_end_matches(" (deleted)") == self.program() && names_any_in(data_dir, arguments)
    }
}

/// Whether a process is the shim of a container of the cluster.
pub(super) fn is_shim(data_dir: &Path, arguments: &[String]) -> bool {
    arguments.first().is_some_and(|program| program.contains("containerd-shim-")) && names_any_in(data_dir, arguments)
}

/// Whether an argument, or what stands behind a flag's equals sign, is a path in the data directory.
fn names_any_in(data_dir: &Path, arguments: &[String]) -> bool {
    arguments.iter().any(|argument| {
        let path = argument.split_once('=').map_or(argument.as_str(), |(_, value)| value);
        Path::new(path).starts_with(data_dir)
    })
}

fn api_server(layout: &Layout) -> Vec<String> {
    let mut words: Vec<String> = [
        "--etcd-servers=http://127.0.0.1:2379",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-aggregator-routing=true",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .to_vec();
    words.extend([
        format!("--secure-port={}", layout.api().port()),
        format!("--advertise-address={}", layout.address()),
        format!("--service-cluster-ip-range={SERVICES}"),
        layout.flag("--cert-dir", "pki"),
        layout.flag("--tls-cert-file", "pki/apiserver.crt"),
        layout.flag("--tls-private-key-file", "pki/apiserver.key"),
        layout.flag("--client-ca-file", "pki/ca.crt"),
        layout.flag("--kubelet-client-certificate", "pki/admin.crt"),
        layout.flag("--kubelet-client-key", "pki/admin.key"),
        layout.flag("--requestheader-client-ca-file", "pki/front-proxy-ca.crt"),
        layout.flag("--proxy-client-cert-file", "pki/front-proxy.crt"),
        layout.flag("--proxy-client-key-file", "pki/front-proxy.key"),
        layout.flag("--service-account-key-file", "pki/service-account.pub"),
        layout.flag("--service-account-signing-key-file", "pki/service-account.key"),
    ]);
    words
}

/// The names and addresses in the API server's certificate, as openssl has them.
pub(super) fn api_server_names(layout: &Layout) -> String {
    format!(
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
         DNS:localhost,IP:127.0.0.1,IP:{},IP:{KUBERNETES_SERVICE}",
        layout.address()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rival::layout::example;

    #[test]
    fn each_process_is_told_from_all_others_and_from_those_of_another_data_directory() {
        let layout = example();
        for part in Part::ALL {
            let executable = Path::new("/programs").join(part.program());
            let arguments = part.arguments(&layout);
            let found: Vec<Part> =
                Part::ALL.into_iter().filter(|other| other.is(layout.data_dir(), &executable, &arguments)).collect();
            assert_eq!(found, [part]);
            assert!(!part.is(Path::new("/data2"), &executable, &arguments));
            assert!(!part.is(Path::new("/dat"), &executable, &arguments));
        }
    }

    #[test]
    fn a_shim_is_known_by_the_socket_of_its_containerd() {
        let shim = |socket: &str| ["/programs/containerd-shim-runc-v2", "-address", socket].map(str::to_owned);
        assert!(is_shim(Path::new("/data"), &shim("/data/containerd/containerd.sock")));
        assert!(!is_shim(Path::new("/data"), &shim("/run/containerd/containerd.sock")));
    }
}
