//! Compares what the graph of types knows of merging with upstream's own schema for it.
//!
//! The schema is in client-go, generated from `api/openapi-spec` of the same release: `applyconfigurations/internal/internal.go`. To run this for a new release:
//! `SKEP_CLIENT_GO=$(go env GOMODCACHE)/k8s.io/client-go@v0.37.2 cargo test -p skep-api --test facts -- --ignored`; each line that it prints is one to write in
//! `src/schema/lists.txt`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use skep_api::schema::{Field, ListType, Schemas, Struct, Type};

#[test]
#[ignore = "reads the source of client-go, of which SKEP_CLIENT_GO is the folder"]
fn lists_maps_and_keys_merge_as_upstreams_do() {
    let folder = std::env::var("SKEP_CLIENT_GO").expect("SKEP_CLIENT_GO is client-go's folder");
    let source = std::fs::read_to_string(Path::new(&folder).join("applyconfigurations/internal/internal.go"));
    let source = source.expect("client-go has its schema");
    let yaml = source.split('`').nth(1).expect("the schema is between backquotes");
    let schema: Value = serde_yaml::from_str(yaml).expect("the schema is YAML");
    let types: HashMap<&str, &Value> =
        schema["types"].as_array().into_iter().flatten().filter_map(|t| Some((t["name"].as_str()?, t))).collect();
    let mut wrong = Vec::new();
    for found in Schemas::builtin().structs() {
        let Some(wanted) = types.get(found.name.as_str()) else { continue };
        if (wanted["map"]["elementRelationship"] == "atomic") != found.atomic {
            wrong.push(format!("{} - map=atomic", found.name));
        }
        for wanted in wanted["map"]["fields"].as_array().into_iter().flatten() {
            let name = wanted["name"].as_str().unwrap_or_default();
            if let Some(field) = found.field(name) {
                wrong.extend(differs(found, field, wanted, &types));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What upstream says of a field that the graph does not.
fn differs(found: &Struct, field: &Field, wanted: &Value, types: &HashMap<&str, &Value>) -> Option<String> {
    let at = format!("{} {}", found.name, field.name);
    let type_ = &wanted["type"];
    if let Some(list) = type_.get("list") {
        let keys: Vec<&str> = list["keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let (want, line) = match (list["elementRelationship"].as_str(), keys.is_empty()) {
            (Some("associative"), true) => (ListType::Set, format!("{at} list=set")),
            (Some("associative"), false) => (
                ListType::Map(keys.iter().map(|key| (*key).to_owned()).collect()),
                format!("{at} list=map keys={}", keys.join(",")),
            ),
            _ => (ListType::Atomic, format!("{at} list=atomic")),
        };
        if field.list != want {
            return Some(line);
        }
        return keys.iter().find_map(|key| default_differs(field, key, list, types));
    }
    let referred = type_["namedType"].as_str().and_then(|name| types.get(name));
    let relationship = type_["elementRelationship"]
        .as_str()
        .or_else(|| type_["map"]["elementRelationship"].as_str())
        .or_else(|| referred?["map"]["elementRelationship"].as_str());
    let atomic = relationship == Some("atomic");
    let merged = matches!(field.type_, Type::Struct(_) | Type::Map(_));
    (merged && field.atomic_map != atomic).then(|| format!("{at} map={}", if atomic { "atomic" } else { "granular" }))
}

/// What upstream takes a key for that an item leaves out.
fn default_differs(field: &Field, key: &str, list: &Value, types: &HashMap<&str, &Value>) -> Option<String> {
    let Type::List(item) = &field.type_ else { return None };
    let Type::Struct(item) = **item else { return None };
    let item = &Schemas::builtin()[item];
    let wanted = types.get(list["elementType"]["namedType"].as_str()?)?["map"]["fields"].as_array()?;
    let wanted = wanted.iter().find(|field| field["name"] == key)?.get("default");
    (item.field(key)?.default.as_ref() != wanted).then(|| format!("{} {key} default={wanted:?}", item.name))
}
