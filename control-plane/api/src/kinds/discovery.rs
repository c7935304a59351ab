//! The group `discovery.k8s.io`: EndpointSlice, where backends of a Service are.

use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Column, Kind, Strategy};

/// `discovery.k8s.io/v1 EndpointSlice`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("AddressType", "string", "What its addresses are: IPv4, IPv6 or FQDN."),
            Column::new("Ports", "string", "The ports of every endpoint."),
            Column::new("Endpoints", "string", "The addresses."),
            Column::age(),
        ],
        ..Kind::new(
            GroupVersion::new("discovery.k8s.io", "v1"),
            "EndpointSlice",
            "endpointslices",
            "io.k8s.api.discovery.v1.EndpointSlice",
            EndpointSlice,
        )
    }
}

struct EndpointSlice;

impl Strategy for EndpointSlice {}
