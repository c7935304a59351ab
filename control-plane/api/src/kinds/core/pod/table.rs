//! The row of a pod in `kubectl get pods`: upstream's `printPod`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::is_sidecar;
use crate::kinds::age::{age, human_duration};
use crate::kinds::tree::{flag, integer, items, text};

/// One cell for each column of the kind.
pub(super) fn row(pod: &Value, now: i64) -> Vec<Value> {
    let summary = Summary::of(pod);
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(now.saturating_sub(last)))
        }
        _ => summary.restarts.to_string(),
    };
    vec![
        text(&pod["metadata"]["name"]).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod["metadata"]["creationTimestamp"].as_str(), now).into(),
        or_none(&status["podIPs"][0]["ip"]),
        or_none(&spec["nodeName"]),
        or_none(&status["nominatedNodeName"]),
        readiness_gates(pod).into(),
    ]
}

/// What the containers of a pod say together.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    /// Seconds since the epoch.
    last_restart: Option<i64>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let mut summary = Self {
            ready: 0,
            total: items(&pod["spec"]["containers"]).len(),
            reason: initial_reason(status),
            restarts: 0,
            last_restart: None,
        };
        let initializing = summary.count_init_containers(pod);
        if !initializing || condition(status, "Initialized") == Some("True") {
            summary.count_containers(status);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if status["reason"] == "NodeLost" {
                summary.reason = "Unknown".into();
            } else if !matches!(text(&status["phase"]), "Failed" | "Succeeded") {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    /// Returns whether the pod is still initializing. Restarts of plain init containers count only until then.
    fn count_init_containers(&mut self, pod: &Value) -> bool {
        let specs = items(&pod["spec"]["initContainers"]);
        let sidecars: BTreeMap<&str, bool> = specs.iter().map(|c| (text(&c["name"]), is_sidecar(c))).collect();
        self.total += sidecars.values().filter(|sidecar| **sidecar).count();
        let mut sidecar_restarts = 0;
        let mut last_sidecar_restart = None;
        for (index, container) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
            let sidecar = sidecars.get(text(&container["name"])).copied().unwrap_or(false);
            let finished = last_finish(container);
            self.restarts += integer(&container["restartCount"]);
            self.last_restart = self.last_restart.max(finished);
            if sidecar {
                sidecar_restarts += integer(&container["restartCount"]);
                last_sidecar_restart = last_sidecar_restart.max(finished);
            }
            let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
            if terminated.is_object() && integer(&terminated["exitCode"]) == 0 {
                continue;
            }
            if sidecar && flag(&container["started"]) {
                self.ready += usize::from(flag(&container["ready"]));
                continue;
            }
            self.reason = if terminated.is_object() {
                format!("Init:{}", end_reason(terminated))
            } else if !matches!(text(&waiting["reason"]), "" | "PodInitializing") {
                format!("Init:{}", text(&waiting["reason"]))
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            if condition(&pod["status"], "Initialized") == Some("True") {
                self.restarts = sidecar_restarts;
                self.last_restart = last_sidecar_restart;
            }
            return true;
        }
        self.restarts = sidecar_restarts;
        self.last_restart = last_sidecar_restart;
        false
    }

    fn count_containers(&mut self, status: &Value) {
        let mut running = false;
        let mut failure = None;
        for container in items(&status["containerStatuses"]).iter().rev() {
            self.restarts += integer(&container["restartCount"]);
            self.last_restart = self.last_restart.max(last_finish(container));
            let state = &container["state"];
            let terminated = &state["terminated"];
            if !text(&state["waiting"]["reason"]).is_empty() {
                self.reason = text(&state["waiting"]["reason"]).to_owned();
            } else if terminated.is_object() {
                self.reason = end_reason(terminated);
                if integer(&terminated["exitCode"]) != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if flag(&container["ready"]) && state["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        // One container that is done does not make the pod done.
        if self.reason == "Completed" {
            if running && condition(status, "Ready") == Some("True") {
                self.reason = "Running".into();
            } else if let Some(failure) = failure {
                self.reason = failure;
            } else if running {
                self.reason = "NotReady".into();
            }
        }
    }
}

fn initial_reason(status: &Value) -> String {
    let gated = items(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    match text(&status["reason"]) {
        _ if gated => "SchedulingGated",
        "" => text(&status["phase"]),
        reason => reason,
    }
    .to_owned()
}

fn end_reason(terminated: &Value) -> String {
    match (text(&terminated["reason"]), integer(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", integer(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn last_finish(container: &Value) -> Option<i64> {
    let finished = container["lastState"]["terminated"]["finishedAt"].as_str()?;
    finished.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    items(&status["conditions"]).iter().find(|condition| condition["type"] == kind).map(|c| text(&c["status"]))
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| condition(&pod["status"], text(&gate["conditionType"])) == Some("True"));
    format!("{}/{}", open.count(), gates.len())
}

fn or_none(value: &Value) -> Value {
    match text(value) {
        "" => "<none>".into(),
        text => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn cells(pod: Value) -> Vec<String> {
        row(&pod, NOW)[1..4].iter().map(|cell| cell.as_str().unwrap().to_owned()).collect()
    }

    fn pod(status: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}, {"name": "d"}]}, "status": status})
    }

    fn with_init(init: Value, status: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}], "initContainers": init}, "status": status})
    }

    #[test]
    fn the_status_says_what_the_containers_do() {
        let running = json!({"ready": true, "state": {"running": {}}});
        let done = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let failed = json!({"state": {"terminated": {"exitCode": 3, "reason": "Error"}}});
        let table = [
            (json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
            (json!({"phase": "Failed", "reason": "Evicted"}), ["0/2", "Evicted", "0"]),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                ["0/2", "SchedulingGated", "0"],
            ),
            (json!({"phase": "Running", "containerStatuses": [running, running]}), ["2/2", "Running", "0"]),
            (
                json!({"phase": "Running", "containerStatuses": [
                    running,
                    {"restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"finishedAt": "1970-01-12T13:41:40Z"}}},
                ]}),
                ["1/2", "CrashLoopBackOff", "4 (5m ago)"],
            ),
            (json!({"phase": "Succeeded", "containerStatuses": [done, done]}), ["0/2", "Completed", "0"]),
            (json!({"phase": "Failed", "containerStatuses": [done, failed]}), ["0/2", "Error", "0"]),
            (json!({"phase": "Running", "containerStatuses": [done, running]}), ["1/2", "NotReady", "0"]),
            (
                json!({"phase": "Running", "containerStatuses": [done, running], "conditions": [{"type": "Ready", "status": "True"}]}),
                ["1/2", "Running", "0"],
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
                ["0/2", "Signal:9", "0"],
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
                ["0/2", "ExitCode:2", "0"],
            ),
        ];
        for (status, expected) in table {
            assert_eq!(cells(pod(status.clone())), expected, "{status}");
        }
    }

    #[test]
    fn init_containers_are_counted_until_they_are_done() {
        let two = json!([{"name": "i"}, {"name": "j"}]);
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        let table = [
            (
                json!({"initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                "Init:0/2",
            ),
            (json!({"initContainerStatuses": [done, {"name": "j", "state": {"running": {}}}]}), "Init:1/2"),
            (
                json!({"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
                "Init:Error",
            ),
            (
                json!({"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1}}}]}),
                "Init:ExitCode:1",
            ),
            (
                json!({"initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                "Init:ImagePullBackOff",
            ),
        ];
        for (status, expected) in table {
            assert_eq!(cells(with_init(two.clone(), status.clone()))[1], expected, "{status}");
        }
    }

    #[test]
    fn a_sidecar_counts_as_a_container() {
        let init = json!([{"name": "s", "restartPolicy": "Always"}]);
        let status = json!({"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]});
        assert_eq!(cells(with_init(init, status)), ["2/2", "Running", "1"]);
    }

    #[test]
    fn a_pod_that_goes_away_says_so() {
        let mut going = pod(json!({"phase": "Running"}));
        going["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        assert_eq!(cells(going.clone())[1], "Terminating");
        going["status"]["reason"] = json!("NodeLost");
        assert_eq!(cells(going.clone())[1], "Unknown");
        going["status"] = json!({"phase": "Succeeded"});
        assert_eq!(cells(going)[1], "Succeeded");
    }

    #[test]
    fn wide_columns_show_where_it_runs() {
        let mut placed =
            pod(json!({"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "a.b/c", "status": "True"}]}));
        placed["spec"]["nodeName"] = json!("n");
        placed["spec"]["readinessGates"] = json!([{"conditionType": "a.b/c"}, {"conditionType": "a.b/d"}]);
        placed["metadata"]["creationTimestamp"] = json!("1970-01-12T13:46:30Z");
        assert_eq!(
            row(&placed, NOW)[4..],
            [json!("10s"), json!("10.0.0.1"), json!("n"), json!("<none>"), json!("1/2")]
        );
    }
}
