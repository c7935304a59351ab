//! A ReplicationController seen as a ReplicaSet, and its status back.
//!
//! Follows `replication/conversion.go`.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Its selector: the labels, all of which must be there.
pub(super) fn selector(own: &ReplicationController) -> LabelSelector {
    let labels = own.spec.as_ref().and_then(|spec| spec.selector.clone()).filter(|labels| !labels.is_empty());
    LabelSelector { match_labels: labels, match_expressions: None }
}

/// It as a ReplicaSet of the same metadata.
pub(super) fn replica_set(own: &ReplicationController) -> ReplicaSet {
    let spec = own.spec.clone().unwrap_or_default();
    ReplicaSet {
        metadata: own.metadata.clone(),
        spec: ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: selector(own),
            template: spec.template,
        },
        status: own.status.clone().map(|status| ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating_replicas: None,
            conditions: status.conditions.map(|conditions| {
                let convert = |own: ReplicationControllerCondition| ReplicaSetCondition {
                    type_: Some(own.type_),
                    status: Some(own.status),
                    reason: own.reason,
                    message: own.message,
                    last_transition_time: own.last_transition_time,
                };
                conditions.into_iter().map(convert).collect()
            }),
        }),
    }
}

/// The status of a ReplicaSet as its own; it has no count of terminating pods.
pub(super) fn status(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions: status.conditions.map(|conditions| {
            let convert = |own: ReplicaSetCondition| ReplicationControllerCondition {
                type_: own.type_.unwrap_or_default(),
                status: own.status.unwrap_or_default(),
                reason: own.reason,
                message: own.message,
                last_transition_time: own.last_transition_time,
            };
            conditions.into_iter().map(convert).collect()
        }),
    }
}
