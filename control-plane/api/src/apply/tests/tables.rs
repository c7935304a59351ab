use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"}, "spec": spec})
}

fn containers(items: Value) -> Value {
    pod(json!({ "containers": items }))
}

fn pods() -> Stored {
    Stored::new(Single::pods(), "v1")
}

#[test]
fn a_creator_owns_what_it_wrote_but_no_metadata_of_the_systems_and_no_structs_that_are_always_there() {
    let mut stored = pods();
    stored.update(
        "kubectl",
        containers(
            json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}], "stdin": false}]),
        ),
    );
    assert_eq!(
        stored.owned("kubectl"),
        [
            ".spec.containers[name=\"c\"]",
            ".spec.containers[name=\"c\"].image",
            ".spec.containers[name=\"c\"].name",
            ".spec.containers[name=\"c\"].ports",
            ".spec.containers[name=\"c\"].resources",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].protocol",
        ]
    );
}

#[test]
fn an_update_takes_the_fields_that_it_changes_and_no_others() {
    let mut stored = pods();
    stored.update("a", labelled(json!({"x": "1", "y": "1"})));
    stored.update("b", labelled(json!({"x": "2", "y": "1"})));
    assert_eq!(stored.owned("a"), [".metadata.labels", ".metadata.labels.y"]);
    assert_eq!(stored.owned("b"), [".metadata.labels.x"]);
    let before = stored.managers.clone();
    stored.update("c", labelled(json!({"x": "2", "y": "1"})));
    assert_eq!(stored.managers, before, "what changes nothing owns nothing");
    stored.update("c", labelled(json!({"y": "1"})));
    assert_eq!(stored.names(), ["a"], "nobody owns what is gone");
}

#[test]
fn an_object_that_nobody_owns_is_not_tracked_by_updates() {
    let mut stored = pods();
    stored.object = json!({"metadata": {"name": "a", "uid": "u"}});
    stored.update("a", labelled(json!({"x": "1"})));
    assert!(stored.managers.is_empty());
    assert!(
        stored.apply("me", json!({"kind": "Pod", "metadata": {"name": "a", "labels": {"y": "1"}}}), false).unwrap()
    );
    assert_eq!(stored.owned("before-first-apply"), [".metadata.labels", ".metadata.labels.x"]);
}

#[test]
fn what_a_write_sets_back_is_nobodys() {
    let mut stored = pods();
    stored.update("a", json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}, "spec": {"hostname": "h"}}));
    assert_eq!(stored.owned("a"), [".spec.hostname"]);
}

#[test]
fn an_apply_owns_what_it_names_and_takes_away_what_it_no_longer_names() {
    let mut stored = pods();
    stored.apply("me", containers(json!([{"name": "c", "image": "1"}, {"name": "d", "image": "1"}])), false).unwrap();
    stored.update("other", {
        let mut object = stored.object.clone();
        object["spec"]["containers"][0]["imagePullPolicy"] = "Always".into();
        object
    });
    stored.apply("me", containers(json!([{"name": "c", "image": "2"}])), false).unwrap();
    assert_eq!(stored.object["spec"]["containers"], json!([{"name": "c", "image": "2", "imagePullPolicy": "Always"}]));
    assert_eq!(
        stored.owned("me"),
        [".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].image", ".spec.containers[name=\"c\"].name"]
    );
}

#[test]
fn what_another_applier_names_stays_when_one_lets_it_go() {
    let mut stored = pods();
    let labels = |labels: Value| json!({"kind": "Pod", "metadata": {"name": "a", "labels": labels}});
    stored.apply("a", labels(json!({"x": "1", "y": "1"})), false).unwrap();
    stored.apply("b", labels(json!({"x": "1"})), false).unwrap();
    stored.apply("a", labels(json!({})), false).unwrap();
    assert_eq!(stored.object["metadata"]["labels"], json!({"x": "1"}));
    stored.apply("b", json!({"kind": "Pod", "metadata": {"name": "a"}}), false).unwrap();
    assert!(stored.object["metadata"]["labels"].is_null() || stored.object["metadata"]["labels"] == json!({"x": "1"}));
}

