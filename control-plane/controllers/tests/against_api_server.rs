//! The workload controllers against a real API server in this process. A task stands in for the kubelets: it runs each pod at
//! once, ends those of Jobs, and lets go of those that are deleted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Node, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_client::{InProcessUser, in_process};
use skep_controllers::Options;
use skep_store::embedded::{Embedded, Options as StoreOptions};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long a condition may take that only a fault would miss.
const LIMIT: Duration = Duration::from_secs(60);

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
        let client = client(&server, "admin");
        let mut tasks =
            skep_controllers::run(self::client(&server, "controllers"), Options::default(), shutdown.clone());
        let (kubelet, end) = (client.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = run_pods(kubelet) => {}
            }
        });
        let cluster = Self { _folder: folder, server, client, tasks, shutdown };
        // The account that admission asks for is a controller's work.
        cluster.until::<k8s_openapi::api::core::v1::ServiceAccount>("default", |_| true).await;
        cluster
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.server.stop().await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object of the kind");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("it is created")
    }

    async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.expect("it is patched");
    }

    /// Waits until the object is as asked.
    async fn until<K>(&self, name: &str, what: impl Fn(&K) -> bool) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let named = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut objects = std::pin::pin!(watcher(self.api::<K>(), named).default_backoff().applied_objects());
        let mut last = None;
        let found = async {
            loop {
                let object = objects.try_next().await.expect("the watch goes on").expect("the watch has no end");
                if what(&object) {
                    return object;
                }
                last = Some(object);
            }
        };
        let found = tokio::time::timeout(LIMIT, found).await;
        found.unwrap_or_else(|_| panic!("{name} never became as asked, last it was {last:#?}"))
    }

    async fn pods(&self, selector: &str) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default().labels(selector)).await.expect("a list").items
    }
}

fn client(server: &ApiServer, name: &str) -> Client {
    let service = server.service().map_request(|mut request: http::Request<_>| {
        if let Some(user) = request.extensions_mut().remove::<InProcessUser>() {
            request.extensions_mut().insert(TrustedUser(User::authenticated(user.name, user.groups)));
        }
        request
    });
    in_process(service, InProcessUser { name: name.to_owned(), groups: vec!["system:masters".to_owned()] }, "test")
}

