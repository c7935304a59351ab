//! `autoscaling/v2`: an autoscaler by any metrics, and how fast it may go.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::fields::{form, not_negative, one_of, path_segment, quantity_not_negative, required};
use crate::kinds::tree::{fill, integer, items, length, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::names::is_dns1123_label;
use crate::quantity::Quantity;

/// `autoscaling/v2 HorizontalPodAutoscaler`
#[must_use]
pub fn horizontal_pod_autoscaler() -> Kind {
    Kind {
        short_names: names(&["hpa"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: columns(),
        ..Kind::new(
            GroupVersion::new("autoscaling", "v2"),
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
            Autoscaler,
        )
    }
}

/// The columns of both versions.
pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::new("Reference", "string", "What is scaled."),
        Column::new("Targets", "string", "The metrics, and what they should be."),
        Column::new("MinPods", "string", "The fewest replicas."),
        Column::new("MaxPods", "string", "The most replicas."),
        Column::new("Replicas", "string", "The replicas that there are."),
        Column::age(),
    ]
}

/// A source of metrics: its type and its field.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

struct Autoscaler;

impl Strategy for Autoscaler {
    /// `SetDefaults_HorizontalPodAutoscaler`
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        fill(spec, "minReplicas", 1);
        if length(&spec["metrics"]) == 0 {
            spec["metrics"] = json!([{ "type": "Resource", "resource": {
                "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 },
            }}]);
        }
        if spec["behavior"].is_object() {
            let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
            let pods = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
            for (direction, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
                let rules = &mut spec["behavior"][direction];
                fill(rules, "selectPolicy", "Max");
                fill(rules, "policies", policies);
            }
            fill(&mut spec["behavior"]["scaleUp"], "stabilizationWindowSeconds", 0);
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({ "desiredReplicas": 0, "currentMetrics": null });
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_spec(&object["spec"], &Path::new("spec"))
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        not_negative(&object["status"], &["currentReplicas", "desiredReplicas"], &Path::new("status"))
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        vec![
            name_cell(object),
            format!("{}/{}", text(&target["kind"]), text(&target["name"])).into(),
            metrics_cell(items(&spec["metrics"]), items(&status["currentMetrics"])).into(),
            spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |count| count.to_string()).into(),
            integer(&spec["maxReplicas"]).into(),
            integer(&status["currentReplicas"]).into(),
            age_cell(object, now),
        ]
    }
}

/// `formatHPAMetrics`
fn metrics_cell(metrics: &[Value], current: &[Value]) -> String {
    const SHOWN: usize = 2;
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(index, metric)| metric_cell(metric, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    let more = metrics.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} + {more} more...", shown.join(", ")) } else { shown.join(", ") }
}

fn metric_cell(metric: &Value, current: &Value) -> String {
    let Some((type_, field)) = SOURCES.iter().find(|(type_, _)| metric["type"] == *type_) else {
        return "<unknown type>".to_owned();
    };
    let (source, now) = (&metric[*field], &current[*field]["current"]);
    let target = &source["target"];
    let known = |value: &Value| value.as_str().unwrap_or("<unknown>").to_owned();
    match (*type_, target["averageValue"].as_str()) {
        ("Resource" | "ContainerResource", average) => {
            let name = text(&source["name"]);
            let percent = |value: &Value, none: &str| {
                value.as_i64().map_or_else(|| none.to_owned(), |percent| format!("{percent}%"))
            };
            match average {
                Some(average) => format!("{name}: {}/{average}", known(&now["averageValue"])),
                None => format!(
                    "{name}: {}/{}",
                    percent(&now["averageUtilization"], "<unknown>"),
                    percent(&target["averageUtilization"], "<auto>")
                ),
            }
        }
        ("Pods", average) => format!("{}/{}", known(&now["averageValue"]), average.unwrap_or_default()),
        (_, Some(average)) => format!("{}/{average} (avg)", known(&now["averageValue"])),
        (_, None) => format!("{}/{}", known(&now["value"]), text(&target["value"])),
    }
}

