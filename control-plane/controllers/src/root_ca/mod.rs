//! Root CA publisher: each namespace has a ConfigMap with the certificates that pods verify the API server by
//! (`certificates/rootcacertpublisher`).
//!
//! Watches namespaces and the ConfigMaps of that name. Keys are namespaces. A changed ConfigMap is set back.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    ObjectKey, Outcome, Reconcile, ReconcileError, already_exists, is_not_found, namespace_is_terminating, post_params,
    run_workers,
};

/// The ConfigMap's name in each namespace.
pub(crate) const CONFIG_MAP: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// The annotation's text is part of what clients see of the ConfigMap.
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                                endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                                guaranteed across distributions of Kubernetes clusters.";

pub(crate) struct Controller {
    context: Context,
    pem: String,
}

/// Registers the handlers and starts the worker, if there are certificates to publish.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let Some(pem) = options.root_ca_pem.clone() else { return };
    let queue = context.queue("root_ca_cert_publisher");
    let namespaces = queue.clone();
    context.informers.namespaces.on_change(move |change| namespaces.add(ObjectKey::of(&**change.object())));
    let maps = queue.clone();
    context.informers.root_ca_config_maps.on_change(move |change| {
        maps.add(ObjectKey::new("", change.object().metadata.namespace.as_deref().unwrap_or_default()));
    });
    let controller = Arc::new(Controller { context, pem });
    run_workers(tasks, "root-ca-publisher", &controller, &queue, 1, shutdown);
}

/// What to do in a namespace.
#[derive(Debug, PartialEq)]
enum Action {
    Create(ConfigMap),
    Replace(ConfigMap),
}

fn reconcile(namespace: &Namespace, found: Option<&ConfigMap>, pem: &str) -> Option<Action> {
    let ending = namespace.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Terminating");
    if ending || namespace.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let data = BTreeMap::from([(KEY.to_owned(), pem.to_owned())]);
    let annotation = (DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
    let Some(found) = found else {
        return Some(Action::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(CONFIG_MAP.to_owned()),
                namespace: namespace.metadata.name.clone(),
                annotations: Some(BTreeMap::from([annotation])),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        }));
    };
    let described = found.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DESCRIPTION));
    if found.data.as_ref() == Some(&data) && described.is_some_and(|text| !text.is_empty()) {
        return None;
    }
    let mut changed = found.clone();
    changed.data = Some(data);
    changed.metadata.annotations.get_or_insert_default().extend([annotation]);
    Some(Action::Replace(changed))
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(namespace) = informers.namespaces.get(key) else { return Ok(Outcome::Done) };
        let found = informers.root_ca_config_maps.get(&ObjectKey::new(&key.name, CONFIG_MAP));
        let api = Api::<ConfigMap>::namespaced(self.context.client.clone(), &key.name);
        let written = match reconcile(&namespace, found.as_deref(), &self.pem) {
            None => return Ok(Outcome::Done),
            Some(Action::Create(map)) => api.create(&post_params(), &map).await,
            Some(Action::Replace(map)) => api.replace(CONFIG_MAP, &post_params(), &map).await,
        };
        match written {
            Err(error) if already_exists(&error) || namespace_is_terminating(&error) || is_not_found(&error) => {
                Ok(Outcome::Done)
            }
            written => written.map(|_| Outcome::Done).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_map_is_created_a_changed_one_set_back_and_a_right_one_left_alone() {
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some("n".to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let Some(Action::Create(map)) = reconcile(&namespace, None, "PEM") else { panic!("expected a creation") };
        assert_eq!(reconcile(&namespace, Some(&map), "PEM"), None);
        let mut changed = map.clone();
        changed.data.as_mut().expect("data").insert("more".to_owned(), "x".to_owned());
        assert_eq!(reconcile(&namespace, Some(&changed), "PEM"), Some(Action::Replace(map)));
    }
}
