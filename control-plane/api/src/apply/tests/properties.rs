//! Laws of merging, on random pods of a few fields.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What an applier may say: labels, containers with env, finalizers (a set), a node selector (atomic).
fn any_pod(names: &'static str) -> impl Strategy<Value = Value> {
    let name = || prop::string::string_regex(names).unwrap();
    let text = || prop::string::string_regex("[12]").unwrap();
    let labels = prop::collection::btree_map(name(), text(), 0..3);
    let env = prop::collection::btree_map(name(), text(), 0..3);
    let containers = prop::collection::btree_map(name(), (prop::option::of(text()), env), 0..3);
    let finalizers = prop::collection::btree_set(name(), 0..3);
    (labels, containers, finalizers).prop_map(|(labels, containers, finalizers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, env))| {
                let env: Vec<Value> =
                    env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                let mut container = json!({"name": name, "env": env});
                if let Some(image) = image {
                    container["image"] = image.into();
                }
                container
            })
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers},
        })
    })
}

fn pods() -> Stored {
    Stored::new(Single::pods(), "v1")
}

fn nothing() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(live in any_pod("[a-c]"), applied in any_pod("[a-c]")) {
        let mut stored = pods();
        stored.update("other", live);
        stored.apply("me", applied.clone(), true).unwrap();
        let (object, managers) = (stored.object.clone(), stored.managers.clone());
        prop_assert!(!stored.apply("me", applied, false).unwrap());
        prop_assert_eq!(&stored.object, &object);
        prop_assert_eq!(&stored.managers, &managers);
    }

    #[test]
    fn what_was_applied_is_there(live in any_pod("[a-c]"), applied in any_pod("[a-c]")) {
        let mut stored = pods();
        stored.update("other", live);
        stored.apply("me", applied.clone(), true).unwrap();
        for (key, value) in applied["metadata"]["labels"].as_object().unwrap() {
            prop_assert_eq!(&stored.object["metadata"]["labels"][key], value);
        }
        for container in applied["spec"]["containers"].as_array().unwrap() {
            let all = stored.object["spec"]["containers"].as_array().unwrap();
            let there: Vec<_> = all.iter().filter(|c| c["name"] == container["name"]).collect();
            prop_assert_eq!(there.len(), 1);
            if !container["image"].is_null() {
                prop_assert_eq!(&there[0]["image"], &container["image"]);
            }
        }
    }

    #[test]
    fn an_applier_that_names_nothing_owns_nothing_and_leaves_what_others_have(live in any_pod("[a-c]"), applied in any_pod("[d-f]")) {
        let mut stored = pods();
        stored.update("other", live);
        let before = stored.object.clone();
        stored.apply("me", applied, false).unwrap();
        stored.apply("me", nothing(), false).unwrap();
        prop_assert!(stored.owned("me").is_empty());
        for part in ["labels", "finalizers"] {
            let empty = |value: &Value| value.is_null() || *value == json!({}) || *value == json!([]);
            let (was, is) = (&before["metadata"][part], &stored.object["metadata"][part]);
            prop_assert!(was == is || (empty(was) && empty(is)), "{} {}", was, is);
        }
    }

    #[test]
    fn appliers_of_different_fields_never_conflict(a in any_pod("[a-c]"), b in any_pod("[d-f]")) {
        let mut stored = pods();
        stored.apply("a", a.clone(), false).unwrap();
        stored.apply("b", b, false).unwrap();
        prop_assert!(stored.apply("a", a, false).is_ok());
    }

    #[test]
    fn no_write_leaves_an_owner_of_what_is_not_there(writes in prop::collection::vec((0..2u8, any_pod("[a-c]"), 0..3u8), 1..6)) {
        let mut stored = pods();
        for (how, object, who) in writes {
            let name = ["x", "y", "z"][usize::from(who)];
            if how == 0 {
                stored.update(name, object);
            } else {
                stored.apply(name, object, true).unwrap();
            }
            let all = owned::fields_of(stored.kind.node(), &stored.object);
            let named = owned::with_named_fields(stored.kind.node(), &all);
            for entry in stored.managers.iter() {
                let mut gone = entry.fields.clone();
                gone.subtract(&named);
                // What is empty is owned by its name alone, and so are structs that are always there.
                let empty = ["labels", "env", "finalizers", "containers", "resources"];
                let gone: Vec<_> = gone.leaves().paths();
                let gone: Vec<_> = gone.iter().filter(|path| !empty.iter().any(|name| path.ends_with(name))).collect();
                prop_assert!(gone.is_empty(), "{} owns {:?} of {}", entry.manager, gone, stored.object);
            }
        }
    }
}
