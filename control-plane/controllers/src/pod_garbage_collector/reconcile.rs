//! Which pods are left over, and why. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use skep_client::slim::SlimPod;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Time for a node that pods name to show up in the informer.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It has ended, and too many have.
    Terminated,
    /// It is being deleted on a node that is out of service.
    OutOfService,
    /// Its node is gone.
    Orphaned,
    /// It is being deleted and was never bound.
    Unscheduled,
}

/// The pods to remove, each with its first cause. `gone` are nodes that don't exist, `out_of_service` those that say so.
pub(super) fn sweep(
    pods: &[Arc<SlimPod>],
    out_of_service: &HashSet<String>,
    gone: &HashSet<Box<str>>,
    threshold: usize,
) -> Vec<(Arc<SlimPod>, Cause)> {
    let surplus = surplus(pods, threshold);
    let cause = |pod: &SlimPod| {
        let node = pod.spec.node_name.as_deref().filter(|node| !node.is_empty());
        if is_done_with(pod) {
            None
        } else if surplus.contains(&pod.metadata.uid) {
            Some(Cause::Terminated)
        } else if pod.is_terminating() && node.is_some_and(|node| out_of_service.contains(node)) {
            Some(Cause::OutOfService)
        } else if node.is_some_and(|node| gone.contains(node)) {
            Some(Cause::Orphaned)
        } else if pod.is_terminating() && node.is_none() {
            Some(Cause::Unscheduled)
        } else {
            None
        }
    };
    pods.iter().filter_map(|pod| cause(pod).map(|cause| (Arc::clone(pod), cause))).collect()
}

/// Whether all was done that is done to a pod here, and only its finalizers hold it.
fn is_done_with(pod: &SlimPod) -> bool {
    pod.is_terminal() && pod.is_terminating() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Whether a pod that is being deleted on that node has nobody to end it (KEP-2268).
pub(super) fn is_out_of_service(node: &Node) -> bool {
    let tainted =
        node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == OUT_OF_SERVICE);
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    tainted && !conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The uids of the ended pods beyond the threshold: evicted ones first, then the oldest.
fn surplus(pods: &[Arc<SlimPod>], threshold: usize) -> HashSet<Option<String>> {
    // An empty phase counts as ended too at upstream, but no pod of this API server has it.
    let mut ended: Vec<&Arc<SlimPod>> = pods.iter().filter(|pod| pod.is_terminal()).collect();
    if threshold == 0 || ended.len() <= threshold {
        return HashSet::new();
    }
    let evicted = |pod: &SlimPod| &*pod.status.phase == "Failed" && pod.status.reason.as_deref() == Some("Evicted");
    let count = ended.len() - threshold;
    ended.sort_by_cached_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!evicted(pod), created, pod.metadata.name.clone())
    });
    ended.into_iter().take(count).map(|pod| pod.metadata.uid.clone()).collect()
}

/// The nodes that pods name and that are not known, with the time since when.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    since: HashMap<Box<str>, Instant>,
}

impl Quarantine {
    /// Takes in which nodes are unknown now; the answer are those that were for the whole time of quarantine.
    pub(super) fn observe(&mut self, unknown: HashSet<Box<str>>, now: Instant) -> Vec<Box<str>> {
        self.since.retain(|node, _| unknown.contains(node));
        for node in unknown {
            self.since.entry(node).or_insert(now);
        }
        let over = |since: &Instant| now.saturating_duration_since(*since) >= QUARANTINE;
        self.since.iter().filter(|(_, since)| over(since)).map(|(node, _)| node.clone()).collect()
    }

    /// How long until a node's quarantine ends.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let left = |since: &Instant| QUARANTINE.saturating_sub(now.saturating_duration_since(*since));
        self.since.values().map(left).filter(|left| !left.is_zero()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, phase: &str, node: Option<&str>, deleting: bool, created: &str) -> Arc<SlimPod> {
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        let pod = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "deletionTimestamp": deleted,
                         "creationTimestamp": format!("2026-01-01T00:00:{created}Z")},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "reason": name.starts_with("evicted").then_some("Evicted")},
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn removed(pods: &[Arc<SlimPod>], threshold: usize) -> Vec<(String, Cause)> {
        let (out, gone) = (HashSet::from(["out".to_owned()]), HashSet::from(["gone".into()]));
        let removed = sweep(pods, &out, &gone, threshold);
        removed.into_iter().map(|(pod, cause)| (pod.metadata.name.clone().unwrap_or_default(), cause)).collect()
    }

    #[test]
    fn a_pod_is_left_over_when_its_node_is_gone_or_nobody_ends_it() {
        let table = [
            (Some("there"), false, None),
            (Some("there"), true, None),
            (Some("gone"), false, Some(Cause::Orphaned)),
            (Some("gone"), true, Some(Cause::Orphaned)),
            (Some("out"), false, None),
            (Some("out"), true, Some(Cause::OutOfService)),
            (None, false, None),
            (None, true, Some(Cause::Unscheduled)),
        ];
        for (node, deleting, cause) in table {
            let expected: Vec<_> = cause.map(|cause| ("p".to_owned(), cause)).into_iter().collect();
            assert_eq!(removed(&[pod("p", "Running", node, deleting, "00")], 9), expected, "{node:?} {deleting}");
        }
    }

    #[test]
    fn a_pod_that_only_its_finalizers_hold_is_let_be() {
        let mut orphan = Arc::unwrap_or_clone(pod("p", "Failed", Some("gone"), true, "00"));
        for (grace, removals) in [(None, 1), (Some(30), 1), (Some(0), 0)] {
            orphan.metadata.deletion_grace_period_seconds = grace;
            assert_eq!(removed(&[Arc::new(orphan.clone())], 9).len(), removals, "{grace:?}");
        }
    }

    #[test]
    fn of_too_many_ended_pods_the_evicted_go_first_and_then_the_oldest() {
        let pods = [
            pod("young", "Succeeded", Some("there"), false, "09"),
            pod("old", "Failed", Some("there"), false, "01"),
            pod("evicted", "Failed", Some("there"), false, "05"),
            pod("running", "Running", Some("there"), false, "00"),
        ];
        let names = |threshold| removed(&pods, threshold).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(3), [""; 0]);
        assert_eq!(names(2), ["evicted"]);
        assert_eq!(names(1), ["old", "evicted"]);
        assert_eq!(names(0), [""; 0], "0 keeps all");
    }

    #[test]
    fn a_node_is_gone_after_its_quarantine_and_not_if_it_came_back_meanwhile() {
        let (start, unknown) = (Instant::now(), || HashSet::from([Box::from("n")]));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut quarantine = Quarantine::default();
        assert!(quarantine.observe(unknown(), at(0)).is_empty());
        assert_eq!(quarantine.next(at(10)), Some(Duration::from_secs(30)));
        assert!(quarantine.observe(HashSet::new(), at(20)).is_empty());
        assert!(quarantine.observe(unknown(), at(30)).is_empty());
        assert!(quarantine.observe(unknown(), at(60)).is_empty());
        assert_eq!(quarantine.observe(unknown(), at(70)), [Box::from("n")]);
    }

    #[test]
    fn a_node_is_out_of_service_by_its_taint_and_only_while_it_is_not_ready() {
        for (key, ready, expected) in
            [(OUT_OF_SERVICE, "False", true), (OUT_OF_SERVICE, "True", false), ("other", "False", false)]
        {
            let node = json!({
                "metadata": {"name": "n"},
                "spec": {"taints": [{"key": key, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            });
            assert_eq!(is_out_of_service(&serde_json::from_value(node).expect("a node")), expected, "{key} {ready}");
        }
    }
}
