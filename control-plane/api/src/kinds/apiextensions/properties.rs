//! What may stand in each node of a schema (`ValidateCustomResourceDefinitionOpenAPISchema`), and whether its defaults fit it.

use serde_json::{Value, json};

use crate::cel::Expected;
use crate::custom::rules::{compile, undefined_field};
use crate::custom::{Schema, fill_defaults, prune, validate_values};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{entries, items, text};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const AT_ROOT: [&str; 9] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What stands at the root must not say anything of the status but by its property, when the status is written alone.
pub(super) fn root_with_status(schema: &Value, path: &Path) -> ErrorList {
    const FORBIDDEN: [&str; 5] = ["allOf", "anyOf", "oneOf", "not", "additionalProperties"];
    let mut errors = ErrorList::new();
    if text(&schema["type"]) != "object" {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(Error::invalid(&path.child("type"), text(&schema["type"]), why));
    }
    if FORBIDDEN.iter().any(|field| !schema[*field].is_null()) {
        let why = format!(
            "only [{} MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Enum Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled",
            AT_ROOT.join(" ")
        );
        errors.push(Error::invalid(path, schema.clone(), why));
    }
    errors
}

/// What is wrong with a schema's nodes; with `structural`, its defaults are judged as well.
pub(super) fn validate(schema: &Value, path: &Path, structural: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    if structural {
        defaults(schema, path, true, &mut errors);
    }
    node(schema, path, &Where { root: true, no_default: None, meta: false }, &mut errors);
    errors
}

#[derive(Clone)]
struct Where {
    root: bool,
    /// Why there may be no default here.
    no_default: Option<String>,
    /// Inside of the schema of type or metadata.
    meta: bool,
}

fn node(schema: &Value, path: &Path, at: &Where, errors: &mut ErrorList) {
    shape(schema, path, at, errors);
    lists(schema, path, errors);
    rules(schema, path, at.root, errors);
    let below = Where { root: false, ..at.clone() };
    if schema["additionalProperties"].is_object() {
        let mut below = below.clone();
        if at.meta {
            below.no_default = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        node(&schema["additionalProperties"], &path.child("additionalProperties"), &below, errors);
    }
    let resource = at.root || schema["x-kubernetes-embedded-resource"] == true;
    for (name, property) in entries(&schema["properties"]) {
        let mut below = below.clone();
        if resource && matches!(name, "metadata" | "kind" | "apiVersion") {
            below.meta = true;
            if at.root {
                below.no_default = Some(format!("in top-level {name}"));
            }
        }
        node(property, &path.child("properties").key(name), &below, errors);
    }
    for one in ["not", "items"] {
        if schema[one].is_object() {
            node(&schema[one], &path.child(one), &below, errors);
        }
    }
    for many in ["allOf", "oneOf", "anyOf"] {
        for (index, one) in items(&schema[many]).iter().enumerate() {
            node(one, &path.child(many).index(index), &below, errors);
        }
    }
}

fn shape(schema: &Value, path: &Path, at: &Where, errors: &mut ErrorList) {
    let type_ = text(&schema["type"]);
    if !type_.is_empty() && !TYPES.contains(&type_) {
        errors.push(Error::not_supported(&path.child("type"), type_, &TYPES));
    }
    if let (Some(why), false) = (&at.no_default, schema["default"].is_null()) {
        errors.push(Error::forbidden(&path.child("default"), format!("must not be set {why}")));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let given = &schema[field];
        if !given.is_null() && *given != json!({}) && *given != json!("") {
            errors.push(Error::forbidden(&path.child(field), format!("{field} is not supported")));
        }
    }
    if type_ == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(&path.child("type"), why));
    }
    if schema["items"].is_array() {
        errors.push(Error::forbidden(&path.child("items"), "items must be a schema object and not an array"));
    }
    if at.meta && schema["x-kubernetes-embedded-resource"] == true {
        let path = path.child("x-kubernetes-embedded-resource");
        errors.push(Error::forbidden(&path, "must not be used inside of resource meta"));
    }
    if schema["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), why));
    }
    let additional = &schema["additionalProperties"];
    if entries(&schema["properties"]).next().is_some() && !additional.is_null() && *additional != true {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(Error::forbidden(&path.child("additionalProperties"), why));
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(Error::invalid(&path, false, "must be true or undefined"));
    }
    if let Some(map_type) = schema["x-kubernetes-map-type"].as_str() {
        wrong_type(type_, "object", "map", path, errors);
        if !matches!(map_type, "atomic" | "granular") {
            let path = path.child("x-kubernetes-map-type");
            errors.push(Error::not_supported(&path, map_type, &["atomic", "granular"]));
        }
    }
}