/// `validateHorizontalPodAutoscalerSpec`
pub(super) fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (least, most) = (spec["minReplicas"].as_i64(), integer(&spec["maxReplicas"]));
    if let Some(least) = least.filter(|least| *least < 1) {
        let message = "must be greater than or equal to 1";
        errors.push(Error::invalid(&path.child("minReplicas"), least, message));
    }
    let at = path.child("maxReplicas");
    match most {
        0 => errors.push(Error::required(&at, "must be set and greater than 0")),
        ..0 => errors.push(Error::invalid(&at, most, "must be greater than or equal to 1")),
        _ => {}
    }
    if least.is_some_and(|least| most < least) {
        errors.push(Error::invalid(&at, most, "must be greater than or equal to `minReplicas`"));
    }
    errors.extend(validate_reference(&spec["scaleTargetRef"], &path.child("scaleTargetRef")));
    for (index, metric) in items(&spec["metrics"]).iter().enumerate() {
        errors.extend(validate_metric(metric, &path.child("metrics").index(index)));
    }
    for direction in ["scaleUp", "scaleDown"] {
        if spec["behavior"][direction].is_object() {
            let at = path.child("behavior").child(direction);
            errors.extend(validate_rules(&spec["behavior"][direction], &at));
        }
    }
    errors
}

fn validate_reference(reference: &Value, path: &Path) -> ErrorList {
    let mut errors = required(reference, "kind", path, path_segment);
    errors.extend(required(reference, "name", path, path_segment));
    errors
}

/// `validateMetricSpec`
fn validate_metric(metric: &Value, path: &Path) -> ErrorList {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let mut errors = ErrorList::new();
    let type_ = text(&metric["type"]);
    let at = path.child("type");
    if type_.is_empty() {
        errors.push(Error::required(&at, "must specify a metric source type"));
    }
    let expected = SOURCES.iter().find(|(known, _)| *known == type_).map(|(_, field)| *field);
    if expected.is_none() {
        errors.push(Error::not_supported(&at, type_, &TYPES));
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|f| !metric[*f].is_null()).collect();
    if let Some(field) = present.first() {
        errors.extend(validate_source(field, &metric[*field], &path.child(field)));
    }
    if let Some(field) = expected.filter(|field| metric[*field].is_null()) {
        let message = "must populate information for the given metric source";
        errors.push(Error::required(&path.child(field), message));
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            errors.push(Error::forbidden(&path.child(field), "must populate the given metric source only"));
        }
    }
    errors
}

fn validate_source(kind: &str, source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (target, at) = (&source["target"], path.child("target"));
    let is_resource = matches!(kind, "resource" | "containerResource");
    if kind == "object" {
        errors.extend(validate_reference(&source["describedObject"], &path.child("describedObject")));
    }
    if is_resource {
        if text(&source["name"]).is_empty() {
            errors.push(Error::required(&path.child("name"), "must specify a resource name"));
        }
        if kind == "containerResource" {
            match text(&source["container"]) {
                "" => errors.push(Error::required(&path.child("container"), "must specify a container")),
                container => errors.extend(form(container, &path.child("container"), is_dns1123_label)),
            }
        }
    } else {
        let at = path.child("metric").child("name");
        match text(&source["metric"]["name"]) {
            "" => errors.push(Error::required(&at, "must specify a metric name")),
            name => errors.extend(form(name, &at, path_segment)),
        }
    }
    errors.extend(validate_target(target, &at));
    let has = |field: &str| !target[field].is_null();
    match kind {
        "object" if !has("value") && !has("averageValue") => {
            let message = "must set either a target value or averageValue";
            errors.push(Error::required(&at.child("averageValue"), message));
        }
        "external" if !has("value") && !has("averageValue") => {
            let message = "must set either a target value for metric or a per-pod target";
            errors.push(Error::required(&at.child("averageValue"), message));
        }
        "external" if has("value") && has("averageValue") => {
            let message = "may not set both a target value for metric and a per-pod target";
            errors.push(Error::forbidden(&at.child("value"), message));
        }
        "pods" if !has("averageValue") => {
            let message = "must specify a positive target averageValue";
            errors.push(Error::required(&at.child("averageValue"), message));
        }
        _ if is_resource && !has("averageUtilization") && !has("averageValue") => {
            let message = "must set either a target raw value or a target utilization";
            errors.push(Error::required(&at.child("averageUtilization"), message));
        }
        _ if is_resource && has("averageUtilization") && has("averageValue") => {
            let message = "may not set both a target raw value and a target utilization";
            errors.push(Error::forbidden(&at.child("averageValue"), message));
        }
        _ => {}
    }
    errors
}

