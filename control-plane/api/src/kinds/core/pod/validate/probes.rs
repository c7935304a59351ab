//! Rules for probes and lifecycle hooks.

use serde_json::Value;

use super::names::{check, check_port, not_negative, one_of_optional};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{integer, items, length, text};
use crate::names;

/// The hooks and the three probes of the container at `path`.
pub(super) fn validate_lifecycle_and_probes(container: &Value, grace_period: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            errors.extend(validate_handler(handler, &kinds, grace_period, &path.child("lifecycle").child(hook)));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (probe, path) = (&container[name], path.child(name));
        if probe.is_null() {
            continue;
        }
        errors.extend(validate_probe(probe, grace_period, &path));
        if name == "readinessProbe" {
            if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64() {
                let at = path.child("terminationGracePeriodSeconds");
                errors.push(Error::invalid(&at, seconds, "must not be set for readinessProbes"));
            }
        } else if integer(&probe["successThreshold"]) != 1 {
            let at = path.child("successThreshold");
            errors.push(Error::invalid(&at, integer(&probe["successThreshold"]), "must be 1"));
        }
    }
    errors
}

fn validate_probe(probe: &Value, grace_period: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = validate_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace_period, path);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.extend(not_negative(probe, field, path));
    }
    if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        let at = path.child("terminationGracePeriodSeconds");
        errors.push(Error::invalid(&at, seconds, "must be greater than 0"));
    }
    errors
}

/// Upstream's `validateHandler`: exactly one of `kinds`.
fn validate_handler(handler: &Value, kinds: &[&str], grace_period: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut given = kinds.iter().filter(|kind| !handler[**kind].is_null());
    let Some(first) = given.next() else {
        return vec![Error::required(path, "must specify a handler type")];
    };
    let (action, at) = (&handler[*first], path.child(first));
    match *first {
        "exec" if length(&action["command"]) == 0 => errors.push(Error::required(&at.child("command"), "")),
        "httpGet" => errors.extend(validate_http_get(action, &at)),
        "tcpSocket" => errors.extend(check_port(&action["port"], &at.child("port"))),
        "grpc" => {
            errors.extend(check_port(&action["port"], &at.child("port")));
            errors.extend(one_of_optional(&action["mode"], &["Plaintext", "TLS"], &at.child("mode")));
        }
        "sleep" => errors.extend(validate_sleep(action, grace_period, &at)),
        _ => {}
    }
    errors.extend(given.map(|kind| Error::forbidden(&path.child(kind), "may not specify more than 1 handler type")));
    errors
}

fn validate_http_get(get: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(&get["path"]).is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    errors.extend(check_port(&get["port"], &path.child("port")));
    let scheme = text(&get["scheme"]);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(Error::not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in items(&get["httpHeaders"]) {
        errors.extend(check(text(&header["name"]), &path.child("httpHeaders"), names::is_http_header_name));
    }
    errors
}

fn validate_sleep(sleep: &Value, grace_period: Option<i64>, path: &Path) -> Option<Error> {
    let (seconds, grace_period) = (integer(&sleep["seconds"]), grace_period?);
    (!(0..=grace_period).contains(&seconds)).then(|| {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_period})");
        Error::invalid(path, seconds, detail)
    })
}
