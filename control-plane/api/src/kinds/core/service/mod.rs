//! Service: one address for a set of pods.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{Subresource, names};

/// `v1 Service`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["svc"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Proxy, Subresource::Status],
        selectable: names(&["spec.clusterIP", "spec.type"]),
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Type", "string", "How the Service is exposed."),
            Column::new("Cluster-IP", "string", "Its address inside of the cluster."),
            Column::new("External-IP", "string", "The addresses at which it is reached from outside."),
            Column::new("Port(s)", "string", "Its ports, node ports and protocols."),
            Column::age(),
            Column::new("Selector", "string", "Selects the pods that receive its traffic.").wide(),
        ],
        ..Kind::new(V1, "Service", "services", "io.k8s.api.core.v1.Service", Service)
    }
}

struct Service;

impl Strategy for Service {}
