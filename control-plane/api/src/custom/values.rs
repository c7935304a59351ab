//! Whether an object has the values that its schema allows, in upstream's words (k8s.io/kube-openapi/pkg/validation/validate, and
//! k8s.io/apiextensions-apiserver/pkg/apiserver/validation for how its errors become a Status's causes).
//!
//! On an update, what is wrong but was there before is let through (`ratcheting`): a value that equals its old one is not judged again. Old and new
//! are told apart by property, by map key and, for lists of type `map`, by their items' keys.

use std::collections::BTreeSet;

use serde_json::Value;

use super::formats;
use super::schema::{Additional, Schema};
use crate::field::{Error, ErrorList, ErrorType, Path};

/// What is wrong with the values of an object. `old` is what was there before an update.
#[must_use]
pub(crate) fn validate(object: &Value, old: Option<&Value>, schema: &Schema) -> ErrorList {
    let mut out = Outcome::default();
    node(object, old, schema, "", &mut out);
    out.errors
}

/// The path of a list's items and maps that have the same item twice (`x-kubernetes-list-type`).
#[must_use]
pub(super) fn duplicates(object: &Value, schema: &Schema) -> ErrorList {
    let mut errors = ErrorList::new();
    list_types(object, schema, &Path::default(), &mut errors);
    errors
}

#[derive(Default)]
struct Outcome {
    errors: ErrorList,
    /// How many checks were made with success: upstream picks the alternative with the most for its messages.
    matched: usize,
}

fn node(value: &Value, old: Option<&Value>, schema: &Schema, path: &str, out: &mut Outcome) {
    let before = out.errors.len();
    checks(value, old, schema, path, out);
    if out.errors.len() > before && old == Some(value) {
        out.errors.truncate(before);
    }
}

fn checks(value: &Value, old: Option<&Value>, schema: &Schema, path: &str, out: &mut Outcome) {
    let field = Path::new(path.strip_prefix('.').unwrap_or(path));
    let fail = |out: &mut Outcome, value: Value, what: String| {
        out.errors.push(Error::invalid(&field, value, format!("{path} in body {what}")));
    };
    if let Some(why) = wrong_type(value, schema, path) {
        let (given, what) = why;
        out.errors.push(Error::type_invalid(&field, given, what));
    } else {
        out.matched += 1;
    }
    if let Some(allowed) = &schema.enum_
        && !(value.is_null() && schema.nullable)
        && !allowed.iter().any(|one| equal(one, value))
    {
        let names: Vec<String> =
            allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        out.errors.push(Error::not_supported(&field, value.clone(), &names));
    }
    // Upstream checks nothing else of a null.
    if value.is_null() {
        return;
    }
    alternatives(value, schema, path, out);
    match value {
        Value::String(text) => string(text, schema, path, &field, out),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(factor) = schema.multiple_of.filter(|factor| *factor > 0.0) {
                let times = number / factor;
                if (times - times.round()).abs() > 1e-9 {
                    fail(out, value.clone(), format!("should be a multiple of {factor}"));
                }
            }
            if let Some(limit) = schema.maximum {
                let (beyond, words) = if schema.exclusive_maximum {
                    (number >= limit, "less than")
                } else {
                    (number > limit, "less than or equal to")
                };
                if beyond {
                    fail(out, value.clone(), format!("should be {words} {limit}"));
                }
            }
            if let Some(limit) = schema.minimum {
                let (beyond, words) = if schema.exclusive_minimum {
                    (number <= limit, "greater than")
                } else {
                    (number < limit, "greater than or equal to")
                };
                if beyond {
                    fail(out, value.clone(), format!("should be {words} {limit}"));
                }
            }
        }
        Value::Array(items) => array(items, old, schema, path, &field, out),
        Value::Object(_) => object(value, old, schema, path, &field, out),
        Value::Null | Value::Bool(_) => {}
    }
}

fn string(text: &str, schema: &Schema, path: &str, field: &Path, out: &mut Outcome) {
    let length = text.chars().count() as u64;
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        out.errors.push(Error {
            kind: ErrorType::TooLong,
            field: field.clone(),
            value: None,
            detail: format!("may not be more than {max} bytes"),
        });
    } else if let Some(min) = schema.min_length.filter(|min| length < *min) {
        let what = format!("{path} in body should be at least {min} chars long");
        out.errors.push(Error::invalid(field, text, what));
    } else if let Some((pattern, _)) = schema.pattern.as_ref().filter(|(_, regex)| !regex.is_match(text)) {
        let what = format!("{path} in body should match '{pattern}'");
        out.errors.push(Error::invalid(field, text, what));
    } else {
        out.matched += 1;
    }
    let textual = matches!(schema.type_.as_str(), "" | "string");
    if textual && !formats::matches(&schema.format, text) {
        let what = format!("{path} in body must be of type {}: {text:?}", schema.format);
        out.errors.push(Error::type_invalid(field, text, what));
    }
}

