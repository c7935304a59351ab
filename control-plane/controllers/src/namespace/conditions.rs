//! What a namespace that is on its way out says about what is left in it (`status_condition_utils.go`). Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::DynamicObject;
use kube::core::discovery::ApiResource;

/// What became of a namespace's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Why it could not be found out what there is.
    pub(super) discovery_failure: Option<String>,
    /// What could not be deleted, and why.
    pub(super) failures: Vec<String>,
    /// Objects left, by resource.
    remaining: BTreeMap<String, usize>,
    /// Objects left that a finalizer holds, by finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Content {
    /// Counts what is left of a resource.
    pub(super) fn add(&mut self, resource: &ApiResource, left: &[DynamicObject]) {
        if left.is_empty() {
            return;
        }
        *self.remaining.entry(super::name_of(resource)).or_default() += left.len();
        for finalizer in left.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// Whether it is known that nothing is left.
    pub(super) fn is_gone(&self) -> bool {
        self.discovery_failure.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// Sets the five conditions; `true` if that changed any.
pub(super) fn set(conditions: &mut Vec<NamespaceCondition>, content: &Content, now: Timestamp) -> bool {
    let listed = |counts: &BTreeMap<String, usize>, what: &str| {
        let parts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {what} {count} resource instances")).collect();
        parts.join(", ")
    };
    let remaining = (!content.remaining.is_empty())
        .then(|| format!("Some resources are remaining: {}", listed(&content.remaining, "has")));
    let held = (!content.finalizers.is_empty()).then(|| {
        format!("Some content in the namespace has finalizers remaining: {}", listed(&content.finalizers, "in"))
    });
    let failed = (!content.failures.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            content.failures.len(),
            content.failures.join(", ")
        )
    });
    let discovery = content.discovery_failure.as_ref().map(|why| format!("Discovery failed for some groups: {why}"));
    let wanted = [
        (
            "NamespaceDeletionDiscoveryFailure",
            discovery,
            "DiscoveryFailed",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failed,
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            remaining,
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            held,
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let mut changed = false;
    for (type_, trouble, bad, good, fine) in wanted {
        let (status, reason, message) = match trouble {
            Some(message) => ("True", bad, message),
            None => ("False", good, fine.to_owned()),
        };
        let there = conditions.iter_mut().find(|condition| condition.type_ == type_);
        let since =
            there.as_ref().filter(|there| there.status == status).and_then(|there| there.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match there {
            Some(there) if *there == condition => {}
            Some(there) => {
                *there = condition;
                changed = true;
            }
            None => {
                conditions.push(condition);
                changed = true;
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn what_is_left_is_counted_by_kind_and_finalizer() {
        let mut content = Content::default();
        let mut object = DynamicObject::new("a", &pods());
        object.metadata.finalizers = Some(vec!["x/y".to_owned()]);
        content.add(&pods(), &[object]);
        assert!(!content.is_gone());
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, &content, at(1)));
        let message = |type_: &str| {
            conditions.iter().find(|c| c.type_ == type_).and_then(|c| c.message.clone()).unwrap_or_default()
        };
        assert_eq!(message("NamespaceContentRemaining"), "Some resources are remaining: pods has 1 resource instances");
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
        );
        let before = conditions.clone();
        assert!(!set(&mut conditions, &content, at(2)), "the same content changes nothing");
        assert_eq!(before, conditions);
    }

    #[test]
    fn an_empty_namespace_is_gone() {
        let mut content = Content::default();
        content.add(&pods(), &[]);
        assert!(content.is_gone());
    }

    fn pods() -> ApiResource {
        ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&())
    }
}
