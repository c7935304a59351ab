//! The rules of custom objects (k8s.io/apiextensions-apiserver/pkg/registry/customresource): all of them are the schema's.

use std::sync::Arc;

use serde_json::Value;

use super::json_path::JsonPath;
use super::{Custom, metadata, rules, values};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::{ScalePaths, Strategy, WriteContext, age};

/// What is in a cell of a table.
pub(super) struct Cell {
    path: JsonPath,
    type_: String,
}

impl Cell {
    pub(super) fn new(path: JsonPath, type_: &str) -> Self {
        Self { path, type_: type_.to_owned() }
    }

    /// Upstream's `cellForJSONValue`.
    fn of(&self, object: &Value, now: i64) -> Value {
        let found = self.path.find(object);
        let Some(value) = found.first() else { return Value::Null };
        match self.type_.as_str() {
            "integer" => {
                value.as_i64().or_else(|| value.as_f64().map(|number| number as i64)).map_or(Value::Null, Value::from)
            }
            "number" => value.as_f64().map_or(Value::Null, |_| (*value).clone()),
            "boolean" => value.as_bool().map_or(Value::Null, Value::from),
            "date" => match value {
                Value::String(text) => age::age(Some(text), now).into(),
                _ => Value::Null,
            },
            _ => match value {
                Value::String(text) => text.as_str().into(),
                Value::Null => Value::Null,
                other => crate::patch::go_value(other).into(),
            },
        }
    }
}

pub(super) struct Rules {
    custom: Arc<Custom>,
    cells: Vec<Cell>,
    selectable: Vec<JsonPath>,
    scale: Option<ScalePaths>,
    has_status: bool,
}

impl Rules {
    pub(super) fn new(
        custom: Arc<Custom>,
        cells: Vec<Cell>,
        selectable: Vec<JsonPath>,
        scale: Option<ScalePaths>,
        has_status: bool,
    ) -> Self {
        Self { custom, cells, selectable, scale, has_status }
    }

    /// What is wrong, whatever was there before; with it, an update may leave what was wrong.
    fn validate(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let schema = &self.custom.schema;
        let mut errors = values::validate(object, old, schema);
        errors.extend(self.validate_scale(object));
        let duplicates = values::duplicates(object, schema);
        if old.is_none_or(|old| values::duplicates(old, schema).is_empty()) {
            errors.extend(duplicates);
        }
        errors.extend(metadata::validate_embedded(object, schema));
        // Rules are only asked about objects of which everything else is right.
        if errors.is_empty() {
            errors.extend(rules::validate(object, old, schema));
        }
        errors
    }

    fn validate_scale(&self, object: &Value) -> ErrorList {
        let Some(scale) = &self.scale else { return ErrorList::new() };
        let mut errors = ErrorList::new();
        for path in [&scale.spec_replicas, &scale.status_replicas] {
            let at = path.split('.').fold(object, |value, name| &value[name]);
            let field = Path::new(&format!(".{path}"));
            match at.as_i64() {
                None if at.is_null() => {}
                None => {
                    let why = format!(
                        ".{path} accessor error: {} is of the type {}, expected int64",
                        crate::patch::go_value(at),
                        crate::patch::go_type_of(at)
                    );
                    errors.push(Error::invalid(&field, 0, why));
                }
                Some(count) if count < 0 => {
                    errors.push(Error::invalid(&field, count, "should be a non-negative integer"));
                }
                Some(count) if count > i64::from(i32::MAX) => {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    errors.push(Error::invalid(&field, count, why));
                }
                Some(_) => {}
            }
        }
        errors
    }
}

impl Strategy for Rules {
    fn default(&self, object: &mut Value) {
        super::fill_defaults(object, &self.custom.schema);
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        if self.has_status
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        self.validate(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        self.validate(object, Some(old))
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        // Upstream judges the status alone, by its part of the schema.
        let of_status = |error: &Error| error.field.to_string().trim_start_matches('.').starts_with("status");
        self.validate(object, Some(old)).into_iter().filter(of_status).collect()
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let mut row = vec![object["metadata"]["name"].clone()];
        row.extend(self.cells.iter().map(|cell| cell.of(object, now)));
        row
    }

    /// The selectable fields, and behind them the fingerprint of the schema that the object conforms to.
    fn selectable(&self, object: &Value) -> Vec<String> {
        let text = |path: &JsonPath| match path.find(object).first() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let mut fields: Vec<String> = self.selectable.iter().map(text).collect();
        fields.push(self.custom.fingerprint.clone());
        fields
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::names::name_is_dns_subdomain(name, prefix)
    }
}
