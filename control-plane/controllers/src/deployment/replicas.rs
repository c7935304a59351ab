//! Numbers of a rollout: surge, unavailability, proportions. Follows `deployment_util.go`.

use std::cmp::Ordering;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// `deployment.kubernetes.io/desired-replicas`: the Deployment's size when the ReplicaSet was last scaled.
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// `deployment.kubernetes.io/max-replicas`: that size and the surge.
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// The replicas that a Deployment asks for.
#[must_use]
pub(crate) fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// The replicas that a ReplicaSet asks for.
#[must_use]
pub(crate) fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The replicas of a ReplicaSet that are available.
#[must_use]
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// Whether the strategy is `Recreate`; everything else is a rolling update.
#[must_use]
pub(crate) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many pods may be there above the desired number.
#[must_use]
pub(crate) fn max_surge(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) { 0 } else { fenceposts(deployment).0 }
}

/// How many of the desired pods may be unavailable.
#[must_use]
pub(crate) fn max_unavailable(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) || desired(deployment) == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(desired(deployment))
}

/// Surge rounds up and unavailability down; if both come to 0, one pod may be unavailable, or nothing would ever move.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = desired(deployment);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, |value| scaled(value, total, true));
    let unavailable =
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).map_or(0, |value| scaled(value, total, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A number, or a percentage of `total` (`GetScaledValueFromIntOrPercent`). What validation lets not pass counts as 0.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(0).max(0);
            let product = percent.saturating_mul(i64::from(total));
            let rounded = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// The size that the new ReplicaSet may have now, given the sum of all sizes (`NewRSNewReplicas`).
#[must_use]
pub(crate) fn new_set_size(deployment: &Deployment, total: i32, current: i32) -> i32 {
    let desired = desired(deployment);
    if is_recreate(deployment) {
        return desired;
    }
    let limit = desired.saturating_add(max_surge(deployment));
    if total >= limit {
        return current;
    }
    current + (limit - total).min(desired - current)
}

/// The change of one ReplicaSet's size when `to_add` of all are to be added (or, if negative, removed), and `added` are
/// already (`GetReplicaSetProportion`).
#[must_use]
pub(crate) fn proportion(set: &ReplicaSet, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let allowed = to_add - added;
    if to_add > 0 { fraction(set, deployment).min(allowed) } else { fraction(set, deployment).max(allowed) }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i32 {
    if desired(deployment) == 0 {
        return -size(set);
    }
    let maximum = desired(deployment).saturating_add(max_surge(deployment));
    let before = annotation(set, MAX_REPLICAS).filter(|before| *before != 0);
    let before = before.or_else(|| deployment.status.as_ref()?.replicas).unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let scaled = f64::from(size(set)) * f64::from(maximum) / f64::from(before);
    // A ratio of two i32 times an i32 that is not larger than either maximum: within i32, and the cast saturates.
    #[allow(clippy::cast_possible_truncation)]
    let rounded = scaled.round() as i32;
    rounded - size(set)
}

/// A number that this controller keeps in an annotation.
#[must_use]
pub(crate) fn annotation(set: &ReplicaSet, key: &str) -> Option<i32> {
    let text = set.metadata.annotations.as_ref()?.get(key)?;
    text.parse().ok().filter(|number| *number >= 0)
}

/// Older first, then by name.
#[must_use]
pub(crate) fn by_creation(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    created(a).cmp(&created(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        }}))
        .expect("a deployment")
    }

    #[test]
    fn surge_rounds_up_unavailability_down_and_one_of_them_is_never_zero() {
        for (replicas, surge, unavailable, expected) in
            [(10, "25%", "25%", (3, 2)), (1, "25%", "25%", (1, 0)), (2, "0%", "1%", (0, 1)), (0, "25%", "25%", (0, 0))]
        {
            let deployment = deployment(replicas, surge, unavailable);
            assert_eq!(
                (max_surge(&deployment), max_unavailable(&deployment)),
                expected,
                "{replicas} {surge} {unavailable}"
            );
        }
    }

    #[test]
    fn the_new_set_grows_as_far_as_the_surge_lets_it() {
        let deployment = deployment(10, "30%", "20%");
        assert_eq!(new_set_size(&deployment, 10, 0), 3);
        assert_eq!(new_set_size(&deployment, 13, 3), 3);
        assert_eq!(new_set_size(&deployment, 5, 5), 10);
    }
}
