//! ControllerRevision: a state of a DaemonSet or StatefulSet that can be rolled back to.

use crate::kinds::apps::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};

/// `apps/v1 ControllerRevision`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        columns: vec![
            Column::name(),
            Column::new("Controller", "string", "The object whose state it is."),
            Column::new("Revision", "string", "The number of the revision."),
            Column::age(),
        ],
        ..Kind::new(
            V1,
            "ControllerRevision",
            "controllerrevisions",
            "io.k8s.api.apps.v1.ControllerRevision",
            ControllerRevision,
        )
    }
}

struct ControllerRevision;

impl Strategy for ControllerRevision {}
