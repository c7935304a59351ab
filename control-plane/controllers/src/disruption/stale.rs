//! Takes the condition `DisruptionTarget` back from pods that were to be disrupted and nobody deleted.
//!
//! Follows `syncStalePodDisruption` in `disruption.go`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Patch;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::reconcile::stale_after;
use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, Outcome, Reconcile, ReconcileError, condition_patch, is_not_found, patch_params, run_workers,
};

struct Stale {
    context: Context,
}

pub(super) fn start(context: &Context, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("stale_pod_disruption");
    let pods = queue.clone();
    context.informers.pods.on_change(move |change| {
        if !matches!(change, Change::Deleted(_))
            && let Some(left) = stale_after(change.object(), Timestamp::now())
        {
            pods.add_after(ObjectKey::of(&**change.object()), left);
        }
    });
    let stale = Arc::new(Stale { context: context.clone() });
    run_workers(tasks, "stale_pod_disruption", &stale, &queue, 1, shutdown);
}

impl Reconcile for Stale {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.context.informers.pods.get(key) else { return Ok(Outcome::Done) };
        let now = Timestamp::now();
        match stale_after(&pod, now) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        let condition = json!({
            "type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let patch = condition_patch(&pod, &condition);
        match api.patch_status(&key.name, &patch_params(), &Patch::Strategic(&patch)).await {
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            patched => patched.map(|_| Outcome::Done).map_err(Into::into),
        }
    }
}
