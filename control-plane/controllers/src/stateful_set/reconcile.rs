//! What a StatefulSet needs: a pure function from what was seen to what to do.
//!
//! Follows `updateStatefulSet` in `stateful_set_control.go`: in order of ordinals, and only one at a time unless the pods
//! are managed in parallel.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_client::slim::SlimPod;

use super::claims::{Holders, Owners};
use super::replicas::{self, Ordinals};
use crate::replica_set::reconcile::{is_available, ready_since};

/// What was seen of a StatefulSet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    pub set: &'a StatefulSet,
    /// Its pods, all of them.
    pub pods: &'a [Arc<SlimPod>],
    /// Its volume claims, by name.
    pub claims: &'a HashMap<String, PersistentVolumeClaim>,
    /// The name of the revision that it comes from.
    pub current: &'a str,
    /// The name of the revision that it goes to.
    pub update: &'a str,
}

/// What to do with one pod.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Create its claims, then the pod of that ordinal.
    Create {
        ordinal: i32,
        /// Of the revision that the set comes from, not of the one that it goes to.
        from_current: bool,
    },
    /// Delete it.
    Delete(Arc<SlimPod>),
    /// Create the claims that it waits for.
    EnsureClaims(Arc<SlimPod>),
    /// Set its labels and its claims' owners right.
    Mend(Arc<SlimPod>),
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub(super) struct Decision {
    /// What to do, in this order; an error ends it.
    pub actions: Vec<Action>,
    /// The status, once it is done.
    pub status: StatefulSetStatus,
}

/// A pod that is, or is to be.
#[derive(Clone, Debug)]
enum Replica {
    Present(Arc<SlimPod>),
    Missing(i32),
}

struct Pass<'a> {
    observed: Observed<'a>,
    ordinals: Ordinals,
    monotonic: bool,
    now: Timestamp,
    actions: Vec<Action>,
    deleted_current: i32,
}

/// What to do.
pub(super) fn reconcile(observed: Observed<'_>, now: Timestamp) -> Decision {
    let set = observed.set;
    let ordinals = Ordinals::of(set);
    let mut condemned: Vec<(i32, Arc<SlimPod>)> = Vec::new();
    let mut present: BTreeMap<i32, Arc<SlimPod>> = BTreeMap::new();
    for pod in observed.pods {
        match replicas::ordinal(set, pod) {
            Some(ordinal) if ordinals.contains(ordinal) => drop(present.insert(ordinal, Arc::clone(pod))),
            Some(ordinal) => condemned.push((ordinal, Arc::clone(pod))),
            None => {}
        }
    }
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    let condemned: Vec<Arc<SlimPod>> = condemned.into_iter().map(|(_, pod)| pod).collect();
    let of = |ordinal| present.get(&ordinal).cloned().map_or(Replica::Missing(ordinal), Replica::Present);
    let all: Vec<Replica> = ordinals.iter().map(of).collect();
    let monotonic = set.spec.pod_management_policy.as_deref() != Some("Parallel");
    let mut pass = Pass { observed, ordinals, monotonic, now, actions: Vec::new(), deleted_current: 0 };
    if set.metadata.deletion_timestamp.is_none() {
        pass.run(&all, &condemned);
    }
    let status = pass.status();
    Decision { actions: pass.actions, status }
}

