//! CSIDriver, CSINode and CSIStorageCapacity: what storage drivers can do, where they run and what room they have.

use serde_json::{Value, json};

use super::V1;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::persistent_volume::validate_driver_name;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::{form, not_negative, one_of, quantity_not_negative};
use crate::kinds::tree::{fill, flag, immutable, items, length, remove, semantically_equal, text};
use crate::meta::validate_label_selector;
use crate::names::{is_dns1123_subdomain, is_qualified_name};

/// `storage.k8s.io/v1 CSIDriver`
#[must_use]
pub fn csi_driver() -> Kind {
    Kind {
        scope: Scope::Cluster,
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("AttachRequired", "boolean", "Whether its volumes are attached to nodes."),
            Column::new("PodInfoOnMount", "boolean", "Whether it is told of the pod that mounts."),
            Column::new("StorageCapacity", "boolean", "Whether it tells what room it has."),
            Column::new("TokenRequests", "string", "The audiences of the tokens that it needs."),
            Column::new("RequiresRepublish", "boolean", "Whether mounts are repeated."),
            Column::new("Modes", "string", "The lifecycles of its volumes."),
            Column::age(),
        ],
        ..Kind::new(V1, "CSIDriver", "csidrivers", "io.k8s.api.storage.v1.CSIDriver", CsiDriver)
    }
}

struct CsiDriver;

