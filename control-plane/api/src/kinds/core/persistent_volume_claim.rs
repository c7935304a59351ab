//! PersistentVolumeClaim: a wish for storage, bound to a PersistentVolume.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::core::persistent_volume::access_modes_cell;
use crate::kinds::core::pod::resources::validate_quantity;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{entries, fill, fill_text, immutable, items, length, semantically_equal, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::quantity::Quantity;

pub(in crate::kinds) use crate::kinds::core::pod::validate::validate_claim_spec;

/// `v1 PersistentVolumeClaim`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["pvc"]),
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::new("Status", "string", "Whether it is bound."),
            Column::new("Volume", "string", "The PersistentVolume that it is bound to."),
            Column::new("Capacity", "string", "How much that volume holds."),
            Column::new("Access Modes", "string", "How that volume may be mounted."),
            Column::new("StorageClass", "string", "The class of the volume wanted."),
            Column::new("VolumeAttributesClass", "string", "The class of changeable properties wanted."),
            Column::age(),
            Column::new("VolumeMode", "string", "Whether it is a file system or a block device.").wide(),
        ],
        ..Kind::new(
            V1,
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            "io.k8s.api.core.v1.PersistentVolumeClaim",
            PersistentVolumeClaim,
        )
    }
}

/// The annotation that named the class before the field did.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The defaults of a claim and of a StatefulSet's claim templates.
pub(in crate::kinds) fn default_claim(claim: &mut Value) {
    fill(&mut claim["spec"], "volumeMode", "Filesystem");
    fill_text(&mut claim["status"], "phase", "Pending");
}

struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        default_claim(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({ "phase": "Pending" });
        normalize_data_sources(&mut object["spec"]);
    }

    fn prepare_update(&self, object: &mut Value, _: &Value, _: &WriteContext<'_>) {
        normalize_data_sources(&mut object["spec"]);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_claim_spec(&object["spec"], &Path::new("spec"))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        errors.extend(validate_change(object, old));
        errors
    }

    /// `ValidatePersistentVolumeClaimStatusUpdate`
    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        let (status, path) = (&object["status"], Path::new("status"));
        let mut errors = ErrorList::new();
        if length(&object["spec"]["accessModes"]) == 0 {
            errors.push(Error::required(&Path::new("Spec").child("accessModes"), ""));
        }
        for (name, quantity) in entries(&status["capacity"]) {
            errors.extend(not_negative(quantity, &path.child("capacity").key(name)));
        }
        let states = [
            "ControllerResizeInProgress",
            "ControllerResizeInfeasible",
            "NodeResizePending",
            "NodeResizeInProgress",
            "NodeResizeInfeasible",
        ];
        for (name, state) in entries(&status["allocatedResourceStatuses"]) {
            if !states.contains(&text(state)) {
                let mut sorted = states;
                sorted.sort_unstable();
                errors.push(Error::not_supported(&path.child("allocatedResourceStatuses"), name, &sorted));
            }
        }
        for (name, quantity) in entries(&status["allocatedResources"]) {
            errors.extend(validate_quantity("storage", quantity, &path.child("allocatedResources").key(name)));
        }
        errors
    }

    fn warnings(&self, object: &Value, _: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if !object["metadata"]["annotations"][CLASS_ANNOTATION].is_null() {
            let at = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
            warnings.push(format!("{at}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
        }
        warnings
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        let bound = !text(&spec["volumeName"]).is_empty();
        let (capacity, modes) = if bound {
            (
                status["capacity"]["storage"].as_str().unwrap_or("0").to_owned(),
                access_modes_cell(&status["accessModes"]),
            )
        } else {
            (String::new(), String::new())
        };
        vec![
            name_cell(object),
            if deleting { "Terminating" } else { text(&status["phase"]) }.into(),
            text(&spec["volumeName"]).into(),
            capacity.into(),
            modes.into(),
            class(object).into(),
            spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>").into(),
            age_cell(object, now),
            spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
        ]
    }
}

/// The class that a claim asks for; empty where there is none (`GetPersistentVolumeClaimClass`).
#[must_use]
pub fn class(claim: &Value) -> &str {
    let annotation = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    annotation.unwrap_or_else(|| text(&claim["spec"]["storageClassName"]))
}

fn not_negative(quantity: &Value, path: &Path) -> ErrorList {
    match Quantity::from_value(quantity) {
        Ok(quantity) if quantity < Quantity::ZERO => {
            vec![Error::invalid(path, quantity.to_string(), "must be greater than or equal to 0")]
        }
        _ => ErrorList::new(),
    }
}

/// The old and the new field say the same (`NormalizeDataSources`).
fn normalize_data_sources(spec: &mut Value) {
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if source.is_object() && reference.is_null() {
        spec["dataSourceRef"] = source;
    } else if source.is_null() && reference.is_object() && text(&reference["namespace"]).is_empty() {
        spec["dataSource"] = reference;
    }
}

/// `ValidatePersistentVolumeClaimUpdate`: only what makes a bound claim larger or better may change.
fn validate_change(object: &Value, old: &Value) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let (mut new, mut was) = (object["spec"].clone(), old["spec"].clone());
    if text(&was["volumeName"]).is_empty() {
        was["volumeName"] = new["volumeName"].clone();
    }
    let annotation = |object: &Value| text(&object["metadata"]["annotations"][CLASS_ANNOTATION]).to_owned();
    let (class_now, class_before) = (annotation(object), annotation(old));
    if class_before.is_empty() && class_now.is_empty() && was["storageClassName"].is_null() {
        // Claims of no class get the default one when there is one.
        if !text(&new["storageClassName"]).is_empty() {
            new["storageClassName"] = Value::Null;
        }
    } else if class_now != class_before {
        let at = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
        errors.push(Error::invalid(&at, class_now, "field is immutable"));
    }
    if object["status"]["phase"] == "Bound" {
        if new["resources"]["requests"].is_object() {
            new["resources"]["requests"]["storage"] = was["resources"]["requests"]["storage"].clone();
        }
        new["volumeAttributesClassName"] = was["volumeAttributesClassName"].clone();
    }
    if !semantically_equal(&new, &was) {
        let difference = crate::kinds::core::pod::unified_diff(&was, &new);
        let message = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{difference}"
        );
        errors.push(Error::forbidden(&path, message));
    }
    let size = |value: &Value| Quantity::from_value(value).unwrap_or(Quantity::ZERO);
    let wanted = size(&object["spec"]["resources"]["requests"]["storage"]);
    if wanted < size(&old["spec"]["resources"]["requests"]["storage"])
        && wanted <= size(&old["status"]["capacity"]["storage"])
    {
        let at = path.child("resources").child("requests").child("storage");
        errors.push(Error::forbidden(&at, "field can not be less than status.capacity"));
    }
    errors.extend(immutable(&object["spec"]["volumeMode"], &old["spec"]["volumeMode"], &Path::new("volumeMode")));
    let name = &object["spec"]["volumeAttributesClassName"];
    if *name != old["spec"]["volumeAttributesClassName"]
        && !old["status"]["currentVolumeAttributesClassName"].is_null()
        && text(name).is_empty()
    {
        let what = if name.is_null() { "nil" } else { "empty string" };
        let message = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(Error::forbidden(&path.child("volumeAttributesClassName"), message));
    }
    errors
}