fn array(items: &[Value], old: Option<&Value>, schema: &Schema, path: &str, field: &Path, out: &mut Outcome) {
    if let Some(of) = &schema.items {
        for (at, item) in items.iter().enumerate() {
            let before = old.and_then(|old| correlated(item, old, schema));
            node(item, before, of, &format!("{path}[{at}]"), out);
        }
    }
    let count = items.len() as u64;
    if let Some(min) = schema.min_items.filter(|min| count < *min) {
        let what = format!("{path} in body should have at least {min} items");
        out.errors.push(Error::invalid(field, count, what));
    }
    if let Some(max) = schema.max_items.filter(|max| count > *max) {
        out.errors.push(Error::too_many(field, items.len(), usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if schema.unique_items && (1..items.len()).any(|at| items[..at].iter().any(|other| equal(other, &items[at]))) {
        out.errors.push(Error::invalid(field, "", format!("{path} in body shouldn't contain duplicates")));
    }
}

fn object(value: &Value, old: Option<&Value>, schema: &Schema, path: &str, field: &Path, out: &mut Outcome) {
    let Value::Object(map) = value else { return };
    let old = old.filter(|_| schema.map_type != "atomic").and_then(Value::as_object);
    let count = map.len() as u64;
    if let Some(min) = schema.min_properties.filter(|min| count < *min) {
        let what = format!("{path} in body should have at least {min} properties");
        out.errors.push(Error::invalid(field, count, what));
    }
    if let Some(max) = schema.max_properties.filter(|max| count > *max) {
        out.errors.push(Error::too_many(field, map.len(), usize::try_from(max).unwrap_or(usize::MAX)));
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (key, value) in map {
        let before = old.and_then(|old| old.get(key));
        match (schema.properties.get(key), &schema.additional) {
            (Some(property), _) => node(value, before, property, &below(key), out),
            (None, Some(Additional::Of(values))) => node(value, before, values, &below(key), out),
            (None, Some(Additional::Any(false))) => {
                out.errors.push(Error::invalid(
                    field,
                    key.as_str(),
                    format!("{path}.{key} in body is a forbidden property"),
                ));
            }
            (None, Some(Additional::Any(true)) | None) => {}
        }
    }
    for name in schema.required.iter().filter(|name| !map.contains_key(*name)) {
        out.errors.push(Error::required(&Path::new(&below(name)), ""));
    }
    out.matched += 1;
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn alternatives(value: &Value, schema: &Schema, path: &str, out: &mut Outcome) {
    let tried = |schema: &Schema| {
        let mut one = Outcome::default();
        node(value, None, schema, path, &mut one);
        one
    };
    let whole = |out: &mut Outcome, what: String| out.errors.push(Error::invalid(&Path::default(), "", what));
    if !schema.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut succeeded = false;
        for result in schema.any_of.iter().map(tried) {
            if result.errors.is_empty() {
                succeeded = true;
                break;
            }
            if best.as_ref().is_none_or(|best| result.matched > best.matched) {
                best = Some(result);
            }
        }
        if !succeeded {
            whole(out, format!("{path:?} must validate at least one schema (anyOf)"));
            out.errors.extend(best.map(|best| best.errors).unwrap_or_default());
        }
    }
    if !schema.one_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut valid = 0;
        for result in schema.one_of.iter().map(tried) {
            if result.errors.is_empty() {
                valid += 1;
                best = None;
            } else if valid == 0 && best.as_ref().is_none_or(|best| result.matched > best.matched) {
                best = Some(result);
            }
        }
        if valid != 1 {
            let more =
                if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            whole(out, format!("{path:?} must validate one and only one schema (oneOf). {more}"));
            out.errors.extend(best.map(|best| best.errors).unwrap_or_default());
        }
    }
    if !schema.all_of.is_empty() {
        let mut valid = 0;
        for result in schema.all_of.iter().map(tried) {
            valid += usize::from(result.errors.is_empty());
            out.errors.extend(result.errors);
        }
        if valid != schema.all_of.len() {
            let more = if valid == 0 { ". None validated" } else { "" };
            whole(out, format!("{path:?} must validate all the schemas (allOf){more}"));
        }
    }
    if schema.not.as_deref().is_some_and(|not| tried(not).errors.is_empty()) {
        whole(out, format!("{path:?} must not validate the schema (not)"));
    }
}

/// What a value is given as and what is said of it, when its type is not the schema's.
fn wrong_type(value: &Value, schema: &Schema, path: &str) -> Option<(String, String)> {
    let wanted = if schema.int_or_string { "integer,string" } else { schema.type_.as_str() };
    if wanted.is_empty() {
        return None;
    }
    let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let given = match value {
        Value::Null if schema.nullable => return None,
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = wanted.split(',').any(|wanted| {
        wanted == given || (given == "integer" && wanted == "number") || (wanted == "integer" && is_whole)
    });
    (!fits).then(|| (given.to_owned(), format!("{path} in body must be of type {wanted}: {given:?}")))
}

/// Equality of JSON, in which 1 and 1.0 are the same.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

/// The item of the old list that an item of the new one stands for.
pub(super) fn correlated<'a>(item: &Value, old: &'a Value, schema: &Schema) -> Option<&'a Value> {
    if schema.list_type != "map" {
        return None;
    }
    let key = |item: &Value| schema.list_map_keys.iter().map(|key| item[key].clone()).collect::<Vec<_>>();
    let wanted = key(item);
    old.as_array()?.iter().find(|item| key(item) == wanted)
}

fn list_types(value: &Value, schema: &Schema, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(property) = schema.properties.get(key) {
                    list_types(value, property, &path.child(key), errors);
                } else if let Some(values) = schema.values() {
                    list_types(value, values, &path.key(key), errors);
                }
            }
        }
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            for (at, item) in items.iter().enumerate() {
                let identity = match schema.list_type.as_str() {
                    "set" => Some(item.clone()),
                    "map" => {
                        let keys = schema.list_map_keys.iter();
                        Some(keys.filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect())
                    }
                    _ => None,
                };
                if let Some(identity) = identity
                    && !seen.insert(identity.to_string())
                {
                    errors.push(Error::duplicate(&path.index(at), identity));
                }
                if let Some(of) = &schema.items {
                    list_types(item, of, &path.index(at), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: Value, object: Value) -> Vec<String> {
        validate(&object, None, &Schema::read(&schema)).iter().map(ToString::to_string).collect()
    }

    fn spec(of: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": of}}}})
    }

    #[test]
    fn each_mistake_has_upstreams_words() {
        let cases = [
            (
                json!({"type": "integer"}),
                json!("a"),
                r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "integer"}),
                json!(1.5),
                r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#,
            ),
            (
                json!({"type": "string"}),
                json!(null),
                r#"spec.x: Invalid value: "null": spec.x in body must be of type string: "null""#,
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "integer", "maximum": 9, "exclusiveMaximum": true}),
                json!(9),
                "spec.x: Invalid value: 9: spec.x in body should be less than 9",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                r#"spec.x: Invalid value: "b": spec.x in body should match '^a+$'"#,
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                r#"spec.x: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (json!({"type": "string", "maxLength": 1}), json!("ab"), "spec.x: Too long: may not be more than 1 bytes"),
            (
                json!({"type": "string", "minLength": 3}),
                json!("ab"),
                r#"spec.x: Invalid value: "ab": spec.x in body should be at least 3 chars long"#,
            ),
            (
                json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}),
                json!([1, 2]),
                "spec.x: Too many: 2: must have at most 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "integer"}}),
                json!(["a"]),
                r#"spec.x[0]: Invalid value: "string": spec.x[0] in body must be of type integer: "string""#,
            ),
            (json!({"type": "object", "required": ["y"]}), json!({}), "spec.x.y: Required value"),
            (
                json!({"type": "string", "format": "ipv4"}),
                json!("1.2.3"),
                r#"spec.x: Invalid value: "1.2.3": spec.x in body must be of type ipv4: "1.2.3""#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
            ),
        ];
        for (schema, value, wanted) in cases {
            assert_eq!(told(spec(schema), json!({"spec": {"x": value}})), [wanted]);
        }
    }

    #[test]
    fn what_is_allowed_is_allowed() {
        let cases = [
            (json!({"type": "integer"}), json!(1.0)),
            (json!({"type": "number"}), json!(1)),
            (json!({"type": "string", "nullable": true, "enum": ["a"]}), json!(null)),
            (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
            (json!({"type": "string", "format": "unheard-of"}), json!("x")),
            (json!({"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 1}]}), json!(7)),
        ];
        for (schema, value) in cases {
            assert_eq!(told(spec(schema.clone()), json!({"spec": {"x": value}})), Vec::<String>::new(), "{schema}");
        }
    }

    #[test]
    fn an_update_may_leave_what_was_wrong_before() {
        let schema = Schema::read(&spec(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}}}}),
        ));
        let old = json!({"spec": {"x": [{"k": "a", "v": 9}]}});
        let moved = json!({"spec": {"x": [{"k": "b", "v": 1}, {"k": "a", "v": 9}]}});
        assert!(validate(&moved, Some(&old), &schema).is_empty());
        let worse = json!({"spec": {"x": [{"k": "a", "v": 10}]}});
        assert_eq!(validate(&worse, Some(&old), &schema).len(), 1);
    }

    #[test]
    fn an_item_that_stands_twice_is_named() {
        let schema =
            Schema::read(&spec(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}})));
        let errors = duplicates(&json!({"spec": {"x": ["a", "b", "a"]}}), &schema);
        assert_eq!(errors[0].to_string(), r#"spec.x[2]: Duplicate value: "a""#);
    }
}
