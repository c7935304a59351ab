//! The CronJob's decisions, by table.

use serde_json::{Value, json};

use super::reconcile::{Plan, plan, tidy};
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn cron(fields: &Value, status: &Value) -> CronJob {
    let mut cron = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "cron", "creationTimestamp": "2026-03-01T10:00:30Z"},
        "spec": {"schedule": "*/5 * * * *", "timeZone": "Etc/UTC", "concurrencyPolicy": "Allow",
                 "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": {}}}},
        "status": status,
    });
    for (field, value) in fields.as_object().expect("fields") {
        cron["spec"][field] = value.clone();
    }
    serde_json::from_value(cron).expect("a CronJob")
}

fn planned(fields: &Value, status: &Value, now: &str) -> Plan {
    let cron = cron(fields, status);
    plan(&cron, cron.status.as_ref().expect("a status"), at(now))
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|note| note.1).collect()
}

#[test]
fn a_job_is_started_at_its_time_and_named_by_it() {
    let early = planned(&json!({}), &json!({}), "2026-03-01T10:04:00Z");
    assert_eq!((early.start, early.again.map(|again| again.as_millis())), (None, Some(60_100)));
    let due = planned(&json!({}), &json!({}), "2026-03-01T10:05:00.1Z");
    assert_eq!(due.start, Some(at("2026-03-01T10:05:00Z")));
    let job = reconcile::job(&cron(&json!({}), &json!({})), at("2026-03-01T10:05:00Z"));
    assert_eq!(job.metadata.name.as_deref(), Some("c-29539325"));
    let annotations = job.metadata.annotations.expect("annotations");
    assert_eq!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2026-03-01T10:05:00Z");
    let done = planned(&json!({}), &json!({"lastScheduleTime": "2026-03-01T10:05:00Z"}), "2026-03-01T10:06:00Z");
    assert_eq!((done.start, done.again.map(|again| again.as_millis())), (None, Some(240_100)));
}

#[test]
fn of_many_missed_times_the_last_is_started_with_a_warning() {
    let plan = planned(&json!({}), &json!({}), "2026-03-02T10:07:00Z");
    assert_eq!(plan.start, Some(at("2026-03-02T10:05:00Z")));
    assert_eq!(reasons(&plan), ["TooManyMissedTimes"]);
}

#[test]
fn what_runs_holds_a_start_back_or_makes_way_by_the_policy() {
    let active = json!({"active": [{"name": "c-1", "namespace": "n", "uid": "1"}]});
    let now = "2026-03-01T10:05:01Z";
    let forbid = planned(&json!({"concurrencyPolicy": "Forbid"}), &active, now);
    assert_eq!((forbid.start, reasons(&forbid)), (None, vec!["JobAlreadyActive"]));
    let replace = planned(&json!({"concurrencyPolicy": "Replace"}), &active, now);
    assert_eq!((replace.start.is_some(), replace.replace.len()), (true, 1));
    let allow = planned(&json!({}), &active, now);
    assert_eq!((allow.start.is_some(), allow.replace.len()), (true, 0));
}

#[test]
fn nothing_is_started_when_suspended_too_late_or_unreadable() {
    let now = "2026-03-01T10:05:30Z";
    assert_eq!(planned(&json!({"suspend": true}), &json!({}), now), Plan::default());
    let late = planned(&json!({"startingDeadlineSeconds": 10}), &json!({}), now);
    assert_eq!(late.start, None);
    assert_eq!(reasons(&planned(&json!({"schedule": "nonsense"}), &json!({}), now)), ["UnparseableSchedule"]);
    assert_eq!(reasons(&planned(&json!({"schedule": "59 23 31 2 *"}), &json!({}), now)), ["InvalidSchedule"]);
    assert_eq!(reasons(&planned(&json!({"timeZone": "Nowhere/Land"}), &json!({}), now)), ["UnknownTimeZone"]);
}

#[test]
fn ended_jobs_leave_the_status_and_those_beyond_the_history_go() {
    let job = |name: &str, end: &str, started: &str| {
        let job = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "status": {"startTime": started, "completionTime": started, "conditions": [{"type": end, "status": "True"}]},
        });
        Arc::new(serde_json::from_value::<Job>(job).expect("a Job"))
    };
    let jobs = [
        job("b", "Complete", "2026-03-01T10:10:00Z"),
        job("a", "Complete", "2026-03-01T10:05:00Z"),
        job("f", "Failed", "2026-03-01T10:15:00Z"),
    ];
    let cron = cron(&json!({}), &json!({"active": [{"name": "b", "uid": "b"}, {"name": "gone", "uid": "gone"}]}));
    let tidied = tidy(&cron, &jobs);
    assert_eq!(tidied.surplus.iter().map(|job| job.metadata.name.clone()).collect::<Vec<_>>(), [Some("a".to_owned())]);
    assert_eq!(tidied.missing.len(), 1);
    assert_eq!(tidied.notes[0].2, "Saw completed job: b, condition: Complete");
    assert_eq!(tidied.status.last_successful_time.expect("a time").0, at("2026-03-01T10:10:00Z"));
}
