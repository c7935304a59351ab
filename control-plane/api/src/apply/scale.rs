//! The owners of an object's replica count, as those of its Scale, and back (k8s.io/apimachinery/pkg/util/managedfields/scalehandler.go).

use super::element;
use super::fields::Fields;
use super::managers::{Entry, Managers};

const SCALE: &str = "autoscaling/v1";

fn in_scale() -> Fields {
    Fields::named(&[&["spec", "replicas"]])
}

/// Whether both are the same manager, whatever the version that its fields are of.
fn same(a: &Entry, b: &Entry) -> bool {
    a.manager == b.manager && a.operation == b.operation && a.subresource == b.subresource
}

/// The owners of a Scale: those of the object who own its replica count, which is at `path` (such as `["spec", "replicas"]`).
#[must_use]
pub fn scale_managers(parent: &Managers, path: &[&str]) -> Managers {
    let elements: Vec<String> = path.iter().map(|name| element::field(name)).collect();
    let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
    let owners = parent.iter().filter(|entry| entry.fields.contains(&elements)).map(|entry| Entry {
        api_version: SCALE.to_owned(),
        fields: in_scale(),
        ..entry.clone()
    });
    Managers::from_entries(owners.collect())
}

/// The owners of the object after its Scale was written, whose version is `api_version`.
#[must_use]
pub fn parent_managers(parent: Managers, scale: Managers, path: &[&str], api_version: &str) -> Managers {
    let replicas = Fields::named(&[path]);
    let elements: Vec<String> = path.iter().map(|name| element::field(name)).collect();
    let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
    let mut parent = parent;
    let mut scale = scale;
    let mut out = Vec::new();
    for mut entry in parent.entries_mut().drain(..) {
        if entry.fields.contains(&elements) {
            match scale.entries_mut().iter().position(|there| same(there, &entry)) {
                Some(at) => {
                    scale.entries_mut().remove(at);
                }
                None => entry.fields.subtract(&replicas),
            }
        }
        if !entry.fields.is_empty() {
            out.push(entry);
        }
    }
    // Upstream has no times for those that come by a Scale.
    for entry in scale.entries_mut().drain(..).filter(|entry| !entry.fields.is_empty()) {
        let entry = Entry { api_version: api_version.to_owned(), fields: replicas.clone(), time: None, ..entry };
        match out.iter_mut().find(|there: &&mut Entry| there.is_of(&entry)) {
            Some(there) => there.fields.add(&entry.fields),
            None => out.push(entry),
        }
    }
    Managers::from_entries(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn managers() -> Managers {
        let entry = |manager: &str, fields: serde_json::Value| json!({"manager": manager, "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
        Managers::parse(&[
            entry("a", json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})),
            entry("b", json!({"f:spec": {"f:paused": {}}})),
        ])
        .unwrap()
    }

    #[test]
    fn a_scale_is_owned_by_who_owns_the_replicas() {
        let scale = scale_managers(&managers(), &["spec", "replicas"]);
        let names: Vec<&str> = scale.iter().map(|entry| entry.manager.as_str()).collect();
        assert_eq!(names, ["a"]);
        assert_eq!(scale.iter().next().unwrap().api_version, "autoscaling/v1");
    }

    #[test]
    fn who_writes_the_scale_takes_the_replicas_and_nothing_else() {
        let path = ["spec", "replicas"];
        let mut taken = scale_managers(&managers(), &path);
        let entry = &mut taken.entries_mut()[0];
        "hpa".clone_into(&mut entry.manager);
        "scale".clone_into(&mut entry.subresource);
        let after = parent_managers(managers(), taken, &path, "apps/v1");
        let owned: Vec<(&str, Vec<String>)> =
            after.iter().map(|entry| (entry.manager.as_str(), entry.fields.paths())).collect();
        assert_eq!(
            owned,
            [
                ("a", vec![".spec.paused".to_owned()]),
                ("b", vec![".spec.paused".to_owned()]),
                ("hpa", vec![".spec.replicas".to_owned()])
            ]
        );
    }

    #[test]
    fn a_scale_that_nobody_wrote_changes_nothing() {
        let path = ["spec", "replicas"];
        assert_eq!(parent_managers(managers(), scale_managers(&managers(), &path), &path, "apps/v1"), managers());
    }
}
