//! A Job's pods: what is read of them and how they are made.
//!
//! Follows `indexed_job_utils.go` and `manageJob` in `job_controller.go`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use skep_client::slim::SlimPod;

use super::policy::{Verdict, verdict};
use crate::replica_set::reconcile::{phase_order, ready_since, restarts};
use crate::runtime::{PodOwner, pod_from_template};

/// The finalizer that keeps a pod until it is counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The longest prefix that a name is generated from (`names.MaxGeneratedNameLength`).
const LONGEST_PREFIX: usize = 58;

/// Pods of a Job, by reference.
pub(super) type Pods = Vec<Arc<SlimPod>>;

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether pods are replaced only when they have ended, not already while they do.
pub(super) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

pub(super) fn has_finalizer(pod: &SlimPod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Whether it counts as failed. One that is being deleted does, unless it is replaced only when it has ended.
pub(super) fn is_failed(spec: &JobSpec, pod: &SlimPod) -> bool {
    &*pod.status.phase == "Failed"
        || (!replaces_only_failed(spec) && pod.is_terminating() && &*pod.status.phase != "Succeeded")
}

/// The completion index that its annotation says.
pub(super) fn index(pod: &SlimPod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

pub(super) fn indexes(pods: &[Arc<SlimPod>]) -> BTreeSet<i32> {
    pods.iter().filter_map(|pod| index(pod)).collect()
}

fn count(pod: &SlimPod, annotation: &str) -> u32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    text.and_then(|text| text.parse::<i32>().ok()).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

/// The failures of its index before it that counted.
pub(super) fn counted_failures(pod: &SlimPod) -> u32 {
    count(pod, FAILURE_COUNT)
}

/// All failures of its index before it.
pub(super) fn all_failures(pod: &SlimPod) -> u32 {
    count(pod, FAILURE_COUNT).saturating_add(count(pod, IGNORED_FAILURE_COUNT))
}

/// The active pods to remove: at least `at_least`, and of an indexed Job all that have no index, one that is out of range, or
/// one that another has too. The least advanced go first.
pub(super) fn surplus(spec: &JobSpec, pods: &[Arc<SlimPod>], at_least: usize) -> Pods {
    let mut pods = pods.to_vec();
    pods.sort_by_key(|pod| {
        let ready = ready_since(pod).filter(|_| pod.is_ready());
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (
            pod.spec.node_name.is_some(),
            phase_order(pod),
            pod.is_ready(),
            Reverse(ready.unwrap_or(Timestamp::MAX)),
            Reverse(restarts(pod)),
            Reverse(created.unwrap_or(Timestamp::MAX)),
        )
    });
    let (mut surplus, mut kept) = (Pods::new(), pods);
    if is_indexed(spec) {
        let completions = spec.completions.unwrap_or(0);
        let mut best: BTreeMap<i32, Arc<SlimPod>> = BTreeMap::new();
        // Of those with the same index the last, most advanced one stays.
        for pod in kept.drain(..) {
            match index(&pod).filter(|index| *index < completions) {
                Some(index) => surplus.extend(best.insert(index, pod)),
                None => surplus.push(pod),
            }
        }
        kept = best.into_values().collect();
        kept.sort_by_key(|pod| (pod.spec.node_name.is_some(), phase_order(pod), pod.is_ready()));
    }
    let more = at_least.saturating_sub(surplus.len());
    surplus.extend(kept.into_iter().take(more));
    surplus
}

/// A new pod, of that index if the Job is indexed, in the place of a failed one if there was one.
pub(super) fn pod(job: &Job, spec: &JobSpec, index: Option<i32>, replaced: Option<&SlimPod>) -> Pod {
    let mut pod = pod_from_template(&PodOwner::of(job), &spec.template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.generate_name = Some(generate_name(name, index));
    pod.metadata.labels.get_or_insert_default().insert(COMPLETION_INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let (mut counted, mut ignored) =
            replaced.map_or((0, 0), |pod| (count(pod, FAILURE_COUNT), count(pod, IGNORED_FAILURE_COUNT)));
        if let Some(replaced) = replaced {
            let policy = spec.pod_failure_policy.as_ref();
            *(if verdict(policy, replaced) == Verdict::Ignore { &mut ignored } else { &mut counted }) += 1;
        }
        annotations.insert(FAILURE_COUNT.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURE_COUNT.to_owned(), ignored.to_string());
        }
    }
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(add_index_variable);
    }
    pod
}

fn generate_name(job: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let mut start = job.to_owned();
    // Names are ASCII.
    start.truncate(LONGEST_PREFIX - end.len());
    start + &end
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{COMPLETION_INDEX}']") };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}
