//! CertificateSigningRequest: the wish for a certificate, which somebody approves and somebody signs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::age::human_duration;
use crate::kinds::cells::{age_cell, name_cell, or_none};
use crate::kinds::certificates::V1;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy, Subresource, WriteContext};
use crate::kinds::fields::signer_name;
use crate::kinds::names;
use crate::kinds::tree::{carry_over, fill, items, semantically_equal, text};

/// `certificates.k8s.io/v1 CertificateSigningRequest`
#[must_use]
pub fn certificate_signing_request() -> Kind {
    Kind {
        short_names: names(&["csr"]),
        scope: Scope::Cluster,
        subresources: vec![Subresource::Approval, Subresource::Status],
        selectable: names(&["spec.signerName"]),
        columns: vec![
            Column::name(),
            Column::age(),
            Column::new("SignerName", "string", "Who shall sign."),
            Column::new("Requestor", "string", "Who asked."),
            Column::new("RequestedDuration", "string", "How long the certificate should hold."),
            Column::new("Condition", "string", "How far it is."),
        ],
        ..Kind::new(
            V1,
            "CertificateSigningRequest",
            "certificatesigningrequests",
            "io.k8s.api.certificates.v1.CertificateSigningRequest",
            Request,
        )
    }
}

/// What a key may be for, in upstream's order.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

struct Request;

/// The requestor (`spec.username` and so on) is set by admission, which knows who writes.
impl Strategy for Request {
    fn default(&self, object: &mut Value) {
        fill(&mut object["spec"], "usages", json!(["digital signature", "key encipherment"]));
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &WriteContext<'_>) {
        carry_over(object, old, "spec");
        carry_over(object, old, "status");
    }

    /// Approvals and denials are not a status writer's to change; times are filled in.
    fn prepare_status_update(&self, object: &mut Value, old: &Value, context: &WriteContext<'_>) {
        let keep = |condition: &&Value| matches!(text(&condition["type"]), "Approved" | "Denied");
        let mut conditions: Vec<Value> =
            items(&object["status"]["conditions"]).iter().filter(|c| !keep(c)).cloned().collect();
        conditions.extend(items(&old["status"]["conditions"]).iter().filter(keep).cloned());
        if !conditions.is_empty() || object["status"]["conditions"].is_array() {
            object["status"]["conditions"] = conditions.into();
        }
        stamp(object, old, context.now);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_spec(&object["spec"], &Path::new("spec"));
        errors.extend(validate_conditions(&object["status"]["conditions"]));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate_change(object, old, false, false)
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate_change(object, old, false, true)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let has = |type_: &str| items(&status["conditions"]).iter().any(|condition| condition["type"] == type_);
        let mut shown = if has("Denied") {
            "Denied".to_owned()
        } else if has("Approved") {
            "Approved".to_owned()
        } else {
            "Pending".to_owned()
        };
        if has("Failed") {
            shown.push_str(",Failed");
        }
        if !text(&status["certificate"]).is_empty() {
            shown.push_str(",Issued");
        }
        vec![
            name_cell(object),
            age_cell(object, now),
            or_none(text(&spec["signerName"]).to_owned()),
            text(&spec["username"]).into(),
            spec["expirationSeconds"].as_i64().map_or_else(|| "<none>".to_owned(), human_duration).into(),
            shown.into(),
        ]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![text(&object["spec"]["signerName"]).to_owned()]
    }

    fn validate_name(&self, _: &str, _: bool) -> Vec<String> {
        Vec::new()
    }
}

/// Of an object written to `/approval` only the conditions count; the times of new ones are filled in.
#[must_use]
pub fn with_conditions_of(written: &Value, old: &Value, now: &str) -> Value {
    let mut object = old.clone();
    object["status"]["conditions"] = written["status"]["conditions"].clone();
    if let Some(version) = written["metadata"].get("resourceVersion") {
        object["metadata"]["resourceVersion"] = version.clone();
    }
    stamp(&mut object, old, now);
    object
}

/// What is wrong with a write to `/approval`.
#[must_use]
pub fn validate_approval(object: &Value, old: &Value) -> ErrorList {
    validate_change(object, old, true, false)
}

