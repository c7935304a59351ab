//! What may change of a pod once it exists: upstream's `ValidatePodUpdate`.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;

use super::{annotations, validate_pod};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::validate::scheduling::validate_tolerations;
use crate::kinds::tree::{carry_over, entries, is_empty, items, items_mut, length, remove, semantically_equal, text};
use crate::names;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with a pod that replaces `old`, besides metadata.
pub(in crate::kinds::core::pod) fn validate_update(pod: &Value, old: &Value) -> ErrorList {
    let mut errors = validate_pod(pod);
    errors.extend(annotations::validate_update(pod, old, &Path::new("metadata").child("annotations")));
    let (spec, before, path) = (&pod["spec"], &old["spec"], Path::new("spec"));
    for list in ["containers", "initContainers"] {
        if length(&spec[list]) != length(&before[list]) {
            errors.push(Error::forbidden(&path.child(list), "pod updates may not add or remove containers"));
            return errors;
        }
        errors.extend(validate_images(&spec[list], &path.child(list)));
    }
    match validate_deadline(spec, before, &path.child("activeDeadlineSeconds")) {
        Deadline::Fine => {}
        Deadline::Removed(error) => errors.push(error),
        Deadline::Wrong(wrong) => {
            errors.extend(wrong);
            return errors;
        }
    }
    errors.extend(only_added_tolerations(&spec["tolerations"], &before["tolerations"], &path.child("tolerations")));
    let gates_path = path.child("schedulingGates");
    errors.extend(only_removed_gates(&spec["schedulingGates"], &before["schedulingGates"], &gates_path));
    if semantically_equal(spec, before) {
        return errors;
    }
    let mut masked = mask_updatable(spec, before);
    if length(&before["schedulingGates"]) > 0 {
        errors.extend(mask_gated(&mut masked, before, &path));
    }
    if !semantically_equal(&masked, before) {
        let difference = unified_diff(before, &masked);
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{difference}");
        errors.push(Error::forbidden(&path, detail));
    }
    errors
}

fn validate_images(containers: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, container) in items(containers).iter().enumerate() {
        let (image, at) = (text(&container["image"]), path.index(index).child("image"));
        if image.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        if image.trim().len() != image.len() {
            errors.push(Error::invalid(&at, image, "must not have leading or trailing whitespace"));
        }
    }
    errors
}

enum Deadline {
    Fine,
    Removed(Error),
    /// Upstream looks no further.
    Wrong(ErrorList),
}

/// A deadline may be set, and brought nearer.
fn validate_deadline(spec: &Value, before: &Value, path: &Path) -> Deadline {
    let old = before["activeDeadlineSeconds"].as_i64();
    let Some(new) = spec["activeDeadlineSeconds"].as_i64() else {
        return match old {
            None => Deadline::Fine,
            Some(_) => {
                let detail = "must not update from a positive integer to nil value";
                Deadline::Removed(Error::invalid(path, Value::Null, detail))
            }
        };
    };
    let messages = names::in_range(new, 0, i64::from(i32::MAX));
    if !messages.is_empty() {
        return Deadline::Wrong(messages.into_iter().map(|message| Error::invalid(path, new, message)).collect());
    }
    if old.is_some_and(|old| old < new) {
        return Deadline::Wrong(vec![Error::invalid(path, new, "must be less than or equal to previous value")]);
    }
    Deadline::Fine
}

fn only_added_tolerations(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let kept = |old: &Value| {
        let old = without_seconds(old);
        items(new).iter().any(|new| semantically_equal(&without_seconds(new), &old))
    };
    if !items(old).iter().all(kept) {
        return vec![Error::forbidden(path, "existing toleration can not be modified except its tolerationSeconds")];
    }
    validate_tolerations(new, path)
}

fn only_removed_gates(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let known = |gate: &Value| items(old).iter().any(|old| old["name"] == gate["name"]);
    let added = items(new).iter().enumerate().filter(|(_, gate)| !known(gate));
    added
        .map(|(index, gate)| {
            let name = text(&gate["name"]);
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            Error::forbidden(&path.index(index).child("name"), detail)
        })
        .collect()
}

