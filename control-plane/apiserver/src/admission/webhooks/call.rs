//! One webhook is asked, and its patch applied.

use bytes::Bytes;
use serde_json::Value;
use skep_api::{Status, patch};
use tracing::warn;

use super::review::{self, Answer};
use super::{Hook, Refine};
use crate::admission::dynamic::{Attributes, Matched};
use crate::webhook_client::WebhookClient;

/// What came of asking.
pub(super) enum Outcome {
    /// It may go on.
    Allowed(Answer),
    /// It may not, or the webhook could not be asked and must be.
    Refused(Box<Status>),
    /// The webhook could not be asked, and need not be.
    FailedOpen,
}

pub(super) async fn ask(
    client: &WebhookClient,
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: &Value,
    matched: &Matched,
    mutating: bool,
) -> Outcome {
    if attributes.dry_run && !hook.takes_dry_runs {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Outcome::Refused(Box::new(Status::bad_request(why)));
    }
    match try_ask(client, hook, attributes, object, matched, mutating).await {
        Ok(answer) if answer.allowed => Outcome::Allowed(answer),
        Ok(answer) => Outcome::Refused(Box::new(answer.refusal(&hook.name))),
        Err(why) => {
            let failure = format!("failed calling webhook {:?}: {why}", hook.name);
            if hook.fails_open {
                warn!(
                    webhook = hook.name,
                    configuration = hook.configuration,
                    why,
                    "a webhook was not asked, failing open"
                );
                return Outcome::FailedOpen;
            }
            warn!(
                webhook = hook.name,
                configuration = hook.configuration,
                why,
                "a webhook was not asked, failing closed"
            );
            Outcome::Refused(Box::new(Status::internal(failure)))
        }
    }
}

async fn try_ask(
    client: &WebhookClient,
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: &Value,
    matched: &Matched,
    mutating: bool,
) -> Result<Answer, String> {
    let Some(version) = hook.version else {
        return Err(
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
                .to_owned(),
        );
    };
    let config = hook.client.as_ref().map_err(|why| format!("could not get REST client: {why}"))?;
    let uid = uuid::Uuid::new_v4().to_string();
    let question = review::question(version, &uid, attributes, object, matched);
    let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    let answer = client
        .post(config, Bytes::from(body), hook.timeout)
        .await
        .map_err(|error| format!("failed to call webhook: {error}"))?;
    review::read(version, &uid, mutating, &answer).map_err(|why| format!("received invalid webhook response: {why}"))
}

/// Applies a webhook's patch in the version in which it was asked; `true` if that changed the object.
pub(super) fn apply(
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: &mut Value,
    matched: &Matched,
    patch: &[u8],
    refine: &Refine<'_>,
) -> Result<bool, Status> {
    let operations: Value = serde_json::from_slice(patch).map_err(|error| {
        Status::internal(format!(
            "failed calling webhook {:?}: received undecodable patch in webhook response: {error}",
            hook.name
        ))
    })?;
    if operations.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    if object.is_null() {
        return Err(Status::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    }
    let asked = attributes.converted(object, &matched.kind);
    let patched = patch::json(&asked, &operations).map_err(|status| Status::internal(status.message))?;
    let refined = refine(&attributes.converted_back(patched, &matched.kind))?;
    let changed = *object != refined;
    *object = refined;
    Ok(changed)
}
