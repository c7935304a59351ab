//! What all controllers share: informers, the work queue, the workers that drain it, and metrics.
//!
//! Data flow: the API's watch → [`Informer`] (one a kind, shared) → a handler that maps the change to keys →
//! [`Queue`] (no key twice) → a worker ([`run_workers`]) that reads the informers' stores, decides by the controller's pure
//! function and writes to the API. A failed key comes back after upstream's back-off.
//!
//! Invariant: one key is never worked on twice at the same time; a change that comes meanwhile makes it come back.

mod departures;
mod history;
mod informer;
mod metrics;
mod owner;
mod pod_control;
mod pod_ending;
mod pods_by_node;
mod queue;
mod worker;
mod write_tracking;

pub use departures::Departures;
pub use history::{History, REVISION_LABEL, Revisions, template_of};
pub use informer::{Change, Informer, ObjectKey, Revision};
pub use metrics::Metrics;
pub use owner::{
    Claim, Claims, claim, controller_of, controller_reference, is_controlled_by, owner_patch, selector_matches,
};
pub use pod_control::{PodControl, PodOwner, Written, pod_from_template, remove_finalizer};
pub use pod_ending::{condition_patch, delete_params, disruption_target, failed_patch, not_ready_patch};
pub use pods_by_node::PodsByNode;
pub use queue::Queue;
pub use worker::{Outcome, Reconcile, ReconcileError, run_workers};
pub use write_tracking::{ObservedDeletion, WriteTracking};

/// The field manager of all writes: upstream's, as tools that ignore the controllers' fields know it by that name.
pub const FIELD_MANAGER: &str = "kube-controller-manager";

/// Parameters of a create or update by a controller.
#[must_use]
pub fn post_params() -> kube::api::PostParams {
    kube::api::PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
}

/// Parameters of a patch by a controller.
#[must_use]
pub fn patch_params() -> kube::api::PatchParams {
    kube::api::PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..kube::api::PatchParams::default() }
}

/// Whether the API server says that the object is not there.
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether a create failed as one of that name is there.
#[must_use]
pub fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Whether a write failed as the object changed since it was read.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// Whether a create failed as its namespace is being deleted: every further try would fail too.
#[must_use]
pub fn namespace_is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The message of an API error as upstream's clients show it, or the error's own text.
#[must_use]
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}
