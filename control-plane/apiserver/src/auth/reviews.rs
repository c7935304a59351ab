//! The kinds that are only asked: access reviews, token reviews, and who am I. Pure but for what they read of the caches.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::Status;

use super::authz::{Authorizer, Decision};
use super::token::Tokens;
use super::{Attributes, Target, User};
use crate::admission::Objects;

/// Answers a review of a kind.
///
/// # Errors
/// 400 for a kind that is no review.
pub fn answer(
    kind: &str,
    mut review: Value,
    user: &User,
    authorizer: &dyn Authorizer,
    tokens: &Tokens,
    objects: &dyn Objects,
    now: Timestamp,
) -> Result<Value, Status> {
    review["status"] = match kind {
        "SelfSubjectAccessReview" => access(user.clone(), &review["spec"], authorizer),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            access(subject(&review["spec"]), &review["spec"], authorizer)
        }
        "SelfSubjectRulesReview" => rules(user, &review["spec"], authorizer),
        "SelfSubjectReview" => {
            review["metadata"]["creationTimestamp"] = crate::rest::rfc3339(now).into();
            json!({ "userInfo": user_info(user) })
        }
        "TokenReview" => token(&review["spec"], tokens, objects, now),
        other => return Err(Status::bad_request(format!("{other} is no review"))),
    };
    Ok(review)
}

fn subject(spec: &Value) -> User {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: text(&spec["user"]),
        uid: text(&spec["uid"]),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.to_ascii_lowercase(), strings(values))).collect(),
    }
}

fn access(user: User, spec: &Value, authorizer: &dyn Authorizer) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let wanted = &spec["resourceAttributes"];
    let (verb, target) = if wanted.is_object() {
        let target = Target::Resource {
            group: text(&wanted["group"]),
            version: text(&wanted["version"]),
            resource: text(&wanted["resource"]),
            subresource: text(&wanted["subresource"]),
            namespace: text(&wanted["namespace"]),
            name: text(&wanted["name"]),
        };
        (text(&wanted["verb"]), target)
    } else {
        let wanted = &spec["nonResourceAttributes"];
        (text(&wanted["verb"]), Target::Path(text(&wanted["path"])))
    };
    let attributes = Attributes { user: user.into(), verb: verb.into(), target };
    let (allowed, denied, reason) = match authorizer.authorize(&attributes) {
        Decision::Allow { reason } => (true, false, reason),
        Decision::Deny { reason } => (false, true, reason),
        Decision::NoOpinion { reason } => (false, false, reason),
    };
    let mut status = json!({ "allowed": allowed });
    if denied {
        status["denied"] = true.into();
    }
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

fn rules(user: &User, spec: &Value, authorizer: &dyn Authorizer) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in authorizer.rules(user, namespace) {
        let value = rule.to_value();
        if rule.urls.is_empty() {
            resources.push(value);
        } else {
            paths.push(value);
        }
    }
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}

fn user_info(user: &User) -> Value {
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn token(spec: &Value, tokens: &Tokens, objects: &dyn Objects, now: Timestamp) -> Value {
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    match tokens.authenticate(spec["token"].as_str().unwrap_or_default(), &audiences, objects, now) {
        Ok(found) => json!({ "authenticated": true, "user": user_info(&found.user), "audiences": found.audiences }),
        Err(error) => json!({ "error": format!("[invalid bearer token, {error}]") , "user": {} }),
    }
}
