//! The roles and bindings that every cluster has from its start: upstream's bootstrap policy (plugin/pkg/auth/authorizer/rbac/bootstrappolicy), as data, and
//! Skep's own for its agents.
//!
//! `bootstrap.txt`, a line an object and an indented line a rule:
//! `ClusterRole NAME [into=AGGREGATE …] [from=AGGREGATE …]`, `Role NAME namespace=NS`, `…Binding NAME [namespace=NS] role=KIND/NAME to=KIND/[NS/]NAME …`,
//! `  verbs=… groups=… resources=… [names=…]` or `  verbs=… urls=…`; lists are separated by commas, and the empty group is core.

use serde_json::{Map, Value, json};

use super::authz::{Authorizers, Rule};

const POLICY: &str = include_str!("bootstrap.txt");
const OWN: &str = include_str!("bootstrap_skep.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// An object to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// `clusterroles`, `clusterrolebindings`, `roles` or `rolebindings`.
    pub resource: &'static str,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// What is to be there.
    pub object: Value,
}

/// Every object of the policy.
#[must_use]
pub fn objects() -> Vec<Write> {
    let mut out: Vec<Write> = Vec::new();
    for line in POLICY.lines().chain(OWN.lines()).filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(rule) => {
                if let Some(rules) = out.last_mut().and_then(|write| write.object["rules"].as_array_mut()) {
                    rules.push(read_rule(rule).to_value());
                }
            }
            None => out.push(head(line)),
        }
    }
    out
}

/// The rules of one ClusterRole of the policy.
#[must_use]
pub fn cluster_role_rules(name: &str) -> Vec<Rule> {
    let objects = objects();
    let role =
        objects.iter().find(|write| write.resource == "clusterroles" && write.object["metadata"]["name"] == name);
    role.map(|write| Rule::list(&write.object["rules"])).unwrap_or_default()
}

/// What is missing or lacks something that upstream reconciles: rules and subjects are only ever added, and an object whose autoupdate annotation says no is
/// left alone. `existing` finds an object by resource, namespace and name.
#[must_use]
pub fn reconcile(existing: &dyn Fn(&str, &str, &str) -> Option<Value>) -> Vec<Write> {
    let mut writes = Vec::new();
    for wanted in objects() {
        let name = wanted.object["metadata"]["name"].as_str().unwrap_or_default();
        match existing(wanted.resource, &wanted.namespace, name) {
            None => writes.push(wanted),
            Some(there) if there["metadata"]["annotations"][AUTOUPDATE] == "false" => {}
            Some(there) => {
                if let Some(object) = completed(&there, &wanted.object) {
                    writes.push(Write { object, ..wanted });
                }
            }
        }
    }
    writes
}

/// The aggregated ClusterRoles of `roles` whose stored rules are not those that their selectors give now, with the rules that they should have.
#[must_use]
pub fn aggregation_writes(roles: &[Value]) -> Vec<Write> {
    let authorizers = Authorizers::new();
    let name = |role: &Value| role["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    for role in roles {
        authorizers.rbac().apply("clusterroles", "", &name(role), Some(role));
    }
    let mut writes = Vec::new();
    for role in roles {
        let Some(rules) = authorizers.rbac().aggregated(&name(role)) else { continue };
        if Rule::list(&role["rules"]) == rules {
            continue;
        }
        let mut object = role.clone();
        object["rules"] = rules.iter().map(Rule::to_value).collect();
        writes.push(Write { resource: "clusterroles", namespace: String::new(), object });
    }
    writes
}

/// An existing object with what it lacks; `None` when it lacks nothing.
fn completed(there: &Value, wanted: &Value) -> Option<Value> {
    let mut object = there.clone();
    let mut changed = false;
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            if there["metadata"][field].get(key).is_none() {
                if !object["metadata"][field].is_object() {
                    object["metadata"][field] = json!({});
                }
                object["metadata"][field][key] = value.clone();
                changed = true;
            }
        }
    }
    // The rules of aggregated roles are made from others.
    let lists: &[&str] = if wanted["aggregationRule"].is_null() { &["rules", "subjects"] } else { &[] };
    for field in lists {
        for item in wanted[*field].as_array().into_iter().flatten() {
            let has = there[*field].as_array().is_some_and(|items| items.contains(item));
            if !has {
                match object[*field].as_array_mut() {
                    Some(items) => items.push(item.clone()),
                    None => object[*field] = json!([item]),
                }
                changed = true;
            }
        }
    }
    changed.then_some(object)
}