impl Strategy for CsiDriver {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        fill(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill(spec, field, false);
        }
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if length(&spec["volumeLifecycleModes"]) == 0 {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = ErrorList::new();
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        errors.extend(one_of(spec, "fsGroupPolicy", &path, &policies));
        errors.extend(validate_token_requests(&spec["tokenRequests"], &path.child("tokenRequests")));
        for mode in items(&spec["volumeLifecycleModes"]) {
            if !["Persistent", "Ephemeral"].contains(&text(mode)) {
                let at = path.child("volumeLifecycleModes");
                errors.push(Error::not_supported(&at, mode.clone(), &["Persistent", "Ephemeral"]));
            }
        }
        if let Some(seconds) = spec["nodeAllocatableUpdatePeriodSeconds"].as_i64().filter(|seconds| *seconds < 10) {
            let at = path.child("nodeAllocatableUpdatePeriodSeconds");
            errors.push(Error::invalid(&at, seconds, "must be greater than or equal to 10 seconds"));
        }
        if let Some(in_secrets) = spec["serviceAccountTokenInSecrets"].as_bool()
            && length(&spec["tokenRequests"]) == 0
        {
            let message = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.push(Error::invalid(&path.child("serviceAccountTokenInSecrets"), in_secrets, message));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec");
        let mut errors = self.validate_create(object);
        // Upstream's path has another name than the field.
        for (field, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            errors.extend(immutable(&object["spec"][field], &old["spec"][field], &path.child(shown)));
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = &object["spec"];
        let join = |values: Vec<&str>| values.join(",");
        let audiences = if spec["tokenRequests"].is_null() {
            "<unset>".to_owned()
        } else {
            join(items(&spec["tokenRequests"]).iter().map(|request| text(&request["audience"])).collect())
        };
        let modes = join(items(&spec["volumeLifecycleModes"]).iter().map(text).collect());
        vec![
            name_cell(object),
            spec["attachRequired"].as_bool().unwrap_or(true).into(),
            flag(&spec["podInfoOnMount"]).into(),
            flag(&spec["storageCapacity"]).into(),
            audiences.into(),
            flag(&spec["requiresRepublish"]).into(),
            if modes.is_empty() { "<none>".into() } else { modes.into() },
            age_cell(object, now),
        ]
    }
}

fn validate_token_requests(requests: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, request) in items(requests).iter().enumerate() {
        let at = path.index(index);
        let audience = text(&request["audience"]);
        if items(requests)[..index].iter().any(|earlier| text(&earlier["audience"]) == audience) {
            errors.push(Error::duplicate(&at.child("audience"), audience));
            continue;
        }
        let Some(seconds) = request["expirationSeconds"].as_i64() else { continue };
        let message = match seconds {
            ..600 => "may not specify a duration less than 10 minutes",
            4_294_967_297.. => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        errors.push(Error::invalid(&at.child("expirationSeconds"), seconds, message));
    }
    errors
}

/// `storage.k8s.io/v1 CSINode`
#[must_use]
pub fn csi_node() -> Kind {
    Kind {
        scope: Scope::Cluster,
        columns: vec![
            Column::name(),
            Column::new("Drivers", "integer", "The number of drivers on the node."),
            Column::age(),
        ],
        ..Kind::new(V1, "CSINode", "csinodes", "io.k8s.api.storage.v1.CSINode", CsiNode)
    }
}

struct CsiNode;

impl Strategy for CsiNode {
    fn validate_create(&self, object: &Value) -> ErrorList {
        const LONGEST_ID: usize = 256;
        let path = Path::new("spec").child("drivers");
        let drivers = items(&object["spec"]["drivers"]);
        let mut errors = ErrorList::new();
        for (index, driver) in drivers.iter().enumerate() {
            let at = path.index(index);
            errors.extend(validate_driver_name(text(&driver["name"]), &at.child("name")));
            let id = text(&driver["nodeID"]);
            if id.is_empty() {
                errors.push(Error::required(&at.child("nodeID"), ""));
            }
            if id.len() > LONGEST_ID {
                let message = format!("must be {LONGEST_ID} characters or less");
                errors.push(Error::invalid(&at.child("nodeID"), id, message));
            }
            errors.extend(not_negative(&driver["allocatable"], &["count"], &at.child("allocatable")));
            if drivers[..index].iter().any(|earlier| earlier["name"] == driver["name"]) {
                errors.push(Error::duplicate(&at.child("name"), driver["name"].clone()));
            }
            let keys = items(&driver["topologyKeys"]);
            for (place, key) in keys.iter().enumerate() {
                if text(key).is_empty() {
                    errors.push(Error::required(&at, ""));
                }
                if keys[..place].contains(key) {
                    errors.push(Error::duplicate(&at, key.clone()));
                }
                errors.extend(form(text(key), &at, is_qualified_name));
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        for was in items(&old["spec"]["drivers"]) {
            for driver in items(&object["spec"]["drivers"]).iter().filter(|driver| driver["name"] == was["name"]) {
                let [mut new, mut old] = [driver, was].map(Clone::clone);
                remove(&mut new, "allocatable");
                remove(&mut old, "allocatable");
                errors.extend(immutable(&new, &old, &Path::new("spec").child("drivers")));
            }
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), length(&object["spec"]["drivers"]).into(), age_cell(object, now)]
    }
}

/// `storage.k8s.io/v1 CSIStorageCapacity`
#[must_use]
pub fn csi_storage_capacity() -> Kind {
    Kind {
        columns: vec![
            Column::name(),
            Column::new("StorageClassName", "string", "The class that there is room for."),
            Column::new("Capacity", "string", "How much room there is."),
        ],
        ..Kind::new(
            V1,
            "CSIStorageCapacity",
            "csistoragecapacities",
            "io.k8s.api.storage.v1.CSIStorageCapacity",
            CsiStorageCapacity,
        )
    }
}

struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_label_selector(&object["nodeTopology"], &Path::new("nodeTopology"));
        errors.extend(form(text(&object["storageClassName"]), &Path::new("storageClassName"), is_dns1123_subdomain));
        errors.extend(quantity_not_negative(&object["capacity"], &Path::new("capacity")));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let fields = ["nodeTopology", "storageClassName"];
        let changed = fields.iter().filter(|field| !semantically_equal(&object[**field], &old[**field]));
        changed.flat_map(|field| immutable(&object[*field], &old[*field], &Path::new(field))).collect()
    }

    fn row(&self, object: &Value, _: i64) -> Vec<Value> {
        vec![
            name_cell(object),
            text(&object["storageClassName"]).into(),
            object["capacity"].as_str().unwrap_or("<unset>").into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};

    #[test]
    fn a_driver_tells_what_it_can() {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {}});
        CsiDriver.default(&mut object);
        assert_eq!(messages(&CsiDriver.validate_create(&object)), Vec::<String>::new());
        assert_eq!(
            CsiDriver.row(&object, NOW)[..7],
            [json!("d"), json!(true), json!(false), json!(false), json!("<unset>"), json!(false), json!("Persistent")]
        );
        object["spec"]["tokenRequests"] = json!([{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]);
        assert_eq!(
            messages(&CsiDriver.validate_create(&object)),
            [
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            ]
        );
    }

    #[test]
    fn a_node_has_each_driver_once() {
        let object = json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}, {"name": "d", "nodeID": ""}]}});
        assert_eq!(
            messages(&CsiNode.validate_create(&object)),
            ["spec.drivers[1].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"d\""]
        );
    }
}
