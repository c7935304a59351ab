//! Namespace: a scope for names.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{Scope, Subresource, Verb, names};

/// `v1 Namespace`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ns"]),
        scope: Scope::Cluster,
        verbs: Verb::ALL.iter().copied().filter(|verb| *verb != Verb::DeleteCollection).collect(),
        subresources: vec![Subresource::Finalize, Subresource::Status],
        selectable: names(&["status.phase", "name"]),
        columns: vec![Column::name(), Column::new("Status", "string", "Active or Terminating."), Column::age()],
        ..Kind::new(V1, "Namespace", "namespaces", "io.k8s.api.core.v1.Namespace", Namespace)
    }
}

struct Namespace;

impl Strategy for Namespace {}
