//! PersistentVolume: storage in the cluster, which a PersistentVolumeClaim can be bound to.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::core::persistent_volume_claim::CLASS_ANNOTATION;
use crate::kinds::core::pod::unified_diff;
use crate::kinds::core::pod::validate::{validate_access_modes, validate_node_selector, validate_volume_source};
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::tree::{
    entries, fill, fill_text, immutable, is_empty, items, length, remove, semantically_equal, text,
};
use crate::kinds::{Subresource, WriteContext, names};
use crate::names::is_dns1123_subdomain;
use crate::quantity::Quantity;

/// `v1 PersistentVolume`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["pv"]),
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::new("Capacity", "string", "How much it holds."),
            Column::new("Access Modes", "string", "How it may be mounted."),
            Column::new("Reclaim Policy", "string", "What becomes of it when its claim is gone."),
            Column::new("Status", "string", "Whether it is bound."),
            Column::new("Claim", "string", "The claim that it is bound to."),
            Column::new("StorageClass", "string", "The class that it belongs to."),
            Column::new("VolumeAttributesClass", "string", "The class of its changeable properties."),
            Column::new("Reason", "string", "Why it is in its state."),
            Column::age(),
            Column::new("VolumeMode", "string", "Whether it is a file system or a block device.").wide(),
        ],
        ..Kind::new(
            V1,
            "PersistentVolume",
            "persistentvolumes",
            "io.k8s.api.core.v1.PersistentVolume",
            PersistentVolume,
        )
    }
}

