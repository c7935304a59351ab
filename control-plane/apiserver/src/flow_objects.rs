//! The FlowSchemas and PriorityLevelConfigurations that every cluster has (k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap).

use serde_json::{Value, json};

/// Whether the object is the system's to keep up to date.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// A level: name, shares, what may be lent in percent, and queues with hand size where requests wait.
type Limited = (&'static str, i64, i64, Option<(i64, i64)>);

/// Every level that limits.
const LIMITED: [Limited; 7] = [
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
];

/// The priority levels.
pub(crate) fn priority_levels() -> Vec<Value> {
    let exempt = json!({ "type": "Exempt", "exempt": { "nominalConcurrencyShares": 0, "lendablePercent": 0 } });
    let mut levels = vec![level("exempt", &exempt)];
    for (name, shares, lendable, queues) in LIMITED {
        let response = match queues {
            None => json!({ "type": "Reject" }),
            Some((queues, hand)) => json!({
                "type": "Queue", "queuing": { "queues": queues, "handSize": hand, "queueLengthLimit": 50 },
            }),
        };
        let spec = json!({ "type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
        }});
        levels.push(level(name, &spec));
    }
    levels
}

fn level(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": { "name": name, "annotations": { AUTO_UPDATE: "true" } }, "spec": spec,
    })
}

/// The flow schemas.
pub(crate) fn flow_schemas() -> Vec<Value> {
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    let everyone = || groups(&["system:unauthenticated", "system:authenticated"]);
    let leases = |verbs: &[&str]| resource_rule(verbs, &["coordination.k8s.io"], &["leases"], false);
    let mut leaders = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    leaders.extend(kube_system_accounts());
    let nodes = groups(&["system:nodes"]);
    vec![
        schema("exempt", "exempt", 1, None, all(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10_000, by_user, all(everyone())),
        schema(
            "probes",
            "exempt",
            2,
            None,
            json!({ "subjects": everyone(), "nonResourceRules": [
                { "verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"] },
            ]}),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            json!({
                "subjects": leaders, "resourceRules": [leases(&["get", "create", "update"])],
            }),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            by_user,
            json!({ "subjects": nodes, "resourceRules": [
                resource_rule(&["*"], &[""], &["nodes", "nodes/status"], true), leases(&["*"]),
            ]}),
        ),
        schema("system-nodes", "system", 500, by_user, all(nodes.clone())),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            all(users(&["system:kube-controller-manager"])),
        ),
        schema("kube-scheduler", "workload-high", 800, by_namespace, all(users(&["system:kube-scheduler"]))),
        schema("kube-system-service-accounts", "workload-high", 900, by_namespace, all(kube_system_accounts())),
        schema("service-accounts", "workload-low", 9000, by_user, all(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, by_user, all(everyone())),
    ]
}

fn schema(name: &str, level: &str, precedence: i64, method: Option<&str>, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": level }, "matchingPrecedence": precedence, "rules": [rule],
    });
    if let Some(method) = method {
        spec["distinguisherMethod"] = json!({ "type": method });
    }
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": { "name": name, "annotations": { AUTO_UPDATE: "true" } }, "spec": spec,
    })
}

fn all(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects, "resourceRules": [resource_rule(&["*"], &["*"], &["*"], true)],
        "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
    })
}

fn resource_rule(verbs: &[&str], groups: &[&str], resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({ "verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"] });
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "kind": "Group", "group": { "name": name } })).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "kind": "User", "user": { "name": name } })).collect()
}

fn kube_system_accounts() -> Vec<Value> {
    vec![json!({ "kind": "ServiceAccount", "serviceAccount": { "name": "*", "namespace": "kube-system" } })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_has_its_level_and_all_of_them_are_valid() {
        let kinds = skep_api::kinds::builtin();
        let strategy = |plural: &str| &kinds.iter().find(|kind| kind.plural == plural).unwrap().strategy;
        let levels = priority_levels();
        for level in &levels {
            assert!(strategy("prioritylevelconfigurations").validate_create(level).is_empty(), "{level}");
        }
        for schema in flow_schemas() {
            assert!(strategy("flowschemas").validate_create(&schema).is_empty(), "{schema}");
            let wanted = &schema["spec"]["priorityLevelConfiguration"]["name"];
            assert!(levels.iter().any(|level| level["metadata"]["name"] == *wanted), "{wanted}");
        }
    }
}