impl Pass<'_> {
    fn run(&mut self, replicas: &[Replica], condemned: &[Arc<SlimPod>]) {
        let missing = |replica: &&Replica| matches!(replica, Replica::Missing(_));
        let unavailable = |pod: &&Arc<SlimPod>| self.is_unavailable(pod);
        // The first that is not available may go, though it is not ready.
        let unhealthy = if replicas.iter().any(|replica| missing(&replica)) {
            None
        } else {
            let first = present(replicas).into_iter().find(|pod| self.is_unavailable(pod));
            first.or_else(|| condemned.iter().rev().find(unavailable).cloned())
        };
        for replica in replicas {
            if self.keep(replica) && self.monotonic {
                return;
            }
        }
        for pod in condemned {
            if !self.owners_match(pod) {
                self.actions.push(Action::Mend(Arc::clone(pod)));
            }
        }
        for pod in condemned {
            if self.scale_away(pod, unhealthy.as_ref()) && self.monotonic {
                return;
            }
        }
        if matches!(self.strategy(), "RollingUpdate") {
            self.roll(replicas);
        }
    }

    /// Keeps a replica alive. Gives whether later ones must wait for it.
    fn keep(&mut self, replica: &Replica) -> bool {
        let pod = match replica {
            Replica::Missing(ordinal) => return self.create(*ordinal),
            Replica::Present(pod) => pod,
        };
        if pod.is_terminal() {
            if !pod.is_terminating() {
                self.delete(pod);
            }
            return true;
        }
        if &*pod.status.phase == "Pending" && self.lacks_claims(pod) {
            self.actions.push(Action::EnsureClaims(Arc::clone(pod)));
        }
        if self.monotonic && (pod.is_terminating() || !self.is_running_and_available(pod)) {
            return true;
        }
        if !replicas::identity_matches(pod) || !self.owners_match(pod) {
            self.actions.push(Action::Mend(Arc::clone(pod)));
        }
        false
    }

    fn create(&mut self, ordinal: i32) -> bool {
        let set = self.observed.set;
        let name = replicas::pod_name(set, ordinal);
        let meta = kube::api::ObjectMeta { name: Some(name), ..kube::api::ObjectMeta::default() };
        let holders = Holders { set, pod: &meta };
        let leaving = |claim: PersistentVolumeClaim| {
            let claim = self.observed.claims.get(claim.metadata.name.as_deref().unwrap_or_default());
            claim.is_some_and(|claim| holders.is_leaving(&claim.metadata))
        };
        if replicas::claims(set, ordinal).into_iter().any(leaving) {
            return true;
        }
        let rolling = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let from_current = match rolling {
            Some(rolling) => ordinal - self.ordinals.start < rolling.partition.unwrap_or(0),
            None => {
                let current = set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
                self.strategy() == "RollingUpdate" && ordinal - self.ordinals.start < current
            }
        };
        self.actions.push(Action::Create { ordinal, from_current });
        true
    }

    /// Takes away a pod beyond the replicas. Gives whether later ones must wait for it.
    fn scale_away(&mut self, pod: &Arc<SlimPod>, unhealthy: Option<&Arc<SlimPod>>) -> bool {
        if pod.is_terminating() {
            return true;
        }
        let is_unhealthy = unhealthy.is_some_and(|own| own.metadata.uid == pod.metadata.uid);
        if self.monotonic && !self.is_running_and_available(pod) && !is_unhealthy {
            return true;
        }
        self.delete(pod);
        true
    }

    /// Takes away pods of other revisions, from the last ordinal on, while few enough are unavailable.
    fn roll(&mut self, replicas: &[Replica]) {
        let rolling = self.observed.set.spec.update_strategy.as_ref().and_then(|own| own.rolling_update.as_ref());
        let partition = usize::try_from(rolling.and_then(|own| own.partition).unwrap_or(0)).unwrap_or(0);
        let limit = rolling.and_then(|own| own.max_unavailable.as_ref());
        let limit = max_unavailable(limit, replicas.len());
        let is_old = |pod: &SlimPod| replicas::revision(pod) != self.observed.update && !pod.is_terminating();
        let missing = replicas.iter().filter(|replica| matches!(replica, Replica::Missing(_))).count();
        let pods = present(replicas);
        let unavailable = missing + pods.iter().filter(|pod| self.is_unavailable(pod)).count();
        let old_and_unavailable = pods.iter().filter(|pod| self.is_unavailable(pod) && is_old(pod)).count();
        let old: Vec<Arc<SlimPod>> = present(replicas.get(partition..).unwrap_or_default());
        let old: Vec<Arc<SlimPod>> = old.into_iter().rev().filter(|pod| is_old(pod)).collect();
        if unavailable >= limit && (self.monotonic || old_and_unavailable == 0) {
            return;
        }
        let budget = limit.saturating_sub(unavailable);
        if self.monotonic {
            old.iter().take(budget).for_each(|pod| self.delete(pod));
            return;
        }
        let (sick, healthy): (Vec<_>, Vec<_>) = old.into_iter().partition(|pod| self.is_unavailable(pod));
        sick.iter().chain(healthy.iter().take(budget)).for_each(|pod| self.delete(pod));
    }

    fn delete(&mut self, pod: &Arc<SlimPod>) {
        if replicas::revision(pod) == self.observed.current {
            self.deleted_current += 1;
        }
        self.actions.push(Action::Delete(Arc::clone(pod)));
    }

    fn lacks_claims(&self, pod: &SlimPod) -> bool {
        let ordinal = replicas::ordinal(self.observed.set, pod).unwrap_or_default();
        let known = |claim: &PersistentVolumeClaim| {
            self.observed.claims.contains_key(claim.metadata.name.as_deref().unwrap_or_default())
        };
        !replicas::claims(self.observed.set, ordinal).iter().all(known)
    }

    fn owners_match(&self, pod: &SlimPod) -> bool {
        let ordinal = replicas::ordinal(self.observed.set, pod).unwrap_or_default();
        let holders = Holders { set: self.observed.set, pod: &pod.metadata };
        replicas::claims(self.observed.set, ordinal).iter().all(|claim| {
            let claim = self.observed.claims.get(claim.metadata.name.as_deref().unwrap_or_default());
            claim.is_none_or(|claim| holders.owners(&claim.metadata) == Owners::Keep)
        })
    }

    fn is_running_and_available(&self, pod: &SlimPod) -> bool {
        &*pod.status.phase == "Running" && is_available(pod, self.min_ready_seconds(), self.now)
    }

    fn is_unavailable(&self, pod: &SlimPod) -> bool {
        pod.is_terminating() || !is_available(pod, self.min_ready_seconds(), self.now)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.observed.set.spec.min_ready_seconds.unwrap_or(0)
    }

    fn strategy(&self) -> &str {
        let strategy = self.observed.set.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
    }

    fn status(&self) -> StatefulSetStatus {
        let set = self.observed.set;
        let count = |test: &dyn Fn(&SlimPod) -> bool| {
            let own =
                self.observed.pods.iter().filter(|pod| replicas::ordinal(set, pod).is_some() && test(pod)).count();
            i32::try_from(own).unwrap_or(i32::MAX)
        };
        let created = |pod: &SlimPod| !pod.status.phase.is_empty();
        let ready = |pod: &SlimPod| &*pod.status.phase == "Running" && pod.is_ready();
        let of = |pod: &SlimPod, revision: &str| {
            created(pod) && !pod.is_terminating() && replicas::revision(pod) == revision
        };
        let old = set.status.clone().unwrap_or_default();
        let mut status = StatefulSetStatus {
            replicas: count(&created),
            ready_replicas: Some(count(&ready)),
            available_replicas: Some(count(&|pod| ready(pod) && is_available(pod, self.min_ready_seconds(), self.now))),
            current_replicas: Some((count(&|pod| of(pod, self.observed.current)) - self.deleted_current).max(0)),
            updated_replicas: Some(count(&|pod| of(pod, self.observed.update))),
            current_revision: Some(self.observed.current.to_owned()),
            update_revision: Some(self.observed.update.to_owned()),
            observed_generation: set.metadata.generation,
            collision_count: old.collision_count,
            conditions: old.conditions,
        };
        // The update is complete (`completeUpdate`).
        let whole = self.ordinals.count;
        let complete =
            status.replicas == whole && status.ready_replicas == Some(whole) && status.updated_replicas == Some(whole);
        if complete {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        status
    }
}

