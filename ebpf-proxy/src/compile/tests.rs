//! Compiling is decided by the state alone, and serves what kube-proxy would.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::nodes::NodeNetwork;

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
        ..ServiceState::default()
    }
}

fn backends(entries: &Entries) -> Vec<Endpoint> {
    entries.backends.values().map(|backend| backend.endpoint).collect()
}

#[test]
fn a_service_without_endpoints_is_there_with_no_backend() {
    let entries = compile(&state(service("10.0.0.1", json!({})), json!([])));
    assert_eq!(entries.services.values().map(|service| service.backends).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_host_port_leads_to_its_pod_from_outside_from_here_and_from_the_nodes_own_loopback() {
    let (pod, node) = (Ipv4Addr::new(10, 1, 0, 9), Ipv4Addr::new(192, 0, 2, 1));
    let port = HostPort { address: None, port: 8080, protocol: TCP, pod, pod_port: 80 };
    let elsewhere = HostPort { address: Some(Ipv4Addr::new(192, 0, 2, 7)), protocol: UDP, ..port.clone() };
    let empty = ServiceState { node_addresses: vec![node], ..ServiceState::default() };
    let entries = compile(&ServiceState { host_ports: vec![port, elsewhere], ..empty });
    let flags =
        |address: Ipv4Addr, protocol| entries.services.get(&endpoint(address, 8080, protocol)).map(|own| own.flags);
    assert_eq!((flags(node, TCP), flags(Ipv4Addr::LOCALHOST, TCP)), (Some(0), Some(FROM_NODE)));
    assert_eq!((flags(Ipv4Addr::new(192, 0, 2, 7), UDP), flags(node, UDP)), (Some(0), None));
    let outside: Vec<_> = entries.externals.keys().map(|key| (key.address, key.protocol)).collect();
    assert_eq!(outside, [(mapped([192, 0, 2, 1]), TCP), (mapped([192, 0, 2, 7]), UDP)]);
    assert_eq!(backends(&entries).len(), 2);
}

#[test]
fn terminating_endpoints_serve_only_when_none_is_ready() {
    let going =
        json!({"addresses": ["10.1.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let ready = json!({"addresses": ["10.1.0.2"]});
    let both = compile(&state(service("10.0.0.1", json!({})), json!([going, ready])));
    assert_eq!(backends(&both), [endpoint(Ipv4Addr::new(10, 1, 0, 2), 8080, TCP)]);
    let alone = compile(&state(service("10.0.0.1", json!({})), json!([going])));
    assert_eq!(backends(&alone), [endpoint(Ipv4Addr::new(10, 1, 0, 1), 8080, TCP)]);
}

#[test]
fn the_internal_policy_local_keeps_to_this_nodes_endpoints() {
    let endpoints =
        json!([{"addresses": ["10.1.0.1"], "nodeName": "here"}, {"addresses": ["10.1.0.2"], "nodeName": "there"}]);
    let entries = compile(&state(service("10.0.0.1", json!({"internalTrafficPolicy": "Local"})), endpoints));
    assert_eq!(backends(&entries), [endpoint(Ipv4Addr::new(10, 1, 0, 1), 8080, TCP)]);
}

#[test]
fn a_node_port_is_served_on_the_nodes_addresses() {
    let ports = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]});
    let entries = compile(&state(service("10.0.0.1", ports), json!([{"addresses": ["10.1.0.1"]}])));
    assert_eq!(entries.services[&endpoint(Ipv4Addr::new(192, 0, 2, 1), 30080, TCP)].backends, 1);
}

#[test]
fn from_outside_the_policy_local_keeps_to_this_nodes_endpoints_and_inside_it_does_not() {
    let spec = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}],
    });
    let there = json!({"addresses": ["10.1.0.2"], "nodeName": "there"});
    let here = json!({"addresses": ["10.1.0.1"], "nodeName": "here"});
    let at = endpoint(Ipv4Addr::new(192, 0, 2, 1), 30080, TCP);

    let both = compile(&state(service("10.0.0.1", spec.clone()), json!([here, there])));
    assert_eq!((both.services[&at].backends, both.externals[&at].backends), (2, 1));
    let chosen = both.slots[&SlotKey { service: both.externals[&at].id, slot: 0 }];
    assert_eq!(both.backends[&chosen].flags, ON_THIS_NODE);

    let elsewhere = compile(&state(service("10.0.0.1", spec.clone()), json!([there])));
    assert_eq!((elsewhere.externals[&at].backends, elsewhere.externals[&at].flags), (0, DROP_WHEN_EMPTY));
    let nowhere = compile(&state(service("10.0.0.1", spec), json!([])));
    assert_eq!((nowhere.externals[&at].backends, nowhere.externals[&at].flags), (0, 0));
}

#[test]
fn from_outside_only_external_addresses_are_served() {
    let spec = json!({
        "type": "NodePort", "externalIPs": ["203.0.113.1"],
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}],
    });
    let entries = compile(&state(service("10.0.0.1", spec), json!([{"addresses": ["10.1.0.1"]}])));
    let node_port = endpoint(Ipv4Addr::new(192, 0, 2, 1), 30080, TCP);
    let external = endpoint(Ipv4Addr::new(203, 0, 113, 1), 80, TCP);
    assert!(entries.externals.keys().eq([&node_port, &external]));
    assert!(entries.externals.iter().all(|(key, service)| entries.services[key] == *service));
}

#[test]
fn pods_networks_and_nodes_addresses_are_inside() {
    let other = NodeNetwork { addresses: vec![Ipv4Addr::new(192, 0, 2, 2)], ..NodeNetwork::default() };
    let state = ServiceState {
        node_addresses: vec![Ipv4Addr::new(192, 0, 2, 1)],
        cluster_networks: vec!["10.244.0.0/16".parse().expect("a network")],
        nodes: [("other".to_owned(), other)].into(),
        ..ServiceState::default()
    };
    let expected = [
        ((mapped([10, 244, 0, 0]), 112), PODS),
        ((mapped([192, 0, 2, 1]), 128), NODE),
        ((mapped([192, 0, 2, 2]), 128), NODE),
    ];
    assert_eq!(compile(&state).inside, expected.into());
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
