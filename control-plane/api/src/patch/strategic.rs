//! Strategic merge patch (k8s.io/apimachinery/pkg/util/strategicpatch; upstream design `preserve-order-in-strategic-merge-patch`): like merge patch,
//! but lists with a merge key are merged by item, and directives in the patch delete, replace, retain and order.
//!
//! Invariant: the outcome and the words of a refusal are upstream's, for each order in which its maps could be walked; where that order decides, ours is:
//! ordered lists first, then deletions from lists, then the rest by name.

mod order;

use serde_json::{Map, Value};

use self::order::{arrange, partition};
use crate::kinds::Kind;
use crate::schema::{Field, Schemas, Type};
use crate::status::{Reason, Status};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of a kind.
///
/// # Errors
/// 400 for a patch or directives that can't be read, 422 for lists of lists, and as upstream does 500 for the rest: items without their merge key, unknown
/// directives, lists whose items differ in type.
pub fn strategic(object: &Value, patch: &Value, kind: &Kind) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        let given = super::go::kind_of(patch);
        return Err(Status::bad_request(format!(
            "json: cannot unmarshal {given} into Go value of type map[string]interface {{}}"
        )));
    };
    let schemas = Schemas::builtin();
    let original = object.as_object().cloned().unwrap_or_default();
    let type_ = schemas.id(&kind.schema).map_or(Type::Raw, Type::Struct);
    let merged = Merge { schemas }.map(original, patch.clone(), &type_)?;
    Ok(Value::Object(merged))
}

/// Why a patch is refused, in upstream's words (k8s.io/apimachinery/pkg/util/mergepatch).
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("{0}")]
    Other(String),
}

impl From<Refusal> for Status {
    /// `interpretStrategicMergePatchError`
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::PrimitiveList | Refusal::RetainKeys | Refusal::ElementOrder => Self::bad_request(message),
            Refusal::ListOfLists => super::refused(message),
            Refusal::Other(_) => Self::new(500, Reason::Unknown, message),
        }
    }
}

impl Refusal {
    fn no_merge_key(item: &Map<String, Value>, key: &str) -> Self {
        Self::Other(format!("map: {} does not contain declared merge key: {key}", super::go::map(item)))
    }

    fn unknown_directive(directive: &Value, item: &Map<String, Value>) -> Self {
        Self::Other(format!("unknown patch type: {} in map: {}", super::go::text_verb(directive), super::go::map(item)))
    }

    fn bad_type(expected: &str, given: &Value) -> Self {
        let given = if given.is_null() { "%!s(<nil>)" } else { super::go::type_of(given) };
        Self::Other(format!("expected a {expected}, but received a {given}"))
    }
}

const MAP: &str = "map[string]interface {}";
const LIST: &str = "[]interface {}";

struct Merge<'a> {
    schemas: &'a Schemas,
}

impl<'a> Merge<'a> {
    /// `mergeMap`
    fn map(
        &self,
        mut original: Map<String, Value>,
        mut patch: Map<String, Value>,
        type_: &Type,
    ) -> Result<Map<String, Value>, Refusal> {
        match patch.get(DIRECTIVE) {
            None => {}
            Some(directive) if directive == "replace" => {
                patch.remove(DIRECTIVE);
                return Ok(patch);
            }
            Some(directive) if directive == "delete" => return Ok(Map::new()),
            Some(other) => return Err(Refusal::unknown_directive(other, &patch)),
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, type_)?;
        let (deletions, rest): (Vec<_>, Vec<_>) =
            patch.into_iter().partition(|(key, _)| key.starts_with(DELETE_PRIMITIVE));
        for (key, unwanted) in deletions {
            self.delete_from_list(&mut original, &key[DELETE_PRIMITIVE.len()..], unwanted, type_)?;
        }
        for (key, value) in rest {
            if key.starts_with("$deleteFromPrimitiveList") {
                return Err(Refusal::PrimitiveList);
            }
            match (original.remove(&key), value) {
                (_, Value::Null) => {}
                (Some(Value::Object(old)), Value::Object(new)) => {
                    let field = self.field(type_, &key)?;
                    let merged = self.map(old, new, &field.type_)?;
                    original.insert(key, Value::Object(merged));
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    let field = self.list_field(type_, &key)?;
                    let merged = self.list_of(old, new, field)?;
                    original.insert(key, Value::Array(merged));
                }
                // Where nothing of that type was, the patch's value stands, without what is only said to the merge.
                (_, mut new) => {
                    discard_nulls(&mut new);
                    if let Some(kept) = without_directives(new) {
                        original.insert(key, kept);
                    }
                }
            }
        }
        Ok(original)
    }

