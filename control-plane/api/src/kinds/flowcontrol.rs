//! The group `flowcontrol.apiserver.k8s.io`: FlowSchema sorts requests, PriorityLevelConfiguration says what each sort gets.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::{form, one_of};
use crate::kinds::tree::{fill, flag, integer, items, length, text};
use crate::kinds::{Subresource, WriteContext};
use crate::names::{is_dns1123_label, is_dns1123_subdomain};

const V1: GroupVersion = GroupVersion::new("flowcontrol.apiserver.k8s.io", "v1");

/// `flowcontrol.apiserver.k8s.io/v1 FlowSchema`
#[must_use]
pub fn flow_schema() -> Kind {
    Kind {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("PriorityLevel", "string", "The level of its requests."),
            Column::new("MatchingPrecedence", "string", "Its place in the order in which schemas are tried."),
            Column::new("DistinguisherMethod", "string", "What tells its flows from each other."),
            Column::age(),
            Column::new("MissingPL", "string", "Whether its level is missing."),
        ],
        ..Kind::new(V1, "FlowSchema", "flowschemas", "io.k8s.api.flowcontrol.v1.FlowSchema", FlowSchema)
    }
}

struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Value) {
        if integer(&object["spec"]["matchingPrecedence"]) == 0 {
            object["spec"]["matchingPrecedence"] = 1000.into();
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = validate_precedence(object, &path.child("matchingPrecedence"));
        if spec["distinguisherMethod"].is_object() {
            let at = path.child("distinguisherMethod");
            errors.extend(one_of(&spec["distinguisherMethod"], "type", &at, &["ByNamespace", "ByUser"]));
        }
        let at = path.child("priorityLevelConfiguration").child("name");
        match text(&spec["priorityLevelConfiguration"]["name"]) {
            "" => errors.push(Error::required(&at, "must reference a priority level")),
            name => errors.extend(form(name, &at, is_dns1123_subdomain)),
        }
        for (index, rule) in items(&spec["rules"]).iter().enumerate() {
            errors.extend(validate_rule(rule, &path.child("rules").index(index)));
        }
        errors.extend(validate_conditions(&object["status"]));
        errors
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        validate_conditions(&object["status"])
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = &object["spec"];
        let dangling = items(&object["status"]["conditions"]).iter().find(|c| c["type"] == "Dangling");
        vec![
            name_cell(object),
            text(&spec["priorityLevelConfiguration"]["name"]).into(),
            integer(&spec["matchingPrecedence"]).into(),
            spec["distinguisherMethod"]["type"].as_str().unwrap_or("<none>").into(),
            age_cell(object, now),
            dangling.map_or("?", |condition| text(&condition["status"])).into(),
        ]
    }
}

fn validate_precedence(object: &Value, path: &Path) -> ErrorList {
    const LAST: i64 = 10_000;
    let precedence = integer(&object["spec"]["matchingPrecedence"]);
    let mut errors = ErrorList::new();
    if precedence <= 0 {
        errors.push(Error::invalid(path, precedence, "must be a positive value"));
    }
    if precedence > LAST {
        errors.push(Error::invalid(path, precedence, format!("must not be greater than {LAST}")));
    }
    if precedence == 1 && object["metadata"]["name"] != "exempt" {
        let message = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(Error::invalid(path, precedence, message));
    }
    errors
}

