//! A place in the graph of types, as merging sees it: a leaf, or something granular whose parts have owners of their own.
//!
//! Upstream makes such a schema of OpenAPI (k8s.io/kube-openapi/pkg/schemaconv); here it is read off the graph. What the graph does not know (`Raw`, and
//! fields that a struct does not declare) is deduced from the value: maps are granular, lists are atomic.

use serde_json::Value;

use super::{EMPTY, element};
use crate::schema::{Field, ListType, Schemas, Struct, StructId, Type};

static RAW: Type = Type::Raw;

/// A place in the graph: a type, and the field that has it, if it is a field's.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    schemas: &'a Schemas,
    type_: &'a Type,
    field: Option<&'a Field>,
}

/// How a value is merged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    /// No parts.
    Scalar,
    /// Replaced whole.
    AtomicMap,
    /// Every key has owners of its own.
    Map(Entries<'a>),
    /// Replaced whole.
    AtomicList,
    /// Items are scalars, and every one has owners of its own.
    Set(Node<'a>),
    /// Items are found by these fields.
    Keyed(&'a [String], Node<'a>),
}

/// What the keys of a granular map are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entries<'a> {
    /// The declared fields of a struct.
    Struct(Node<'a>, &'a Struct),
    /// Any key, each with a value of this type.
    Any(Node<'a>),
}

impl<'a> Node<'a> {
    /// The root of a kind with a schema.
    #[must_use]
    pub fn root(schemas: &'a Schemas, type_: &'a Type) -> Self {
        Self { schemas, type_, field: None }
    }

    /// The root of something of which nothing is known.
    #[must_use]
    pub fn unknown(schemas: &'a Schemas) -> Self {
        Self { schemas, type_: &RAW, field: None }
    }

    /// The keys that an object here may have, whether it is merged by key or whole.
    pub(super) fn entries(self) -> Option<Entries<'a>> {
        match self.type_ {
            Type::Struct(id) => Some(Entries::Struct(self, &self.schemas[*id])),
            Type::Map(item) => Some(Entries::Any(self.of(item, None))),
            Type::Raw | Type::SchemaOr(..) => Some(Entries::Any(self.of(&RAW, None))),
            _ => None,
        }
    }

    /// The type that is here.
    pub(super) fn type_(self) -> &'a Type {
        self.type_
    }

    fn of(self, type_: &'a Type, field: Option<&'a Field>) -> Self {
        Self { schemas: self.schemas, type_, field }
    }

    /// How a value that is here is merged. The value decides only where the graph knows nothing.
    pub(super) fn shape(self, value: &Value) -> Shape<'a> {
        match self.type_ {
            Type::Raw | Type::SchemaOr(..) => match value {
                // Upstream takes null for whatever fits first, which is a map.
                Value::Object(_) | Value::Null => Shape::Map(Entries::Any(self.of(&RAW, None))),
                Value::Array(_) => Shape::AtomicList,
                Value::Bool(_) | Value::Number(_) | Value::String(_) => Shape::Scalar,
            },
            Type::Struct(id) => self.of_struct(*id),
            Type::Map(_) if self.field.is_some_and(|field| field.atomic_map) => Shape::AtomicMap,
            Type::Map(item) => Shape::Map(Entries::Any(self.of(item, None))),
            Type::List(item) => match self.field.map(|field| &field.list) {
                None | Some(ListType::Atomic) => Shape::AtomicList,
                Some(ListType::Set) => Shape::Set(self.of(item, None)),
                Some(ListType::Map(keys)) => Shape::Keyed(keys, self.of(item, None)),
            },
            Type::String
            | Type::Bool
            | Type::Int32
            | Type::Int64
            | Type::Float
            | Type::Bytes
            | Type::Time
            | Type::MicroTime
            | Type::Quantity
            | Type::IntOrString => Shape::Scalar,
        }
    }

    fn of_struct(self, id: StructId) -> Shape<'a> {
        let found = &self.schemas[id];
        // A field says how its struct is merged there, whatever the struct says elsewhere.
        let atomic = match self.field {
            Some(field) => field.atomic_map,
            None => found.atomic,
        };
        if atomic { Shape::AtomicMap } else { Shape::Map(Entries::Struct(self, found)) }
    }

    /// The place of an element below this one, for sets that were made without the value at hand.
    pub(super) fn descend(self, element: &str) -> Self {
        let unknown = Self::unknown(self.schemas);
        match (self.type_, element::field_name(element)) {
            (Type::Struct(id), Some(name)) => match self.schemas[*id].field(name) {
                Some(field) => self.of(&field.type_, Some(field)),
                None => unknown,
            },
            (Type::Map(item), Some(_)) => self.of(item, None),
            (Type::List(item), None) => self.of(item, None),
            _ => unknown,
        }
    }

    /// Whether an element below this one is a field that a struct declares.
    pub(super) fn declares(self, element: &str) -> bool {
        match (self.type_, element::field_name(element)) {
            (Type::Struct(id), Some(name)) => self.schemas[*id].field(name).is_some(),
            _ => false,
        }
    }

    /// The element of an item of a list with keys.
    ///
    /// # Errors
    /// An item that can't be told from others, in upstream's words.
    pub(super) fn key_of(self, keys: &[String], item: &Value) -> Result<String, String> {
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let mut pairs: Vec<(&str, &Value)> = Vec::with_capacity(keys.len());
        for key in keys {
            match fields.get(key) {
                Some(value) => pairs.push((key, value)),
                None => pairs.extend(self.default_of(key).map(|value| (key.as_str(), value))),
            }
        }
        if pairs.is_empty() && !keys.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {} (and doesn't have default values for any key fields)",
                quoted(keys)
            ));
        }
        pairs.sort_by_key(|(name, _)| *name);
        Ok(element::key(&pairs))
    }

    /// What a key field is taken for where an item leaves it out.
    fn default_of(self, key: &str) -> Option<&'a Value> {
        let Type::Struct(id) = self.type_ else { return None };
        self.schemas[*id].field(key)?.default.as_ref()
    }
}

