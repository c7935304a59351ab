//! Pods' networks in real namespaces: `skep-cni` asks an agent's socket, and sockets in the pods meet. Needs root.

mod netns;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use netns::{Netns, ip};
use serde_json::{Value, json};
use skep_ebpf_proxy::cni::server;
use skep_ebpf_proxy::pods::Pods;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An agent that serves one namespace as its node.
struct Agent {
    netns: Netns,
    pods: Arc<Pods>,
    socket: PathBuf,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    folder: tempfile::TempDir,
}

impl Agent {
    async fn start(name: &str, network: &str) -> Self {
        let (netns, folder) = (Netns::new(name), tempfile::tempdir().expect("a folder"));
        let pods = Arc::new(Pods::open(folder.path(), netns.path(), None).expect("opened"));
        pods.set_network(network.parse().expect("a network")).await;
        let (socket, stop) = (folder.path().join("cni.sock"), CancellationToken::new());
        let (path, served, token) = (socket.clone(), Arc::clone(&pods), stop.clone());
        let server = tokio::spawn(async move { server::run(&path, served, token).await });
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        Self { netns, pods, socket, stop, server, folder }
    }

    async fn call(&self, command: &str, id: &str, netns: &Path, more: Value) -> (Value, bool) {
        cni(&self.socket, command, id, netns, more).await
    }

    async fn add(&self, id: &str, pod: &Netns) -> Ipv4Addr {
        let (result, ok) = self.call("ADD", id, &pod.path(), json!({})).await;
        assert!(ok, "{result}");
        let address = result["ips"][0]["address"].as_str().expect("an address");
        address.strip_suffix("/32").expect("a /32").parse().expect("an address")
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.await.expect("no panic").expect("served");
    }
}

async fn cni(socket: &Path, command: &str, id: &str, netns: &Path, more: Value) -> (Value, bool) {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "pods", "type": "skep-cni", "socket": socket });
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    let mut call = Command::new(env!("CARGO_BIN_EXE_skep-cni"));
    call.env("CNI_COMMAND", command).env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0").env("CNI_NETNS", netns);
    let call = move || -> Output {
        let mut child = call.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("built");
        child.stdin.take().expect("piped").write_all(config.to_string().as_bytes()).expect("written");
        child.wait_with_output().expect("ended")
    };
    let output = tokio::task::spawn_blocking(call).await.expect("no panic");
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), output.status.success())
}

