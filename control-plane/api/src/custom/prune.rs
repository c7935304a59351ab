//! Dropping what a schema does not declare (k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning), and naming it for the client.

use serde_json::Value;

use super::schema::{Additional, Schema};

/// Unknown fields named at most.
const NAMED: usize = 100;

/// Drops unknown fields of an object; answers with their paths, as `fieldValidation` names them. At the root of an object and of embedded ones, `apiVersion`,
/// `kind` and `metadata` are known.
pub(crate) fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.node(object, schema, true);
    walk.unknown
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn node(&mut self, value: &mut Value, schema: &Schema, root: bool) {
        match value {
            Value::Object(map) => {
                let resource = root || schema.embedded;
                let is_meta = |key: &str| resource && matches!(key, "apiVersion" | "kind" | "metadata");
                if !schema.preserve_unknown {
                    let known = |key: &String| {
                        is_meta(key)
                            || schema.properties.contains_key(key)
                            || !matches!(schema.additional, None | Some(Additional::Any(false)))
                    };
                    let unknown: Vec<String> = map.keys().filter(|key| !known(key)).cloned().collect();
                    for key in unknown {
                        map.remove(&key);
                        self.name(&key);
                    }
                }
                for (key, value) in map.iter_mut() {
                    // Metadata has a schema of its own.
                    if resource && key == "metadata" {
                        continue;
                    }
                    let Some(schema) = schema.property(key) else { continue };
                    let length = self.path.len();
                    if !self.path.is_empty() {
                        self.path.push('.');
                    }
                    self.path.push_str(key);
                    self.node(value, schema, false);
                    self.path.truncate(length);
                }
            }
            Value::Array(items) => {
                let Some(schema) = &schema.items else { return };
                for (at, item) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{at}]"));
                    self.node(item, schema, false);
                    self.path.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn name(&mut self, key: &str) {
        if self.unknown.len() < NAMED {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.unknown.push(format!("{}{dot}{key}", self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pruned(schema: Value, mut object: Value) -> (Value, Vec<String>) {
        let unknown = prune(&mut object, &Schema::read(&schema));
        (object, unknown)
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}}}}}});
        let object = json!({"apiVersion": "x/v1", "kind": "A", "metadata": {"name": "a"}, "extra": 1, "spec": {"a": [{"b": "x", "c": 1}], "d": 2}});
        let (object, unknown) = pruned(schema, object);
        assert_eq!(
            object,
            json!({"apiVersion": "x/v1", "kind": "A", "metadata": {"name": "a"}, "spec": {"a": [{"b": "x"}]}})
        );
        assert_eq!(unknown, ["extra", "spec.d", "spec.a[0].c"]);
    }

    #[test]
    fn preserved_parts_keep_everything_but_what_is_declared_is_pruned_below() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "known": {"type": "object", "properties": {"a": {"type": "string"}}}}});
        let (object, unknown) = pruned(schema, json!({"other": {"x": 1}, "known": {"a": "1", "b": 2}}));
        assert_eq!(object, json!({"other": {"x": 1}, "known": {"a": "1"}}));
        assert_eq!(unknown, ["known.b"]);
    }

    #[test]
    fn maps_keep_their_keys_and_embedded_resources_their_type_and_metadata() {
        let schema = json!({"type": "object", "properties": {
            "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "e": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}});
        let object = json!({"m": {"k": {"a": "1", "z": 1}}, "e": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}, "data": 1, "spec": {"x": 1}}});
        let (object, unknown) = pruned(schema, object);
        assert_eq!(
            object,
            json!({"m": {"k": {"a": "1"}}, "e": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}, "spec": {}}})
        );
        assert_eq!(unknown, ["e.data", "e.spec.x", "m.k.z"]);
    }
}
