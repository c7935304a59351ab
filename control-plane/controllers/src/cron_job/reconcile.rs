//! What a CronJob needs: pure functions from what was seen to what to do.
//!
//! Follows `cronjob_controllerv2.go` (`syncCronJob`, `cleanupFinishedJobs`) and `utils.go` (`mostRecentScheduleTime`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use skep_client::EventType;

use super::schedule::Schedule;
use crate::job::reconcile::ended;
use crate::runtime::controller_reference;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Upstream's `nextScheduleDelta`: how long after a time it is looked at, as clocks differ.
const DELTA: SignedDuration = SignedDuration::from_millis(100);
/// More missed times than that are warned of.
const MANY_MISSED: i128 = 100;

/// An event about the CronJob.
pub(super) type Note = (EventType, &'static str, String);

/// What the Jobs that were seen say of the status.
#[derive(Debug, Default)]
pub(super) struct Tidied {
    /// The status without Jobs that have ended.
    pub status: CronJobStatus,
    /// Jobs of the status that were not seen: to be looked up, and taken out if they are gone.
    pub missing: Vec<ObjectReference>,
    /// Jobs that run, but are not in the status.
    pub unexpected: Vec<Arc<Job>>,
    /// Ended Jobs beyond the limits of the history, oldest first.
    pub surplus: Vec<Arc<Job>>,
    /// Events.
    pub notes: Vec<Note>,
}

/// Takes what ended out of the status.
pub(super) fn tidy(cron: &CronJob, jobs: &[Arc<Job>]) -> Tidied {
    let mut tidied = Tidied { status: cron.status.clone().unwrap_or_default(), ..Tidied::default() };
    tidied.surplus = surplus(cron, jobs);
    for job in jobs {
        let is_active = is_active(&tidied.status, job);
        let Some(end) = ended(job) else {
            if !is_active {
                tidied.unexpected.push(Arc::clone(job));
            }
            continue;
        };
        if is_active {
            remove_active(&mut tidied.status, job.metadata.uid.as_deref());
            let note = format!("Saw completed job: {}, condition: {}", name(job), end.type_);
            tidied.notes.push((EventType::Normal, "SawCompletedJob", note));
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.as_ref());
        let last = tidied.status.last_successful_time.as_ref();
        if end.type_ == "Complete" && completed.is_some_and(|time| last.is_none_or(|last| time.0 > last.0)) {
            tidied.status.last_successful_time = completed.cloned();
        }
    }
    let seen = |reference: &&ObjectReference| jobs.iter().any(|job| job.metadata.uid == reference.uid);
    tidied.missing = tidied.status.active.iter().flatten().filter(|own| !seen(own)).cloned().collect();
    tidied
}

fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits =
        [("Complete", cron.spec.successful_jobs_history_limit), ("Failed", cron.spec.failed_jobs_history_limit)];
    let mut surplus = Vec::new();
    for (end, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let ended = jobs.iter().filter(|job| ended(job).is_some_and(|condition| condition.type_ == end));
        let mut ended: Vec<_> = ended.cloned().collect();
        let started = |job: &Job| job.status.as_ref().and_then(|status| status.start_time.as_ref().map(|time| time.0));
        ended.sort_by_key(|job| (started(job).unwrap_or(Timestamp::MAX), name(job).to_owned()));
        let count = ended.len().saturating_sub(limit);
        surplus.extend(ended.into_iter().take(count));
    }
    surplus
}

/// What to do at this time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Events.
    pub notes: Vec<Note>,
    /// Active Jobs to delete first.
    pub replace: Vec<ObjectReference>,
    /// The Job to create, for that time.
    pub start: Option<Timestamp>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// What to do, given the tidied status.
pub(super) fn plan(cron: &CronJob, status: &CronJobStatus, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if cron.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let zone = match time_zone(cron) {
        Ok(zone) => zone,
        Err(note) => {
            plan.notes.push((EventType::Warning, "UnknownTimeZone", note));
            return plan;
        }
    };
    if cron.spec.suspend == Some(true) {
        return plan;
    }
    let schedule = match Schedule::parse(&cron.spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let note = format!("unparseable schedule: {:?} : {error}", cron.spec.schedule);
            plan.notes.push((EventType::Warning, "UnparseableSchedule", note));
            return plan;
        }
    };
    let missed = match missed(cron, status, &schedule, &zone, now, true) {
        Ok(missed) => missed,
        Err(error) => {
            let note = format!("invalid schedule: {} : {error}", cron.spec.schedule);
            plan.notes.push((EventType::Warning, "InvalidSchedule", note));
            return plan;
        }
    };
    plan.again = next_look(cron, status, &schedule, &zone, now);
    let Some(time) = missed.latest else { return plan };
    if missed.count > MANY_MISSED {
        let note = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.notes.push((EventType::Warning, "TooManyMissedTimes", note.to_owned()));
    }
    let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| now.duration_since(time) > deadline) {
        let text = time.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000");
        let note = format!("Missed scheduled time to start a job: {text}");
        plan.notes.push((EventType::Warning, "MissSchedule", note));
        return plan;
    }
    let job = job_name(cron, time);
    let active = status.active.as_deref().unwrap_or_default();
    let done = status.last_schedule_time.as_ref().is_some_and(|last| last.0 == time);
    if done || active.iter().any(|own| own.name.as_ref() == Some(&job)) {
        return plan;
    }
    match cron.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let note = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.notes.push((EventType::Normal, "JobAlreadyActive", note.to_owned()));
            return plan;
        }
        Some("Replace") => plan.replace = active.to_vec(),
        _ => {}
    }
    plan.start = Some(time);
    plan
}