#[test]
fn a_conflict_names_every_field_and_its_manager_in_upstreams_words() {
    let mut stored = Stored::new(Single::deployments(), "apps/v1");
    stored.update(
        "kubectl-create",
        json!({"metadata": {"name": "a"}, "spec": {"replicas": 1, "paused": true, "template": {"spec": {"containers": [{"name": "c", "image": "1"}]}}}}),
    );
    let one = stored.apply("me", json!({"kind": "Deployment", "spec": {"replicas": 2}}), false).unwrap_err();
    assert_eq!((one.code, one.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        one.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let causes = one.details.unwrap().causes;
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].message, "conflict with \"kubectl-create\" using apps/v1");
    assert_eq!(causes[0].field, ".spec.replicas");

    stored.apply("other", json!({"kind": "Deployment", "spec": {"minReadySeconds": 5}}), false).unwrap();
    let wanted = json!({"kind": "Deployment", "spec": {"replicas": 2, "minReadySeconds": 6, "template": {"spec": {"containers": [{"name": "c", "image": "2"}]}}}});
    let many = stored.apply("me", wanted.clone(), false).unwrap_err();
    assert_eq!(
        many.message,
        "Apply failed with 3 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n\
         - .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image\nconflicts with \"other\":\n- .spec.minReadySeconds"
    );
    stored.apply("me", wanted, true).unwrap();
    assert_eq!(stored.object["spec"]["replicas"], 2);
    assert!(!stored.owned("kubectl-create").contains(&".spec.replicas".to_owned()));
    assert!(stored.owned("other").is_empty());
}

#[test]
fn the_same_value_is_shared_and_no_conflict() {
    let mut stored = Stored::new(Single::deployments(), "apps/v1");
    stored.apply("a", json!({"kind": "Deployment", "spec": {"replicas": 2}}), false).unwrap();
    assert!(!stored.apply("b", json!({"kind": "Deployment", "spec": {"replicas": 2}}), false).unwrap());
    assert_eq!(
        (stored.owned("a"), stored.owned("b")),
        (vec![".spec.replicas".to_owned()], vec![".spec.replicas".to_owned()])
    );
}

#[test]
fn an_atomic_struct_has_one_owner() {
    let mut stored = Stored::new(Single::deployments(), "apps/v1");
    let selector = |value: &str| json!({"kind": "Deployment", "spec": {"selector": {"matchLabels": {"app": value}}}});
    stored.apply("a", selector("x"), false).unwrap();
    assert_eq!(stored.owned("a"), [".spec.selector"]);
    let conflict = stored.apply("b", selector("y"), false).unwrap_err();
    assert!(conflict.message.ends_with(": .spec.selector"), "{}", conflict.message);
}

