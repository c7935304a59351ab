//! AdmissionReview: what a webhook is asked and what it answers (k8s.io/apiserver/pkg/admission/plugin/webhook/request). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use skep_api::status::{Cause, Details};
use skep_api::{Reason, Status};

use crate::admission::dynamic::{Attributes, Matched, Notes};

/// A version of `admission.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// The first of a webhook's versions that is known here.
    pub(super) fn choose(versions: &Value) -> Option<Self> {
        versions.as_array()?.iter().find_map(|version| match version.as_str() {
            Some("v1") => Some(Self::V1),
            Some("v1beta1") => Some(Self::V1Beta1),
            _ => None,
        })
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// A question.
pub(super) fn question(
    version: Version,
    uid: &str,
    attributes: &Attributes<'_>,
    object: &Value,
    matched: &Matched,
) -> Value {
    let mut request = attributes.to_request(&matched.kind);
    request.insert("uid".to_owned(), uid.into());
    request.insert("object".to_owned(), attributes.converted(object, &matched.kind));
    let old = attributes.old.map_or(Value::Null, |old| attributes.converted(old, &matched.kind));
    request.insert("oldObject".to_owned(), old);
    json!({"kind": "AdmissionReview", "apiVersion": version.api_version(), "request": request})
}

/// A good answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// A JSON patch, as it was sent; `None` where it is empty.
    pub(super) patch: Option<Vec<u8>>,
    /// Why not.
    pub(super) result: Value,
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

impl Answer {
    /// Takes what the client and the audit log are to hear.
    pub(super) fn note(&self, webhook: &str, notes: &mut Notes) {
        notes.warnings.extend(self.warnings.iter().cloned());
        for (key, value) in &self.annotations {
            notes.annotate(format!("{webhook}/{key}"), value.clone());
        }
    }

    /// The refusal (`ToStatusErr`).
    pub(super) fn refusal(&self, webhook: &str) -> Status {
        let denied = format!("admission webhook {webhook:?} denied the request");
        let text = |field: &str| self.result[field].as_str().unwrap_or_default();
        let message = match (text("message"), text("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let code = self.result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
        // An answer that says no is no success, whatever code it names; and it is a code that HTTP has.
        let code = if (400..600).contains(&code) { code } else { 400 };
        let mut status = Status::new(code, Reason::parse(text("reason")), message);
        status.details = details(&self.result["details"]);
        status
    }
}

fn details(details: &Value) -> Option<Box<Details>> {
    let details = details.as_object()?;
    let text = |field: &str| details.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let causes = details.get("causes").and_then(Value::as_array).into_iter().flatten();
    let cause = |cause: &Value| {
        let text = |field: &str| cause[field].as_str().unwrap_or_default().to_owned();
        Cause { reason: text("reason"), message: text("message"), field: text("field") }
    };
    let seconds = details.get("retryAfterSeconds").and_then(Value::as_u64);
    Some(Box::new(Details {
        name: text("name"),
        group: text("group"),
        kind: text("kind"),
        uid: text("uid"),
        causes: causes.map(cause).collect(),
        retry_after_seconds: seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or_default(),
    }))
}

/// Reads an answer (`VerifyAdmissionResponse`).
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub(super) fn read(version: Version, uid: &str, mutating: bool, body: &[u8]) -> Result<Answer, String> {
    let review: Value = serde_json::from_slice(body)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let patch = match response["patch"].as_str() {
        Some(patch) => {
            STANDARD.decode(patch).map_err(|error| format!("illegal base64 data in response.patch: {error}"))?
        }
        None => Vec::new(),
    };
    let type_ = response["patchType"].as_str();
    if version == Version::V1 {
        let answered = response["uid"].as_str().unwrap_or_default();
        if answered != uid {
            return Err(format!("expected response.uid={uid:?}, got {answered:?}"));
        }
        let (given_version, given_kind) =
            (review["apiVersion"].as_str().unwrap_or_default(), review["kind"].as_str().unwrap_or_default());
        if given_version != version.api_version() || given_kind != "AdmissionReview" {
            return Err(format!(
                "expected webhook response of {}, Kind=AdmissionReview, got {given_version}, Kind={given_kind}",
                version.api_version()
            ));
        }
        check_patch(mutating, &patch, type_)?;
    }
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Answer {
        allowed: response["allowed"].as_bool().unwrap_or_default(),
        patch: (mutating && !patch.is_empty()).then_some(patch),
        result: response.get("status").cloned().unwrap_or(Value::Null),
        warnings: texts(&response["warnings"]),
        annotations: annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
    })
}

fn check_patch(mutating: bool, patch: &[u8], type_: Option<&str>) -> Result<(), String> {
    let wrong = match (mutating, patch.is_empty(), type_) {
        (true, false, None) => "webhook returned response.patch but not response.patchType".to_owned(),
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch".to_owned(),
        (true, false, Some("")) => "webhook returned invalid response.patchType of \"\"".to_owned(),
        (true, false, Some(other)) if other != "JSONPatch" => format!("unsupported patch type {other:?}"),
        (false, false, _) => "validating webhook may not return response.patch".to_owned(),
        (false, true, Some(_)) => "validating webhook may not return response.patchType".to_owned(),
        _ => return Ok(()),
    };
    Err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value, mutating: bool) -> Result<Answer, String> {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        read(Version::V1, "u", mutating, review.to_string().as_bytes())
    }

    #[test]
    fn an_answer_is_for_its_question() {
        assert!(answer(json!({"uid": "u", "allowed": true}), false).unwrap().allowed);
        assert_eq!(answer(json!({"uid": "v"}), false), Err("expected response.uid=\"u\", got \"v\"".to_owned()));
        assert_eq!(answer(Value::Null, false), Err("webhook response was absent".to_owned()));
        let other = json!({"apiVersion": "v1", "kind": "Review", "response": {"uid": "u"}});
        assert_eq!(
            read(Version::V1, "u", false, other.to_string().as_bytes()),
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=Review"
                .to_owned())
        );
        let older = json!({"response": {"allowed": true}});
        assert!(read(Version::V1Beta1, "u", false, older.to_string().as_bytes()).unwrap().allowed);
    }

    #[test]
    fn a_patch_comes_with_its_type_and_from_mutating_webhooks_only() {
        let patched = |type_: Value, mutating| {
            answer(json!({"uid": "u", "allowed": true, "patch": STANDARD.encode("[]"), "patchType": type_}), mutating)
        };
        assert_eq!(patched(json!("JSONPatch"), true).unwrap().patch.as_deref(), Some(&b"[]"[..]));
        assert!(patched(Value::Null, true).is_err());
        assert!(patched(json!("Merge"), true).is_err());
        assert_eq!(
            patched(json!("JSONPatch"), false),
            Err("validating webhook may not return response.patch".to_owned())
        );
    }

    #[test]
    fn a_refusal_says_who_and_why() {
        let refused = |status: Value| answer(json!({"uid": "u", "status": status}), false).unwrap().refusal("w.a.b");
        let status = refused(json!({"message": "no", "code": 403, "reason": "Forbidden"}));
        assert_eq!(status.message, "admission webhook \"w.a.b\" denied the request: no");
        assert_eq!((status.code, status.reason), (403, Reason::Forbidden));
        assert_eq!(refused(json!({"code": 200})).code, 400);
        assert_eq!(refused(Value::Null).message, "admission webhook \"w.a.b\" denied the request without explanation");
    }
}
