//! Every failure that a client sees is a Kubernetes `Status` (k8s.io/apimachinery/pkg/api/errors), built here with the right reason, code and words.

use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::gvk::{GroupKind, GroupResource};

/// Why a request failed: `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are upstream's and say what they mean")]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The reason of a word; another one than those known is [`Self::Unknown`].
    #[must_use]
    pub fn parse(word: &str) -> Self {
        const ALL: &[Reason] = &[
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Gone,
            Reason::Invalid,
            Reason::ServerTimeout,
            Reason::Timeout,
            Reason::TooManyRequests,
            Reason::BadRequest,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::RequestEntityTooLarge,
            Reason::UnsupportedMediaType,
            Reason::InternalError,
            Reason::Expired,
            Reason::ServiceUnavailable,
        ];
        ALL.iter().copied().find(|reason| reason.as_str() == word).unwrap_or(Self::Unknown)
    }

    /// The word in `Status.reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One cause in `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A machine-readable word, such as `FieldValueInvalid`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field's path; empty when the cause is not a field.
    pub field: String,
}

/// `Status.details`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The object's name, where one is concerned.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its kind or, as upstream does for lookups, its resource.
    pub kind: String,
    /// Its uid.
    pub uid: String,
    /// What was wrong in detail.
    pub causes: Vec<Cause>,
    /// When to try again; 0 says nothing.
    pub retry_after_seconds: u32,
}

/// A failed request as the client sees it: `metav1.Status` with `status: Failure`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// Why.
    pub reason: Reason,
    /// For people, in upstream's words.
    pub message: String,
    /// What it is about, if anything. Boxed: errors are rare, results are everywhere.
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: with which token an expired list may go on inconsistently. Empty otherwise.
    pub continue_token: String,
}

impl Status {
    /// A failure without details.
    #[must_use]
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: String::new() }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.resource.to_string(),
            ..Details::default()
        }));
        self
    }

    /// 404: no such object.
    #[must_use]
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, Reason::NotFound, format!("{resource} \"{name}\" not found")).about(resource, name)
    }

    /// 404: no such path, resource or subresource.
    #[must_use]
    pub fn no_such_path() -> Self {
        let mut status = Self::new(404, Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: create of what exists.
    #[must_use]
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, Reason::AlreadyExists, format!("{resource} \"{name}\" already exists")).about(resource, name)
    }

    /// 409: somebody else wrote in between, or the state forbids it for now.
    #[must_use]
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(409, Reason::Conflict, message).about(resource, name)
    }

    /// 409 of an update with an old resourceVersion.
    #[must_use]
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 403: authorization or admission said no.
    #[must_use]
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (name.is_empty(), resource.resource.is_empty()) {
            (true, true) => format!("forbidden: {why}"),
            (true, false) => format!("{resource} is forbidden: {why}"),
            (false, _) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 422: the object is well-formed but not valid. Upstream drops repeated messages and joins several by `[a, b]`.
    #[must_use]
    pub fn invalid(kind: &GroupKind, name: &str, errors: &ErrorList) -> Self {
        let mut seen = Vec::new();
        for error in errors {
            let line = error.to_string();
            if !seen.contains(&line) {
                seen.push(line);
            }
        }
        let list = if seen.len() == 1 { seen.swap_remove(0) } else { format!("[{}]", seen.join(", ")) };
        let mut status = Self::new(422, Reason::Invalid, format!("{kind} \"{name}\" is invalid: {list}"));
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: kind.group.to_string(),
            kind: kind.kind.to_string(),
            causes: errors
                .iter()
                .map(|e| Cause { reason: e.kind.cause().to_owned(), message: e.body(), field: e.field.to_string() })
                .collect(),
            ..Details::default()
        }));
        status
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed(resource: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind \"{resource}\"");
        Self::new(405, Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// 406: nothing that the client accepts can be made.
    #[must_use]
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 415: the body's content type is not understood.
    #[must_use]
    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            supported.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 413.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, message)
    }

    /// 410: the resource version or continue token is too old.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 504 with the resource version that was asked for and is not there yet: upstream's `NewTimeoutError` with `ResourceVersionTooLarge`.
    #[must_use]
    pub fn version_too_large(requested: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        let mut status = Self::new(504, Reason::Timeout, message);
        status.details = Some(Box::new(Details {
            retry_after_seconds: 1,
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }],
            ..Details::default()
        }));
        status
    }

    /// 429: try again later.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(429, Reason::TooManyRequests, message);
        status.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        status
    }

    /// 503.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(503, Reason::ServiceUnavailable, message);
        status.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        status
    }

    /// 500.
    #[must_use]
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// The object that goes over the wire.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": self.message, "code": self.code,
        });
        if self.reason != Reason::Unknown {
            status["reason"] = self.reason.as_str().into();
        }
        if !self.continue_token.is_empty() {
            status["metadata"]["continue"] = self.continue_token.as_str().into();
        }
        if let Some(details) = &self.details {
            let mut out = serde_json::Map::new();
            for (key, value) in
                [("name", &details.name), ("group", &details.group), ("kind", &details.kind), ("uid", &details.uid)]
            {
                if !value.is_empty() {
                    out.insert(key.to_owned(), value.as_str().into());
                }
            }
            if !details.causes.is_empty() {
                let causes = details.causes.iter().map(|cause| {
                    let mut c = json!({ "reason": cause.reason, "message": cause.message });
                    if !cause.field.is_empty() {
                        c["field"] = cause.field.as_str().into();
                    }
                    c
                });
                out.insert("causes".to_owned(), causes.collect());
            }
            if details.retry_after_seconds > 0 {
                out.insert("retryAfterSeconds".to_owned(), details.retry_after_seconds.into());
            }
            status["details"] = Value::Object(out);
        }
        status
    }
}
