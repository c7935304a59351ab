//! Role and ClusterRole: rights with a name.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::declaration::{Kind, Scope, Strategy};
use crate::kinds::rbac::V1;
use crate::kinds::tree::{is_empty, items};
use crate::meta::validate_label_selector;
use crate::names::is_path_segment;

/// `rbac.authorization.k8s.io/v1 Role`
#[must_use]
pub fn role() -> Kind {
    Kind { create_on_update: true, ..Kind::new(V1, "Role", "roles", "io.k8s.api.rbac.v1.Role", Role) }
}

/// `rbac.authorization.k8s.io/v1 ClusterRole`
#[must_use]
pub fn cluster_role() -> Kind {
    Kind {
        scope: Scope::Cluster,
        create_on_update: true,
        ..Kind::new(V1, "ClusterRole", "clusterroles", "io.k8s.api.rbac.v1.ClusterRole", ClusterRole)
    }
}

struct Role;

impl Strategy for Role {
    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_rules(object, Scope::Namespaced)
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        is_path_segment(name, false)
    }
}

struct ClusterRole;

impl Strategy for ClusterRole {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_rules(object, Scope::Cluster);
        let rule = &object["aggregationRule"];
        if !rule.is_null() {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = items(&rule["clusterRoleSelectors"]);
            if selectors.is_empty() {
                let message = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(Error::required(&path, message));
            }
            for (index, selector) in selectors.iter().enumerate() {
                errors.extend(validate_label_selector(selector, &path.index(index)));
            }
        }
        errors
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        is_path_segment(name, false)
    }
}

fn validate_rules(object: &Value, scope: Scope) -> ErrorList {
    let path = Path::new("rules");
    let rules = items(&object["rules"]).iter().enumerate();
    rules.flat_map(|(index, rule)| validate_rule(rule, scope, &path.index(index))).collect()
}

/// What is wrong with a rule (`ValidatePolicyRule`).
fn validate_rule(rule: &Value, scope: Scope, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if is_empty(&rule["verbs"]) {
        errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if !is_empty(&rule["nonResourceURLs"]) {
        let path = path.child("nonResourceURLs");
        let urls = &rule["nonResourceURLs"];
        if scope == Scope::Namespaced {
            let message = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&path, urls.clone(), message));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !is_empty(&rule[*field])) {
            let message = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&path, urls.clone(), message));
        }
        return errors;
    }
    if is_empty(&rule["apiGroups"]) {
        errors.push(Error::required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if is_empty(&rule["resources"]) {
        errors.push(Error::required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;
    use serde_json::json;

    #[test]
    fn a_rule_is_about_resources_or_urls() {
        for (rule, in_role, in_cluster_role) in [
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), vec![], vec![]),
            (
                json!({}),
                vec![
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ],
                vec![
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ],
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
                vec![
                    "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs",
                ],
                vec![],
            ),
        ] {
            let object = json!({"rules": [rule]});
            assert_eq!(messages(&role().strategy.validate_create(&object)), in_role);
            assert_eq!(messages(&cluster_role().strategy.validate_create(&object)), in_cluster_role);
        }
    }

    #[test]
    fn aggregation_selects_something() {
        let object = json!({"aggregationRule": {}});
        assert_eq!(
            messages(&cluster_role().strategy.validate_create(&object)),
            [
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ]
        );
    }

    #[test]
    fn a_name_may_hold_colons() {
        assert!(cluster_role().strategy.validate_name("system:node", false).is_empty());
        assert_eq!(role().strategy.validate_name("a/b", false), ["may not contain '/'"]);
    }
}
