use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::decode::{FieldValidation, Media, decode};
use crate::kinds::Kind;
use crate::schema::{Field, Instead, Type};

fn kinds() -> Vec<Kind> {
    crate::kinds::builtin()
}

fn kind(name: &str) -> Kind {
    kinds().into_iter().find(|kind| kind.kind == name).expect("a built-in kind")
}

fn encoded(kind: &Kind, object: &Value, resource_version: Option<&str>) -> Vec<u8> {
    let schemas = Schemas::builtin();
    let mut raw = Vec::new();
    let id = schemas.id(&kind.schema).expect("every kind has a schema");
    message(schemas, id, object.to_string().as_bytes(), resource_version, &mut raw).unwrap();
    envelope(&kind.group_version.to_string(), &kind.kind, &raw)
}

fn read(kind: &Kind, body: &[u8], media: Media) -> Value {
    decode(body, media, kind, FieldValidation::Strict).unwrap().object
}

/// Values of any type, from one seed.
struct Made(u64);

impl Made {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn text(&mut self) -> String {
        ["a", "b\"c", "d\\e", "ü", "\u{1}\n", "plain text", "😀"][self.below(7) as usize]
            .repeat(1 + self.below(30) as usize)
    }

    fn object(&mut self, id: StructId, depth: u32) -> Map<String, Value> {
        let fields = &Schemas::builtin()[id].fields;
        let mut chosen = Map::new();
        for field in fields.iter().filter(|field| !field.protobuf.is_empty()) {
            if self.below(if depth < 3 { 2 } else { 6 }) == 0
                && let Some(value) = self.field(field, depth)
            {
                chosen.insert(field.name.clone(), value);
            }
        }
        chosen
    }

    fn field(&mut self, field: &Field, depth: u32) -> Option<Value> {
        let value = self.value(&field.type_, depth)?;
        // What Go holds by value, and is empty, is not there.
        let empty = value.as_object().is_some_and(Map::is_empty) && !field.pointer;
        (!empty).then_some(value)
    }