/// The new spec with every field that may change as it was.
fn mask_updatable(spec: &Value, before: &Value) -> Value {
    let mut masked = spec.clone();
    for list in ["containers", "initContainers"] {
        for (container, old) in items_mut(&mut masked, list).iter_mut().zip(items(&before[list])) {
            carry_over(container, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        carry_over(&mut masked, before, field);
    }
    let was_negative = before["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0);
    if was_negative && masked["terminationGracePeriodSeconds"] == 1 {
        carry_over(&mut masked, before, "terminationGracePeriodSeconds");
    }
    masked
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// While a pod is gated, its node selector and node affinity may be narrowed (KEP-3838).
fn mask_gated(masked: &mut Value, before: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if !semantically_equal(&masked["nodeSelector"], &before["nodeSelector"]) {
        let selector = masked["nodeSelector"].clone();
        if entries(&before["nodeSelector"]).any(|(key, value)| selector.get(key) != Some(value)) {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&path.child("nodeSelector"), selector, detail));
        }
        carry_over(masked, before, "nodeSelector");
    }
    let (new, old) = (masked["affinity"]["nodeAffinity"].clone(), &before["affinity"]["nodeAffinity"]);
    if !semantically_equal(&new, old) {
        let at = path.child("affinity").child("nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
        errors.extend(only_narrowed(&new[REQUIRED]["nodeSelectorTerms"], &old[REQUIRED]["nodeSelectorTerms"], &at));
        carry_over(&mut masked["affinity"], &before["affinity"], "nodeAffinity");
    }
    if is_empty(&masked["affinity"]) {
        carry_over(masked, before, "affinity");
    }
    errors
}

fn only_narrowed(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let (new_terms, old_terms) = (items(new), items(old));
    if old_terms.is_empty() {
        return ErrorList::new();
    }
    if new_terms.len() != old_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return vec![Error::invalid(path, new.clone(), detail)];
    }
    let extends = |new: &Value, old: &Value| {
        let (new, old) = (items(new), items(old));
        new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| semantically_equal(new, old))
    };
    let narrowed = |new: &Value, old: &Value| {
        let matches_nothing = length(&old["matchExpressions"]) == 0 && length(&old["matchFields"]) == 0;
        if matches_nothing {
            return length(&new["matchExpressions"]) == 0 && length(&new["matchFields"]) == 0;
        }
        extends(&new["matchExpressions"], &old["matchExpressions"]) && extends(&new["matchFields"], &old["matchFields"])
    };
    let terms = new_terms.iter().zip(old_terms).enumerate().filter(|(_, (new, old))| !narrowed(new, old));
    terms
        .map(|(index, (new, _))| {
            Error::invalid(&path.index(index), new.clone(), "only additions are allowed (no mutations or deletions)")
        })
        .collect()
}

/// The lines in which two trees differ, with three lines around them, as `diff -u` prints one hunk.
pub(in crate::kinds) fn unified_diff(old: &Value, new: &Value) -> String {
    const CONTEXT: usize = 3;
    let (old, new) = (pretty(old), pretty(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let prefix = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - prefix;
    let suffix = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let start = prefix.saturating_sub(CONTEXT);
    let (old_end, new_end) = (old.len() - suffix, new.len() - suffix);
    let tail = suffix.min(CONTEXT);
    let mut diff =
        format!("@@ -{},{} +{},{} @@\n", start + 1, old_end + tail - start, start + 1, new_end + tail - start);
    let mut push = |mark: char, lines: &[&str]| {
        for line in lines {
            diff.push(mark);
            diff.push_str(line);
            diff.push('\n');
        }
    };
    push(' ', &old[start..prefix]);
    push('-', &old[prefix..old_end]);
    push('+', &new[prefix..new_end]);
    push(' ', &old[old_end..old_end + tail]);
    diff
}

fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b" "));
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => value.to_string(),
    }
}