/// `populateConditionTimestamps`
fn stamp(object: &mut Value, old: &Value, now: &str) {
    let before = items(&old["status"]["conditions"]).to_vec();
    for condition in crate::kinds::tree::items_mut(&mut object["status"], "conditions") {
        fill(condition, "lastUpdateTime", now);
        if condition["lastTransitionTime"].is_null() {
            let same = before.iter().find(|b| b["type"] == condition["type"] && b["status"] == condition["status"]);
            let time = same.map_or(Value::Null, |before| before["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = if time.is_null() { now.into() } else { time };
        }
    }
}

fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let bytes = STANDARD.decode(text(&spec["request"])).unwrap_or_default();
    let block = String::from_utf8_lossy(&bytes);
    if !block.contains("-----BEGIN CERTIFICATE REQUEST-----")
        && !block.contains("-----BEGIN NEW CERTIFICATE REQUEST-----")
    {
        let message = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(Error::invalid(&path.child("request"), text(&spec["request"]), message));
    }
    let (usages, at) = (items(&spec["usages"]), path.child("usages"));
    if usages.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        if !USAGES.contains(&text(usage)) {
            errors.push(Error::not_supported(&at.index(index), usage.clone(), &USAGES));
        }
    }
    for (index, usage) in usages.iter().enumerate() {
        if usages[..index].contains(usage) {
            errors.push(Error::duplicate(&at.index(index), usage.clone()));
        }
    }
    let (signer, at) = (text(&spec["signerName"]), path.child("signerName"));
    if signer == "kubernetes.io/legacy-unknown" {
        errors.push(Error::invalid(&at, signer, "the legacy signerName is not allowed via this API version"));
    } else {
        errors.extend(signer_name(signer, &at));
    }
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|seconds| *seconds < 600) {
        let message = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, message));
    }
    errors
}

fn validate_conditions(conditions: &Value) -> ErrorList {
    let path = Path::new("status").child("conditions");
    let all = items(conditions);
    let mut errors = ErrorList::new();
    for (index, condition) in all.iter().enumerate() {
        let at = path.index(index);
        let (type_, status) = (text(&condition["type"]), text(&condition["status"]));
        if type_.is_empty() {
            errors.push(Error::required(&at.child("type"), ""));
        }
        let supported: &[&str] =
            if matches!(type_, "Approved" | "Denied" | "Failed") { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            errors.push(Error::required(&at.child("status"), ""));
        } else if !supported.contains(&status) {
            errors.push(Error::not_supported(&at.child("status"), status, supported));
        }
        let earlier = |wanted: &str| all[..index].iter().any(|condition| condition["type"] == wanted);
        if type_ == "Approved" && earlier("Denied") || type_ == "Denied" && earlier("Approved") {
            errors.push(Error::invalid(&path, type_, "Approved and Denied conditions are mutually exclusive"));
        }
        if earlier(type_) {
            errors.push(Error::duplicate(&at.child("type"), type_));
        }
    }
    errors
}

fn validate_change(object: &Value, old: &Value, approval: bool, certificate: bool) -> ErrorList {
    let path = Path::new("status").child("conditions");
    let of = |object: &Value, type_: &str| -> Vec<Value> {
        items(&object["status"]["conditions"]).iter().filter(|condition| condition["type"] == type_).cloned().collect()
    };
    let mut errors = validate_spec(&object["spec"], &Path::new("spec"));
    errors.extend(validate_conditions(&object["status"]["conditions"]));
    for type_ in ["Approved", "Denied", "Failed"] {
        if of(object, type_).len() < of(old, type_).len() {
            let message = format!("updates may not remove a condition of type {type_:?}");
            errors.push(Error::forbidden(&path, message));
        }
    }
    for type_ in ["Approved", "Denied"].iter().filter(|_| !approval) {
        let (new, was) = (of(object, type_), of(old, type_));
        if new.len() > was.len() {
            errors.push(Error::forbidden(&path, format!("updates may not add a condition of type {type_:?}")));
        } else if new.len() == was.len() && !semantically_equal(&json!(new), &json!(was)) {
            errors.push(Error::forbidden(&path, format!("updates may not modify a condition of type {type_:?}")));
        }
    }
    let [new, was] = [object, old].map(|object| text(&object["status"]["certificate"]));
    if new != was {
        let at = Path::new("status").child("certificate");
        if !certificate {
            errors.push(Error::forbidden(&at, "updates may not set certificate content"));
        } else if !was.is_empty() {
            errors.push(Error::forbidden(&at, "updates may not modify existing certificate content"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let pem = STANDARD.encode("-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n");
        json!({"metadata": {"name": "r"}, "spec": {
            "request": pem, "usages": ["client auth"], "signerName": "example.com/s", "username": "ann",
        }})
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(messages(&Request.validate_create(&base())), Vec::<String>::new());
        let wrong = mutated(&base(), &json!({"spec": {"signerName": "s", "expirationSeconds": 5, "usages": []}}));
        assert_eq!(
            messages(&Request.validate_create(&wrong)),
            [
                "spec.usages: Required value",
                "spec.signerName: Invalid value: \"s\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
                "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
            ]
        );
    }

    #[test]
    fn only_an_approval_approves() {
        let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        let object = mutated(&base(), &approved);
        assert_eq!(validate_approval(&object, &base()).len(), 0);
        assert_eq!(
            messages(&Request.validate_status_update(&object, &base())),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(
            messages(&validate_approval(&base(), &object)),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        let stamped = with_conditions_of(&object, &base(), "2026-11-24T09:00:00Z");
        assert_eq!(stamped["status"]["conditions"][0]["lastUpdateTime"], "2026-11-24T09:00:00Z");
        assert_eq!(Request.row(&object, NOW)[5], "Approved");
    }
}
