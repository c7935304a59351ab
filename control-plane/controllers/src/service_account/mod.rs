//! ServiceAccounts: each namespace has the one named `default` (`serviceaccounts_controller.go`).
//!
//! Watches namespaces, and ServiceAccounts that are deleted. Keys are namespaces.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, Outcome, Reconcile, ReconcileError, already_exists, namespace_is_terminating, post_params,
    run_workers,
};

const NAME: &str = "default";

pub(crate) struct Controller {
    context: Context,
}

/// Registers the handlers and starts the worker.
pub(crate) fn start(context: Context, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("serviceaccount");
    let namespaces = queue.clone();
    context.informers.namespaces.on_change(move |change| namespaces.add(ObjectKey::of(&**change.object())));
    let accounts = queue.clone();
    context.informers.service_accounts.on_change(move |change| {
        if let Change::Deleted(account) = change {
            accounts.add(ObjectKey::new("", account.metadata.namespace.as_deref().unwrap_or_default()));
        }
    });
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "serviceaccount", &controller, &queue, 1, shutdown);
}

/// Whether the account must be created.
fn is_missing(namespace: &Namespace, account: Option<&ServiceAccount>) -> bool {
    let active = namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
        && namespace.metadata.deletion_timestamp.is_none();
    active && account.is_none()
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(namespace) = informers.namespaces.get(key) else { return Ok(Outcome::Done) };
        let account = informers.service_accounts.get(&ObjectKey::new(&key.name, NAME));
        if !is_missing(&namespace, account.as_deref()) {
            return Ok(Outcome::Done);
        }
        let api = Api::<ServiceAccount>::namespaced(self.context.client.clone(), &key.name);
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(key.name.to_string()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match api.create(&post_params(), &account).await {
            Err(error) if already_exists(&error) || namespace_is_terminating(&error) => Ok(Outcome::Done),
            created => created.map(|_| Outcome::Done).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NamespaceStatus;

    #[test]
    fn only_an_active_namespace_without_the_account_gets_one() {
        let active = Namespace::default();
        let ending = Namespace {
            status: Some(NamespaceStatus { phase: Some("Terminating".to_owned()), ..NamespaceStatus::default() }),
            ..Namespace::default()
        };
        assert!(is_missing(&active, None));
        assert!(!is_missing(&active, Some(&ServiceAccount::default())));
        assert!(!is_missing(&ending, None));
    }
}
