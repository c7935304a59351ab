//! StatefulSet: pods with names, storage and an order.

use crate::kinds::apps::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{ScalePaths, Subresource, names};

/// `apps/v1 StatefulSet`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["sts"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Scale, Subresource::Status],
        scale: Some(ScalePaths::BUILTIN),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Ready", "string", "The number of ready pods, of those wanted."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
        ],
        ..Kind::new(V1, "StatefulSet", "statefulsets", "io.k8s.api.apps.v1.StatefulSet", StatefulSet)
    }
}

struct StatefulSet;

impl Strategy for StatefulSet {}
