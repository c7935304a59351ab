//! A Job's policies: what a failed pod means (`podFailurePolicy`), and when enough indexes have succeeded (`successPolicy`).
//!
//! Follows `pod_failure_policy.go` and `success_policy.go`.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, SuccessPolicy,
};
use skep_client::slim::{SlimContainerState, SlimContainerStatus, SlimPod};

use super::indexes::Indexes;

/// What a policy says of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No rule matches, or one that counts it: it counts towards the back-off limit.
    Count,
    /// It doesn't count.
    Ignore,
    /// Its index fails at once.
    FailIndex,
    /// The whole Job fails, with this message.
    FailJob(String),
}

/// The verdict of the first rule that matches.
pub(super) fn verdict(policy: Option<&PodFailurePolicy>, pod: &SlimPod) -> Verdict {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for (index, rule) in policy.iter().flat_map(|policy| &policy.rules).enumerate() {
        let action = rule.action.as_str();
        let cause = if let Some(codes) = &rule.on_exit_codes {
            matching_container(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {namespace}/{name} failed with exit code {code} matching {action} rule at index {index}")
            })
        } else {
            matching_condition(pod, rule.on_pod_conditions.as_deref().unwrap_or_default()).map(|condition| {
                format!("Pod {namespace}/{name} has condition {condition} matching {action} rule at index {index}")
            })
        };
        let Some(cause) = cause else { continue };
        match action {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "Count" => return Verdict::Count,
            "FailJob" => return Verdict::FailJob(cause),
            _ => {}
        }
    }
    Verdict::Count
}

/// The first container that ended with a code of the rule: its name and the code.
fn matching_container<'a>(pod: &'a SlimPod, rule: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    let matches = |status: &'a SlimContainerStatus| {
        let SlimContainerState::Terminated { exit_code, .. } = status.state else { return None };
        let named = rule.container_name.as_deref().is_none_or(|name| name == &*status.name);
        let listed = match rule.operator.as_str() {
            "In" => rule.values.contains(&exit_code),
            "NotIn" => !rule.values.contains(&exit_code),
            _ => false,
        };
        (named && exit_code != 0 && listed).then_some((&*status.name, exit_code))
    };
    pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).find_map(matches)
}

fn matching_condition<'a>(pod: &'a SlimPod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a str> {
    let matches = |condition: &&skep_client::slim::SlimCondition| {
        patterns.iter().any(|pattern| {
            *pattern.type_ == *condition.r#type && pattern.status.as_deref().unwrap_or("True") == &*condition.status
        })
    };
    pod.status.conditions.iter().find(matches).map(|condition| &*condition.r#type)
}

/// The message of the first rule that the succeeded indexes fulfil.
pub(super) fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    if succeeded.len() == 0 {
        return None;
    }
    let fulfilled = |rule: &k8s_openapi::api::batch::v1::SuccessPolicyRule| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Indexes::parse(text, completions);
            let overlap = required.overlap(succeeded);
            required.len() > 0
                && (overlap == required.len() || rule.succeeded_count.is_some_and(|count| overlap >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.len() >= count),
    };
    let index = policy?.rules.iter().position(fulfilled)?;
    Some(format!("Matched rules at index {index}"))
}