/// What kubelets do, as far as controllers see it.
async fn run_pods(client: Client) {
    let all = Api::<Pod>::all(client.clone());
    let mut pods = std::pin::pin!(watcher(all, watcher::Config::default()).default_backoff().applied_objects());
    while let Ok(Some(pod)) = pods.try_next().await {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (api, name) = (Api::<Pod>::namespaced(client.clone(), namespace), pod.metadata.name.unwrap_or_default());
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            // One that waits for a finalizer comes again; one that is gone is gone.
            let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
        } else if phase == "Pending" {
            let of_job = pod.metadata.labels.is_some_and(|labels| labels.contains_key("batch.kubernetes.io/job-name"));
            let status = if of_job {
                json!({"phase": "Succeeded"})
            } else {
                let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                json!({"phase": "Running", "podIP": "10.1.0.9", "podIPs": [{"ip": "10.1.0.9"}],
                       "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]})
            };
            let patch = Patch::Merge(json!({"status": status}));
            let _ = api.patch_status(&name, &PatchParams::default(), &patch).await;
        }
    }
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}},
           "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes_and_its_pods_are_free_of_its_finalizer() {
    let cluster = Cluster::start().await;
    let mut template = template("work");
    template["spec"]["restartPolicy"] = json!("Never");
    let spec = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed", "template": template});
    cluster.create::<Job>(json!({"metadata": {"name": "work"}, "spec": spec})).await;
    let complete = |job: &Job| {
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|own| own.iter().any(|own| own.type_ == "Complete" && own.status == "True"))
    };
    let status = cluster.until::<Job>("work", complete).await.status.expect("a status");
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(3), Some("0-2")));
    let pods = cluster.pods("batch.kubernetes.io/job-name=work").await;
    assert_eq!(pods.len(), 3);
    let finalizers: Vec<_> = pods.iter().flat_map(|pod| pod.metadata.finalizers.iter().flatten()).collect();
    assert!(finalizers.is_empty(), "{finalizers:?}");
    let patch = json!({"spec": {"ttlSecondsAfterFinished": 0}});
    cluster.patch::<Job>("work", patch).await;
    let jobs = cluster.api::<Job>();
    let gone = kube::runtime::wait::await_condition(jobs, "work", |job: Option<&Job>| job.is_none());
    tokio::time::timeout(LIMIT, gone).await.expect("it goes").expect("the watch goes on");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_comes_up_in_order_rolls_out_a_revision_and_scales_down() {
    let cluster = Cluster::start().await;
    let spec = json!({"replicas": 2, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}}, "template": template("web")});
    cluster.create::<StatefulSet>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let ready = |set: &StatefulSet, count| set.status.as_ref().is_some_and(|own| own.ready_replicas == Some(count));
    let set = cluster.until::<StatefulSet>("web", |set| ready(set, 2)).await;
    let first = set.status.expect("a status").current_revision.expect("a revision");
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "other"}]}}}});
    cluster.patch::<StatefulSet>("web", image).await;
    let updated = |set: &StatefulSet| {
        let status = set.status.as_ref();
        ready(set, 2)
            && status.is_some_and(|own| own.updated_replicas == Some(2) && own.current_revision != Some(first.clone()))
    };
    cluster.until::<StatefulSet>("web", updated).await;
    let revisions = cluster.api::<ControllerRevision>().list(&ListParams::default()).await.expect("a list");
    assert_eq!(revisions.items.len(), 2);
    let pods = cluster.pods("statefulset.kubernetes.io/pod-name=web-1").await;
    assert_eq!(pods[0].spec.as_ref().expect("a spec").containers[0].image.as_deref(), Some("other"));
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 0}})).await;
    cluster.until::<StatefulSet>("web", |set| set.status.as_ref().is_some_and(|own| own.replicas == 0)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_has_a_pod_on_each_node_and_a_replication_controller_as_many_as_asked_for() {
    let cluster = Cluster::start().await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    for name in ["a", "b"] {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a node");
        nodes.create(&PostParams::default(), &node).await.expect("the node is created");
        let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
        nodes.patch(name, &PatchParams::default(), &untainted).await.expect("the taints go");
    }
    let spec = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template("d")});
    cluster.create::<DaemonSet>(json!({"metadata": {"name": "d"}, "spec": spec})).await;
    cluster.until::<DaemonSet>("d", |set| set.status.as_ref().is_some_and(|own| own.number_ready == 2)).await;
    let spec = json!({"replicas": 3, "selector": {"app": "rc"}, "template": template("rc")});
    cluster.create::<ReplicationController>(json!({"metadata": {"name": "rc"}, "spec": spec})).await;
    let ready = |own: &ReplicationController| own.status.as_ref().is_some_and(|own| own.ready_replicas == Some(3));
    cluster.until::<ReplicationController>("rc", ready).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_follow_a_services_pods_and_those_of_a_user_are_mirrored() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": template("web")["spec"]});
    cluster.create::<Pod>(pod).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    cluster.create::<Service>(service).await;
    let has_address = |own: &Endpoints| own.subsets.iter().flatten().any(|subset| subset.addresses.is_some());
    let endpoints = cluster.until::<Endpoints>("web", has_address).await;
    assert_eq!(endpoints.subsets.expect("subsets")[0].addresses.as_ref().expect("addresses")[0].ip, "10.1.0.9");
    cluster.create::<Service>(json!({"metadata": {"name": "custom"}, "spec": {"ports": [{"port": 80}]}})).await;
    let subsets = json!([{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]);
    cluster.create::<Endpoints>(json!({"metadata": {"name": "custom"}, "subsets": subsets})).await;
    let slices = watcher::Config::default().labels("kubernetes.io/service-name=custom");
    let mut slices =
        std::pin::pin!(watcher(cluster.api::<EndpointSlice>(), slices).default_backoff().applied_objects());
    let slice = tokio::time::timeout(LIMIT, slices.try_next()).await.expect("a slice in time");
    let slice = slice.expect("the watch goes on").expect("a slice");
    assert_eq!(slice.endpoints.expect("endpoints")[0].addresses, ["10.1.2.3"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_counts_what_there_is_refuses_what_is_too_much_and_frees_what_is_gone() {
    let cluster = Cluster::start().await;
    cluster.create::<ConfigMap>(json!({"metadata": {"name": "before"}})).await;
    let hard = json!({"pods": "1", "cpu": "1", "memory": "500Mi", "requests.example.com/dongle": "3", "services": "5",
                      "services.nodeports": "1", "configmaps": "5", "secrets": "5", "resourcequotas": "1",
                      "persistentvolumeclaims": "2", "requests.storage": "5Gi", "replicationcontrollers": "1",
                      "count/daemonsets.apps": "2"});
    cluster.create::<ResourceQuota>(json!({"metadata": {"name": "all"}, "spec": {"hard": hard}})).await;
    let is = |quota: &ResourceQuota, expected: &[(&str, &str)]| {
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
        used.is_some_and(|used| expected.iter().all(|(name, text)| used.get(*name).is_some_and(|own| own.0 == *text)))
    };
    // `before`; the service `kubernetes`; the quota itself.
    let nothing = [
        ("pods", "0"),
        ("cpu", "0"),
        ("requests.example.com/dongle", "0"),
        ("services", "1"),
        ("services.nodeports", "0"),
        ("configmaps", "1"),
        ("secrets", "0"),
        ("resourcequotas", "1"),
        ("requests.storage", "0"),
        ("replicationcontrollers", "0"),
        ("count/daemonsets.apps", "0"),
    ];
    let quota = cluster.until::<ResourceQuota>("all", |quota| is(quota, &nothing)).await;
    assert_eq!(quota.status.expect("a status").hard, quota.spec.expect("a spec").hard);

    let pod = |name: &str| {
        let resources = json!({"requests": {"cpu": "500m", "memory": "252Mi", "example.com/dongle": "2"},
                               "limits": {"example.com/dongle": "2"}});
        let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
        json!({"metadata": {"name": name}, "spec": {"containers": containers}})
    };
    cluster.create::<Pod>(pod("one")).await;
    let second = serde_json::from_value(pod("two")).expect("a pod");
    let refused = cluster.api::<Pod>().create(&PostParams::default(), &second).await.expect_err("it is too much");
    assert!(refused.to_string().contains("exceeded quota: all"), "{refused}");
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    cluster.create::<Service>(service).await;
    cluster.create::<Secret>(json!({"metadata": {"name": "s"}})).await;
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    cluster.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "c"}, "spec": claim})).await;
    let set = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template("d")});
    cluster.create::<DaemonSet>(json!({"metadata": {"name": "d"}, "spec": set})).await;
    let much = [
        ("pods", "1"),
        ("cpu", "500m"),
        ("memory", "252Mi"),
        ("requests.example.com/dongle", "2"),
        ("services", "2"),
        ("services.nodeports", "1"),
        ("secrets", "1"),
        ("persistentvolumeclaims", "1"),
        ("requests.storage", "1Gi"),
        ("count/daemonsets.apps", "1"),
    ];
    cluster.until::<ResourceQuota>("all", |quota| is(quota, &much)).await;

    // A pod that ends frees what it used before it is deleted.
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    cluster.api::<Pod>().patch_status("one", &PatchParams::default(), &ended).await.expect("the pod ends");
    cluster.patch::<Service>("s", json!({"spec": {"type": "ClusterIP"}})).await;
    cluster.api::<Secret>().delete("s", &DeleteParams::default()).await.expect("the secret goes");
    cluster.api::<ConfigMap>().delete("before", &DeleteParams::default()).await.expect("the ConfigMap goes");
    cluster.api::<PersistentVolumeClaim>().delete("c", &DeleteParams::default()).await.expect("the claim goes");
    cluster.api::<DaemonSet>().delete("d", &DeleteParams::default()).await.expect("the set goes");
    let freed = [
        ("pods", "0"),
        ("cpu", "0"),
        ("memory", "0"),
        ("services", "2"),
        ("services.nodeports", "0"),
        ("secrets", "0"),
        ("configmaps", "0"),
        ("persistentvolumeclaims", "0"),
        ("requests.storage", "0"),
        ("count/daemonsets.apps", "0"),
    ];
    cluster.until::<ResourceQuota>("all", |quota| is(quota, &freed)).await;
    cluster.patch::<ResourceQuota>("all", json!({"spec": {"hard": {"pods": "7"}}})).await;
    let raised = |quota: &ResourceQuota| {
        let hard = quota.status.as_ref().and_then(|status| status.hard.as_ref());
        hard.is_some_and(|hard| hard["pods"].0 == "7")
    };
    cluster.until::<ResourceQuota>("all", raised).await;
    cluster.stop().await;
}
