//! DaemonSet: a pod on every node.

use crate::kinds::apps::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{Subresource, names};

/// `apps/v1 DaemonSet`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ds"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Desired", "integer", "The number of nodes that should run the pod."),
            Column::new("Current", "integer", "The number of nodes that should and do run the pod."),
            Column::new("Ready", "integer", "The number of nodes on which the pod is ready."),
            Column::new("Up-to-date", "integer", "The number of nodes that run the current template."),
            Column::new("Available", "integer", "The number of nodes on which the pod is available."),
            Column::new("Node Selector", "string", "Which nodes run the pod."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "DaemonSet", "daemonsets", "io.k8s.api.apps.v1.DaemonSet", DaemonSet)
    }
}

struct DaemonSet;

impl Strategy for DaemonSet {}
