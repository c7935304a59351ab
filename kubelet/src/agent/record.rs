//! What a container's labels in containerd say: all that a restarted kubelet needs to go on where another stopped.
//!
//! Invariant: pure; [`Record::labels`] and [`Record::parse`] are each other's inverse.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::pod::observation::Ended;

/// The node whose kubelet made the container: several may share one containerd.
pub(super) const NODE: &str = "skep.dev/node";
const UID: &str = "io.kubernetes.pod.uid";
const NAME: &str = "io.kubernetes.pod.name";
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "skep.dev/attempt";
const SHORT_RUNS: &str = "skep.dev/short-runs";
const IMAGE: &str = "skep.dev/image";
const IMAGE_ID: &str = "skep.dev/image-id";
/// Followed by the name of a volume: the image that is mounted there.
const VOLUME_IMAGE: &str = "skep.dev/volume-image.";
const STARTED_AT: &str = "skep.dev/started-at";
const ENDED: &str = "skep.dev/ended";
const RESOURCES: &str = "skep.dev/resources";
const RESTART: &str = "skep.dev/restart";
/// containerd takes labels of 4096 bytes, name included; JSON may double a message's length.
const MESSAGE_LIMIT: usize = 1536;

/// A container of a pod, as its labels tell it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// The node that runs it.
    pub(super) node: String,
    /// The pod's UID.
    pub(super) uid: String,
    /// The pod's name.
    pub(super) name: String,
    /// The pod's namespace.
    pub(super) namespace: String,
    /// The container's name in the pod.
    pub(super) container: String,
    /// Which run it is, counted from 0.
    pub(super) attempt: u32,
    /// Runs before it, in a row, that did not last.
    pub(super) short_runs: u32,
    /// The image as the pod's status names it.
    pub(super) image: String,
    /// The image's digest, as the status names it.
    pub(super) image_id: String,
    /// The images that it mounts, as the status names them, by volume.
    pub(super) volume_images: BTreeMap<String, String>,
    /// When it was started.
    pub(super) started_at: Timestamp,
    /// What of its resources a resize may change, as its cgroup has them.
    pub(super) resources: ResourceRequirements,
    /// It was stopped so that a new run has what was granted.
    pub(super) restart: bool,
    /// How it ended, once that was seen.
    pub(super) ended: Option<Exit>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exit {
    /// 128 + N for signal N.
    pub(super) code: i32,
    /// As the status names it.
    pub(super) reason: String,
    /// The termination message.
    pub(super) message: Option<String>,
    /// When.
    pub(super) at: Timestamp,
}