fn wrong_type(type_: &str, wanted: &str, what: &str, path: &Path, errors: &mut ErrorList) {
    let why = format!("must be {wanted} if x-kubernetes-{what}-type is specified");
    let path = path.child("type");
    if type_.is_empty() {
        errors.push(Error::required(&path, why));
    } else if type_ != wanted {
        errors.push(Error::invalid(&path, type_, why));
    }
}

fn lists(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let list_type = schema["x-kubernetes-list-type"].as_str();
    let item = &schema["items"];
    let keys = items(&schema["x-kubernetes-list-map-keys"]);
    let type_path = path.child("x-kubernetes-list-type");
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if list_type.is_some() && schema["type"] != "array" {
        wrong_type(text(&schema["type"]), "array", "list", path, errors);
    } else if list_type == Some("set") && item.is_object() {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let given = &item["x-kubernetes-list-type"];
        match text(&item["type"]) {
            "array" if !given.is_null() && *given != "atomic" => {
                let path = path.child("items").child("x-kubernetes-list-type");
                errors.push(Error::invalid(&path, given.clone(), why));
            }
            "object" if item["x-kubernetes-map-type"] != "atomic" => {
                let path = path.child("items").child("x-kubernetes-map-type");
                errors.push(Error::invalid(&path, given.clone(), why));
            }
            _ => {}
        }
    }
    if let Some(given) = list_type.filter(|given| !matches!(*given, "atomic" | "set" | "map")) {
        errors.push(Error::not_supported(&type_path, given, &["atomic", "set", "map"]));
    }
    if !keys.is_empty() && list_type != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match list_type {
            None => Error::required(&type_path, why),
            Some(given) => Error::invalid(&type_path, given, why),
        });
    }
    if matches!(list_type, Some("set" | "map")) && item["nullable"] == true {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.unwrap_or_default());
        errors.push(Error::forbidden(&path.child("items").child("nullable"), why));
    }
    if list_type != Some("map") {
        return;
    }
    if keys.is_empty() {
        errors.push(Error::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    if item.is_null() {
        let why = "must have a schema if x-kubernetes-list-type is map";
        errors.push(Error::required(&path.child("items"), why));
        return;
    }
    if item["type"] != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Error::invalid(&path.child("items").child("type"), text(&item["type"]), why));
        return;
    }
    for (at, key) in keys.iter().enumerate() {
        let name = text(key);
        let property = &item["properties"][name];
        let property_path = path.child("items").child("properties").key(name);
        if !property.is_object() {
            let why = "entries must all be names of item properties";
            errors.push(Error::invalid(&keys_path, keys.to_vec(), why));
        } else {
            if matches!(text(&property["type"]), "array" | "object") {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(Error::invalid(&property_path.child("type"), text(&item["type"]), why));
            }
            if !items(&item["required"]).contains(key) && property["default"].is_null() {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                errors.push(Error::required(&property_path.child("default"), why));
            }
            if property["nullable"] == true {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                errors.push(Error::forbidden(&property_path.child("nullable"), why));
            }
        }
        if keys[..at].contains(key) {
            errors.push(Error::invalid(&keys_path, keys.to_vec(), "must not contain duplicate entries"));
        }
    }
}

