//! `autoscaling/v1`: an autoscaler by CPU alone. What v2 has beyond that stands in annotations, so that a v1 client that writes back what it
//! read loses nothing (upstream's pkg/apis/autoscaling/v1/conversion.go).

use serde_json::{Value, json};

use super::v2;
use crate::field::ErrorList;
use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Conversion, Kind, Strategy};
use crate::kinds::tree::{fill, items, length, map_mut, remove};
use crate::kinds::{Subresource, WriteContext, names};

/// `autoscaling/v1 HorizontalPodAutoscaler`
#[must_use]
pub fn horizontal_pod_autoscaler() -> Kind {
    Kind {
        short_names: names(&["hpa"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: v2::columns(),
        conversion: Some(Conversion {
            stored_as: ("autoscaling", "horizontalpodautoscalers"),
            stored_type: ("autoscaling/v2", "HorizontalPodAutoscaler"),
            to_storage,
            from_storage,
        }),
        ..Kind::new(
            GroupVersion::new("autoscaling", "v1"),
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
            Autoscaler,
        )
    }
}

/// The annotations, and the parts of a v2 object that they keep.
const KEPT: [(&str, &str, &str); 4] = [
    ("autoscaling.alpha.kubernetes.io/metrics", "spec", "metrics"),
    ("autoscaling.alpha.kubernetes.io/behavior", "spec", "behavior"),
    ("autoscaling.alpha.kubernetes.io/current-metrics", "status", "currentMetrics"),
    ("autoscaling.alpha.kubernetes.io/conditions", "status", "conditions"),
];

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn from_storage(object: &mut Value) {
    let cpu = |list: &Value, target: &str| -> Value {
        let found = items(list)
            .iter()
            .find(|m| is_cpu_utilization(m) && !m["resource"][target]["averageUtilization"].is_null());
        found.map_or(Value::Null, |metric| metric["resource"][target]["averageUtilization"].clone())
    };
    let target = cpu(&object["spec"]["metrics"], "target");
    let current = cpu(&object["status"]["currentMetrics"], "current");
    if object["spec"]["metrics"].is_array() {
        let others: Vec<Value> = items(&object["spec"]["metrics"])
            .iter()
            .filter(|m| !is_cpu_utilization(m) || m["resource"]["target"]["averageUtilization"].is_null())
            .cloned()
            .collect();
        object["spec"]["metrics"] = others.into();
    }
    for (annotation, part, field) in KEPT {
        let kept = object[part][field].clone();
        if length(&kept) > 0 {
            let annotations = map_mut(&mut object["metadata"]["annotations"]);
            annotations.insert(annotation.to_owned(), kept.to_string().into());
        }
        remove(&mut object[part], field);
    }
    for (part, field, value) in
        [("spec", "targetCPUUtilizationPercentage", target), ("status", "currentCPUUtilizationPercentage", current)]
    {
        if !value.is_null() {
            object[part][field] = value;
        }
    }
}

fn to_storage(object: &mut Value) {
    for (annotation, part, field) in KEPT {
        let kept = object["metadata"]["annotations"].get(annotation).and_then(Value::as_str);
        // What can't be read is of no use, as for upstream.
        let kept = kept.and_then(|kept| serde_json::from_str::<Value>(kept).ok());
        remove(&mut object["metadata"]["annotations"], annotation);
        if let Some(kept) = kept {
            object[part][field] = kept;
        }
    }
    if object["metadata"]["annotations"].is_null() || length(&object["metadata"]["annotations"]) == 0 {
        remove(&mut object["metadata"], "annotations");
    }
    let target = object["spec"]["targetCPUUtilizationPercentage"].clone();
    remove(&mut object["spec"], "targetCPUUtilizationPercentage");
    remove(&mut object["status"], "currentCPUUtilizationPercentage");
    let mut metrics = items(&object["spec"]["metrics"]).to_vec();
    if !target.is_null() {
        metrics.insert(
            0,
            json!({ "type": "Resource", "resource": {
                "name": "cpu", "target": { "type": "Utilization", "averageUtilization": target },
            }}),
        );
    }
    if !metrics.is_empty() {
        object["spec"]["metrics"] = metrics.into();
    }
    let declaration = v2::horizontal_pod_autoscaler();
    declaration.strategy.default(object);
}

fn stored(object: &Value) -> Value {
    let mut stored = object.clone();
    to_storage(&mut stored);
    stored
}

struct Autoscaler;

impl Strategy for Autoscaler {
    fn default(&self, object: &mut Value) {
        fill(&mut object["spec"], "minReplicas", 1);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({ "currentReplicas": 0, "desiredReplicas": 0 });
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        v2::horizontal_pod_autoscaler().strategy.validate_create(&stored(object))
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        v2::horizontal_pod_autoscaler().strategy.validate_status_update(object, old)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        v2::horizontal_pod_autoscaler().strategy.row(&stored(object), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_v2_is_lost_on_the_way_through_v1() {
        let mut original = json!({"metadata": {"name": "h"}, "spec": {
            "maxReplicas": 5, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
        }, "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        v2::horizontal_pod_autoscaler().strategy.default(&mut original);
        let mut seen = original.clone();
        from_storage(&mut seen);
        assert_eq!(seen["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(seen["spec"]["metrics"].is_null());
        to_storage(&mut seen);
        assert_eq!(seen, original);
    }
}