/// After a Job was started at `time`: when to look again.
pub(super) fn after_start(cron: &CronJob, status: &CronJobStatus, now: Timestamp) -> Option<Duration> {
    let schedule = Schedule::parse(&cron.spec.schedule).ok()?;
    next_look(cron, status, &schedule, &time_zone(cron).ok()?, now)
}

struct Missed {
    earliest: Timestamp,
    latest: Option<Timestamp>,
    count: i128,
}

/// The times between the last start and now that had none (`mostRecentScheduleTime`).
fn missed(
    cron: &CronJob,
    status: &CronJobStatus,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    within_deadline: bool,
) -> Result<Missed, &'static str> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let mut earliest = status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    let deadline = cron.spec.starting_deadline_seconds.filter(|_| within_deadline);
    if let Some(limit) = deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok()) {
        earliest = earliest.max(limit);
    }
    let none = "time difference between two schedules is less than 1 second";
    let first = schedule.next(earliest, zone).ok_or(none)?;
    let second = schedule.next(first, zone).ok_or(none)?;
    if now < first {
        return Ok(Missed { earliest, latest: None, count: 0 });
    }
    if now < second {
        return Ok(Missed { earliest, latest: Some(first), count: 0 });
    }
    let interval = (second.as_second() - first.as_second()).max(1);
    let count = (now.as_second() - first.as_second()) / interval + 1;
    let from = first.checked_add(SignedDuration::from_secs((count - 2).saturating_mul(interval))).map_err(|_| none)?;
    let times = std::iter::successors(schedule.next(from, zone), |time| schedule.next(*time, zone));
    let latest = times.take_while(|time| *time <= now).last();
    Ok(Missed { earliest, latest, count: count.into() })
}

fn next_look(
    cron: &CronJob,
    status: &CronJobStatus,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Option<Duration> {
    let from = match missed(cron, status, schedule, zone, now, false) {
        Ok(Missed { latest: Some(latest), .. }) => latest,
        Ok(Missed { earliest, count: 0, .. }) => earliest,
        Ok(_) | Err(_) => now,
    };
    let next = schedule.next(from, zone)?.checked_add(DELTA).ok()?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
}

fn time_zone(cron: &CronJob) -> Result<TimeZone, String> {
    let Some(name) = &cron.spec.time_zone else { return Ok(TimeZone::system()) };
    TimeZone::get(name).map_err(|_| format!("invalid timeZone: {name:?}: unknown time zone {name}"))
}

/// The Job's name follows from its time, so that it can't be started twice.
fn job_name(cron: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), time.as_second().div_euclid(60))
}

/// The Job for that time.
pub(super) fn job(cron: &CronJob, time: Timestamp) -> Job {
    let template = &cron.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations: BTreeMap<String, String> = meta.annotations.unwrap_or_default();
    let zone = cron.spec.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
    let local = time.to_zoned(zone);
    let text = local.strftime(if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" });
    annotations.insert(SCHEDULED.to_owned(), text.to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, time)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Notes a started Job.
pub(super) fn add_active(status: &mut CronJobStatus, job: &Job, time: Timestamp) {
    status.active.get_or_insert_default().push(job.object_ref(&()));
    status.last_schedule_time = Some(Time(time));
}

/// Takes a Job out of the active ones.
pub(super) fn remove_active(status: &mut CronJobStatus, uid: Option<&str>) {
    if let Some(active) = &mut status.active {
        active.retain(|own| own.uid.as_deref() != uid);
    }
    if status.active.as_ref().is_some_and(Vec::is_empty) {
        status.active = None;
    }
}

/// Whether the status has it among the active ones.
pub(super) fn is_active(status: &CronJobStatus, job: &Job) -> bool {
    status.active.iter().flatten().any(|own| own.uid == job.metadata.uid)
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}
