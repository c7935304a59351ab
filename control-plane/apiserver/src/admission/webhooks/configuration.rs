//! A webhook as it is configured, read once for each version of its configuration.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use skep_api::cel::admission::{Inputs, Scope};
use skep_api::cel::{self, Expected, Expression};

use super::review::Version;
use crate::admission::dynamic::Criteria;
use crate::webhook_client::ClientConfig;

/// A webhook.
pub(crate) struct Hook {
    /// Unique among all webhooks, and the same over changes of its configuration: configuration, name, and which of that name it is.
    pub(crate) id: String,
    /// The name of its configuration.
    pub(crate) configuration: String,
    /// Its name.
    pub(crate) name: String,
    /// Which requests it is for.
    pub(crate) criteria: Criteria,
    /// Conditions that hold for requests that it is for.
    pub(super) conditions: Vec<Condition>,
    /// Where it is.
    pub(super) client: Result<ClientConfig, String>,
    /// The version of AdmissionReview that it takes.
    pub(super) version: Option<Version>,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// Whether a request goes on without it when it can't be asked.
    pub(super) fails_open: bool,
    /// Whether it may be asked in dry runs.
    pub(super) takes_dry_runs: bool,
    /// Whether it is asked again after others have changed the object.
    pub(super) reinvoked: bool,
}

/// A match condition.
pub(super) struct Condition {
    expression: Result<Expression, String>,
}

/// The webhooks of a configuration, in order.
pub(super) fn hooks(name: &str, configuration: &Value, mutating: bool) -> Vec<Arc<Hook>> {
    let webhooks = configuration["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    let mut hooks: Vec<Arc<Hook>> = Vec::with_capacity(webhooks.len());
    for webhook in webhooks {
        let own = webhook["name"].as_str().unwrap_or_default();
        let same = hooks.iter().filter(|hook| hook.name == own).count();
        hooks.push(Arc::new(Hook {
            id: format!("{name}/{own}/{same}"),
            configuration: name.to_owned(),
            name: own.to_owned(),
            criteria: Criteria::from_value(webhook, "rules"),
            conditions: conditions(&webhook["matchConditions"]),
            client: ClientConfig::from_value(&webhook["clientConfig"]),
            version: Version::choose(&webhook["admissionReviewVersions"]),
            timeout: Duration::from_secs(webhook["timeoutSeconds"].as_u64().unwrap_or(10)),
            fails_open: webhook["failurePolicy"] == "Ignore",
            takes_dry_runs: matches!(webhook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            reinvoked: mutating && webhook["reinvocationPolicy"] == "IfNeeded",
        }));
    }
    hooks
}

fn conditions(conditions: &Value) -> Vec<Condition> {
    let scope = Scope { params: false, authorizer: true, variables: &[] };
    let compile = |condition: &Value| Condition {
        expression: scope
            .compile(condition["expression"].as_str().unwrap_or_default().trim(), Expected::Bool)
            .map_err(|error| format!("compilation error: {error}")),
    };
    conditions.as_array().into_iter().flatten().map(compile).collect()
}

impl Hook {
    /// Whether all conditions hold. One that does not decides it, whatever others fail.
    ///
    /// # Errors
    /// What went wrong, when none is false.
    pub(super) fn judge(&self, inputs: &Inputs) -> Result<bool, String> {
        let composed = inputs.with_variables([]);
        let mut errors = Vec::new();
        for condition in &self.conditions {
            let value = match &condition.expression {
                Ok(expression) => composed.evaluate(expression).map_err(|error| error.0),
                Err(error) => Err(error.clone()),
            };
            match value {
                Ok(cel::Value::Bool(true)) => {}
                Ok(cel::Value::Bool(false)) => return Ok(false),
                Ok(_) => errors.push("a match condition must evaluate to bool".to_owned()),
                Err(error) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [error] => Err(error.clone()),
            errors => Err(format!("[{}]", errors.join(", "))),
        }
    }
}
