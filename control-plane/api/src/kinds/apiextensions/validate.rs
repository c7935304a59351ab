//! What may stand in a definition, in upstream's words (pkg/apis/apiextensions/validation/validation.go).
//!
//! Upstream's errors speak of its internal form, in which what all versions have alike stands once, above them: `spec.validation`, `spec.subresources` and
//! `spec.additionalPrinterColumns`.

use serde_json::Value;

use super::conditions::is_true;
use super::{properties, structural};
use crate::custom::{JsonPath, Schema};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{immutable, items, text};
use crate::names::{is_dns1035_label, is_dns1123_subdomain};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "name", "password"];
const APPROVED: &str = "api-approved.kubernetes.io";
const SELECTABLE_FIELDS: usize = 8;

pub(super) fn create(object: &Value) -> ErrorList {
    let mut errors = name(object);
    errors.extend(spec(object, None));
    errors.extend(accepted_names(object));
    errors.extend(stored_versions(object));
    errors.extend(approval(object, None));
    errors.extend(preserve(object, None));
    errors
}

pub(super) fn update(object: &Value, old: &Value) -> ErrorList {
    let mut errors = spec(object, Some(old));
    let path = Path::new("spec");
    let (new_spec, old_spec) = (&object["spec"], &old["spec"]);
    if is_true(old, "Established") {
        errors.extend(immutable(&new_spec["scope"], &old_spec["scope"], &path.child("scope")));
        let names = path.child("names");
        errors.extend(immutable(&new_spec["names"]["kind"], &old_spec["names"]["kind"], &names.child("kind")));
    }
    errors.extend(immutable(&new_spec["group"], &old_spec["group"], &path.child("group")));
    let plural = path.child("names").child("plural");
    errors.extend(immutable(&new_spec["names"]["plural"], &old_spec["names"]["plural"], &plural));
    errors.extend(accepted_names(object));
    errors.extend(stored_versions(object));
    errors.extend(approval(object, Some(old)));
    errors.extend(preserve(object, Some(old)));
    errors
}

pub(super) fn status(object: &Value) -> ErrorList {
    let mut errors = accepted_names(object);
    errors.extend(stored_versions(object));
    errors
}

fn name(object: &Value) -> ErrorList {
    let wanted = format!("{}.{}", text(&object["spec"]["names"]["plural"]), text(&object["spec"]["group"]));
    let name = crate::meta::name(object);
    if name == wanted || name.is_empty() {
        return ErrorList::new();
    }
    vec![Error::invalid(&Path::new("metadata").child("name"), name, "must be spec.names.plural+\".\"+spec.group")]
}

fn accepted_names(object: &Value) -> ErrorList {
    names(&object["status"]["acceptedNames"], &Path::new("status").child("acceptedNames"))
}

fn stored_versions(object: &Value) -> ErrorList {
    let path = Path::new("status").child("storedVersions");
    let stored = &object["status"]["storedVersions"];
    if items(stored).is_empty() {
        let empty = Value::Array(Vec::new());
        return vec![Error::invalid(&path, empty, "must have at least one stored version")];
    }
    let versions = items(&object["spec"]["versions"]);
    let mut errors = ErrorList::new();
    for version in versions.iter().filter(|version| version["storage"] == true) {
        if !items(stored).contains(&version["name"]) {
            let why = format!("must have the storage version {}", text(&version["name"]));
            errors.push(Error::invalid(&path, stored.clone(), why));
        }
    }
    for (at, name) in items(stored).iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *name) {
            let why = format!(
                "missing from spec.versions; {0} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {0} and removes {0} from status.storedVersions",
                text(name)
            );
            errors.push(Error::invalid(&path.index(at), name.clone(), why));
        }
    }
    errors
}

fn preserve(object: &Value, old: Option<&Value>) -> ErrorList {
    if object["spec"]["preserveUnknownFields"] != true
        || old.is_some_and(|old| old["spec"]["preserveUnknownFields"] == true)
    {
        return ErrorList::new();
    }
    let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
    vec![Error::invalid(&Path::new("spec").child("preserveUnknownFields"), true, why)]
}

/// Groups of the project itself need its approval.
fn approval(object: &Value, old: Option<&Value>) -> ErrorList {
    if !is_protected(text(&object["spec"]["group"])) {
        return ErrorList::new();
    }
    let (state, reason) = approval_of(object);
    if old.is_some_and(|old| approval_of(old).0 == state) {
        return ErrorList::new();
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    match state {
        Approval::Missing => vec![Error::required(&path, reason)],
        Approval::Invalid => {
            vec![Error::invalid(&path, crate::meta::annotation(object, APPROVED).unwrap_or_default(), reason)]
        }
        Approval::Bypassed | Approval::Approved => ErrorList::new(),
    }
}

/// Whether a group is the project's (`IsProtectedCommunityGroup`).
pub(super) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// What the approval annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approval {
    Missing,
    Invalid,
    Bypassed,
    Approved,
}

