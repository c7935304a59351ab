//! Rules for what comes with a request (`metav1.DeleteOptions`, dry run, field manager) and for references between objects.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::names;

/// The longest name of a field manager, in bytes.
const FIELD_MANAGER_MAX_LENGTH: usize = 128;

/// Upstream's `ValidateDeleteOptions`.
#[must_use]
pub fn validate_delete_options(options: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let propagation = &options["propagationPolicy"];
    let path = Path::new("propagationPolicy");
    if !options["orphanDependents"].is_null() && !propagation.is_null() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(Error::invalid(&path, propagation.clone(), detail));
    }
    if let Some(policy) = propagation.as_str()
        && !matches!(policy, "Foreground" | "Background" | "Orphan")
    {
        errors.push(Error::not_supported(&path, policy, &["Foreground", "Background", "Orphan", "nil"]));
    }
    let dry_run: Vec<&str> = options["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    errors.extend(validate_dry_run(&dry_run));
    let breaking = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if options[breaking] == true {
        for other in ["propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"] {
            if !options[other].is_null() {
                let detail = format!("cannot be set together with .{other}");
                errors.push(Error::invalid(&Path::new(breaking), true, detail));
            }
        }
    }
    errors
}

/// Upstream's `ValidateDryRun`: the only value is `All`.
#[must_use]
pub fn validate_dry_run(values: &[&str]) -> ErrorList {
    if values.iter().all(|value| *value == "All") {
        return ErrorList::new();
    }
    vec![Error::not_supported(&Path::new("dryRun"), values.to_vec(), &["All"])]
}

/// Upstream's `ValidateFieldValidation`.
#[must_use]
pub fn validate_field_validation(value: &str) -> ErrorList {
    if matches!(value, "" | "Ignore" | "Warn" | "Strict") {
        return ErrorList::new();
    }
    vec![Error::not_supported(&Path::new("fieldValidation"), value, &["", "Ignore", "Strict", "Warn"])]
}

/// Upstream's `ValidateFieldManager`: at most 128 bytes, all printable.
#[must_use]
pub fn validate_field_manager(manager: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > FIELD_MANAGER_MAX_LENGTH {
        errors.push(Error::too_long(path, FIELD_MANAGER_MAX_LENGTH));
    }
    for (position, character) in manager.char_indices() {
        if character.is_control() || (character.is_whitespace() && character != ' ') {
            let detail = format!("invalid character U+{:04X} (at position {position})", u32::from(character));
            errors.push(Error::invalid(path, manager, detail));
        }
    }
    errors
}

/// A reference to an object of the same namespace must have a name.
#[must_use]
pub fn validate_local_object_reference(reference: &Value, path: &Path) -> ErrorList {
    match reference["name"].as_str() {
        Some(name) if !name.is_empty() => ErrorList::new(),
        _ => vec![Error::required(&path.child("name"), "")],
    }
}

/// A full `ObjectReference` must have a kind and a name; a namespace, where there is one, must look like one.
#[must_use]
pub fn validate_object_reference(reference: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if reference["kind"].as_str().is_none_or(str::is_empty) {
        errors.push(Error::required(&path.child("kind"), ""));
    }
    errors.extend(validate_local_object_reference(reference, path));
    if let Some(namespace) = reference["namespace"].as_str().filter(|namespace| !namespace.is_empty()) {
        let at = path.child("namespace");
        errors.extend(names::is_dns1123_label(namespace).into_iter().map(|m| Error::invalid(&at, namespace, m)));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(options: &Value) -> Vec<String> {
        validate_delete_options(options).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn delete_options_must_agree_with_themselves() {
        assert!(messages(&json!({"propagationPolicy": "Orphan", "dryRun": ["All"]})).is_empty());
        assert_eq!(
            messages(&json!({"propagationPolicy": "Later"})),
            [
                "propagationPolicy: Unsupported value: \"Later\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ]
        );
        assert_eq!(
            messages(&json!({"propagationPolicy": "Orphan", "orphanDependents": true})),
            [
                "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set"
            ]
        );
        assert_eq!(
            messages(&json!({"dryRun": ["Some"]})),
            ["dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""]
        );
    }

    #[test]
    fn a_field_manager_is_short_and_printable() {
        let path = Path::new("fieldManager");
        assert!(validate_field_manager("kubectl edit", &path).is_empty());
        assert_eq!(validate_field_manager("a\n", &path).len(), 1);
        assert_eq!(
            validate_field_manager(&"a".repeat(129), &path)[0].to_string(),
            "fieldManager: Too long: may not be more than 128 bytes"
        );
    }
}
