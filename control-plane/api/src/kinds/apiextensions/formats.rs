//! Warnings about a definition: formats that nothing checks.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kinds::tree::{entries, items, text};

/// Formats that are new with this write and not known (`getUnrecognizedFormatsInCRD`).
pub(super) fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(unrecognized).unwrap_or_default();
    let new = unrecognized(object);
    new.difference(&before).map(|format| format!("unrecognized format {format:?}")).collect()
}

fn unrecognized(object: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for version in items(&object["spec"]["versions"]) {
        visit(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

fn visit(schema: &Value, found: &mut BTreeSet<String>) {
    let format = text(&schema["format"]);
    let known = match text(&schema["type"]) {
        "" | "string" => crate::custom::is_known_format(format),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => true,
    };
    if !format.is_empty() && !known {
        found.insert(format.to_owned());
    }
    entries(&schema["properties"]).for_each(|(_, property)| visit(property, found));
    for below in ["items", "additionalProperties", "not"] {
        if schema[below].is_object() {
            visit(&schema[below], found);
        }
    }
    for below in ["allOf", "anyOf", "oneOf"] {
        items(&schema[below]).iter().for_each(|schema| visit(schema, found));
    }
}