fn present(replicas: &[Replica]) -> Vec<Arc<SlimPod>> {
    let present = replicas.iter().filter_map(|replica| match replica {
        Replica::Present(pod) => Some(Arc::clone(pod)),
        Replica::Missing(_) => None,
    });
    present.collect()
}

fn max_unavailable(limit: Option<&IntOrString>, replicas: usize) -> usize {
    let limit = match limit {
        None => 1,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|percent| percent.parse::<usize>().ok());
            percent.map_or(1, |percent| replicas.saturating_mul(percent) / 100)
        }
    };
    limit.max(1)
}

/// Whether two statuses say the same, absent numbers being 0.
pub(super) fn same_status(a: &StatefulSetStatus, b: &StatefulSetStatus) -> bool {
    let numbers = |status: &StatefulSetStatus| {
        [status.ready_replicas, status.available_replicas, status.current_replicas, status.updated_replicas]
            .map(Option::unwrap_or_default)
    };
    a.replicas == b.replicas
        && numbers(a) == numbers(b)
        && (&a.current_revision, &a.update_revision) == (&b.current_revision, &b.update_revision)
        && a.observed_generation == b.observed_generation
        && a.collision_count.unwrap_or(0) == b.collision_count.unwrap_or(0)
        && a.conditions.as_deref().unwrap_or_default() == b.conditions.as_deref().unwrap_or_default()
}

/// When the next ready pod becomes available by the minimum time alone.
pub(super) fn next_check(set: &StatefulSet, pods: &[Arc<SlimPod>], now: Timestamp) -> Option<Duration> {
    let seconds = set.spec.min_ready_seconds.unwrap_or(0);
    let waiting = pods.iter().filter(|pod| pod.is_ready() && !is_available(pod, seconds, now));
    let left = waiting.filter_map(|pod| {
        let available = ready_since(pod)?.checked_add(SignedDuration::from_secs(seconds.into())).ok()?;
        Duration::try_from(available.duration_since(now)).ok()
    });
    left.min()
}
