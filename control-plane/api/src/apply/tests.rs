//! Behaviours of ownership, each on a small object of a built-in kind.

mod properties;
mod tables;

use serde_json::{Value, json};

use super::*;
use crate::schema::{Schemas, Type};
use crate::status::Status;

/// A kind of one version.
pub(super) struct Single(Type);

impl Single {
    pub(super) fn new(schema: &str) -> Self {
        Self(Type::Struct(Schemas::builtin().id(schema).unwrap()))
    }

    pub(super) fn pods() -> Self {
        Self::new("io.k8s.api.core.v1.Pod")
    }

    pub(super) fn deployments() -> Self {
        Self::new("io.k8s.api.apps.v1.Deployment")
    }
}

impl Versions for Single {
    fn node(&self) -> Node<'_> {
        Node::root(Schemas::builtin(), &self.0)
    }

    fn node_of(&self, _: &str) -> Option<Node<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str) -> Option<Value> {
        None
    }

    fn may_change(&self) -> bool {
        true
    }
}

/// An object and its managers, as they come out of one write after another.
pub(super) struct Stored {
    pub(super) kind: Single,
    pub(super) api_version: &'static str,
    pub(super) object: Value,
    pub(super) managers: Managers,
    pub(super) reset: Fields,
    writes: u32,
}

impl Stored {
    pub(super) fn new(kind: Single, api_version: &'static str) -> Self {
        let reset = Fields::named(&[&["status"]]);
        Self { kind, api_version, object: Value::Null, managers: Managers::default(), reset, writes: 0 }
    }

    fn now(&mut self) -> String {
        self.writes += 1;
        format!("2026-11-24T08:00:{:02}Z", self.writes)
    }

    pub(super) fn update(&mut self, manager: &str, mut object: Value) -> &mut Self {
        let now = self.now();
        object["metadata"]["uid"] = "u".into();
        let writer =
            Writer { manager, subresource: "", api_version: self.api_version, now: Some(&now), reset: &self.reset };
        self.managers = update(self.managers.clone(), &self.object, &object, &self.kind, &writer);
        self.object = object;
        self
    }

    pub(super) fn apply(&mut self, manager: &str, mut applied: Value, force: bool) -> Result<bool, Status> {
        let now = self.now();
        applied["apiVersion"] = self.api_version.into();
        let writer =
            Writer { manager, subresource: "", api_version: self.api_version, now: Some(&now), reset: &self.reset };
        let outcome = apply(self.managers.clone(), &self.object, &applied, &self.kind, &writer, force)?;
        let changed = outcome.object.is_some();
        if let Some(mut object) = outcome.object {
            object["metadata"]["uid"] = "u".into();
            self.object = object;
        }
        self.managers = outcome.managers;
        Ok(changed)
    }

    /// What a manager owns.
    pub(super) fn owned(&self, manager: &str) -> Vec<String> {
        self.managers.iter().filter(|entry| entry.manager == manager).flat_map(|entry| entry.fields.paths()).collect()
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.managers.iter().map(|entry| entry.manager.as_str()).collect()
    }
}

/// A config map's worth of owners in one line: labels.
pub(super) fn labelled(labels: Value) -> Value {
    json!({"metadata": {"name": "a", "labels": labels}})
}
