//! Carrying out an in-place resize: deciding on the pod's wish with all that the node has given, then writing cgroups.
//!
//! Invariant: a container's label says what its cgroup was last given, so that a kubelet that starts knows what is left to
//! do. The pod's cgroup is widened before its containers' and narrowed after them, since none may have more than it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use skep_client::EventType;
use tracing::{debug, warn};

use super::record::{resources_label, restart_label};
use super::worker::Worker;
use crate::cgroups::Limits;
use crate::pod::observation::{ContainerState, Reason};
use crate::pod::plan;
use crate::pod::resize::{self, Allocation, Decision};
use crate::pod::resolve::resources::{ResourceAmounts, container_cgroup, pod_limits};

/// The wait before a resize that failed is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// The pod with what it has been granted, after the node has answered its wish.
    pub(super) fn allocate(&mut self, asked: Arc<Pod>) -> Arc<Pod> {
        let Some(spec) = &asked.spec else { return asked };
        let mut allocation = match self.allocation.take() {
            Some(allocation) => allocation,
            None => {
                let left = self.left(Allocation::requested(spec));
                self.node.pods.grant(&self.uid, resize::requests(&self.overlaid(&asked, &left)));
                left
            }
        };
        if plan::is_finished(&asked, &self.seen.runtime_state()) {
            self.node.pods.grant(&self.uid, ResourceAmounts::new());
            self.seen.resize.pending = None;
        } else if asked.metadata.deletion_timestamp.is_none() && !self.gone {
            self.decide(&asked, &mut allocation);
        }
        let granted = self.overlaid(&asked, &allocation);
        self.allocation = Some(allocation);
        granted
    }

    /// What an earlier kubelet had given to containers that run, else what is asked for.
    fn left(&self, mut requested: Allocation) -> Allocation {
        for (name, runs) in &self.records {
            if let Some(run) = runs.last().filter(|run| run.ended.is_none())
                && let Some(own) = requested.containers.get_mut(name)
            {
                own.clone_from(&run.resources);
            }
        }
        requested
    }

    fn decide(&mut self, asked: &Pod, allocation: &mut Allocation) {
        let wanted = asked.spec.as_ref().map(Allocation::requested).filter(|wanted| !wanted.is_same(allocation));
        let Some(wanted) = wanted else {
            self.seen.resize.pending = None;
            return;
        };
        let amounts = resize::requests(asked);
        let allocatable = &self.node.context.allocatable;
        let answer = self.node.pods.decide(&self.uid, &amounts, |used| resize::decide(&amounts, used, allocatable));
        let (reason, message) = match answer {
            Decision::Granted => {
                *allocation = wanted;
                self.seen.resize.pending = None;
                (self.seen.resize.in_progress, self.seen.resize.error) = (true, None);
                let note = format!("Pod resize started: {}", resize::summary(asked, None));
                return self.node.event(asked, None, EventType::Normal, "ResizeStarted", note);
            }
            Decision::Deferred(message) => ("Deferred", message),
            Decision::Infeasible(message) => ("Infeasible", message),
        };
        let note = format!("Pod resize {reason}: {}", resize::summary(asked, Some(&message)));
        let pending = Some(Reason { reason: reason.to_owned(), message });
        if self.seen.resize.pending != pending {
            self.node.event(asked, None, EventType::Warning, &format!("Resize{reason}"), note);
            self.seen.resize.pending = pending;
        }
    }

    fn overlaid(&self, asked: &Arc<Pod>, allocation: &Allocation) -> Arc<Pod> {
        match &asked.spec {
            Some(spec) if !Allocation::requested(spec).is_same(allocation) => {
                let mut pod = Pod::clone(asked);
                allocation.overlay(pod.spec.get_or_insert_default());
                Arc::new(pod)
            }
            Some(_) | None => asked.clone(),
        }
    }

    /// Brings the containers that run to what their pod has been granted.
    pub(super) async fn actuate(&mut self, now: Timestamp) {
        let Some(allocation) = self.allocation.clone() else { return };
        let mut changed = Vec::new();
        for (name, seen) in &self.seen.containers {
            let runs = matches!(seen.state, ContainerState::Running { stopping: false, .. }) && !seen.restart;
            match allocation.containers.get(name) {
                Some(wanted) if runs && !resize::same(&seen.resources, wanted) => {
                    changed.push((name.clone(), seen.resources.clone(), wanted.clone()));
                }
                Some(_) | None => {}
            }
        }
        if changed.is_empty() {
            self.complete();
            return;
        }
        self.seen.resize.in_progress = true;
        match self.resize(&allocation, changed).await {
            Ok(()) => self.seen.resize.error = None,
            Err(error) => {
                warn!(pod = %self.shown(), error, "a resize can't be carried out yet");
                if self.seen.resize.error.as_ref() != Some(&error) {
                    let note = format!("Pod resize error: {}", resize::summary(&self.pod, Some(&error)));
                    self.node.event(&self.pod, None, EventType::Warning, "ResizeError", note);
                }
                self.seen.resize.error = Some(error);
                self.wake_by(now.checked_add(AGAIN).ok());
            }
        }
        self.complete();
    }

    /// Ends a resize of which nothing is left to do.
    fn complete(&mut self) {
        let Some(allocation) = self.allocation.as_ref().filter(|_| self.seen.resize.in_progress) else { return };
        let behind = self.seen.containers.iter().any(|(name, seen)| {
            let runs = matches!(seen.state, ContainerState::Running { .. });
            let wanted = allocation.containers.get(name);
            seen.restart || (runs && wanted.is_some_and(|wanted| !resize::same(&seen.resources, wanted)))
        });
        if behind {
            return;
        }
        match self.limit(&self.cgroup(), pod_limits(&self.pod, None)) {
            Ok(()) => {
                (self.seen.resize.in_progress, self.seen.resize.error) = (false, None);
                let note = format!("Pod resize completed: {}", resize::summary(&self.pod, None));
                self.node.event(&self.pod, None, EventType::Normal, "ResizeCompleted", note);
            }
            Err(error) => self.seen.resize.error = Some(error),
        }
    }

    async fn resize(
        &mut self,
        allocation: &Allocation,
        changed: Vec<(String, ResourceRequirements, ResourceRequirements)>,
    ) -> Result<(), String> {
        let mut actual = allocation.clone();
        for (name, before, _) in &changed {
            actual.containers.insert(name.clone(), before.clone());
        }
        let before = pod_limits(&self.overlaid(&self.pod, &actual), None);
        let after = pod_limits(&self.pod, None);
        let (in_place, anew): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(name, before, now)| {
            self.container(name).is_none_or(|container| !resize::needs_restart(&container, before, now))
        });
        let limits = |name: &str| self.container(name).map(|container| container_cgroup(&self.pod, &container));
        let in_place: Vec<_> = in_place.into_iter().filter_map(|change| Some((limits(&change.0)?, change))).collect();
        self.refuse_to_starve(before, after, &in_place)?;
        self.limit(&self.cgroup(), before.widest(after))?;
        for (limits, (name, _, wanted)) in in_place {
            let Some(id) = self.seen.containers.get(&name).map(|seen| seen.id.clone()) else { continue };
            self.limit(&self.cgroup().join(&id), limits)?;
            debug!(pod = %self.shown(), container = name, ?limits, "container resized");
            self.label(&id, resources_label(&wanted)).await?;
            if let Some(run) = self.records.get_mut(&name).and_then(|runs| runs.last_mut()) {
                run.resources.clone_from(&wanted);
            }
            if let Some(seen) = self.seen.containers.get_mut(&name) {
                seen.resources = wanted;
            }
        }
        for (name, ..) in &anew {
            let Some(id) = self.seen.containers.get(name).map(|seen| seen.id.clone()) else { continue };
            self.label(&id, restart_label()).await?;
            if let Some(run) = self.records.get_mut(name).and_then(|runs| runs.last_mut()) {
                run.restart = true;
            }
            if let Some(seen) = self.seen.containers.get_mut(name) {
                seen.restart = true;
            }
        }
        Ok(())
    }

    /// A limit below what is used would have the kernel kill, or refuse it.
    fn refuse_to_starve(
        &self,
        before: Limits,
        after: Limits,
        changed: &[(Limits, (String, ResourceRequirements, ResourceRequirements))],
    ) -> Result<(), String> {
        let mut errors = Vec::new();
        let lowered =
            |before: Option<u64>, after: Option<u64>| after.filter(|after| before.is_none_or(|before| *after < before));
        let used = |path: &std::path::Path| self.node.cgroups.memory_usage(path).unwrap_or(0);
        if let Some(limit) = lowered(before.memory_bytes, after.memory_bytes) {
            let used = used(&self.cgroup());
            if used >= limit {
                errors.push(format!("attempting to set pod memory limit ({limit}) below current usage ({used})"));
            }
        }
        for (limits, (name, ..)) in changed {
            let Some(limit) = limits.memory_bytes else { continue };
            let id = self.seen.containers.get(name).map_or("", |seen| seen.id.as_str());
            let used = used(&self.cgroup().join(id));
            if used >= limit {
                errors.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
        }
    }

    fn limit(&self, cgroup: &std::path::Path, limits: Limits) -> Result<(), String> {
        // A few writes to the cgroup file system.
        self.node.cgroups.apply(cgroup, limits).map_err(|error| error.to_string())
    }

    async fn label(&self, id: &str, labels: std::collections::HashMap<String, String>) -> Result<(), String> {
        self.node.containerd.update_labels(id, labels).await.map_err(|error| error.to_string())
    }
}
