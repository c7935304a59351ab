//! The group `resource.k8s.io`: devices that drivers offer (ResourceSlice), kinds of devices (DeviceClass), and claims to them.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::persistent_volume::validate_driver_name;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::device_taint::stamp;
use crate::kinds::fields::{form, one_of};
use crate::kinds::tree::{fill, fill_text, immutable, integer, items, items_mut, length, semantically_equal, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::names::{is_dns1123_label, is_dns1123_subdomain};

const V1: GroupVersion = GroupVersion::new("resource.k8s.io", "v1");

/// `resource.k8s.io/v1 DeviceClass`
#[must_use]
pub fn device_class() -> Kind {
    Kind {
        scope: Scope::Cluster,
        has_generation: true,
        columns: vec![Column::name(), Column::age()],
        ..Kind::new(V1, "DeviceClass", "deviceclasses", "io.k8s.api.resource.v1.DeviceClass", DeviceClass)
    }
}

struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = validate_selectors(&spec["selectors"], &path.child("selectors"));
        for (index, config) in items(&spec["config"]).iter().enumerate() {
            errors.extend(validate_config(config, &path.child("config").index(index)));
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), age_cell(object, now)]
    }
}

/// `resource.k8s.io/v1 ResourceSlice`
#[must_use]
pub fn resource_slice() -> Kind {
    Kind {
        scope: Scope::Cluster,
        has_generation: true,
        selectable: names(&["spec.nodeName", "spec.driver"]),
        columns: vec![
            Column::name(),
            Column::new("Node", "string", "The node that has the devices."),
            Column::new("Driver", "string", "The driver that offers them."),
            Column::new("Pool", "string", "The pool that they belong to."),
            Column::age(),
        ],
        ..Kind::new(V1, "ResourceSlice", "resourceslices", "io.k8s.api.resource.v1.ResourceSlice", ResourceSlice)
    }
}

/// The most devices of a slice.
const MOST_DEVICES: usize = 128;

struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        for device in items_mut(&mut object["spec"], "devices") {
            items_mut(device, "taints").iter_mut().for_each(|taint| stamp(taint, context.now));
        }
    }

    fn prepare_update(&self, object: &mut Value, _: &Value, context: &WriteContext<'_>) {
        self.prepare_create(object, context);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
        let chosen = places.iter().filter(|field| !matches!(&spec[**field], Value::Null | Value::Bool(false))).count();
        let mut errors = validate_driver_name(text(&spec["driver"]), &path.child("driver"));
        errors.extend(validate_pool(&spec["pool"], &path.child("pool")));
        if chosen == 0 {
            let message = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
            errors.push(Error::required(&path, message));
        } else if chosen > 1 {
            let message = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
            errors.push(Error { value: None, ..Error::invalid(&path, Value::Null, message) });
        }
        if let Some(node) = spec["nodeName"].as_str() {
            errors.extend(form(node, &path.child("nodeName"), is_dns1123_subdomain));
        }
        let (devices, at) = (items(&spec["devices"]), path.child("devices"));
        if devices.len() > MOST_DEVICES {
            errors.push(Error::too_many(&at, devices.len(), MOST_DEVICES));
        }
        for (index, device) in devices.iter().enumerate() {
            let name = text(&device["name"]);
            errors.extend(form(name, &at.index(index).child("name"), is_dns1123_label));
            if devices[..index].iter().any(|earlier| text(&earlier["name"]) == name) {
                errors.push(Error::duplicate(&at.index(index).child("name"), name));
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec");
        let (spec, was) = (&object["spec"], &old["spec"]);
        let mut errors = self.validate_create(object);
        for field in ["driver", "nodeName"] {
            errors.extend(immutable(&spec[field], &was[field], &path.child(field)));
        }
        errors.extend(immutable(&spec["pool"]["name"], &was["pool"]["name"], &path.child("pool").child("name")));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            name_cell(object),
            text(&spec["nodeName"]).into(),
            text(&spec["driver"]).into(),
            text(&spec["pool"]["name"]).into(),
            age_cell(object, now),
        ]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        ["nodeName", "driver"].iter().map(|field| text(&object["spec"][*field]).to_owned()).collect()
    }
}

fn validate_pool(pool: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_pool_name(text(&pool["name"]), &path.child("name"));
    if integer(&pool["resourceSliceCount"]) <= 0 {
        let count = integer(&pool["resourceSliceCount"]);
        errors.push(Error::invalid(&path.child("resourceSliceCount"), count, "must be greater than zero"));
    }
    if integer(&pool["generation"]) < 0 {
        let generation = integer(&pool["generation"]);
        errors.push(Error::invalid(&path.child("generation"), generation, "must be greater than or equal to zero"));
    }
    errors
}

