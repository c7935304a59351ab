//! What a pod has when nobody says otherwise: upstream's `SetObjectDefaults_Pod`, and the forms that upstream's encoder gives to what was said
//! (quantities in canonical form, no zero values of plain fields).

use serde_json::{Value, json};

use super::CONTAINER_LISTS;
use super::image::pull_policy;
use crate::kinds::tree::{fill, fill_text, flag, integer, is_empty, items_mut, length, map_mut, remove, text};
use crate::quantity::Quantity;

/// Octal 0644.
const FILE_MODE: i64 = 0o644;

/// Defaults of a whole pod. Requests are taken from limits here and not in a template, which keeps what its author wrote.
pub(super) fn default_pod(pod: &mut Value) {
    fill(pod, "spec", json!({}));
    let spec = &mut pod["spec"];
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    fill(spec, "enableServiceLinks", true);
    let host_network = flag(&spec["hostNetwork"]);
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
            if host_network {
                for port in items_mut(container, "ports") {
                    if integer(&port["hostPort"]) == 0 {
                        port["hostPort"] = port["containerPort"].clone();
                    }
                }
            }
        }
    }
    default_spec(pod);
    default_status(pod);
}

/// Defaults of the pod spec in `owner.spec`, of a pod or a pod template.
pub(super) fn default_spec(owner: &mut Value) {
    fill(owner, "spec", json!({}));
    let spec = &mut owner["spec"];
    default_service_account(spec);
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_text(spec, "schedulerName", "default-scheduler");
    drop_zeros(spec, &["hostNetwork", "hostPID", "hostIPC", "nodeName", "hostname", "subdomain", "priorityClassName"]);
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            default_container(container);
        }
    }
    canonical_list(spec, "overhead");
    canonical_requirements(spec);
    if length(&spec["overhead"]) == 0 {
        remove(spec, "overhead");
    }
}

/// `serviceAccount` is an old alias; the newer name wins.
fn default_service_account(spec: &mut Value) {
    let name = match text(&spec["serviceAccountName"]) {
        "" => text(&spec["serviceAccount"]).to_owned(),
        name => name.to_owned(),
    };
    if name.is_empty() {
        drop_zeros(spec, &["serviceAccountName", "serviceAccount"]);
    } else {
        spec["serviceAccount"] = name.as_str().into();
        spec["serviceAccountName"] = name.into();
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(text(&container["image"]));
    fill_text(container, "imagePullPolicy", policy);
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    drop_zeros(container, &["stdin", "stdinOnce", "tty", "workingDir"]);
    for mount in items_mut(container, "volumeMounts") {
        drop_zeros(mount, &["readOnly", "subPath", "subPathExpr"]);
    }
    for port in items_mut(container, "ports") {
        fill_text(port, "protocol", "TCP");
        drop_zeros(port, &["hostPort", "name", "hostIP"]);
    }
    for variable in items_mut(container, "env") {
        drop_zeros(variable, &["value"]);
        if let Some(source) = variable.get_mut("valueFrom") {
            default_field_source(source);
            if source["fileKeyRef"].is_object() {
                fill(&mut source["fileKeyRef"], "optional", false);
            }
            drop_nulls(source);
        }
    }
    canonical_requirements(container);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle").filter(|lifecycle| lifecycle.is_object()) {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(hook) {
                default_http_get(handler);
            }
        }
    }
}

fn default_probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if integer(&probe[field]) == 0 {
            probe[field] = value.into();
        }
    }
    drop_zeros(probe, &["initialDelaySeconds"]);
    default_http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| grpc.is_object()) {
        fill(grpc, "service", "");
    }
}

fn default_http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|get| get.is_object()) {
        fill_text(get, "path", "/");
        fill_text(get, "scheme", "HTTP");
        drop_zeros(get, &["host"]);
    }
}

fn default_volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|map| map.iter().any(|(key, v)| key != "name" && !v.is_null()));
    if !has_source {
        fill(volume, "emptyDir", json!({}));
    }
    let Some(volume) = volume.as_object_mut() else { return };
    for (kind, source) in volume.iter_mut().filter(|(_, source)| source.is_object()) {
        default_volume_source(kind, source);
    }
}

fn default_volume_source(kind: &str, source: &mut Value) {
    match kind {
        "emptyDir" => {
            canonical_quantity(source, "sizeLimit");
            drop_zeros(source, &["medium"]);
        }
        "hostPath" => fill(source, "type", ""),
        "secret" | "configMap" => fill(source, "defaultMode", FILE_MODE),
        "downwardAPI" => {
            fill(source, "defaultMode", FILE_MODE);
            items_mut(source, "items").iter_mut().for_each(default_field_source);
        }
        "projected" => {
            fill(source, "defaultMode", FILE_MODE);
            items_mut(source, "sources").iter_mut().for_each(default_projection);
        }
        "image" => {
            let policy = pull_policy(text(&source["reference"]));
            fill_text(source, "pullPolicy", policy);
        }
        "iscsi" => fill_text(source, "iscsiInterface", "default"),
        "rbd" => {
            fill_text(source, "pool", "rbd");
            fill_text(source, "user", "admin");
            fill_text(source, "keyring", "/etc/ceph/keyring");
        }
        "azureDisk" => {
            fill(source, "cachingMode", "ReadWrite");
            fill(source, "fsType", "ext4");
            fill(source, "readOnly", false);
            fill(source, "kind", "Shared");
        }
        "scaleIO" => {
            fill_text(source, "storageMode", "ThinProvisioned");
            fill_text(source, "fsType", "xfs");
        }
        "ephemeral" => {
            if let Some(template) = source.get_mut("volumeClaimTemplate").filter(|template| template.is_object()) {
                fill(template, "spec", json!({}));
                fill(&mut template["spec"], "volumeMode", "Filesystem");
                canonical_requirements(&mut template["spec"]);
            }
        }
        _ => {}
    }
}

