//! ServiceAccount: who a pod is to the API server.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{Subresource, names};

/// `v1 ServiceAccount`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["sa"]),
        subresources: vec![Subresource::Token],
        columns: vec![Column::name(), Column::age()],
        ..Kind::new(V1, "ServiceAccount", "serviceaccounts", "io.k8s.api.core.v1.ServiceAccount", ServiceAccount)
    }
}

struct ServiceAccount;

impl Strategy for ServiceAccount {}
