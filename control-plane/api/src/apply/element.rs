//! Path elements in their text form: `f:name`, `k:{"key":"value"}`, `v:value`, `i:index` (sigs.k8s.io/structured-merge-diff, fieldpath/serialize-pe.go).
//!
//! Invariant: equal elements have equal texts. Texts that come from elsewhere go through [`normalize`] first.

use serde_json::{Map, Value};

/// The element of a field of a struct, or of a key of a map.
pub(super) fn field(name: &str) -> String {
    let mut out = String::with_capacity(2 + name.len());
    out.push_str("f:");
    out.push_str(name);
    out
}

/// The name that an element of a field has.
pub(super) fn field_name(element: &str) -> Option<&str> {
    element.strip_prefix("f:")
}

/// The element of an item of a set.
pub(super) fn value(value: &Value) -> String {
    let mut out = "v:".to_owned();
    write(&mut out, value);
    out
}

/// The element of an item of a list with keys; the pairs are in order of their names.
pub(super) fn key(pairs: &[(&str, &Value)]) -> String {
    let mut out = "k:{".to_owned();
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_text(&mut out, name);
        out.push(':');
        write(&mut out, value);
    }
    out.push('}');
    out
}

/// The canonical form of an element from elsewhere; `None` for a kind of element that is not known, which is dropped as upstream drops it.
///
/// # Errors
/// Text that is no path element.
pub(super) fn normalize(element: &str) -> Result<Option<String>, String> {
    let mut characters = element.bytes();
    let (Some(kind), Some(colon)) = (characters.next(), characters.next()) else {
        return Err("key must be 2 characters long:".to_owned());
    };
    if colon != b':' {
        return Err(format!("missing colon: {element}"));
    }
    let Some(rest) = element.get(2..) else { return Ok(None) };
    match kind {
        b'f' => Ok(Some(element.to_owned())),
        b'v' => serde_json::from_str::<Value>(rest).map(|read| Some(value(&read))).map_err(|error| error.to_string()),
        b'k' => {
            let read: Map<String, Value> = serde_json::from_str(rest).map_err(|error| error.to_string())?;
            let pairs: Vec<(&str, &Value)> = read.iter().map(|(name, value)| (name.as_str(), value)).collect();
            Ok(Some(key(&pairs)))
        }
        b'i' => match rest.parse::<i64>() {
            Ok(index) => Ok(Some(format!("i:{index}"))),
            Err(_) => Err(format!("strconv.Atoi: parsing {rest:?}: invalid syntax")),
        },
        _ => Ok(None),
    }
}

/// An element as paths show it: `.name`, `[key="value"]`, `[="value"]`, `[0]`.
pub(super) fn display(element: &str) -> String {
    let rest = element.get(2..).unwrap_or_default();
    match element.as_bytes().first() {
        Some(b'f') => format!(".{rest}"),
        Some(b'k') => {
            let read: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let pairs: Vec<String> = read.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some(b'v') => match serde_json::from_str::<Value>(rest) {
            Ok(value) => format!("[={value}]"),
            Err(_) => format!("[={rest}]"),
        },
        _ => format!("[{rest}]"),
    }
}

/// A value as upstream's encoder writes it: numbers without a needless fraction, and the characters escaped that HTML gives a meaning.
fn write(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => out.push_str(&(float as i64).to_string()),
            _ => out.push_str(&number.to_string()),
        },
        other => out.push_str(&other.to_string()),
    }
}

fn write_text(out: &mut String, text: &str) {
    for character in Value::from(text).to_string().chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_and_numbers_have_one_form() {
        let element = normalize(r#"k:{"protocol":"TCP", "containerPort": 80.0}"#).unwrap().unwrap();
        assert_eq!(element, r#"k:{"containerPort":80,"protocol":"TCP"}"#);
        assert_eq!(element, key(&[("containerPort", &json!(80)), ("protocol", &json!("TCP"))]));
        assert_eq!(display(&element), r#"[containerPort=80,protocol="TCP"]"#);
    }

    #[test]
    fn what_html_gives_a_meaning_is_escaped() {
        assert_eq!(value(&json!("a&<b>")), r#"v:"a\u0026\u003cb\u003e""#);
        assert_eq!(display(&value(&json!("a&b"))), r#"[="a&b"]"#);
        assert_eq!(normalize(r#"v:"a&b""#).unwrap().unwrap(), value(&json!("a&b")));
    }

    #[test]
    fn what_is_no_element_is_refused_and_unknown_kinds_are_dropped() {
        assert_eq!(normalize("x").unwrap_err(), "key must be 2 characters long:");
        assert_eq!(normalize("name").unwrap_err(), "missing colon: name");
        assert!(normalize("k:{").is_err());
        assert!(normalize("i:one").is_err());
        assert_eq!(normalize("z:1"), Ok(None));
        assert_eq!(normalize("é:1").unwrap_err(), "missing colon: é:1");
    }
}
