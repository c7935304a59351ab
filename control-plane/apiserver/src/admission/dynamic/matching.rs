//! Which webhooks and policies a request is for: rules, scopes, selectors, and `matchPolicy: Equivalent`
//! (k8s.io/apiserver/pkg/admission/plugin/webhook/predicates).

use std::sync::Arc;

use serde_json::Value;
use skep_api::kinds::Kind;
use skep_api::selector::LabelSelector;
use skep_api::{GroupResource, Status};

use super::{Attributes, Resource};
use crate::admission::{Objects, Operation};
use crate::registry::Table;

/// A `RuleWithOperations`, with the names that a policy's may have.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    names: Vec<String>,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Rule {
    pub(crate) fn list(rules: &Value) -> Vec<Self> {
        let of = |rule: &Value| Self {
            operations: texts(&rule["operations"]),
            groups: texts(&rule["apiGroups"]),
            versions: texts(&rule["apiVersions"]),
            resources: texts(&rule["resources"]),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
            names: texts(&rule["resourceNames"]),
        };
        rules.as_array().into_iter().flatten().map(of).collect()
    }

    /// Whether a request is meant, would it be for `resource`.
    fn matches(&self, attributes: &Attributes<'_>, resource: &Resource) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let of_namespaces = resource.group.is_empty() && resource.plural == "namespaces";
        let in_namespace = !of_namespaces && !attributes.namespace.is_empty();
        let scope = match self.scope.as_str() {
            "Namespaced" => in_namespace,
            "Cluster" => !in_namespace,
            _ => true,
        };
        let resources = self.resources.iter().any(|pattern| {
            let (plural, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
            (plural == "*" || plural == resource.plural)
                && (subresource == "*" || subresource == attributes.subresource)
        });
        scope
            && has(&self.operations, attributes.operation.as_str())
            && has(&self.groups, &resource.group)
            && has(&self.versions, &resource.version)
            && resources
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
    }
}

/// What a webhook or a policy is for.
#[derive(Clone, Debug)]
pub(crate) struct Criteria {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
}

/// The version in which a request is for somebody.
#[derive(Clone)]
pub(crate) struct Matched {
    pub(crate) kind: Arc<Kind>,
}

impl Criteria {
    /// Reads the fields that a webhook and a `MatchResources` have in common; `rules` is the name of the first's rules or of the other's.
    pub(crate) fn from_value(value: &Value, rules: &str) -> Self {
        let selector = |field: &str| match &value[field] {
            Value::Null => LabelSelector::from_object(&Value::Object(serde_json::Map::new())),
            selector => LabelSelector::from_object(selector),
        };
        Self {
            rules: Rule::list(&value[rules]),
            excluded: Rule::list(&value["excludeResourceRules"]),
            equivalent: value["matchPolicy"].as_str() != Some("Exact"),
            namespaces: selector("namespaceSelector").map_err(|error| error.to_string()),
            objects: selector("objectSelector").map_err(|error| error.to_string()),
        }
    }

    /// Whether the selectors take a request, whatever the rules say.
    ///
    /// # Errors
    /// 404 for a namespace that is not there, 500 for a selector that is none.
    pub(crate) fn selects(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        objects: &dyn Objects,
    ) -> Result<bool, Status> {
        Ok(self.selects_namespace(attributes, object, objects)? && self.selects_object(attributes, object)?)
    }

    /// Whether a request is meant, and in which version.
    ///
    /// # Errors
    /// As [`Self::selects`], for requests that the rules mean.
    pub(crate) fn matches(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        objects: &dyn Objects,
        table: &Table,
    ) -> Result<Option<Matched>, Status> {
        if Self::first(&self.excluded, attributes, self.equivalent, table).is_some() {
            return Ok(None);
        }
        // What the rules do not mean is not asked for its namespace: an error there is none of a request for somebody else.
        let Some(kind) = Self::first(&self.rules, attributes, self.equivalent, table) else { return Ok(None) };
        Ok(self.selects(attributes, object, objects)?.then_some(Matched { kind }))
    }

    /// Whether a request that a policy is for is one of its binding too: without rules of its own it is for all of them.
    ///
    /// # Errors
    /// As [`Self::selects`].
    pub(crate) fn narrows_to(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        objects: &dyn Objects,
        table: &Table,
    ) -> Result<bool, Status> {
        if !self.rules.is_empty() {
            return self.matches(attributes, object, objects, table).map(|matched| matched.is_some());
        }
        let excluded = Self::first(&self.excluded, attributes, self.equivalent, table).is_some();
        Ok(!excluded && self.selects(attributes, object, objects)?)
    }

    fn first(rules: &[Rule], attributes: &Attributes<'_>, equivalent: bool, table: &Table) -> Option<Arc<Kind>> {
        let own = Resource::of(attributes.kind);
        if rules.iter().any(|rule| rule.matches(attributes, &own)) {
            return Some(attributes.kind.clone());
        }
        if !equivalent || rules.is_empty() {
            return None;
        }
        let others = attributes.equivalents(table);
        rules.iter().find_map(|rule| others.iter().find(|kind| rule.matches(attributes, &Resource::of(kind)))).cloned()
    }

