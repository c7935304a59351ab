use super::*;
use proptest::prelude::*;
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

/// What is new stands first: without an order in the patch, upstream puts the patch's items before those that only the server has.
#[test]
fn containers_are_merged_by_name() {
    let before = containers(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]),
    );
    let patch = containers(json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]));
    let after = containers(json!([
        {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
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
        json!({"metadata": {"finalizers": ["c", "a", "b"]}})
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
    let error = strategic(&containers(json!([{"name": "a"}])), &containers(json!([{"image": "x"}])), &deployment())
        .unwrap_err();
    assert_eq!(error.code, 500);
    assert_eq!(error.message, "map: map[image:x] does not contain declared merge key: name");
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

fn why(status: Status) -> String {
    status.details.and_then(|details| details.causes.into_iter().next()).map_or(status.message, |cause| cause.message)
}

#[test]
fn strategic_patches_are_refused_in_upstreams_words() {
    let spec = |patch: Value| json!({"spec": {"template": {"spec": patch}}});
    let cases = [
        (json!({"$patch": "x"}), 500, "unknown patch type: x in map: map[$patch:x]"),
        (
            spec(json!({"containers": [{"name": "a", "$patch": "merge"}]})),
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            spec(
                json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a"}, {"name": "b"}]}),
            ),
            500,
            "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:b] map[name:a]]\n",
        ),
        (spec(json!({"containers": ["x"]})), 500, "list element types are not identical: [[map[name:a]] [x]]"),
        (
            spec(json!({"$setElementOrder/nope": []})),
            500,
            "unable to find api field in struct PodSpec for the json field \"nope\"",
        ),
        (json!({"spec": {"$deleteFromPrimitiveList": []}}), 400, "invalid patch format of primitive list"),
    ];
    let mut before = containers(json!([{"name": "a"}]));
    before["spec"]["strategy"] = json!({"type": "Recreate"});
    for (patch, code, message) in cases {
        let error = strategic(&before, &patch, &deployment()).unwrap_err();
        assert_eq!((error.code, why(error)), (code, message.to_owned()));
    }
}

#[test]
fn items_that_only_the_server_has_stay_where_they_stood() {
    let before = containers(json!([{"name": "x"}, {"name": "a"}, {"name": "y"}, {"name": "b"}]));
    let mut patch = containers(json!([{"name": "a"}]));
    patch["spec"]["template"]["spec"]["$setElementOrder/containers"] = json!([{"name": "b"}, {"name": "a"}]);
    let after = containers(json!([{"name": "x"}, {"name": "y"}, {"name": "b"}, {"name": "a"}]));
    assert_eq!(patched(before, patch), after);
}

#[test]
fn json_patches_are_refused_for_upstreams_reasons() {
    let object = json!({"a": [1], "b": {}});
    let cases = [
        (
            json!({"op": "remove", "path": "/x"}),
            "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
        ),
        (
            json!({"op": "add", "path": "/x/y", "value": 1}),
            "add operation does not apply: doc is missing path: \"/x/y\": missing value",
        ),
        (
            json!({"op": "add", "path": "/a/3", "value": 1}),
            "error in add for path: '/a/3': Unable to access invalid index: 3: invalid index referenced",
        ),
        (
            json!({"op": "replace", "path": "/a/1", "value": 1}),
            "replace operation does not apply: doc is missing key: /a/1: missing value",
        ),
        (json!({"op": "test", "path": "/a/0", "value": 2}), "testing value /a/0 failed: test failed"),
        (json!({"op": "nope", "path": "/a"}), "Unexpected kind: nope"),
    ];
    for (operation, message) in cases {
        let error = json(&object, &json!([operation])).unwrap_err();
        assert_eq!(error.code, 422);
        assert_eq!(why(error), message);
    }
}

#[test]
fn copies_may_not_add_up_to_more_than_a_request() {
    let object = json!({"a": "x".repeat(1024)});
    let doubling: Vec<Value> = (0..64).map(|n| json!({"op": "copy", "from": "", "path": format!("/{n}")})).collect();
    assert_eq!(json(&object, &doubling.into()).unwrap_err().code, 422);
    let many: Vec<Value> = (0..4000).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/{n}")})).collect();
    let why = why(json(&object, &many.into()).unwrap_err());
    assert!(why.starts_with("Unable to complete the copy, the accumulated size increase of copy is "), "{why}");
}

/// Trees with the names that a Deployment and the directives have.
fn any_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        prop::sample::select(vec!["a", "b", "delete", "replace", "type"]).prop_map(Value::from),
    ];
    let names = vec![
        "metadata",
        "finalizers",
        "labels",
        "spec",
        "template",
        "containers",
        "name",
        "env",
        "volumes",
        "strategy",
        "type",
        "ports",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/env",
        "$deleteFromPrimitiveList/finalizers",
    ];
    leaf.prop_recursive(6, 64, 5, move |inner| {
        let entries = prop::collection::vec((prop::sample::select(names.clone()), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(|all| Value::Object(all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_strategic_patch_is_applied_or_refused(object in any_tree(), patch in any_tree()) {
        let _ = strategic(&object, &patch, &deployment());
    }

    #[test]
    fn an_empty_strategic_patch_changes_nothing(object in any_tree()) {
        if object.is_object() {
            prop_assert_eq!(strategic(&object, &json!({}), &deployment()).unwrap(), object);
        }
    }

    #[test]
    fn a_merge_patch_applied_twice_is_applied_once(object in any_tree(), patch in any_tree()) {
        if let Ok(once) = merge(&object, &patch) {
            prop_assert_eq!(merge(&once, &patch).unwrap(), once);
        }
    }

    #[test]
    fn what_a_json_patch_adds_it_finds_and_removes(object in any_tree(), value in any_tree()) {
        if object.is_object() {
            let patch = json!([
                {"op": "add", "path": "/~0new~1", "value": value},
                {"op": "test", "path": "/~0new~1", "value": value},
                {"op": "move", "from": "/~0new~1", "path": "/moved"},
                {"op": "remove", "path": "/moved"},
            ]);
            prop_assert_eq!(json(&object, &patch).unwrap(), object);
        }
    }

    #[test]
    fn any_json_patch_is_applied_or_refused(object in any_tree(), op in "add|remove|replace|move|copy|test", path in "(/(metadata|spec|-|0|-1|~)){0,3}", from in "(/(metadata|spec|0)){0,3}", value in any_tree()) {
        let _ = json(&object, &json!([{"op": op, "path": path, "from": from, "value": value}]));
    }
}
