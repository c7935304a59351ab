//! Strategic merge patch (k8s.io/apimachinery/pkg/util/strategicpatch): like merge patch, but lists with a merge key are merged by item, and directives in
//! the patch delete, replace, retain and order.

use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::schema::{Field, Schemas, StructId, Type};
use crate::status::Status;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of a kind.
///
/// # Errors
/// 400 for directives that make no sense and for items without their merge key.
pub fn strategic(object: &Value, patch: &Value, kind: &Kind) -> Result<Value, Status> {
    let Some(patch) = patch.as_object() else {
        return Err(Status::bad_request("error decoding patch: a strategic merge patch is an object"));
    };
    let schemas = Schemas::builtin();
    let merge = Merge { schemas };
    let empty = Map::new();
    let original = object.as_object().unwrap_or(&empty);
    merge.map(original, patch, schemas.id(&kind.schema)).map(Value::Object).map_err(Status::bad_request)
}

struct Merge<'a> {
    schemas: &'a Schemas,
}

/// The schema below a value, where it is known.
#[derive(Clone, Copy)]
struct Known<'a> {
    type_: Option<&'a Type>,
    field: Option<&'a Field>,
}

impl<'a> Merge<'a> {
    fn map(
        &self,
        original: &Map<String, Value>,
        patch: &Map<String, Value>,
        id: Option<StructId>,
    ) -> Result<Map<String, Value>, String> {
        self.map_of(original, patch, id.map(Type::Struct).as_ref())
    }

    fn map_of(
        &self,
        original: &Map<String, Value>,
        patch: &Map<String, Value>,
        type_: Option<&Type>,
    ) -> Result<Map<String, Value>, String> {
        let mut out = match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
            None => original.clone(),
            Some("replace") => {
                let mut replaced = patch.clone();
                replaced.remove(DIRECTIVE);
                return Ok(replaced);
            }
            Some("delete") => return Ok(Map::new()),
            Some("merge") => original.clone(),
            Some(other) => return Err(format!("Unknown patch type found: {other}")),
        };
        if let Some(retained) = patch.get(RETAIN) {
            let retained = retained.as_array().ok_or("invalid retainKeys directive: it is no list")?;
            for key in patch.keys().filter(|key| !key.starts_with('$')) {
                if !retained.iter().any(|kept| kept == key.as_str()) && !patch[key].is_null() {
                    return Err(format!("the patch contains key {key} that is not in its $retainKeys list"));
                }
            }
            out.retain(|key, _| retained.iter().any(|kept| kept == key.as_str()));
        }
        for (key, value) in patch {
            if let Some(list) = key.strip_prefix(DELETE_PRIMITIVE) {
                delete_primitives(&mut out, list, value)?;
            }
        }
        for (key, value) in patch {
            if key == DIRECTIVE || key == RETAIN || key.starts_with(DELETE_PRIMITIVE) || key.starts_with(ORDER) {
                continue;
            }
            if value.is_null() {
                out.remove(key);
                continue;
            }
            let known = self.below(type_, key);
            let merged = match (out.get(key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => Value::Object(self.map_of(old, new, known.type_)?),
                (_, Value::Object(new)) => Value::Object(self.map_of(&Map::new(), new, known.type_)?),
                (old, Value::Array(new)) => {
                    let order = patch.get(&format!("{ORDER}{key}"));
                    let old = old.and_then(Value::as_array);
                    Value::Array(self.list(old, new, order, known)?)
                }
                (_, scalar) => scalar.clone(),
            };
            out.insert(key.clone(), merged);
        }
        // An order without its list still orders what is there.
        for (key, order) in patch {
            if let Some(list) = key.strip_prefix(ORDER).filter(|list| !patch.contains_key(*list)) {
                let known = self.below(type_, list);
                if let Some(Value::Array(items)) = out.get(list) {
                    let ordered = sort(items.clone(), Some(order), merge_key(known));
                    out.insert(list.to_owned(), Value::Array(ordered));
                }
            }
        }
        Ok(out)
    }

