//! PodCertificateRequest (KEP-4317): a kubelet's wish, in a pod's name, for a certificate that the pod will mount.

use serde_json::{Value, json};

use super::chain::{key_of_request, validate_chain};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{labels_cell, name_cell};
use crate::kinds::certificates::V1;
use crate::kinds::declaration::{Column, Kind, Strategy, Subresource, WriteContext};
use crate::kinds::fields::{conditions, form, signer_name, user_annotations};
use crate::kinds::names;
use crate::kinds::tree::{fill, immutable, items, semantically_equal, text};
use crate::names::name_is_dns_subdomain;

/// `certificates.k8s.io/v1 PodCertificateRequest`
#[must_use]
pub fn pod_certificate_request() -> Kind {
    Kind {
        subresources: vec![Subresource::Status],
        unconditional_update: false,
        selectable: names(&["spec.signerName", "spec.podName", "spec.nodeName"]),
        columns: vec![
            Column::name(),
            Column::new("PodName", "string", "The pod that the certificate is for."),
            Column::new("ServiceAccountName", "string", "The pod's service account."),
            Column::new("NodeName", "string", "The pod's node."),
            Column::new("SignerName", "string", "Who shall sign."),
            Column::new("State", "string", "Is the request Pending, Issued, Denied, or Failed?"),
            Column::new("UnverifiedUserAnnotations", "string", "What the pod asks of the signer besides.").wide(),
        ],
        ..Kind::new(
            V1,
            "PodCertificateRequest",
            "podcertificaterequests",
            "io.k8s.api.certificates.v1.PodCertificateRequest",
            PodRequest,
        )
    }
}

/// The longest lifetime, in seconds, that may be asked of a signer: Kubernetes' own sign for a day at most.
#[must_use]
pub fn longest_lifetime(signer: &str) -> i64 {
    const DAY: i64 = 24 * 60 * 60;
    let domain = signer.split('/').next().unwrap_or_default();
    if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") { DAY } else { 91 * DAY }
}

/// The shortest lifetime, in seconds.
const SHORTEST_LIFETIME: i64 = 60 * 60;

const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];

struct PodRequest;

