//! The group `scheduling.k8s.io`: PriorityClass, a name for how important a pod is.

use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{Scope, names};

/// `scheduling.k8s.io/v1 PriorityClass`
#[must_use]
pub fn priority_class() -> Kind {
    Kind {
        short_names: names(&["pc"]),
        scope: Scope::Cluster,
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Value", "integer", "The priority of its pods; higher goes first."),
            Column::new("Global-Default", "boolean", "Whether it is for pods that name no class."),
            Column::age(),
            Column::new("PreemptionPolicy", "string", "Whether its pods may displace others."),
        ],
        ..Kind::new(
            GroupVersion::new("scheduling.k8s.io", "v1"),
            "PriorityClass",
            "priorityclasses",
            "io.k8s.api.scheduling.v1.PriorityClass",
            PriorityClass,
        )
    }
}

struct PriorityClass;

impl Strategy for PriorityClass {}