#[test]
fn a_set_is_merged_by_its_items() {
    let mut stored = pods();
    let finalizers = |names: Value| json!({"kind": "Pod", "metadata": {"finalizers": names}});
    stored.apply("a", finalizers(json!(["x/a"])), false).unwrap();
    stored.apply("b", finalizers(json!(["x/b"])), false).unwrap();
    let all: std::collections::BTreeSet<&str> =
        stored.object["metadata"]["finalizers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(all, ["x/a", "x/b"].into());
    stored.apply("a", finalizers(json!([])), false).unwrap();
    assert_eq!(stored.object["metadata"]["finalizers"], json!(["x/b"]));
}

#[test]
fn a_key_that_is_left_out_has_its_default() {
    let mut stored = Stored::new(Single::new("io.k8s.api.core.v1.Service"), "v1");
    let port = |port: Value| json!({"kind": "Service", "spec": {"ports": [port]}});
    stored.apply("a", port(json!({"port": 80, "name": "x"})), false).unwrap();
    stored.object["spec"]["ports"][0]["protocol"] = "TCP".into();
    stored.apply("a", port(json!({"port": 80, "name": "y"})), false).unwrap();
    assert_eq!(stored.object["spec"]["ports"], json!([{"port": 80, "name": "y", "protocol": "TCP"}]));
}

#[test]
fn items_keep_the_applied_order_with_others_between_them() {
    let mut stored = pods();
    stored.update("x", containers(json!([{"name": "a"}, {"name": "x"}, {"name": "b"}])));
    stored.apply("me", containers(json!([{"name": "b"}, {"name": "new"}, {"name": "a"}])), false).unwrap();
    let names: Vec<&str> =
        stored.object["spec"]["containers"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["x", "b", "new", "a"]);
}

#[test]
fn what_does_not_fit_the_schema_is_told_in_upstreams_words() {
    let mut stored = Stored::new(Single::deployments(), "apps/v1");
    for (applied, why) in [
        (json!({"spec": {"foo": 1}}), ".spec.foo: field not declared in schema"),
        (json!({"spec": {"replicas": "x"}}), ".spec.replicas: expected numeric (int or float), got string"),
        (json!({"spec": {"paused": 1}}), ".spec.paused: expected boolean, got &{1}"),
        (
            json!({"spec": {"template": {"spec": {"nodeName": 1}}}}),
            ".spec.template.spec.nodeName: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}}),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (json!({"spec": {"template": 1}}), ".spec.template: expected map, got &{1}"),
    ] {
        let mut applied = applied;
        applied["kind"] = "Deployment".into();
        applied["metadata"] = json!({"name": "d", "namespace": "n"});
        let refused = stored.apply("me", applied, false).unwrap_err();
        assert_eq!(refused.code, 500);
        assert_eq!(
            refused.message,
            format!("failed to create typed patch object (n/d; apps/v1, Kind=Deployment): {why}")
        );
    }
}

#[test]
fn live_items_that_can_not_be_told_apart_give_way_to_an_applied_one() {
    let mut stored = pods();
    let env = |env: Value| containers(json!([{"name": "c", "env": env}]));
    stored.update(
        "x",
        env(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B", "value": "1"}])),
    );
    assert!(stored.owned("x").contains(&".spec.containers[name=\"c\"].env[name=\"A\"]".to_owned()));
    stored.apply("me", env(json!([{"name": "A", "value": "3"}])), true).unwrap();
    assert_eq!(
        stored.object["spec"]["containers"][0]["env"],
        json!([{"name": "A", "value": "3"}, {"name": "B", "value": "1"}])
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_clients_side() {
    let mut stored = Stored::new(Single::deployments(), "apps/v1");
    let last =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": 1}});
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    stored.update(
        "kubectl-client-side-apply",
        json!({"metadata": {"name": "a", "annotations": {annotation: last.to_string()}}, "spec": {"replicas": 1, "paused": true}}),
    );
    let wanted = json!({"kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": 3}});
    assert!(stored.apply("else", wanted.clone(), false).is_err());
    stored.apply("kubectl", wanted, false).unwrap();
    assert_eq!(stored.object["spec"]["replicas"], 3);
    let text = stored.object["metadata"]["annotations"][annotation].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["spec"]["replicas"], 3);
    let paused = json!({"kind": "Deployment", "metadata": {"name": "a"}, "spec": {"paused": false}});
    let conflict = stored.apply("kubectl", paused, false).unwrap_err();
    assert!(conflict.message.contains(".spec.paused"), "{}", conflict.message);
}

#[test]
fn a_list_that_became_atomic_is_owned_whole() {
    let mut stored = pods();
    stored.apply("a", pod(json!({"tolerations": [{"key": "x"}]})), false).unwrap();
    // As an older schema had it.
    let entry = json!([{"manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:tolerations": {"k:{\"key\":\"x\"}": {".": {}, "f:key": {}}}}}}]);
    stored.managers = Managers::parse(entry.as_array().unwrap()).unwrap();
    stored.apply("b", pod(json!({"hostname": "h"})), false).unwrap();
    assert_eq!(stored.owned("a"), [".spec.tolerations"]);
}

#[test]
fn every_key_of_a_list_has_the_default_that_openapi_declares() {
    use crate::schema::ListType;
    // Those without: pointers, and what may be left out.
    const NONE: &[(&str, &str)] = &[
        ("ObjectReference", "name"),
        ("ServerStorageVersion", "apiServerID"),
        ("FlowSchemaCondition", "type"),
        ("PriorityLevelConfigurationCondition", "type"),
        ("AllocatedDeviceStatus", "shareID"),
    ];
    let schemas = Schemas::builtin();
    let mut wrong = Vec::new();
    for field in schemas.structs().flat_map(|found| &found.fields) {
        let (ListType::Map(keys), Type::List(item)) = (&field.list, &field.type_) else { continue };
        let Type::Struct(item) = **item else { continue };
        for key in keys {
            let none = NONE.contains(&(schemas[item].go_name(), key));
            if schemas[item].field(key).unwrap().default.is_none() != none {
                wrong.push(format!("{} {key}", schemas[item].name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
