//! Endpoints: where a Service's backends are, in the form before EndpointSlice.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;

/// `v1 Endpoints`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ep"]),
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Endpoints", "string", "The ready addresses and their ports."),
            Column::age(),
        ],
        ..Kind::new(V1, "Endpoints", "endpoints", "io.k8s.api.core.v1.Endpoints", Endpoints)
    }
}

struct Endpoints;

impl Strategy for Endpoints {}