/// Whether a claim's storage may be mounted in a mode.
#[must_use]
pub fn allows(claim: &Value, mode: &str) -> bool {
    items(&claim["spec"]["accessModes"]).iter().any(|allowed| allowed == mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let mut object = json!({
            "metadata": {"name": "a"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        PersistentVolumeClaim.default(&mut object);
        object
    }

    #[test]
    fn mistakes_are_named() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"spec": {"accessModes": null}}),
                vec!["spec.accessModes: Required value: at least 1 access mode is required"],
            ),
            (json!({"spec": {"resources": null}}), vec!["spec.resources[storage]: Required value"]),
        ] {
            let errors = PersistentVolumeClaim.validate_create(&mutated(&base(), &mutation));
            assert_eq!(messages(&errors), expected, "{mutation}");
        }
    }

    #[test]
    fn only_a_bound_claim_grows() {
        let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        let errors = PersistentVolumeClaim.validate_update(&mutated(&base(), &larger), &base());
        assert!(messages(&errors)[0].starts_with("spec: Forbidden: spec is immutable after creation except"));
        let bound = mutated(&base(), &json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}));
        assert!(PersistentVolumeClaim.validate_update(&mutated(&bound, &larger), &bound).is_empty());
        let bound = mutated(&bound, &json!({"status": {"capacity": {"storage": "1Gi"}}}));
        let smaller = mutated(&bound, &json!({"spec": {"resources": {"requests": {"storage": "1Mi"}}}}));
        assert_eq!(
            messages(&PersistentVolumeClaim.validate_update(&smaller, &bound)),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
        assert_eq!(PersistentVolumeClaim.row(&bound, NOW)[..4], ["a", "Bound", "v", "1Gi"]);
    }
}
