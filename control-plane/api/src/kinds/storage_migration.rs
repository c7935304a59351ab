//! The group `storagemigration.k8s.io`: StorageVersionMigration, the wish that all objects of a resource be written again.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::name_cell;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy, Subresource, WriteContext};
use crate::kinds::fields::conditions;
use crate::kinds::tree::{IMMUTABLE, immutable, items, text};
use crate::names::{is_dns1035_label, is_dns1123_subdomain};

/// `storagemigration.k8s.io/v1 StorageVersionMigration`
#[must_use]
pub fn storage_version_migration() -> Kind {
    Kind {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        unconditional_update: false,
        columns: vec![
            // Without the format `name`, as upstream has it.
            Column::new("Name", "string", "The migration's name."),
            Column::new("Resource", "string", "The resource whose objects are written again."),
            Column::new("Status", "string", "How far it is."),
        ],
        ..Kind::new(
            GroupVersion::new("storagemigration.k8s.io", "v1"),
            "StorageVersionMigration",
            "storageversionmigrations",
            "io.k8s.api.storagemigration.v1.StorageVersionMigration",
            Migration,
        )
    }
}

struct Migration;

impl Strategy for Migration {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (resource, path) = (&object["spec"]["resource"], Path::new("spec").child("resource"));
        let mut errors = ErrorList::new();
        let (name, at) = (text(&resource["resource"]), path.child("resource"));
        if name.is_empty() {
            errors.push(Error::required(&at, "resource is required to be set"));
        } else {
            errors.extend(joined(name, &at, is_dns1035_label));
        }
        let (group, at) = (text(&resource["group"]), path.child("group"));
        if !group.is_empty() {
            errors.extend(joined(group, &at, is_dns1123_subdomain));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        errors.extend(immutable(&object["spec"], &old["spec"], &Path::new("spec")));
        errors
    }

    /// `ValidateStorageVersionMigrationStatusUpdate`: an end is an end, and there is one of them.
    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        let (status, was, path) = (&object["status"], &old["status"], Path::new("status"));
        let [version, version_was] = [status, was].map(|status| text(&status["resourceVersion"]));
        let mut errors: ErrorList = validate_version(version, &path.child("resourceVersion")).into_iter().collect();
        errors.extend(conditions(&status["conditions"], &path.child("conditions")));
        if !version_was.is_empty() && version != version_was {
            errors.push(Error::invalid(&path.child("resourceVersion"), version, IMMUTABLE));
        }
        let mut wrong = |detail: &str| {
            errors.push(Error::invalid(&path.child("conditions"), status["conditions"].clone(), detail));
        };
        if is_true(status, "Succeeded") && is_true(status, "Failed") {
            wrong("Both success and failed conditions cannot be true at the same time");
        }
        if is_true(was, "Succeeded") && !is_true(status, "Succeeded") {
            wrong("Success condition cannot be set to false once it is true");
        }
        if is_true(was, "Failed") && !is_true(status, "Failed") {
            wrong("Failed condition cannot be set to false once it is true");
        }
        errors
    }

    fn row(&self, object: &Value, _: i64) -> Vec<Value> {
        let resource = &object["spec"]["resource"];
        let resource = match (text(&resource["resource"]), text(&resource["group"])) {
            (resource, "") => resource.to_owned(),
            (resource, group) => format!("{resource}.{group}"),
        };
        let known = ["Running", "Failed", "Succeeded"];
        let shown = items(&object["status"]["conditions"])
            .iter()
            .rev()
            .find(|condition| condition["status"] == "True" && known.contains(&text(&condition["type"])));
        let shown = shown.map_or("Unknown", |condition| text(&condition["type"]));
        vec![name_cell(object), resource.into(), shown.into()]
    }
}

/// Whether the first condition of a type is true.
fn is_true(status: &Value, type_: &str) -> bool {
    let condition = items(&status["conditions"]).iter().find(|condition| condition["type"] == type_);
    condition.is_some_and(|condition| condition["status"] == "True")
}

/// All that is wrong with a text's form, as one error.
fn joined(value: &str, path: &Path, check: fn(&str) -> Vec<String>) -> Option<Error> {
    let messages = check(value);
    (!messages.is_empty()).then(|| Error::invalid(path, value, messages.join(",")))
}

/// `resourceversion.CompareResourceVersion`: digits, not beginning with 0.
fn validate_version(version: &str, path: &Path) -> Option<Error> {
    let well_formed = !version.starts_with('0') && version.bytes().all(|digit| digit.is_ascii_digit());
    (!well_formed).then(|| Error::invalid(path, version, format!("resource version is not well formed: {version}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        json!({"metadata": {"name": "m"}, "spec": {"resource": {"group": "apps", "resource": "deployments"}}})
    }

    fn ended(type_: &str, status: &str) -> Value {
        let condition =
            json!({"type": type_, "status": status, "reason": "R", "lastTransitionTime": "2026-11-24T09:00:00Z"});
        mutated(&base(), &json!({"status": {"conditions": [condition], "resourceVersion": "7"}}))
    }

    #[test]
    fn a_migration_is_of_one_resource_for_good() {
        assert_eq!(messages(&Migration.validate_create(&base())), Vec::<String>::new());
        assert_eq!(
            messages(&Migration.validate_create(&json!({}))),
            ["spec.resource.resource: Required value: resource is required to be set"]
        );
        let other = mutated(&base(), &json!({"spec": {"resource": {"resource": "replicasets"}}}));
        let errors = messages(&Migration.validate_update(&other, &base()));
        assert!(errors.len() == 1 && errors[0].ends_with("field is immutable"), "{errors:?}");
    }

    #[test]
    fn what_has_ended_stays_ended() {
        let done = ended("Succeeded", "True");
        assert_eq!(Migration.row(&done, NOW)[1..], [json!("deployments.apps"), json!("Succeeded")]);
        assert_eq!(messages(&Migration.validate_status_update(&done, &base())), Vec::<String>::new());
        let errors = messages(&Migration.validate_status_update(&ended("Succeeded", "False"), &done));
        assert!(errors.len() == 1 && errors[0].contains("cannot be set to false"), "{errors:?}");
        let moved = mutated(&done, &json!({"status": {"resourceVersion": "8"}}));
        assert_eq!(
            messages(&Migration.validate_status_update(&moved, &done)),
            ["status.resourceVersion: Invalid value: \"8\": field is immutable"]
        );
    }
}
