//! JSON patch (RFC 6902) as upstream applies it (gopkg.in/evanphx/json-patch.v4, handlers/patch.go): negative indexes count from the end, `replace` of an
//! absent key of an object adds it, and copies may not add up to more than a request's size.

use serde_json::{Map, Value};

use crate::status::Status;

/// More operations than this are refused: `maxJSONPatchOperations`.
const OPERATIONS: usize = 10_000;
/// How much `copy` may add to an object, in bytes of JSON: `JSONPatchMaxCopyBytes`.
const COPIED: usize = 3 * 1024 * 1024;

/// Applies a JSON patch.
///
/// # Errors
/// 400 for a patch that can't be read, 413 for one that is too long, 422 for one that does not apply.
pub fn json(object: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = operations(patch)?;
    if operations.len() > OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut document = Document { root: object.clone(), copied: 0 };
    for operation in operations {
        document.apply(operation).map_err(super::refused)?;
    }
    Ok(document.root)
}

fn operations<'a>(patch: &'a Value) -> Result<Vec<&'a Map<String, Value>>, Status> {
    let wrong = |given: &Value, expected: &str| {
        let given = super::go::kind_of(given);
        Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {given} into Go value of type {expected}"
        ))
    };
    let Value::Array(operations) = patch else { return Err(wrong(patch, "[]handlers.jsonPatchOp")) };
    let read = |operation: &'a Value| {
        let fields = operation.as_object().ok_or_else(|| wrong(operation, "handlers.jsonPatchOp"))?;
        for name in ["op", "path", "from"] {
            if let Some(other) = fields.get(name).filter(|value| !value.is_string() && !value.is_null()) {
                let given = super::go::kind_of(other);
                return Err(Status::bad_request(format!(
                    "error decoding patch: json: cannot unmarshal {given} into Go struct field jsonPatchOp.{name} of type string"
                )));
            }
        }
        Ok(fields)
    };
    operations.iter().map(read).collect()
}

struct Document {
    root: Value,
    copied: usize,
}

impl Document {
    fn apply(&mut self, operation: &Map<String, Value>) -> Result<(), String> {
        let value = || operation.get("value").cloned().unwrap_or_default();
        match operation.get("op").and_then(Value::as_str).unwrap_or("unknown") {
            "add" => {
                let path = path(operation, "add")?;
                let missing = format!("add operation does not apply: doc is missing path: \"{path}\": missing value");
                let (place, key) = self.place(path).ok_or(missing)?;
                add(place, &key, value()).map_err(|why| format!("error in add for path: '{path}': {why}"))
            }
            "remove" => {
                let path = path(operation, "remove")?;
                let missing =
                    format!("remove operation does not apply: doc is missing path: \"{path}\": missing value");
                let (place, key) = self.place(path).ok_or(missing)?;
                let removed = remove(place, &key);
                removed.map(drop).map_err(|why| format!("error in remove for path: '{path}': {why}"))
            }
            "replace" => self.replace(path(operation, "replace")?, value()),
            "move" => self.relocate(operation),
            "test" => self.test(path(operation, "test")?, operation.get("value")),
            "copy" => self.copy(operation),
            other => Err(format!("Unexpected kind: {other}")),
        }
    }

    fn replace(&mut self, path: &str, value: Value) -> Result<(), String> {
        if path.is_empty() {
            if !value.is_object() && !value.is_array() {
                return Err("replace operation value must be object or array".to_owned());
            }
            self.root = value;
            return Ok(());
        }
        let missing = |what| format!("replace operation does not apply: doc is missing {what}: {path}: missing value");
        let (place, key) = self.place(path).ok_or_else(|| missing("path"))?;
        match place {
            Value::Array(items) => {
                let at = index(&key, items.len()).map_err(|_| missing("key"))?;
                items[at] = value;
            }
            Value::Object(fields) => {
                fields.insert(key, value);
            }
            _ => return Err(missing("path")),
        }
        Ok(())
    }

    /// `move`
    fn relocate(&mut self, operation: &Map<String, Value>) -> Result<(), String> {
        let from = from(operation, "move")?;
        let missing = || format!("move operation does not apply: doc is missing from path: {from}: missing value");
        let (place, key) = self.place(from).ok_or_else(missing)?;
        let value = remove(place, &key).map_err(|why| format!("error in move for path: '{key}': {why}"))?;
        let path = path(operation, "move")?;
        let missing =
            || format!("move operation does not apply: doc is missing destination path: {path}: missing value");
        let (place, key) = self.place(path).ok_or_else(missing)?;
        add(place, &key, value).map_err(|why| format!("error in move for path: '{path}': {why}"))
    }

