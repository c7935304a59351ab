//! Compiling is decided by the state alone, and serves what kube-proxy would.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn name(name: &str) -> Name {
    ("default".into(), name.into())
}

fn service(ip: &str, extra: serde_json::Value) -> SlimService {
    let mut spec =
        json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]});
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
        .expect("a service")
}

fn slice(of: &str, endpoints: serde_json::Value) -> SlimEndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"name": of, "namespace": "default", "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }))
    .expect("a slice")
}

fn state(service: SlimService, endpoints: serde_json::Value) -> ServiceState {
    ServiceState {
        node_name: "here".into(),
        node_addresses: vec![Ipv4Addr::new(192, 0, 2, 1)],
        services: [(name("web"), service)].into(),
        slices: [(name("web"), slice("web", endpoints))].into(),
    }
}

#[test]
fn a_service_without_endpoints_is_there_with_no_backend() {
    let entries = compile(&state(service("10.0.0.1", json!({})), json!([])));
    assert_eq!(entries.services.values().map(|service| service.backends).collect::<Vec<_>>(), [0]);
}

#[test]
fn terminating_endpoints_serve_only_when_none_is_ready() {
    let going =
        json!({"addresses": ["10.1.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let ready = json!({"addresses": ["10.1.0.2"]});
    let both = compile(&state(service("10.0.0.1", json!({})), json!([going, ready])));
    assert!(both.backends.values().eq([&endpoint(Ipv4Addr::new(10, 1, 0, 2), 8080, TCP)]));
    let alone = compile(&state(service("10.0.0.1", json!({})), json!([going])));
    assert!(alone.backends.values().eq([&endpoint(Ipv4Addr::new(10, 1, 0, 1), 8080, TCP)]));
}

#[test]
fn the_internal_policy_local_keeps_to_this_nodes_endpoints() {
    let endpoints =
        json!([{"addresses": ["10.1.0.1"], "nodeName": "here"}, {"addresses": ["10.1.0.2"], "nodeName": "there"}]);
    let entries = compile(&state(service("10.0.0.1", json!({"internalTrafficPolicy": "Local"})), endpoints));
    assert!(entries.backends.values().eq([&endpoint(Ipv4Addr::new(10, 1, 0, 1), 8080, TCP)]));
}

#[test]
fn a_node_port_is_served_on_the_nodes_addresses() {
    let ports = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]});
    let entries = compile(&state(service("10.0.0.1", ports), json!([{"addresses": ["10.1.0.1"]}])));
    assert_eq!(entries.services[&endpoint(Ipv4Addr::new(192, 0, 2, 1), 30080, TCP)].backends, 1);
}

proptest! {
    #[test]
    fn any_order_of_events_gives_the_entries_of_one_full_compile(
        events in prop::collection::vec((0u8..6, prop::collection::vec(1u8..9, 0..4)), 0..30),
    ) {
        let mut last = BTreeMap::new();
        let mut stepwise = ServiceState::default();
        for (which, endpoints) in &events {
            let key = name(&which.to_string());
            let endpoints: Vec<_> = endpoints.iter().map(|n| json!({"addresses": [format!("10.1.0.{n}")]})).collect();
            stepwise.services.insert(key.clone(), service(&format!("10.0.0.{which}"), json!({})));
            stepwise.slices.insert(key, slice(&which.to_string(), json!(endpoints)));
            last.insert(*which, stepwise.slices[&name(&which.to_string())].clone());
            let entries = compile(&stepwise);
            for service in entries.services.values() {
                for slot in 0..service.backends {
                    let backend = entries.slots[&SlotKey { service: service.id, slot }];
                    prop_assert!(entries.backends.contains_key(&backend));
                }
            }
        }
        let mut whole = ServiceState::default();
        for (which, slice) in last.into_iter().rev() {
            whole.services.insert(name(&which.to_string()), service(&format!("10.0.0.{which}"), json!({})));
            whole.slices.insert(name(&which.to_string()), slice);
        }
        prop_assert_eq!(compile(&stepwise), compile(&whole));
    }
}
