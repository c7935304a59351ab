//! RoleBinding and ClusterRoleBinding: who has the rights of a role.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::rbac::{GROUP, V1};
use crate::kinds::tree::{fill_text, immutable, items, items_mut, text};
use crate::names::{is_dns1123_subdomain, is_path_segment};

/// `rbac.authorization.k8s.io/v1 RoleBinding`
#[must_use]
pub fn role_binding() -> Kind {
    Kind {
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Role", "string", "The role that is given."),
            Column::age(),
            Column::new("Users", "string", "The users who get it.").wide(),
            Column::new("Groups", "string", "The groups that get it.").wide(),
            Column::new("ServiceAccounts", "string", "The service accounts that get it.").wide(),
        ],
        ..Kind::new(V1, "RoleBinding", "rolebindings", "io.k8s.api.rbac.v1.RoleBinding", Binding(Scope::Namespaced))
    }
}

/// `rbac.authorization.k8s.io/v1 ClusterRoleBinding`
#[must_use]
pub fn cluster_role_binding() -> Kind {
    Kind {
        scope: Scope::Cluster,
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Role", "string", "The role that is given."),
            Column::age(),
            Column::new("Users", "string", "The users who get it.").wide(),
            Column::new("Groups", "string", "The groups that get it.").wide(),
            Column::new("ServiceAccounts", "string", "The service accounts that get it.").wide(),
        ],
        ..Kind::new(
            V1,
            "ClusterRoleBinding",
            "clusterrolebindings",
            "io.k8s.api.rbac.v1.ClusterRoleBinding",
            Binding(Scope::Cluster),
        )
    }
}

/// Both kinds have the same rules, but for what they may refer to.
struct Binding(Scope);

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        fill_text(&mut object["roleRef"], "apiGroup", GROUP);
        for subject in items_mut(object, "subjects") {
            if matches!(text(&subject["kind"]), "User" | "Group") {
                fill_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = self.validate_role(&object["roleRef"]);
        let path = Path::new("subjects");
        for (index, subject) in items(&object["subjects"]).iter().enumerate() {
            errors.extend(self.validate_subject(subject, &path.index(index)));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        errors.extend(immutable(&object["roleRef"], &old["roleRef"], &Path::new("roleRef")));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let role = format!("{}/{}", text(&object["roleRef"]["kind"]), text(&object["roleRef"]["name"]));
        let subjects = |kind: &str| {
            let of_kind = items(&object["subjects"]).iter().filter(|subject| subject["kind"] == kind);
            let names = of_kind.map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(&subject["namespace"]), text(&subject["name"])),
                _ => text(&subject["name"]).to_owned(),
            });
            Value::from(names.collect::<Vec<_>>().join(", "))
        };
        let (users, groups, accounts) = (subjects("User"), subjects("Group"), subjects("ServiceAccount"));
        vec![name_cell(object), role.into(), age_cell(object, now), users, groups, accounts]
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        is_path_segment(name, false)
    }
}

impl Binding {
    fn validate_role(&self, role: &Value) -> ErrorList {
        let path = Path::new("roleRef");
        let mut errors = ErrorList::new();
        if text(&role["apiGroup"]) != GROUP {
            errors.push(Error::not_supported(&path.child("apiGroup"), text(&role["apiGroup"]), &[GROUP]));
        }
        let kinds: &[&str] = match self.0 {
            Scope::Namespaced => &["Role", "ClusterRole"],
            Scope::Cluster => &["ClusterRole"],
        };
        if !kinds.contains(&text(&role["kind"])) {
            errors.push(Error::not_supported(&path.child("kind"), text(&role["kind"]), kinds));
        }
        let name = text(&role["name"]);
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        let messages = is_path_segment(name, false);
        errors.extend(messages.into_iter().map(|message| Error::invalid(&path.child("name"), name, message)));
        errors
    }

    fn validate_subject(&self, subject: &Value, path: &Path) -> ErrorList {
        let mut errors = ErrorList::new();
        let (name, group) = (text(&subject["name"]), text(&subject["apiGroup"]));
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        match text(&subject["kind"]) {
            "ServiceAccount" => {
                if !name.is_empty() {
                    let messages = is_dns1123_subdomain(name);
                    errors
                        .extend(messages.into_iter().map(|message| Error::invalid(&path.child("name"), name, message)));
                }
                if !group.is_empty() {
                    errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
                }
                if self.0 == Scope::Cluster && text(&subject["namespace"]).is_empty() {
                    errors.push(Error::required(&path.child("namespace"), ""));
                }
            }
            "User" | "Group" if group != GROUP => {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
            "User" | "Group" => {}
            other => {
                errors.push(Error::not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn base() -> Value {
        json!({
            "metadata": {"name": "b"},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "view"},
            "subjects": [
                {"kind": "User", "name": "ann", "apiGroup": GROUP},
                {"kind": "ServiceAccount", "name": "sa", "namespace": "ns"},
            ],
        })
    }

    #[test]
    fn groups_are_filled_in_for_people_only() {
        let mut object =
            json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "Group"}, {"kind": "ServiceAccount"}]});
        role_binding().strategy.default(&mut object);
        assert_eq!(
            object,
            json!({
                "roleRef": {"kind": "Role", "apiGroup": GROUP},
                "subjects": [{"kind": "Group", "apiGroup": GROUP}, {"kind": "ServiceAccount"}],
            })
        );
    }

    #[test]
    fn references_and_subjects_are_of_known_kinds() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"roleRef": {"kind": "Role", "name": ""}}),
                vec![
                    "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                    "roleRef.name: Required value",
                ],
            ),
            (
                json!({"subjects": [{"kind": "ServiceAccount", "name": "sa"}]}),
                vec!["subjects[0].namespace: Required value"],
            ),
            (
                json!({"subjects": [{"kind": "Robot", "name": "r"}]}),
                vec![
                    "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                ],
            ),
        ] {
            assert_eq!(
                messages(&cluster_role_binding().strategy.validate_create(&mutated(&base(), &mutation))),
                expected
            );
        }
        let namespaced = mutated(
            &base(),
            &json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "ServiceAccount", "name": "sa"}]}),
        );
        assert!(role_binding().strategy.validate_create(&namespaced).is_empty());
    }

    #[test]
    fn the_role_stays() {
        let object = mutated(&base(), &json!({"roleRef": {"name": "edit"}}));
        assert_eq!(
            messages(&role_binding().strategy.validate_update(&object, &base())),
            [format!(
                "roleRef: Invalid value: {{\"apiGroup\":\"{GROUP}\",\"kind\":\"ClusterRole\",\"name\":\"edit\"}}: field is immutable"
            )]
        );
    }

    #[test]
    fn a_row_lists_the_subjects_by_kind() {
        let cells = role_binding().strategy.row(&base(), NOW);
        assert_eq!(cells, ["b", "ClusterRole/view", "<unknown>", "ann", "", "ns/sa"]);
    }
}
