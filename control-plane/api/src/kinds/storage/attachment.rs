//! VolumeAttachment: the wish that a volume be attached to a node.

use serde_json::{Value, json};

use super::V1;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::persistent_volume::validate_driver_name;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::form;
use crate::kinds::tree::{entries, flag, immutable, text};
use crate::kinds::{Subresource, WriteContext};
use crate::names::is_dns1123_subdomain;

/// `storage.k8s.io/v1 VolumeAttachment`
#[must_use]
pub fn volume_attachment() -> Kind {
    Kind {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::new("Attacher", "string", "The driver that attaches."),
            Column::new("PV", "string", "The volume."),
            Column::new("Node", "string", "The node."),
            Column::new("Attached", "boolean", "Whether it is done."),
            Column::age(),
        ],
        ..Kind::new(
            V1,
            "VolumeAttachment",
            "volumeattachments",
            "io.k8s.api.storage.v1.VolumeAttachment",
            VolumeAttachment,
        )
    }
}

struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({ "attached": false });
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = validate_driver_name(text(&spec["attacher"]), &path.child("attacher"));
        let (source, at) = (&spec["source"], path.child("source"));
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (source["persistentVolumeName"].as_str(), source["inlineVolumeSpec"].is_null()) {
            (None, true) => errors.push(Error::required(&at, ONE)),
            (Some(_), false) => errors.push(Error::forbidden(&at, ONE)),
            (Some(""), true) => {
                let message = "must specify non empty persistentVolumeName";
                errors.push(Error::required(&at.child("persistentVolumeName"), message));
            }
            (Some(name), true) => {
                let at = Path::new("spec.source.persistentVolumeName");
                errors.extend(form(name, &at, is_dns1123_subdomain));
            }
            (None, false) => {
                if source["inlineVolumeSpec"]["csi"].is_null() {
                    let message = "has to be specified in the context of inline volumes";
                    errors.push(Error::required(&at.child("inlineVolumeSpec").child("csi"), message));
                }
            }
        }
        errors.extend(form(text(&spec["nodeName"]), &path.child("nodeName"), is_dns1123_subdomain));
        errors.extend(validate_status(&object["status"]));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        errors.extend(immutable(&object["spec"], &old["spec"], &Path::new("spec")));
        errors
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        validate_status(&object["status"])
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            name_cell(object),
            text(&spec["attacher"]).into(),
            text(&spec["source"]["persistentVolumeName"]).into(),
            text(&spec["nodeName"]).into(),
            flag(&object["status"]["attached"]).into(),
            age_cell(object, now),
        ]
    }
}

fn validate_status(status: &Value) -> ErrorList {
    const LARGEST: usize = 256 * 1024;
    const LONGEST: usize = 1024;
    let path = Path::new("status");
    let mut errors = ErrorList::new();
    let size: usize = entries(&status["attachmentMetadata"]).map(|(key, value)| key.len() + text(value).len()).sum();
    if size > LARGEST {
        errors.push(Error::too_long(&path.child("attachmentMetadata"), LARGEST));
    }
    for field in ["attachError", "detachError"] {
        let (error, at) = (&status[field], path.child(field));
        if text(&error["message"]).len() > LONGEST {
            errors.push(Error::too_long(&at.child("message"), LONGEST));
        }
        if let Some(code) = error["errorCode"].as_i64().filter(|code| *code < 0) {
            let message = "must be between 0 and 2147483647, inclusive";
            errors.push(Error::invalid(&at.child("errorCode"), code, message));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn an_attachment_is_of_one_volume() {
        let object = json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
        assert_eq!(messages(&VolumeAttachment.validate_create(&object)), Vec::<String>::new());
        let object = json!({"spec": {"attacher": "a", "nodeName": "n", "source": {}}});
        assert_eq!(
            messages(&VolumeAttachment.validate_create(&object)),
            ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]
        );
    }
}
