//! Deployment: a set of equal pods that changes from one template to the next gradually.

use crate::kinds::apps::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::{ScalePaths, Subresource, names};

/// `apps/v1 Deployment`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["deploy"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Scale, Subresource::Status],
        scale: Some(ScalePaths::BUILTIN),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Ready", "string", "The number of ready pods, of those wanted."),
            Column::new("Up-to-date", "string", "The number of pods of the current template."),
            Column::new("Available", "string", "The number of pods that are available."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "Deployment", "deployments", "io.k8s.api.apps.v1.Deployment", Deployment)
    }
}

struct Deployment;

impl Strategy for Deployment {}
