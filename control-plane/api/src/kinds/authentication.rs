//! The group `authentication.k8s.io`: questions about who someone is. They are answered by the API server and never stored.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Kind, Strategy};
use crate::kinds::tree::{fill, integer, is_empty, length, text};

const V1: GroupVersion = GroupVersion::new("authentication.k8s.io", "v1");

/// `authentication.k8s.io/v1 TokenReview`: whose token is this?
#[must_use]
pub fn token_review() -> Kind {
    const SCHEMA: &str = "io.k8s.api.authentication.v1.TokenReview";
    Kind::review(V1, "TokenReview", "tokenreviews", SCHEMA, TokenReview)
}

/// `authentication.k8s.io/v1 SelfSubjectReview`: who am I?
#[must_use]
pub fn self_subject_review() -> Kind {
    const SCHEMA: &str = "io.k8s.api.authentication.v1.SelfSubjectReview";
    Kind::review(V1, "SelfSubjectReview", "selfsubjectreviews", SCHEMA, SelfSubjectReview)
}

struct TokenReview;

/// A review without a token is a bad request (400), not an invalid object; see [`missing_token`].
impl Strategy for TokenReview {}

/// The message with which a TokenReview without a token is refused as a bad request.
#[must_use]
pub fn missing_token(review: &Value) -> Option<&'static str> {
    let absent = text(&review["spec"]["token"]).is_empty();
    absent.then_some("token is required for TokenReview in authentication")
}

struct SelfSubjectReview;

impl Strategy for SelfSubjectReview {}

/// Fills in a TokenRequest (the body of a ServiceAccount's `/token`): a token for an hour.
pub fn default_token_request(request: &mut Value) {
    fill(&mut request["spec"], "expirationSeconds", 3600);
}

/// What is wrong with a TokenRequest (`ValidateTokenRequest`).
#[must_use]
pub fn validate_token_request(request: &Value) -> ErrorList {
    let spec = &request["spec"];
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let seconds = integer(&spec["expirationSeconds"]);
    if seconds < 600 {
        let message = "may not specify a duration less than 10 minutes";
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, message));
    }
    if seconds > 1 << 32 {
        let message = "may not specify a duration larger than 2^32 seconds";
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, message));
    }
    if !is_empty(&spec["attestations"]) {
        let message = "attestations may only be specified with a webhook bound object reference";
        return vec![Error::invalid(&path.child("attestations"), spec["attestations"].clone(), message)];
    }
    if is_webhook(&spec["boundObjectRef"]) {
        if length(&spec["audiences"]) != 1 {
            let message = "must be length 1 when bound to a webhook config";
            errors.push(Error::invalid(&path.child("audiences"), spec["audiences"].clone(), message));
        }
        let message = "webhook bound requests require exactly one admissionReviewAPIGroups attestation";
        errors.push(Error::invalid(&path.child("attestations"), spec["attestations"].clone(), message));
    }
    errors
}

fn is_webhook(reference: &Value) -> bool {
    matches!(text(&reference["kind"]), "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration")
        && text(&reference["apiVersion"]) == "admissionregistration.k8s.io/v1"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;
    use serde_json::json;

    #[test]
    fn a_token_lives_an_hour_unless_asked_otherwise() {
        let mut request = json!({"spec": {"audiences": ["a"]}});
        default_token_request(&mut request);
        assert_eq!(request["spec"]["expirationSeconds"], 3600);
        assert!(validate_token_request(&request).is_empty());
    }

    #[test]
    fn a_token_lives_at_least_ten_minutes() {
        let request = json!({"spec": {"expirationSeconds": 599}});
        assert_eq!(
            messages(&validate_token_request(&request)),
            ["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"]
        );
    }

    #[test]
    fn a_token_review_needs_a_token() {
        assert!(missing_token(&json!({"spec": {"token": ""}})).is_some());
        assert!(missing_token(&json!({"spec": {"token": "x"}})).is_none());
    }
}
