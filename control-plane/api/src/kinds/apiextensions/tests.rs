use super::*;

const NOW: &str = "2026-11-24T09:00:00Z";

fn definition(plural: &str, kind: &str, schema: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
    });
    Definition.default(&mut object);
    Definition.prepare_create(&mut object, &WriteContext { now: NOW, user: "ann" });
    object
}

fn errors(object: &Value) -> Vec<String> {
    Definition.validate_create(object).iter().map(ToString::to_string).collect()
}

#[test]
fn a_plain_definition_is_valid_and_gets_its_names() {
    let object = definition("webs", "Web", json!({"type": "object"}));
    assert_eq!(errors(&object), Vec::<String>::new());
    assert_eq!(object["spec"]["names"]["singular"], "web");
    assert_eq!(object["spec"]["names"]["listKind"], "WebList");
    assert_eq!(object["spec"]["conversion"]["strategy"], "None");
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn a_definition_is_accepted_and_then_established() {
    let object = definition("webs", "Web", json!({"type": "object"}));
    let next = next_status(&object, std::slice::from_ref(&object), NOW).unwrap();
    assert!(is_true(&next, "NamesAccepted") && is_true(&next, "Established"));
    assert_eq!(next["status"]["acceptedNames"], next["spec"]["names"]);
    assert_eq!(next_status(&next, std::slice::from_ref(&next), "2027-01-01T00:00:00Z"), None, "there it rests");
}

#[test]
fn a_name_that_another_has_is_refused_until_it_is_free() {
    let first = definition("webs", "Web", json!({"type": "object"}));
    let first = next_status(&first, std::slice::from_ref(&first), NOW).unwrap();
    let second = definition("others", "Web", json!({"type": "object"}));
    let refused = next_status(&second, &[first, second.clone()], NOW).unwrap();
    let names = find(&refused, "NamesAccepted");
    assert_eq!(names["reason"], "ListKindConflict");
    assert_eq!(find(&refused, "Established")["status"], "False");
    let free = next_status(&refused, std::slice::from_ref(&refused), NOW).unwrap();
    assert!(is_true(&free, "Established"));
}

fn find(object: &Value, type_: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default()
}

#[test]
fn schemas_that_are_not_structural_are_refused_in_upstreams_words() {
    let path = "spec.validation.openAPIV3Schema";
    let cases = [
        (json!({}), format!("{path}.type: Required value: must not be empty at the root")),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            format!("{path}.properties[a].type: Required value: must not be empty for specified object fields"),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            format!("{path}.properties[a].items: Required value: must be specified"),
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
            format!("{path}.properties[b]: Required value: because it is defined in {path}.anyOf[0].properties[b]"),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 5}}}),
            format!(
                "{path}.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\""
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}}}),
            format!(
                "{path}.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}}}),
            format!(
                "{path}.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
            ),
        ),
    ];
    for (schema, wanted) in cases {
        let told = errors(&definition("webs", "Web", schema));
        assert!(told.contains(&wanted), "{wanted}\nis not in\n{}", told.join("\n"));
    }
}

#[test]
fn names_groups_and_versions_are_checked() {
    let mut object = definition("webs", "Web", json!({"type": "object"}));
    object["metadata"]["name"] = "other".into();
    object["spec"]["group"] = "example".into();
    object["spec"]["versions"][0]["storage"] = false.into();
    let told = errors(&object);
    assert!(
        told.iter().any(|e| e == "metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group")
    );
    assert!(
        told.iter().any(|e| e == "spec.group: Invalid value: \"example\": should be a domain with at least one dot")
    );
    assert!(told.iter().any(|e| e.ends_with("must have exactly one version marked as storage version")));
}

#[test]
fn the_projects_own_groups_need_its_approval() {
    let mut object = definition("webs", "Web", json!({"type": "object"}));
    object["spec"]["group"] = "example.k8s.io".into();
    object["metadata"]["name"] = "webs.example.k8s.io".into();
    assert!(errors(&object)[0].starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value: "));
    object["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, test-only"});
    assert_eq!(errors(&object), Vec::<String>::new());
}

#[test]
fn a_definition_that_is_established_keeps_its_scope() {
    let object = definition("webs", "Web", json!({"type": "object"}));
    let old = next_status(&object, std::slice::from_ref(&object), NOW).unwrap();
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    let told: Vec<String> = Definition.validate_update(&new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["spec.scope: Invalid value: \"Cluster\": field is immutable"]);
}

#[test]
fn a_deletion_says_where_it_is_and_frees_the_definition_at_its_end() {
    let mut object = definition("webs", "Web", json!({"type": "object"}));
    object["metadata"]["finalizers"] = json!([CLEANUP_FINALIZER, "other/x"]);
    let during = deletion_in_progress(&object, NOW);
    assert!(is_true(&during, "Terminating"));
    let done = deletion_done(&during, NOW);
    assert_eq!(done["metadata"]["finalizers"], json!(["other/x"]));
    assert!(!is_true(&done, "Terminating"));
}
