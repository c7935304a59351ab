//! The options of a delete: from its body, or from its query.

use serde::Deserialize;
use skep_api::Status;
use skep_api::decode::{Media, decode_type};

use super::Query;

/// How dependents are treated: `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Propagation {
    /// They stay, without this owner.
    Orphan,
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
}

/// What must hold for the object that is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    /// Its uid.
    pub uid: Option<String>,
    /// Its resourceVersion.
    pub resource_version: Option<String>,
}

/// metav1.DeleteOptions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// Seconds; 0 is at once.
    pub grace_period_seconds: Option<i64>,
    /// Conditions on the object.
    pub preconditions: Option<Preconditions>,
    /// The older form of the policy.
    pub orphan_dependents: Option<bool>,
    /// What happens to dependents; `None` is what the kind does by default (background).
    pub propagation_policy: Option<Propagation>,
    /// `["All"]`
    pub dry_run: Vec<String>,
}

impl DeleteOptions {
    /// The options as an object.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        let mut options = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace_period_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(preconditions) = &self.preconditions {
            options["preconditions"] = serde_json::json!({});
            if let Some(uid) = &preconditions.uid {
                options["preconditions"]["uid"] = uid.as_str().into();
            }
            if let Some(version) = &preconditions.resource_version {
                options["preconditions"]["resourceVersion"] = version.as_str().into();
            }
        }
        if let Some(orphan) = self.orphan_dependents {
            options["orphanDependents"] = orphan.into();
        }
        if let Some(policy) = self.propagation_policy {
            let policy = match policy {
                Propagation::Orphan => "Orphan",
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
            };
            options["propagationPolicy"] = policy.into();
        }
        if !self.dry_run.is_empty() {
            options["dryRun"] = serde_json::json!(self.dry_run);
        }
        options
    }

    /// Reads the options of a request: those of the body, if there is one, else those of the query.
    ///
    /// # Errors
    /// 400 for a body that can't be read, 422 for options that contradict each other.
    pub fn parse(body: &[u8], media: Media, query: &Query) -> Result<Self, Status> {
        let mut options = if body.iter().all(u8::is_ascii_whitespace) {
            Self {
                grace_period_seconds: query.grace_period,
                orphan_dependents: query.orphan_dependents,
                propagation_policy: match query.propagation_policy.as_str() {
                    "" => None,
                    "Orphan" => Some(Propagation::Orphan),
                    "Background" => Some(Propagation::Background),
                    "Foreground" => Some(Propagation::Foreground),
                    other => return Err(unsupported_policy(other)),
                },
                ..Self::default()
            }
        } else {
            let value = decode_type(body, media, "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")?;
            serde_json::from_value(value).map_err(|error| Status::bad_request(error.to_string()))?
        };
        if query.dry_run {
            options.dry_run = vec!["All".to_owned()];
        }
        if options.dry_run.iter().any(|value| value != "All") {
            return Err(Status::bad_request(format!(
                "dryRun: Unsupported value: {:?}: supported values: \"All\"",
                options.dry_run
            )));
        }
        if options.orphan_dependents.is_some() && options.propagation_policy.is_some() {
            return Err(Status::bad_request(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        Ok(options)
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }
}

fn unsupported_policy(given: &str) -> Status {
    Status::bad_request(format!(
        "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"{given}\": supported values: \"Foreground\", \"Background\", \"Orphan\""
    ))
}