/// The state of the approval, and why (`GetAPIApprovalState`).
pub(super) fn approval_of(object: &Value) -> (Approval, String) {
    let given = crate::meta::annotation(object, APPROVED).unwrap_or_default();
    let is_url = given
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.starts_with('/') && !rest.is_empty());
    if given.is_empty() {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        (Approval::Missing, why)
    } else if given.starts_with("unapproved") {
        (Approval::Bypassed, format!("not approved: {given:?}"))
    } else if is_url {
        (Approval::Approved, format!("approved in {given}"))
    } else {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        (Approval::Invalid, why)
    }
}

fn spec(object: &Value, old: Option<&Value>) -> ErrorList {
    let spec = &object["spec"];
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let group = text(&spec["group"]);
    let wrong = is_dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(Error::required(&path.child("group"), ""));
    } else if !wrong.is_empty() {
        errors.push(Error::invalid(&path.child("group"), group, wrong.join(",")));
    } else if !group.contains('.') {
        errors.push(Error::invalid(&path.child("group"), group, "should be a domain with at least one dot"));
    }
    errors.extend(one_of(&path.child("scope"), text(&spec["scope"]), &["Cluster", "Namespaced"]));
    let versions = items(&spec["versions"]);
    let alike = |field: &str| {
        versions.first().is_some_and(|first| {
            !crate::kinds::tree::is_empty(&first[field])
                && versions.iter().all(|version| version[field] == first[field])
        })
    };
    if !alike("schema") {
        for (at, version) in versions.iter().enumerate() {
            if !version["schema"]["openAPIV3Schema"].is_object() {
                let schema = path.child("versions").index(at).child("schema").child("openAPIV3Schema");
                errors.push(Error::required(&schema, ""));
            }
        }
    }
    let any_status = versions.iter().any(|version| version["subresources"]["status"].is_object());
    for (at, version) in versions.iter().enumerate() {
        let path = path.child("versions").index(at);
        let name = text(&version["name"]);
        let wrong = is_dns1035_label(name);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&path.child("name"), name, wrong.join(",")));
        }
        errors.extend(deprecation(version, &path.child("deprecationWarning")));
        if !alike("schema") {
            let has_status = version["subresources"]["status"].is_object();
            errors.extend(schema(version, old_schema(old, name), has_status, &path.child("schema")));
        }
        if !alike("subresources") {
            errors.extend(subresources(&version["subresources"], &path.child("subresources")));
        }
        if !alike("additionalPrinterColumns") {
            errors.extend(columns(version, &path.child("additionalPrinterColumns")));
        }
        if !alike("selectableFields") {
            errors.extend(selectable(version, &path.child("selectableFields")));
        }
    }
    let mut seen = std::collections::HashSet::new();
    if !versions.iter().all(|version| seen.insert(text(&version["name"]))) {
        let all = spec["versions"].clone();
        errors.push(Error::invalid(&path.child("versions"), all, "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let all = spec["versions"].clone();
        let why = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&path.child("versions"), all, why));
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(&spec["names"][field]).is_empty() {
            errors.push(Error::required(&path.child("names").child(field), ""));
        }
    }
    errors.extend(names(&spec["names"], &path.child("names")));
    if let Some(first) = versions.first() {
        if alike("schema") {
            let before = old_schema(old, text(&first["name"]));
            errors.extend(schema(first, before, any_status, &path.child("validation")));
        }
        if alike("subresources") {
            errors.extend(subresources(&first["subresources"], &path.child("subresources")));
        }
        if alike("additionalPrinterColumns") {
            errors.extend(columns(first, &path.child("additionalPrinterColumns")));
        }
        if alike("selectableFields") {
            errors.extend(selectable(first, &path.child("selectableFields")));
        }
    }
    errors.extend(conversion(spec, &path.child("conversion")));
    errors
}

fn old_schema<'a>(old: Option<&'a Value>, version: &str) -> Option<&'a Value> {
    let versions = items(&old?["spec"]["versions"]);
    versions.iter().find(|old| old["name"] == version).map(|old| &old["schema"]["openAPIV3Schema"])
}

fn one_of(path: &Path, value: &str, allowed: &[&str]) -> ErrorList {
    if value.is_empty() {
        vec![Error::required(path, "")]
    } else if allowed.contains(&value) {
        ErrorList::new()
    } else {
        vec![Error::not_supported(path, value, allowed)]
    }
}

