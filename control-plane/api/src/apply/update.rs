//! Who owns what after a write: the part that updates and applies share, and updates whole
//! (sigs.k8s.io/structured-merge-diff, merge/update.go; k8s.io/apimachinery/pkg/util/managedfields/internal).

use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Comparison, View, compare};
use super::conflict::Conflict;
use super::fields::Fields;
use super::managers::{Entry, Managers, Operation};
use super::reconcile::reconcile;
use super::{Versions, Writer, or_empty};

/// What nobody owns (`stripMetaManager`).
static STRIPPED: LazyLock<Fields> = LazyLock::new(|| {
    Fields::named(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Owners are nobody's: the old object may come with them.
static OWNERS: LazyLock<Fields> = LazyLock::new(|| Fields::named(&[&["metadata", "managedFields"]]));

/// The managers after a write that is no apply. The new object comes without `managedFields`; `old` is `null` for a create.
///
/// A manager comes to own what it changes, and others lose that; what does not change keeps its owners. Nothing is tracked for objects that have no managers.
#[must_use]
pub fn update(managers: Managers, old: &Value, new: &Value, versions: &dyn Versions, writer: &Writer<'_>) -> Managers {
    let exists = old["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty());
    if managers.is_empty() && exists {
        return managers;
    }
    record(managers, old, new, versions, writer)
}

/// As [`update`], whether there are managers or not.
pub(super) fn record(
    managers: Managers,
    old: &Value,
    new: &Value,
    versions: &dyn Versions,
    writer: &Writer<'_>,
) -> Managers {
    let mut comparison = compare(versions.node(), or_empty(old), new, View::Both);
    comparison.ignore(writer.reset);
    comparison.removed.subtract_recursively(&OWNERS);
    // What the client sent may hold entries that say nothing.
    let mut managers = managers;
    managers.entries_mut().retain(|entry| !entry.fields.is_empty());
    if comparison.is_same() {
        return managers;
    }
    let mut changes = Changes::new(versions, writer, old, new, comparison);
    let managers = if versions.may_change() { fitted(managers, old, versions, writer.api_version) } else { managers };
    let (mut managers, conflicts) = changes.settle(managers, None);
    take(&mut managers, conflicts);
    let Comparison { mut added, modified, .. } = changes.own;
    added.add(&modified);
    added.subtract(&STRIPPED);
    if !added.is_empty() {
        let entry = Entry {
            manager: writer.name().to_owned(),
            operation: Operation::Update,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.now.map(str::to_owned),
            fields: added,
        };
        let entries = managers.entries_mut();
        match entries.iter_mut().find(|there| there.is_of(&entry)) {
            Some(there) => {
                there.fields.add(&entry.fields);
                there.time = entry.time;
            }
            None => entries.push(entry),
        }
    }
    managers.capped()
}

/// What changed, in every version that a manager speaks.
pub(super) struct Changes<'a> {
    versions: &'a dyn Versions,
    writer: &'a Writer<'a>,
    old: &'a Value,
    new: &'a Value,
    /// In the writer's version.
    pub(super) own: Comparison,
    /// In others; `None` where there is no such version any more.
    others: Vec<(String, Option<Comparison>)>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(
        versions: &'a dyn Versions,
        writer: &'a Writer<'a>,
        old: &'a Value,
        new: &'a Value,
        own: Comparison,
    ) -> Self {
        Self { versions, writer, old, new, own, others: Vec::new() }
    }

    fn of(&mut self, api_version: &str) -> Option<&Comparison> {
        if api_version == self.writer.api_version {
            return Some(&self.own);
        }
        if !self.others.iter().any(|(version, _)| version == api_version) {
            let found = (|| {
                let node = self.versions.node_of(api_version)?;
                let old =
                    if self.old.is_null() { Value::Null } else { self.versions.convert(self.old, api_version)? };
                let new = self.versions.convert(self.new, api_version)?;
                let mut found = compare(node, or_empty(&old), &new, View::Both);
                found.ignore(self.writer.reset);
                Some(found)
            })();
            self.others.push((api_version.to_owned(), found));
        }
        self.others.iter().find(|(version, _)| version == api_version).and_then(|(_, found)| found.as_ref())
    }

    /// Takes from every manager what was removed, and tells which of them own what was changed. Managers of versions that are gone are dropped; the applier
    /// at `this` is left alone.
    pub(super) fn settle(&mut self, managers: Managers, this: Option<&Entry>) -> (Managers, Vec<Conflict>) {
        let mut managers = managers;
        let mut conflicts = Vec::new();
        let mut kept = Vec::new();
        for mut entry in managers.entries_mut().drain(..) {
            if this.is_some_and(|this| this.is_of(&entry)) {
                kept.push(entry);
                continue;
            }
            let Some(changes) = self.of(&entry.api_version) else { continue };
            let mut fields = entry.fields.intersection(&changes.modified);
            fields.add(&entry.fields.intersection(&changes.added));
            if !fields.is_empty() {
                let with = Entry { fields: Fields::default(), ..entry.clone() };
                conflicts.push(Conflict { with, fields });
            }
            entry.fields.subtract(&changes.removed);
            if !entry.fields.is_empty() {
                kept.push(entry);
            }
        }
        (Managers::from_entries(kept), conflicts)
    }
}

/// Takes from managers what another has changed.
pub(super) fn take(managers: &mut Managers, conflicts: Vec<Conflict>) {
    for conflict in conflicts {
        if let Some(entry) = managers.entries_mut().iter_mut().find(|entry| entry.is_of(&conflict.with)) {
            entry.fields.subtract(&conflict.fields);
        }
    }
    managers.entries_mut().retain(|entry| !entry.fields.is_empty());
}

/// Fits the sets to the schemas as they are now.
pub(super) fn fitted(mut managers: Managers, live: &Value, versions: &dyn Versions, api_version: &str) -> Managers {
    if live.is_null() {
        return managers;
    }
    for entry in managers.entries_mut() {
        let node =
            if entry.api_version == api_version { Some(versions.node()) } else { versions.node_of(&entry.api_version) };
        if let Some(fields) = node.and_then(|node| reconcile(node, &entry.fields)) {
            entry.fields = fields;
        }
    }
    managers
}

/// Drops what nobody may own.
pub(super) fn strip(fields: &mut Fields) {
    fields.subtract(&STRIPPED);
}