    fn value(&mut self, type_: &Type, depth: u32) -> Option<Value> {
        Some(match type_ {
            Type::String => self.text().into(),
            Type::Bool => true.into(),
            Type::Int32 => {
                (i32::MAX - self.below(1 << 20) as i32 - 1).wrapping_mul(if self.below(2) == 0 { 1 } else { -1 }).into()
            }
            Type::Int64 => {
                (1 + self.below(1 << 40) as i64).wrapping_mul(if self.below(2) == 0 { 1 } else { -1 }).into()
            }
            Type::Float => 1.5.into(),
            Type::Bytes => ["AA==", "aGVsbG8=", "/////w=="][self.below(3) as usize].into(),
            Type::Time => ["2026-11-24T08:00:00Z", "1969-12-31T23:59:59Z"][self.below(2) as usize].into(),
            Type::MicroTime => {
                ["2026-11-24T08:00:00.123456Z", "1969-12-31T23:59:59.000001Z"][self.below(2) as usize].into()
            }
            Type::Quantity => ["100m", "1Gi", "3", "-5k"][self.below(4) as usize].into(),
            Type::IntOrString => [json!(0), json!(-8), json!("25%")][self.below(3) as usize].clone(),
            Type::Raw => json!({"any": [1, "two", null, {"three": {}}]}),
            Type::Struct(_) | Type::SchemaOr(..) if depth > 6 => return None,
            Type::SchemaOr(_, Instead::Bool) if self.below(2) == 0 => (self.below(2) == 0).into(),
            Type::SchemaOr(_, Instead::Names) if self.below(2) == 0 => json!([self.text()]),
            Type::SchemaOr(id, _) => self.object(*id, depth + 2).into(),
            Type::Struct(id) => self.object(*id, depth + 1).into(),
            Type::List(item) => {
                let items: Vec<Value> = (0..1 + self.below(3)).filter_map(|_| self.value(item, depth + 1)).collect();
                (!items.is_empty()).then_some(items)?.into()
            }
            Type::Map(of) => {
                let mut map = Map::new();
                for _ in 0..1 + self.below(3) {
                    map.insert(self.text(), self.value(of, depth + 1)?);
                }
                map.into()
            }
        })
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_json_is(seed: u64, which: prop::sample::Index) {
        let kinds = kinds();
        let kind = &kinds[which.index(kinds.len())];
        let id = Schemas::builtin().id(&kind.schema).unwrap();
        let object = Value::Object(Made(seed).object(id, 0));
        prop_assert_eq!(read(kind, &encoded(kind, &object, None), Media::Protobuf), read(kind, object.to_string().as_bytes(), Media::Json));
    }

    #[test]
    fn no_text_is_a_panic(text in ".{0,60}", which: prop::sample::Index) {
        let kinds = kinds();
        let id = Schemas::builtin().id(&kinds[which.index(kinds.len())].schema).unwrap();
        drop(message(Schemas::builtin(), id, text.as_bytes(), None, &mut Vec::new()));
        let text = format!("{{\"metadata\":{{\"labels\":{{\"a\":{text}");
        drop(message(Schemas::builtin(), id, text.as_bytes(), None, &mut Vec::new()));
    }
}

#[test]
fn every_field_of_every_kind_has_a_number() {
    let type_meta = |field: &Field| matches!(&*field.name, "apiVersion" | "kind");
    let mut missing = Vec::new();
    for found in Schemas::builtin().structs() {
        let fields = found.fields.iter().filter(|field| field.protobuf.is_empty() && !type_meta(field));
        missing.extend(fields.map(|field| format!("{} {}", found.name, field.name)));
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn values_that_say_something_by_being_empty_are_kept() {
    let pod = json!({"metadata": {"name": "a"}, "spec": {
        "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}, "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
        "containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 0}}}],
    }});
    assert_eq!(read(&kind("Pod"), &encoded(&kind("Pod"), &pod, None), Media::Protobuf)["spec"], pod["spec"]);
}

#[test]
fn the_revision_is_put_into_the_metadata() {
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let read = read(&kind("ConfigMap"), &encoded(&kind("ConfigMap"), &object, Some("77")), Media::Protobuf);
    assert_eq!(read["metadata"], json!({"name": "a", "resourceVersion": "77"}));
}

#[test]
fn metadata_alone_is_written_for_any_type() {
    let mut raw = Vec::new();
    let object = json!({"spec": {"metadata": 1}, "metadata": {"name": "a", "labels": {"x": "y"}}, "z": [null, "}"]});
    metadata_message(object.to_string().as_bytes(), Some("5"), &mut raw).unwrap();
    let body = envelope("v1", "ConfigMap", &raw);
    let read = read(&kind("ConfigMap"), &body, Media::Protobuf);
    assert_eq!(read["metadata"], json!({"name": "a", "labels": {"x": "y"}, "resourceVersion": "5"}));
}

#[test]
fn an_object_of_another_type_is_an_error_that_names_the_field() {
    let id = schema_of("v1", "ConfigMap").unwrap();
    let error = message(Schemas::builtin(), id, br#"{"data":{"k":1}}"#, None, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "the object can't be encoded as protobuf: data: it is no JSON of this type");
}

#[test]
fn an_envelope_has_the_bytes_that_upstream_writes() {
    assert_eq!(
        envelope("v1", "Pod", b"\x0a\x00"),
        b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x0a\x00\x1a\x00\x22\x00"
    );
    assert_eq!(watch_frame("ADDED", b"xyz"), b"\0\0\0\x0e\x0a\x05ADDED\x12\x05\x0a\x03xyz");
}

#[test]
fn types_that_have_a_protobuf_form_are_found_by_their_names() {
    for (api_version, kind) in [
        ("v1", "Pod"),
        ("v1", "Status"),
        ("v1", "APIResourceList"),
        ("v1", "APIVersions"),
        ("autoscaling/v1", "Scale"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("apps/v1", "Deployment"),
    ] {
        assert!(schema_of(api_version, kind).is_some(), "{api_version} {kind}");
    }
    assert!(schema_of("example.com/v1", "Widget").is_none());
    assert!(schema_of("meta.k8s.io/v1", "Table").is_none());
}
