//! Service: one address for a set of pods.

mod prepare;
#[cfg(test)]
mod tests;
mod validate;

use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::kinds::cells::{age_cell, labels_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy, Subresource, WriteContext};
use crate::kinds::names;
use crate::kinds::tree::{fill, fill_text, integer, is_empty, items, items_mut, remove, text};
use crate::names::name_is_dns_label;

/// `v1 Service`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["svc"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Proxy, Subresource::Status],
        selectable: names(&["spec.clusterIP", "spec.type"]),
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Type", "string", "How the Service is exposed."),
            Column::new("Cluster-IP", "string", "Its address inside of the cluster."),
            Column::new("External-IP", "string", "The addresses at which it is reached from outside."),
            Column::new("Port(s)", "string", "Its ports, node ports and protocols."),
            Column::age(),
            Column::new("Selector", "string", "Selects the pods that receive its traffic.").wide(),
        ],
        ..Kind::new(V1, "Service", "services", "io.k8s.api.core.v1.Service", Service)
    }
}

/// How long a client stays with its backend, in seconds, unless told.
const AFFINITY_SECONDS: i64 = 10_800;

struct Service;

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        default_spec(object);
        let is_load_balancer = object["spec"]["type"] == "LoadBalancer";
        if let Some(balancer) = object.pointer_mut("/status/loadBalancer").filter(|_| is_load_balancer) {
            for ingress in items_mut(balancer, "ingress").iter_mut().filter(|ingress| !is_empty(&ingress["ip"])) {
                fill(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({"loadBalancer": {}});
        let spec = &mut object["spec"];
        if !is_empty(&spec["clusterIP"]) && is_empty(&spec["clusterIPs"]) {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &WriteContext<'_>) {
        prepare::keep_allocations(object, old);
        prepare::synchronize_addresses(object, old);
        prepare::drop_fields_of_other_types(object, old);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate::validate(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = validate::validate_change(object, old);
        errors.extend(validate::validate(object, Some(old)));
        errors
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate::validate_status(object, old)
    }

    fn warnings(&self, object: &Value, _: Option<&Value>) -> Vec<String> {
        warnings(object)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = &object["spec"];
        let ports: Vec<String> = items(&spec["ports"]).iter().map(shown_port).collect();
        vec![
            name_cell(object),
            text(&spec["type"]).into(),
            items(&spec["clusterIPs"]).first().map_or("<none>", text).into(),
            external_ip(object).into(),
            if ports.is_empty() { "<none>".into() } else { ports.join(",").into() },
            age_cell(object, now),
            labels_cell(&spec["selector"]),
        ]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![text(&object["spec"]["clusterIP"]).to_owned(), text(&object["spec"]["type"]).to_owned()]
    }

    /// Since 1.37 a digit may come first (KEP-5311).
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        name_is_dns_label(name, prefix)
    }
}

fn default_spec(object: &mut Value) {
    let spec = &mut object["spec"];
    fill_text(spec, "sessionAffinity", "None");
    match text(&spec["sessionAffinity"]) {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
        }
        _ => {}
    }
    fill_text(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        fill_text(port, "protocol", "TCP");
        if is_empty(&port["targetPort"]) {
            port["targetPort"] = port["port"].clone();
        }
    }
    if is_externally_accessible(object) {
        fill_text(&mut object["spec"], "externalTrafficPolicy", "Cluster");
    }
    let spec = &mut object["spec"];
    if matches!(text(&spec["type"]), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if spec["type"] == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether traffic may come from outside of the cluster.
fn is_externally_accessible(service: &Value) -> bool {
    match text(&service["spec"]["type"]) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !is_empty(&service["spec"]["externalIPs"]),
        _ => false,
    }
}

/// Whether load balancers ask each node if it has a backend.
fn needs_health_check(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn is_headless(service: &Value) -> bool {
    matches!(items(&service["spec"]["clusterIPs"]), [only] if only == "None")
}

fn warnings(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let mut warnings = Vec::new();
    if !service["metadata"]["annotations"]["service.kubernetes.io/topology-aware-hints"].is_null() {
        warnings.push("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".to_owned());
    }
    let external = !is_empty(&spec["externalIPs"]);
    let is_name = spec["type"] == "ExternalName";
    if is_headless(service) {
        if !is_empty(&spec["loadBalancerIP"]) {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if external {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec["sessionAffinity"] != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    } else if external && !is_name {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if is_name && external {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_name && !is_empty(&spec["externalName"]) {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec["trafficDistribution"] == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    warnings
}

fn shown_port(port: &Value) -> String {
    let (number, protocol) = (integer(&port["port"]), text(&port["protocol"]));
    match integer(&port["nodePort"]) {
        node_port if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let mut addresses: Vec<&str> = items(&spec["externalIPs"]).iter().map(text).collect();
    let absent = match text(&spec["type"]) {
        "ClusterIP" | "NodePort" => "<none>",
        "LoadBalancer" => {
            let ingress = items(&service["status"]["loadBalancer"]["ingress"]).iter();
            let mut balancers: Vec<&str> = ingress
                .map(|ingress| if is_empty(&ingress["ip"]) { text(&ingress["hostname"]) } else { text(&ingress["ip"]) })
                .filter(|address| !address.is_empty())
                .collect();
            balancers.sort_unstable();
            balancers.dedup();
            balancers.append(&mut addresses);
            addresses = balancers;
            "<pending>"
        }
        "ExternalName" => return text(&spec["externalName"]).to_owned(),
        _ => return "<unknown>".to_owned(),
    };
    if addresses.is_empty() { absent.to_owned() } else { addresses.join(",") }
}