    fn test(&mut self, path: &str, wanted: Option<&Value>) -> Result<(), String> {
        let failed = || format!("testing value {path} failed: test failed");
        let null = Value::Null;
        let wanted = wanted.unwrap_or(&null);
        if path.is_empty() {
            return if same(&self.root, wanted) { Ok(()) } else { Err(failed()) };
        }
        let missing = || format!("test operation does not apply: is missing path: {path}: missing value");
        let (place, key) = self.place(path).ok_or_else(missing)?;
        let found = get(place, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?;
        if same(found.unwrap_or(&null), wanted) { Ok(()) } else { Err(failed()) }
    }

    fn copy(&mut self, operation: &Map<String, Value>) -> Result<(), String> {
        let from = from(operation, "copy")?;
        let missing = || format!("copy operation does not apply: doc is missing from path: {from}: missing value");
        let (place, key) = self.place(from).ok_or_else(missing)?;
        let found = get(place, &key).map_err(|why| format!("error in copy for from: '{from}': {why}"))?;
        let value = found.cloned().unwrap_or_default();
        self.copied = self.copied.saturating_add(size(&value));
        if self.copied > COPIED {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {COPIED}",
                self.copied
            ));
        }
        let path = path(operation, "copy")?;
        let missing =
            || format!("copy operation does not apply: doc is missing destination path: {path}: missing value");
        let (place, key) = self.place(path).ok_or_else(missing)?;
        add(place, &key, value).map_err(|why| format!("error while adding value during copy: {why}"))
    }

    /// The object or list that a path's last key is in, and that key.
    fn place(&mut self, path: &str) -> Option<(&mut Value, String)> {
        let (keys, last) = path.rsplit_once('/')?;
        let keys = keys.split('/').skip(1);
        let mut place = &mut self.root;
        for key in keys {
            let key = unescaped(key);
            place = match place {
                Value::Object(fields) => fields.get_mut(&key)?,
                Value::Array(items) => {
                    let at = index(&key, items.len()).ok()?;
                    items.get_mut(at)?
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            };
        }
        (place.is_object() || place.is_array()).then(|| (place, unescaped(last)))
    }
}

fn path<'a>(operation: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let found = operation.get("path").and_then(Value::as_str);
    let detail = if matches!(name, "add" | "remove" | "copy") { "" } else { "operation missing path field: " };
    found.ok_or_else(|| format!("{name} operation failed to decode path: {detail}missing value"))
}

fn from<'a>(operation: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let found = operation.get("from").and_then(Value::as_str);
    found.ok_or_else(|| format!("{name} operation failed to decode from: operation, missing from field: missing value"))
}

/// RFC 6901, section 4.
fn unescaped(key: &str) -> String {
    if key.contains('~') { key.replace("~1", "/").replace("~0", "~") } else { key.to_owned() }
}

/// The place of an item; from the end where negative.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let at: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let invalid = || format!("Unable to access invalid index: {at}: invalid index referenced");
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = if at < 0 { at.checked_add(length).ok_or_else(invalid)? } else { at };
    if (0..length).contains(&from_start) { usize::try_from(from_start).map_err(|_| invalid()) } else { Err(invalid()) }
}

fn get<'a>(place: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    match place {
        Value::Array(items) => Ok(items.get(index(key, items.len())?)),
        other => Ok(other.get(key)),
    }
}

fn add(place: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match place {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let wrong = |why| {
                if key.parse::<i64>().is_ok() {
                    why
                } else {
                    format!("value was not a proper array index: '{key}': {why}")
                }
            };
            let at = index(key, items.len() + 1).map_err(wrong)?;
            items.insert(at, value);
        }
        Value::Object(fields) => {
            fields.insert(key.to_owned(), value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Ok(())
}

fn remove(place: &mut Value, key: &str) -> Result<Value, String> {
    match place {
        Value::Array(items) => {
            let at = index(key, items.len())?;
            Ok(items.remove(at))
        }
        other => {
            let removed = other.as_object_mut().and_then(|fields| fields.remove(key));
            removed.ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
        }
    }
}

/// Equality of RFC 6902, section 4.6: numbers by their value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The length of a value as JSON.
fn size(value: &Value) -> usize {
    /// Counts what is written.
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Counting can't fail, and a tree of values always encodes.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}