    /// The `$deleteFromPrimitiveList/…` of a list.
    fn delete_from_list(
        &self,
        original: &mut Map<String, Value>,
        list: &str,
        unwanted: Value,
        type_: &Type,
    ) -> Result<(), Refusal> {
        match (original.get_mut(list), unwanted) {
            (Some(_), Value::Null) => {
                original.remove(list);
            }
            (Some(Value::Array(old)), Value::Array(unwanted)) => {
                let field = self.list_field(type_, list)?;
                match element_kind(old, &unwanted)? {
                    None => {}
                    Some(Kinds::Maps) => {
                        let merged = self.items(std::mem::take(old), unwanted, field)?;
                        *old = merged;
                    }
                    Some(Kinds::Scalars) => {
                        let unwanted: std::collections::HashSet<Value> = unwanted.into_iter().collect();
                        old.retain(|item| !unwanted.contains(item));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `mergePatchIntoOriginal`: the lists that `$setElementOrder/…` orders are merged and put in order, and leave the patch.
    fn ordered_lists(
        &self,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        type_: &Type,
    ) -> Result<(), Refusal> {
        let orders: Vec<String> = patch.keys().filter(|key| key.starts_with("$setElementOrder")).cloned().collect();
        for directive in orders {
            let Some(key) = directive.strip_prefix(ORDER) else { return Err(Refusal::ElementOrder) };
            let order = match patch.remove(&directive) {
                Some(Value::Array(order)) => order,
                other => return Err(Refusal::bad_type(LIST, &other.unwrap_or_default())),
            };
            let as_list = |value: Option<&Value>| match value {
                None => Ok(None),
                Some(Value::Array(items)) => Ok(Some(items.clone())),
                Some(other) => Err(Refusal::bad_type(LIST, other)),
            };
            let old = as_list(original.get(key))?;
            let new = as_list(patch.get(key))?;
            let field = self.list_field(type_, key)?;
            let merge_key = field.patch.key.as_deref();
            follows_order(new.as_deref().unwrap_or_default(), &order, merge_key)?;
            let kind = element_kind(old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default());
            let merged = match (&old, new) {
                (None, None) => continue,
                (Some(old), None) => old.clone(),
                (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
                (Some(old), Some(new)) => self.list_of(old.clone(), new, field)?,
            };
            let Some(kind) = kind? else {
                return Err(Refusal::Other("no elements in any of the given slices".to_owned()));
            };
            let merge_key = merge_key.filter(|_| kind == Kinds::Maps);
            let (listed, others) = partition(merged, &order, merge_key)?;
            let arranged = arrange(listed, others, &order, old.as_deref().unwrap_or_default(), merge_key)?;
            original.insert(key.to_owned(), Value::Array(arranged));
            patch.remove(key);
        }
        Ok(())
    }

    /// `mergeSliceHandler`
    fn list_of(&self, old: Vec<Value>, new: Vec<Value>, field: &Field) -> Result<Vec<Value>, Refusal> {
        if field.patch.merge { self.items(old, new, field) } else { Ok(new) }
    }

    /// `mergeSlice`
    fn items(&self, old: Vec<Value>, new: Vec<Value>, field: &Field) -> Result<Vec<Value>, Refusal> {
        let Some(kind) = element_kind(&old, &new)? else { return Ok(old) };
        if kind == Kinds::Scalars {
            let mut merged = old.clone();
            merged.extend(new.iter().cloned());
            let mut seen = std::collections::HashSet::new();
            merged.retain(|item| seen.insert(item.clone()));
            let (listed, others) = partition(merged, &new, None)?;
            return arrange(listed, others, &new, &old, None);
        }
        let Some(key) = field.patch.key.as_deref() else {
            let name = match &field.type_ {
                Type::List(item) => super::go::reflect_kind(item),
                other => super::go::reflect_kind(other),
            };
            return Err(Refusal::Other(format!("cannot merge lists without merge key for {name}")));
        };
        let (old, new) = special_items(old, new, key)?;
        let item_type = match &field.type_ {
            Type::List(item) => item,
            other => other,
        };
        let mut merged = old.clone();
        let mut places = std::collections::HashMap::new();
        for (at, item) in merged.iter().enumerate() {
            if let Some(id) = item.get(key) {
                places.entry(id.clone()).or_insert(at);
            }
        }
        for item in &new {
            let Value::Object(fields) = item else { continue };
            let Some(id) = fields.get(key) else { return Err(Refusal::no_merge_key(fields, key)) };
            match places.get(id) {
                Some(at) => {
                    let Value::Object(before) = merged[*at].take() else { continue };
                    merged[*at] = Value::Object(self.map(before, fields.clone(), item_type)?);
                }
                None => {
                    places.insert(id.clone(), merged.len());
                    merged.push(item.clone());
                }
            }
        }
        let (listed, others) = partition(merged, &new, Some(key))?;
        arrange(listed, others, &new, &old, Some(key))
    }

    /// `LookupPatchMetadataForStruct`
    fn field(&self, type_: &Type, key: &str) -> Result<&'a Field, Refusal> {
        match type_ {
            Type::Struct(id) => self.schemas[*id].field(key).ok_or_else(|| {
                Refusal::Other(format!(
                    "unable to find api field in struct {} for the json field {key:?}",
                    self.schemas[*id].go_name()
                ))
            }),
            other => Err(Refusal::Other(format!(
                "merging an object in json but data type is not struct, instead is: {}",
                super::go::reflect_kind(other)
            ))),
        }
    }

    /// `LookupPatchMetadataForSlice`
    fn list_field(&self, type_: &Type, key: &str) -> Result<&'a Field, Refusal> {
        let field = self.field(type_, key)?;
        match &field.type_ {
            Type::List(_) | Type::Bytes => Ok(field),
            other => Err(Refusal::Other(format!(
                "expected slice or array type, but got: {}",
                super::go::reflect_kind(other)
            ))),
        }
    }
}

/// `applyRetainKeysDirective`: the patch may only set what is retained; whatever else was there is dropped.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Refusal> {
    let Some(retained) = patch.remove(RETAIN) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(Refusal::RetainKeys) };
    let retained: std::collections::HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let speaks =
        |key: &str, value: &Value| !value.is_null() && !key.starts_with(DELETE_PRIMITIVE) && !key.starts_with(ORDER);
    if patch.iter().any(|(key, value)| speaks(key, value) && !retained.contains(key.as_str())) {
        return Err(Refusal::RetainKeys);
    }
    original.retain(|key, _| retained.contains(key.as_str()));
    Ok(())
}

/// `mergeSliceWithSpecialElements`: carries out the directives that stand as items, and leaves the other items.
fn special_items(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Refusal> {
    let mut plain = Vec::with_capacity(new.len());
    let mut deleted = std::collections::HashSet::new();
    let mut replaces = false;
    for item in new {
        let Value::Object(fields) = &item else { continue };
        match fields.get(DIRECTIVE) {
            None => plain.push(item),
            Some(directive) if directive == "delete" => match fields.get(key) {
                Some(id) => {
                    deleted.insert(id.clone());
                }
                None => return Err(Refusal::no_merge_key(fields, key)),
            },
            Some(directive) if directive == "replace" => replaces = true,
            Some(directive) if directive == "merge" => {
                return Err(Refusal::Other("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(other) => return Err(Refusal::unknown_directive(other, fields)),
        }
    }
    if replaces {
        return Ok((plain, Vec::new()));
    }
    if !deleted.is_empty() {
        old.retain(|item| item.get(key).is_none_or(|id| !deleted.contains(id)));
    }
    Ok((old, plain))
}

/// `validatePatchWithSetOrderList`: the patch's items are among the ordered ones, and in that order.
fn follows_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Refusal> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let id = |item: &Value| -> Result<Value, Refusal> {
        let Some(key) = key else { return Ok(item.clone()) };
        let Value::Object(fields) = item else { return Err(Refusal::bad_type(MAP, item)) };
        fields.get(key).cloned().ok_or_else(|| Refusal::no_merge_key(fields, key))
    };
    if let (Some(_), Some(other)) = (key, patch.iter().find(|item| !item.is_object())) {
        return Err(Refusal::bad_type(MAP, other));
    }
    let mut listed = order.iter();
    for item in patch {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        loop {
            let Some(next) = listed.next() else {
                return Err(Refusal::Other(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    super::go::list(patch),
                    super::go::list(order)
                )));
            };
            if id(item)? == id(next)? {
                break;
            }
        }
    }
    Ok(())
}

/// What the items of lists are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kinds {
    Maps,
    Scalars,
}

/// `sliceElementType`: the one type of all items; none for no items.
fn element_kind(old: &[Value], new: &[Value]) -> Result<Option<Kinds>, Refusal> {
    let mut items = old.iter().chain(new);
    let Some(first) = items.next() else { return Ok(None) };
    if first.is_array() {
        return Err(Refusal::ListOfLists);
    }
    if items.any(|item| std::mem::discriminant(item) != std::mem::discriminant(first)) {
        return Err(Refusal::Other(format!(
            "list element types are not identical: [{} {}]",
            super::go::list(old),
            super::go::list(new)
        )));
    }
    Ok(Some(if first.is_object() { Kinds::Maps } else { Kinds::Scalars }))
}

/// `discardNullValuesFromPatch`
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `removeDirectives`: a value without the objects in it that are directives; none if it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(items.into_iter().filter_map(without_directives).collect()),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => Some(scalar),
    }
}