/// `validatePoolName`
pub(in crate::kinds) fn validate_pool_name(name: &str, path: &Path) -> ErrorList {
    const LONGEST: usize = 253;
    let mut errors = ErrorList::new();
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        if name.len() > LONGEST {
            errors.push(Error::too_long(path, LONGEST));
        }
        errors.extend(name.split('/').flat_map(|part| form(part, path, is_dns1123_subdomain)));
    }
    errors
}

/// `resource.k8s.io/v1 ResourceClaim`
#[must_use]
pub fn resource_claim() -> Kind {
    Kind {
        subresources: vec![Subresource::Status],
        columns: vec![Column::name(), Column::new("State", "string", "How far it is."), Column::age()],
        ..Kind::new(V1, "ResourceClaim", "resourceclaims", "io.k8s.api.resource.v1.ResourceClaim", ResourceClaim)
    }
}

struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        default_claim(&mut object["spec"]);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_claim(&object["spec"], &Path::new("spec"))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = immutable(&object["spec"], &old["spec"], &Path::new("spec"));
        errors.extend(self.validate_create(object));
        errors
    }

    /// `ValidateResourceClaimStatusUpdate`
    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        const MOST_CONSUMERS: usize = 256;
        let (status, was, path) = (&object["status"], &old["status"], Path::new("status"));
        let (consumers, at) = (items(&status["reservedFor"]), path.child("reservedFor"));
        let mut errors = ErrorList::new();
        if consumers.len() > MOST_CONSUMERS {
            errors.push(Error::too_many(&at, consumers.len(), MOST_CONSUMERS));
        }
        for (index, consumer) in consumers.iter().enumerate() {
            let at = at.index(index);
            for field in ["resource", "name", "uid"].iter().filter(|field| text(&consumer[**field]).is_empty()) {
                errors.push(Error::required(&at.child(field), ""));
            }
            if consumers[..index].iter().any(|earlier| earlier["uid"] == consumer["uid"]) {
                errors.push(Error::duplicate(&at.child("uid"), consumer["uid"].clone()));
            }
        }
        if !consumers.is_empty() && status["allocation"].is_null() {
            errors.push(Error::forbidden(&at, "may not be specified when `allocated` is not set"));
        }
        if consumers.len() > length(&was["reservedFor"]) && !object["metadata"]["deletionTimestamp"].is_null() {
            errors.push(Error::forbidden(&at, "new entries may not be added while `deletionTimestamp` is set"));
        }
        let (new, before) = (&status["allocation"], &was["allocation"]);
        if !new.is_null() && !before.is_null() && !semantically_equal(new, before) {
            errors.extend(immutable(new, before, &path.child("allocation")));
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (status, deleted) = (&object["status"], !object["metadata"]["deletionTimestamp"].is_null());
        let mut states = Vec::new();
        if deleted {
            states.push("deleted");
        }
        if status["allocation"].is_null() {
            if !deleted {
                states.push("pending");
            }
        } else {
            states.push("allocated");
            if length(&status["reservedFor"]) > 0 {
                states.push("reserved");
            }
        }
        vec![name_cell(object), states.join(",").into(), age_cell(object, now)]
    }
}

/// `resource.k8s.io/v1 ResourceClaimTemplate`
#[must_use]
pub fn resource_claim_template() -> Kind {
    Kind {
        columns: vec![Column::name(), Column::age()],
        ..Kind::new(
            V1,
            "ResourceClaimTemplate",
            "resourceclaimtemplates",
            "io.k8s.api.resource.v1.ResourceClaimTemplate",
            ResourceClaimTemplate,
        )
    }
}

struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        default_claim(&mut object["spec"]["spec"]);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_claim(&object["spec"]["spec"], &Path::new("spec").child("spec"))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = immutable(&object["spec"], &old["spec"], &Path::new("spec"));
        errors.extend(self.validate_create(object));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), age_cell(object, now)]
    }
}