fn validate_target(target: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let type_ = text(&target["type"]);
    if type_.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&type_) {
        let message = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(&path.child("type"), type_, message));
    }
    for field in ["value", "averageValue"] {
        if !target[field].is_null() && !Quantity::from_value(&target[field]).is_ok_and(|q| q > Quantity::ZERO) {
            errors.push(Error::invalid(&path.child(field), target[field].clone(), "must be positive"));
        }
    }
    if let Some(percent) = target["averageUtilization"].as_i64().filter(|percent| *percent < 1) {
        errors.push(Error::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
    errors
}

fn validate_rules(rules: &Value, path: &Path) -> ErrorList {
    const LONGEST_WINDOW: i64 = 3600;
    const LONGEST_PERIOD: i64 = 1800;
    let mut errors = ErrorList::new();
    let window = integer(&rules["stabilizationWindowSeconds"]);
    let at = path.child("stabilizationWindowSeconds");
    if window < 0 {
        errors.push(Error::invalid(&at, window, "must be greater than or equal to zero"));
    }
    if window > LONGEST_WINDOW {
        errors.push(Error::invalid(&at, window, format!("must be less than or equal to {LONGEST_WINDOW}")));
    }
    errors.extend(one_of(rules, "selectPolicy", path, &["Disabled", "Max", "Min"]));
    let (policies, at) = (items(&rules["policies"]), path.child("policies"));
    if policies.is_empty() {
        errors.push(Error::required(&at, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let at = at.index(index);
        if !["Pods", "Percent"].contains(&text(&policy["type"])) {
            errors.push(Error::not_supported(&at.child("type"), text(&policy["type"]), &["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"] {
            let value = integer(&policy[field]);
            if value <= 0 {
                errors.push(Error::invalid(&at.child(field), value, "must be greater than zero"));
            }
        }
        let period = integer(&policy["periodSeconds"]);
        if period > LONGEST_PERIOD {
            let message = format!("must be less than or equal to {LONGEST_PERIOD}");
            errors.push(Error::invalid(&at.child("periodSeconds"), period, message));
        }
    }
    errors.extend(quantity_not_negative(&rules["tolerance"], &path.child("tolerance")));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let mut object = json!({"metadata": {"name": "h"}, "spec": {
            "maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "behavior": {},
        }});
        Autoscaler.default(&mut object);
        object
    }

    #[test]
    fn mistakes_are_named() {
        for (spec, expected) in [
            (json!({}), vec![]),
            (
                json!({"maxReplicas": null}),
                vec![
                    "spec.maxReplicas: Required value: must be set and greater than 0",
                    "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                ],
            ),
            (json!({"scaleTargetRef": {"name": null}}), vec!["spec.scaleTargetRef.name: Required value"]),
            (
                json!({"metrics": [{"type": "Pods"}]}),
                vec!["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
            ),
            (
                json!({"behavior": {"scaleUp": {"selectPolicy": "Some"}}}),
                vec![
                    "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Some\": supported values: \"Disabled\", \"Max\", \"Min\"",
                ],
            ),
        ] {
            let object = mutated(&base(), &json!({ "spec": spec }));
            assert_eq!(messages(&Autoscaler.validate_create(&object)), expected);
        }
    }

    #[test]
    fn a_row_shows_metrics_beside_their_targets() {
        assert_eq!(
            Autoscaler.row(&base(), NOW)[..6],
            [json!("h"), json!("Deployment/d"), json!("cpu: <unknown>/80%"), json!("1"), json!(5), json!(0)]
        );
    }
}