fn deprecation(version: &Value, path: &Path) -> ErrorList {
    let Some(warning) = version["deprecationWarning"].as_str() else { return ErrorList::new() };
    let invalid = |why: String| Error::invalid(path, warning, why);
    if version["deprecated"] != true {
        return vec![invalid("can only be set for deprecated versions".to_owned())];
    }
    let mut errors = ErrorList::new();
    if warning.len() > 256 {
        errors.push(invalid("must be <= 256 characters long".to_owned()));
    }
    if warning.is_empty() {
        errors.push(invalid("must not be an empty string".to_owned()));
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        errors.push(invalid(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        )));
    }
    errors
}

fn names(names: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for field in ["plural", "singular"] {
        let name = text(&names[field]);
        let wrong = is_dns1035_label(name);
        if !name.is_empty() && !wrong.is_empty() {
            errors.push(Error::invalid(&path.child(field), name, wrong.join(",")));
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(&names[field]);
        let wrong = is_dns1035_label(&name.to_lowercase());
        if !name.is_empty() && !wrong.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.push(Error::invalid(&path.child(field), name, why));
        }
    }
    if !text(&names["kind"]).is_empty() && names["kind"] == names["listKind"] {
        let why = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), text(&names["listKind"]), why));
    }
    for field in ["shortNames", "categories"] {
        for (at, name) in items(&names[field]).iter().enumerate() {
            let wrong = is_dns1035_label(text(name));
            if !wrong.is_empty() {
                errors.push(Error::invalid(&path.child(field).index(at), text(name), wrong.join(",")));
            }
        }
    }
    errors
}

fn schema(version: &Value, old: Option<&Value>, has_status: bool, path: &Path) -> ErrorList {
    let props = &version["schema"]["openAPIV3Schema"];
    if !props.is_object() {
        return ErrorList::new();
    }
    let path = path.child("openAPIV3Schema");
    let mut errors = ErrorList::new();
    if has_status {
        errors.extend(properties::root_with_status(props, &path));
    }
    if props["nullable"] == true {
        errors.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    // What stands in the store is not judged by rules that came later.
    if old.is_none_or(|old| structural::validate(old, &path).is_empty()) {
        errors.extend(structural::validate(props, &path));
    }
    errors.extend(properties::validate(props, &path, errors.is_empty()));
    errors
}

fn subresources(subresources: &Value, path: &Path) -> ErrorList {
    let scale = &subresources["scale"];
    let mut errors = ErrorList::new();
    if !scale.is_object() {
        return errors;
    }
    let fields = [
        ("specReplicasPath", &[".spec."][..]),
        ("statusReplicasPath", &[".status."]),
        ("labelSelectorPath", &[".spec.", ".status."]),
    ];
    for (field, parents) in fields {
        let path = path.child(&format!("scale.{field}"));
        let given = text(&scale[field]);
        if given.is_empty() {
            if field != "labelSelectorPath" {
                errors.push(Error::required(&path, ""));
            }
            continue;
        }
        let wrong = simple_path(given, &path);
        if wrong.is_empty() && !parents.iter().any(|parent| given.starts_with(parent)) {
            let parents: Vec<&str> = parents.iter().map(|parent| parent.trim_end_matches('.')).collect();
            let why = format!("should be a json path under {}", parents.join(" or "));
            errors.push(Error::invalid(&path, given, why));
        }
        errors.extend(wrong);
    }
    errors
}

/// `validateSimpleJSONPath`: names only, or what the parser reads.
fn simple_path(given: &str, path: &Path) -> ErrorList {
    if !given.starts_with('.') {
        return vec![Error::invalid(path, given, "must be a simple json path starting with .")];
    }
    match JsonPath::parse(given) {
        Ok(parsed) if parsed.fields().is_some() || path.to_string().contains("Columns") => ErrorList::new(),
        Ok(_) => vec![Error::invalid(path, given, "is an invalid JSONPath: only dotted paths are supported")],
        Err(why) => vec![Error::invalid(path, given, format!("is an invalid JSONPath: {why}"))],
    }
}

fn columns(version: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (at, column) in items(&version["additionalPrinterColumns"]).iter().enumerate() {
        let path = path.index(at);
        if text(&column["name"]).is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        let type_ = text(&column["type"]);
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        if type_.is_empty() {
            errors.push(Error::required(&path.child("type"), types));
        } else if !COLUMN_TYPES.contains(&type_) {
            errors.push(Error::invalid(&path.child("type"), type_, types));
        }
        let format = text(&column["format"]);
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(Error::invalid(&path.child("format"), format, why));
        }
        let json_path = text(&column["jsonPath"]);
        if json_path.is_empty() {
            errors.push(Error::required(&path.child("JSONPath"), ""));
        } else {
            errors.extend(simple_path(json_path, &path.child("JSONPath")));
        }
    }
    errors
}

