//! What a definition's status becomes: which names it has, whether it is served, what its deletion waits for. Pure; a task of the API server writes it.
//!
//! Upstream: pkg/controller/{status,establish,nonstructuralschema,apiapproval,finalizer} of k8s.io/apiextensions-apiserver.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::structural;
use super::validate::{Approval, approval_of, is_protected};
use crate::field::Path;
use crate::kinds::tree::{items, text};

/// The finalizer of definitions that have objects to be deleted first.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether a condition of a definition is true.
#[must_use]
pub fn is_true(definition: &Value, type_: &str) -> bool {
    find(definition, type_).is_some_and(|condition| condition["status"] == "True")
}

fn find<'a>(definition: &'a Value, type_: &str) -> Option<&'a Value> {
    items(&definition["status"]["conditions"]).iter().find(|condition| condition["type"] == type_)
}

/// The definition with the status that it should have, or `None` if it has it. `others` are all definitions, this one too; `now` is RFC 3339.
#[must_use]
pub fn next_status<'a>(definition: &Value, others: impl IntoIterator<Item = &'a Value>, now: &str) -> Option<Value> {
    let mut next = definition.clone();
    accept_names(&mut next, others, now);
    if is_true(&next, "NamesAccepted") && !is_true(&next, "Established") {
        set(&mut next, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now);
    }
    approve(&mut next, now);
    judge_schema(&mut next, now);
    (next["status"] != definition["status"]).then_some(next)
}

/// The definition as the first request to delete it leaves it: held by its finalizer until its objects are gone.
#[must_use]
pub fn deletion_pending(definition: &Value, now: &str) -> Value {
    let mut next = definition.clone();
    let metadata = &mut next["metadata"];
    if !metadata["finalizers"].is_array() {
        metadata["finalizers"] = json!([]);
    }
    if let Some(finalizers) = metadata["finalizers"].as_array_mut()
        && !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER)
    {
        finalizers.push(CLEANUP_FINALIZER.into());
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set(&mut next, "Terminating", "True", "InstanceDeletionPending", message, now);
    next
}

/// The definition while its objects are being deleted.
#[must_use]
pub fn deletion_in_progress(definition: &Value, now: &str) -> Value {
    let mut next = definition.clone();
    set(&mut next, "Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress", now);
    next
}

/// The definition once its objects are gone: without its finalizer.
#[must_use]
pub fn deletion_done(definition: &Value, now: &str) -> Value {
    let mut next = definition.clone();
    set(&mut next, "Terminating", "False", "InstanceDeletionCompleted", "removed all instances", now);
    if let Some(finalizers) = next["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
    }
    next
}

fn accept_names<'a>(definition: &mut Value, others: impl IntoIterator<Item = &'a Value>, now: &str) {
    let wanted = definition["spec"]["names"].clone();
    let accepted = definition["status"]["acceptedNames"].clone();
    if crate::kinds::tree::semantically_equal(&wanted, &accepted) {
        return;
    }
    let mut resources = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for other in others.into_iter().filter(|other| other["spec"]["group"] == definition["spec"]["group"]) {
        let names = &other["status"]["acceptedNames"];
        resources.extend([text(&names["plural"]), text(&names["singular"])]);
        resources.extend(items(&names["shortNames"]).iter().map(text));
        kinds.extend([text(&names["kind"]), text(&names["listKind"])]);
    }
    let mut new = if accepted.is_object() { accepted.clone() } else { json!({}) };
    let mut conflict: Option<(&str, String)> = None;
    let taken = |name: &str, own: &str, used: &BTreeSet<&str>| name != own && used.contains(name);
    for (field, reason, used) in
        [("plural", "PluralConflict", &resources), ("singular", "SingularConflict", &resources)]
    {
        if taken(text(&wanted[field]), text(&accepted[field]), used) {
            conflict = Some((reason, format!("{:?} is already in use", text(&wanted[field]))));
        } else {
            new[field] = wanted[field].clone();
        }
    }
    let own: Vec<&str> = items(&accepted["shortNames"]).iter().map(text).collect();
    let lost: Vec<String> = items(&wanted["shortNames"])
        .iter()
        .map(text)
        .filter(|name| !own.contains(name) && taken(name, "", &resources))
        .map(|name| format!("{name:?} is already in use"))
        .collect();
    if lost.is_empty() {
        copy(&mut new, &wanted, "shortNames");
    } else {
        let message = if lost.len() == 1 { lost[0].clone() } else { format!("[{}]", lost.join(", ")) };
        conflict = Some(("ShortNamesConflict", message));
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        if taken(text(&wanted[field]), text(&accepted[field]), &kinds) {
            conflict = Some((reason, format!("{:?} is already in use", text(&wanted[field]))));
        } else {
            new[field] = wanted[field].clone();
        }
    }
    copy(&mut new, &wanted, "categories");
    definition["status"]["acceptedNames"] = new;
    match &conflict {
        Some((reason, message)) => set(definition, "NamesAccepted", "False", reason, message, now),
        None => set(definition, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
    }
    if conflict.is_some() && find(definition, "Established").is_none() {
        set(definition, "Established", "False", "NotAccepted", "not all names are accepted", now);
    }
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => crate::kinds::tree::remove(to, field),
    }
}

fn approve(definition: &mut Value, now: &str) {
    const TYPE: &str = "KubernetesAPIApprovalPolicyConformant";
    if !is_protected(text(&definition["spec"]["group"])) {
        return;
    }
    let (state, why) = approval_of(definition);
    let (status, reason) = match state {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    set(definition, TYPE, status, reason, &why, now);
}

fn judge_schema(definition: &mut Value, now: &str) {
    let path = Path::new("spec").child("versions");
    let mut violations: Vec<String> = Vec::new();
    if definition["spec"]["preserveUnknownFields"] == true {
        violations.push("spec.preserveUnknownFields: Invalid value: true: must be false".to_owned());
    }
    for (at, version) in items(&definition["spec"]["versions"]).iter().enumerate() {
        let path = path.index(at).child("schema").child("openAPIV3Schema");
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_object() {
            violations.extend(structural::validate(schema, &path).iter().map(ToString::to_string));
        }
    }
    if violations.is_empty() {
        // A condition that says that nothing is wrong is none.
        if let Some(conditions) = definition["status"]["conditions"].as_array_mut() {
            conditions.retain(|condition| condition["type"] != "NonStructuralSchema");
        }
        return;
    }
    let message = if violations.len() == 1 { violations[0].clone() } else { format!("[{}]", violations.join(", ")) };
    set(definition, "NonStructuralSchema", "True", "Violations", &message, now);
}

/// Sets a condition; its time moves when its status does (`SetCRDCondition`).
fn set(definition: &mut Value, type_: &str, status: &str, reason: &str, message: &str, now: &str) {
    let conditions = &mut definition["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == type_) {
        Some(there) => {
            if there["status"] != status {
                there["lastTransitionTime"] = now.into();
            }
            there["status"] = status.into();
            there["reason"] = reason.into();
            there["message"] = message.into();
        }
        None => conditions.push(json!({
            "type": type_, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
        })),
    }
}
