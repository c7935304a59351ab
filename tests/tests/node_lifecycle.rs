//! What becomes of a node's pods when its kubelet falls silent, is tainted, or is gone. The test plays the kubelet.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use skep_tests::{ControlPlane, eventually};
use tokio::task::JoinHandle;

/// Short enough that a silent node is soon called so, and long enough that one that renews on a busy machine isn't.
const GRACE: &str = "--node-monitor-grace-period=6s";

fn read<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    api.create(&PostParams::default(), &read(object)).await.expect("created")
}

/// A kubelet's signs of life; they end with it.
struct Kubelet {
    renewing: JoinHandle<()>,
}

impl Kubelet {
    /// Registers a node that is not ready yet, as a kubelet does.
    async fn register(client: &Client, name: &str) -> Self {
        let nodes: Api<Node> = Api::all(client.clone());
        create(&nodes, json!({"metadata": {"name": name}})).await;
        let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
        let spec = || json!({"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micros()});
        create(&leases, json!({"metadata": {"name": name}, "spec": spec()})).await;
        report(client, name, "False").await;
        let name = name.to_owned();
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                let patch = json!({"spec": {"renewTime": micros()}});
                // A renewal that fails is made up for by the next.
                let _ = leases.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            }
        });
        Self { renewing }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

fn micros() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Posts a node's status.
async fn report(client: &Client, node: &str, ready: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "Test", "message": "as the test says",
               "lastHeartbeatTime": Timestamp::now().to_string(), "lastTransitionTime": Timestamp::now().to_string()})
    };
    let pressures = ["MemoryPressure", "DiskPressure", "PIDPressure"];
    let mut conditions: Vec<_> = pressures.iter().map(|kind| condition(kind, "False")).collect();
    conditions.push(condition("Ready", ready));
    let patch = json!({"status": {"conditions": conditions}});
    nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(&patch)).await.expect("a status");
}

/// A pod that is bound to a node, runs and is ready.
async fn running(client: &Client, name: &str, node: &str, address: &str, tolerations: Value) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "tolerations": tolerations, "containers": [{"name": "c", "image": "i"}]},
    });
    // The namespace's ServiceAccount, which every pod needs, comes a moment after the start.
    eventually("a pod is taken", || async {
        match pods.create(&PostParams::default(), &read(pod.clone())).await {
            Err(kube::Error::Api(status)) if status.code == 403 => None,
            created => Some(created.expect("a pod")),
        }
    })
    .await;
    let patch = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now().to_string()}],
    }});
    pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.expect("a status")
}

fn taints(node: &Node) -> Vec<String> {
    let all = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut all: Vec<_> = all.map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
    all.sort_unstable();
    all
}

async fn tainted(client: &Client, node: &str, expected: &[&str]) -> Node {
    let nodes: Api<Node> = Api::all(client.clone());
    eventually(&format!("{node} has the taints {expected:?}"), || async {
        nodes.get(node).await.ok().filter(|node| taints(node) == expected)
    })
    .await
}

/// Waits for an event of that reason and note about an object.
async fn told(client: &Client, reason: &str, note: &str) {
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    eventually(&format!("an event {reason}: {note}"), || async {
        let all = events.list(&ListParams::default()).await.ok()?;
        let is = |event: &&Event| event.reason.as_deref() == Some(reason) && event.message.as_deref() == Some(note);
        all.items.iter().find(is).map(|_| ())
    })
    .await;
}