impl<'a> Entries<'a> {
    /// The place of a key, and whether the key is a declared field.
    pub(super) fn get(self, key: &str) -> (Node<'a>, bool) {
        match self {
            Self::Any(node) => (node, false),
            Self::Struct(node, found) => match found.field(key) {
                Some(field) => (node.of(&field.type_, Some(field)), true),
                None => (Node::unknown(node.schemas), false),
            },
        }
    }

    /// The place of a key, and how Go holds it.
    pub(super) fn slot(self, key: &str) -> Slot<'a> {
        let (node, declared) = self.get(key);
        // How Go holds a field is known of those alone that have a number.
        let unboxed = node.field.filter(|field| declared && !field.protobuf.is_empty() && !field.pointer);
        Slot { node, unboxed }
    }

    /// The names of the structs that are always there.
    pub(super) fn structs(self) -> impl Iterator<Item = &'a str> {
        let fields = match self {
            Self::Struct(_, found) => found.fields.as_slice(),
            Self::Any(_) => &[],
        };
        let unboxed = |field: &&Field| !field.protobuf.is_empty() && !field.pointer;
        fields
            .iter()
            .filter(|field| matches!(field.type_, Type::Struct(_)))
            .filter(unboxed)
            .map(|field| field.name.as_str())
    }
}

/// Where a key's value goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    pub(super) node: Node<'a>,
    /// The field, if Go does not hold it by a pointer.
    unboxed: Option<&'a Field>,
}

impl<'a> Slot<'a> {
    /// A value as upstream's Go structs show it: what is always there is, and what is no pointer and zero is not.
    pub(super) fn shown<'v>(self, value: Option<&'v Value>) -> Option<&'v Value>
    where
        'a: 'v,
    {
        match (value, self.unboxed) {
            (None, _) => self.always(),
            (Some(value), Some(field)) if !field.required && is_omitted(&field.type_, value) => None,
            (value, _) => value,
        }
    }

    /// What Go always writes, even where nothing is in it: a struct that it does not hold by a pointer, and a field without `omitempty`.
    pub(super) fn always(self) -> Option<&'a Value> {
        let field = self.unboxed?;
        match field.type_ {
            Type::Struct(_) => Some(&EMPTY),
            Type::List(_) | Type::Map(_) if field.required => Some(&Value::Null),
            _ if field.required => field.default.as_ref(),
            _ => None,
        }
    }
}

/// Whether Go's `omitempty` leaves a value out.
fn is_omitted(type_: &Type, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0) && *type_ != Type::IntOrString,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty() && matches!(type_, Type::Map(_)),
    }
}

/// Go's `%q` of a list of strings.
fn quoted(keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
    format!("[{}]", keys.join(" "))
}

/// The element of an item of a set.
///
/// # Errors
/// An item that is no scalar, in upstream's words.
pub(super) fn set_item(item: &Value) -> Result<String, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
        scalar => Ok(element::value(scalar)),
    }
}

/// Equality that takes 1 and 1.0 for one number, as upstream's does.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|((k, x), (l, y))| k == l && equal(x, y))
        }
        _ => a == b,
    }
}