/// `SetDefaults_ExactDeviceRequest` and its like for alternatives.
fn default_claim(spec: &mut Value) {
    if !spec["devices"].is_object() {
        return;
    }
    for request in items_mut(&mut spec["devices"], "requests") {
        if request["exactly"].is_object() {
            default_request(&mut request["exactly"]);
        }
        items_mut(request, "firstAvailable").iter_mut().for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    fill_text(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        fill(request, "count", 1);
    }
    for toleration in items_mut(request, "tolerations") {
        fill_text(toleration, "operator", "Equal");
    }
}

/// `validateResourceClaimSpec`
fn validate_claim(spec: &Value, path: &Path) -> ErrorList {
    const MOST: usize = 32;
    let (devices, path) = (&spec["devices"], path.child("devices"));
    let (requests, at) = (items(&devices["requests"]), path.child("requests"));
    let mut errors = ErrorList::new();
    if requests.len() > MOST {
        errors.push(Error::too_many(&at, requests.len(), MOST));
    }
    for (index, request) in requests.iter().enumerate() {
        let at = at.index(index);
        let name = text(&request["name"]);
        errors.extend(form(name, &at.child("name"), is_dns1123_label));
        if requests[..index].iter().any(|earlier| text(&earlier["name"]) == name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        let alternatives = items(&request["firstAvailable"]);
        match (request["exactly"].is_object(), alternatives.is_empty()) {
            (true, true) => errors.extend(validate_request(&request["exactly"], &at.child("exactly"))),
            (false, false) => {
                for (index, alternative) in alternatives.iter().enumerate() {
                    let at = at.child("firstAvailable").index(index);
                    errors.extend(form(text(&alternative["name"]), &at.child("name"), is_dns1123_label));
                    errors.extend(validate_request(alternative, &at));
                }
            }
            (false, true) => {
                errors.push(Error::required(&at, "exactly one of `exactly` or `firstAvailable` is required"));
            }
            (true, false) => {
                let message = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(Error { value: None, ..Error::invalid(&at, Value::Null, message) });
            }
        }
    }
    let known: Vec<&str> = requests.iter().map(|request| text(&request["name"])).collect();
    for list in ["constraints", "config"] {
        for (index, entry) in items(&devices[list]).iter().enumerate() {
            let at = path.child(list).index(index);
            for (index, name) in items(&entry["requests"]).iter().enumerate() {
                if !known.contains(&text(name).split('/').next().unwrap_or_default()) {
                    let message = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
                    errors.push(Error::invalid(&at.child("requests").index(index), name.clone(), message));
                }
            }
            if list == "config" {
                errors.extend(validate_config(entry, &at));
            }
        }
    }
    errors
}

fn validate_request(request: &Value, path: &Path) -> ErrorList {
    let mut errors = match text(&request["deviceClassName"]) {
        "" => vec![Error::required(&path.child("deviceClassName"), "")],
        class => form(class, &path.child("deviceClassName"), is_dns1123_subdomain),
    };
    errors.extend(validate_selectors(&request["selectors"], &path.child("selectors")));
    let count = integer(&request["count"]);
    match text(&request["allocationMode"]) {
        "ExactCount" if count <= 0 => {
            errors.push(Error::invalid(&path.child("count"), count, "must be greater than zero"));
        }
        "All" if count != 0 => {
            let message = "must not be specified when allocationMode is 'All'";
            errors.push(Error::invalid(&path.child("count"), count, message));
        }
        _ => errors.extend(one_of(request, "allocationMode", path, &["All", "ExactCount"])),
    }
    errors
}

fn validate_selectors(selectors: &Value, path: &Path) -> ErrorList {
    const MOST: usize = 32;
    let selectors = items(selectors);
    let mut errors = ErrorList::new();
    if selectors.len() > MOST {
        errors.push(Error::too_many(path, selectors.len(), MOST));
    }
    for (index, selector) in selectors.iter().enumerate() {
        let at = path.index(index).child("cel");
        if selector["cel"].is_null() {
            errors.push(Error::required(&at, ""));
        } else if text(&selector["cel"]["expression"]).is_empty() {
            errors.push(Error::required(&at.child("expression"), ""));
        }
    }
    errors
}

fn validate_config(config: &Value, path: &Path) -> ErrorList {
    let (opaque, at) = (&config["opaque"], path.child("opaque"));
    if opaque.is_null() {
        return vec![Error::required(&at, "")];
    }
    let mut errors = validate_driver_name(text(&opaque["driver"]), &at.child("driver"));
    match &opaque["parameters"] {
        Value::Null => errors.push(Error::required(&at.child("parameters"), "")),
        Value::Object(_) => {}
        _ => {
            let message = "must be a valid JSON object";
            errors.push(Error::invalid(&at.child("parameters"), "<value omitted>", message));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    #[test]
    fn a_claim_asks_for_devices_of_a_class() {
        let mut base = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
            {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}},
        ]}}});
        ResourceClaim.default(&mut base);
        assert_eq!(base["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
        assert_eq!(messages(&ResourceClaim.validate_create(&base)), Vec::<String>::new());
        assert_eq!(ResourceClaim.row(&base, NOW)[1], "pending");
        let wrong = mutated(&base, &json!({"spec": {"devices": {"requests": [{"name": "gpu"}]}}}));
        assert_eq!(
            messages(&ResourceClaim.validate_create(&wrong)),
            ["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",]
        );
        let reserved = json!({"status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}});
        assert_eq!(
            messages(&ResourceClaim.validate_status_update(&reserved, &base)),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
    }

    #[test]
    fn a_slice_says_where_its_devices_are() {
        let object = json!({"metadata": {"name": "s"}, "spec": {
            "driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1},
            "devices": [{"name": "a"}],
        }});
        assert_eq!(messages(&ResourceSlice.validate_create(&object)), Vec::<String>::new());
        assert_eq!(ResourceSlice.selectable(&object), ["n", "d.example.com"]);
        let nowhere = mutated(&object, &json!({"spec": {"nodeName": null}}));
        assert_eq!(ResourceSlice.validate_create(&nowhere).len(), 1);
    }
}
