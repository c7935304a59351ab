//! Rules for the claim template of an ephemeral volume: upstream's `ValidatePersistentVolumeClaimTemplate` and
//! `ValidatePersistentVolumeClaimSpec`.

use serde_json::Value;

use super::names::{check, check_optional, one_of_optional, required};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::resources;
use crate::kinds::tree::{entries, is_empty, items, length, semantically_equal, text};
use crate::meta;
use crate::names;
use crate::quantity::Quantity;

/// A template of a claim: only labels and annotations count of its metadata.
pub(super) fn validate_template(template: &Value, path: &Path) -> ErrorList {
    if template.is_null() {
        return vec![Error::required(path, "")];
    }
    let (metadata, at) = (&template["metadata"], path.child("metadata"));
    let mut errors = meta::validate_annotations(&metadata["annotations"], &at.child("annotations"));
    errors.extend(meta::validate_labels(&metadata["labels"], &at.child("labels")));
    for (field, value) in entries(metadata) {
        if !matches!(field, "annotations" | "labels") && !is_empty(value) {
            // Upstream derives the name from Go's `UID`.
            let shown = if field == "uid" { "uID" } else { field };
            errors.push(Error::forbidden(&at.child(shown), "cannot be set"));
        }
    }
    errors.extend(validate_spec(&template["spec"], &path.child("spec")));
    errors
}

/// The spec of a PersistentVolumeClaim.
pub(in crate::kinds) fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors =
        validate_access_modes(&spec["accessModes"], "at least 1 access mode is required", &path.child("accessModes"));
    errors.extend(meta::validate_label_selector(&spec["selector"], &path.child("selector")));
    errors.extend(validate_size(&spec["resources"]["requests"]["storage"], &path.child("resources").key("storage")));
    errors.extend(check_optional(spec, "storageClassName", path, names::is_dns1123_subdomain));
    errors.extend(one_of_optional(&spec["volumeMode"], &["Block", "Filesystem"], &path.child("volumeMode")));
    errors.extend(validate_source(&spec["dataSource"], &path.child("dataSource")));
    errors.extend(validate_source(&spec["dataSourceRef"], &path.child("dataSourceRef")));
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    let source_path = path.child("dataSource").to_string();
    if source.is_object() && !text(&reference["namespace"]).is_empty() {
        errors.push(Error::invalid(
            path,
            source_path,
            "may not be specified when dataSourceRef.namespace is specified",
        ));
    } else if source.is_object() && reference.is_object() {
        let same = ["apiGroup", "kind", "name"].iter().all(|f| semantically_equal(&source[*f], &reference[*f]));
        if !same {
            errors.push(Error::invalid(path, source_path, "must match dataSourceRef"));
        }
    }
    errors.extend(check_optional(spec, "volumeAttributesClassName", path, names::is_dns1123_subdomain));
    errors
}

/// `none` is said when there is no mode at all.
pub(in crate::kinds) fn validate_access_modes(modes: &Value, none: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if length(modes) == 0 {
        errors.push(Error::required(path, none));
    }
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let given = || items(modes).iter().map(text);
    for mode in given().filter(|mode| !known.contains(mode)) {
        errors.push(Error::not_supported(path, mode, &known));
    }
    let single = given().any(|mode| mode == "ReadWriteOncePod");
    if single && given().any(|mode| mode != "ReadWriteOncePod" && known.contains(&mode)) {
        errors.push(Error::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
    errors
}

fn validate_size(size: &Value, path: &Path) -> ErrorList {
    if size.is_null() {
        return vec![Error::required(path, "")];
    }
    match Quantity::from_value(size) {
        Ok(quantity) if quantity <= Quantity::ZERO => {
            vec![Error::invalid(path, quantity.to_string(), "must be greater than zero")]
        }
        _ => resources::validate_quantity("storage", size, path),
    }
}

fn validate_source(source: &Value, path: &Path) -> ErrorList {
    if source.is_null() {
        return ErrorList::new();
    }
    let mut errors = required(source, &["name", "kind"], path);
    let (group, kind) = (text(&source["apiGroup"]), text(&source["kind"]));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(Error::invalid(path, kind, detail));
    }
    if !group.is_empty() {
        errors.extend(check(group, &path.child("apiGroup"), names::is_dns1123_subdomain));
    }
    errors.extend(check_optional(source, "namespace", path, names::is_dns1123_label));
    errors
}
