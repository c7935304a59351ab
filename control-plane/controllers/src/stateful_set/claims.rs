//! Who owns a StatefulSet's volume claims, by its retention policy: nobody, the set, or the pod that is scaled away.
//!
//! Follows `stateful_set_utils.go` (`isClaimOwnerUpToDate`, `updateClaimOwnerRefForSetAndPod`).

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::replicas::{Ordinals, parent_and_ordinal};

/// The set and the pod that a claim belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holders<'a> {
    pub(super) set: &'a StatefulSet,
    /// The pod's metadata.
    pub(super) pod: &'a ObjectMeta,
}

/// What to do with a claim's owners.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Owners {
    /// They are as they should be.
    Keep,
    /// Set these.
    Set(Vec<OwnerReference>),
}

impl Holders<'_> {
    /// What the owners of a claim should be.
    pub(super) fn owners(&self, claim: &ObjectMeta) -> Owners {
        let owners = claim.owner_references.as_deref().unwrap_or_default();
        if self.is_stale(owners, true) || self.is_stale(owners, false) {
            return Owners::Keep;
        }
        let conflict = self.has_conflict(claim);
        let own = |uid: Option<&String>| owners.iter().find(|owner| Some(&owner.uid) == uid);
        let (set, pod) = (own(self.set.metadata.uid.as_ref()), own(self.pod.uid.as_ref()));
        let (want_set, want_pod) = if conflict { (false, false) } else { self.wanted() };
        let is_controller = |owner: Option<&OwnerReference>| owner.is_none_or(|owner| owner.controller == Some(true));
        if set.is_some() == want_set && pod.is_some() == want_pod && is_controller(set) && is_controller(pod) {
            return Owners::Keep;
        }
        let mut owners: Vec<OwnerReference> =
            owners.iter().filter(|owner| !self.names(owner, true) && !self.names(owner, false)).cloned().collect();
        if want_set {
            owners.push(self.reference(true));
        }
        if want_pod {
            owners.push(self.reference(false));
        }
        Owners::Set(owners)
    }

    /// Whether another controls the claim, which the retention policy must then leave alone.
    pub(super) fn has_conflict(&self, claim: &ObjectMeta) -> bool {
        let (deleted, scaled) = self.policy();
        (deleted || scaled)
            && claim.owner_references.iter().flatten().any(|owner| {
                let own = self.names(owner, true) || self.names(owner, false);
                !own && owner.controller == Some(true)
            })
    }

    /// Whether the claim is kept by a pod of that name that is gone: it will go too, and must not be used again.
    pub(super) fn is_leaving(&self, claim: &ObjectMeta) -> bool {
        self.policy().1 && self.is_stale(claim.owner_references.as_deref().unwrap_or_default(), false)
    }

    /// Whether set and pod should own the claim.
    fn wanted(&self) -> (bool, bool) {
        let (deleted, scaled) = self.policy();
        let ordinal = self.pod.name.as_deref().and_then(parent_and_ordinal).map_or(-1, |(_, ordinal)| ordinal);
        let condemned = !Ordinals::of(self.set).contains(ordinal);
        (deleted && !(scaled && condemned), scaled && condemned)
    }

    /// Whether claims go with the set, and with a pod that is scaled away.
    fn policy(&self) -> (bool, bool) {
        let policy = self.set.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
        (
            deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        )
    }

    /// Whether a reference names the set (or the pod), whatever its uid.
    fn names(&self, owner: &OwnerReference, set: bool) -> bool {
        let own = self.reference(set);
        owner.api_version == own.api_version && owner.kind == own.kind && owner.name == own.name
    }

    fn is_stale(&self, owners: &[OwnerReference], set: bool) -> bool {
        let uid = self.reference(set).uid;
        owners.iter().find(|owner| self.names(owner, set)).is_some_and(|owner| owner.uid != uid)
    }

    fn reference(&self, set: bool) -> OwnerReference {
        let meta = if set { &self.set.metadata } else { self.pod };
        let (api_version, kind) = if set {
            (StatefulSet::api_version(&()), StatefulSet::kind(&()))
        } else {
            (Pod::api_version(&()), Pod::kind(&()))
        };
        OwnerReference {
            api_version: api_version.into_owned(),
            kind: kind.into_owned(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
