//! Filling in a schema's defaults (k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting).

use serde_json::{Map, Value};

use super::schema::Schema;

/// Fills in what is absent and has a default; first drops nulls where a default stands and null is no value.
pub(crate) fn fill(object: &mut Value, schema: &Schema) {
    drop_nulls(object, schema);
    defaults(object, schema);
}

fn drop_nulls(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                !value.is_null()
                    || schema.property(key).is_none_or(|schema| schema.nullable || schema.default.is_none())
            });
            each(map, schema, drop_nulls);
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                items.iter_mut().for_each(|item| drop_nulls(item, schema));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                if let Some(default) = &property.default
                    && !map.contains_key(name)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            each(map, schema, defaults);
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    if let (Value::Null, Some(default), false) = (&*item, &schema.default, schema.nullable) {
                        *item = default.clone();
                    }
                    defaults(item, schema);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn each(map: &mut Map<String, Value>, schema: &Schema, then: fn(&mut Value, &Schema)) {
    for (key, value) in map.iter_mut() {
        if let Some(schema) = schema.property(key) {
            then(value, schema);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_fields_get_their_defaults_down_to_the_last_level() {
        let schema = Schema::read(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 5}, "s": {"type": "string"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"q": {"type": "boolean", "default": true}}}}}}));
        let mut object = json!({"list": [{}, {"p": "UDP"}], "map": {"k": {}}});
        fill(&mut object, &schema);
        assert_eq!(object, json!({"spec": {"n": 5}, "list": [{"p": "TCP"}, {"p": "UDP"}], "map": {"k": {"q": true}}}));
    }

    #[test]
    fn null_stands_only_where_it_may() {
        let schema = Schema::read(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "x"}, "b": {"type": "string", "nullable": true, "default": "y"}, "c": {"type": "string"}}}));
        let mut object = json!({"a": null, "b": null, "c": null});
        fill(&mut object, &schema);
        assert_eq!(object, json!({"a": "x", "b": null, "c": null}));
    }
}
