//! LimitRange: what each pod, container and claim of a namespace may ask for, and what those get that ask for nothing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::name_cell;
use crate::kinds::core::V1;
use crate::kinds::core::pod::resources::{is_overcommit_allowed, validate_name};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;
use crate::kinds::tree::{entries, fill, items, items_mut, length, text};
use crate::quantity::Quantity;

/// `v1 LimitRange`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["limits"]),
        columns: vec![Column::name(), Column::created_at()],
        ..Kind::new(V1, "LimitRange", "limitranges", "io.k8s.api.core.v1.LimitRange", LimitRange)
    }
}

struct LimitRange;

impl Strategy for LimitRange {
    /// `SetDefaults_LimitRangeItem`
    fn default(&self, object: &mut Value) {
        for limit in items_mut(&mut object["spec"], "limits") {
            if limit["type"] != "Container" {
                continue;
            }
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                fill(limit, to, json!({}));
                for (name, quantity) in entries(&limit[from].clone()) {
                    fill(&mut limit[to], name, quantity.clone());
                }
            }
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let path = Path::new("spec").child("limits");
        let limits = items(&object["spec"]["limits"]);
        let mut errors = ErrorList::new();
        for (index, limit) in limits.iter().enumerate() {
            let at = path.index(index);
            let type_ = text(&limit["type"]);
            if !type_.contains('/') && !["Pod", "Container", "PersistentVolumeClaim"].contains(&type_) {
                let message = "must be a standard limit type or fully qualified";
                errors.push(Error::invalid(&at.child("type"), type_, message));
            }
            if limits[..index].iter().any(|earlier| earlier["type"] == limit["type"]) {
                errors.push(Error::duplicate(&at.child("type"), type_));
            }
            errors.extend(validate_limit(limit, type_, &at));
        }
        errors
    }

    fn row(&self, object: &Value, _: i64) -> Vec<Value> {
        vec![name_cell(object), object["metadata"]["creationTimestamp"].clone()]
    }
}

fn validate_limit(limit: &Value, type_: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let is_default = matches!(list, "default" | "defaultRequest");
        if type_ == "Pod" && is_default {
            if length(&limit[list]) > 0 {
                errors.push(Error::forbidden(&path.child(list), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, _) in entries(&limit[list]) {
            if type_ != "PersistentVolumeClaim" {
                errors.extend(validate_name(name, &path.child(list).key(name)));
            }
            names.insert(name);
        }
    }
    if type_ == "PersistentVolumeClaim" && limit["min"]["storage"].is_null() && limit["max"]["storage"].is_null() {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Error::required(&path.child("limits"), message));
    }
    for name in names {
        errors.extend(validate_amounts(limit, name, path));
    }
    errors
}

fn validate_amounts(limit: &Value, name: &str, path: &Path) -> ErrorList {
    let of = |list: &str| Quantity::from_value(&limit[list][name]).ok().filter(|_| !limit[list][name].is_null());
    let (min, max, ratio) = (of("min"), of("max"), of("maxLimitRequestRatio"));
    let (default, request) = (of("default"), of("defaultRequest"));
    let mut errors = ErrorList::new();
    // The smaller, the larger, the field in the message and its value, and what the two are called.
    let comparisons = [
        (min, max, "min", min, "min value", "max value"),
        (min, request, "defaultRequest", request, "min value", "default request value"),
        (request, max, "defaultRequest", request, "default request value", "max value"),
        (request, default, "defaultRequest", request, "default request value", "default limit value"),
        (min, default, "default", min, "min value", "default value"),
        (default, max, "default", max, "default value", "max value"),
    ];
    for (small, large, field, value, small_name, large_name) in comparisons {
        if let (Some(small), Some(large), Some(value)) = (small, large, value)
            && small > large
        {
            let message = format!("{small_name} {small} is greater than {large_name} {large}");
            errors.push(Error::invalid(&path.child(field).key(name), value.to_string(), message));
        }
    }
    let at = path.child("maxLimitRequestRatio").key(name);
    if let Some(ratio) = ratio.filter(|ratio| *ratio < Quantity::from_milli(1000)) {
        errors.push(Error::invalid(&at, ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
    if let (Some(default), Some(request)) = (default, request)
        && !is_overcommit_allowed(name)
        && default != request
    {
        let message = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errors.push(Error::invalid(&path.child("defaultRequest").key(name), request.to_string(), message));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn defaults_follow_the_limits() {
        let mut object =
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
        LimitRange.default(&mut object);
        let limit = &object["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "2"}));
        assert_eq!(limit["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
        assert_eq!(messages(&LimitRange.validate_create(&object)), Vec::<String>::new());
    }

    #[test]
    fn mistakes_are_named() {
        for (limit, expected) in [
            (
                json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                vec!["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                vec!["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                json!({"type": "Node"}),
                vec!["spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified"],
            ),
        ] {
            let object = json!({"spec": {"limits": [limit]}});
            assert_eq!(messages(&LimitRange.validate_create(&object)), expected);
        }
    }
}
