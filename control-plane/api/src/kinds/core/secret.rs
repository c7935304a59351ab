//! Secret: small data that only some may read.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;

/// `v1 Secret`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        selectable: names(&["type"]),
        columns: vec![
            Column::name(),
            Column::new("Type", "string", "What the data is for."),
            Column::new("Data", "string", "The number of entries."),
            Column::age(),
        ],
        ..Kind::new(V1, "Secret", "secrets", "io.k8s.api.core.v1.Secret", Secret)
    }
}

struct Secret;

impl Strategy for Secret {}