    fn below(&self, type_: Option<&'a Type>, key: &str) -> Known<'a>
    where
        Self: 'a,
    {
        match type_ {
            Some(Type::Struct(id)) => {
                let field = self.schemas[*id].field(key);
                Known { type_: field.map(|field| &field.type_), field }
            }
            Some(Type::Map(value)) => Known { type_: Some(value), field: None },
            _ => Known { type_: None, field: None },
        }
    }

    fn list(
        &self,
        old: Option<&Vec<Value>>,
        new: &[Value],
        order: Option<&Value>,
        known: Known<'_>,
    ) -> Result<Vec<Value>, String> {
        let directive = |item: &Value| item[DIRECTIVE].as_str().map(str::to_owned);
        let merges = known.field.is_some_and(|field| field.patch.merge);
        let replaces = new.iter().any(|item| directive(item).as_deref() == Some("replace"));
        if !merges || replaces {
            return Ok(new.iter().filter(|item| directive(item).is_none()).cloned().collect());
        }
        let empty = Vec::new();
        let old = old.unwrap_or(&empty);
        let Some(key) = merge_key(known) else {
            let mut out = old.clone();
            out.extend(new.iter().filter(|item| !old.contains(item)).cloned());
            return Ok(sort(dedup(out), order, None));
        };
        let item_type = match known.type_ {
            Some(Type::List(item)) => Some(&**item),
            _ => None,
        };
        let mut out = old.clone();
        for item in new {
            let Some(fields) = item.as_object() else {
                return Err(format!("an item of a list that merges by {key} is no object"));
            };
            let Some(id) = fields.get(key).filter(|id| !id.is_null()) else {
                return Err(format!("map: {item} does not contain declared merge key: {key}"));
            };
            let at = out.iter().position(|there| &there[key] == id);
            match (directive(item).as_deref(), at) {
                (Some("delete"), _) => out.retain(|there| &there[key] != id),
                (Some("merge") | None, Some(at)) => {
                    let before = out[at].as_object().cloned().unwrap_or_default();
                    out[at] = Value::Object(self.map_of(&before, fields, item_type)?);
                }
                (Some("merge") | None, None) => {
                    out.push(Value::Object(self.map_of(&Map::new(), fields, item_type)?));
                }
                (Some(other), _) => return Err(format!("Unknown patch type found: {other}")),
            }
        }
        Ok(sort(out, order, Some(key)))
    }
}

fn merge_key(known: Known<'_>) -> Option<&str> {
    known.field.and_then(|field| field.patch.key.as_deref())
}

fn delete_primitives(out: &mut Map<String, Value>, list: &str, unwanted: &Value) -> Result<(), String> {
    let unwanted = unwanted.as_array().ok_or_else(|| format!("{DELETE_PRIMITIVE}{list} is no list"))?;
    if let Some(Value::Array(items)) = out.get_mut(list) {
        items.retain(|item| !unwanted.contains(item));
    }
    Ok(())
}

fn dedup(items: Vec<Value>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::with_capacity(items.len());
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// Orders a merged list by `$setElementOrder`: listed items stand in that order at the place of the first of them that was
/// there before; what only the server has keeps its place relative to what was before it.
fn sort(items: Vec<Value>, order: Option<&Value>, key: Option<&str>) -> Vec<Value> {
    let id = |item: &Value| key.map_or_else(|| item.clone(), |key| item[key].clone());
    let listed: Vec<Value> = match order.and_then(Value::as_array) {
        Some(order) => order.iter().map(|item| if item.is_object() { id(item) } else { item.clone() }).collect(),
        // Without an order upstream keeps what was there first, and appends.
        None => return items,
    };
    let position = |item: &Value| listed.iter().position(|listed| *listed == id(item));
    let mut known: Vec<Value> = items.iter().filter(|item| position(item).is_some()).cloned().collect();
    known.sort_by_key(|item| position(item));
    let mut known = known.into_iter().peekable();
    let mut out = Vec::with_capacity(items.len());
    // Merge the two sequences: a server-only item goes where it stood, counted from the listed items before it.
    let mut before = 0;
    for item in &items {
        if position(item).is_some() {
            before += 1;
            continue;
        }
        while out.iter().filter(|there| position(there).is_some()).count() < before {
            match known.next() {
                Some(next) => out.push(next),
                None => break,
            }
        }
        out.push(item.clone());
    }
    out.extend(known);
    out
}
