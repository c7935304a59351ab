//! A structural schema as a graph of types: what server-side apply and OpenAPI read of every kind. Made with the kind, gone with it.

use serde_json::Value;

use super::schema::{Additional, Schema};
use crate::schema::{Field, ListType, PatchStrategy, Schemas, Struct, StructId, Type};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The graph of a kind: the root has the name `definition`.
#[must_use]
pub(super) fn graph(definition: &str, schema: &Schema) -> Schemas {
    let mut graph = Graph { out: Schemas::default(), count: 0 };
    let metadata = graph.copy(OBJECT_META);
    let mut fields = graph.fields(schema);
    // Type and metadata are those of every object, whatever the schema says of them.
    fields.retain(|field| !matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata"));
    for name in ["apiVersion", "kind"] {
        fields.push(field(name, Type::String, &Schema::default(), false));
    }
    fields.push(field("metadata", metadata, &Schema::default(), false));
    graph.push(definition.to_owned(), schema, fields);
    graph.out
}

/// The graph of an object of which only the metadata is known: what bodies of custom objects are read by.
#[must_use]
pub(super) fn envelope() -> Schemas {
    graph(ENVELOPE, &Schema { preserve_unknown: true, ..Schema::default() })
}

/// The name of the root of [`envelope`].
pub(super) const ENVELOPE: &str = "Object";

struct Graph {
    out: Schemas,
    count: usize,
}

impl Graph {
    fn push(&mut self, name: String, schema: &Schema, mut fields: Vec<Field>) -> StructId {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let rest = match &schema.additional {
            Some(Additional::Any(true)) => Some(Type::Raw),
            Some(Additional::Any(false) | Additional::Of(_)) | None => schema.preserve_unknown.then_some(Type::Raw),
        };
        self.out.push(Struct {
            name,
            description: schema.description.clone(),
            fields,
            atomic: schema.map_type == "atomic",
            rest,
        })
    }

    fn fields(&mut self, schema: &Schema) -> Vec<Field> {
        schema
            .properties
            .iter()
            .map(|(name, property)| {
                let type_ = self.type_of(property);
                field(name, type_, property, schema.required.contains(name))
            })
            .collect()
    }

    fn type_of(&mut self, schema: &Schema) -> Type {
        if schema.int_or_string {
            return Type::IntOrString;
        }
        match schema.type_.as_str() {
            "string" => Type::String,
            "boolean" => Type::Bool,
            "integer" => Type::Int64,
            "number" => Type::Float,
            "array" => Type::List(Box::new(schema.items.as_ref().map_or(Type::Raw, |items| self.type_of(items)))),
            "object" if schema.properties.is_empty() && !schema.embedded => match &schema.additional {
                Some(Additional::Of(values)) => Type::Map(Box::new(self.type_of(values))),
                Some(Additional::Any(true)) => Type::Map(Box::new(Type::Raw)),
                _ if schema.preserve_unknown => Type::Raw,
                _ => self.object(schema),
            },
            "object" => self.object(schema),
            _ => Type::Raw,
        }
    }

    fn object(&mut self, schema: &Schema) -> Type {
        let mut fields = self.fields(schema);
        if schema.embedded {
            let metadata = self.copy(OBJECT_META);
            fields.retain(|field| !matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata"));
            for name in ["apiVersion", "kind"] {
                fields.push(field(name, Type::String, &Schema::default(), false));
            }
            fields.push(field("metadata", metadata, &Schema::default(), false));
        }
        self.count += 1;
        let name = format!("{}", self.count);
        Type::Struct(self.push(name, schema, fields))
    }

    /// A type of the built-in graph, with all that it refers to.
    fn copy(&mut self, name: &str) -> Type {
        if let Some(id) = self.out.id(name) {
            return Type::Struct(id);
        }
        let Some(found) = Schemas::builtin().get(name) else { return Type::Raw };
        let mut copied = found.clone();
        for field in &mut copied.fields {
            field.type_ = self.copied(&field.type_);
        }
        Type::Struct(self.out.push(copied))
    }

    fn copied(&mut self, type_: &Type) -> Type {
        match type_ {
            Type::Struct(id) => self.copy(&Schemas::builtin()[*id].name),
            Type::List(item) => Type::List(Box::new(self.copied(item))),
            Type::Map(value) => Type::Map(Box::new(self.copied(value))),
            scalar => scalar.clone(),
        }
    }
}

fn field(name: &str, type_: Type, schema: &Schema, required: bool) -> Field {
    let list = match schema.list_type.as_str() {
        "set" => ListType::Set,
        "map" => ListType::Map(schema.list_map_keys.clone()),
        _ => ListType::Atomic,
    };
    let default: Option<Value> = schema.default.clone();
    Field {
        name: name.to_owned(),
        atomic_map: schema.map_type == "atomic",
        // What a custom object does not have, it does not have: nothing of it is a Go struct.
        pointer: true,
        type_,
        description: schema.description.clone(),
        required,
        list,
        default,
        patch: PatchStrategy::default(),
        protobuf: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_and_maps_say_how_they_merge() {
        let schema = Schema::read(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
            "ref": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"name": {"type": "string"}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "half": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}}}}}}));
        let graph = graph("com.example.v1.Web", &schema);
        let root = graph.get("com.example.v1.Web").unwrap();
        assert!(matches!(root.field("metadata").unwrap().type_, Type::Struct(_)));
        let Type::Struct(spec) = root.field("spec").unwrap().type_ else { panic!("no struct") };
        let spec = &graph[spec];
        let ports = spec.field("ports").unwrap();
        assert_eq!(ports.list, ListType::Map(vec!["port".to_owned(), "protocol".to_owned()]));
        let Type::List(item) = &ports.type_ else { panic!("no list") };
        let Type::Struct(item) = **item else { panic!("no struct") };
        assert_eq!(graph[item].field("protocol").unwrap().default, Some(json!("TCP")));
        assert!(spec.field("ref").unwrap().atomic_map);
        assert_eq!(spec.field("free").unwrap().type_, Type::Raw);
        let Type::Struct(half) = spec.field("half").unwrap().type_ else { panic!("no struct") };
        assert_eq!(graph[half].rest, Some(Type::Raw));
    }
}
