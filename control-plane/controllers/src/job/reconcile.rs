//! One pass over a Job: pure, in the steps between which the caller writes.
//!
//! Follows `syncJob`, `manageJob` and `trackJobStatusAndRemoveFinalizers` in `job_controller.go`. The caller asks for
//! [`Pass::work`], does it and says what came of it ([`Pass::worked`]); then [`Pass::track`] gives the pods that are counted
//! now; their uids are in the status before their finalizers go, so that a crash in between counts none of them twice or
//! never ([`Pass::finalizers_removed`]). [`Pass::finish`] says whether the Job has ended.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use skep_client::EventType;
use skep_client::slim::SlimPod;

use super::backoff::{Backoff, finished_at, remaining};
use super::indexes::Indexes;
use super::pods::{self, Pods};
use super::policy::{self, Verdict};

/// Upstream's `MaxPodCreateDeletePerSync`.
const BURST: usize = 500;
/// Upstream's `MaxUncountedPods`: what one pass counts, so that the status stays small.
const MAX_UNCOUNTED: usize = 500;

/// What was seen of a Job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Its spec.
    pub spec: &'a JobSpec,
    /// Its pods, ended and terminating ones too.
    pub pods: &'a [Arc<SlimPod>],
    /// Uids of pods whose finalizer was taken, though the informer still shows it.
    pub removed: &'a HashSet<String>,
    /// Whether the informer shows all own writes.
    pub settled: bool,
    /// The failures since the last success, before this pass.
    pub backoff: Backoff,
}

/// What to do about the pods.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Nothing.
    Nothing,
    /// The Job ends: delete all active pods; their finalizers go when they are counted.
    End(Pods),
    /// Delete these, without counting them.
    Delete(Pods),
    /// Create pods: of these indexes, each in the place of a failed pod if there was one.
    Create(Vec<(Option<i32>, Option<Arc<SlimPod>>)>),
}

/// One pass.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    spec: &'a JobSpec,
    /// The Job, with the status as it will be.
    pub job: Job,
    pods: Pods,
    active_pods: Pods,
    uncounted_failed: HashSet<String>,
    uncounted_succeeded: HashSet<String>,
    settled: bool,
    managed: bool,
    /// What the backoff is after this pass.
    pub backoff: Backoff,
    /// When to look again, though nothing changes.
    pub again: Option<Duration>,
    /// Whether the status must be written.
    pub changed: bool,
    /// Events about the Job.
    pub events: Vec<(EventType, &'static str, String)>,
    finished: Option<JobCondition>,
    succeeded: i32,
    active: i32,
    ready: i32,
    terminating: i32,
    previous_indexes: Indexes,
    succeeded_indexes: Indexes,
    failed_indexes: Option<Indexes>,
    /// The last failed pod of each index that has no other yet: it stays until it is replaced, as the count of failures is on it.
    delayed: BTreeMap<i32, Arc<SlimPod>>,
    with_finalizer: HashSet<String>,
    all_counted: bool,
    now: Timestamp,
}

impl<'a> Pass<'a> {
    /// Counts, and says whether the Job has failed or succeeded.
    pub(super) fn new(observed: Observed<'a>, now: Timestamp) -> Self {
        let spec = observed.spec;
        let mut job = observed.job.clone();
        let status = job.status.get_or_insert_default();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let set = |uids: &Option<Vec<String>>| uids.iter().flatten().cloned().collect::<HashSet<_>>();
        let (uncounted_succeeded, uncounted_failed) = (set(&uncounted.succeeded), set(&uncounted.failed));
        let active_pods: Pods = observed.pods.iter().filter(|pod| pod.is_active()).cloned().collect();
        let terminating = observed.pods.iter().filter(|pod| pod.is_terminating() && !pod.is_terminal()).count();
        let mut pods = observed.pods.to_vec();
        pods.sort_by_key(|pod| pods::index(pod).unwrap_or(-1));
        let tracked = |pod: &&Arc<SlimPod>| pods::has_finalizer(pod) && !observed.removed.contains(uid(pod));
        let with_finalizer = pods.iter().filter(tracked).map(|pod| uid(pod).to_owned()).collect();
        if status.start_time.is_none() && !is_suspended(spec) {
            status.start_time = Some(Time(now));
        }
        let mut pass = Self {
            spec,
            active: number(active_pods.len()),
            ready: number(active_pods.iter().filter(|pod| pod.is_ready()).count()),
            terminating: number(terminating),
            job,
            pods,
            active_pods,
            uncounted_failed,
            uncounted_succeeded,
            settled: observed.settled,
            managed: false,
            backoff: observed.backoff,
            again: None,
            changed: false,
            events: Vec::new(),
            finished: None,
            succeeded: 0,
            previous_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
            with_finalizer,
            all_counted: true,
            now,
        };
        pass.evaluate();
        pass
    }

