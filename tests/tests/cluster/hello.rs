//! The application of examples/hello.yaml, and what a cluster gives it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use skep_tests::Kubectl;
use skep_tests::cluster::{http_get, until, wanted};

use crate::Scene;

pub(crate) const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hello.yaml");
const NODES: [&str; 2] = ["node-1", "node-2"];

/// Applies the example and waits until all of it runs.
pub(crate) fn apply(kubectl: &Kubectl) {
    kubectl.run(&["apply", "-f", MANIFEST]).ok();
    rolled_out(kubectl);
    kubectl.run(&["wait", "-n", "hello", "--for=condition=Ready", "pod/client", "--timeout=90s"]).ok();
}

/// Waits until every replica is the newest one and ready.
pub(crate) fn rolled_out(kubectl: &Kubectl) {
    kubectl.run(&["rollout", "status", "-n", "hello", "deployment/hello", "--timeout=90s"]).ok();
}

/// What kubectl prints as JSON.
pub(crate) fn json(kubectl: &Kubectl, arguments: &[&str]) -> Value {
    serde_json::from_str(&kubectl.run(&[arguments, &["-o", "json"]].concat()).ok()).expect("kubectl prints JSON")
}

/// The replicas that are not on their way out.
pub(crate) fn replicas(kubectl: &Kubectl) -> Vec<Value> {
    let list = json(kubectl, &["get", "pods", "-n", "hello", "-l", "app=hello"]);
    let pods = list["items"].as_array().expect("a list").clone();
    pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
}

/// A text in an object.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} is missing in {object}"))
}

/// The node port on each node's address.
pub(crate) fn node_ports(kubectl: &Kubectl) -> Vec<SocketAddr> {
    let service = json(kubectl, &["get", "service", "-n", "hello", "hello"]);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
    let nodes = json(kubectl, &["get", "nodes"]);
    let addresses = nodes["items"].as_array().expect("a list").iter();
    addresses
        .map(|node| format!("{}:{port}", text(node, "/status/addresses/0/address")).parse().expect("an address"))
        .collect()
}

/// Waits until every replica, on both nodes, has answered the client, and nothing else has.
pub(crate) fn every_replica_answers(kubectl: &Kubectl, url: &str) {
    let pods = replicas(kubectl);
    let all: BTreeSet<String> = pods.iter().map(|pod| format!("Hello from {}", text(pod, "/metadata/name"))).collect();
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect();
    assert_eq!((all.len(), nodes), (3, NODES.into()));
    let mut answered = BTreeSet::new();
    until("every replica answers", || {
        let answer = kubectl.run(&["exec", "-n", "hello", "client", "--", "wget", "-qO-", url]).ok();
        assert!(all.contains(answer.trim()), "{answer} is none of {all:?}");
        answered.insert(answer.trim().to_owned());
        if answered == all { Ok(()) } else { Err(format!("{answered:?}")) }
    });
}

pub(crate) fn two_nodes_are_ready_and_every_process_is_shown(scene: &mut Scene) {
    let nodes = json(&scene.cluster.kubectl(), &["get", "nodes"]);
    let names: Vec<&str> =
        nodes["items"].as_array().expect("a list").iter().map(|node| text(node, "/metadata/name")).collect();
    assert_eq!(names, NODES);
    let table = scene.cluster.kubectl().run(&["get", "nodes", "--no-headers"]).ok();
    assert!(table.lines().all(|line| line.contains(" Ready ")), "{table}");
    for process in [
        "skep-control-plane",
        "containerd",
        "node-1-kubelet",
        "node-1-ebpf-proxy",
        "node-2-kubelet",
        "node-2-ebpf-proxy",
    ] {
        scene.cluster.pid(process).expect("it runs");
    }
}

pub(crate) fn no_node_has_a_rule_of_a_packet_filter(scene: &mut Scene) {
    apply(&scene.cluster.kubectl());
    for node in NODES {
        let rules = scene.cluster.in_node(node, &["iptables-save"]).expect("iptables-save");
        assert!(!rules.lines().any(|line| line.starts_with("-A")), "{rules}");
        assert_eq!(scene.cluster.in_node(node, &["nft", "list", "ruleset"]).expect("nft").trim(), "");
    }
    scene.cluster.kubectl().run(&["delete", "namespace", "hello"]).ok();
}

pub(crate) fn each_name_of_a_service_leads_to_it(scene: &mut Scene) {
    let kubectl = scene.cluster.kubectl();
    apply(&kubectl);
    for name in ["hello", "hello.hello", "hello.hello.svc", "hello.hello.svc.cluster.local"] {
        let url = format!("http://{name}/");
        let answer = kubectl.run(&["exec", "-n", "hello", "client", "--", "wget", "-qO-", &url]).ok();
        assert!(answer.starts_with("Hello from"), "{name}: {answer}");
    }
    for address in node_ports(&kubectl) {
        assert!(http_get(address).expect("an answer").starts_with("Hello from"));
    }
}

pub(crate) fn a_pod_connects_to_the_api_server_by_its_service(scene: &mut Scene) {
    let kubectl = scene.cluster.kubectl();
    apply(&kubectl);
    // busybox's own TLS is too old for the server, so the connection is all that is asked for.
    let connect = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null";
    kubectl.run(&["exec", "-n", "hello", "client", "--", "sh", "-c", connect]).ok();
}

/// So many replicas are ready, and the Service has so many endpoints.
pub(crate) fn is_served_by(kubectl: &Kubectl, count: usize) {
    let ready = ["get", "endpointslices", "-n", "hello", "-l", "kubernetes.io/service-name=hello", "-o"];
    let path = "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}x{end}";
    until(&format!("{count} endpoints are ready"), || {
        wanted(kubectl.run(&[&ready[..], &[path]].concat()), &"x".repeat(count))
    });
}
