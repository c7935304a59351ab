//! The driver against a real API server in this process: what users see of a scheduler.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_client::{InProcessUser, in_process};
use skep_scheduler::Options;
use skep_store::embedded::{Embedded, Options as StoreOptions};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long a condition may take that only a fault would miss.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of an API server and a scheduler.
struct Cluster {
    _folder: TempDir,
    server: ApiServer,
    client: Client,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let shutdown = CancellationToken::new();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let pki = Pki::open_or_create(&folder.path().join("pki"), &[loopback.to_string()], Timestamp::now());
        let config = Config {
            store: Arc::new(Embedded::open(folder.path().join("store"), StoreOptions::default()).expect("a store")),
            pki: Arc::new(pki.expect("certificates")),
            listen: SocketAddr::new(loopback, 0),
            advertise: loopback,
            ranges: Ranges::new("10.96.0.0/16", 30000..=32767).expect("ranges"),
        };
        let server = ApiServer::start(config, shutdown.clone()).await.expect("an API server");
        server.ready().await;
        let client = client(&server, "admin", "system:masters");
        // No controller runs here, so the account that admission asks for is made by hand.
        let account: ServiceAccount = read(json!({"metadata": {"name": "default"}}));
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
        accounts.create(&PostParams::default(), &account).await.expect("the account is created");
        // With the rights of upstream's role and no more.
        let scheduler = self::client(&server, "system:kube-scheduler", "system:authenticated");
        let tasks = skep_scheduler::run(scheduler, Options::default(), shutdown.clone());
        Self { _folder: folder, server, client, tasks, shutdown }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.server.stop().await;
    }

    async fn add_node(&self, name: &str, cpu: &str) {
        let node: Node = read(json!({
            "metadata": {"name": name},
            "status": {
                "allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"},
                "capacity": {"cpu": cpu, "memory": "4Gi", "pods": "110"},
            },
        }));
        let api = Api::<Node>::all(self.client.clone());
        api.create(&PostParams::default(), &node).await.expect("the node is created");
        // Admission taints new nodes as not ready until someone, here the test, says otherwise.
        let untainted = kube::api::Patch::Merge(json!({"spec": {"taints": null}}));
        api.patch(name, &kube::api::PatchParams::default(), &untainted).await.expect("the taints go");
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn add_pod(&self, name: &str, cpu: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}],
            },
        });
        change(&mut pod);
        self.pods().create(&PostParams::default(), &read(pod)).await.expect("the pod is created");
    }

    /// Waits until the pod is as asked.
    async fn pod_until(&self, name: &str, what: impl Fn(&Pod) -> bool) -> Pod {
        let named = watcher::Config::default().fields(&format!("metadata.name={name}"));
        first(self.pods(), named, what).await
    }

    async fn event_until(&self, what: impl Fn(&Event) -> bool) -> Event {
        first(Api::namespaced(self.client.clone(), "default"), watcher::Config::default(), what).await
    }
}

fn client(server: &ApiServer, name: &str, group: &str) -> Client {
    let service = server.service().map_request(|mut request: http::Request<_>| {
        if let Some(user) = request.extensions_mut().remove::<InProcessUser>() {
            request.extensions_mut().insert(TrustedUser(User::authenticated(user.name, user.groups)));
        }
        request
    });
    in_process(service, InProcessUser { name: name.to_owned(), groups: vec![group.to_owned()] }, "test")
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of the kind")
}

async fn first<K>(api: Api<K>, config: watcher::Config, what: impl Fn(&K) -> bool) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let mut objects = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    let found = async {
        loop {
            let object = objects.try_next().await.expect("the watch goes on").expect("the watch has no end");
            if what(&object) {
                return object;
            }
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("the object becomes as asked")
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn scheduled(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "PodScheduled")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_and_an_event_says_so() {
    let cluster = Cluster::start().await;
    cluster.add_node("node", "2").await;
    cluster.add_pod("a", "1", |_| {}).await;
    let pod = cluster.pod_until("a", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(&pod), Some("node"));
    assert_eq!(scheduled(&pod).map(|condition| condition.status.as_str()), Some("True"));
    let event = cluster.event_until(|event| event.reason.as_deref() == Some("Scheduled")).await;
    assert_eq!(event.note.as_deref(), Some("Successfully assigned default/a to node"));
    assert_eq!(event.action.as_deref(), Some("Binding"));
    assert_eq!(event.reporting_controller.as_deref(), Some("default-scheduler"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_room_is_told_why_and_bound_when_a_node_comes() {
    let cluster = Cluster::start().await;
    cluster.add_node("small", "1").await;
    cluster.add_pod("a", "2", |_| {}).await;
    let said = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                1 Preemption is not helpful for scheduling.";
    let told = |pod: &Pod| scheduled(pod).is_some_and(|condition| condition.message.as_deref() == Some(said));
    let pod = cluster.pod_until("a", told).await;
    let condition = scheduled(&pod).expect("a condition");
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("Unschedulable")));
    let event = cluster.event_until(|event| event.reason.as_deref() == Some("FailedScheduling")).await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    cluster.add_node("large", "4").await;
    let pod = cluster.pod_until("a", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(&pod), Some("large"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_makes_room_for_one_that_waits() {
    let cluster = Cluster::start().await;
    cluster.add_node("node", "1").await;
    cluster.add_pod("first", "1", |_| {}).await;
    cluster.pod_until("first", |pod| node_of(pod).is_some()).await;
    cluster.add_pod("second", "1", |_| {}).await;
    cluster.pod_until("second", |pod| scheduled(pod).is_some_and(|condition| condition.status == "False")).await;
    let at_once = DeleteParams::default().grace_period(0);
    cluster.pods().delete("first", &at_once).await.expect("the pod is deleted");
    cluster.pod_until("second", |pod| node_of(pod) == Some("node")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_pod_is_bound_after_its_gates_are_gone() {
    let cluster = Cluster::start().await;
    cluster.add_node("node", "2").await;
    cluster.add_pod("gated", "1", |pod| pod["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}])).await;
    cluster.add_pod("free", "1", |_| {}).await;
    cluster.pod_until("free", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(&cluster.pods().get("gated").await.expect("the pod")), None);
    let open = kube::api::Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    let opened = cluster.pods().patch("gated", &kube::api::PatchParams::default(), &open).await;
    opened.expect("the gates go");
    cluster.pod_until("gated", |pod| node_of(pod) == Some("node")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_fill_the_nodes_and_never_more() {
    let cluster = Cluster::start().await;
    for name in ["x", "y", "z"] {
        cluster.add_node(name, "2").await;
    }
    for number in 0..20 {
        cluster.add_pod(&format!("p{number}"), "200m", |_| {}).await;
    }
    let mut taken = std::collections::BTreeMap::<String, u32>::new();
    for number in 0..20 {
        let pod = cluster.pod_until(&format!("p{number}"), |pod| node_of(pod).is_some()).await;
        *taken.entry(node_of(&pod).expect("a node").to_owned()).or_default() += 200;
    }
    assert_eq!(taken.len(), 3);
    assert!(taken.values().all(|milli| *milli <= 2000), "{taken:?}");
    cluster.stop().await;
}