fn head(line: &str) -> Write {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let name = words.next().unwrap_or_default();
    let mut labels = Map::new();
    labels.insert("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".into());
    let mut metadata = json!({ "name": name, "annotations": { AUTOUPDATE: "true" } });
    let mut object = json!({ "apiVersion": format!("{GROUP}/v1"), "kind": kind });
    let mut namespace = String::new();
    let mut selectors = Vec::new();
    let mut subjects = Vec::new();
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "namespace" => value.clone_into(&mut namespace),
            "into" => drop(labels.insert(format!("{GROUP}/aggregate-to-{value}"), "true".into())),
            "from" => {
                let label = format!("{GROUP}/aggregate-to-{value}");
                selectors.push(json!({ "matchLabels": { label: "true" } }));
            }
            "role" => {
                let (kind, name) = value.split_once('/').unwrap_or_default();
                object["roleRef"] = json!({ "apiGroup": GROUP, "kind": kind, "name": name });
            }
            "to" => subjects.push(subject(value)),
            _ => {}
        }
    }
    metadata["labels"] = Value::Object(labels);
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.as_str().into();
    }
    object["metadata"] = metadata;
    if !selectors.is_empty() {
        object["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
    }
    let resource = match kind {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        "ClusterRoleBinding" => "clusterrolebindings",
        _ => "rolebindings",
    };
    if kind.ends_with("Binding") {
        object["subjects"] = subjects.into();
    } else {
        object["rules"] = json!([]);
    }
    Write { resource, namespace, object }
}

fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once('/').unwrap_or_default();
    match name.split_once('/').filter(|_| kind == "ServiceAccount") {
        Some((namespace, name)) => json!({ "kind": kind, "name": name, "namespace": namespace }),
        None => json!({ "apiGroup": GROUP, "kind": kind, "name": name }),
    }
}

fn read_rule(text: &str) -> Rule {
    let mut rule = Rule::default();
    for (key, value) in text.split(' ').filter_map(|word| word.split_once('=')) {
        let values = value.split(',').map(str::to_owned).collect();
        match key {
            "verbs" => rule.verbs = values,
            "groups" => rule.groups = values,
            "resources" => rule.resources = values,
            "names" => rule.names = values,
            "urls" => rule.urls = values,
            _ => {}
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_read_whole() {
        let objects = objects();
        let named = |name: &str| objects.iter().filter(|write| write.object["metadata"]["name"] == name).count();
        for name in
            ["cluster-admin", "admin", "edit", "view", "system:basic-user", "system:node", "system:kube-scheduler"]
        {
            assert!(named(name) >= 1, "{name}");
        }
        let admin = &objects.iter().find(|write| write.object["metadata"]["name"] == "cluster-admin").unwrap().object;
        assert_eq!(admin["rules"][0], json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
    }

    #[test]
    fn what_is_there_is_left_and_what_lacks_is_completed() {
        let all = objects();
        let find = |resource: &str, namespace: &str, name: &str| {
            let found = all
                .iter()
                .find(|w| w.resource == resource && w.namespace == namespace && w.object["metadata"]["name"] == name);
            found.map(|write| write.object.clone())
        };
        assert_eq!(reconcile(&find), []);
        let without = |resource: &str, namespace: &str, name: &str| {
            let mut object = find(resource, namespace, name)?;
            if name == "system:basic-user" && resource == "clusterrolebindings" {
                object["subjects"] = json!([{"kind": "User", "name": "x", "apiGroup": GROUP}]);
            }
            Some(object)
        };
        let writes = reconcile(&without);
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].object["subjects"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn aggregated_roles_are_written_with_their_rules_once() {
        let mut roles: Vec<Value> =
            objects().into_iter().filter(|w| w.resource == "clusterroles").map(|w| w.object).collect();
        let writes = aggregation_writes(&roles);
        for name in ["admin", "edit", "view"] {
            let write = writes.iter().find(|write| write.object["metadata"]["name"] == name).unwrap();
            assert!(!write.object["rules"].as_array().unwrap().is_empty(), "{name}");
        }
        for write in writes {
            let there = roles.iter_mut().find(|r| r["metadata"]["name"] == write.object["metadata"]["name"]).unwrap();
            *there = write.object;
        }
        assert_eq!(aggregation_writes(&roles), []);
    }
}
