//! The built-in controllers: each brings one kind of object closer to what it should be, again and again.
//!
//! [`run`] starts all of them around one set of informers (a watch a kind) and ends them with one token. A controller is a
//! folder: `mod.rs` says what it watches and how a change maps to keys, `reconcile.rs` holds the pure decisions, `tests.rs`
//! tables and properties. Leadership is the caller's: run under [`skep_client::Leadership::lost`].
//!
//! Invariant: a controller knows nothing but what the API server says, and its decisions read no clock: time comes in.
//!
//! Data flow: API watch → [`runtime::Informer`] → [`runtime::Queue`] → reconcile (pure) → API writes and events.

mod context;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod garbage_collector;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_garbage_collector;
mod replica_set;
mod resource_quota;
mod root_ca;
pub mod runtime;
mod service_account;
mod stateful_set;
mod taint_eviction;
mod ttl_after_finished;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use context::{Context, Informers};
pub use node_ipam::{Cidr, CidrError};
pub use node_lifecycle::NodeLifecycle;
pub use runtime::Metrics;

/// How the controllers run. [`Options::default`] has upstream's numbers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pods' network, one of each address family at most; empty leaves podCIDRs to others.
    pub cluster_cidrs: Vec<Cidr>,
    /// The size of a node's part of an IPv4 cluster network, as a prefix length.
    pub node_cidr_mask_ipv4: u8,
    /// The size of a node's part of an IPv6 cluster network, as a prefix length.
    pub node_cidr_mask_ipv6: u8,
    /// When a node counts as lost, and how fast pods are then driven from nodes.
    pub node_lifecycle: NodeLifecycle,
    /// How many ended pods may stay before the oldest are deleted; 0 keeps all.
    pub terminated_pod_threshold: usize,
    /// The certificates that pods verify the API server by, as PEM, published in each namespace; none publishes nothing.
    pub root_ca_pem: Option<String>,
    /// This replica in events (`reportingInstance`), usually the host's name.
    pub instance: String,
    /// Workers of each of the controllers that have many keys.
    pub concurrency: usize,
    /// Measures of the work queues; register them to see them.
    pub metrics: Metrics,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_cidr_mask_ipv4: 24,
            node_cidr_mask_ipv6: 64,
            node_lifecycle: NodeLifecycle::default(),
            terminated_pod_threshold: 12_500,
            root_ca_pem: None,
            instance: "skep-controllers".to_owned(),
            concurrency: 5,
            metrics: Metrics::default(),
        }
    }
}

/// Starts the controllers of Deployments, ReplicaSets, namespaces, ServiceAccounts, root CA ConfigMaps, podCIDRs, EndpointSlices, nodes' life and taints, and the garbage collectors of objects and of pods. They end after `shutdown` is cancelled, each with the key it has; the set is then empty.
///
/// The client needs the rights of upstream's controllers on all that they write. Nothing is written before the informers have
/// their first lists, so a slow API server delays the work and never makes it wrong.
#[must_use]
pub fn run(client: Client, options: Options, shutdown: CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut tasks = JoinSet::new();
        let informers = Informers::default();
        informers.start(&client, &mut tasks, &shutdown);
        let synced = tokio::select! {
            () = shutdown.cancelled() => false,
            () = informers.synced() => true,
        };
        if synced {
            tracing::info!("informers are synced, starting the controllers");
            start(&client, &options, &informers, &mut tasks, &shutdown);
            start_workloads(&client, &options, &informers, &mut tasks, &shutdown);
        }
        while tasks.join_next().await.is_some() {}
    });
    tasks
}

fn start(
    client: &Client,
    options: &Options,
    informers: &Informers,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) {
    let mut context = |name: &str| Context::new(client, name, informers, options, tasks, shutdown);
    let deployment_context = context("deployment-controller");
    let replica_set_context = context("replicaset-controller");
    let namespace_context = context("namespace-controller");
    let service_account_context = context("serviceaccount-controller");
    let root_ca_context = context("root-ca-certificate-publisher-controller");
    let node_ipam_context = context("cidrAllocator");
    let node_lifecycle_context = context("node-controller");
    let taint_eviction_context = context("taint-eviction-controller");
    let pod_garbage_collector_context = context("pod-garbage-collector-controller");
    let endpoint_slice_context = context("endpointslice-controller");
    let garbage_collector_context = context("generic-garbage-collector");
    deployment::start(deployment_context, options, tasks, shutdown);
    replica_set::start(replica_set_context, options, tasks, shutdown);
    namespace::start(namespace_context, options, tasks, shutdown);
    service_account::start(service_account_context, tasks, shutdown);
    root_ca::start(root_ca_context, options, tasks, shutdown);
    node_ipam::start(node_ipam_context, options, tasks, shutdown);
    node_lifecycle::start(node_lifecycle_context, options, tasks, shutdown);
    taint_eviction::start(taint_eviction_context, options, tasks, shutdown);
    pod_garbage_collector::start(pod_garbage_collector_context, options, tasks, shutdown);
    endpoint_slice::start(endpoint_slice_context, options, tasks, shutdown);
    garbage_collector::start(garbage_collector_context, tasks, shutdown);
}

/// Starts the controllers of kinds that some clusters don't serve: each once its kinds are listed, so that a missing one
/// holds no other back.
fn start_workloads(
    client: &Client,
    options: &Options,
    informers: &Informers,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) {
    type Start = fn(Context, &Options, &mut JoinSet<()>, &CancellationToken);
    let mut begin = |name: &str, kinds: Vec<Synced>, start: Start| {
        let context = Context::new(client, name, informers, options, tasks, shutdown);
        let (options, shutdown) = (options.clone(), shutdown.clone());
        tasks.spawn(async move {
            for synced in kinds {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = synced => {}
                }
            }
            let mut tasks = JoinSet::new();
            start(context, &options, &mut tasks, &shutdown);
            while tasks.join_next().await.is_some() {}
        });
    };
    let (jobs, cron_jobs) = (&informers.jobs, &informers.cron_jobs);
    begin("job-controller", vec![listed(jobs)], job::start);
    begin("ttl-after-finished-controller", vec![listed(jobs)], ttl_after_finished::start);
    let (stateful_sets, revisions) = (&informers.stateful_sets, &informers.controller_revisions);
    begin("statefulset-controller", vec![listed(stateful_sets), listed(revisions)], stateful_set::start);
    begin("daemonset-controller", vec![listed(&informers.daemon_sets), listed(revisions)], daemon_set::start);
    let replication = vec![listed(&informers.replication_controllers)];
    begin("replication-controller", replication, replica_set::start_replication);
    let endpoints = || listed(&informers.endpoints);
    begin("endpoint-controller", vec![endpoints()], endpoints::start);
    let mirrored = vec![endpoints(), listed(&informers.mirrored_slices)];
    begin("endpoint-slice-mirroring-controller", mirrored, endpoint_slice_mirroring::start);
    let budgets = vec![
        listed(&informers.disruption_budgets),
        listed(&informers.replication_controllers),
        listed(&informers.stateful_sets),
    ];
    begin("disruption-controller", budgets, disruption::start);
    begin("resourcequota-controller", vec![listed(&informers.resource_quotas)], resource_quota::start);
    begin("cronjob-controller", vec![listed(cron_jobs), listed(jobs)], cron_job::start);
}

type Synced = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn listed<K: kube::Resource + Send + Sync + 'static>(informer: &runtime::Informer<K>) -> Synced {
    let informer = informer.clone();
    Box::pin(async move { informer.synced().await })
}
