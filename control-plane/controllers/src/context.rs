//! What a controller works with: its own client (which names it to the API server), the shared informers and its events.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, ReplicationController, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use skep_client::slim::SlimPod;
use skep_client::{EventRecorder, with_user_agent};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::runtime::{Departures, Informer, Metrics, ObjectKey, PodsByNode, Queue};

/// The informers that all controllers share: one watch a kind.
#[derive(Clone, Debug, Default)]
pub struct Informers {
    /// Pods, slim.
    pub pods: Informer<SlimPod>,
    /// The pods of each node.
    pub pods_by_node: PodsByNode,
    /// Nodes.
    pub nodes: Informer<Node>,
    /// The Leases by which kubelets say that they live.
    pub node_leases: Informer<Lease>,
    /// Namespaces.
    pub namespaces: Informer<Namespace>,
    /// Deployments.
    pub deployments: Informer<Deployment>,
    /// ReplicaSets.
    pub replica_sets: Informer<ReplicaSet>,
    /// ReplicationControllers.
    pub replication_controllers: Informer<ReplicationController>,
    /// DaemonSets.
    pub daemon_sets: Informer<DaemonSet>,
    /// StatefulSets.
    pub stateful_sets: Informer<StatefulSet>,
    /// ControllerRevisions.
    pub controller_revisions: Informer<ControllerRevision>,
    /// Jobs.
    pub jobs: Informer<Job>,
    /// CronJobs.
    pub cron_jobs: Informer<CronJob>,
    /// ServiceAccounts.
    pub service_accounts: Informer<ServiceAccount>,
    /// Services.
    pub services: Informer<Service>,
    /// The EndpointSlices that the controller here manages.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Informer<PodDisruptionBudget>,
    /// Endpoints.
    pub endpoints: Informer<Endpoints>,
    /// The EndpointSlices that mirror Endpoints.
    pub mirrored_slices: Informer<EndpointSlice>,
    /// ResourceQuotas.
    pub resource_quotas: Informer<ResourceQuota>,
    /// What is gone, of all kinds.
    pub departures: Departures,
    /// The ConfigMaps of the name `kube-root-ca.crt`.
    pub root_ca_config_maps: Informer<ConfigMap>,
}

impl Informers {
    /// Starts all watches in `tasks`. Handlers must be added before, or they are called for all objects at once.
    pub fn start(&self, client: &Client, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        fn watch<K>(
            informer: &Informer<K>,
            api: Api<K>,
            config: watcher::Config,
            tasks: &mut JoinSet<()>,
            shutdown: &CancellationToken,
        ) where
            K: Resource<DynamicType = ()>
                + Clone
                + serde::de::DeserializeOwned
                + std::fmt::Debug
                + Send
                + Sync
                + 'static,
        {
            tasks.spawn(informer.clone().run(api, config, shutdown.clone()));
        }
        self.pods_by_node.follow(&self.pods);
        let all = watcher::Config::default;
        let root_ca = all().fields(&format!("metadata.name={}", crate::root_ca::CONFIG_MAP));
        watch(&self.pods, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.nodes, Api::all(client.clone()), all(), tasks, shutdown);
        let leases = Api::namespaced(client.clone(), crate::node_lifecycle::LEASES);
        watch(&self.node_leases, leases, all(), tasks, shutdown);
        watch(&self.namespaces, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.deployments, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.replica_sets, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.cron_jobs, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.replication_controllers, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.daemon_sets, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.stateful_sets, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.controller_revisions, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.jobs, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.service_accounts, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.services, Api::all(client.clone()), all(), tasks, shutdown);
        let managed = all().labels(&crate::endpoint_slice::managed());
        watch(&self.endpoint_slices, Api::all(client.clone()), managed, tasks, shutdown);
        watch(&self.disruption_budgets, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.endpoints, Api::all(client.clone()), all(), tasks, shutdown);
        let mirrored = all().labels(&crate::endpoint_slice_mirroring::managed());
        watch(&self.mirrored_slices, Api::all(client.clone()), mirrored, tasks, shutdown);
        watch(&self.resource_quotas, Api::all(client.clone()), all(), tasks, shutdown);
        watch(&self.root_ca_config_maps, Api::all(client.clone()), root_ca, tasks, shutdown);
    }

    /// Waits until each watch has its first list.
    pub async fn synced(&self) {
        self.pods.synced().await;
        self.nodes.synced().await;
        self.node_leases.synced().await;
        self.namespaces.synced().await;
        self.deployments.synced().await;
        self.replica_sets.synced().await;
        self.service_accounts.synced().await;
        self.services.synced().await;
        self.endpoint_slices.synced().await;
        self.root_ca_config_maps.synced().await;
    }
}

/// What one controller works with.
#[derive(Clone)]
pub struct Context {
    /// The client, under the controller's user agent.
    pub client: Client,
    /// The shared informers.
    pub informers: Informers,
    /// The controller's events.
    pub events: EventRecorder,
    /// The metrics that its queues are measured by.
    pub metrics: Metrics,
}

impl Context {
    /// The context of the controller `name` (`deployment-controller`); the task that writes its events goes into `tasks`.
    pub fn new(
        client: &Client,
        name: &str,
        informers: &Informers,
        options: &Options,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Self {
        let agent = format!("{}/{} ({name})", crate::runtime::FIELD_MANAGER, env!("CARGO_PKG_VERSION"));
        // The text is ASCII, so it is a header value; the plain client would do as well.
        let client = with_user_agent(client, &agent).unwrap_or_else(|_| client.clone());
        let (events, writer) = EventRecorder::new(client.clone(), name, &options.instance, shutdown.clone());
        tasks.spawn(writer);
        Self { client, informers: informers.clone(), events, metrics: options.metrics.clone() }
    }

    /// An empty queue, measured under `name` as upstream names it.
    #[must_use]
    pub fn queue(&self, name: &str) -> Queue<ObjectKey> {
        Queue::new(self.metrics.queue(name))
    }
}
