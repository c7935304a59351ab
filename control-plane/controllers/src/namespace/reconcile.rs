//! What a namespace's conditions say of its deletion, and when to look again. Pure.
//!
//! Follows `namespace/deletion/status_condition_utils.go`; the texts are what clients see.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What a pass over a namespace's content came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    /// Why discovery failed.
    pub(super) discovery_failure: Option<String>,
    /// What could not be deleted or listed.
    pub(super) failures: Vec<String>,
    /// Objects that are still there, by `resource.group`.
    pub(super) remaining: BTreeMap<String, usize>,
    /// How many of them have which finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
}

impl Content {
    /// Whether the namespace is empty, and known to be.
    pub(super) fn is_gone(&self) -> bool {
        self.discovery_failure.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }

    /// When to look again: soon, as nothing tells when the last object of any kind goes; later while finalizers hold some.
    pub(super) fn next_look(&self) -> Duration {
        if self.finalizers.is_empty() { Duration::from_secs(1) } else { Duration::from_secs(5) }
    }
}

/// The conditions after a pass, if they change.
pub(super) fn conditions(
    current: &[NamespaceCondition],
    content: &Content,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let joined = |counts: &BTreeMap<String, usize>, text: &dyn Fn(&str, usize) -> String| {
        counts.iter().map(|(name, count)| text(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let mut failures = content.failures.clone();
    failures.sort_unstable();
    let failed = (!failures.is_empty())
        .then(|| format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", ")));
    let remain = (!content.remaining.is_empty()).then(|| {
        let list = joined(&content.remaining, &|name, count| format!("{name} has {count} resource instances"));
        format!("Some resources are remaining: {list}")
    });
    let held = (!content.finalizers.is_empty()).then(|| {
        let list = joined(&content.finalizers, &|name, count| format!("{name} in {count} resource instances"));
        format!("Some content in the namespace has finalizers remaining: {list}")
    });
    let table = [
        (
            "NamespaceDeletionDiscoveryFailure",
            content.discovery_failure.clone().map(|text| ("DiscoveryFailed", text)),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            failed.map(|text| ("ContentDeletionFailed", text)),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            remain.map(|text| ("SomeResourcesRemain", text)),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            held.map(|text| ("SomeFinalizersRemain", text)),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut conditions = current.to_vec();
    for (r#type, bad, (reason, text)) in table {
        let status = if bad.is_some() { "True" } else { "False" };
        let (reason, message) = bad.unwrap_or_else(|| (reason, text.to_owned()));
        let mut condition = NamespaceCondition {
            type_: r#type.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|old| old.type_ == r#type) {
            None => conditions.push(condition),
            Some(old) => {
                if old.status == condition.status {
                    condition.last_transition_time = old.last_transition_time.clone();
                }
                *old = condition;
            }
        }
    }
    (conditions != current).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_remains_and_settle() {
        let now = Timestamp::UNIX_EPOCH;
        let content = Content {
            remaining: BTreeMap::from([("pods.".to_owned(), 2)]),
            finalizers: BTreeMap::from([("example.com/hold".to_owned(), 1)]),
            ..Content::default()
        };
        assert!(!content.is_gone() && Content::default().is_gone());
        let first = conditions(&[], &content, now).expect("new conditions");
        let message = |r#type: &str| {
            first.iter().find(|condition| condition.type_ == r#type).and_then(|condition| condition.message.clone())
        };
        assert_eq!(
            message("NamespaceContentRemaining").as_deref(),
            Some("Some resources are remaining: pods. has 2 resource instances")
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining").as_deref(),
            Some("Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances")
        );
        assert_eq!(conditions(&first, &content, now), None);
        let last = conditions(&first, &Content::default(), now).expect("changed conditions");
        assert!(last.iter().all(|condition| condition.status == "False"));
    }
}
