//! What a Deployment needs: a pure function from its ReplicaSets to writes.
//!
//! Follows upstream's `syncDeployment` and what it calls (`sync.go`, `rolling.go`, `recreate.go`). Upstream writes as it goes;
//! here the changes are made to copies, and each changed ReplicaSet is written once at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::replicas::{
    DESIRED_REPLICAS, MAX_REPLICAS, annotation, available, by_creation, desired, is_recreate, max_surge,
    max_unavailable, new_set_size, proportion, size,
};
use super::status;
use super::template::{HASH_LABEL, equal_ignoring_hash, hash};
use crate::runtime::controller_reference;

/// `deployment.kubernetes.io/revision`, on Deployments and ReplicaSets.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Upstream's `maxRevHistoryLengthInChars`.
const REVISION_HISTORY_LIMIT: usize = 2000;
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
const NAME_LIMIT: usize = 253;

/// What was seen of a Deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// The ReplicaSets that it controls.
    pub sets: &'a [Arc<ReplicaSet>],
    /// Uids of ReplicaSets that have pods which have not ended (for `Recreate`).
    pub sets_with_pods: &'a [String],
}

/// What to do, in this order; the first failure ends it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Create the ReplicaSet of the current template.
    Create(Box<ReplicaSet>),
    /// Write a changed ReplicaSet; `scaled` is its size before and after, if that changed.
    Update {
        /// The whole object, with the resource version that it was read at.
        set: Box<ReplicaSet>,
        /// Sizes before and after.
        scaled: Option<(i32, i32)>,
    },
    /// Delete an old ReplicaSet that the history has no room for.
    Delete(Box<ReplicaSet>),
    /// Write status and revision annotation.
    UpdateStatus {
        /// The new status.
        status: Box<DeploymentStatus>,
        /// The revision annotation, if it changes.
        revision: Option<String>,
    },
    /// The selector selects all pods, which is refused.
    RefuseSelector,
    /// Look again after that time.
    CheckAgain(Duration),
}

/// What to do about a Deployment now.
#[must_use]
pub(crate) fn reconcile(observed: Observed<'_>, now: Timestamp) -> Vec<Action> {
    let spec = &observed.deployment.spec;
    let old_status = observed.deployment.status.clone().unwrap_or_default();
    if spec.selector == LabelSelector::default() {
        let mut actions = vec![Action::RefuseSelector];
        if old_status.observed_generation < observed.deployment.metadata.generation {
            let observed_generation = observed.deployment.metadata.generation;
            let status = Box::new(DeploymentStatus { observed_generation, ..old_status });
            actions.push(Action::UpdateStatus { status, revision: None });
        }
        return actions;
    }
    let mut rollout = Rollout::new(observed, old_status, now);
    let paused = spec.paused == Some(true);
    let deleting = observed.deployment.metadata.deletion_timestamp.is_some();
    if !deleting {
        status::note_pause(observed.deployment, &mut rollout.status, paused, now);
    }
    rollout.sync_new_set();
    if deleting {
        rollout.finish(false)
    } else if paused || rollout.is_scaling_event() {
        rollout.scale();
        if paused {
            rollout.clean_up();
        }
        rollout.finish(false)
    } else if is_recreate(observed.deployment) {
        rollout.recreate();
        rollout.finish(true)
    } else {
        rollout.roll();
        rollout.finish(true)
    }
}

/// A ReplicaSet in work.
struct Working {
    set: ReplicaSet,
    size_before: i32,
    state: WorkingState,
}

#[derive(PartialEq)]
enum WorkingState {
    Unchanged,
    Changed,
    Created,
    Deleted,
}

