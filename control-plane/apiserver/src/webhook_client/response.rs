//! What a webhook answers: its body, and failures in client-go's words.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use skep_api::{Reason, Status};

use super::CallError;
use super::connection::Failure;

/// The most that is read of an answer, in bytes: an object of the greatest size with room for its encoding.
const LIMIT: usize = 16 << 20;

pub(super) async fn read(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(Failure::Connection(format!("unexpected error when reading response body: {error}"))),
    }
}

/// The body of a good answer; upstream's `transformResponse` and `NewGenericServerResponse` for others.
pub(super) fn judge(code: StatusCode, body: Bytes) -> Result<Bytes, CallError> {
    if code.is_success() {
        return Ok(body);
    }
    if let Some(status) = serde_json::from_slice(&body).ok().as_ref().and_then(status_of) {
        return Err(CallError { message: status.message.clone(), status: Some(Box::new(status)) });
    }
    let text = String::from_utf8_lossy(&body);
    let said = text.trim().chars().take(1024).collect::<String>();
    let (reason, message) = match code.as_u16() {
        400 => (Reason::BadRequest, "the server rejected our request for an unknown reason".to_owned()),
        401 => (Reason::Unauthorized, "the server has asked for the client to provide credentials".to_owned()),
        403 => (Reason::Forbidden, said),
        404 => (Reason::NotFound, "the server could not find the requested resource".to_owned()),
        405 => (Reason::MethodNotAllowed, "the server does not allow this method on the requested resource".to_owned()),
        409 => (Reason::AlreadyExists, "the server reported a conflict".to_owned()),
        415 => (Reason::UnsupportedMediaType, said),
        422 => (Reason::Invalid, "the server rejected our request due to an error in our request".to_owned()),
        429 => (
            Reason::TooManyRequests,
            "the server has received too many requests and has asked us to try again later".to_owned(),
        ),
        503 => (Reason::ServiceUnavailable, "the server is currently unable to handle the request".to_owned()),
        504 => (
            Reason::Timeout,
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned(),
        ),
        500.. => (
            Reason::InternalError,
            format!("an error on the server ({said:?}) has prevented the request from succeeding"),
        ),
        code => (
            Reason::Unknown,
            format!("the server responded with the status code {code} but did not return more information"),
        ),
    };
    let status = Status::new(code.as_u16(), reason, message);
    Err(CallError { message: status.message.clone(), status: Some(Box::new(status)) })
}

/// A `Status` that says why not.
fn status_of(value: &Value) -> Option<Status> {
    let code = value["code"].as_u64().and_then(|code| u16::try_from(code).ok())?;
    if value["kind"] != "Status" || value["status"] == "Success" {
        return None;
    }
    let reason = value["reason"].as_str().map_or(Reason::Unknown, Reason::parse);
    Some(Status::new(code, reason, value["message"].as_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_what_the_webhook_says_or_what_its_code_means() {
        let said = |code: u16, body: &'static str| {
            judge(StatusCode::from_u16(code).unwrap(), Bytes::from_static(body.as_bytes())).unwrap_err().message
        };
        assert_eq!(said(500, "boom\n"), "an error on the server (\"boom\") has prevented the request from succeeding");
        assert_eq!(said(404, "nothing"), "the server could not find the requested resource");
        assert_eq!(said(403, r#"{"kind": "Status", "code": 403, "message": "no"}"#), "no");
        assert_eq!(judge(StatusCode::OK, Bytes::from_static(b"{}")).unwrap(), Bytes::from_static(b"{}"));
    }
}
