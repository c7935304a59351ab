//! The revisions of a pod template, kept as ControllerRevisions: how StatefulSets and DaemonSets remember what they were.
//!
//! Follows `history/controller_history.go`. A revision's data is the patch that makes the template what it was.
//!
//! Invariant: a revision's name follows from its data, so that a view which lags can't make a second one of the same data.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{
    Informer, PodOwner, ReconcileError, already_exists, claim, is_not_found, owner_patch, patch_params, post_params,
};
use crate::deployment::template::{equal_ignoring_hash, hash};

/// The label of a pod that says which revision it is of.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// Reads and writes the revisions of one controller's objects.
#[derive(Clone)]
pub struct History {
    client: Client,
    revisions: Informer<ControllerRevision>,
}

/// The revisions of an object.
#[derive(Clone, Debug)]
pub struct Revisions {
    /// All, oldest first, the latest among them.
    pub all: Vec<Arc<ControllerRevision>>,
    /// That of the template as it is.
    pub latest: Arc<ControllerRevision>,
    /// How often a name was taken by other data.
    pub collisions: i32,
}

impl History {
    /// Writes by `client`; `revisions` shows all.
    #[must_use]
    pub fn new(client: Client, revisions: Informer<ControllerRevision>) -> Self {
        Self { client, revisions }
    }

    /// The owner's revisions after adopting and releasing; that of `template` is made, or becomes the latest, if it is not.
    /// `label` is the key that the hash stands under.
    ///
    /// # Errors
    /// A request failed, or the owner is being deleted and would have to adopt.
    pub async fn sync(
        &self,
        owner: &PodOwner,
        selector: &LabelSelector,
        template: &PodTemplateSpec,
        collisions: i32,
        label: &str,
    ) -> Result<Revisions, ReconcileError> {
        let mut all = self.claim(owner, selector).await?;
        all.sort_by_key(|revision| (number(revision), created(revision), name(revision).to_owned()));
        let newest = all.last().cloned();
        let next = newest.as_ref().map_or(1, |newest| number(newest).saturating_add(1));
        let equal = all.iter().rev().find(|revision| is_of(revision, template)).cloned();
        let is_newest = |revision: &Arc<ControllerRevision>| {
            newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, revision) || is_of(newest, template))
        };
        let mut collisions = collisions;
        let latest = match equal {
            Some(revision) if is_newest(&revision) => return Ok(Revisions { latest: revision, all, collisions }),
            Some(revision) => {
                let api = self.api(owner);
                let patch = json!({"metadata": {"uid": revision.metadata.uid}, "revision": next});
                let moved = Arc::new(api.patch(name(&revision), &patch_params(), &Patch::Merge(&patch)).await?);
                all.retain(|own| own.metadata.uid != revision.metadata.uid);
                moved
            }
            None => Arc::new(self.create(owner, template, next, &mut collisions, label).await?),
        };
        all.push(Arc::clone(&latest));
        Ok(Revisions { all, latest, collisions })
    }

    async fn create(
        &self,
        owner: &PodOwner,
        template: &PodTemplateSpec,
        number: i64,
        collisions: &mut i32,
        label: &str,
    ) -> Result<ControllerRevision, ReconcileError> {
        let api = self.api(owner);
        loop {
            let revision = revision(owner, template, number, *collisions, label);
            match api.create(&post_params(), &revision).await {
                Err(error) if already_exists(&error) => {
                    let found = api.get(name(&revision)).await?;
                    if is_of(&found, template) {
                        return Ok(found);
                    }
                    *collisions = collisions.checked_add(1).ok_or(error)?;
                }
                created => return Ok(created?),
            }
        }
    }

    async fn claim(
        &self,
        owner: &PodOwner,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ControllerRevision>>, ReconcileError> {
        let meta = owner.meta();
        let mut candidates = self.revisions.owned_by(meta.uid.as_deref().unwrap_or_default());
        candidates.extend(self.revisions.orphans(meta.namespace.as_deref().unwrap_or_default()));
        let claims = claim(meta, selector, &candidates);
        let mut kept = claims.kept;
        if !claims.adopt.is_empty() {
            owner.check_can_adopt(&self.client).await?;
        }
        let api = self.api(owner);
        for revision in claims.adopt {
            let patch = owner_patch(&revision.metadata, Some(&owner.reference()), None);
            match api.patch(name(&revision), &patch_params(), &Patch::Merge(&patch)).await {
                Err(error) if is_not_found(&error) => {}
                adopted => kept.push(Arc::new(adopted?)),
            }
        }
        for revision in claims.release {
            let patch = owner_patch(&revision.metadata, None, meta.uid.as_deref());
            match api.patch(name(&revision), &patch_params(), &Patch::Merge(&patch)).await {
                Err(error) if is_not_found(&error) => {}
                released => drop(released?),
            }
        }
        Ok(kept)
    }

    /// Deletes the oldest revisions that are not `live`, by name, until `limit` of those are left.
    ///
    /// # Errors
    /// A request failed.
    pub async fn truncate(
        &self,
        owner: &PodOwner,
        revisions: &Revisions,
        live: &HashSet<String>,
        limit: i32,
    ) -> Result<(), ReconcileError> {
        let Ok(limit) = usize::try_from(limit) else { return Ok(()) };
        let dead: Vec<_> = revisions.all.iter().filter(|revision| !live.contains(name(revision))).collect();
        for revision in dead.iter().take(dead.len().saturating_sub(limit)) {
            match self.api(owner).delete(name(revision), &DeleteParams::default()).await {
                Err(error) if is_not_found(&error) => {}
                deleted => drop(deleted?),
            }
        }
        Ok(())
    }

    fn api(&self, owner: &PodOwner) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), owner.meta().namespace.as_deref().unwrap_or_default())
    }
}

