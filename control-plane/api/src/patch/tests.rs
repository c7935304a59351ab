use super::*;
use serde_json::json;

fn deployment() -> crate::kinds::Kind {
    crate::kinds::builtin().into_iter().find(|kind| kind.kind == "Deployment").expect("built in")
}

fn containers(items: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": items}}}})
}

fn patched(object: Value, patch: Value) -> Value {
    strategic(&object, &patch, &deployment()).unwrap()
}

#[test]
fn containers_are_merged_by_name() {
    let before = containers(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]),
    );
    let patch = containers(json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]));
    let after = containers(json!([
        {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "1"},
    ]));
    assert_eq!(patched(before, patch), after);
}

#[test]
fn an_item_is_deleted_by_its_directive() {
    let before = containers(json!([{"name": "a"}, {"name": "b"}]));
    assert_eq!(
        patched(before, containers(json!([{"name": "a", "$patch": "delete"}]))),
        containers(json!([{"name": "b"}]))
    );
}

#[test]
fn a_list_is_replaced_by_its_directive() {
    let before = containers(json!([{"name": "a"}, {"name": "b"}]));
    assert_eq!(
        patched(before, containers(json!([{"name": "c"}, {"$patch": "replace"}]))),
        containers(json!([{"name": "c"}]))
    );
}

#[test]
fn retained_keys_drop_the_others() {
    let before = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(patched(before, patch), json!({"spec": {"strategy": {"type": "Recreate"}}}));
}

#[test]
fn the_element_order_puts_listed_items_in_order() {
    let before = containers(json!([{"name": "a"}, {"name": "b"}]));
    let mut patch = containers(json!([{"name": "c"}]));
    patch["spec"]["template"]["spec"]["$setElementOrder/containers"] =
        json!([{"name": "c"}, {"name": "b"}, {"name": "a"}]);
    assert_eq!(patched(before, patch), containers(json!([{"name": "c"}, {"name": "b"}, {"name": "a"}])));
}

#[test]
fn finalizers_are_a_set_of_scalars() {
    let before = json!({"metadata": {"finalizers": ["a", "b"]}});
    assert_eq!(
        patched(before.clone(), json!({"metadata": {"finalizers": ["c"]}})),
        json!({"metadata": {"finalizers": ["a", "b", "c"]}})
    );
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
    assert_eq!(patched(before, patch), json!({"metadata": {"finalizers": ["b"]}}));
}

#[test]
fn null_removes_and_atomic_lists_are_replaced() {
    let before = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"template": {"spec": {"tolerations": [{"key": "x"}]}}}});
    let patch =
        json!({"metadata": {"labels": {"a": null}}, "spec": {"template": {"spec": {"tolerations": [{"key": "y"}]}}}});
    let after =
        json!({"metadata": {"labels": {"b": "2"}}, "spec": {"template": {"spec": {"tolerations": [{"key": "y"}]}}}});
    assert_eq!(patched(before, patch), after);
}

#[test]
fn an_item_without_its_key_is_refused() {
    let error = strategic(&containers(json!([])), &containers(json!([{"image": "x"}])), &deployment()).unwrap_err();
    assert_eq!(error.code, 400);
    assert!(error.message.contains("does not contain declared merge key: name"), "{}", error.message);
}

#[test]
fn json_patches_fail_with_the_right_codes() {
    let object = json!({"a": 1});
    assert_eq!(json(&object, &json!([{"op": "replace", "path": "/a", "value": 2}])).unwrap(), json!({"a": 2}));
    assert_eq!(json(&object, &json!([{"op": "test", "path": "/a", "value": 2}])).unwrap_err().code, 422);
    assert_eq!(json(&object, &json!({"op": "x"})).unwrap_err().code, 400);
    assert_eq!(
        json(&object, &vec![json!({"op": "test", "path": "/a", "value": 1}); 10_001].into()).unwrap_err().code,
        413
    );
}

#[test]
fn merge_patches_replace_lists_and_drop_nulls() {
    let object = json!({"a": [1, 2], "b": {"c": 1, "d": 2}});
    assert_eq!(merge(&object, &json!({"a": [3], "b": {"c": null}})).unwrap(), json!({"a": [3], "b": {"d": 2}}));
    assert_eq!(merge(&object, &json!([])).unwrap_err().code, 400);
}
