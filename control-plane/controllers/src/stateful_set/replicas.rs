//! A StatefulSet's pods: names, ordinals, identity and volumes.
//!
//! Follows `stateful_set_utils.go`.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use skep_client::slim::SlimPod;

use crate::runtime::{PodOwner, REVISION_LABEL, pod_from_template};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinals of a set: the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ordinals {
    pub(super) start: i32,
    pub(super) count: i32,
}

impl Ordinals {
    pub(super) fn of(set: &StatefulSet) -> Self {
        let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        Self { start, count: set.spec.replicas.unwrap_or(1).max(0) }
    }

    pub(super) fn contains(self, ordinal: i32) -> bool {
        ordinal >= self.start && ordinal.saturating_sub(self.start) < self.count
    }

    pub(super) fn iter(self) -> impl DoubleEndedIterator<Item = i32> {
        self.start..self.start.saturating_add(self.count)
    }
}

/// The set's name and the ordinal, from a pod's name.
pub(super) fn parent_and_ordinal(pod: &str) -> Option<(&str, i32)> {
    let (parent, ordinal) = pod.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    Some((parent, ordinal.parse().ok().filter(|_| digits)?))
}

/// The pod's ordinal, if its name is one of the set's.
pub(super) fn ordinal(set: &StatefulSet, pod: &SlimPod) -> Option<i32> {
    let (parent, ordinal) = parent_and_ordinal(pod.metadata.name.as_deref()?)?;
    (Some(parent) == set.metadata.name.as_deref()).then_some(ordinal)
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

pub(super) fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", template.metadata.name.as_deref().unwrap_or_default(), pod_name(set, ordinal))
}

/// The labels that a pod of that ordinal must have.
pub(super) fn identity(set: &StatefulSet, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, pod_name(set, ordinal)), (POD_INDEX, ordinal.to_string())]
}

/// Whether the pod has the label of its name.
pub(super) fn identity_matches(pod: &SlimPod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(POD_NAME)) == pod.metadata.name.as_ref()
}

/// The revision that a pod is of.
pub(super) fn revision(pod: &SlimPod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// The pod of that ordinal.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pod_from_template(&PodOwner::of(set), template);
    let name = pod_name(set, ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity(set, ordinal).map(|(key, value)| (key.to_owned(), value)));
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let Some(spec) = &mut pod.spec else { return pod };
    spec.hostname = Some(name);
    spec.subdomain = set.spec.service_name.clone();
    let templates = set.spec.volume_claim_templates.as_deref().unwrap_or_default();
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| templates.iter().all(|template| template.metadata.name.as_ref() != Some(&volume.name)));
    let claims = templates.iter().map(|template| Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: Some(false),
        }),
        ..Volume::default()
    });
    volumes.splice(0..0, claims);
    pod
}

/// The claims of that ordinal.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = set.spec.volume_claim_templates.as_deref().unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
        claim.status = None;
        claim
    };
    templates.iter().map(claim).collect()
}
