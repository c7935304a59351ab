//! ConfigMap: configuration that pods read.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;

/// `v1 ConfigMap`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["cm"]),
        columns: vec![Column::name(), Column::new("Data", "string", "The number of entries."), Column::age()],
        ..Kind::new(V1, "ConfigMap", "configmaps", "io.k8s.api.core.v1.ConfigMap", ConfigMap)
    }
}

struct ConfigMap;

impl Strategy for ConfigMap {}