fn rules(schema: &Value, path: &Path, root: bool, errors: &mut ErrorList) {
    let broken = |text: &str| text.contains(['\n', '\r']);
    for (at, rule) in items(&schema["x-kubernetes-validations"]).iter().enumerate() {
        let path = path.child("x-kubernetes-validations").index(at);
        let given = |field: &str| text(&rule[field]);
        if given("rule").trim().is_empty() {
            errors.push(Error::required(&path.child("rule"), "rule is not specified"));
        } else if !given("message").is_empty() && given("message").trim().is_empty() {
            let why = "must be non-empty if specified";
            errors.push(Error::invalid(&path.child("message"), given("message"), why));
        } else if broken(given("message").trim()) {
            errors.push(Error::invalid(&path.child("message"), given("message"), "must not contain line breaks"));
        } else if broken(given("rule").trim()) && given("message").trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(Error::required(&path.child("message"), why));
        }
        if !given("rule").trim().is_empty() {
            let told = |why: String| Error::invalid(&path.child("rule"), rule.clone(), why);
            match compile(given("rule"), Expected::Bool) {
                Err(why) => errors.push(told(why)),
                Ok(expression) => {
                    if let Some(field) = undefined_field(&expression, &Schema::read(schema), root) {
                        errors.push(told(format!("compilation failed: ERROR: <input>: undefined field '{field}'")));
                    }
                }
            }
            if rule["optionalOldSelf"].is_boolean() && !given("rule").contains("oldSelf") {
                let why = "may not be set if oldSelf is not used in rule";
                errors.push(Error::invalid(&path.child("optionalOldSelf"), rule["optionalOldSelf"].clone(), why));
            }
        }
        if let (false, Err(why)) =
            (given("messageExpression").trim().is_empty(), compile(given("messageExpression"), Expected::String))
        {
            errors.push(Error::invalid(&path.child("messageExpression"), rule.clone(), why));
        }
        if !given("messageExpression").is_empty() && given("messageExpression").trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(Error::required(&path.child("messageExpression"), why));
        }
        if !given("reason").is_empty() && !REASONS.contains(&given("reason")) {
            errors.push(Error::not_supported(&path.child("reason"), given("reason"), &REASONS));
        }
        if !given("fieldPath").is_empty() && given("fieldPath").trim().is_empty() {
            let why = "must be non-empty if specified";
            errors.push(Error::invalid(&path.child("fieldPath"), given("fieldPath"), why));
        }
        if broken(given("fieldPath")) {
            let why = "must not contain line breaks";
            errors.push(Error::invalid(&path.child("fieldPath"), given("fieldPath"), why));
        }
    }
}

/// Every default fits the schema that it stands in, and has nothing that would be pruned (`ValidateDefaults`).
fn defaults(schema: &Value, path: &Path, root: bool, errors: &mut ErrorList) {
    let default = &schema["default"];
    if !default.is_null() {
        let of = Schema::read(schema);
        let path = path.child("default");
        let mut pruned = default.clone();
        // A default is a value in an object, not an object: nothing in it is type or metadata.
        let mut wrapped = json!({ "value": pruned });
        let wrapper = Schema { properties: [("value".to_owned(), of.clone())].into(), ..Schema::default() };
        prune(&mut wrapped, &wrapper);
        std::mem::swap(&mut pruned, &mut wrapped["value"]);
        if pruned == *default {
            fill_defaults(&mut pruned, &of);
            for error in validate_values(&pruned, None, &of) {
                let field = error.field.to_string();
                let field = if error.field == Path::default() { path.clone() } else { path.child(&field) };
                errors.push(Error { field, ..error });
            }
        } else {
            errors.push(Error::invalid(&path, default.clone(), "must not have unknown fields"));
        }
    }
    for (name, property) in entries(&schema["properties"]) {
        if root && matches!(name, "metadata" | "kind" | "apiVersion") {
            continue;
        }
        defaults(property, &path.child("properties").key(name), false, errors);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            defaults(&schema[below], &path.child(below), false, errors);
        }
    }
}
