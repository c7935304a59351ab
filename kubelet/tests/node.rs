//! The node's registration, heartbeat and statuses against a real API server in this process, with a kubelet's rights.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_client::{EventRecorder, InProcessUser, in_process};
use skep_kubelet::node::{ImagesSource, LEASE_NAMESPACE, NodeConfig, NodeImage, NodeRegistration, NodeView, Readiness};
use skep_kubelet::pod::observation::{ContainerObservation, ContainerState, PodObservation};
use skep_kubelet::pod::status::{NodeFacts, status, status_patch};
use skep_store::embedded::{Embedded, Options as StoreOptions};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long a condition may take that only a fault would miss.
const LIMIT: Duration = Duration::from_secs(60);

struct Images;

#[async_trait]
impl ImagesSource for Images {
    async fn images(&self) -> Result<Vec<NodeImage>, String> {
        Ok(vec![NodeImage { names: vec!["docker.io/library/busybox:latest".to_owned()], size_bytes: 42 }])
    }
}

/// An API server, and what a kubelet needs to keep its node.
struct Cluster {
    folder: TempDir,
    server: ApiServer,
    admin: Client,
    tasks: JoinSet<()>,
    readiness: watch::Sender<Readiness>,
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
        let admin = client(&server, "admin", "system:masters");
        let ready = Readiness { runtime_version: Some("1.6.20".to_owned()), ..Readiness::default() };
        let (readiness, _) = watch::channel(ready);
        Self { folder, server, admin, tasks: JoinSet::new(), readiness, shutdown }
    }

    fn kubelet(&self) -> Client {
        client(&self.server, "system:node:n1", "system:nodes")
    }

    fn config(&self) -> NodeConfig {
        let mut config = NodeConfig::new("n1", self.folder.path().to_owned());
        config.node_ips = vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))];
        config
    }

    fn run(&mut self, config: NodeConfig) -> NodeView {
        let readiness = self.readiness.subscribe();
        let node = NodeRegistration::new(self.kubelet(), config, Arc::new(Images), readiness, EventRecorder::none());
        let view = node.view();
        self.tasks.spawn(node.run(self.shutdown.clone()));
        view
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.server.stop().await;
    }

    async fn node_until(&self, what: impl Fn(&Node) -> bool) -> Node {
        let named = watcher::Config::default().fields("metadata.name=n1");
        first(Api::<Node>::all(self.admin.clone()), named, what).await
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.admin.clone(), LEASE_NAMESPACE)
    }

    async fn lease_until(&self, what: impl Fn(&Lease) -> bool) -> Lease {
        first(self.leases(), watcher::Config::default(), what).await
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

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn is(node: &Node, kind: &str, status: &str) -> bool {
    condition(node, kind).is_some_and(|condition| condition.status == status)
}

#[tokio::test]
async fn a_kubelet_registers_its_node_and_sends_heartbeats() {
    let mut cluster = Cluster::start().await;
    let view = cluster.run(cluster.config());
    let node = cluster.node_until(|node| is(node, "Ready", "True")).await;
    let lease = cluster.lease_until(|_| true).await;
    let status = node.status.expect("status");
    assert_eq!(node.metadata.labels.expect("labels")["kubernetes.io/hostname"], "n1");
    assert_eq!(status.addresses.expect("addresses")[0].address, "10.0.0.1");
    assert_eq!(status.node_info.expect("info").container_runtime_version, "containerd://1.6.20");
    assert_eq!(status.images.expect("images")[0].size_bytes, Some(42));
    let spec = lease.spec.expect("spec");
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n1"), Some(40)));
    assert_eq!(lease.metadata.owner_references.expect("owners")[0].uid, node.metadata.uid.expect("uid"));
    assert_eq!(view.facts().host_ips, [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_tells_at_once_when_it_can_run_no_pods_any_more() {
    let mut cluster = Cluster::start().await;
    cluster.run(cluster.config());
    cluster.node_until(|node| is(node, "Ready", "True")).await;
    cluster.readiness.send_modify(|readiness| readiness.runtime = Some("container runtime is down".to_owned()));
    let node = cluster.node_until(|node| is(node, "Ready", "False")).await;
    let ready = condition(&node, "Ready").expect("a condition");
    assert_eq!(ready.message.as_deref(), Some("container runtime is down"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_is_there_is_taken_over_with_what_others_wrote() {
    let mut cluster = Cluster::start().await;
    let before: Node = read(json!({
        "metadata": {"name": "n1", "labels": {"team": "a", "kubernetes.io/hostname": "other"}},
        "status": {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]},
    }));
    Api::<Node>::all(cluster.admin.clone()).create(&PostParams::default(), &before).await.expect("a node");
    cluster.run(cluster.config());
    let node = cluster.node_until(|node| is(node, "Ready", "True")).await;
    let labels = node.metadata.labels.clone().expect("labels");
    assert_eq!((labels["team"].as_str(), labels["kubernetes.io/hostname"].as_str()), ("a", "n1"));
    assert!(is(&node, "NetworkUnavailable", "False"));
    let addresses = node.status.and_then(|status| status.addresses).expect("addresses");
    assert_eq!(addresses.iter().map(|a| a.type_.as_str()).collect::<Vec<_>>(), ["InternalIP", "Hostname"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_condition_that_another_turned_is_set_right() {
    let mut cluster = Cluster::start().await;
    let mut config = cluster.config();
    config.status_update = Duration::from_millis(50);
    cluster.run(config);
    cluster.node_until(|node| is(node, "Ready", "True")).await;
    let unknown = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    let nodes = Api::<Node>::all(cluster.admin.clone());
    let written = nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(unknown)).await.expect("a patch");
    assert!(is(&written, "Ready", "Unknown"));
    cluster.node_until(|node| is(node, "Ready", "True")).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_lease_that_was_deleted_is_made_anew() {
    let mut cluster = Cluster::start().await;
    let mut config = cluster.config();
    config.lease_duration = Duration::from_secs(4);
    cluster.run(config);
    let before = cluster.lease_until(|_| true).await;
    cluster.leases().delete("n1", &DeleteParams::default()).await.expect("a deletion");
    cluster.lease_until(|lease| lease.metadata.uid != before.metadata.uid).await;
    cluster.stop().await;
}

/// A pod bound to the node `n1`, with what was seen of it there.
async fn bound_pod(cluster: &Cluster) -> (Pod, PodObservation, NodeFacts) {
    let account: ServiceAccount = read(json!({"metadata": {"name": "default"}}));
    let accounts = Api::<ServiceAccount>::namespaced(cluster.admin.clone(), "default");
    accounts.create(&PostParams::default(), &account).await.expect("the account is created");
    let mount = json!({"name": "v", "mountPath": "/v", "readOnly": true});
    let pod: Pod = read(json!({
        "metadata": {"name": "p"},
        "spec": {
            "nodeName": "n1",
            "automountServiceAccountToken": false,
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [{"name": "init", "image": "i"}],
            "containers": [{
                "name": "c", "image": "i", "volumeMounts": [mount], "resources": {"requests": {"cpu": "100m"}},
            }],
        },
    }));
    let pods = Api::<Pod>::namespaced(cluster.admin.clone(), "default");
    let pod = pods.create(&PostParams::default(), &pod).await.expect("the pod is created");
    let container = ContainerObservation {
        id: "c0".to_owned(),
        attempt: 0,
        short_runs: 0,
        resources: Default::default(),
        restart: false,
        image: "i".to_owned(),
        image_id: "i@sha256:1".to_owned(),
        volume_images: Default::default(),
        state: running(false),
        last: None,
    };
    let seen = PodObservation {
        sandbox: true,
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 1, 0, 7))],
        containers: [("c".to_owned(), container)].into(),
        ..PodObservation::default()
    };
    (pod, seen, NodeFacts { host_ips: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))] })
}

fn running(ready: bool) -> ContainerState {
    ContainerState::Running { started_at: Timestamp::now(), started: true, ready, unhealthy: false, stopping: false }
}

/// Writes what was seen as the kubelet does, and gives back the pod as the API has it then.
async fn write(cluster: &Cluster, pod: &Pod, seen: &PodObservation, facts: &NodeFacts) -> Pod {
    let wanted = status(pod, seen, facts, Timestamp::now());
    let patch = Patch::Strategic(status_patch(pod.metadata.uid.as_deref().expect("uid"), &wanted));
    let own = Api::<Pod>::namespaced(cluster.kubelet(), "default");
    own.patch_status("p", &PatchParams::default(), &patch).await.expect("the status is written")
}

#[tokio::test]
async fn the_status_of_a_pod_is_taken_by_the_api() {
    let cluster = Cluster::start().await;
    let (pod, seen, facts) = bound_pod(&cluster).await;
    let written = write(&cluster, &pod, &seen, &facts).await;
    assert_eq!(written.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Running"));
    // What was written is what is made again of what came back, so that nothing is written twice.
    assert_eq!(written.status, Some(status(&written, &seen, &facts, Timestamp::now())));
    cluster.stop().await;
}

#[tokio::test]
async fn a_status_leaves_nothing_of_the_one_before() {
    let cluster = Cluster::start().await;
    let (pod, mut seen, facts) = bound_pod(&cluster).await;
    let before = write(&cluster, &pod, &seen, &facts).await;
    seen.addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 1, 0, 8))];
    seen.containers.get_mut("c").expect("the container").state = running(true);
    let after = write(&cluster, &before, &seen, &facts).await.status.expect("a status");
    let ready = after.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").expect("a condition");
    assert_eq!((ready.status.as_str(), &ready.reason, &ready.message), ("True", &None, &None));
    let ips: Vec<_> = after.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    assert_eq!(ips, ["10.1.0.8"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_status_is_refused_for_another_pod_of_that_name() {
    let cluster = Cluster::start().await;
    let (pod, seen, facts) = bound_pod(&cluster).await;
    let patch = Patch::Strategic(status_patch("other", &status(&pod, &seen, &facts, Timestamp::now())));
    let own = Api::<Pod>::namespaced(cluster.kubelet(), "default");
    let error = own.patch_status("p", &PatchParams::default(), &patch).await.expect_err("a refusal");
    assert!(skep_client::is_conflict_or_exists(&error), "{error}");
    cluster.stop().await;
}
