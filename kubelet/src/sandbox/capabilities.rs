//! What CNI plugins are told of a pod: arguments, and values of the capabilities that containerd and CRI-O hand on.
//!
//! Invariant: pure. A plugin sees a capability only if its configuration declares it.

use serde_json::{Map, Value, json};
use skep_api::quantity::Quantity;

use super::SandboxSpec;

/// A port of the node that leads into a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// On the node.
    pub host_port: u16,
    /// In the pod.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The node's address that it is bound to; none is all.
    pub host_ip: Option<String>,
}

/// `CNI_ARGS`, as containerd's CRI plugin has them.
pub(super) fn arguments(spec: &SandboxSpec) -> String {
    let SandboxSpec { uid, namespace, name, .. } = spec;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}"
    )
}

/// Values by capability (CNI conventions, "Dynamic Plugin specific fields").
pub(super) fn capabilities(spec: &SandboxSpec) -> Map<String, Value> {
    let mut all = Map::new();
    let ports = spec.ports.iter().filter(|port| port.host_port != 0).map(|port| {
        let protocol = port.protocol.to_lowercase();
        let host_ip = port.host_ip.as_deref().unwrap_or_default();
        json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol, "hostIP": host_ip})
    });
    let ports: Vec<Value> = ports.collect();
    if !ports.is_empty() {
        all.insert("portMappings".to_owned(), ports.into());
    }
    let rate = |annotation: &str| Some(spec.annotations.get(annotation)?.parse::<Quantity>().ok()?.value());
    let ingress = rate("kubernetes.io/ingress-bandwidth");
    let egress = rate("kubernetes.io/egress-bandwidth");
    if ingress.is_some() || egress.is_some() {
        // The burst can't be asked for: as much as the plugin's 32 bits hold.
        let bandwidth = json!({
            "ingressRate": ingress.unwrap_or(0), "ingressBurst": ingress.map_or(0, |_| i32::MAX),
            "egressRate": egress.unwrap_or(0), "egressBurst": egress.map_or(0, |_| i32::MAX),
        });
        all.insert("bandwidth".to_owned(), bandwidth);
    }
    if !spec.annotations.is_empty() {
        all.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(spec.annotations));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_and_bandwidth_are_capabilities() {
        let port = PortMapping { host_port: 80, container_port: 8080, protocol: "TCP".to_owned(), host_ip: None };
        let unmapped = PortMapping { host_port: 0, ..port.clone() };
        let annotations = [("kubernetes.io/ingress-bandwidth".to_owned(), "10M".to_owned())].into();
        let spec = SandboxSpec { ports: vec![port, unmapped], annotations, ..SandboxSpec::default() };
        let all = capabilities(&spec);
        let mapping = json!([{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": ""}]);
        assert_eq!(all["portMappings"], mapping);
        assert_eq!(all["bandwidth"]["ingressRate"], 10_000_000);
        assert_eq!(all["bandwidth"]["egressRate"], 0);
    }
}