fn default_projection(source: &mut Value) {
    if let Some(token) = source.get_mut("serviceAccountToken").filter(|token| token.is_object()) {
        fill(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = source.get_mut("downwardAPI") {
        items_mut(downward, "items").iter_mut().for_each(default_field_source);
    }
}

/// The `fieldRef` or `resourceFieldRef` of an environment variable or a downward-API file.
fn default_field_source(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef").filter(|field| field.is_object()) {
        fill_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = source.get_mut("resourceFieldRef").filter(|resource| resource.is_object()) {
        fill(resource, "divisor", "0");
        canonical_quantity(resource, "divisor");
    }
}

/// The singular address and the list are kept alike; the singular one wins.
fn default_status(pod: &mut Value) {
    let Some(status) = pod.get_mut("status").filter(|status| status.is_object()) else { return };
    let ip = text(&status["podIP"]).to_owned();
    let first = text(&status["podIPs"][0]["ip"]).to_owned();
    if !ip.is_empty() && ip != first {
        status["podIPs"] = json!([{ "ip": ip }]);
    } else if ip.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    }
    drop_nulls(status);
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container["resources"]["limits"].as_object().cloned() else { return };
    let requests = map_mut(&mut container["resources"]["requests"]);
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// Limits and requests in canonical form.
fn canonical_requirements(owner: &mut Value) {
    if let Some(resources) = owner.get_mut("resources").filter(|resources| resources.is_object()) {
        canonical_list(resources, "limits");
        canonical_list(resources, "requests");
    }
}

/// Upstream's `SetDefaults_ResourceList`: nothing is finer than a thousandth.
fn canonical_list(owner: &mut Value, field: &str) {
    let Some(list) = owner.get_mut(field).and_then(Value::as_object_mut) else { return };
    for value in list.values_mut() {
        if let Ok(quantity) = Quantity::from_value(value) {
            let rounded = quantity.rounded_to_milli();
            *value = if rounded == quantity { canonical(value) } else { rounded.into() };
        }
    }
}

fn canonical_quantity(owner: &mut Value, field: &str) {
    if let Some(value) = owner.get_mut(field).filter(|value| !value.is_null()) {
        *value = canonical(value);
    }
}

/// What is no quantity stays, for validation to name it.
fn canonical(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Quantity::canonical(&text).map_or_else(|_| value.clone(), Value::String)
}

/// Plain (not pointer) fields that hold their zero value are as good as absent, and upstream's encoder leaves them out.
fn drop_zeros(owner: &mut Value, fields: &[&str]) {
    for field in fields {
        if owner.get(field).is_some_and(is_empty) {
            remove(owner, field);
        }
    }
}

/// Takes away what indexing may have made.
fn drop_nulls(owner: &mut Value) {
    if let Some(map) = owner.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pod_gets_what_upstream_gives_it() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "nginx"}]}});
        default_pod(&mut pod);
        assert_eq!(
            pod,
            json!({"spec": {
                "containers": [{
                    "name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            }})
        );
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut once = json!({"spec": {"volumes": [{"name": "v"}], "containers": [{"name": "a", "image": "b:1",
            "livenessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": 0.5}}}]}});
        default_pod(&mut once);
        let mut twice = once.clone();
        default_pod(&mut twice);
        assert_eq!(once, twice);
    }

    #[test]
    fn requests_follow_limits_in_a_pod_and_not_in_a_template() {
        let spec = json!({"spec": {"containers": [{"name": "a", "image": "b", "resources":
            {"limits": {"cpu": "1000m", "memory": "1.5Gi"}, "requests": {"cpu": 0.25}}}]}});
        let mut pod = spec.clone();
        default_pod(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "1536Mi"}, "requests": {"cpu": "250m", "memory": "1536Mi"}})
        );
        let mut template = spec;
        default_spec(&mut template);
        assert_eq!(template["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "250m"}));
        assert!(template["spec"].get("enableServiceLinks").is_none());
    }

    #[test]
    fn volumes_probes_and_ports_are_filled_in() {
        let mut pod = json!({"spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "b",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "readinessProbe": {"httpGet": {"port": 80}}, "livenessProbe": {"grpc": {"port": 1}}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "h", "hostPath": {"path": "/"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}]}});
        default_pod(&mut pod);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(container["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["livenessProbe"]["grpc"], json!({"port": 1, "service": ""}));
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
                {"name": "h", "hostPath": {"path": "/", "type": ""}},
                {"name": "p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}]}}]}}])
        );
    }

    #[test]
    fn the_old_name_of_the_service_account_is_kept_alike() {
        for (given, name) in [
            (json!({"serviceAccount": "a"}), "a"),
            (json!({"serviceAccountName": "b"}), "b"),
            (json!({"serviceAccount": "a", "serviceAccountName": "b"}), "b"),
        ] {
            let mut pod = json!({ "spec": given });
            default_pod(&mut pod);
            assert_eq!(pod["spec"]["serviceAccount"], name);
            assert_eq!(pod["spec"]["serviceAccountName"], name);
        }
    }
}
