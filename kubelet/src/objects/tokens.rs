//! Tokens of service accounts, bound to the pods that they are for.
//!
//! Invariant: at most one token a request is kept, and none of a pod that is forgotten. A token is replaced at 80 % of its
//! life, or when it is a day old (upstream: `pkg/kubelet/token`); until a new one is had, the old one serves while it lasts.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest as ApiRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use parking_lot::Mutex;
use skep_client::kube::api::PostParams;
use skep_client::kube::{self, Api, Client};

use super::{ObjectError, REQUEST_TIMEOUT};

/// No token is used longer, however long it is valid.
const LONGEST_USE: SignedDuration = SignedDuration::from_hours(24);
/// Pods of one age renew their tokens this far apart.
const LARGEST_JITTER_SECONDS: i64 = 10;

/// What a token is asked for with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    /// Of the pod and its service account.
    pub namespace: String,
    /// The service account's name.
    pub service_account: String,
    /// The pod that it is bound to.
    pub pod_name: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// None is the API server's own.
    pub audience: Option<String>,
    /// How long it is to be valid, in seconds.
    pub expiration_seconds: Option<i64>,
}

/// A token, which its `Debug` form doesn't show.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The JWT.
    pub text: String,
    /// Until when it is valid.
    pub expires_at: Timestamp,
    /// For how long it was given.
    pub lifetime: SignedDuration,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Token {
    /// Whether it is time for a new one (upstream: `requiresRefresh`).
    pub fn needs_refresh(&self, now: Timestamp, jitter: SignedDuration) -> bool {
        let issued_at = self.expires_at.saturating_sub(self.lifetime).unwrap_or(Timestamp::MIN);
        let age = now.duration_since(issued_at);
        age > LONGEST_USE - jitter || age > self.lifetime / 5 * 4 - jitter
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// The tokens of this node's pods.
pub(super) struct Tokens {
    client: Client,
    slots: Mutex<HashMap<TokenRequest, Slot>>,
}

impl Tokens {
    pub(super) fn new(client: Client) -> Self {
        Self { client, slots: Mutex::default() }
    }

    pub(super) async fn get(&self, request: &TokenRequest, now: Timestamp) -> Result<Token, ObjectError> {
        let slot = self.slots.lock().entry(request.clone()).or_default().clone();
        let mut held = slot.lock().await;
        if let Some(token) = held.as_ref().filter(|token| !token.needs_refresh(now, jitter(&request.pod_uid))) {
            return Ok(token.clone());
        }
        match self.request(request, now).await {
            Ok(token) => {
                *held = Some(token.clone());
                Ok(token)
            }
            Err(error) => match held.as_ref().filter(|token| token.expires_at > now) {
                Some(token) => {
                    tracing::warn!(
                        %error, namespace = request.namespace, service_account = request.service_account,
                        "a token could not be renewed, and the old one is still used"
                    );
                    Ok(token.clone())
                }
                None => Err(error),
            },
        }
    }

    pub(super) fn forget(&self, pod_uid: &str) {
        self.slots.lock().retain(|request, _| request.pod_uid != pod_uid);
    }

    async fn request(&self, request: &TokenRequest, now: Timestamp) -> Result<Token, ObjectError> {
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(request.pod_name.clone()),
            uid: Some(request.pod_uid.clone()),
        };
        let spec = TokenRequestSpec {
            audiences: request.audience.clone().map(|audience| vec![audience]),
            bound_object_ref: Some(bound),
            expiration_seconds: request.expiration_seconds,
            ..TokenRequestSpec::default()
        };
        let body = ApiRequest { spec: Some(spec), ..ApiRequest::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &request.namespace);
        let parameters = PostParams::default();
        let answer = api.create_subresource("token", &request.service_account, &parameters, &body);
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, answer).await;
        let answer = answer.map_err(|_| ObjectError::Token("the API server didn't answer in time".to_owned()))?;
        let answer: ApiRequest = answer.map_err(|error| match error {
            kube::Error::Api(status) => ObjectError::Token(status.message.clone()),
            error => ObjectError::Token(error.to_string()),
        })?;
        // The API server may give another time than was asked for, and says which.
        let seconds = answer.spec.and_then(|spec| spec.expiration_seconds).or(request.expiration_seconds);
        let Some(TokenRequestStatus { token: Some(text), expiration_timestamp: Some(expires_at) }) = answer.status
        else {
            return Err(ObjectError::Token("the API server answered without a token".to_owned()));
        };
        let expires_at = expires_at.0;
        let lifetime = seconds.map_or_else(|| expires_at.duration_since(now), SignedDuration::from_secs);
        Ok(Token { text, expires_at, lifetime })
    }
}

/// The same for a pod each time.
fn jitter(pod_uid: &str) -> SignedDuration {
    let sum: i64 = pod_uid.bytes().map(i64::from).sum();
    SignedDuration::from_secs(sum % LARGEST_JITTER_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life_or_after_a_day() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let token = |hours: i64| {
            let lifetime = SignedDuration::from_hours(hours);
            Token { text: "t".to_owned(), expires_at: start + lifetime, lifetime }
        };
        let at = |minutes: i64| start + SignedDuration::from_mins(minutes);
        let none = SignedDuration::ZERO;
        assert!(!token(1).needs_refresh(at(47), none));
        assert!(token(1).needs_refresh(at(49), none));
        assert!(!token(1000).needs_refresh(at(24 * 60 - 1), none));
        assert!(token(1000).needs_refresh(at(24 * 60 + 1), none));
    }

    #[test]
    fn a_token_is_not_shown_in_logs() {
        let token =
            Token { text: "secret".to_owned(), expires_at: Timestamp::UNIX_EPOCH, lifetime: SignedDuration::ZERO };
        assert!(!format!("{token:?}").contains("secret"));
    }
}