fn validate_rule(rule: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if length(&rule["subjects"]) == 0 {
        errors.push(Error::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (index, subject) in items(&rule["subjects"]).iter().enumerate() {
        errors.extend(validate_subject(subject, &path.child("subjects").index(index)));
    }
    let (resources, others) = (items(&rule["resourceRules"]), items(&rule["nonResourceRules"]));
    if resources.is_empty() && others.is_empty() {
        let message = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(Error::required(path, message));
    }
    for (index, rule) in resources.iter().enumerate() {
        errors.extend(validate_resource_rule(rule, &path.child("resourceRules").index(index)));
    }
    for (index, rule) in others.iter().enumerate() {
        let at = path.child("nonResourceRules").index(index);
        errors.extend(validate_verbs(rule, &at));
        let missing = "nonResourceURLs must contain at least one value";
        errors.extend(validate_list(rule, "nonResourceURLs", missing, "non-resource URLs", &at));
        for (index, url) in items(&rule["nonResourceURLs"]).iter().enumerate().filter(|(_, url)| *url != "*") {
            let at = at.child("nonResourceURLs").index(index);
            let url = text(url);
            if url.is_empty() {
                errors.push(Error::invalid(&at, url, "must not be empty"));
            } else if !url.starts_with('/') {
                errors.push(Error::invalid(&at, url, "must start with slash"));
            }
        }
    }
    errors
}

fn validate_subject(subject: &Value, path: &Path) -> ErrorList {
    const KINDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(&subject["kind"]);
    let Some((_, own)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        return vec![Error::not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"])];
    };
    let mut errors = ErrorList::new();
    let (value, at) = (&subject[*own], path.child(own));
    if value.is_null() {
        errors.push(Error::required(&at, format!("{own} is required when subject kind is '{kind}'")));
    } else if *own == "serviceAccount" {
        match text(&value["name"]) {
            "" => errors.push(Error::required(&at.child("name"), "")),
            "*" => {}
            name => errors.extend(form(name, &at.child("name"), is_dns1123_subdomain)),
        }
        match text(&value["namespace"]) {
            "" => errors.push(Error::required(&at.child("namespace"), "must specify namespace for service account")),
            namespace => errors.extend(form(namespace, &at.child("namespace"), is_dns1123_label)),
        }
    } else if text(&value["name"]).is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    }
    for (other, field) in KINDS.iter().filter(|(_, field)| field != own && !subject[*field].is_null()) {
        let message = format!("{field} is forbidden when subject kind is not '{other}'");
        errors.push(Error::forbidden(&path.child(field), message));
    }
    errors
}

fn validate_resource_rule(rule: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_verbs(rule, path);
    let missing = "resource rules must supply at least one api group";
    errors.extend(validate_list(rule, "apiGroups", missing, "api groups", path));
    let missing = "resource rules must supply at least one resource";
    errors.extend(validate_list(rule, "resources", missing, "resources", path));
    if length(&rule["namespaces"]) > 0 || !flag(&rule["clusterScope"]) {
        let missing = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.extend(validate_list(rule, "namespaces", missing, "namespaces", path));
    }
    errors
}

fn validate_verbs(rule: &Value, path: &Path) -> ErrorList {
    const VERBS: [&str; 10] =
        ["connect", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    let mut errors = validate_list(rule, "verbs", "verbs must contain at least one value", "verbs", path);
    let verbs = items(&rule["verbs"]);
    if !verbs.iter().any(|verb| verb == "*") && !verbs.iter().all(|verb| VERBS.contains(&text(verb))) {
        errors.push(Error::not_supported(&path.child("verbs"), rule["verbs"].clone(), &VERBS));
    }
    errors
}

/// A list has an item, and nothing beside a `*`.
fn validate_list(rule: &Value, field: &str, missing: &str, what: &str, path: &Path) -> ErrorList {
    let list = items(&rule[field]);
    if list.is_empty() {
        return vec![Error::required(&path.child(field), missing)];
    }
    if list.len() > 1 && list.iter().any(|item| item == "*") {
        let message = format!("if '*' is present, must not specify other {what}");
        return vec![Error::invalid(&path.child(field), rule[field].clone(), message)];
    }
    ErrorList::new()
}

fn validate_conditions(status: &Value) -> ErrorList {
    let path = Path::new("status").child("conditions");
    let conditions = items(&status["conditions"]);
    let mut errors = ErrorList::new();
    for (index, condition) in conditions.iter().enumerate() {
        let at = path.index(index).child("type");
        if conditions[..index].iter().any(|earlier| earlier["type"] == condition["type"]) {
            errors.push(Error::duplicate(&at, condition["type"].clone()));
        }
        if text(&condition["type"]).is_empty() {
            errors.push(Error::required(&at, ""));
        }
    }
    errors
}

/// `flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration`
#[must_use]
pub fn priority_level_configuration() -> Kind {
    Kind {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Type", "string", "Whether its requests are limited."),
            Column::new("NominalConcurrencyShares", "string", "Its part of the seats."),
            Column::new("Queues", "string", "How many queues it has."),
            Column::new("HandSize", "string", "How many queues a flow may use."),
            Column::new("QueueLengthLimit", "string", "How many requests may wait in a queue."),
            Column::age(),
        ],
        ..Kind::new(
            V1,
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
            "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
            PriorityLevel,
        )
    }
}

struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if spec["exempt"].is_object() {
            fill(&mut spec["exempt"], "nominalConcurrencyShares", 0);
            fill(&mut spec["exempt"], "lendablePercent", 0);
        }
        if spec["limited"].is_object() {
            fill(&mut spec["limited"], "nominalConcurrencyShares", 30);
            fill(&mut spec["limited"], "lendablePercent", 0);
            let queuing = &mut spec["limited"]["limitResponse"]["queuing"];
            if queuing.is_object() {
                for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                    if integer(&queuing[field]) == 0 {
                        queuing[field] = value.into();
                    }
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let type_ = text(&spec["type"]);
        let mut errors = ErrorList::new();
        if (object["metadata"]["name"] == "exempt") != (type_ == "Exempt") {
            let message = "must be 'Exempt' if and only if `name` is 'exempt'";
            errors.push(Error::invalid(&path.child("type"), type_, message));
        }
        match type_ {
            "Exempt" => {
                if !spec["limited"].is_null() {
                    let message = "must be nil if the type is not Limited";
                    errors.push(Error::forbidden(&path.child("limited"), message));
                }
                errors.extend(validate_shares(&spec["exempt"], &path.child("exempt")));
            }
            "Limited" => {
                if !spec["exempt"].is_null() {
                    errors.push(Error::forbidden(&path.child("exempt"), "must be nil if the type is Limited"));
                }
                if spec["limited"].is_null() {
                    let message = "must not be empty when type is Limited";
                    errors.push(Error::required(&path.child("limited"), message));
                } else {
                    errors.extend(validate_limited(&spec["limited"], &path.child("limited")));
                }
            }
            "" => errors.push(Error::required(&path.child("type"), "")),
            other => errors.push(Error::not_supported(&path.child("type"), other, &["Exempt", "Limited"])),
        }
        errors.extend(validate_conditions(&object["status"]));
        errors
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        validate_conditions(&object["status"])
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let limited = &object["spec"]["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let cell = |value: &Value| -> Value { if value.is_null() { "<none>".into() } else { value.clone() } };
        vec![
            name_cell(object),
            text(&object["spec"]["type"]).into(),
            cell(&limited["nominalConcurrencyShares"]),
            cell(&queuing["queues"]),
            cell(&queuing["handSize"]),
            cell(&queuing["queueLengthLimit"]),
            age_cell(object, now),
        ]
    }
}

fn validate_shares(level: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(shares) = level["nominalConcurrencyShares"].as_i64().filter(|shares| *shares < 0) {
        let at = path.child("nominalConcurrencyShares");
        errors.push(Error::invalid(&at, shares, "must be a non-negative integer"));
    }
    if let Some(percent) = level["lendablePercent"].as_i64().filter(|percent| !(0..=100).contains(percent)) {
        let at = path.child("lendablePercent");
        errors.push(Error::invalid(&at, percent, "must be between 0 and 100, inclusive"));
    }
    errors
}

fn validate_limited(limited: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_shares(limited, path);
    if let Some(percent) = limited["borrowingLimitPercent"].as_i64().filter(|percent| *percent < 0) {
        let message = "if specified, must be a non-negative integer";
        errors.push(Error::invalid(&path.child("borrowingLimitPercent"), percent, message));
    }
    let (response, at) = (&limited["limitResponse"], path.child("limitResponse"));
    let queuing = &response["queuing"];
    match text(&response["type"]) {
        "Reject" if !queuing.is_null() => {
            let message = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(Error::forbidden(&at.child("queuing"), message));
        }
        "Reject" => {}
        "Queue" if queuing.is_null() => {
            let message = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(Error::required(&at.child("queuing"), message));
        }
        "Queue" => errors.extend(validate_queuing(queuing, &at.child("queuing"))),
        "" => errors.push(Error::required(&at.child("type"), "")),
        other => errors.push(Error::not_supported(&at.child("type"), other, &["Queue", "Reject"])),
    }
    errors
}

fn validate_queuing(queuing: &Value, path: &Path) -> ErrorList {
    const MOST_QUEUES: i64 = 10_000_000;
    let mut errors = ErrorList::new();
    let [limit, queues, hand] = ["queueLengthLimit", "queues", "handSize"].map(|field| integer(&queuing[field]));
    for (field, value) in [("queueLengthLimit", limit), ("queues", queues), ("handSize", hand)] {
        if value <= 0 {
            errors.push(Error::invalid(&path.child(field), value, "must be positive"));
        }
    }
    if queues > MOST_QUEUES {
        let message = format!("must not be greater than {MOST_QUEUES}");
        errors.push(Error::invalid(&path.child("queues"), queues, message));
    }
    if hand > 0 && hand > queues {
        let message = format!("should not be greater than queues ({queues})");
        errors.push(Error::invalid(&path.child("handSize"), hand, message));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    #[test]
    fn a_schema_sorts_somebodys_requests() {
        let mut base = json!({"metadata": {"name": "s"}, "spec": {
            "priorityLevelConfiguration": {"name": "l"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}], "nonResourceRules": [
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]}],
        }});
        FlowSchema.default(&mut base);
        assert_eq!(messages(&FlowSchema.validate_create(&base)), Vec::<String>::new());
        assert_eq!(FlowSchema.row(&base, NOW)[1..4], [json!("l"), json!(1000), json!("<none>")]);
        let wrong = mutated(&base, &json!({"spec": {"matchingPrecedence": 1, "rules": [{}]}}));
        assert_eq!(
            messages(&FlowSchema.validate_create(&wrong)),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ]
        );
    }

    #[test]
    fn a_level_is_limited_or_exempt() {
        let mut base = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {
            "limitResponse": {"type": "Queue", "queuing": {}},
        }}});
        PriorityLevel.default(&mut base);
        assert_eq!(messages(&PriorityLevel.validate_create(&base)), Vec::<String>::new());
        assert_eq!(PriorityLevel.row(&base, NOW)[1..6], [json!("Limited"), json!(30), json!(64), json!(8), json!(50)]);
        let wrong = mutated(&base, &json!({"spec": {"type": "Exempt", "limited": null}}));
        assert_eq!(
            messages(&PriorityLevel.validate_create(&wrong)),
            ["spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'"]
        );
    }
}