    fn evaluate(&mut self) {
        let (spec, now) = (self.spec, self.now);
        let succeeded = self.uncounted_pods(&self.uncounted_succeeded, |pod| &*pod.status.phase == "Succeeded");
        let failed = self.uncounted_pods(&self.uncounted_failed, |pod| pods::is_failed(spec, pod));
        let counted = failed.iter().filter(|pod| self.verdict(pod) != Verdict::Ignore).count();
        let (counted_before, failed_before) = (self.status().succeeded.unwrap_or(0), self.status().failed.unwrap_or(0));
        self.succeeded = counted_before + number(succeeded.len()) + number(self.uncounted_succeeded.len());
        let failures = failed_before + number(counted) + number(self.uncounted_failed.len());
        self.backoff = self.backoff.after(&succeeded, &failed);
        let target = find(self.status(), "FailureTarget").cloned();
        self.finished = find(self.status(), "SuccessCriteriaMet").cloned().or_else(|| {
            target
                .map(|target| condition("Failed", target.reason, target.message, now))
                .or_else(|| self.policy_failure())
        });
        if self.finished.is_none() {
            self.finished = self.limit_failure(failures);
        }
        if pods::is_indexed(spec) {
            self.evaluate_indexes();
        }
    }

    fn policy_failure(&self) -> Option<JobCondition> {
        let failed = self.pods.iter().filter(|pod| pods::is_failed(self.spec, pod));
        let message = failed.into_iter().find_map(|pod| match self.verdict(pod) {
            Verdict::FailJob(message) => Some(message),
            Verdict::Count | Verdict::Ignore | Verdict::FailIndex => None,
        })?;
        Some(failure("PodFailurePolicy", message, self.now))
    }

