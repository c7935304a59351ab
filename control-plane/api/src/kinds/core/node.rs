//! Node: a machine that runs pods.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{Scope, Subresource, names};

/// `v1 Node`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["no"]),
        scope: Scope::Cluster,
        subresources: vec![Subresource::Proxy, Subresource::Status],
        selectable: names(&["spec.unschedulable"]),
        columns: vec![
            Column::name(),
            Column::new("Status", "string", "Whether it is ready, and whether it takes new pods."),
            Column::new("Roles", "string", "The roles that its labels name."),
            Column::age(),
            Column::new("Version", "string", "The version of its kubelet."),
            Column::new("Internal-IP", "string", "Its first address of type InternalIP.").wide(),
            Column::new("External-IP", "string", "Its first address of type ExternalIP.").wide(),
            Column::new("OS-Image", "string", "Its operating system.").wide(),
            Column::new("Kernel-Version", "string", "Its kernel and architecture.").wide(),
            Column::new("Container-Runtime", "string", "Its container runtime and version.").wide(),
        ],
        ..Kind::new(V1, "Node", "nodes", "io.k8s.api.core.v1.Node", Node)
    }
}

struct Node;

impl Strategy for Node {}