/// A TCP connection from a pod to another's address.
fn reach(from: &Netns, to: &Netns, address: Ipv4Addr) {
    let listener = to.within(|| TcpListener::bind((address, 8080)).expect("the pod has its address"));
    let connect = || TcpStream::connect_timeout(&(address, 8080).into(), Duration::from_secs(10));
    drop(from.within(connect).expect("the pod is reached"));
    drop(listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_on_a_node_reach_each_other_and_leave_nothing() {
    let agent = Agent::start("node", "10.90.1.0/24").await;
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    let (at_a, at_b) = (agent.add("pod-a", &a).await, agent.add("pod-b", &b).await);
    assert_ne!(at_a, at_b);
    reach(&a, &b, at_b);
    reach(&b, &a, at_a);

    // Once more for the same container is the same, and for an agent that starts anew as well.
    assert_eq!(agent.add("pod-a", &a).await, at_a);
    let again = Pods::open(agent.folder.path(), agent.netns.path(), None).expect("opened");
    let check = skep_ebpf_proxy::cni::wire::Request::Check {
        attachment: skep_ebpf_proxy::cni::wire::Attachment { container_id: "pod-a".into(), ifname: "eth0".into() },
        netns: a.path(),
    };
    assert_eq!(again.answer(check).await.expect("known").expect("attached").address, at_a);

    // A check sees what is gone, and ADD repairs it.
    assert!(agent.call("CHECK", "pod-a", &a.path(), json!({})).await.1);
    ip(&["-n", &a.0, "address", "flush", "dev", "eth0"]);
    let (error, ok) = agent.call("CHECK", "pod-a", &a.path(), json!({})).await;
    assert!(!ok && error["code"] == 102, "{error}");
    assert_eq!(agent.add("pod-a", &a).await, at_a);
    reach(&b, &a, at_a);

    // GC keeps the valid ones; DEL is repeatable.
    let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "pod-b", "ifname": "eth0" }] });
    assert!(agent.call("GC", "", Path::new(""), valid).await.1);
    assert!(!agent.call("CHECK", "pod-a", &a.path(), json!({})).await.1);
    assert!(agent.call("CHECK", "pod-b", &b.path(), json!({})).await.1);
    for _ in 0..2 {
        assert!(agent.call("DEL", "pod-b", Path::new(""), json!({})).await.1);
    }
    let links = agent.netns.within(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("links"));
    assert!(!links.contains("skep"), "{links}");
    assert!(agent.call("STATUS", "", Path::new(""), json!({})).await.1);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_are_known_as_long_as_their_pod_even_to_the_next_agent() {
    let (agent, pod) = (Agent::start("ports", "10.92.1.0/24").await, Netns::new("ports-pod"));
    let mapping = |protocol: &str| json!({ "hostPort": 8080, "containerPort": 80, "protocol": protocol, "hostIP": "" });
    let ask = |protocol: &str| json!({ "runtimeConfig": { "portMappings": [mapping(protocol)] } });
    let (error, ok) = agent.call("ADD", "pod", &pod.path(), ask("sctp")).await;
    assert!(!ok && error["code"] == 7, "{error}");
    let (result, ok) = agent.call("ADD", "pod", &pod.path(), ask("tcp")).await;
    assert!(ok, "{result}");
    let known = agent.pods.host_ports().borrow().clone();
    assert_eq!(
        known.iter().map(|port| (port.address, port.port, port.pod_port)).collect::<Vec<_>>(),
        [(None, 8080, 80)]
    );
    let again = Pods::open(agent.folder.path(), agent.netns.path(), None).expect("opened");
    assert_eq!(*again.host_ports().borrow(), known);
    assert!(agent.call("DEL", "pod", &pod.path(), ask("tcp")).await.1);
    assert!(agent.pods.host_ports().borrow().is_empty());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_two_nodes_reach_each_other_by_native_routes() {
    let (one, two) = (Agent::start("one", "10.91.1.0/24").await, Agent::start("two", "10.91.2.0/24").await);
    ip(&[
        "-n",
        &one.netns.0,
        "link",
        "add",
        "up0",
        "mtu",
        "1400",
        "type",
        "veth",
        "peer",
        "up0",
        "netns",
        &two.netns.0,
    ]);
    for (node, address) in [(&one, "192.0.2.1/24"), (&two, "192.0.2.2/24")] {
        ip(&["-n", &node.netns.0, "address", "add", address, "dev", "up0"]);
        ip(&["-n", &node.netns.0, "link", "set", "up0", "up"]);
    }
    let route = |network: &str, by| [(network.parse().expect("a network"), by)].into();
    let to_two: std::collections::BTreeMap<_, _> = route("10.91.2.0/24", Ipv4Addr::new(192, 0, 2, 2));
    assert_eq!(one.pods.sync_routes(to_two.clone()).await.expect("routed"), (1, 0));
    assert_eq!(one.pods.sync_routes(to_two).await.expect("routed"), (0, 0));
    let to_one = route("10.91.1.0/24", Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(two.pods.sync_routes(to_one).await.expect("routed"), (1, 0));

    let (a, b) = (Netns::new("c"), Netns::new("d"));
    let (at_a, at_b) = (one.add("pod", &a).await, two.add("pod", &b).await);
    reach(&a, &b, at_b);
    reach(&b, &a, at_a);
    assert_eq!(one.pods.sync_routes([].into()).await.expect("removed"), (0, 1));
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn without_an_agent_the_plugin_fails_in_the_form_of_cni() {
    let nowhere = Path::new("/nonexistent/cni.sock");
    let (error, ok) = cni(nowhere, "ADD", "pod", Path::new("/proc/self/ns/net"), json!({})).await;
    assert!(!ok && error["code"] == 11 && error["cniVersion"] == "1.1.0" && error["msg"].is_string(), "{error}");
    let (error, ok) = cni(nowhere, "STATUS", "", Path::new(""), json!({})).await;
    assert!(!ok && error["code"] == 50, "{error}");
    let (error, ok) = cni(nowhere, "ADD", "../pod", Path::new("/proc/self/ns/net"), json!({})).await;
    assert!(!ok && error["code"] == 4, "{error}");
    let (error, ok) = cni(nowhere, "ADD", "pod", Path::new(""), json!({ "cniVersion": "0.1.0" })).await;
    assert!(!ok && error["code"] == 1, "{error}");
    let (versions, ok) = cni(nowhere, "VERSION", "", Path::new(""), json!({})).await;
    assert!(ok && versions["supportedVersions"] == json!(["1.0.0", "1.1.0"]), "{versions}");
}