    fn selects_namespace(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        objects: &dyn Objects,
    ) -> Result<bool, Status> {
        let of_namespaces = attributes.is_of_namespaces();
        if attributes.namespace.is_empty() && !of_namespaces {
            return Ok(true);
        }
        let selector = self.namespaces.as_ref().map_err(Status::internal)?;
        if selector.is_everything() {
            return Ok(true);
        }
        let written = matches!(attributes.operation, Operation::Create | Operation::Update);
        if of_namespaces && attributes.subresource.is_empty() && written {
            return Ok(selector.matches_object(&object["metadata"]["labels"]));
        }
        let namespaces = GroupResource::new("", "namespaces");
        let namespace = objects
            .get(&namespaces, "", attributes.namespace)
            .ok_or_else(|| Status::not_found(&namespaces, attributes.namespace))?;
        Ok(selector.matches_object(&namespace["metadata"]["labels"]))
    }

    fn selects_object(&self, attributes: &Attributes<'_>, object: &Value) -> Result<bool, Status> {
        let selector = self.objects.as_ref().map_err(Status::internal)?;
        if selector.is_everything() {
            return Ok(true);
        }
        let selected = |object: &Value| object.is_object() && selector.matches_object(&object["metadata"]["labels"]);
        Ok(selected(object) || attributes.old.is_some_and(selected))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skep_api::GroupVersionKind;
    use skep_api::gvk::Name;

    use super::*;
    use crate::auth::User;

    struct Namespaces;

    impl Objects for Namespaces {
        fn get(&self, _resource: &GroupResource, _namespace: &str, name: &str) -> Option<Arc<Value>> {
            (name == "a").then(|| Arc::new(json!({"metadata": {"labels": {"env": "test"}}})))
        }

        fn list(&self, _resource: &GroupResource, _namespace: Option<&str>) -> Vec<Arc<Value>> {
            Vec::new()
        }
    }

    struct Case {
        plural: &'static str,
        operation: Operation,
        namespace: &'static str,
        subresource: &'static str,
    }

    const POD: Case = Case { plural: "pods", operation: Operation::Create, namespace: "a", subresource: "" };

    fn judge(criteria: &Value, case: &Case, object: &Value) -> Result<Option<String>, Status> {
        let table = Table::new(skep_api::kinds::builtin());
        let kind = table.get("", "v1", case.plural).unwrap();
        let user = User::system("admin");
        let attributes = Attributes {
            kind,
            object_kind: GroupVersionKind {
                group: Name::Borrowed(""),
                version: Name::Borrowed("v1"),
                kind: kind.kind.clone(),
            },
            subresource: case.subresource,
            operation: case.operation,
            namespace: case.namespace,
            name: "x",
            user: &user,
            old: None,
            dry_run: false,
            options: Value::Null,
        };
        let matched = Criteria::from_value(criteria, "rules").matches(&attributes, object, &Namespaces, &table)?;
        Ok(matched.map(|matched| matched.kind.group_version.to_string()))
    }

    fn rule(mutation: &Value) -> Value {
        let mut rule =
            json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        for (key, value) in mutation.as_object().unwrap() {
            rule[key] = value.clone();
        }
        json!({"rules": [rule]})
    }

    #[test]
    fn rules_name_operations_resources_and_scopes() {
        for (mutation, case, expected) in [
            (json!({}), POD, true),
            (json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}), POD, true),
            (json!({"operations": ["UPDATE"]}), POD, false),
            (json!({"resources": ["pods/*"]}), POD, true),
            (json!({"resources": ["pods/status"]}), POD, false),
            (json!({"resources": ["*/status"]}), Case { subresource: "status", ..POD }, true),
            (json!({"resources": ["pods"]}), Case { subresource: "status", ..POD }, false),
            (json!({"scope": "Cluster"}), POD, false),
            (json!({"scope": "Namespaced"}), POD, true),
            (json!({"scope": "Cluster", "resources": ["*"]}), Case { plural: "namespaces", ..POD }, true),
            (json!({"scope": "Namespaced", "resources": ["*"]}), Case { plural: "namespaces", ..POD }, false),
            (json!({"scope": "Cluster", "resources": ["*"]}), Case { plural: "nodes", namespace: "", ..POD }, true),
        ] {
            let matched = judge(&rule(&mutation), &case, &json!({})).unwrap().is_some();
            assert_eq!(matched, expected, "{mutation}");
        }
    }

    #[test]
    fn an_equivalent_resource_matches_unless_the_rule_is_exact() {
        let events = Case { plural: "events", ..POD };
        let mut criteria = rule(&json!({"apiGroups": ["events.k8s.io"], "resources": ["events"]}));
        assert_eq!(judge(&criteria, &events, &json!({})).unwrap().as_deref(), Some("events.k8s.io/v1"));
        criteria["matchPolicy"] = "Exact".into();
        assert_eq!(judge(&criteria, &events, &json!({})).unwrap(), None);
    }

    #[test]
    fn selectors_look_at_the_namespace_and_at_the_object() {
        let mut criteria = rule(&json!({"resources": ["*"]}));
        criteria["namespaceSelector"] = json!({"matchLabels": {"env": "test"}});
        assert!(judge(&criteria, &POD, &json!({})).unwrap().is_some());
        let elsewhere = Case { namespace: "b", ..POD };
        assert_eq!(judge(&criteria, &elsewhere, &json!({})).unwrap_err().message, "namespaces \"b\" not found");
        let itself = Case { plural: "namespaces", namespace: "b", ..POD };
        assert!(judge(&criteria, &itself, &json!({"metadata": {"labels": {"env": "test"}}})).unwrap().is_some());
        criteria["objectSelector"] = json!({"matchLabels": {"app": "web"}});
        assert!(judge(&criteria, &POD, &json!({})).unwrap().is_none());
        assert!(judge(&criteria, &POD, &json!({"metadata": {"labels": {"app": "web"}}})).unwrap().is_some());
    }
}
