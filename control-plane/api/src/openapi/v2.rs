//! OpenAPI v2, as JSON and in the protobuf form of gnostic's `openapi.v2` (github.com/google/gnostic-models/openapiv2/OpenAPIv2.proto), of which the messages
//! that carry definitions and operations are written here field by field.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// The document as JSON.
pub(super) fn document(kinds: &[Kind]) -> Value {
    let all: Vec<&Kind> = kinds.iter().collect();
    let mut paths = Map::new();
    for kind in kinds {
        paths.extend(super::paths::of(kind, super::paths::Form::V2));
    }
    json!({
        "swagger": "2.0", "info": { "title": super::TITLE, "version": super::VERSION },
        "paths": paths, "definitions": super::schemas::of(&all, "#/definitions/"),
    })
}

/// The document as protobuf.
pub(super) fn protobuf(document: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    // Document.paths = 8, Paths.path = 2 (NamedPathItem: name = 1, value = 2).
    out.message(8, |paths| {
        for (name, item) in entries(&document["paths"]) {
            paths.message(2, |named| {
                named.str(1, name);
                named.message(2, |out| path_item(out, item));
            });
        }
    });
    // Document.definitions = 9, Definitions.additional_properties = 1 (NamedSchema).
    out.message(9, |definitions| {
        for (name, definition) in entries(&document["definitions"]) {
            definitions.message(1, |named| {
                named.str(1, name);
                named.message(2, |out| schema(out, definition));
            });
        }
    });
    out.0
}

/// PathItem: get = 2, put = 3, post = 4, delete = 5, patch = 8, parameters = 9.
fn path_item(out: &mut Writer, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if item[method].is_object() {
            out.message(number, |out| operation(out, &item[method]));
        }
    }
    for item in items(&item["parameters"]) {
        out.message(9, |out| parameters_item(out, item));
    }
}

/// Operation: tags = 1, description = 3, operation_id = 5, produces = 6, consumes = 7, parameters = 8, responses = 9, schemes = 10, vendor_extension = 13.
fn operation(out: &mut Writer, operation: &Value) {
    for tag in items(&operation["tags"]) {
        out.text(1, tag);
    }
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    for media in items(&operation["produces"]) {
        out.text(6, media);
    }
    for media in items(&operation["consumes"]) {
        out.text(7, media);
    }
    for parameter in items(&operation["parameters"]) {
        out.message(8, |out| parameters_item(out, parameter));
    }
    // Responses.response_code = 1 (NamedResponseValue), ResponseValue.response = 1, Response: description = 1, schema = 2, SchemaItem.schema = 1.
    out.message(9, |responses| {
        for (code, response) in entries(&operation["responses"]) {
            responses.message(1, |named| {
                named.str(1, code);
                named.message(2, |value| {
                    value.message(1, |out| {
                        out.text(1, &response["description"]);
                        if response["schema"].is_object() {
                            out.message(2, |item| item.message(1, |out| schema(out, &response["schema"])));
                        }
                    });
                });
            });
        }
    });
    for scheme in items(&operation["schemes"]) {
        out.text(10, scheme);
    }
    extensions(out, 13, operation);
}

/// ParametersItem.parameter = 1; Parameter: body_parameter = 1, non_body_parameter = 2.
/// BodyParameter: description = 1, name = 2, in = 3, required = 4, schema = 5.
/// NonBodyParameter: query_parameter_sub_schema = 3, path_parameter_sub_schema = 4.
/// QueryParameterSubSchema: required = 1, in = 2, description = 3, name = 4, type = 6; PathParameterSubSchema: required = 1, in = 2, description = 3, name = 4, type = 5.
fn parameters_item(out: &mut Writer, parameter: &Value) {
    out.message(1, |out| match parameter["in"].as_str() {
        Some("body") => out.message(1, |out| {
            out.text(2, &parameter["name"]);
            out.text(3, &parameter["in"]);
            out.flag(4, &parameter["required"]);
            out.message(5, |out| schema(out, &parameter["schema"]));
        }),
        place => {
            let (number, type_number) = if place == Some("path") { (4, 5) } else { (3, 6) };
            out.message(2, |out| {
                out.message(number, |out| {
                    out.flag(1, &parameter["required"]);
                    out.text(2, &parameter["in"]);
                    out.text(3, &parameter["description"]);
                    out.text(4, &parameter["name"]);
                    out.text(type_number, &parameter["type"]);
                });
            });
        }
    });
}

/// Schema: _ref = 1, format = 2, description = 4, required = 19, additional_properties = 21, type = 22 (TypeItem.value = 1), items = 23
/// (ItemsItem.schema = 1), properties = 25 (Properties.additional_properties = 1), vendor_extension = 31. AdditionalPropertiesItem.schema = 1.
fn schema(out: &mut Writer, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(4, &value["description"]);
    for name in items(&value["required"]) {
        out.text(19, name);
    }
    if value["additionalProperties"].is_object() {
        out.message(21, |item| item.message(1, |out| schema(out, &value["additionalProperties"])));
    }
    if value["type"].is_string() {
        out.message(22, |item| item.text(1, &value["type"]));
    }
    if value["items"].is_object() {
        out.message(23, |item| item.message(1, |out| schema(out, &value["items"])));
    }
    if value["properties"].is_object() {
        out.message(25, |properties| {
            for (name, property) in entries(&value["properties"]) {
                properties.message(1, |named| {
                    named.str(1, name);
                    named.message(2, |out| schema(out, property));
                });
            }
        });
    }
    extensions(out, 31, value);
}

/// NamedAny: name = 1, value = 2; Any: yaml = 2.
fn extensions(out: &mut Writer, number: u32, value: &Value) {
    for (name, extension) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
        out.message(number, |named| {
            named.str(1, name);
            // JSON is YAML.
            named.message(2, |any| any.str(2, &extension.to_string()));
        });
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Protocol buffers' wire format, as far as strings, flags and messages go.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn str(&mut self, number: u32, text: &str) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.str(number, text);
        }
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if value == &Value::Bool(true) {
            self.varint(u64::from(number) << 3);
            self.0.push(1);
        }
    }

    fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.varint(u64::from(number) << 3 | 2);
        self.varint(inner.0.len() as u64);
        self.0.extend_from_slice(&inner.0);
    }
}
