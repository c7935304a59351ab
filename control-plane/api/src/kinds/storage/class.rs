//! StorageClass and VolumeAttributesClass: what volumes are made by, and with which properties.

use serde_json::Value;

use super::V1;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::{form, one_of};
use crate::kinds::names;
use crate::kinds::tree::{entries, fill, flag, immutable, items, length, semantically_equal, text};
use crate::names::{is_label_value, is_qualified_name};

/// The annotation of the class for claims that name none, and its older name.
pub const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Whether a class is for claims that name none.
#[must_use]
pub fn is_default(class: &Value) -> bool {
    DEFAULT_ANNOTATIONS.iter().any(|key| class["metadata"]["annotations"][*key] == "true")
}

/// `storage.k8s.io/v1 StorageClass`
#[must_use]
pub fn storage_class() -> Kind {
    Kind {
        short_names: names(&["sc"]),
        scope: Scope::Cluster,
        columns: vec![
            Column::name(),
            Column::new("Provisioner", "string", "What makes its volumes."),
            Column::new("ReclaimPolicy", "string", "What becomes of its volumes when their claims are gone."),
            Column::new("VolumeBindingMode", "string", "When its volumes are made and bound."),
            Column::new("AllowVolumeExpansion", "string", "Whether its volumes can grow."),
            Column::age(),
        ],
        ..Kind::new(V1, "StorageClass", "storageclasses", "io.k8s.api.storage.v1.StorageClass", StorageClass)
    }
}

struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        fill(object, "reclaimPolicy", "Delete");
        fill(object, "volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let root = Path::default();
        let mut errors = validate_driver(object, "provisioner");
        errors.extend(validate_parameters(&object["parameters"], true));
        errors.extend(one_of(object, "reclaimPolicy", &root, &["Delete", "Retain"]));
        if object["volumeBindingMode"].is_null() {
            errors.push(Error::required(&Path::new("volumeBindingMode"), ""));
        }
        errors.extend(one_of(object, "volumeBindingMode", &root, &["Immediate", "WaitForFirstConsumer"]));
        errors.extend(validate_topologies(&object["allowedTopologies"], &Path::new("allowedTopologies")));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let fields = ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"];
        fields.iter().flat_map(|field| immutable(&object[*field], &old[*field], &Path::new(field))).collect()
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let mut name = text(&object["metadata"]["name"]).to_owned();
        if is_default(object) {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            text(&object["provisioner"]).into(),
            object["reclaimPolicy"].as_str().unwrap_or("Delete").into(),
            object["volumeBindingMode"].as_str().unwrap_or("Immediate").into(),
            flag(&object["allowVolumeExpansion"]).into(),
            age_cell(object, now),
        ]
    }
}

/// `storage.k8s.io/v1 VolumeAttributesClass`
#[must_use]
pub fn volume_attributes_class() -> Kind {
    Kind {
        short_names: names(&["vac"]),
        scope: Scope::Cluster,
        columns: vec![
            Column::name(),
            Column::new("DriverName", "string", "The driver that knows its parameters."),
            Column::age(),
        ],
        ..Kind::new(
            V1,
            "VolumeAttributesClass",
            "volumeattributesclasses",
            "io.k8s.api.storage.v1.VolumeAttributesClass",
            VolumeAttributesClass,
        )
    }
}

struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_driver(object, "driverName");
        errors.extend(validate_parameters(&object["parameters"], false));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for field in ["driverName", "parameters"] {
            if !semantically_equal(&object[field], &old[field]) {
                errors.push(Error::forbidden(&Path::new(field), format!("updates to {field} are forbidden.")));
            }
        }
        errors.extend(self.validate_create(object));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), text(&object["driverName"]).into(), age_cell(object, now)]
    }
}

fn validate_driver(object: &Value, field: &str) -> ErrorList {
    let path = Path::new(field);
    match text(&object[field]) {
        "" => vec![Error::required(&path, "")],
        driver => form(&driver.to_ascii_lowercase(), &path, is_qualified_name),
    }
}

/// `validateParameters`
fn validate_parameters(parameters: &Value, allow_empty: bool) -> ErrorList {
    const MOST: usize = 512;
    const LARGEST: usize = 256 * 1024;
    let path = Path::new("parameters");
    if length(parameters) > MOST {
        return vec![Error::too_long(&path, MOST)];
    }
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in entries(parameters) {
        if key.is_empty() {
            errors.push(Error::invalid(&path, key, "field can not be empty."));
        }
        size += key.len() + text(value).len();
    }
    if size > LARGEST {
        errors.push(Error::too_long(&path, LARGEST));
    }
    if !allow_empty && length(parameters) == 0 {
        errors.push(Error::required(&path, "must contain at least one key/value pair"));
    }
    errors
}

/// `validateAllowedTopologies`
fn validate_topologies(topologies: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, term) in items(topologies).iter().enumerate() {
        let at = path.index(index).child("matchLabelExpressions");
        let mut keys: Vec<&str> = Vec::new();
        for (place, expression) in items(&term["matchLabelExpressions"]).iter().enumerate() {
            let at = at.index(place);
            let key = text(&expression["key"]);
            let values = items(&expression["values"]);
            if values.is_empty() {
                errors.push(Error::required(&at.child("values"), ""));
            }
            for (place, value) in values.iter().enumerate() {
                if values[..place].contains(value) {
                    errors.push(Error::duplicate(&at.child("values").index(place), value.clone()));
                }
                errors.extend(form(text(value), &at.child("values").index(place), is_label_value));
            }
            errors.extend(form(key, &at.child("key"), is_qualified_name));
            if keys.contains(&key) {
                errors.push(Error::duplicate(&at.child("key"), key));
            }
            keys.push(key);
        }
        if items(topologies)[..index].contains(term) {
            errors.push(Error::duplicate(&at, ""));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    #[test]
    fn a_class_keeps_what_volumes_are_made_by() {
        let mut base = json!({
            "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "example.com/disk",
        });
        StorageClass.default(&mut base);
        assert_eq!(messages(&StorageClass.validate_create(&base)), Vec::<String>::new());
        assert_eq!(StorageClass.row(&base, NOW)[..4], ["fast (default)", "example.com/disk", "Delete", "Immediate"]);
        let other = mutated(&base, &json!({"provisioner": "other", "allowVolumeExpansion": true}));
        assert_eq!(
            messages(&StorageClass.validate_update(&other, &base)),
            ["provisioner: Invalid value: \"other\": field is immutable"]
        );
        let wrong = mutated(&base, &json!({"provisioner": null, "reclaimPolicy": "Burn"}));
        assert_eq!(
            messages(&StorageClass.validate_create(&wrong)),
            [
                "provisioner: Required value",
                "reclaimPolicy: Unsupported value: \"Burn\": supported values: \"Delete\", \"Retain\"",
            ]
        );
    }

    #[test]
    fn attributes_never_change() {
        let base = json!({"metadata": {"name": "a"}, "driverName": "d", "parameters": {"iops": "1"}});
        assert!(VolumeAttributesClass.validate_create(&base).is_empty());
        let other = mutated(&base, &json!({"parameters": {"iops": "2"}}));
        assert_eq!(
            messages(&VolumeAttributesClass.validate_update(&other, &base)),
            ["parameters: Forbidden: updates to parameters are forbidden."]
        );
    }
}
