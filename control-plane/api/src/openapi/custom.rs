//! The definition of a custom kind: the schema as it was written, with the type and metadata of every object, and for v2 without what v2 can't say
//! (k8s.io/apiextensions-apiserver/pkg/controller/openapi/{builder,v2}).

use serde_json::{Map, Value, json};

use crate::custom::Custom;
use crate::kinds::Kind;

/// The definition of metadata.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The definition of a kind.
pub(super) fn definition(kind: &Kind, custom: &Custom, prefix: &str, v3: bool) -> Value {
    let mut schema = custom.published.clone();
    if !schema.is_object() {
        schema = json!({ "type": "object" });
    }
    if !v3 {
        to_v2(&mut schema);
    }
    if let Some(map) = schema.as_object_mut() {
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        properties["apiVersion"] = json!({ "type": "string", "description": API_VERSION });
        properties["kind"] = json!({ "type": "string", "description": KIND });
        properties["metadata"] = metadata(prefix, v3);
        let group_version = &kind.group_version;
        map.insert(
            "x-kubernetes-group-version-kind".to_owned(),
            json!([{ "group": group_version.group, "version": group_version.version, "kind": kind.kind }]),
        );
    }
    embed(&mut schema, prefix, v3);
    schema
}

fn metadata(prefix: &str, v3: bool) -> Value {
    let reference = json!({ "$ref": format!("{prefix}{OBJECT_META}") });
    if v3 {
        json!({ "allOf": [reference], "description": METADATA })
    } else {
        json!({ "$ref": reference["$ref"], "description": METADATA })
    }
}

/// Type and metadata of embedded objects.
fn embed(schema: &mut Value, prefix: &str, v3: bool) {
    let Some(map) = schema.as_object_mut() else { return };
    if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        properties["apiVersion"] = json!({ "type": "string", "description": API_VERSION });
        properties["kind"] = json!({ "type": "string", "description": KIND });
        properties["metadata"] = metadata(prefix, v3);
    }
    for (name, value) in map.iter_mut() {
        match name.as_str() {
            "properties" => value.as_object_mut().into_iter().flatten().for_each(|(_, below)| embed(below, prefix, v3)),
            "items" | "additionalProperties" => embed(value, prefix, v3),
            _ => {}
        }
    }
}

/// Drops what v2 can't say, and what kubectl does not stand (`ToStructuralOpenAPIV2`).
fn to_v2(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for field in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(field);
    }
    let is = |map: &Map<String, Value>, field: &str| map.get(field) == Some(&Value::Bool(true));
    let nullable = is(map, "nullable");
    let open = is(map, "x-kubernetes-preserve-unknown-fields");
    map.remove("nullable");
    if nullable || open {
        map.remove("items");
        map.remove("properties");
    }
    let bare_array = map.get("type") == Some(&json!("array")) && !map.contains_key("items");
    if nullable || bare_array || (open && map.get("type") == Some(&json!("object"))) {
        map.remove("type");
    }
    // A property that may be null is none that must be there.
    let optional: Vec<Value> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| property["nullable"] == true)
        .map(|(name, _)| name.as_str().into())
        .collect();
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !optional.contains(name));
        if required.is_empty() {
            map.remove("required");
        }
    }
    for (name, value) in map.iter_mut() {
        match name.as_str() {
            "properties" => value.as_object_mut().into_iter().flatten().for_each(|(_, below)| to_v2(below)),
            "items" | "additionalProperties" => to_v2(value),
            _ => {}
        }
    }
}
