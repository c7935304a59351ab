//! Whether a container that ended is started again (KEP-5307).

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, PodSpec};

/// Whether `container` is started again after it ended with `exit_code`: by its own rules, then by its own policy, then
/// by the pod's (upstream: `ContainerShouldRestart`). An init container that succeeded is done whatever this says.
pub fn should_restart(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    let by = |policy: &str| match policy {
        "Always" => Some(true),
        "OnFailure" => Some(exit_code != 0),
        "Never" => Some(false),
        // The API server admits no other value.
        _ => None,
    };
    let own = container.restart_policy.as_deref().and_then(|policy| {
        let rule = container.restart_policy_rules.iter().flatten().find(|rule| matches(rule, exit_code));
        match rule.map(|rule| rule.action.as_str()) {
            Some("Restart" | "RestartAllContainers") => Some(true),
            Some(_) | None => by(policy),
        }
    });
    own.or_else(|| spec.restart_policy.as_deref().and_then(by)).unwrap_or(true)
}

fn matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let listed = codes.values.iter().flatten().any(|value| *value == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })
}
