//! Rules for one field of an object, as many kinds need them: required, in a form, one of a few, not negative.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{entries, integer, items, text};
use crate::names;
use crate::quantity::Quantity;

/// What is wrong with a text's form.
pub(in crate::kinds) fn form(value: &str, path: &Path, check: impl Fn(&str) -> Vec<String>) -> ErrorList {
    check(value).into_iter().map(|message| Error::invalid(path, value, message)).collect()
}

/// A field that must be there, in a form.
pub(in crate::kinds) fn required(
    owner: &Value,
    field: &str,
    path: &Path,
    check: impl Fn(&str) -> Vec<String>,
) -> ErrorList {
    match text(&owner[field]) {
        "" => vec![Error::required(&path.child(field), "")],
        value => form(value, &path.child(field), check),
    }
}

/// A field that must have a form where it is there and not empty.
pub(in crate::kinds) fn optional(
    owner: &Value,
    field: &str,
    path: &Path,
    check: impl Fn(&str) -> Vec<String>,
) -> ErrorList {
    match text(&owner[field]) {
        "" => ErrorList::new(),
        value => form(value, &path.child(field), check),
    }
}

/// A field that is absent or one of a few.
pub(in crate::kinds) fn one_of(owner: &Value, field: &str, path: &Path, supported: &[&str]) -> Option<Error> {
    let value = &owner[field];
    let fits = value.is_null() || supported.contains(&text(value));
    (!fits).then(|| Error::not_supported(&path.child(field), text(value), supported))
}

/// `ValidateNonnegativeField`, for each of some fields.
pub(in crate::kinds) fn not_negative(owner: &Value, fields: &[&str], path: &Path) -> ErrorList {
    let negative = fields.iter().filter(|field| integer(&owner[**field]) < 0);
    negative
        .map(|field| Error::invalid(&path.child(field), integer(&owner[*field]), "must be greater than or equal to 0"))
        .collect()
}

/// `ValidateNonnegativeQuantity`
pub(in crate::kinds) fn quantity_not_negative(value: &Value, path: &Path) -> ErrorList {
    match Quantity::from_value(value) {
        Ok(quantity) if quantity < Quantity::ZERO => {
            vec![Error::invalid(path, quantity.to_string(), "must be greater than or equal to 0")]
        }
        _ => ErrorList::new(),
    }
}

/// `IsPathSegmentName`
pub(in crate::kinds) fn path_segment(value: &str) -> Vec<String> {
    names::is_path_segment(value, false)
}

/// A reference by `apiGroup`, `kind` and `name` to an object of the same namespace.
pub(in crate::kinds) fn local_reference(reference: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(group) = reference["apiGroup"].as_str() {
        errors.extend(form(group, &path.child("apiGroup"), names::is_dns1123_subdomain));
    }
    errors.extend(required(reference, "kind", path, path_segment));
    errors.extend(required(reference, "name", path, path_segment));
    errors
}

/// `IsDomainPrefixedPath`
pub(in crate::kinds) fn domain_prefixed_path(value: &str, path: &Path) -> ErrorList {
    if value.is_empty() {
        return vec![Error::required(path, "")];
    }
    match value.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            form(domain, path, names::is_dns1123_subdomain)
        }
        _ => vec![Error::invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")")],
    }
}

/// Conditions of metav1: a type, a status and a reason each, and each type once (`ValidateConditions`).
pub(in crate::kinds) fn conditions(conditions: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in items(conditions).iter().enumerate() {
        let at = path.index(index);
        let type_ = text(&condition["type"]);
        errors.extend(required(condition, "type", &at, names::is_qualified_name));
        if !type_.is_empty() && seen.contains(&type_) {
            errors.push(Error::duplicate(&at.child("type"), type_));
        }
        seen.push(type_);
        let statuses = ["False", "True", "Unknown"];
        if !statuses.contains(&text(&condition["status"])) {
            errors.push(Error::not_supported(&at.child("status"), text(&condition["status"]), &statuses));
        }
        errors.extend(not_negative(condition, &["observedGeneration"], &at));
        if condition["lastTransitionTime"].is_null() {
            errors.push(Error::required(&at.child("lastTransitionTime"), "must be set"));
        }
        if text(&condition["reason"]).is_empty() {
            errors.push(Error::required(&at.child("reason"), ""));
        }
    }
    errors
}

/// `ValidateSignerName`: `example.com/signer-name`.
pub(in crate::kinds) fn signer_name(signer: &str, path: &Path) -> ErrorList {
    if signer.is_empty() {
        return vec![Error::required(path, "")];
    }
    let Some((domain, name)) = signer.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![Error::invalid(path, signer, detail)];
    };
    let mut errors = ErrorList::new();
    if domain.len() > names::DNS_SUBDOMAIN_MAX_LENGTH {
        errors.push(Error::too_long(path, names::DNS_SUBDOMAIN_MAX_LENGTH));
    }
    let labels = |part: &str, form: fn(&str) -> Vec<String>| {
        let wrong = part.split('.').map(|label| (label.to_owned(), form(label))).find(|(_, found)| !found.is_empty());
        wrong.into_iter().flat_map(|(label, found)| {
            found.into_iter().map(move |message| format!("validating label \"{label}\": {message}"))
        })
    };
    errors.extend(labels(domain, names::is_dns1123_label).map(|detail| Error::invalid(path, domain, detail)));
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(path, domain, detail));
    }
    errors.extend(labels(name, names::is_dns1123_subdomain).map(|detail| Error::invalid(path, name, detail)));
    // The path has room for a namespace and a name.
    const LONGEST: usize = 2 * names::DNS_SUBDOMAIN_MAX_LENGTH + names::DNS_LABEL_MAX_LENGTH + 2;
    if signer.len() > LONGEST {
        errors.push(Error::too_long(path, LONGEST));
    }
    errors
}

/// `ValidateUserAnnotations`: keys with a domain before them, of bounded size.
pub(in crate::kinds) fn user_annotations(annotations: &Value, path: &Path) -> ErrorList {
    const LARGEST: usize = 256 * 1024;
    let mut errors = ErrorList::new();
    for (key, _) in entries(annotations) {
        let messages = names::is_prefixed_label_key(&key.to_lowercase());
        errors.extend(messages.into_iter().map(|message| Error::invalid(path, key, message)));
    }
    let size: usize = entries(annotations).map(|(key, value)| key.len() + text(value).len()).sum();
    if size > LARGEST {
        errors.push(Error::too_long(path, LARGEST));
    }
    errors
}