/// The sources that a volume can have, in upstream's order, and what each is called in messages.
const SOURCES: [(&str, &str); 22] = [
    ("hostPath", "hostPath"),
    ("gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("nfs", "nfs"),
    ("rbd", "rbd"),
    ("quobyte", "quobyte"),
    ("cephfs", "cephfs"),
    ("iscsi", "iscsi"),
    ("cinder", "cinder"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO"),
    ("local", "local"),
    ("storageos", "storageos"),
    ("csi", "csi"),
];

struct PersistentVolume;

impl Strategy for PersistentVolume {
    /// `SetDefaults_PersistentVolume`
    fn default(&self, object: &mut Value) {
        fill_text(&mut object["status"], "phase", "Pending");
        fill_text(&mut object["spec"], "persistentVolumeReclaimPolicy", "Retain");
        fill(&mut object["spec"], "volumeMode", "Filesystem");
        if object["spec"]["hostPath"].is_object() {
            fill(&mut object["spec"]["hostPath"], "type", "");
        }
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        object["status"] = json!({ "phase": "Pending", "lastPhaseTransitionTime": context.now });
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value, context: &WriteContext<'_>) {
        let field = "lastPhaseTransitionTime";
        let (was, status) = (&old["status"], &mut object["status"]);
        let moved = status["phase"] != was["phase"];
        if !moved && status[field].is_null() && !was[field].is_null() {
            status[field] = was[field].clone();
        } else if moved && (status[field].is_null() || status[field] == was[field]) {
            status[field] = context.now.into();
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_spec(&object["spec"], &Path::new("spec"))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        let source = |object: &Value| -> Value {
            let all = SOURCES.iter().filter(|(field, _)| !object["spec"][*field].is_null());
            Value::Object(all.map(|(field, _)| ((*field).to_owned(), object["spec"][*field].clone())).collect())
        };
        let (mut new, was) = (source(object), source(old));
        if was["csi"].is_object() && is_empty(&was["csi"]["controllerExpandSecretRef"]) && new["csi"].is_object() {
            remove(&mut new["csi"], "controllerExpandSecretRef");
        }
        if !semantically_equal(&new, &was) {
            let message =
                format!("spec.persistentvolumesource is immutable after creation\n{}", unified_diff(&was, &new));
            errors.push(Error::forbidden(&Path::new("spec").child("persistentvolumesource"), message));
        }
        let (spec, before) = (&object["spec"], &old["spec"]);
        errors.extend(immutable(&spec["volumeMode"], &before["volumeMode"], &Path::new("volumeMode")));
        if !before["nodeAffinity"].is_null() {
            let path = Path::new("nodeAffinity");
            errors.extend(immutable(&spec["nodeAffinity"], &before["nodeAffinity"], &path));
        }
        if !before["volumeAttributesClassName"].is_null() && spec["volumeAttributesClassName"].is_null() {
            let path = Path::new("spec").child("volumeAttributesClassName");
            errors.push(Error::forbidden(&path, "update from non-nil value to nil is forbidden"));
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let claim = &spec["claimRef"];
        let claim = if claim.is_object() {
            format!("{}/{}", text(&claim["namespace"]), text(&claim["name"]))
        } else {
            String::new()
        };
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        let class = object["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
        vec![
            name_cell(object),
            spec["capacity"]["storage"].as_str().unwrap_or("0").into(),
            access_modes_cell(&spec["accessModes"]).into(),
            text(&spec["persistentVolumeReclaimPolicy"]).into(),
            if deleting { "Terminating" } else { text(&status["phase"]) }.into(),
            claim.into(),
            class.unwrap_or_else(|| text(&spec["storageClassName"])).into(),
            spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>").into(),
            text(&status["reason"]).into(),
            age_cell(object, now),
            spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
        ]
    }
}

/// Access modes by their short names, each once, in a fixed order (`GetAccessModesAsString`).
pub(in crate::kinds) fn access_modes_cell(modes: &Value) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let there = short.iter().filter(|(mode, _)| items(modes).iter().any(|given| given == mode));
    there.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// `ValidatePersistentVolumeSpec`
fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_access_modes(&spec["accessModes"], "", &path.child("accessModes"));
    errors.extend(validate_capacity(&spec["capacity"], &path.child("capacity")));
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = text(&spec["persistentVolumeReclaimPolicy"]);
    let at = path.child("persistentVolumeReclaimPolicy");
    if !policy.is_empty() && !policies.contains(&policy) {
        errors.push(Error::not_supported(&at, policy, &policies));
    }
    let affinity = &spec["nodeAffinity"];
    if affinity.is_object() {
        let at = path.child("nodeAffinity").child("required");
        if affinity["required"].is_null() {
            errors.push(Error::required(&at, "must specify required node constraints"));
        } else {
            errors.extend(validate_node_selector(&affinity["required"], &at));
        }
    }
    let mut sources = 0;
    for (field, shown) in SOURCES.iter().filter(|(field, _)| !spec[*field].is_null()) {
        sources += 1;
        if sources > 1 {
            errors.push(Error::forbidden(&path.child(field), "may not specify more than 1 volume type"));
            continue;
        }
        errors.extend(validate_source(field, &spec[*field], &path.child(shown)));
        if *field == "local" && affinity.is_null() {
            errors.push(Error::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
    if sources == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    let root = text(&spec["hostPath"]["path"]);
    if policy == "Recycle" && !root.is_empty() && root.bytes().all(|byte| byte == b'/') {
        errors.push(Error::forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    let name = |field: &str, errors: &mut ErrorList| {
        let value = text(&spec[field]);
        if !value.is_empty() {
            let messages = is_dns1123_subdomain(value).into_iter();
            errors.extend(messages.map(|message| Error::invalid(&path.child(field), value, message)));
        }
    };
    name("storageClassName", &mut errors);
    let mode = text(&spec["volumeMode"]);
    if !spec["volumeMode"].is_null() && !["Block", "Filesystem"].contains(&mode) {
        errors.push(Error::not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]));
    }
    if let Some(class) = spec["volumeAttributesClassName"].as_str() {
        if class.is_empty() {
            let at = path.child("volumeAttributesClassName");
            errors.push(Error::required(&at, "an empty string is disallowed"));
        }
        name("volumeAttributesClassName", &mut errors);
        if spec["csi"].is_null() {
            let message = "has to be specified when using volumeAttributesClassName";
            errors.push(Error::required(&path.child("csi"), message));
        }
    }
    errors
}

fn validate_capacity(capacity: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if length(capacity) == 0 {
        errors.push(Error::required(path, ""));
    }
    if capacity["storage"].is_null() || length(capacity) > 1 {
        errors.push(Error::not_supported(path, capacity.clone(), &["storage"]));
    }
    for (name, quantity) in entries(capacity) {
        if let Some(quantity) = Quantity::from_value(quantity).ok().filter(|quantity| *quantity <= Quantity::ZERO) {
            let at = path.key(name);
            errors.push(Error::invalid(&at, quantity.to_string(), "must be greater than zero"));
        }
    }
    errors
}

fn validate_source(kind: &str, source: &Value, path: &Path) -> ErrorList {
    let required = |fields: &[&str]| -> ErrorList {
        let missing = fields.iter().filter(|field| text(&source[**field]).is_empty());
        missing.map(|field| Error::required(&path.child(field), "")).collect()
    };
    match kind {
        "local" => {
            let mut errors = required(&["path"]);
            if text(&source["path"]).split('/').any(|part| part == "..") {
                let message = "must not contain '..'";
                errors.push(Error::invalid(&path.child("path"), source["path"].clone(), message));
            }
            errors
        }
        "csi" => {
            let mut errors = validate_driver_name(text(&source["driver"]), &path.child("driver"));
            errors.extend(required(&["volumeHandle"]));
            let secrets = [
                "controllerPublishSecretRef",
                "controllerExpandSecretRef",
                "nodePublishSecretRef",
                "nodeExpandSecretRef",
            ];
            for field in secrets.iter().filter(|field| source[**field].is_object()) {
                for part in ["name", "namespace"] {
                    if text(&source[*field][part]).is_empty() {
                        errors.push(Error::required(&path.child(field).child(part), ""));
                    }
                }
            }
            errors
        }
        // Their secrets are references with a namespace here, unlike in pods.
        "flexVolume" => required(&["driver"]),
        "azureFile" => required(&["secretName", "shareName"]),
        "scaleIO" => required(&["gateway", "system", "volumeName"]),
        "cinder" => required(&["volumeID"]),
        "storageos" => required(&["volumeName"]),
        _ => validate_volume_source(kind, source, path),
    }
}

/// `ValidateCSIDriverName`
pub(in crate::kinds) fn validate_driver_name(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    if name.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    let messages = is_dns1123_subdomain(&name.to_ascii_lowercase()).into_iter();
    errors.extend(messages.map(|message| Error::invalid(path, name, message)));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let mut object = json!({
            "metadata": {"name": "v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}},
        });
        PersistentVolume.default(&mut object);
        object
    }

    #[test]
    fn mistakes_are_named() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (json!({"spec": {"hostPath": null}}), vec!["spec: Required value: must specify a volume type"]),
            (
                json!({"spec": {"nfs": {"server": "s", "path": "/"}}}),
                vec!["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                json!({"spec": {"hostPath": null, "local": {"path": "/d"}}}),
                vec!["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                json!({"spec": {"persistentVolumeReclaimPolicy": "Burn"}}),
                vec![
                    "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Burn\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
                ],
            ),
        ] {
            let errors = PersistentVolume.validate_create(&mutated(&base(), &mutation));
            assert_eq!(messages(&errors), expected, "{mutation}");
        }
    }

    #[test]
    fn a_source_is_for_good() {
        let moved = mutated(&base(), &json!({"spec": {"hostPath": {"path": "/other"}}}));
        let errors = messages(&PersistentVolume.validate_update(&moved, &base()));
        assert!(
            errors[0].starts_with("spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable")
        );
        assert_eq!(PersistentVolume.row(&base(), NOW)[..5], ["v", "1Gi", "RWO", "Retain", "Pending"]);
    }
}
