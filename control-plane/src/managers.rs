//! The controllers in this process: they reach the API through the server's own service, as the users that upstream's policy names.

use anyhow::{Context as _, Result};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::{ApiServer, TrustedUser};
use skep_client::{InProcessUser, in_process};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::serve::Args;

/// What the API server hears of the controllers' identity.
const CONTROLLERS: &str = "system:kube-controller-manager";

/// Starts what this process runs besides the API server.
pub(crate) fn start(args: &Args, server: &ApiServer, pki: &Pki, shutdown: &CancellationToken) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    if args.no_controllers {
        return Ok(tasks);
    }
    let cluster_cidrs = args
        .cluster_cidr
        .split(',')
        .filter(|cidr| !cidr.is_empty())
        .map(|cidr| cidr.parse().with_context(|| format!("--cluster-cidr {cidr}")))
        .collect::<Result<Vec<_>>>()?;
    let options = skep_controllers::Options {
        cluster_cidrs,
        root_ca_pem: Some(pki.ca_pem().to_owned()),
        ..skep_controllers::Options::default()
    };
    // Controllers write on everybody's behalf: upstream gives each its own account, here one user of the masters' group stands for all.
    let service = server.service().map_request(|mut request: http::Request<_>| {
        if let Some(user) = request.extensions_mut().remove::<InProcessUser>() {
            request.extensions_mut().insert(TrustedUser(User::authenticated(user.name, user.groups)));
        }
        request
    });
    let user = InProcessUser { name: CONTROLLERS.to_owned(), groups: vec!["system:masters".to_owned()] };
    let client = in_process(service, user, concat!("skep-controllers/", env!("CARGO_PKG_VERSION")));
    let mut running = skep_controllers::run(client, options, shutdown.clone());
    tasks.spawn(async move { while running.join_next().await.is_some() {} });
    Ok(tasks)
}
