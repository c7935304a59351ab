//! ReplicaSet: a number of equal pods.

use crate::kinds::apps::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{ScalePaths, Subresource, names};

/// `apps/v1 ReplicaSet`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["rs"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Scale, Subresource::Status],
        scale: Some(ScalePaths::BUILTIN),
        selectable: names(&["status.replicas"]),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Desired", "integer", "The number of pods wanted."),
            Column::new("Current", "integer", "The number of pods there are."),
            Column::new("Ready", "integer", "The number of pods that are ready."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "ReplicaSet", "replicasets", "io.k8s.api.apps.v1.ReplicaSet", ReplicaSet)
    }
}

struct ReplicaSet;

impl Strategy for ReplicaSet {}
