//! Rules for annotations that mean something to pods: mirror pods, deletion cost, and the security profiles of old.

use serde_json::Value;

use super::names::descending;
use super::scheduling::validate_tolerations;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::prepare::APP_ARMOR_ANNOTATION;
use crate::kinds::core::pod::{MIRROR_ANNOTATION, containers_with_path};
use crate::kinds::tree::{entries, text};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";

/// Upstream's `ValidatePodSpecificAnnotations`.
pub(super) fn validate(annotations: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(value) = annotations[MIRROR_ANNOTATION].as_str()
        && text(&spec["nodeName"]).is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(Error::invalid(&path.key(MIRROR_ANNOTATION), value, detail));
    }
    let tolerations = text(&annotations[TOLERATIONS]);
    if !tolerations.is_empty() {
        match serde_json::from_str::<Value>(tolerations) {
            Ok(list) => errors.extend(validate_tolerations(&list, &path.child(TOLERATIONS))),
            Err(error) => errors.push(Error::invalid(path, TOLERATIONS, error.to_string())),
        }
    }
    if let Some(cost) = annotations[DELETION_COST].as_str()
        && !is_deletion_cost(cost)
    {
        errors.push(Error::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
    }
    for (key, value) in entries(annotations) {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            errors.extend(validate_seccomp(text(value), &path.child(key)));
        }
    }
    for (key, value) in entries(annotations) {
        let Some(container) = key.strip_prefix(APP_ARMOR_ANNOTATION) else { continue };
        let (profile, at) = (text(value), path.key(key));
        if !containers_with_path(spec, path).iter().any(|(other, _)| text(&other["name"]) == container) {
            errors.push(Error::invalid(&at, container, "container not found"));
        }
        let known = matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/");
        if !known {
            errors.push(Error::invalid(&at, profile, format!("invalid AppArmor profile name: \"{profile}\"")));
        }
    }
    errors
}

/// Upstream's `ValidatePodSpecificAnnotationUpdates`.
pub(super) fn validate_update(pod: &Value, old: &Value, path: &Path) -> ErrorList {
    let (new, before) = (&pod["metadata"]["annotations"], &old["metadata"]["annotations"]);
    let mut errors = ErrorList::new();
    let kind = |key: &str| {
        if key.starts_with(APP_ARMOR_ANNOTATION) {
            Some("AppArmor annotations")
        } else {
            (key == MIRROR_ANNOTATION).then_some("mirror pod annotation")
        }
    };
    for (key, _) in entries(before).filter(|(key, value)| new.get(key) != Some(*value)) {
        if let Some(kind) = kind(key) {
            errors.push(Error::forbidden(&path.key(key), format!("may not remove or update {kind}")));
        }
    }
    for (key, _) in entries(new).filter(|(key, _)| before.get(key).is_none()) {
        if let Some(kind) = kind(key) {
            errors.push(Error::forbidden(&path.key(key), format!("may not add {kind}")));
        }
    }
    errors.extend(validate(new, &pod["spec"], path));
    errors
}

/// Annotations and fields that name the same profile must agree: upstream's `validateSeccompAnnotationsAndFields` and
/// `validateAppArmorAnnotationsAndFieldsMatchOnCreate`.
pub(super) fn validate_matching_fields(metadata: &Value, spec: &Value, path: &Path) -> ErrorList {
    let annotations = &metadata["annotations"];
    let mut errors = ErrorList::new();
    let pod_context = &spec["securityContext"];
    if let Some(annotation) = annotations[SECCOMP_POD].as_str() {
        let at = path.child("securityContext").child("seccompProfile");
        errors.extend(seccomp_mismatch(annotation, &pod_context["seccompProfile"], &at));
    }
    let containers = containers_with_path(spec, path);
    for (container, at) in &containers {
        let key = format!("{SECCOMP_CONTAINER}{}", text(&container["name"]));
        if let Some(annotation) = annotations[&key].as_str() {
            let at = at.child("securityContext").child("seccompProfile");
            errors.extend(seccomp_mismatch(annotation, &container["securityContext"]["seccompProfile"], &at));
        }
    }
    if spec["os"]["name"] == "windows" {
        return errors;
    }
    for (container, at) in &containers {
        let own = &container["securityContext"]["appArmorProfile"];
        let profile = if own.is_null() { &pod_context["appArmorProfile"] } else { own };
        let key = format!("{APP_ARMOR_ANNOTATION}{}", text(&container["name"]));
        let Some(annotation) = annotations[&key].as_str().filter(|_| !profile.is_null()) else { continue };
        let at = at.child("securityContext").child("appArmorProfile");
        let same_type = match text(&profile["type"]) {
            "Unconfined" => annotation == "unconfined",
            "RuntimeDefault" => annotation == "runtime/default",
            "Localhost" => annotation.starts_with("localhost/"),
            _ => continue,
        };
        let file = annotation.strip_prefix("localhost/");
        if !same_type {
            errors.push(Error::forbidden(&at.child("type"), "apparmor type in annotation and field must match"));
        } else if file != profile["localhostProfile"].as_str() && profile["type"] == "Localhost" {
            let detail = "apparmor profile in annotation and field must match";
            errors.push(Error::forbidden(&at.child("localhostProfile"), detail));
        }
    }
    errors
}

fn is_deletion_cost(cost: &str) -> bool {
    let digits = cost.strip_prefix('-').unwrap_or(cost);
    let first = digits.bytes().next().is_some_and(|c| matches!(c, b'1'..=b'9'));
    (cost == "0" || first) && cost.parse::<i32>().is_ok()
}

fn validate_seccomp(profile: &str, path: &Path) -> ErrorList {
    if matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        return ErrorList::new();
    }
    match profile.strip_prefix("localhost/") {
        Some(file) => descending(file, path),
        None => vec![Error::invalid(path, profile, "must be a valid seccomp profile")],
    }
}

fn seccomp_mismatch(annotation: &str, profile: &Value, path: &Path) -> Option<Error> {
    let matches = match text(&profile["type"]) {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => matches!(annotation, "runtime/default" | "docker/default"),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => return None,
    };
    if !matches {
        return Some(Error::forbidden(&path.child("type"), "seccomp type in annotation and field must match"));
    }
    let file = annotation.strip_prefix("localhost/");
    (profile["type"] == "Localhost" && file != profile["localhostProfile"].as_str()).then(|| {
        Error::forbidden(&path.child("localhostProfile"), "seccomp profile in annotation and field must match")
    })
}
