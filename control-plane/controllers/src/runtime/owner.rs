//! Who controls an object, and which objects a controller may claim.
//!
//! Follows `controller_ref_manager.go`: an owner adopts orphans that its selector matches, and releases what it owns but
//! its selector no longer matches; an object of another controller is never touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};

/// The owner reference with `controller: true`.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Whether the object's controlling owner has that uid.
#[must_use]
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// The reference that a controller sets on what it creates.
#[must_use]
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a label selector matches. An invalid one matches nothing; an empty one matches all.
#[must_use]
pub fn selector_matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| get(key) == Some(value));
    exact
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let value = get(&requirement.key);
            let listed = |value: &String| requirement.values.as_ref().is_some_and(|values| values.contains(value));
            match requirement.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// What to do with one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is owned and matches.
    Keep,
    /// It is an orphan that matches.
    Adopt,
    /// It is owned and no longer matches.
    Release,
    /// It is another's, or is being deleted as an orphan, or doesn't match.
    Ignore,
}

/// The candidates of [`claim`], by what to do.
#[derive(Clone, Debug)]
pub struct Claims<K> {
    /// Owned and matching.
    pub kept: Vec<Arc<K>>,
    /// To adopt.
    pub adopt: Vec<Arc<K>>,
    /// To release.
    pub release: Vec<Arc<K>>,
}

/// Sorts the candidates by what `owner` with `selector` does with them.
pub fn claim<K: Resource>(owner: &ObjectMeta, selector: &LabelSelector, candidates: &[Arc<K>]) -> Claims<K> {
    let mut claims = Claims { kept: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for candidate in candidates {
        match claim_one(owner, selector, candidate.meta()) {
            Claim::Keep => claims.kept.push(Arc::clone(candidate)),
            Claim::Adopt => claims.adopt.push(Arc::clone(candidate)),
            Claim::Release => claims.release.push(Arc::clone(candidate)),
            Claim::Ignore => {}
        }
    }
    claims
}

fn claim_one(owner: &ObjectMeta, selector: &LabelSelector, candidate: &ObjectMeta) -> Claim {
    let uid = owner.uid.as_deref().unwrap_or_default();
    let matches = selector_matches(selector, candidate.labels.as_ref());
    match controller_of(candidate) {
        Some(controller) if controller.uid != uid => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner.deletion_timestamp.is_some() => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner.deletion_timestamp.is_some() || !matches => Claim::Ignore,
        None if candidate.deletion_timestamp.is_some() || candidate.namespace != owner.namespace => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// A merge patch that adds the owner, or removes it, guarded by the object's uid and resource version: a conflict means
/// that the list of owners may have changed, and the key is tried again.
#[must_use]
pub fn owner_patch(candidate: &ObjectMeta, add: Option<&OwnerReference>, remove_uid: Option<&str>) -> Value {
    let mut owners = candidate.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| Some(owner.uid.as_str()) != remove_uid && Some(&owner.uid) != add.map(|add| &add.uid));
    owners.extend(add.cloned());
    json!({"metadata": {
        "uid": candidate.uid,
        "resourceVersion": candidate.resource_version,
        "ownerReferences": owners,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, Time};

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn meta(controller: Option<&str>, app: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some("x".to_owned()),
            labels: Some(labels(&[("app", app)])),
            owner_references: controller.map(|uid| {
                vec![OwnerReference { uid: uid.to_owned(), controller: Some(true), ..OwnerReference::default() }]
            }),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn an_owner_adopts_matching_orphans_and_releases_what_no_longer_matches() {
        let owner = ObjectMeta { uid: Some("o".to_owned()), ..ObjectMeta::default() };
        let selector = LabelSelector { match_labels: Some(labels(&[("app", "a")])), ..LabelSelector::default() };
        let table = [
            (meta(Some("o"), "a"), Claim::Keep),
            (meta(Some("o"), "b"), Claim::Release),
            (meta(Some("other"), "a"), Claim::Ignore),
            (meta(None, "a"), Claim::Adopt),
            (meta(None, "b"), Claim::Ignore),
        ];
        for (candidate, expected) in table {
            assert_eq!(claim_one(&owner, &selector, &candidate), expected, "{candidate:?}");
        }
        let deleting = ObjectMeta { deletion_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)), ..owner };
        assert_eq!(claim_one(&deleting, &selector, &meta(None, "a")), Claim::Ignore);
        assert_eq!(claim_one(&deleting, &selector, &meta(Some("o"), "b")), Claim::Ignore);
    }

    #[test]
    fn expressions_of_a_selector_must_all_hold() {
        let expression = |operator: &str, values: &[&str]| LabelSelectorRequirement {
            key: "tier".to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let matches = |operator: &str, values: &[&str], pairs: &[(&str, &str)]| {
            let selector =
                LabelSelector { match_expressions: Some(vec![expression(operator, values)]), match_labels: None };
            selector_matches(&selector, Some(&labels(pairs)))
        };
        assert!(matches("In", &["a", "b"], &[("tier", "a")]) && !matches("In", &["a"], &[]));
        assert!(matches("NotIn", &["a"], &[]) && !matches("NotIn", &["a"], &[("tier", "a")]));
        assert!(matches("Exists", &[], &[("tier", "")]) && matches("DoesNotExist", &[], &[]));
        assert!(!matches("Unknown", &[], &[("tier", "a")]));
    }
}
