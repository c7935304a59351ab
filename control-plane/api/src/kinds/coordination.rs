//! The group `coordination.k8s.io`: Lease, by which one of many is the holder of something for a while.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::text;
use crate::names::is_qualified_name;

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

impl Strategy for Lease {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let mut errors = ErrorList::new();
        if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
            errors.push(Error::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
        }
        if let Some(count) = spec["leaseTransitions"].as_i64().filter(|count| *count < 0) {
            let message = "must be greater than or equal to 0";
            errors.push(Error::invalid(&path.child("leaseTransitions"), count, message));
        }
        if let Some(strategy) = spec["strategy"].as_str() {
            errors.extend(validate_strategy(strategy, &path.child("strategy")));
        }
        if !text(&spec["preferredHolder"]).is_empty() && text(&spec["strategy"]).is_empty() {
            let message = "may only be specified if `strategy` is defined";
            errors.push(Error::forbidden(&path.child("preferredHolder"), message));
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), text(&object["spec"]["holderIdentity"]).into(), age_cell(object, now)]
    }
}

/// A strategy is the one that is known, or a qualified name of someone else's (`ValidateCoordinatedLeaseStrategy`, path included).
fn validate_strategy(strategy: &str, path: &Path) -> ErrorList {
    const KNOWN: &[&str] = &["OldestEmulationVersion"];
    let path = path.child("strategy");
    if strategy.contains('/') {
        let messages = is_qualified_name(strategy);
        return messages.into_iter().map(|message| Error::invalid(&path, strategy, message)).collect();
    }
    if KNOWN.contains(&strategy) {
        return ErrorList::new();
    }
    vec![Error::not_supported(&path, strategy, KNOWN)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};
    use serde_json::json;

    #[test]
    fn a_lease_lasts() {
        for (spec, expected) in [
            (json!({"leaseDurationSeconds": 15, "leaseTransitions": 0, "holderIdentity": "a"}), vec![]),
            (
                json!({"leaseDurationSeconds": 0, "leaseTransitions": -1}),
                vec![
                    "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                    "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                json!({"preferredHolder": "a"}),
                vec!["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
            ),
            (json!({"preferredHolder": "a", "strategy": "OldestEmulationVersion"}), vec![]),
        ] {
            assert_eq!(messages(&lease().strategy.validate_create(&json!({"spec": spec}))), expected);
        }
    }

    #[test]
    fn a_row_shows_the_holder() {
        let object = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "node-1"}});
        assert_eq!(lease().strategy.row(&object, NOW), ["l", "node-1", "<unknown>"]);
    }
}
