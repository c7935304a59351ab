//! Views of the hot kinds that hold only the fields which components read.
//!
//! Each type implements [`kube::Resource`], so that it is watched like the whole kind: `Api::<SlimPod>::all(client)`,
//! `reflector::store::<SlimPod>()`. It can't be written: a writer patches, or reads the whole object first.
//! Metadata is kept without `managedFields` and the last-applied annotation, which are the largest part of most objects
//! and which no component decides by. Strings are boxed: what is watched is never appended to.
//!
//! Data flow: the API server's JSON (list or watch) is deserialized straight into these; unknown fields are skipped.

mod endpoint_slice;
mod node;
mod pod;
mod service;

pub use self::service::{SlimService, SlimServicePort, SlimServiceSpec};
pub use endpoint_slice::{SlimEndpoint, SlimEndpointPort, SlimEndpointSlice};
pub use node::{SlimImage, SlimNode, SlimNodeCondition, SlimNodeSpec, SlimNodeStatus};
pub use pod::{
    SlimContainer, SlimContainerState, SlimContainerStatus, SlimPod, SlimPodSpec, SlimPodStatus, SlimPort,
    SlimResources, SlimVolume,
};

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};

/// A condition of a pod or a node, without its texts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimCondition {
    /// The condition's type, such as `Ready`.
    pub r#type: Box<str>,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: Box<str>,
    /// The machine-readable cause.
    #[serde(default)]
    pub reason: Option<Box<str>>,
    /// When `status` last changed.
    #[serde(default)]
    pub last_transition_time: Option<Time>,
}

/// The annotation that `kubectl apply` keeps the whole object in; dropped on reading.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Reads metadata without `managedFields`, `selfLink`, `generateName` and the last-applied annotation.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        annotations: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
        deletion_timestamp: Option<Time>,
        finalizers: Option<Vec<String>>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        name: Option<String>,
        namespace: Option<String>,
        owner_references: Option<Vec<OwnerReference>>,
        resource_version: Option<String>,
        uid: Option<String>,
    }
    let read = Metadata::deserialize(deserializer)?;
    let mut annotations = read.annotations;
    if let Some(map) = &mut annotations {
        map.remove(LAST_APPLIED);
    }
    Ok(ObjectMeta {
        annotations: annotations.filter(|map| !map.is_empty()),
        creation_timestamp: read.creation_timestamp,
        deletion_grace_period_seconds: read.deletion_grace_period_seconds,
        deletion_timestamp: read.deletion_timestamp,
        finalizers: read.finalizers,
        generation: read.generation,
        labels: read.labels,
        name: read.name,
        namespace: read.namespace,
        owner_references: read.owner_references,
        resource_version: read.resource_version,
        uid: read.uid,
        ..ObjectMeta::default()
    })
}

/// `null` reads as the type's default, as Go's decoder does.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Implements [`kube::Resource`] for a slim type of a built-in kind.
macro_rules! slim_resource {
    ($type:ty, $scope:ty, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use slim_resource;

#[cfg(test)]
mod tests {
    use super::*;
    use kube::Resource;

    #[test]
    fn managed_fields_and_the_last_applied_annotation_are_not_kept() {
        let pod: SlimPod = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "a", "namespace": "n",
                "managedFields": [{"manager": "m", "operation": "Update"}],
                "annotations": {LAST_APPLIED: "{}", "controller.kubernetes.io/pod-deletion-cost": "5"},
            },
        }))
        .expect("a pod");
        assert!(pod.meta().managed_fields.is_none());
        assert_eq!(pod.meta().annotations.as_ref().expect("annotations").len(), 1);
    }

    #[test]
    fn null_lists_read_as_empty() {
        let pod: SlimPod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "labels": null},
            "spec": {"containers": null, "tolerations": null},
            "status": {"conditions": null},
        }))
        .expect("a pod");
        assert!(pod.spec.containers.is_empty() && pod.status.conditions.is_empty());
    }

    #[test]
    fn a_slim_pod_has_the_address_of_its_kind() {
        assert_eq!(SlimPod::url_path(&(), Some("n")), "/api/v1/namespaces/n/pods");
        assert_eq!(SlimEndpointSlice::url_path(&(), None), "/apis/discovery.k8s.io/v1/endpointslices");
    }

    #[test]
    fn a_pod_of_the_api_reads_with_the_fields_that_decide() {
        let pod: SlimPod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u"},
            "spec": {
                "nodeName": "node-1", "priority": 7,
                "containers": [{
                    "name": "c", "image": "busybox",
                    "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
                    "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080}],
                }],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}],
            },
            "status": {
                "phase": "Running", "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3, "state": {"running": {}}}],
            },
        }))
        .expect("a pod");
        assert_eq!(pod.spec.node_name.as_deref(), Some("node-1"));
        assert_eq!(&*pod.spec.containers[0].resources.requests["cpu"].0, "100m");
        assert_eq!(&*pod.spec.containers[0].ports[0].protocol, "TCP");
        assert_eq!(pod.spec.volumes[0].claim_name.as_deref(), Some("data"));
        assert_eq!(&*pod.status.pod_ips[0], "10.0.0.1");
        assert_eq!(pod.status.container_statuses[0].restart_count, 3);
        assert!(pod.is_ready());
    }
}