fn revision(
    owner: &PodOwner,
    template: &PodTemplateSpec,
    number: i64,
    collisions: i32,
    label: &str,
) -> ControllerRevision {
    let hash = hash(template, Some(collisions));
    let meta = owner.meta();
    let mut prefix = meta.name.clone().unwrap_or_default();
    // Names are ASCII.
    prefix.truncate(223);
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(label.to_owned(), hash.clone());
    // A struct of strings, numbers, lists and maps with text keys always serializes.
    let mut data = serde_json::to_value(template).unwrap_or_default();
    if let Some(data) = data.as_object_mut() {
        data.insert("$patch".to_owned(), json!("replace"));
    }
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![owner.reference()]),
            ..ObjectMeta::default()
        },
        data: RawExtension(json!({"spec": {"template": data}})),
        revision: Some(number),
    }
}

/// The template that a revision stands for.
#[must_use]
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template: Value = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn is_of(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|own| equal_ignoring_hash(&own, template))
}

fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

fn created(revision: &ControllerRevision) -> Option<jiff::Timestamp> {
    revision.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSet;

    #[test]
    fn a_revision_is_named_by_its_data_and_gives_the_template_back() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "annotations": {"a": "b"}},
            "spec": {"selector": {}, "serviceName": "s",
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}},
        }))
        .expect("a StatefulSet");
        let owner = PodOwner::of(&set);
        let one = revision(&owner, &set.spec.template, 1, 0, "hash");
        assert!(is_of(&one, &set.spec.template));
        assert_eq!(template_of(&one), Some(set.spec.template.clone()));
        let labels = one.metadata.labels.clone().expect("labels");
        assert_eq!(name(&one), format!("web-{}", labels["hash"]));
        assert_ne!(name(&one), name(&revision(&owner, &set.spec.template, 1, 1, "hash")));
        let mut other = set.spec.template.clone();
        other.spec.as_mut().expect("a spec").containers[0].image = Some("y".to_owned());
        assert!(!is_of(&one, &other));
    }
}
