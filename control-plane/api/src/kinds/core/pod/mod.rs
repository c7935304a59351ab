//! Pod: the declaration of the kind, and what the kinds with a pod template share with it.
//!
//! Sources: upstream's pkg/apis/core/v1/defaults.go, pkg/apis/core/validation/validation.go, pkg/registry/core/pod/strategy.go and
//! pkg/api/pod. Feature gates stand at their defaults of 1.37. Upstream's ratcheting (what an older release let in may stay) has no
//! counterpart: no object here is older than these rules.

mod defaults;
mod image;
mod prepare;
pub mod qos;
pub mod resources;
mod subresources;
mod table;
#[cfg(test)]
mod testing;
pub mod validate;
mod warnings;

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy, Subresource, WriteContext};
use crate::kinds::names;
use crate::kinds::tree::{flag, text};

pub use prepare::{graceful_deletion_seconds, set_condition};
pub use subresources::{
    bind, validate_binding, validate_ephemeral_containers_update, validate_eviction, validate_resize,
    with_ephemeral_containers_of, with_resources_of,
};
pub(in crate::kinds) use validate::update::unified_diff;
pub use validate::{validate_pod_template, validate_spec};
pub use warnings::template_warnings;

/// The annotation that marks the API's image of a static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// `v1 Pod`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["po"]),
        categories: names(&["all"]),
        subresources: vec![
            Subresource::Attach,
            Subresource::Binding,
            Subresource::EphemeralContainers,
            Subresource::Eviction,
            Subresource::Exec,
            Subresource::Log,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::Resize,
            Subresource::Status,
        ],
        columns: vec![
            Column::name(),
            Column::new("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
            Column::new("Status", "string", "The aggregate status of the containers in this pod."),
            Column::new(
                "Restarts",
                "string",
                "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
            ),
            Column::age(),
            Column::new("IP", "string", "The address of the pod, reachable from every node.").wide(),
            Column::new("Node", "string", "The node that the pod was assigned to.").wide(),
            Column::new("Nominated Node", "string", "The node where room is being made for the pod.").wide(),
            Column::new("Readiness Gates", "string", "How many of the pod's additional readiness conditions hold.")
                .wide(),
        ],
        selectable: names(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]),
        has_generation: true,
        ..Kind::new(V1, "Pod", "pods", "io.k8s.api.core.v1.Pod", Pod)
    }
}

/// Fills in the defaults of a pod template (`{metadata, spec}`), as upstream does for every kind that has one.
pub fn default_pod_template(template: &mut Value) {
    defaults::default_spec(template);
}

struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        defaults::default_pod(object);
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        prepare::create(object, context.now);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _context: &WriteContext<'_>) {
        prepare::update(object, old);
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value, _context: &WriteContext<'_>) {
        prepare::status_update(object, old);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate::validate_create(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate::update::validate_update(object, old)
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate::status::validate_status_update(object, old)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::pod_warnings(object, old)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        table::row(object, now)
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ip = text(&status["podIPs"][0]["ip"]);
        vec![
            text(&spec["nodeName"]).to_owned(),
            text(&spec["restartPolicy"]).to_owned(),
            text(&spec["schedulerName"]).to_owned(),
            text(&spec["serviceAccountName"]).to_owned(),
            flag(&spec["hostNetwork"]).to_string(),
            text(&status["phase"]).to_owned(),
            ip.to_owned(),
            ip.to_owned(),
            text(&status["nominatedNodeName"]).to_owned(),
        ]
    }
}

/// The lists of a pod's containers, in the order in which upstream visits them.
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Every container of a pod spec with its path.
fn containers_with_path<'a>(spec: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    let mut all = Vec::new();
    for list in CONTAINER_LISTS {
        let at = path.child(list);
        let containers = spec[list].as_array().into_iter().flatten().enumerate();
        all.extend(containers.map(|(index, container)| (container, at.index(index))));
    }
    all
}

/// An init container that runs beside the others for the pod's whole life (KEP-753).
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// Whether the pod is the API's image of a static pod.
fn is_mirror(object: &Value) -> bool {
    object["metadata"]["annotations"][MIRROR_ANNOTATION].is_string()
}
