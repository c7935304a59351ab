//! LimitRanger: pods without requests and limits get their namespace's defaults, and nobody asks for more or less than its limits.

use std::cmp::Ordering;

use serde_json::Value;
use skep_api::kinds::core::pod::qos;
use skep_api::quantity::Quantity;
use skep_api::{GroupResource, Status};

use super::{Objects, Operation, Plugin, Request};

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    fn admit(&self, request: &Request<'_>, object: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("pods") {
            return Ok(());
        }
        let mut defaulted: Vec<String> = Vec::new();
        for range in ranges(request, objects) {
            for limit in each_limit(&range, "Container") {
                for list in ["initContainers", "containers"] {
                    let containers = object["spec"].get_mut(list).and_then(Value::as_array_mut);
                    for container in containers.into_iter().flatten() {
                        fill(container, list, limit, &mut defaulted);
                    }
                }
            }
        }
        if !defaulted.is_empty() {
            let text = format!("LimitRanger plugin set: {}", defaulted.join("; "));
            object["metadata"]["annotations"]["kubernetes.io/limit-ranger"] = text.into();
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: &Value, objects: &dyn Objects) -> Result<(), Status> {
        let is_claim = request.is_core("persistentvolumeclaims");
        let is_new_pod = request.operation == Operation::Create && request.is_core("pods");
        if request.operation == Operation::Delete || !is_claim && !is_new_pod {
            return Ok(());
        }
        let mut errors = Vec::new();
        for range in ranges(request, objects) {
            if is_claim {
                for limit in each_limit(&range, "PersistentVolumeClaim") {
                    let requests = &object["spec"]["resources"]["requests"];
                    errors.extend(bounds(limit, "PersistentVolumeClaim", requests, &Value::Null));
                }
                continue;
            }
            for limit in each_limit(&range, "Container") {
                for list in ["containers", "initContainers"] {
                    for container in object["spec"][list].as_array().into_iter().flatten() {
                        let resources = &container["resources"];
                        errors.extend(bounds(limit, "Container", &resources["requests"], &resources["limits"]));
                    }
                }
            }
            for limit in each_limit(&range, "Pod") {
                let as_value = |list: qos::ResourceList| -> Value {
                    Value::Object(list.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect())
                };
                let requests = as_value(qos::pod_requests(&object["spec"]));
                let limits = as_value(qos::container_limits(&object["spec"]));
                errors.extend(bounds(limit, "Pod", &requests, &limits));
            }
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(request.forbidden(&errors[0])),
            _ => Err(request.forbidden(&format!("[{}]", errors.join(", ")))),
        }
    }
}

fn ranges(request: &Request<'_>, objects: &dyn Objects) -> Vec<std::sync::Arc<Value>> {
    objects.list(&GroupResource::new("", "limitranges"), Some(request.namespace))
}

fn each_limit<'a>(range: &'a Value, type_: &'static str) -> impl Iterator<Item = &'a Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |limit| limit["type"] == type_)
}

/// `mergeContainerResources`
fn fill(container: &mut Value, list: &str, limit: &Value, told: &mut Vec<String>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let what = if list == "containers" { "container" } else { "init container" };
    let mut set = |field: &str, default: &str, word: &str| {
        let mut names = Vec::new();
        for (resource, amount) in limit[default].as_object().into_iter().flatten() {
            if container["resources"][field][resource].is_null() {
                container["resources"][field][resource] = amount.clone();
                names.push(resource.clone());
            }
        }
        if !names.is_empty() {
            told.push(format!("{} {word} for {what} {name}", names.join(", ")));
        }
    };
    set("requests", "defaultRequest", "request");
    set("limits", "default", "limit");
}

/// What is wrong with requests and limits by one limit of a range, in upstream's words.
fn bounds(limit: &Value, type_: &str, requests: &Value, limits: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let amount = |list: &Value, name: &str| {
        list.get(name).filter(|value| !value.is_null()).and_then(|value| Quantity::from_value(value).ok())
    };
    let each = |field: &str| limit[field].as_object().into_iter().flatten();
    for (name, bound) in each("min") {
        let Ok(bound) = Quantity::from_value(bound) else { continue };
        match amount(requests, name) {
            None => errors.push(format!("minimum {name} usage per {type_} is {bound}.  No request is specified")),
            Some(asked) if asked < bound => {
                errors.push(format!("minimum {name} usage per {type_} is {bound}, but request is {asked}"));
            }
            Some(_) => {}
        }
        if let Some(most) = amount(limits, name).filter(|most| *most < bound) {
            errors.push(format!("minimum {name} usage per {type_} is {bound}, but limit is {most}"));
        }
    }
    for (name, bound) in each("max") {
        let Ok(bound) = Quantity::from_value(bound) else { continue };
        if type_ == "PersistentVolumeClaim" {
            if let Some(asked) = amount(requests, name).filter(|asked| *asked > bound) {
                errors.push(format!("maximum {name} usage per {type_} is {bound}, but request is {asked}"));
            }
            continue;
        }
        match amount(limits, name) {
            None => errors.push(format!("maximum {name} usage per {type_} is {bound}.  No limit is specified")),
            Some(most) if most > bound => {
                errors.push(format!("maximum {name} usage per {type_} is {bound}, but limit is {most}"));
            }
            Some(_) => {}
        }
        if let Some(asked) = amount(requests, name).filter(|asked| *asked > bound) {
            errors.push(format!("maximum {name} usage per {type_} is {bound}, but request is {asked}"));
        }
    }
    for (name, ratio) in each("maxLimitRequestRatio") {
        errors.extend(ratio_error(name, ratio, type_, amount(requests, name), amount(limits, name)));
    }
    errors
}

#[allow(clippy::cast_precision_loss, reason = "a ratio is shown, as upstream shows it")]
fn ratio_error(
    name: &str,
    ratio: &Value,
    type_: &str,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let ratio = Quantity::from_value(ratio).ok()?;
    let milli = |quantity: Option<Quantity>| quantity.map(Quantity::milli_value).filter(|value| *value != 0);
    let (Some(request), Some(limit)) = (milli(request), milli(limit)) else {
        let missing = if milli(request).is_none() {
            "no request is specified or request is 0"
        } else {
            "no limit is specified or limit is 0"
        };
        return Some(format!("{name} max limit to request ratio per {type_} is {ratio}, but {missing}"));
    };
    let observed = limit as f64 / request as f64;
    let most = ratio.milli_value() as f64 / 1000.0;
    let above = observed.partial_cmp(&most) == Some(Ordering::Greater);
    above.then(|| {
        format!("{name} max limit to request ratio per {type_} is {ratio}, but provided ratio is {observed:.6}")
    })
}
