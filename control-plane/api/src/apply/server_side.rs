//! Server-side apply (sigs.k8s.io/structured-merge-diff, merge/update.go: `Apply`, `prune`).

use serde_json::Value;

use super::compare::{View, compare};
use super::conflict::{self, Conflict};
use super::fields::Fields;
use super::managers::{Entry, Managers, Operation};
use super::merge::merge;
use super::owned::{fields_of, with_named_fields};
use super::remove::remove;
use super::shape::{Node, equal};
use super::update::{Changes, fitted, record, strip, take};
use super::{Versions, Writer, conform, last_applied, or_empty};
use crate::status::{Reason, Status};

/// What an apply comes to.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The object as it is to be, before defaults; `None` when the live one is that already.
    pub object: Option<Value>,
    /// The managers after it.
    pub managers: Managers,
}

/// Applies an object to a live one, `null` when there is none. Both are without `managedFields`, and the live one is in the writer's version.
///
/// # Errors
/// 409 for fields that are another's and would change, unless forced; 500 in upstream's words for an object that does not fit the schema.
pub fn apply(
    managers: Managers,
    live: &Value,
    applied: &Value,
    versions: &dyn Versions,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, Status> {
    if let Some(why) = conform::check(versions.node(), applied) {
        return Err(broken(format!("failed to create typed patch object ({}): {why}", described(applied))));
    }
    let mut managers = managers;
    if managers.is_empty() && !live.is_null() {
        // What was there before anyone applied is not the applier's to take away.
        let before = Writer { manager: "before-first-apply", subresource: writer.subresource, ..*writer };
        managers = record(managers, &Value::Null, live, versions, &before);
    }
    let outcome = attempt(managers.clone(), live, applied, versions, writer, force)?;
    let mut outcome = match outcome {
        Ok(applied) => applied,
        Err(conflicts) => {
            // An object that kubectl applied from the client's side may go on being kubectl's.
            let left = match last_applied::allowed(live, versions.node(), writer) {
                Some(allowed) => last_applied::without(conflicts, &allowed),
                None => conflicts,
            };
            if !left.is_empty() {
                return Err(conflict::status(left));
            }
            attempt(managers, live, applied, versions, writer, true)?.map_err(conflict::status)?
        }
    };
    last_applied::refresh(&mut outcome, live, applied, writer);
    Ok(outcome)
}

fn attempt(
    managers: Managers,
    live: &Value,
    applied: &Value,
    versions: &dyn Versions,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Result<Applied, Vec<Conflict>>, Status> {
    let node = versions.node();
    let mut managers = fitted(managers, live, versions, writer.api_version);
    let merged = merge(node, (!live.is_null()).then_some(live), Some(applied))
        .map_err(|why| broken(format!("failed to merge config: {why}")))?
        .unwrap_or(Value::Null);
    let mut set = fields_of(node, applied);
    set.subtract_recursively(writer.reset);
    let entry = Entry {
        manager: writer.name().to_owned(),
        operation: Operation::Apply,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: None,
        fields: set,
    };
    let entries = managers.entries_mut();
    let last = entries.iter().position(|there| there.is_of(&entry)).map(|at| entries.remove(at));
    let mut this = entry.clone();
    entries.push(entry);
    let object = prune(merged, &managers, &this, last.as_ref(), versions);
    let own = {
        let mut own = compare(node, or_empty(live), &object, View::Merged);
        own.ignore(writer.reset);
        own
    };
    let mut changes = Changes::new(versions, writer, live, &object, own);
    let (mut managers, conflicts) = changes.settle(managers, Some(&this));
    if !force && !conflicts.is_empty() {
        return Ok(Err(conflicts));
    }
    take(&mut managers, conflicts);
    let changed = !equal(live, &object);
    let entries = managers.entries_mut();
    if let Some(at) = entries.iter().position(|there| there.is_of(&this)) {
        this = entries.remove(at);
        strip(&mut this.fields);
        this.time = if changed { writer.now.map(str::to_owned) } else { last.and_then(|last| last.time) };
        if !this.fields.is_empty() {
            entries.push(this);
        }
    }
    Ok(Ok(Applied { object: changed.then_some(object), managers }))
}

/// Takes away what the applier set before, sets no longer, and nobody else owns.
fn prune(merged: Value, managers: &Managers, this: &Entry, last: Option<&Entry>, versions: &dyn Versions) -> Value {
    let Some(last) = last.filter(|last| !last.fields.is_empty()) else { return merged };
    // Without that version any more, nothing is known of what was set.
    let converted = |object: &Value, from: &str, to: &str| {
        if from == to { Some(object.clone()) } else { versions.convert(object, to) }
    };
    let Some(in_last) = converted(&merged, &this.api_version, &last.api_version) else { return merged };
    let node_of =
        |version: &str| if version == this.api_version { Some(versions.node()) } else { versions.node_of(version) };
    let Some(node) = node_of(&last.api_version) else { return merged };
    let mut pruned = remove(node, &in_last, &with_named_fields(node, &last.fields));
    // What anyone owns comes back, the version of the last apply first.
    let mut owned: Vec<(&str, Fields)> = Vec::new();
    for entry in managers.iter() {
        match owned.iter_mut().find(|(version, _)| *version == entry.api_version) {
            Some((_, fields)) => fields.add(&entry.fields),
            None => owned.push((&entry.api_version, entry.fields.clone())),
        }
    }
    owned.sort_by_key(|(version, _)| *version != last.api_version);
    for (version, fields) in owned {
        let Some(node) = node_of(version) else { continue };
        let Some(whole) = converted(&in_last, &last.api_version, version) else { continue };
        let Some(rest) = converted(&pruned, &last.api_version, version) else { continue };
        let back = with_owned(node, &whole, &rest, &fields);
        pruned = converted(&back, version, &last.api_version).unwrap_or(pruned);
    }
    // And so does what was never the applier's, whoever else's it is.
    let mut gone = with_named_fields(node, &fields_of(node, &in_last));
    gone.subtract(&with_named_fields(node, &fields_of(node, &pruned)));
    let gone = gone.intersection(&with_named_fields(node, &last.fields));
    let pruned = remove(node, &in_last, &gone);
    converted(&pruned, &last.api_version, &this.api_version).unwrap_or(merged)
}

fn with_owned(node: Node<'_>, whole: &Value, rest: &Value, owned: &Fields) -> Value {
    let mut gone = with_named_fields(node, &fields_of(node, whole));
    let mut kept = with_named_fields(node, &fields_of(node, rest));
    kept.add(&with_named_fields(node, owned));
    gone.subtract(&kept);
    remove(node, whole, &gone)
}

/// What Go's server answers when something fails that it has no word for.
fn broken(why: String) -> Status {
    Status::new(500, Reason::Unknown, why)
}

/// `namespace/name; group/version, Kind=kind`
fn described(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
    format!("{}/{}; {version}, Kind={}", text("namespace"), text("name"), object["kind"].as_str().unwrap_or_default())
}
