//! Whether a pod may stay on a node with its taints, and until when. Pure.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

const NO_EXECUTE: &str = "NoExecute";

/// How long a pod tolerates all taints that drive it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// For ever, or there are none.
    Forever,
    /// For that time; none at all is zero.
    For(Duration),
}

/// What to do with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It may stay; what was planned for it is off.
    Stay,
    /// It goes at that time.
    EvictAt(Instant),
}

/// The taints of a node that drive pods away.
pub(super) fn no_execute_taints(node: &Node) -> Vec<Taint> {
    let all = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    all.filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

/// How long `tolerations` bear `taints` (`GetMatchingTolerations`, `getMinTolerationTime`): for each taint the first that
/// matches counts, and of those the shortest time.
pub(super) fn tolerance(taints: &[Taint], tolerations: &[Toleration]) -> Tolerance {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Tolerance::For(Duration::ZERO);
        };
        if let Some(seconds) = toleration.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)));
        }
    }
    match shortest {
        // A time before now is now.
        Some(seconds) => Tolerance::For(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
        None => Tolerance::Forever,
    }
}

/// What to do with a pod whose end was `planned` before, or not. An end that is planned is never put off: the time began when
/// the pod was first seen beside the taint, and what changes in between doesn't begin it anew.
pub(super) fn decide(tolerance: Tolerance, planned: Option<Instant>, now: Instant) -> Decision {
    match tolerance {
        Tolerance::Forever => Decision::Stay,
        Tolerance::For(time) => {
            // A time beyond what the clock counts is for ever.
            let Some(at) = now.checked_add(time) else { return Decision::Stay };
            Decision::EvictAt(planned.map_or(at, |planned| planned.min(at)))
        }
    }
}

/// `Toleration.ToleratesTaint`, without the comparison operators, which are off by default.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let unset_or = |own: Option<&String>, other: &str| own.is_none_or(|own| own.is_empty() || own == other);
    let value = |value: Option<&String>| value.cloned().unwrap_or_default();
    unset_or(toleration.effect.as_ref(), &taint.effect)
        && unset_or(toleration.key.as_ref(), &taint.key)
        && match toleration.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => value(toleration.value.as_ref()) == value(taint.value.as_ref()),
            "Exists" => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn taint(key: &str, value: &str) -> Taint {
        Taint { key: key.to_owned(), value: Some(value.to_owned()), effect: NO_EXECUTE.to_owned(), time_added: None }
    }

    fn tolerations(value: serde_json::Value) -> Vec<Toleration> {
        serde_json::from_value(value).expect("tolerations")
    }

    fn seconds(seconds: u64) -> Tolerance {
        Tolerance::For(Duration::from_secs(seconds))
    }

    #[test]
    fn the_shortest_toleration_of_all_taints_counts_and_one_that_is_missing_is_none() {
        let (one, two) = (taint("a", "x"), taint("b", ""));
        let table = [
            (vec![], json!([]), Tolerance::Forever),
            (vec![one.clone()], json!([]), seconds(0)),
            (vec![one.clone()], json!([{"operator": "Exists"}]), Tolerance::Forever),
            (vec![one.clone()], json!([{"key": "a", "value": "x", "tolerationSeconds": 7}]), seconds(7)),
            (vec![one.clone()], json!([{"key": "a", "value": "y"}]), seconds(0)),
            (vec![one.clone()], json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]), seconds(0)),
            (vec![one.clone()], json!([{"key": "a", "operator": "Gt", "value": "1"}]), seconds(0)),
            (vec![one.clone()], json!([{"operator": "Exists", "tolerationSeconds": -5}]), seconds(0)),
            (
                vec![one.clone(), two.clone()],
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 30}, {"key": "b", "operator": "Exists"}]),
                seconds(30),
            ),
            (vec![one, two], json!([{"key": "a", "operator": "Exists"}]), seconds(0)),
        ];
        for (taints, given, expected) in table {
            assert_eq!(tolerance(&taints, &tolerations(given.clone())), expected, "{taints:?} {given}");
        }
    }

    #[test]
    fn a_planned_end_comes_no_later_than_planned_and_is_off_when_the_taint_is() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        assert_eq!(decide(seconds(0), None, now), Decision::EvictAt(now));
        assert_eq!(decide(seconds(300), None, now), Decision::EvictAt(at(300)));
        assert_eq!(decide(seconds(300), Some(at(100)), now), Decision::EvictAt(at(100)));
        assert_eq!(decide(seconds(10), Some(at(100)), now), Decision::EvictAt(at(10)));
        assert_eq!(decide(Tolerance::Forever, Some(at(100)), now), Decision::Stay);
        assert_eq!(decide(Tolerance::For(Duration::MAX), None, now), Decision::Stay);
    }

    #[test]
    fn only_taints_that_drive_pods_away_count() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]},
        }))
        .expect("a node");
        let keys: Vec<_> = no_execute_taints(&node).into_iter().map(|taint| taint.key).collect();
        assert_eq!(keys, ["b"]);
    }
}
