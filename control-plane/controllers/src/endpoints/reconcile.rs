//! Which Endpoints a Service's pods make. Pure.
//!
//! Follows `endpoints_controller.go` (`syncService`) and `RepackSubsets`: addresses with the same ports are one subset.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_client::slim::SlimPod;

use crate::endpoint_slice::reconcile::{endpoint, ports};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Upstream's `maxCapacity`: more addresses don't fit an object.
const LIMIT: usize = 1000;

/// The Endpoints of a Service with a selector, made from what is there; `None` if that is as it should be.
pub(super) fn reconcile(service: &Service, pods: &[Arc<SlimPod>], old: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, truncated) = truncate(subsets(service, pods));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    if address.is_empty() || address == "None" {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let mut endpoints = old.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    endpoints.metadata.labels = Some(labels);
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        endpoints.metadata.annotations = None;
    }
    let same = |old: &Endpoints| {
        sorted(old.subsets.clone().unwrap_or_default()) == subsets
            && old.metadata.labels == endpoints.metadata.labels
            && old.metadata.annotations.clone().unwrap_or_default()
                == endpoints.metadata.annotations.clone().unwrap_or_default()
    };
    if old.is_some_and(same) {
        return None;
    }
    endpoints.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    Some(endpoints)
}

/// Whether this controller made them.
pub(super) fn is_own(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
}

fn subsets(service: &Service, pods: &[Arc<SlimPod>]) -> Vec<EndpointSubset> {
    let spec = service.spec.as_ref();
    let family = spec.and_then(|spec| spec.ip_families.as_ref()?.first().cloned());
    let family = family.unwrap_or_else(|| "IPv4".to_owned());
    let early = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let portless = spec.is_none_or(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty));
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| early || !pod.is_terminating()) {
        let Some(endpoint) = endpoint(service, &family, pod, &HashMap::new()) else { continue };
        let convert = |port: k8s_openapi::api::discovery::v1::EndpointPort| EndpointPort {
            name: port.name.filter(|name| !name.is_empty()),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol,
            app_protocol: port.app_protocol,
        };
        let mut ports: Vec<EndpointPort> = ports(service, pod).into_iter().map(convert).collect();
        if ports.is_empty() && !portless {
            continue;
        }
        ports.sort_by_key(port_key);
        let key = ports.iter().map(|port| format!("{:?}", port_key(port))).collect();
        let group = groups.entry(key).or_insert_with(|| EndpointSubset {
            ports: Some(ports).filter(|ports| !ports.is_empty()),
            ..EndpointSubset::default()
        });
        let address = EndpointAddress {
            ip: endpoint.addresses.first().cloned().unwrap_or_default(),
            hostname: endpoint.hostname,
            node_name: endpoint.node_name,
            target_ref: endpoint.target_ref,
        };
        let list = if early || pod.is_ready() { &mut group.addresses } else { &mut group.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    sorted(groups.into_values().collect())
}

/// In one order, so that the same subsets are equal.
fn sorted(mut subsets: Vec<EndpointSubset>) -> Vec<EndpointSubset> {
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by_key(|address| {
                (address.ip.clone(), address.target_ref.as_ref().and_then(|target| target.uid.clone()))
            });
        }
        if let Some(ports) = &mut subset.ports {
            ports.sort_by_key(port_key);
        }
    }
    subsets.sort_by_key(|subset| {
        let ports: Vec<_> = subset.ports.iter().flatten().map(port_key).collect();
        let first = |list: &Option<Vec<EndpointAddress>>| list.iter().flatten().next().map(|own| own.ip.clone());
        (ports, first(&subset.addresses), first(&subset.not_ready_addresses))
    });
    subsets
}

fn port_key(port: &EndpointPort) -> (i32, Option<String>, Option<String>, Option<String>) {
    (port.port, port.name.clone(), port.protocol.clone(), port.app_protocol.clone())
}

/// The first addresses that fit, ready ones first, and whether any were left out.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let mut room = LIMIT;
    let mut truncated = false;
    for ready in [true, false] {
        for subset in &mut subsets {
            let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            if let Some(list) = list {
                truncated |= list.len() > room;
                list.truncate(room);
                room -= list.len();
            }
        }
    }
    (subsets, truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(fields: serde_json::Value) -> Service {
        let mut service = json!({"metadata": {"name": "web", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}});
        for (field, value) in fields.as_object().expect("fields") {
            service["spec"][field] = value.clone();
        }
        serde_json::from_value(service).expect("a Service")
    }

    fn pod(ip: &str, ready: &str, deleted: bool) -> Arc<SlimPod> {
        let pod = json!({
            "metadata": {"name": ip, "namespace": "n", "uid": ip,
                         "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "spec": {"nodeName": "node"},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                       "conditions": [{"type": "Ready", "status": ready}]},
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn ready_and_other_pods_are_told_apart_and_terminating_ones_left_out() {
        let pods = [pod("10.1.0.2", "True", false), pod("10.1.0.1", "False", false), pod("10.1.0.3", "True", true)];
        let made = reconcile(&service(json!({})), &pods, None).expect("a write");
        let subsets = made.subsets.clone().expect("subsets");
        let ips =
            |list: &Option<Vec<EndpointAddress>>| list.iter().flatten().map(|own| own.ip.clone()).collect::<Vec<_>>();
        assert_eq!(
            (ips(&subsets[0].addresses), ips(&subsets[0].not_ready_addresses)),
            (vec!["10.1.0.2".to_owned()], vec!["10.1.0.1".to_owned()])
        );
        assert_eq!(subsets[0].ports.as_ref().expect("ports")[0].port, 8080);
        assert_eq!(
            made.metadata.labels.as_ref().expect("labels")["endpoints.kubernetes.io/managed-by"],
            "endpoint-controller"
        );
        assert_eq!(reconcile(&service(json!({})), &pods, Some(&made)), None, "a second pass has nothing to do");
        let early = reconcile(&service(json!({"publishNotReadyAddresses": true})), &pods, None).expect("a write");
        assert_eq!(ips(&early.subsets.expect("subsets")[0].addresses).len(), 3);
    }

    #[test]
    fn a_service_without_pods_has_empty_endpoints_and_a_headless_one_says_so() {
        let made = reconcile(&service(json!({"clusterIP": "None"})), &[], None).expect("a write");
        assert_eq!(made.subsets, None);
        assert!(made.metadata.labels.expect("labels").contains_key(HEADLESS));
    }
}