/// A pass over one Deployment.
struct Rollout<'a> {
    observed: Observed<'a>,
    deployment: &'a Deployment,
    /// Sorted from old to new.
    sets: Vec<Working>,
    new: Option<usize>,
    status: DeploymentStatus,
    revision: Option<String>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(observed: Observed<'a>, status: DeploymentStatus, now: Timestamp) -> Self {
        let mut sets: Vec<Working> = observed
            .sets
            .iter()
            .map(|set| Working { size_before: size(set), set: (**set).clone(), state: WorkingState::Unchanged })
            .collect();
        sets.sort_by(|a, b| by_creation(&a.set, &b.set));
        let template = &observed.deployment.spec.template;
        let new = sets.iter().position(|working| {
            let own = working.set.spec.template.as_ref();
            own.is_some_and(|own| equal_ignoring_hash(own, template))
        });
        Self { observed, deployment: observed.deployment, sets, new, status, revision: None, now }
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |index| Some(*index) != new)
    }

    fn size(&self, index: usize) -> i32 {
        size(&self.sets[index].set)
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|working| size(&working.set)).sum()
    }

    /// Brings the new ReplicaSet's annotations and the Deployment's revision up to date (`getNewReplicaSet`, first half).
    fn sync_new_set(&mut self) {
        let Some(new) = self.new else { return };
        let revision = self.next_revision();
        let min_ready = self.deployment.spec.min_ready_seconds;
        let working = &mut self.sets[new];
        let mut changed = sync_annotations(self.deployment, &mut working.set, revision);
        if working.set.spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            working.set.spec.min_ready_seconds = min_ready;
            changed = true;
        }
        if changed {
            working.state = WorkingState::Changed;
        }
        let name = working.set.metadata.name.clone().unwrap_or_default();
        self.revision = working.set.metadata.annotations.as_ref().and_then(|map| map.get(REVISION)).cloned();
        if status::has_progress_deadline(self.deployment) && status::find(&self.status, status::PROGRESSING).is_none() {
            let text = format!("Found new replica set \"{name}\"");
            let found = status::condition(status::PROGRESSING, "True", "FoundNewReplicaSet", text, self.now);
            status::set(&mut self.status, found);
        }
    }

    fn next_revision(&self) -> i64 {
        self.old().map(|index| revision_of(&self.sets[index].set)).max().unwrap_or(0) + 1
    }

    /// Creates the ReplicaSet of the current template (`getNewReplicaSet`, second half).
    fn create_new_set(&mut self) {
        let spec = &self.deployment.spec;
        let hash = hash(&spec.template, self.status.collision_count);
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
        let replicas = new_set_size(self.deployment, self.total(), 0);
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(set_name(self.deployment.metadata.name.as_deref().unwrap_or_default(), &hash)),
                namespace: self.deployment.metadata.namespace.clone(),
                owner_references: Some(vec![controller_reference(self.deployment)]),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        };
        let revision = self.next_revision();
        sync_annotations(self.deployment, &mut set, revision);
        set_replicas_annotations(self.deployment, &mut set);
        self.revision = Some(revision.to_string());
        if status::has_progress_deadline(self.deployment) {
            let text = format!("Created new replica set \"{}\"", set.metadata.name.as_deref().unwrap_or_default());
            let created = status::condition(status::PROGRESSING, "True", "NewReplicaSetCreated", text, self.now);
            status::set(&mut self.status, created);
        }
        self.new = Some(self.sets.len());
        self.sets.push(Working { set, size_before: 0, state: WorkingState::Created });
    }

    /// Whether an active ReplicaSet was last scaled for another size of the Deployment (`isScalingEvent`).
    fn is_scaling_event(&self) -> bool {
        let mut active = self.sets.iter().filter(|working| size(&working.set) > 0);
        active.any(|working| {
            annotation(&working.set, DESIRED_REPLICAS).is_some_and(|before| before != desired(self.deployment))
        })
    }

    /// Sets a size. Without `force`, nothing is written if the size is right already, whatever the annotations say.
    fn resize(&mut self, index: usize, to: i32, force: bool) -> bool {
        let deployment = self.deployment;
        let working = &mut self.sets[index];
        let resized = size(&working.set) != to;
        if !resized && !force {
            return false;
        }
        working.set.spec.replicas = Some(to);
        let annotated = set_replicas_annotations(deployment, &mut working.set);
        if (resized || annotated) && working.state == WorkingState::Unchanged {
            working.state = WorkingState::Changed;
        }
        resized
    }

    /// Distributes a changed size over the ReplicaSets (`scale`).
    fn scale(&mut self) {
        let desired = desired(self.deployment);
        if let Some(only) = self.active_or_latest() {
            self.resize(only, desired, false);
            return;
        }
        let saturated = self.new.is_some_and(|new| {
            let set = &self.sets[new].set;
            size(set) == desired && annotation(set, DESIRED_REPLICAS) == Some(desired) && available(set) == desired
        });
        if saturated {
            for index in self.old() {
                self.resize(index, 0, false);
            }
            return;
        }
        if is_recreate(self.deployment) {
            return;
        }
        let mut active: Vec<usize> = (0..self.sets.len()).filter(|index| self.size(*index) > 0).collect();
        let allowed = if desired > 0 { desired.saturating_add(max_surge(self.deployment)) } else { 0 };
        let to_add = allowed - active.iter().map(|index| self.size(*index)).sum::<i32>();
        active.sort_by(|a, b| {
            let age = by_creation(&self.sets[*a].set, &self.sets[*b].set);
            self.size(*b).cmp(&self.size(*a)).then(if to_add > 0 { age.reverse() } else { age })
        });
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
        for index in &active {
            let share = proportion(&self.sets[*index].set, self.deployment, to_add, added);
            sizes.push(self.size(*index) + share);
            added += share;
        }
        // What rounding left over goes to the largest.
        if let Some(largest) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (index, size) in active.into_iter().zip(sizes) {
            self.resize(index, size, true);
        }
    }

    /// The only ReplicaSet with a size, or the newest if none has; none if there are several (`FindActiveOrLatest`).
    fn active_or_latest(&self) -> Option<usize> {
        let mut active = (0..self.sets.len()).filter(|index| self.size(*index) > 0);
        match (active.next(), active.next()) {
            (None, _) => self.new.or_else(|| self.sets.len().checked_sub(1)),
            (only, None) => only,
            (Some(_), Some(_)) => None,
        }
    }

    /// A step of a rolling update (`rolloutRolling`).
    fn roll(&mut self) {
        if self.new.is_none() {
            self.create_new_set();
        }
        if self.grow_new_set() || self.shrink_old_sets() {
            return;
        }
        if status::is_complete(self.deployment, &self.status) {
            self.clean_up();
        }
    }

    fn grow_new_set(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let (current, desired) = (self.size(new), desired(self.deployment));
        let to = if current > desired { desired } else { new_set_size(self.deployment, self.total(), current) };
        current != desired && self.resize(new, to, false)
    }

    fn shrink_old_sets(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let old: Vec<usize> = self.old().filter(|index| self.size(*index) > 0).collect();
        if old.is_empty() {
            return false;
        }
        let minimum = desired(self.deployment) - max_unavailable(self.deployment);
        let unavailable_new = self.size(new) - available(&self.sets[new].set);
        let limit = self.total() - minimum - unavailable_new;
        if limit <= 0 {
            return false;
        }
        // Unhealthy replicas first: they count for nothing and would block the rollout.
        let mut cleaned = 0;
        for index in &old {
            let unhealthy = self.size(*index) - available(&self.sets[*index].set);
            let count = unhealthy.min(limit - cleaned);
            if count > 0 {
                self.resize(*index, self.size(*index) - count, false);
                cleaned += count;
            }
        }
        let spare = self.sets.iter().map(|working| available(&working.set)).sum::<i32>() - minimum;
        let mut removed = 0;
        for index in &old {
            let count = self.size(*index).min(spare - removed);
            if count > 0 {
                self.resize(*index, self.size(*index) - count, false);
                removed += count;
            }
        }
        cleaned + removed > 0
    }

    /// A step of a recreation: all old pods end before a new one starts (`rolloutRecreate`).
    fn recreate(&mut self) {
        let mut scaled = false;
        for index in self.old() {
            scaled |= self.resize(index, 0, false);
        }
        if scaled || self.old_pods_run() {
            return;
        }
        if self.new.is_none() {
            self.create_new_set();
        }
        if let Some(new) = self.new {
            self.resize(new, desired(self.deployment), false);
        }
        if status::is_complete(self.deployment, &self.status) {
            self.clean_up();
        }
    }

    fn old_pods_run(&self) -> bool {
        let has_replicas = |set: &ReplicaSet| set.status.as_ref().is_some_and(|status| status.replicas > 0);
        let has_pods =
            |set: &ReplicaSet| set.metadata.uid.as_ref().is_some_and(|uid| self.observed.sets_with_pods.contains(uid));
        self.old().any(|index| has_replicas(&self.sets[index].set) || has_pods(&self.sets[index].set))
    }

    /// Deletes the oldest revisions beyond the history limit (`cleanupDeployment`).
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let alive = |index: &usize| self.sets[*index].set.metadata.deletion_timestamp.is_none();
        let mut old: Vec<usize> = self.old().filter(alive).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|index| revision_of(&self.sets[*index].set));
        for index in old.into_iter().take(surplus) {
            let set = &self.sets[index].set;
            let status = set.status.clone().unwrap_or_default();
            let unseen = set.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0);
            if status.replicas == 0 && size(set) == 0 && !unseen {
                self.sets[index].state = WorkingState::Deleted;
            }
        }
    }

    /// The writes. `rollout` says whether progress counts now: it doesn't while only scaling or paused.
    fn finish(self, rollout: bool) -> Vec<Action> {
        let before = self.status.clone();
        let sets: Vec<&ReplicaSet> = self.sets.iter().map(|working| &working.set).collect();
        let new = self.new.map(|new| &self.sets[new].set);
        let mut status = status::calculate(self.deployment, &self.status, &sets, new, self.now);
        if rollout {
            status::note_progress(self.deployment, &before, &mut status, &sets, new, self.now);
        }
        let current = self.deployment.status.clone().unwrap_or_default();
        let annotations = self.deployment.metadata.annotations.as_ref();
        let noted = annotations.and_then(|annotations| annotations.get(REVISION));
        let revision = self.revision.filter(|revision| noted != Some(revision));
        let mut actions = Vec::new();
        for working in self.sets {
            let scaled = (working.size_before, size(&working.set));
            match working.state {
                WorkingState::Unchanged => {}
                WorkingState::Created => actions.push(Action::Create(Box::new(working.set))),
                WorkingState::Changed => actions.push(Action::Update {
                    set: Box::new(working.set),
                    scaled: Some(scaled).filter(|(before, after)| before != after),
                }),
                WorkingState::Deleted => actions.push(Action::Delete(Box::new(working.set))),
            }
        }
        // A ReplicaSet that can't be created must be known before anything else is scaled for it.
        actions.sort_by_key(|action| !matches!(action, Action::Create(_)));
        let check = status::next_progress_check(self.deployment, &status, self.now).filter(|_| rollout);
        if revision.is_some() || !status::same(&current, &status) {
            actions.push(Action::UpdateStatus { status: Box::new(status), revision });
        }
        actions.extend(check.map(Action::CheckAgain));
        actions
    }
}

