//! The upstream cluster's configuration files and first objects. Pure.

use serde_json::{Value, json};

use super::layout::{DNS, Layout, NAME, NODE_PODS};

/// The administrator's kubeconfig; all components but pods use it, as the comparison is not about permissions.
pub(super) fn kubeconfig(layout: &Layout) -> String {
    let file = |name: &str| layout.path(name);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": NAME,
        "clusters": [{ "name": NAME, "cluster": {
            "server": format!("https://{}", layout.api()), "certificate-authority": file("pki/ca.crt") } }],
        "users": [{ "name": "admin", "user": {
            "client-certificate": file("pki/admin.crt"), "client-key": file("pki/admin.key") } }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": "admin" } }],
    })
    .to_string()
}

/// The kubelet's configuration.
pub(super) fn kubelet(layout: &Layout) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": layout.cgroup(),
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd_socket().display()),
        "authentication": {
            "anonymous": { "enabled": false }, "webhook": { "enabled": true },
            "x509": { "clientCAFile": layout.path("pki/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "failSwapOn": false,
        "enforceNodeAllocatable": ["pods"],
        "resolvConf": "/etc/resolv.conf",
        "serializeImagePulls": false,
        "maxPods": 250,
        "podLogsDir": layout.path("pod-logs"),
        "volumePluginDir": layout.path("kubelet/flexvolumes"),
        // The node shares the machine's disk with everything else on it, and its images stay.
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi" },
        "imageGCHighThresholdPercent": 100,
    })
    .to_string()
}

/// containerd's configuration: everything in the cluster's own folder.
pub(super) fn containerd(layout: &Layout, pause: &str) -> String {
    let text = |name: &str| Value::from(layout.path(name).to_string_lossy()).to_string();
    let (root, state, socket) = (text("containerd/root"), text("containerd/state"), text("containerd/containerd.sock"));
    let (ttrpc, opt, networks, hosts) = (
        text("containerd/containerd.sock.ttrpc"),
        text("containerd/opt"),
        text("containerd/net.d"),
        text("containerd/hosts"),
    );
    format!(
        "version = 3\n\
         root = {root}\n\
         state = {state}\n\
         \n\
         [grpc]\n\
         address = {socket}\n\
         \n\
         [ttrpc]\n\
         address = {ttrpc}\n\
         \n\
         [plugins.'io.containerd.internal.v1.opt']\n\
         path = {opt}\n\
         \n\
         [plugins.'io.containerd.nri.v1.nri']\n\
         disable = true\n\
         \n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
         sandbox = \"{pause}\"\n\
         \n\
         [plugins.'io.containerd.cri.v1.images'.registry]\n\
         config_path = {hosts}\n\
         \n\
         [plugins.'io.containerd.cri.v1.runtime']\n\
         restrict_oom_score_adj = true\n\
         disable_apparmor = true\n\
         netns_mounts_under_state_dir = true\n\
         \n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
         bin_dirs = [\"/usr/lib/cni\"]\n\
         conf_dir = {networks}\n"
    )
}

/// The pods' network: upstream's reference plug-ins.
pub(super) fn network(layout: &Layout) -> String {
    json!({
        "cniVersion": "1.0.0", "name": "bridge",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": layout.path("containerd/addresses"),
                    "ranges": [[{ "subnet": NODE_PODS }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

/// The cluster's DNS, of an image that has CoreDNS as `/coredns`.
pub(super) fn dns(image: &str) -> String {
    const COREFILE: &str = ".:53 {\n errors\n health\n ready\n kubernetes cluster.local in-addr.arpa ip6.arpa {\n  pods insecure\n  \
                            fallthrough in-addr.arpa ip6.arpa\n }\n prometheus :9153\n cache 30\n loadbalance\n}\n";
    let meta = |name: &str| json!({ "name": name, "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } });
    let read = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns"), "data": { "Corefile": COREFILE } },
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns") },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "system:coredns" },
          "rules": [read("", &["services", "pods", "namespaces"]), read("discovery.k8s.io", &["endpointslices"])] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "system:coredns" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
          "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }] },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("coredns"), "spec": {
            "selector": { "matchLabels": { "k8s-app": "kube-dns" } },
            "template": { "metadata": { "labels": { "k8s-app": "kube-dns" } }, "spec": {
                "serviceAccountName": "coredns", "dnsPolicy": "Default",
                "containers": [{
                    "name": "coredns", "image": image, "command": ["/coredns", "-conf", "/etc/coredns/Corefile"],
                    "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
                    "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns" }],
                }],
                "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
            } } } },
        { "apiVersion": "v1", "kind": "Service", "metadata": meta("kube-dns"), "spec": {
            "clusterIP": DNS, "selector": { "k8s-app": "kube-dns" },
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
                { "name": "metrics", "port": 9153, "protocol": "TCP" },
            ] } },
    ] })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rival::layout::example;

    #[test]
    fn containerd_keeps_everything_in_the_clusters_folder() {
        let text = containerd(&example(), "registry.k8s.io/pause:1");
        for line in text.lines().filter(|line| line.contains("\"/")) {
            assert!(line.contains("\"/data/") || line.contains("/usr/lib/cni"), "{line}");
        }
    }

    #[test]
    fn the_kubelet_and_containerd_meet_at_one_socket() {
        let layout = example();
        let socket = layout.containerd_socket().display().to_string();
        assert!(kubelet(&layout).contains(&format!("unix://{socket}")));
        assert!(containerd(&layout, "pause").contains(&format!("address = \"{socket}\"")));
    }
}