/// containerd's id of a container: the same for the same run of the same container, and of 64 characters, as users know it.
pub(super) fn container_id(uid: &str, container: &str, attempt: u32) -> String {
    let digest = Sha256::digest(format!("{uid}/{container}/{attempt}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Record {
    /// The labels.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        let mut labels = HashMap::from(
            [
                (NODE, self.node.clone()),
                (UID, self.uid.clone()),
                (NAME, self.name.clone()),
                (NAMESPACE, self.namespace.clone()),
                (CONTAINER, self.container.clone()),
                (ATTEMPT, self.attempt.to_string()),
                (SHORT_RUNS, self.short_runs.to_string()),
                (IMAGE, self.image.clone()),
                (IMAGE_ID, self.image_id.clone()),
                (STARTED_AT, self.started_at.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        labels.extend(resources_label(&self.resources));
        let volumes = self.volume_images.iter();
        labels.extend(volumes.map(|(volume, image)| (format!("{VOLUME_IMAGE}{volume}"), image.clone())));
        if self.restart {
            labels.extend(restart_label());
        }
        if let Some(ended) = &self.ended {
            labels.extend(ended.labels());
        }
        labels
    }

    /// Reads labels; none when they are not a pod's container's.
    pub(super) fn parse(labels: &HashMap<String, String>) -> Option<Self> {
        let text = |name: &str| labels.get(name).cloned();
        Some(Self {
            node: text(NODE)?,
            uid: text(UID)?,
            name: text(NAME)?,
            namespace: text(NAMESPACE)?,
            container: text(CONTAINER)?,
            attempt: text(ATTEMPT)?.parse().ok()?,
            short_runs: text(SHORT_RUNS)?.parse().ok()?,
            image: text(IMAGE)?,
            image_id: text(IMAGE_ID)?,
            volume_images: volume_images(labels),
            started_at: text(STARTED_AT)?.parse().ok()?,
            resources: text(RESOURCES).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
            restart: labels.contains_key(RESTART),
            ended: text(ENDED).and_then(|json| serde_json::from_str(&json).ok()),
        })
    }

    /// containerd's id.
    pub(super) fn id(&self) -> String {
        container_id(&self.uid, &self.container, self.attempt)
    }

    /// The run as an observation tells it, once it ended.
    pub(super) fn ended(&self) -> Option<Ended> {
        let exit = self.ended.as_ref()?;
        Some(Ended {
            id: self.id(),
            exit_code: exit.code,
            reason: exit.reason.clone(),
            message: exit.message.clone(),
            started_at: self.started_at,
            finished_at: exit.at,
        })
    }
}

/// The images that a container with these labels mounts, by volume.
pub(super) fn volume_images(labels: &HashMap<String, String>) -> BTreeMap<String, String> {
    let volume = |label: &str| label.strip_prefix(VOLUME_IMAGE).map(str::to_owned);
    labels.iter().filter_map(|(label, image)| Some((volume(label)?, image.clone()))).collect()
}

/// The label to set on a container whose cgroup was given these.
pub(super) fn resources_label(resources: &ResourceRequirements) -> HashMap<String, String> {
    // Lists of amounts by name have no form that JSON lacks.
    HashMap::from([(RESOURCES.to_owned(), serde_json::to_string(resources).unwrap_or_default())])
}

/// The label to set on a container that is stopped so that it can be started with other resources.
pub(super) fn restart_label() -> HashMap<String, String> {
    HashMap::from([(RESTART.to_owned(), "true".to_owned())])
}

impl Exit {
    /// The labels to add to a container that ended so.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        let mut short = self.clone();
        if let Some(message) = &mut short.message {
            let end = (0..=MESSAGE_LIMIT.min(message.len())).rfind(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(end);
        }
        // A struct of text and numbers has no form that JSON lacks.
        let json = serde_json::to_string(&short).unwrap_or_default();
        HashMap::from([(ENDED.to_owned(), json)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_all_of_a_record() {
        let mut record = Record {
            node: "n1".into(),
            uid: "u".into(),
            name: "web".into(),
            namespace: "default".into(),
            container: "main".into(),
            attempt: 3,
            short_runs: 2,
            image: "busybox".into(),
            image_id: "sha256:1".into(),
            volume_images: BTreeMap::from([("data".to_owned(), "sha256:2".to_owned())]),
            started_at: Timestamp::UNIX_EPOCH,
            resources: serde_json::from_value(serde_json::json!({"limits": {"cpu": "1"}})).expect("resources"),
            restart: true,
            ended: None,
        };
        assert_eq!(Record::parse(&record.labels()).as_ref(), Some(&record));
        record.ended =
            Some(Exit { code: 137, reason: "OOMKilled".into(), message: Some("é".into()), at: Timestamp::UNIX_EPOCH });
        assert_eq!(Record::parse(&record.labels()).as_ref(), Some(&record));
    }

    #[test]
    fn a_long_message_is_cut_to_what_a_label_holds() {
        let exit =
            Exit { code: 1, reason: "Error".into(), message: Some("\"é".repeat(4000)), at: Timestamp::UNIX_EPOCH };
        assert!(exit.labels().into_iter().all(|(name, value)| name.len() + value.len() <= 4096));
    }

    #[test]
    fn labels_of_another_make_are_no_record() {
        assert_eq!(Record::parse(&HashMap::from([(NODE.to_owned(), "n".to_owned())])), None);
    }
}
