//! Small checks that many rules are made of.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::text;

/// A text that must have a form.
pub(super) fn check(value: &str, path: &Path, form: impl Fn(&str) -> Vec<String>) -> ErrorList {
    form(value).into_iter().map(|message| Error::invalid(path, value, message)).collect()
}

/// A field that must have a form if it is there and not empty.
pub(super) fn check_optional(owner: &Value, field: &str, path: &Path, form: impl Fn(&str) -> Vec<String>) -> ErrorList {
    match text(&owner[field]) {
        "" => ErrorList::new(),
        value => check(value, &path.child(field), form),
    }
}

/// A field that must be there and have a form.
pub(super) fn check_required(owner: &Value, field: &str, path: &Path, form: impl Fn(&str) -> Vec<String>) -> ErrorList {
    match text(&owner[field]) {
        "" => vec![Error::required(&path.child(field), "")],
        value => check(value, &path.child(field), form),
    }
}

/// Fields that must be there.
pub(super) fn required(owner: &Value, fields: &[&str], path: &Path) -> ErrorList {
    let missing = fields.iter().filter(|field| text(&owner[**field]).is_empty());
    missing.map(|field| Error::required(&path.child(field), "")).collect()
}

/// A number that must have a form, if it is there.
pub(super) fn check_number(owner: &Value, field: &str, path: &Path, form: impl Fn(i64) -> Vec<String>) -> ErrorList {
    let Some(number) = owner[field].as_i64() else { return ErrorList::new() };
    let at = path.child(field);
    form(number).into_iter().map(|message| Error::invalid(&at, number, message)).collect()
}

/// A word of an enumeration that must be there. `supported` stands in the message in the order given.
pub(super) fn one_of(value: &Value, supported: &[&str], path: &Path) -> Option<Error> {
    match text(value) {
        "" => Some(Error::required(path, "")),
        word if supported.contains(&word) => None,
        word => Some(Error::not_supported(path, word, supported)),
    }
}

/// A word of an enumeration that may be missing altogether.
pub(super) fn one_of_optional(value: &Value, supported: &[&str], path: &Path) -> Option<Error> {
    let word = value.as_str().filter(|word| !supported.contains(word))?;
    Some(Error::not_supported(path, word, supported))
}

/// A number that must not be below zero.
pub(super) fn not_negative(owner: &Value, field: &str, path: &Path) -> Option<Error> {
    let number = owner[field].as_i64().filter(|number| *number < 0)?;
    Some(Error::invalid(&path.child(field), number, "must be greater than or equal to 0"))
}

/// A port by number or by name.
pub(super) fn check_port(port: &Value, path: &Path) -> ErrorList {
    match port.as_str() {
        Some(name) => check(name, path, crate::names::is_port_name),
        None => {
            let number = port.as_i64().unwrap_or_default();
            let messages = crate::names::is_port_number(number);
            messages.into_iter().map(|message| Error::invalid(path, number, message)).collect()
        }
    }
}

/// `validatePathNoBacksteps`: no part of the path is `..`.
pub(super) fn no_backsteps(value: &str, path: &Path) -> Option<Error> {
    value.split('/').any(|part| part == "..").then(|| Error::invalid(path, value, "must not contain '..'"))
}

/// `validateLocalDescendingPath`: relative, and never upwards.
pub(super) fn descending(value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if value.starts_with('/') {
        errors.push(Error::invalid(path, value, "must be a relative path"));
    }
    errors.extend(no_backsteps(value, path));
    errors
}

/// `ValidateLocalNonReservedPath`: descending, and its first part does not begin with two dots.
pub(super) fn not_reserved(value: &str, path: &Path) -> ErrorList {
    let mut errors = descending(value, path);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(Error::invalid(path, value, "must not start with '..'"));
    }
    errors
}

/// The mode of a file in a volume.
pub(super) fn file_mode(owner: &Value, field: &str, path: &Path) -> Option<Error> {
    let mode = owner[field].as_i64().filter(|mode| !(0..=0o777).contains(mode))?;
    let detail = "must be a number between 0 and 0777 (octal), both inclusive";
    Some(Error::invalid(&path.child(field), mode, detail))
}