impl Strategy for PodRequest {
    fn default(&self, object: &mut Value) {
        const DAY: i64 = 24 * 60 * 60;
        fill(&mut object["spec"], "maxExpirationSeconds", DAY);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    /// `ValidatePodCertificateRequestCreate`
    fn validate_create(&self, object: &Value) -> ErrorList {
        const LONGEST_UID: usize = 128;
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let signer = text(&spec["signerName"]);
        let mut errors = signer_name(signer, &path.child("signerName"));
        errors.extend(user_annotations(&spec["unverifiedUserAnnotations"], &path.child("unverifiedUserAnnotations")));
        for (name, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")]
        {
            let check = |value: &str| name_is_dns_subdomain(value, false);
            errors.extend(form(text(&spec[name]), &path.child(name), check));
            match text(&spec[uid]) {
                "" => errors.push(Error::invalid(&path.child(uid), "", "must not be empty")),
                value if value.len() > LONGEST_UID => errors.push(Error::too_long(&path.child(uid), LONGEST_UID)),
                _ => {}
            }
        }
        let (at, longest) = (path.child("maxExpirationSeconds"), longest_lifetime(signer));
        let Some(seconds) = spec["maxExpirationSeconds"].as_i64() else {
            errors.push(Error::required(&at, "must be set"));
            return errors;
        };
        if !(SHORTEST_LIFETIME..=longest).contains(&seconds) {
            let detail = format!("must be in the range [{SHORTEST_LIFETIME}, {longest}]");
            errors.push(Error::invalid(&at, seconds, detail));
        }
        if text(&spec["stubPKCS10Request"]).is_empty() {
            let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            errors.push(bare(&path, detail));
        } else if let Err(error) = key_of_request(spec, true) {
            errors.push(error);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        immutable(&object["spec"], &old["spec"], &Path::new("spec"))
    }

    /// `ValidatePodCertificateRequestStatusUpdate`, but for what depends on the time.
    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        let (status, was, path) = (&object["status"], &old["status"], Path::new("status"));
        let mut errors = validate_ends(&status["conditions"], &path.child("conditions"));
        errors.extend(conditions(&status["conditions"], &path.child("conditions")));
        if !errors.is_empty() {
            return errors;
        }
        let detail = if end(was).is_some() {
            "immutable after PodCertificateRequest is issued, denied, or failed"
        } else {
            match end(status) {
                Some("Issued") => return validate_chain(status, &old["spec"]),
                Some(_) => {
                    let alone = json!({"conditions": status["conditions"]});
                    let detail =
                        "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
                    return (!semantically_equal(status, &alone)).then(|| bare(&path, detail)).into_iter().collect();
                }
                None => "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
            }
        };
        (!semantically_equal(status, was)).then(|| bare(&path, detail)).into_iter().collect()
    }

    /// A certificate that is issued begins about now.
    fn validate_status_time(&self, object: &Value, old: &Value, context: &WriteContext<'_>) -> ErrorList {
        const FARTHEST: i64 = 5 * 60;
        let seconds = |time: &str| time.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second);
        let begin = text(&object["status"]["notBefore"]);
        let is_new = end(&old["status"]).is_none() && end(&object["status"]) == Some("Issued");
        match (seconds(begin), seconds(context.now)) {
            (Ok(from), Ok(now)) if is_new && from.abs_diff(now) > FARTHEST.unsigned_abs() => {
                let detail = "must be set to within 5 minutes of kube-apiserver's current time";
                vec![Error::invalid(&Path::new("status").child("notBefore"), begin, detail)]
            }
            _ => ErrorList::new(),
        }
    }

    fn row(&self, object: &Value, _: i64) -> Vec<Value> {
        let spec = &object["spec"];
        let mut cells = vec![name_cell(object)];
        for field in ["podName", "serviceAccountName", "nodeName", "signerName"] {
            cells.push(text(&spec[field]).into());
        }
        let all = items(&object["status"]["conditions"]);
        let state = all.iter().rev().map(|condition| text(&condition["type"])).find(|type_| ENDS.contains(type_));
        cells.push(state.unwrap_or("Pending").into());
        cells.push(labels_cell(&spec["unverifiedUserAnnotations"]));
        cells
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        ["signerName", "podName", "nodeName"].iter().map(|field| text(&object["spec"][*field]).to_owned()).collect()
    }
}

/// A mistake whose message shows no value.
pub(super) fn bare(path: &Path, detail: &str) -> Error {
    Error { value: None, ..Error::invalid(path, Value::Null, detail) }
}

/// The end that a request has come to.
fn end(status: &Value) -> Option<&'static str> {
    let all = items(&status["conditions"]);
    ENDS.into_iter().find(|end| all.iter().any(|c| c["type"] == *end && c["status"] == "True"))
}

