//! The controllers and the scheduler in this process: they reach the API through the server's own service, each as the user that upstream's policy names.

use anyhow::{Context as _, Result};
use kube::Client;
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::{ApiServer, TrustedUser};
use skep_client::{InProcessUser, in_process, kube};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::serve::Args;

/// Starts what this process runs besides the API server.
pub(crate) fn start(args: &Args, server: &ApiServer, pki: &Pki, shutdown: &CancellationToken) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    if !args.no_controllers {
        let cluster_cidrs = args
            .cluster_cidr
            .split(',')
            .filter(|cidr| !cidr.is_empty())
            .map(|cidr| cidr.parse().with_context(|| format!("--cluster-cidr {cidr}")))
            .collect::<Result<Vec<_>>>()?;
        let options = skep_controllers::Options {
            cluster_cidrs,
            root_ca_pem: Some(pki.ca_pem().to_owned()),
            node_lifecycle: skep_controllers::NodeLifecycle {
                monitor_grace_period: args.node_monitor_grace_period,
                ..skep_controllers::NodeLifecycle::default()
            },
            ..skep_controllers::Options::default()
        };
        // Upstream gives each controller an account of its own; here one user of the masters' group stands for all.
        let user = InProcessUser {
            name: "system:kube-controller-manager".to_owned(),
            groups: vec!["system:masters".to_owned()],
        };
        let client = client(server, user, concat!("skep-controllers/", env!("CARGO_PKG_VERSION")));
        keep(&mut tasks, skep_controllers::run(client, options, shutdown.clone()));
    }
    if !args.no_scheduler {
        let user = InProcessUser::component("system:kube-scheduler");
        let client = client(server, user, concat!("skep-scheduler/", env!("CARGO_PKG_VERSION")));
        keep(&mut tasks, skep_scheduler::run(client, skep_scheduler::Options::default(), shutdown.clone()));
    }
    Ok(tasks)
}

/// A client that calls the server in this process; its user travels in the request's extensions.
fn client(server: &ApiServer, user: InProcessUser, agent: &str) -> Client {
    let service = server.service().map_request(|mut request: http::Request<_>| {
        if let Some(user) = request.extensions_mut().remove::<InProcessUser>() {
            request.extensions_mut().insert(TrustedUser(User::authenticated(user.name, user.groups)));
        }
        request
    });
    in_process(service, user, agent)
}

/// Takes over a component's tasks, which end by the token.
fn keep(tasks: &mut JoinSet<()>, mut running: JoinSet<()>) {
    tasks.spawn(async move { while running.join_next().await.is_some() {} });
}
