//! RBAC's guard: nobody gives rights that they do not have (pkg/registry/rbac), unless they hold the verbs `escalate` or `bind`.

use std::sync::Arc;

use serde_json::Value;
use skep_api::Status;

use super::{Objects, Operation, Plugin, Request};
use crate::auth::authz::{Authorizer as _, Authorizers, Rule};
use crate::auth::{Attributes, MASTERS};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) struct Escalation(pub(super) Arc<Authorizers>);

impl Plugin for Escalation {
    fn validate(&self, request: &Request<'_>, object: &Value, _objects: &dyn Objects) -> Result<(), Status> {
        let of_rbac = request.kind.group_version.group == GROUP && request.subresource.is_none();
        if !of_rbac || request.operation == Operation::Delete || request.user.is_in(MASTERS) {
            return Ok(());
        }
        match &*request.kind.plural {
            "roles" | "clusterroles" => self.role(request, object),
            "rolebindings" | "clusterrolebindings" => self.binding(request, object),
            _ => Ok(()),
        }
    }
}

impl Escalation {
    fn may(&self, request: &Request<'_>, verb: &'static str, resource: &str, name: &str) -> bool {
        let namespace =
            if resource == "clusterroles" && request.kind.plural != "rolebindings" { "" } else { request.namespace };
        let attributes = Attributes::resource(request.user, verb, GROUP, resource, namespace, name);
        self.0.authorize(&attributes).is_allowed()
    }

    fn role(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        let unchanged = request
            .old
            .is_some_and(|old| old["rules"] == object["rules"] && old["aggregationRule"] == object["aggregationRule"]);
        if unchanged || self.may(request, "escalate", &request.kind.plural, request.name) {
            return Ok(());
        }
        let mut wanted = Rule::list(&object["rules"]);
        // Who aggregates takes rights that are not written yet: that needs all of them.
        if object["aggregationRule"].is_object() {
            let all = || vec!["*".to_owned()];
            wanted.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
            wanted.push(Rule { verbs: all(), urls: all(), ..Rule::default() });
        }
        self.covers(request, &wanted)
    }

    fn binding(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        let unchanged =
            request.old.is_some_and(|old| old["roleRef"] == object["roleRef"] && old["subjects"] == object["subjects"]);
        let role = object["roleRef"]["name"].as_str().unwrap_or_default();
        let cluster_role = object["roleRef"]["kind"] == "ClusterRole";
        let resource = if cluster_role { "clusterroles" } else { "roles" };
        if unchanged || self.may(request, "bind", resource, role) {
            return Ok(());
        }
        let Some(wanted) = self.0.rbac().rules_of_role(cluster_role, request.namespace, role) else {
            let resource = skep_api::GroupResource { group: GROUP.into(), resource: resource.to_owned().into() };
            return Err(Status::not_found(&resource, role));
        };
        self.covers(request, &wanted)
    }

    fn covers(&self, request: &Request<'_>, wanted: &[Rule]) -> Result<(), Status> {
        let missing = self.0.rbac().missing(request.user, request.namespace, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = missing.iter().map(shown).collect();
        Err(request.forbidden(&format!(
            "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            request.user.name,
            request.user.groups,
            lines.join("\n")
        )))
    }
}

/// Upstream's CompactString of a rule.
fn shown(rule: &Rule) -> String {
    let list = |values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        format!("[{}]", quoted.join(" "))
    };
    let mut parts = Vec::new();
    let fields = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    for (name, values) in fields.into_iter().filter(|(_, values)| !values.is_empty()) {
        parts.push(format!("{name}:{}", list(values)));
    }
    format!("{{{}}}", parts.join(", "))
}