/// `<deployment>-<hash>`, cut to what a name may be.
fn set_name(deployment: &str, hash: &str) -> String {
    let room = NAME_LIMIT - 1 - hash.len();
    // A Deployment's name is ASCII, but a cut must not panic whatever it is.
    let name = deployment.get(..room.min(deployment.len())).unwrap_or(deployment);
    format!("{name}-{hash}")
}

fn revision_of(set: &ReplicaSet) -> i64 {
    let text = set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Copies the Deployment's annotations and raises the revision, keeping the one before in the history
/// (`SetNewReplicaSetAnnotations`). Whether anything changed.
fn sync_annotations(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let before = annotations.clone();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let old_number = match &old {
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) if text.is_empty() => 0,
            Err(_) => return *annotations != before,
        },
        None => 0,
    };
    if old_number < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            append_history(annotations, &old);
        }
    }
    *annotations != before
}

fn append_history(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|revision| !revision.is_empty()).collect();
    revisions.push(revision);
    let length = |revisions: &[&str]| revisions.iter().map(|revision| revision.len() + 1).sum::<usize>() - 1;
    while revisions.len() > 1 && length(&revisions) > REVISION_HISTORY_LIMIT {
        revisions.remove(0);
    }
    annotations.insert(REVISION_HISTORY.to_owned(), revisions.join(","));
}

fn set_replicas_annotations(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let (size, surge) = (desired(deployment), max_surge(deployment));
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED_REPLICAS, size), (MAX_REPLICAS, size.saturating_add(surge))] {
        let value = value.to_string();
        changed |= annotations.insert(key.to_owned(), value.clone()).as_ref() != Some(&value);
    }
    changed
}