    fn limit_failure(&mut self, failures: i32) -> Option<JobCondition> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if failures > limit || self.restarted_too_often(limit) {
            let message = "Job has reached the specified backoff limit".to_owned();
            return Some(failure("BackoffLimitExceeded", message, self.now));
        }
        let deadline = self.spec.active_deadline_seconds.filter(|_| !is_suspended(self.spec))?;
        let started = self.status().start_time.as_ref()?.0;
        let left = SignedDuration::from_secs(deadline) - self.now.duration_since(started);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => {
                self.look_again(left);
                None
            }
            _ => {
                let message = "Job was active longer than specified deadline".to_owned();
                Some(failure("DeadlineExceeded", message, self.now))
            }
        }
    }

    /// Whether the containers' restarts make up the limit (`pastBackoffLimitOnFailure`).
    fn restarted_too_often(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let running = self.pods.iter().filter(|pod| matches!(&*pod.status.phase, "Running" | "Pending"));
        let statuses =
            running.flat_map(|pod| pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses));
        let restarts: i32 = statuses.map(|status| status.restart_count).sum();
        policy == Some("OnFailure") && restarts >= limit.max(1)
    }

    fn evaluate_indexes(&mut self) {
        let (spec, completions) = (self.spec, self.completions());
        let text = self.status().completed_indexes.as_deref().unwrap_or_default();
        self.previous_indexes = Indexes::parse(text, completions);
        let valid =
            |pod: &Arc<SlimPod>| pods::index(pod).filter(|index| *index < completions && pods::has_finalizer(pod));
        let succeeded = self.pods.iter().filter(|pod| &*pod.status.phase == "Succeeded").filter_map(valid);
        self.succeeded_indexes = self.previous_indexes.with(succeeded);
        self.succeeded = self.succeeded_indexes.len();
        if let Some(limit) = spec.backoff_limit_per_index {
            let text = self.status().failed_indexes.as_deref().unwrap_or_default();
            let failed = self.pods.iter().filter(|pod| self.fails_its_index(pod, limit)).filter_map(valid);
            let failed = Indexes::parse(text, completions).with(failed);
            let (count, total) = (failed.len(), failed.len() + self.succeeded_indexes.len());
            self.failed_indexes = Some(failed);
            if self.finished.is_none() {
                if spec.max_failed_indexes.is_some_and(|limit| count > limit) {
                    let message = "Job has exceeded the specified maximal number of failed indexes".to_owned();
                    self.finished = Some(failure("MaxFailedIndexesExceeded", message, self.now));
                } else if count > 0 && total >= completions {
                    self.finished = Some(failure("FailedIndexes", "Job has failed indexes".to_owned(), self.now));
                }
            }
            self.delayed = self.delayed_deletions();
        }
        if self.finished.is_none() {
            let message = policy::success(spec.success_policy.as_ref(), completions, &self.succeeded_indexes);
            let met =
                |message| condition("SuccessCriteriaMet", Some("SuccessPolicy".to_owned()), Some(message), self.now);
            self.finished = message.map(met);
        }
    }

    fn fails_its_index(&self, pod: &SlimPod, limit: i32) -> bool {
        if !pods::is_failed(self.spec, pod) {
            return false;
        }
        match self.verdict(pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            Verdict::Count | Verdict::FailJob(_) => i64::from(pods::counted_failures(pod)) >= i64::from(limit),
        }
    }

    /// The last failed pod of each index that has neither ended nor an active pod (`getPodsWithDelayedDeletionPerIndex`).
    fn delayed_deletions(&self) -> BTreeMap<i32, Arc<SlimPod>> {
        let active = pods::indexes(&self.active_pods);
        let mut delayed: BTreeMap<i32, Arc<SlimPod>> = BTreeMap::new();
        for pod in self.uncounted_pods(&HashSet::new(), |pod| pods::is_failed(self.spec, pod)) {
            let Some(index) = pods::index(&pod) else { continue };
            let failed = self.failed_indexes.as_ref().is_some_and(|failed| failed.contains(index));
            if failed || self.succeeded_indexes.contains(index) || active.contains(&index) {
                continue;
            }
            let order = |pod: &SlimPod| (pods::all_failures(pod), finished_at(pod));
            let later = |other: &Arc<SlimPod>| order(&pod).0 >= order(other).0 && order(&pod).1 >= order(other).1;
            if delayed.get(&index).is_none_or(later) {
                delayed.insert(index, pod);
            }
        }
        delayed
    }

    /// What to do about the pods. A Job that has ended loses its active ones; one that is being deleted gets no more.
    pub(super) fn work(&mut self) -> Work {
        if self.finished.is_some() {
            return Work::End(self.active_pods.clone());
        }
        self.managed = self.settled && self.job.metadata.deletion_timestamp.is_none();
        if !self.managed {
            return Work::Nothing;
        }
        let spec = self.spec;
        let parallelism = spec.parallelism.unwrap_or(1);
        let wanted = match spec.completions {
            _ if is_suspended(spec) => 0,
            None if self.succeeded > 0 => self.active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).min(parallelism).max(0),
        };
        let at_least = usize::try_from(self.active - wanted).unwrap_or(0);
        let mut surplus = pods::surplus(spec, &self.active_pods, at_least);
        if !is_suspended(spec) {
            surplus.truncate(BURST);
        }
        if !surplus.is_empty() {
            return Work::Delete(surplus);
        }
        let terminating = if pods::replaces_only_failed(spec) { self.terminating } else { 0 };
        match usize::try_from(wanted - terminating - self.active) {
            Ok(count) if count > 0 => self.creation(count.min(BURST)),
            _ => Work::Nothing,
        }
    }

    fn creation(&mut self, count: usize) -> Work {
        let spec = self.spec;
        if spec.backoff_limit_per_index.is_none() {
            let left = self.backoff.remaining(self.now);
            if !left.is_zero() {
                self.look_again(left);
                return Work::Nothing;
            }
        }
        if !pods::is_indexed(spec) {
            return Work::Create(vec![(None, None); count]);
        }
        let mut taken = self.succeeded_indexes.with(pods::indexes(&self.active_pods));
        if pods::replaces_only_failed(spec) {
            let terminating = self.pods.iter().filter(|pod| pod.is_terminating() && !pod.is_terminal());
            taken = taken.with(terminating.filter_map(|pod| pods::index(pod)));
        }
        if let Some(failed) = &self.failed_indexes {
            taken = taken.merge(failed);
        }
        let mut pods = Vec::new();
        let mut wait = None;
        for index in taken.missing(count, self.completions()) {
            let replaced = self.delayed.get(&index);
            let left = replaced.map_or(Duration::ZERO, |pod| {
                remaining(pods::all_failures(pod).saturating_add(1), finished_at(pod), self.now)
            });
            if left.is_zero() {
                pods.push((Some(index), replaced.cloned()));
            } else {
                wait = Some(wait.map_or(left, |wait: Duration| wait.min(left)));
            }
        }
        if pods.is_empty() {
            if let Some(wait) = wait {
                self.look_again(wait);
            }
            return Work::Nothing;
        }
        Work::Create(pods)
    }

    /// What came of the work: the pods that were deleted, or how many were created.
    pub(super) fn worked(&mut self, deleted: &[Arc<SlimPod>], created: usize) {
        let gone = number(deleted.len());
        let everything = gone == self.active;
        self.active += number(created) - gone;
        self.terminating += gone;
        self.ready -= number(deleted.iter().filter(|pod| pod.is_ready()).count());
        if self.finished.is_some() {
            if !everything || !self.settled {
                // Pods may be left that were not seen yet.
                self.finished = None;
            }
        } else {
            self.evaluate_completion();
        }
        let (active, ready, terminating) = (self.active, self.ready, self.terminating);
        let status = self.status_mut();
        let differs = active != status.active.unwrap_or(0)
            || status.ready != Some(ready)
            || status.terminating != Some(terminating);
        status.active = Some(active).filter(|active| *active > 0);
        status.ready = Some(ready);
        status.terminating = Some(terminating);
        self.changed |= differs;
    }

    fn evaluate_completion(&mut self) {
        let enough = self.spec.completions.map_or(self.succeeded > 0, |completions| self.succeeded >= completions);
        if enough && self.active == 0 {
            let (reason, message) =
                ("CompletionsReached".to_owned(), "Reached expected number of succeeded pods".to_owned());
            self.finished = Some(condition("SuccessCriteriaMet", Some(reason), Some(message), self.now));
            return;
        }
        if !self.managed {
            return;
        }
        let now = self.now;
        if is_suspended(self.spec) {
            let suspended =
                condition("Suspended", Some("JobSuspended".to_owned()), Some("Job suspended".to_owned()), now);
            if ensure(self.status_mut(), suspended) {
                self.changed = true;
                self.status_mut().start_time = None;
                self.events.push((EventType::Normal, "Suspended", "Job suspended".to_owned()));
            }
        } else {
            let mut resumed =
                condition("Suspended", Some("JobResumed".to_owned()), Some("Job resumed".to_owned()), now);
            resumed.status = "False".to_owned();
            if ensure(self.status_mut(), resumed) {
                self.changed = true;
                self.status_mut().start_time = Some(Time(now));
                self.events.push((EventType::Normal, "Resumed", "Job resumed".to_owned()));
            }
        }
    }

    /// Counts pods that ended: their uids go into the status. Gives those whose finalizers are to be taken once it is written.
    pub(super) fn track(&mut self) -> Pods {
        self.clean_uncounted();
        let (indexed, completions) = (pods::is_indexed(self.spec), self.completions());
        let mut remove = Pods::new();
        let (mut indexes, mut succeeded, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let before = self.uncounted().succeeded.as_ref().map_or(0, Vec::len)
            + self.uncounted().failed.as_ref().map_or(0, Vec::len);
        for pod in &self.pods {
            if !self.with_finalizer.contains(uid(pod)) || !self.can_be_released(pod) {
                continue;
            }
            remove.push(Arc::clone(pod));
            let index = pods::index(pod).filter(|index| *index < completions);
            let lost = self.finished.as_ref().is_some_and(|finished| finished.type_ != "SuccessCriteriaMet");
            if &*pod.status.phase == "Succeeded" && !self.uncounted_failed.contains(uid(pod)) {
                if indexed {
                    indexes.extend(index.filter(|index| !self.previous_indexes.contains(*index)));
                } else if !self.uncounted_succeeded.contains(uid(pod)) {
                    succeeded.push(uid(pod).to_owned());
                }
            } else if (pods::is_failed(self.spec, pod) || lost)
                && !self.uncounted_failed.contains(uid(pod))
                && (!indexed || index.is_some())
                && self.verdict(pod) != Verdict::Ignore
            {
                failed.push(uid(pod).to_owned());
            }
            if before + indexes.len() + succeeded.len() + failed.len() >= MAX_UNCOUNTED {
                self.all_counted = false;
                break;
            }
        }
        self.changed |= !(indexes.is_empty() && succeeded.is_empty() && failed.is_empty());
        if !succeeded.is_empty() {
            self.uncounted_mut().succeeded.get_or_insert_default().extend(succeeded);
        }
        if !failed.is_empty() {
            self.uncounted_mut().failed.get_or_insert_default().extend(failed);
        }
        if indexed {
            self.track_indexes(indexes);
        }
        self.track_conditions();
        remove
    }

    fn track_indexes(&mut self, new: Vec<i32>) {
        let counted = self.succeeded_indexes.with(new);
        let text = Some(counted.to_string()).filter(|text| !text.is_empty());
        let failed = self.failed_indexes.as_ref().map(ToString::to_string);
        let status = self.status_mut();
        let differs = status.completed_indexes.as_deref().unwrap_or_default() != text.as_deref().unwrap_or_default()
            || status.failed_indexes != failed;
        status.succeeded = Some(counted.len()).filter(|count| *count > 0);
        status.completed_indexes = text;
        status.failed_indexes = failed;
        self.changed |= differs;
    }

    /// The interim condition comes before the finalizers go, the last one after ([`Pass::finish`]).
    fn track_conditions(&mut self) {
        let Some(interim) = self.finished.clone() else { return };
        let last = match interim.type_.as_str() {
            "FailureTarget" => "Failed",
            "SuccessCriteriaMet" => "Complete",
            _ => return,
        };
        if find(self.status(), &interim.type_).is_none() {
            self.status_mut().conditions.get_or_insert_default().push(interim.clone());
            self.changed = true;
        }
        self.finished = Some(condition(last, interim.reason, interim.message, self.now));
    }

    /// Whether a pod may go: it has ended, or the Job has. The last failed one of an index stays until it is replaced.
    fn can_be_released(&self, pod: &SlimPod) -> bool {
        if self.job.metadata.deletion_timestamp.is_some()
            || self.finished.is_some()
            || &*pod.status.phase == "Succeeded"
        {
            return true;
        }
        let delayed =
            || pods::index(pod).and_then(|index| self.delayed.get(&index)).is_some_and(|own| uid(own) == uid(pod));
        pods::is_failed(self.spec, pod) && !delayed()
    }

    /// These pods no longer have the finalizer: they move from the uids in the status to its counts.
    pub(super) fn finalizers_removed(&mut self, pods: &[Arc<SlimPod>]) {
        for pod in pods {
            self.with_finalizer.remove(uid(pod));
        }
        self.clean_uncounted();
    }

    /// Sets the last condition, if the Job has ended and all is counted. Gives whether it is so.
    pub(super) fn finish(&mut self) -> bool {
        let Some(last) = self.finished.clone().filter(|_| self.all_counted) else { return false };
        let uncounted = self.uncounted();
        let waiting =
            [&uncounted.succeeded, &uncounted.failed].iter().any(|uids| uids.iter().flatten().next().is_some());
        if waiting || self.terminating > 0 {
            return false;
        }
        if last.type_ == "Complete" {
            self.status_mut().completion_time = last.last_transition_time.clone();
            let succeeded = self.status().succeeded.unwrap_or(0);
            if self.spec.completions.is_some_and(|completions| succeeded > completions) {
                let note = "Too many succeeded pods running after completion count reached".to_owned();
                self.events.push((EventType::Warning, "TooManySucceededPods", note));
            }
            self.events.push((EventType::Normal, "Completed", "Job completed".to_owned()));
        } else {
            let reason = FAILURES.iter().find(|reason| Some(**reason) == last.reason.as_deref());
            let note = last.message.clone().unwrap_or_default();
            self.events.push((EventType::Warning, reason.copied().unwrap_or("Failed"), note));
        }
        ensure(self.status_mut(), last);
        self.changed = true;
        true
    }

    fn clean_uncounted(&mut self) {
        let with_finalizer = std::mem::take(&mut self.with_finalizer);
        let status = self.status_mut();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let mut moved = 0;
        for (uids, count) in
            [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
        {
            let Some(list) = uids else { continue };
            let before = list.len();
            list.retain(|uid| with_finalizer.contains(uid));
            if list.len() < before {
                *count = Some(count.unwrap_or(0) + number(before - list.len()));
                moved += before - list.len();
            }
            if list.is_empty() {
                *uids = None;
            }
        }
        self.with_finalizer = with_finalizer;
        self.changed |= moved > 0;
    }

    /// Pods that are tracked, not yet in `uncounted` and, of an indexed Job, of a valid index.
    fn uncounted_pods(&self, uncounted: &HashSet<String>, test: impl Fn(&SlimPod) -> bool) -> Pods {
        let valid = |pod: &&Arc<SlimPod>| {
            self.with_finalizer.contains(uid(pod))
                && !uncounted.contains(uid(pod))
                && (!pods::is_indexed(self.spec) || pods::index(pod).is_some_and(|index| index < self.completions()))
                && test(pod)
        };
        self.pods.iter().filter(valid).cloned().collect()
    }

    fn look_again(&mut self, delay: Duration) {
        self.again = Some(self.again.map_or(delay, |again| again.min(delay)));
    }

    fn verdict(&self, pod: &SlimPod) -> Verdict {
        policy::verdict(self.spec.pod_failure_policy.as_ref(), pod)
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(i32::MAX)
    }

    fn status(&self) -> &JobStatus {
        static NONE: std::sync::LazyLock<JobStatus> = std::sync::LazyLock::new(JobStatus::default);
        self.job.status.as_ref().unwrap_or(&NONE)
    }

    fn status_mut(&mut self) -> &mut JobStatus {
        self.job.status.get_or_insert_default()
    }

    fn uncounted(&self) -> UncountedTerminatedPods {
        self.status().uncounted_terminated_pods.clone().unwrap_or_default()
    }

    fn uncounted_mut(&mut self) -> &mut UncountedTerminatedPods {
        self.status_mut().uncounted_terminated_pods.get_or_insert_default()
    }
}

/// The reasons of a failure, which are those of the event too.
const FAILURES: [&str; 5] =
    ["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"];

/// Whether it has ended, by its last condition.
pub(crate) fn ended(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
}

fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

fn uid(pod: &SlimPod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn find<'a>(status: &'a JobStatus, r#type: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == r#type && condition.status == "True")
}

fn failure(reason: &str, message: String, now: Timestamp) -> JobCondition {
    condition("FailureTarget", Some(reason.to_owned()), Some(message), now)
}

fn condition(r#type: &str, reason: Option<String>, message: Option<String>, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: r#type.to_owned(),
        status: "True".to_owned(),
        reason,
        message,
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition; one that would be new is left out when it is false. Gives whether anything changed.
fn ensure(status: &mut JobStatus, condition: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|own| own.type_ == condition.type_) {
        Some(own) => {
            let same =
                own.status == condition.status && own.reason == condition.reason && own.message == condition.message;
            if !same {
                *own = condition;
            }
            !same
        }
        None if condition.status == "False" => false,
        None => {
            conditions.push(condition);
            true
        }
    }
}
