//! What an update means for the fields of a Service that hang together: upstream's `patchAllocatedValues`, `normalizeClusterIPs` and
//! `dropTypeDependentFields`. A client that leaves out what the cluster gave keeps it; a client that changes the type gives back what the
//! new type has no use for, unless it changed that as well (then validation refuses it).

use serde_json::{Value, json};

use super::{is_externally_accessible, needs_health_check};
use crate::kinds::tree::{integer, is_empty, items, items_mut, remove, text};

/// Fills in the addresses and ports that the Service has already.
pub(super) fn keep_allocations(service: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(service) {
        for field in ["clusterIP", "clusterIPs"] {
            if is_empty(&service["spec"][field]) && !is_empty(&old["spec"][field]) {
                service["spec"][field] = old["spec"][field].clone();
            }
        }
    }
    if needs_node_port(old) && needs_node_port(service) {
        let before = items(&old["spec"]["ports"]);
        let used: Vec<i64> = items(&service["spec"]["ports"])
            .iter()
            .map(|port| integer(&port["nodePort"]))
            .filter(|port| *port != 0 && before.iter().any(|old| integer(&old["nodePort"]) == *port))
            .collect();
        for port in service.get_mut("spec").map_or(&mut [][..], |spec| items_mut(spec, "ports")) {
            // Of ports with one name the last counts, as in upstream's map.
            let same = before.iter().rfind(|old| text(&old["name"]) == text(&port["name"]));
            let known = same.map_or(0, |old| integer(&old["nodePort"]));
            if integer(&port["nodePort"]) == 0 && known != 0 && !used.contains(&known) {
                port["nodePort"] = known.into();
            }
        }
    }
    let port = &old["spec"]["healthCheckNodePort"];
    if needs_health_check(old)
        && needs_health_check(service)
        && is_empty(&service["spec"]["healthCheckNodePort"])
        && !is_empty(port)
    {
        service["spec"]["healthCheckNodePort"] = port.clone();
    }
}

/// Clients from before dual stack write `clusterIP` only: `clusterIPs` follows it.
pub(super) fn synchronize_addresses(service: &mut Value, old: &Value) {
    let (before, after) = (&old["spec"], &mut service["spec"]);
    let same_list = items(&before["clusterIPs"]) == items(&after["clusterIPs"]);
    let (ip_before, ip_after) = (text(&before["clusterIP"]), text(&after["clusterIP"]).to_owned());
    if ip_before == ip_after {
        if is_empty(&after["clusterIPs"]) && !is_empty(&before["clusterIPs"]) {
            after["clusterIPs"] = before["clusterIPs"].clone();
        }
    } else if same_list && ip_after.is_empty() {
        remove(after, "clusterIPs");
    } else if same_list {
        after["clusterIPs"] = json!([ip_after]);
    }
}

/// Clears what the new type does not have and the client did not change.
pub(super) fn drop_fields_of_other_types(service: &mut Value, old: &Value) {
    let unchanged = |service: &Value, field: &str| {
        let (a, b) = (&service["spec"][field], &old["spec"][field]);
        a == b || (is_empty(a) && is_empty(b))
    };
    let mut gone: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(service) {
        if unchanged(service, "clusterIP") && unchanged(service, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(["ipFamilies", "ipFamilyPolicy"].iter().filter(|field| unchanged(service, field)));
    }
    if needs_health_check(old) && !needs_health_check(service) && unchanged(service, "healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if old["spec"]["type"] == "LoadBalancer" && service["spec"]["type"] != "LoadBalancer" {
        gone.extend(
            ["allocateLoadBalancerNodePorts", "loadBalancerClass"].iter().filter(|field| unchanged(service, field)),
        );
    }
    if is_externally_accessible(old)
        && !is_externally_accessible(service)
        && unchanged(service, "externalTrafficPolicy")
    {
        gone.push("externalTrafficPolicy");
    }
    if needs_node_port(old) && !needs_node_port(service) && has_no_new_node_port(service, old) {
        for port in service.get_mut("spec").map_or(&mut [][..], |spec| items_mut(spec, "ports")) {
            remove(port, "nodePort");
        }
    }
    for field in gone {
        remove(&mut service["spec"], field);
    }
    if service["spec"]["type"] != "LoadBalancer" && !is_empty(&service["status"]["loadBalancer"]) {
        service["status"]["loadBalancer"] = json!({});
    }
}

fn needs_cluster_ip(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName"
}

fn needs_node_port(service: &Value) -> bool {
    matches!(text(&service["spec"]["type"]), "NodePort" | "LoadBalancer")
}

fn has_no_new_node_port(service: &Value, old: &Value) -> bool {
    let before = items(&old["spec"]["ports"]);
    let mut after = items(&service["spec"]["ports"]).iter().map(|port| integer(&port["nodePort"]));
    after.all(|port| port == 0 || before.iter().any(|old| integer(&old["nodePort"]) == port))
}
