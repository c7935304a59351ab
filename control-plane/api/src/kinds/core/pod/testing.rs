//! The pod that the tests of this module change.

use serde_json::{Value, json};

pub(super) use crate::kinds::testing::{messages, mutated};

/// The smallest pod that is valid, with its defaults.
pub(super) fn pod() -> Value {
    let mut pod = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "nginx:1"}]},
    });
    super::defaults::default_pod(&mut pod);
    pod
}

/// The pod with its spec changed by a JSON merge patch, and its defaults again.
pub(super) fn pod_with(spec: Value) -> Value {
    let mut pod = mutated(&pod(), &json!({ "spec": spec }));
    super::defaults::default_pod(&mut pod);
    pod
}

/// The pod with its one container changed by a JSON merge patch, and its defaults again.
pub(super) fn pod_with_container(container: Value) -> Value {
    let base = pod()["spec"]["containers"][0].clone();
    pod_with(json!({"containers": [mutated(&base, &container)]}))
}
