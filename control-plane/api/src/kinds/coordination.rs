//! The group `coordination.k8s.io`: Lease, by which one of many is the holder of something for a while.

use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Column, Kind, Strategy};

/// `coordination.k8s.io/v1 Lease`
#[must_use]
pub fn lease() -> Kind {
    Kind {
        unconditional_update: false,
        create_on_update: true,
        columns: vec![Column::name(), Column::new("Holder", "string", "Who holds the lease."), Column::age()],
        ..Kind::new(
            GroupVersion::new("coordination.k8s.io", "v1"),
            "Lease",
            "leases",
            "io.k8s.api.coordination.v1.Lease",
            Lease,
        )
    }
}

struct Lease;

impl Strategy for Lease {}
