//! Definitions of types: every one that kinds reach.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Verb};
use crate::schema::{Field, ListType, Schemas, Struct, Type};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
/// What every group-version needs besides its kinds.
const COMMON: [&str; 3] = [DELETE_OPTIONS, STATUS, super::paths::PATCH];
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The name of a kind's list definition.
pub(super) fn list_name(kind: &Kind) -> String {
    match kind.schema.rsplit_once('.') {
        Some((package, _)) => format!("{package}.{}", kind.list_kind),
        None => kind.list_kind.to_string(),
    }
}

/// The definitions of kinds and all that they refer to; references begin with `prefix`.
pub(super) fn of(kinds: &[&Kind], prefix: &str) -> BTreeMap<String, Value> {
    let schemas = Schemas::builtin();
    let mut out = BTreeMap::new();
    let mut wanted: Vec<String> = COMMON.iter().map(|name| (*name).to_owned()).collect();
    for kind in kinds {
        match &kind.custom {
            Some(custom) => {
                wanted.push(super::custom::OBJECT_META.to_owned());
                out.insert(kind.schema.to_string(), super::custom::definition(kind, custom, prefix, is_v3(prefix)));
            }
            None => wanted.push(kind.schema.to_string()),
        }
        if kind.verbs.contains(&Verb::List) {
            wanted.push(LIST_META.to_owned());
            out.insert(list_name(kind), list_definition(kind, prefix));
        }
    }
    let mut gvks: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, kind) in [(DELETE_OPTIONS, "DeleteOptions"), (STATUS, "Status")] {
        gvks.insert(name.to_owned(), vec![json!({ "group": "", "version": "v1", "kind": kind })]);
    }
    for kind in kinds.iter().filter(|kind| kind.custom.is_none()) {
        gvks.entry(kind.schema.to_string()).or_default().push(gvk(kind, &kind.kind));
    }
    for subresource in kinds.iter().flat_map(|kind| &kind.subresources) {
        if let Some([group, version, kind, schema]) = super::paths::seen_as(*subresource) {
            wanted.push(schema.to_owned());
            let named = vec![json!({ "group": group, "version": version, "kind": kind })];
            gvks.entry(schema.to_owned()).or_insert(named);
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        if let Some(scalar) = scalar_definition(&name, prefix) {
            out.insert(name, scalar);
            continue;
        }
        let Some(found) = schemas.get(&name) else { continue };
        let mut definition = definition(schemas, found, prefix, &mut wanted);
        if let Some(gvks) = gvks.remove(&name) {
            definition["x-kubernetes-group-version-kind"] = gvks.into();
        }
        out.insert(name, definition);
    }
    out
}

fn gvk(kind: &Kind, name: &str) -> Value {
    json!({ "group": kind.group_version.group, "version": kind.group_version.version, "kind": name })
}

fn list_definition(kind: &Kind, prefix: &str) -> Value {
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string", "description": "APIVersion defines the versioned schema of this representation of an object." },
            "kind": { "type": "string", "description": "Kind is a string value representing the REST resource this object represents." },
            "items": { "type": "array", "items": reference(prefix, &kind.schema) },
            "metadata": reference(prefix, LIST_META),
        },
        "x-kubernetes-group-version-kind": [gvk(kind, &kind.list_kind)],
    })
}

/// Types that are one value. OpenAPI v3 can say that it may be text or a number; v2 calls it text, with a format that clients know.
fn scalar_definition(name: &str, prefix: &str) -> Option<Value> {
    const QUANTITY_TEXT: &str = "Quantity is a fixed-point representation of a number.";
    const INT_OR_STRING_TEXT: &str = "IntOrString is a type that can hold an int32 or a string.";
    let v3 = is_v3(prefix);
    Some(match name {
        super::paths::PATCH => json!({ "type": "object", "description": "The body of a PATCH request." }),
        QUANTITY if v3 => {
            json!({ "oneOf": [{ "type": "string" }, { "type": "number" }], "description": QUANTITY_TEXT })
        }
        QUANTITY => json!({ "type": "string", "description": QUANTITY_TEXT }),
        INT_OR_STRING if v3 => json!({
            "oneOf": [{ "type": "integer" }, { "type": "string" }], "format": "int-or-string",
            "description": INT_OR_STRING_TEXT,
        }),
        INT_OR_STRING => {
            json!({ "type": "string", "format": "int-or-string", "description": INT_OR_STRING_TEXT })
        }
        TIME => json!({ "type": "string", "format": "date-time", "description": "Time in RFC 3339 form." }),
        MICRO_TIME => {
            json!({ "type": "string", "format": "date-time", "description": "Time in RFC 3339 form, with microseconds." })
        }
        _ => return None,
    })
}

