//! The pod template's identity: whether two are equal, and the hash that names a ReplicaSet.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The label that tells the pods of one revision from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// The characters of `rand.SafeEncodeString`: no vowels, so that no word comes out.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Whether two templates make the same pods, the hash label aside (`EqualIgnoreHash`). Absent and empty lists are equal.
#[must_use]
pub(crate) fn equal_ignoring_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let (a, b) = (without_hash(a), without_hash(b));
    a == b || canonical(&a) == canonical(&b)
}

/// The hash of a template: the same for equal templates, another for each count of collisions.
///
/// FNV-1a over the canonical JSON. Upstream hashes Go's memory layout, which differs between its own releases too: nothing
/// may depend on the value.
#[must_use]
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    feed(canonical(&without_hash(template)).to_string().as_bytes());
    if let Some(collisions) = collisions {
        feed(&collisions.to_le_bytes());
    }
    let digits = hash.to_string();
    digits.bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

/// The template as JSON with sorted keys, without nulls and empty lists.
fn canonical(template: &PodTemplateSpec) -> Value {
    // A struct of strings, numbers, lists and maps with text keys always serializes.
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    }
    strip(&mut value);
    value
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).expect("a template")
    }

    #[test]
    fn the_hash_label_and_empty_lists_make_no_difference_but_an_image_does() {
        let one = template(serde_json::json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "x"}], "tolerations": []}}));
        let two = template(serde_json::json!({"metadata": {"labels": {"a": "b", HASH_LABEL: "h"}},
            "spec": {"containers": [{"name": "c", "image": "x"}]}}));
        let three = template(serde_json::json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "y"}]}}));
        assert!(equal_ignoring_hash(&one, &two) && !equal_ignoring_hash(&one, &three));
        assert_eq!(hash(&one, None), hash(&two, None));
        assert_ne!(hash(&one, None), hash(&three, None));
        assert_ne!(hash(&one, None), hash(&one, Some(1)));
        assert!(hash(&one, None).bytes().all(|byte| SAFE.contains(&byte)));
    }
}
