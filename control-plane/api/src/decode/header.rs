//! What a body says it is: its `apiVersion` and `kind`, read before anything else is judged (`SimpleMetaFactory.Interpret`).

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `apiVersion` and `kind` as given; empty where they are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// Reads the header of a JSON text.
///
/// # Errors
/// In Go's words: the text is no JSON, no object, or its header is no text.
pub(super) fn read(body: &[u8]) -> Result<Header, String> {
    let fields: Fields = serde_json::from_slice(body).map_err(|error| syntax(body, &error))?;
    if let Some(other) = fields.other {
        return Err(format!(
            r#"json: cannot unmarshal {other} into Go value of type struct {{ APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }}"#
        ));
    }
    let text = |name: &str, value: Value| match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        other => {
            let given = crate::patch::json_kind(&other);
            Err(format!("json: cannot unmarshal {given} into Go struct field .{name} of type string"))
        }
    };
    Ok(Header { api_version: text("apiVersion", fields.api_version)?, kind: text("kind", fields.kind)? })
}

/// A syntax error as Go puts it, where it has words for it.
pub(super) fn syntax(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = line.get(error.column().saturating_sub(1)).map(|byte| char::from(*byte));
    match (error.to_string(), at) {
        (why, Some(found)) if why.starts_with("trailing characters") => {
            format!("invalid character {found:?} after top-level value")
        }
        (why, Some(found)) if why.starts_with("expected value") => {
            format!("invalid character {found:?} looking for beginning of value")
        }
        (why, _) => why,
    }
}

#[derive(Default)]
struct Fields {
    api_version: Value,
    kind: Value,
    /// What stands there that is no object.
    other: Option<&'static str>,
}

impl Fields {
    fn other<E>(what: &'static str) -> Result<Self, E> {
        Ok(Self { other: Some(what), ..Self::default() })
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = entries.next_key::<String>()? {
            match key.as_str() {
                "apiVersion" => fields.api_version = entries.next_value()?,
                "kind" => fields.kind = entries.next_value()?,
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Fields, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Fields::other("array")
    }

    fn visit_str<E>(self, _: &str) -> Result<Fields, E> {
        Fields::other("string")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Fields, E> {
        Fields::other("bool")
    }

    fn visit_u64<E>(self, _: u64) -> Result<Fields, E> {
        Fields::other("number")
    }

    fn visit_i64<E>(self, _: i64) -> Result<Fields, E> {
        Fields::other("number")
    }

    fn visit_f64<E>(self, _: f64) -> Result<Fields, E> {
        Fields::other("number")
    }

    fn visit_unit<E>(self) -> Result<Fields, E> {
        Ok(Fields::default())
    }
}