fn is_v3(prefix: &str) -> bool {
    prefix.contains("components")
}

fn reference(prefix: &str, name: &str) -> Value {
    json!({ "$ref": format!("{prefix}{name}") })
}

fn definition(schemas: &Schemas, found: &Struct, prefix: &str, wanted: &mut Vec<String>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &found.fields {
        properties.insert(field.name.clone(), property(schemas, field, prefix, wanted));
        if is_required(found, field) {
            required.push(field.name.as_str());
        }
    }
    let mut out = json!({ "description": found.description, "type": "object" });
    if !properties.is_empty() {
        out["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        out["required"] = required.into();
    }
    if found.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    out
}

/// What upstream's schema demands. The crate's types demand a little more: a reference's name, for which upstream's has a default, and metadata; and a
/// little less: the time of an event.
fn is_required(found: &Struct, field: &Field) -> bool {
    const NAMES_WITH_DEFAULT: [&str; 8] = [
        "ConfigMapEnvSource",
        "ConfigMapKeySelector",
        "ConfigMapProjection",
        "ConfigMapVolumeSource",
        "LocalObjectReference",
        "SecretEnvSource",
        "SecretKeySelector",
        "SecretProjection",
    ];
    match (found.name.as_str(), field.name.as_str()) {
        ("io.k8s.api.core.v1.Event", "metadata") | ("io.k8s.api.events.v1.Event", "eventTime") => true,
        (_, "metadata") => false,
        (name, "name") if name.starts_with("io.k8s.api.core.v1.") => {
            field.required && !NAMES_WITH_DEFAULT.contains(&found.go_name())
        }
        _ => field.required,
    }
}

fn property(schemas: &Schemas, field: &Field, prefix: &str, wanted: &mut Vec<String>) -> Value {
    let mut out = type_of(schemas, &field.type_, prefix, wanted);
    // OpenAPI 3.0 ignores what stands beside a reference, so that it is wrapped, as upstream does.
    if !out["$ref"].is_null() {
        out = if is_v3(prefix) { json!({ "allOf": [out], "default": {} }) } else { out };
    }
    out["description"] = field.description.as_str().into();
    if matches!(field.type_, Type::List(_)) {
        match &field.list {
            ListType::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
            ListType::Set => out["x-kubernetes-list-type"] = "set".into(),
            ListType::Map(keys) => {
                out["x-kubernetes-list-type"] = "map".into();
                out["x-kubernetes-list-map-keys"] = keys.iter().map(String::as_str).collect();
            }
        }
    }
    // A struct's own merging is said where it is defined.
    let elsewhere = matches!(field.type_, Type::Struct(id) if schemas[id].atomic);
    if field.atomic_map != elsewhere {
        out["x-kubernetes-map-type"] = if field.atomic_map { "atomic" } else { "granular" }.into();
    }
    let strategies: Vec<&str> = [("merge", field.patch.merge), ("retainKeys", field.patch.retain_keys)]
        .into_iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| name)
        .collect();
    if !strategies.is_empty() {
        out["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    if let Some(key) = &field.patch.key {
        out["x-kubernetes-patch-merge-key"] = key.as_str().into();
    }
    out
}

fn type_of(schemas: &Schemas, type_: &Type, prefix: &str, wanted: &mut Vec<String>) -> Value {
    let mut refer = |name: &str| {
        wanted.push(name.to_owned());
        reference(prefix, name)
    };
    match type_ {
        Type::String => json!({ "type": "string" }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int32 => json!({ "type": "integer", "format": "int32" }),
        Type::Int64 => json!({ "type": "integer", "format": "int64" }),
        Type::Float => json!({ "type": "number", "format": "double" }),
        Type::Bytes => json!({ "type": "string", "format": "byte" }),
        Type::Time => refer(TIME),
        Type::MicroTime => refer(MICRO_TIME),
        Type::Quantity => refer(QUANTITY),
        Type::IntOrString => refer(INT_OR_STRING),
        Type::Raw => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
        // Upstream's documents say nothing of these either: a schema, or what stands for one.
        Type::SchemaOr(..) => json!({}),
        Type::Struct(id) => refer(&schemas[*id].name),
        Type::List(item) => json!({ "type": "array", "items": type_of(schemas, item, prefix, wanted) }),
        Type::Map(value) => {
            json!({ "type": "object", "additionalProperties": type_of(schemas, value, prefix, wanted) })
        }
    }
}