/// At most one condition, of an end, and it is true.
fn validate_ends(conditions: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut known = 0;
    for (index, condition) in items(conditions).iter().enumerate() {
        // Upstream writes the index as a field of its own.
        let at = path.child(&format!("[{index}]"));
        let (type_, status) = (text(&condition["type"]), text(&condition["status"]));
        if !ENDS.contains(&type_) {
            errors.push(Error::not_supported(&at.child("type"), type_, &ENDS));
            continue;
        }
        known += 1;
        if known > 1 {
            let detail = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(Error::invalid(&at.child("type"), type_, detail));
        }
        if status != "True" {
            errors.push(Error::not_supported(&at.child("status"), status, &["True"]));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    const CONTEXT: WriteContext<'_> = WriteContext { now: "2026-11-24T09:00:00Z", user: "signer" };

    fn base(key: &KeyPair) -> Value {
        let request = CertificateParams::new(Vec::new()).unwrap().serialize_request(key).unwrap();
        let mut object = json!({"metadata": {"name": "r"}, "spec": {
            "signerName": "example.com/s", "podName": "p", "podUID": "1", "serviceAccountName": "default",
            "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3",
            "stubPKCS10Request": STANDARD.encode(request.der()),
        }});
        PodRequest.default(&mut object);
        object
    }

    /// Signed by `key`, one hour long from `minutes` before the present.
    fn issued(object: &Value, key: &KeyPair, minutes: i64) -> Value {
        let at = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap().to_string();
        let (from, to) = (NOW - minutes * 60, NOW - minutes * 60 + 3600);
        let mut params = CertificateParams::new(vec!["p.example.com".to_owned()]).unwrap();
        params.not_before = OffsetDateTime::from_unix_timestamp(from).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(to).unwrap();
        let chain = params.self_signed(key).unwrap().pem();
        let condition = json!({"type": "Issued", "status": "True", "reason": "R", "lastTransitionTime": at(NOW)});
        let status = json!({
            "certificateChain": chain, "notBefore": at(from), "notAfter": at(to), "beginRefreshAt": at(from + 900),
            "conditions": [condition],
        });
        mutated(object, &json!({"status": status}))
    }

    #[test]
    fn a_request_proves_that_it_has_its_key() {
        let object = base(&KeyPair::generate().unwrap());
        assert_eq!(messages(&PodRequest.validate_create(&object)), Vec::<String>::new());
        let mut forged = STANDARD.decode(text(&object["spec"]["stubPKCS10Request"])).unwrap();
        *forged.last_mut().unwrap() ^= 1;
        let table = [
            (
                json!({"stubPKCS10Request": STANDARD.encode(forged)}),
                "spec.stubPKCS10Request: Invalid value: invalid signature",
            ),
            (
                json!({"stubPKCS10Request": "AAAA"}),
                "spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR",
            ),
            (json!({"podUID": ""}), "spec.podUID: Invalid value: \"\": must not be empty"),
            (
                json!({"maxExpirationSeconds": 90000, "signerName": "kubernetes.io/s.t"}),
                "spec.maxExpirationSeconds: Invalid value: 90000: must be in the range [3600, 86400]",
            ),
        ];
        for (spec, message) in table {
            let wrong = mutated(&object, &json!({"spec": spec}));
            assert_eq!(messages(&PodRequest.validate_create(&wrong)), [message]);
        }
    }

    #[test]
    fn a_certificate_is_for_the_key_that_was_asked_for() {
        let key = KeyPair::generate().unwrap();
        let object = base(&key);
        let good = issued(&object, &key, 1);
        assert_eq!(messages(&PodRequest.validate_status_update(&good, &object)), Vec::<String>::new());
        assert_eq!(PodRequest.row(&good, NOW)[5], "Issued");
        let other = issued(&object, &KeyPair::generate().unwrap(), 1);
        let errors = messages(&PodRequest.validate_status_update(&other, &object));
        assert!(errors[0].ends_with("leaf certificate was not issued to the requested public key"), "{errors:?}");
        let table = [
            (
                json!({"notBefore": "2026-11-24T09:00:00Z"}),
                "must be set to the NotBefore time encoded in the leaf certificate",
            ),
            (json!({"beginRefreshAt": "2026-11-24T09:00:00Z"}), "must be at least 10 minutes after status.notBefore"),
            (json!({"notAfter": null}), "must be present and consistent with the issued certificate"),
        ];
        for (status, message) in table {
            let errors =
                messages(&PodRequest.validate_status_update(&mutated(&good, &json!({"status": status})), &object));
            assert!(errors.len() == 1 && errors[0].ends_with(message), "{errors:?}");
        }
    }

    #[test]
    fn a_certificate_begins_about_now() {
        let key = KeyPair::generate().unwrap();
        let object = base(&key);
        assert_eq!(PodRequest.validate_status_time(&issued(&object, &key, 5), &object, &CONTEXT), ErrorList::new());
        let early = issued(&object, &key, 6);
        assert_eq!(PodRequest.validate_status_time(&early, &object, &CONTEXT).len(), 1);
        assert_eq!(PodRequest.validate_status_time(&early, &early, &CONTEXT), ErrorList::new());
    }

    #[test]
    fn a_request_ends_once() {
        let object = base(&KeyPair::generate().unwrap());
        let with = |type_: &str, status: &str| {
            let condition =
                json!({"type": type_, "status": status, "reason": "R", "lastTransitionTime": "2026-11-24T09:00:00Z"});
            mutated(&object, &json!({"status": {"conditions": [condition]}}))
        };
        let denied = with("Denied", "True");
        assert_eq!(messages(&PodRequest.validate_status_update(&denied, &object)), Vec::<String>::new());
        assert_eq!(
            messages(&PodRequest.validate_status_update(&with("Failed", "True"), &denied)),
            ["status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"]
        );
        assert_eq!(
            messages(&PodRequest.validate_status_update(&with("Issued", "False"), &object)),
            ["status.conditions.[0].status: Unsupported value: \"False\": supported values: \"True\""]
        );
        let loose = mutated(&object, &json!({"status": {"notBefore": "2026-11-24T09:00:00Z"}}));
        assert_eq!(
            messages(&PodRequest.validate_status_update(&loose, &object)),
            [
                "status: Invalid value: status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\""
            ]
        );
    }
}