fn condition(pod: &Pod, kind: &str) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_falls_silent_loses_its_pods_and_takes_new_ones_when_it_is_back() {
    let cluster = ControlPlane::start_with(&[GRACE]).await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let (services, slices): (Api<Service>, Api<EndpointSlice>) =
        (Api::namespaced(client.clone(), "default"), Api::namespaced(client.clone(), "default"));
    create(
        &services,
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    )
    .await;
    let _well = Kubelet::register(&client, "well").await;
    let silent = Kubelet::register(&client, "silent").await;
    // While no node is ready none is given up, so no taint drives pods away.
    tainted(&client, "silent", &["node.kubernetes.io/not-ready:NoSchedule"]).await;
    for node in ["well", "silent"] {
        report(&client, node, "True").await;
        tainted(&client, node, &[]).await;
        told(&client, "RegisteredNode", &format!("Node {node} event: Registered Node {node} in Controller")).await;
    }
    running(&client, "stays", "well", "10.244.0.1", json!([])).await;
    let bears = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]);
    running(&client, "bears", "silent", "10.244.1.1", bears).await;
    let hasty = json!([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]);
    running(&client, "hasty", "silent", "10.244.1.2", hasty).await;
    let ready = || async {
        let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.ok()?;
        let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
        let ready =
            endpoints.filter(|one| one.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
        let mut addresses: Vec<_> = ready.flat_map(|one| one.addresses).collect();
        addresses.sort_unstable();
        Some(addresses)
    };
    eventually("all pods are endpoints", || async {
        ready().await.filter(|addresses| *addresses == ["10.244.0.1", "10.244.1.1", "10.244.1.2"])
    })
    .await;

    drop(silent);
    let unreachable = ["node.kubernetes.io/unreachable:NoExecute", "node.kubernetes.io/unreachable:NoSchedule"];
    let node = tainted(&client, "silent", &unreachable).await;
    for condition in node.status.and_then(|status| status.conditions).expect("conditions") {
        let said = (condition.status.as_str(), condition.reason.as_deref(), condition.message.as_deref());
        let words = Some("Kubelet stopped posting node status.");
        assert_eq!(said, ("Unknown", Some("NodeStatusUnknown"), words), "{}", condition.type_);
    }
    told(&client, "NodeNotReady", "Node silent status is now: NodeNotReady").await;
    told(&client, "NodeNotReady", "Node is not ready").await;
    eventually("the silent node's pods are no endpoints", || async {
        ready().await.filter(|addresses| *addresses == ["10.244.0.1"])
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let hasty = eventually("the pod whose time is over is deleted", || async {
        pods.get("hasty").await.ok().filter(|pod| pod.metadata.deletion_timestamp.is_some())
    })
    .await;
    assert_eq!(condition(&hasty, "DisruptionTarget"), Some(("True".into(), "DeletionByTaintManager".into())));
    told(&client, "TaintManagerEviction", "Marking for deletion Pod default/hasty").await;
    let bears = pods.get("bears").await.expect("the pod that bears it");
    assert_eq!(condition(&bears, "Ready").map(|(status, _)| status), Some("False".into()));
    assert_eq!(bears.metadata.deletion_timestamp, None);
    assert_eq!(taints(&Api::<Node>::all(client.clone()).get("well").await.expect("a node")), [""; 0]);

    report(&client, "silent", "True").await;
    tainted(&client, "silent", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taint_drives_pods_away_that_do_not_bear_it_and_its_end_calls_the_others_back() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let _kubelet = Kubelet::register(&client, "node").await;
    report(&client, "node", "True").await;
    tainted(&client, "node", &[]).await;
    running(&client, "bare", "node", "10.244.0.1", json!([])).await;
    let patient =
        json!([{"key": "maintenance", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3600}]);
    running(&client, "patient", "node", "10.244.0.2", patient).await;
    let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::namespaced(client.clone(), "default"));

    let taint = |taints: Value| json!({"spec": {"taints": taints}});
    let tainting = taint(json!([{"key": "maintenance", "effect": "NoExecute"}]));
    nodes.patch("node", &PatchParams::default(), &Patch::Merge(&tainting)).await.expect("a taint");
    let bare = eventually("the pod that doesn't bear the taint is deleted", || async {
        pods.get("bare").await.ok().filter(|pod| pod.metadata.deletion_timestamp.is_some())
    })
    .await;
    assert_eq!(condition(&bare, "DisruptionTarget"), Some(("True".into(), "DeletionByTaintManager".into())));
    assert_eq!(condition(&bare, "Ready").map(|(status, _)| status), Some("True".into()));
    told(&client, "TaintManagerEviction", "Marking for deletion Pod default/bare").await;

    nodes.patch("node", &PatchParams::default(), &Patch::Merge(&taint(json!(null)))).await.expect("no taint");
    told(&client, "TaintManagerEviction", "Cancelling deletion of Pod default/patient").await;
    assert_eq!(pods.get("patient").await.expect("it stays").metadata.deletion_timestamp, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_when_their_node_is_gone_or_nobody_would_end_them() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::namespaced(client.clone(), "default"));
    let kubelet = Kubelet::register(&client, "node").await;
    report(&client, "node", "True").await;
    let orphan = running(&client, "orphan", "node", "10.244.0.1", json!([])).await;
    // A finalizer holds it, so that what was written before its end can be read.
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    pods.patch("orphan", &PatchParams::default(), &Patch::Merge(&held)).await.expect("a finalizer");
    running(&client, "free", "node", "10.244.0.2", json!([])).await;

    drop(kubelet);
    nodes.delete("node", &DeleteParams::default()).await.expect("deleted");
    told(&client, "RemovingNode", "Node node event: Removing Node node from Controller").await;
    let ended = eventually("the orphan is failed and deleted", || async {
        pods.get("orphan").await.ok().filter(|pod| pod.metadata.deletion_timestamp.is_some())
    })
    .await;
    assert_eq!(ended.metadata.uid, orphan.metadata.uid);
    assert_eq!(ended.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Failed"));
    assert_eq!(condition(&ended, "DisruptionTarget"), Some(("True".into(), "DeletionByPodGC".into())));
    eventually("the orphan that nothing holds is gone", || async {
        pods.get_opt("free").await.ok()?.is_none().then_some(())
    })
    .await;

    let released = json!({"metadata": {"finalizers": null}});
    pods.patch("orphan", &PatchParams::default(), &Patch::Merge(&released)).await.expect("no finalizer");
    eventually("the orphan is gone once nothing holds it", || async {
        pods.get_opt("orphan").await.ok()?.is_none().then_some(())
    })
    .await;

    // Nothing schedules without a node; the finalizer keeps the pod in its deletion.
    let pending = json!({
        "metadata": {"name": "pending", "finalizers": ["example.com/held"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    create(&pods, pending).await;
    pods.delete("pending", &DeleteParams::default()).await.expect("deletion");
    eventually("the unscheduled pod is failed", || async {
        let pod = pods.get("pending").await.ok()?;
        (pod.status?.phase.as_deref() == Some("Failed")).then_some(())
    })
    .await;
}
