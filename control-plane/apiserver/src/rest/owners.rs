//! `metadata.managedFields` of what is written: who owns which field after a write. The rules are [`skep_api::apply`]'s; here is where they meet the engine.
//!
//! Invariant: owners are recorded after defaults and before admission, as upstream does, so that what admission and the kind's own rules add is nobody's. A write
//! that changes nothing leaves them as they are, to the byte.

use std::sync::Arc;

use serde_json::{Map, Value};
use skep_api::GroupVersion;
use skep_api::apply::{self, Managers, Node, Versions, Writer};
use skep_api::kinds::{Kind, Subresource};
use skep_api::schema::Type;

use super::{Call, Engine, metadata, rfc3339};
use crate::registry::Table;

/// How a write changes who owns what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The writer comes to own what it changes.
    Changed,
    /// The same, without a time: upstream records scales so.
    Scaled,
    /// The object carries its owners as they are to be.
    Given,
    /// Nobody's fields change hands.
    Kept,
}

impl Engine {
    /// Sets the owners of an object that is about to be written. `old` is `null` for one that is new.
    pub(super) fn record_owners(&self, call: &Call<'_>, old: &Value, object: &mut Value, ownership: Ownership) {
        let given = metadata::of(object).remove(FIELD);
        let live = old["metadata"].get(FIELD);
        let managers = match ownership {
            Ownership::Given => given,
            Ownership::Kept => live.cloned(),
            Ownership::Changed | Ownership::Scaled => {
                let live = live.and_then(Value::as_array).cloned().unwrap_or_default();
                // A subresource has no say in them.
                let given = if call.subresource.is_some() { None } else { given };
                let now = rfc3339(call.now);
                let now = (ownership == Ownership::Changed).then_some(now.as_str());
                let managers = Managers::of_request(given.as_ref(), live);
                Some(self.updated(call, old, object, managers, now).into_value())
            }
        };
        put(object, managers.filter(|managers| managers.as_array().is_some_and(|list| !list.is_empty())));
    }

    fn updated(&self, call: &Call<'_>, old: &Value, object: &Value, managers: Managers, now: Option<&str>) -> Managers {
        let reset = apply::reset_fields(call.kind, call.subresource);
        let manager = call.query.manager();
        let api_version = call.kind.group_version.to_string();
        let writer = Writer {
            manager: &manager,
            subresource: call.subresource.map_or("", Subresource::as_str),
            api_version: &api_version,
            now,
            reset: &reset,
        };
        let table = self.registry.table();
        apply::update(managers, old, object, &KindVersions::new(call.kind, &table), &writer)
    }
}

const FIELD: &str = "managedFields";

/// Gives an object owners, or none.
pub(super) fn put(object: &mut Value, managers: Option<Value>) {
    let metadata = metadata::of(object);
    match managers {
        Some(managers) => metadata.insert(FIELD.to_owned(), managers),
        None => metadata.remove(FIELD),
    };
}

/// A copy of an object without its owners.
pub(super) fn without(object: &Value) -> Value {
    let Some(fields) = object.as_object() else { return object.clone() };
    let copied = |fields: &Map<String, Value>, but: &str| -> Map<String, Value> {
        let kept = fields.iter().filter(|(key, _)| *key != but);
        kept.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let mut out = copied(fields, "metadata");
    match &fields.get("metadata") {
        Some(Value::Object(metadata)) => out.insert("metadata".to_owned(), Value::Object(copied(metadata, FIELD))),
        Some(other) => out.insert("metadata".to_owned(), (*other).clone()),
        None => None,
    };
    Value::Object(out)
}

/// Takes back new times where nothing else is new, so that a write of the same is none (upstream's `IgnoreManagedFieldsTimestampsTransformer`).
pub(super) fn keep_times(object: &mut Value, old: &Value) {
    let (Some(new), Some(before)) = (object["metadata"][FIELD].as_array(), old["metadata"][FIELD].as_array()) else {
        return;
    };
    if apply::differ_in_times_only(new, before) && apply::equal_but_owners(object, old) {
        let before = Value::Array(before.clone());
        put(object, Some(before));
    }
}

/// The versions of a kind, as they are served.
pub(super) struct KindVersions<'a> {
    kind: &'a Arc<Kind>,
    root: Type,
    others: Vec<(String, &'a Arc<Kind>, Type)>,
}

impl<'a> KindVersions<'a> {
    pub(super) fn new(kind: &'a Arc<Kind>, table: &'a Table) -> Self {
        let others = if table.is_shared(kind) {
            let resource = kind.storage_resource();
            let same = table
                .kinds()
                .filter(|other| other.group_version != kind.group_version && other.storage_resource() == resource);
            same.map(|other| (other.group_version.to_string(), other, root(other))).collect()
        } else {
            Vec::new()
        };
        Self { kind, root: root(kind), others }
    }
}

fn root(kind: &Kind) -> Type {
    kind.schemas().id(&kind.schema).map_or(Type::Raw, Type::Struct)
}

impl Versions for KindVersions<'_> {
    fn node(&self) -> Node<'_> {
        Node::root(self.kind.schemas(), &self.root)
    }

    fn node_of(&self, api_version: &str) -> Option<Node<'_>> {
        if api_version == self.kind.group_version.to_string() {
            return Some(self.node());
        }
        let (_, kind, root) = self.others.iter().find(|(version, ..)| version == api_version)?;
        Some(Node::root(kind.schemas(), root))
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let of = |api_version: &str| {
            let version = GroupVersion::parse(api_version)?;
            if version == self.kind.group_version {
                return Some(self.kind);
            }
            self.others.iter().find(|(version, ..)| version == api_version).map(|(_, kind, _)| *kind)
        };
        let from = object["apiVersion"].as_str().and_then(of).unwrap_or(self.kind);
        let to = of(api_version)?;
        let mut object = object.clone();
        if let Some(conversion) = &from.conversion {
            (conversion.to_storage)(&mut object);
        }
        if let Some(conversion) = &to.conversion {
            (conversion.from_storage)(&mut object);
        }
        object["apiVersion"] = api_version.into();
        object["kind"] = to.kind.to_string().into();
        Some(object)
    }

    fn may_change(&self) -> bool {
        self.kind.custom.is_some()
    }
}