fn selectable(version: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let fields = items(&version["selectableFields"]);
    let schema = Schema::read(&version["schema"]["openAPIV3Schema"]);
    let mut seen = std::collections::HashSet::new();
    for (at, field) in fields.iter().enumerate() {
        let path = path.index(at).child("jsonPath");
        let given = text(&field["jsonPath"]);
        if given.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        let parsed = JsonPath::parse(given).ok();
        let names = parsed.as_ref().and_then(JsonPath::fields).filter(|_| given.starts_with('.'));
        let Some(names) = names else {
            errors.push(Error::invalid(&path, given, "is an invalid path: only dotted paths of fields are supported"));
            continue;
        };
        let mut at = Some(&schema);
        for name in &names {
            let below = at.and_then(|schema| schema.properties.get(*name));
            if below.is_none() && names[0] != "metadata" {
                let why = format!("is an invalid path: does not refer to a valid field: {name:?} is unknown");
                errors.push(Error::invalid(&path, given, why));
            }
            at = below;
            if at.is_none() {
                break;
            }
        }
        if names.first() == Some(&"metadata") {
            errors.push(Error::invalid(&path, given, "must not point to fields in metadata"));
        } else if at.is_some_and(|schema| !matches!(schema.type_.as_str(), "string" | "boolean" | "integer")) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(Error::invalid(&path, given, why));
        }
        if !seen.insert(names.join(".")) {
            errors.push(Error::duplicate(&path, given));
        }
    }
    if seen.len() > SELECTABLE_FIELDS {
        errors.push(Error::too_many(path, seen.len(), SELECTABLE_FIELDS));
    }
    errors
}

fn conversion(spec: &Value, path: &Path) -> ErrorList {
    let conversion = &spec["conversion"];
    let mut errors = one_of(&path.child("strategy"), text(&conversion["strategy"]), &["None", "Webhook"]);
    let webhook = &conversion["webhook"];
    let config_path = path.child("webhookClientConfig");
    let versions_path = path.child("conversionReviewVersions");
    if conversion["strategy"] != "Webhook" {
        if webhook["clientConfig"].is_object() {
            errors.push(Error::forbidden(&config_path, "should not be set when strategy is not set to Webhook"));
        }
        if !items(&webhook["conversionReviewVersions"]).is_empty() {
            errors.push(Error::forbidden(&versions_path, "should not be set when strategy is not set to Webhook"));
        }
        return errors;
    }
    if spec["preserveUnknownFields"] == true {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(Error::invalid(&path.child("strategy"), "Webhook", why));
    }
    let config = &webhook["clientConfig"];
    let url = config["url"].as_str();
    let service = &config["service"];
    if !config.is_object() {
        errors.push(Error::required(&config_path, "required when strategy is set to Webhook"));
    } else if url.is_some() == service.is_object() {
        errors.push(Error::required(&config_path, "exactly one of url or service is required"));
    } else if let Some(url) = url {
        let path = config_path.child("url");
        match url.split_once("://") {
            Some(("https", rest)) if !rest.is_empty() && !rest.starts_with('/') => {
                for (mark, what) in [('@', "user information"), ('#', "fragments"), ('?', "query parameters")] {
                    if rest.contains(mark) {
                        let why = format!("{what} are not permitted in the URL");
                        errors.push(Error::invalid(&path, url, why));
                    }
                }
            }
            Some(("https", _)) => {
                errors.push(Error::invalid(&path, "", "host must be specified; desired format: https://host[/path]"))
            }
            scheme => {
                let given = scheme.map_or("", |(scheme, _)| scheme);
                errors.push(Error::invalid(
                    &path,
                    given,
                    "'https' is the only allowed URL scheme; desired format: https://host[/path]",
                ));
            }
        }
    } else {
        let path = config_path.child("service");
        for field in ["name", "namespace"] {
            if text(&service[field]).is_empty() {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        let port = service["port"].as_i64().unwrap_or(443);
        if let [why, ..] = crate::names::is_port_number(port).as_slice() {
            errors.push(Error::invalid(&path.child("port"), port, format!("port is not valid: {why}")));
        }
    }
    let given = items(&webhook["conversionReviewVersions"]);
    if given.is_empty() {
        errors.push(Error::required(&versions_path, ""));
    } else if !given.iter().any(|version| matches!(text(version), "v1" | "v1beta1")) {
        let all = Value::Array(given.to_vec());
        errors.push(Error::invalid(&versions_path, all, "must include at least one of v1, v1beta1"));
    }
    errors
}
