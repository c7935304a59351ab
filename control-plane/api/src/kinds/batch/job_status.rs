//! What a Job's status may say: `validateJobStatus` and `ValidateJobStatusUpdate`, with every check of 1.37.

use serde_json::Value;

use super::indexes;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::apps::workload;
use crate::kinds::tree::{flag, integer, items, length, text};

/// Whether a status has a condition that holds.
pub(super) fn condition_is_true(status: &Value, type_: &str) -> bool {
    items(&status["conditions"]).iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

pub(super) fn validate_status_update(object: &Value, old: &Value) -> ErrorList {
    let path = Path::new("status");
    let mut errors = validate_status(object, old, &path);
    let (status, was) = (&object["status"], &old["status"]);
    for type_ in ["Failed", "Complete", "FailureTarget"] {
        if condition_is_true(was, type_) && !condition_is_true(status, type_) {
            errors.push(conditions(&path, &format!("cannot disable the terminal {type_}=True condition")));
        }
    }
    for field in ["failed", "succeeded"] {
        if integer(&status[field]) < integer(&was[field]) && !flag(&object["spec"]["suspend"]) {
            let message = format!("cannot decrease the {field} counter");
            errors.push(Error::invalid(&path.child(field), integer(&status[field]), message));
        }
    }
    let [completed, completed_before] = [status, was].map(|status| &status["completionTime"]);
    if !completed.is_null() && !completed_before.is_null() && completed != completed_before {
        errors.push(Error::invalid(&path.child("completionTime"), completed.clone(), "field is immutable"));
    }
    if !was["startTime"].is_null() && was["startTime"] != status["startTime"] && !flag(&object["spec"]["suspend"]) {
        let message = "field is immutable for unsuspended job once set";
        errors.push(Error::invalid(&path.child("startTime"), status["startTime"].clone(), message));
    }
    let met = |status: &Value| condition_is_true(status, "SuccessCriteriaMet");
    if met(was) && !met(status) {
        errors.push(conditions(&path, "cannot disable the SuccessCriteriaMet=True condition"));
    }
    if condition_is_true(was, "Complete") && !met(was) && met(status) {
        let message = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.push(conditions(&path, message));
    }
    errors
}

fn conditions(path: &Path, message: &str) -> Error {
    Error { value: None, ..Error::invalid(&path.child("conditions"), Value::Null, message) }
}

fn validate_status(object: &Value, old: &Value, path: &Path) -> ErrorList {
    let (spec, status) = (&object["spec"], &object["status"]);
    let has = |type_: &str| condition_is_true(status, type_);
    let (complete, failed, met) = (has("Complete"), has("Failed"), has("SuccessCriteriaMet"));
    let finished = complete || failed;
    let mut errors = workload::counts_not_negative(status, &["active", "succeeded", "failed", "ready", "terminating"]);
    let uncounted = &status["uncountedTerminatedPods"];
    errors.extend(validate_uncounted(uncounted, &path.child("uncountedTerminatedPods")));
    let mut refuse = |refused: bool, message: &str| {
        if refused {
            errors.push(conditions(path, message));
        }
    };
    refuse(complete && failed, "cannot set Complete=True and Failed=true conditions");
    refuse(complete && has("FailureTarget"), "cannot set Complete=True and FailureTarget=true conditions");
    // Jobs that were failed or complete before are not asked for the conditions on the way there.
    let newly = |type_: &str| has(type_) && !condition_is_true(&old["status"], type_);
    refuse(
        newly("Failed") && !has("FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        newly("Complete") && !met,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(met && has("FailureTarget"), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    refuse(
        !spec["successPolicy"].is_null() && !met && complete,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    let completion = &status["completionTime"];
    let at = path.child("completionTime");
    if !completion.is_null() && !complete {
        let message = "cannot set completionTime when there is no Complete=True condition";
        errors.push(Error::invalid(&at, completion.clone(), message));
    }
    if completion.is_null() && complete {
        errors.push(Error::required(&at, "completionTime is required for Complete jobs"));
    }
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if let (Some(start), Some(end)) = (time(&status["startTime"]), time(completion))
        && end < start
    {
        errors.push(Error::invalid(&at, completion.clone(), "must be equal to or after `startTime`"));
    }
    if finished {
        errors.extend(validate_finished(status, path));
    }
    errors.extend(validate_indexes(spec, status, path));
    if let Some(ready) = status["ready"].as_i64().filter(|ready| *ready > integer(&status["active"])) {
        errors.push(Error::invalid(&path.child("ready"), ready, "cannot set more ready pods than active"));
    }
    errors
}

fn validate_finished(status: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if status["startTime"].is_null() {
        errors.push(Error::required(&path.child("startTime"), "startTime is required for finished job"));
    }
    for (field, message) in [
        ("active", "active>0 is invalid for finished job"),
        ("terminating", "terminating>0 is invalid for finished job"),
    ] {
        let count = integer(&status[field]);
        if count > 0 {
            errors.push(Error::invalid(&path.child(field), count, message));
        }
    }
    let uncounted = &status["uncountedTerminatedPods"];
    if length(&uncounted["failed"]) + length(&uncounted["succeeded"]) > 0 {
        let at = path.child("uncountedTerminatedPods");
        errors.push(Error::invalid(&at, uncounted.clone(), "must be empty for finished job"));
    }
    errors
}

fn validate_uncounted(uncounted: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = std::collections::BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for (index, uid) in items(&uncounted[list]).iter().enumerate() {
            let at = path.child(list).index(index);
            if text(uid).is_empty() {
                errors.push(Error::invalid(&at, "", "must not be empty"));
            } else if !seen.insert(text(uid)) {
                errors.push(Error::duplicate(&at, uid.clone()));
            }
        }
    }
    errors
}

fn validate_indexes(spec: &Value, status: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (completed, failed) = (text(&status["completedIndexes"]), status["failedIndexes"].as_str());
    let (completed_at, failed_at) = (path.child("completedIndexes"), path.child("failedIndexes"));
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    if let Some(completions) = spec["completions"].as_i64() {
        if let Err(why) = indexes::count(completed, completions) {
            let message = format!("error parsing completedIndexes: {why}");
            errors.push(Error::invalid(&completed_at, completed, message));
        }
        if let Some(failed) = failed.filter(|_| per_index)
            && let Err(why) = indexes::count(failed, completions)
        {
            errors.push(Error::invalid(&failed_at, failed, format!("error parsing failedIndexes: {why}")));
        }
        if let Some(failed) = failed
            && let Some(index) = indexes::overlap(completed, failed, completions)
        {
            let message = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.push(Error::invalid(&failed_at, failed, message));
        }
    }
    if !completed.is_empty() && spec["completionMode"] != "Indexed" {
        let message = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(Error::invalid(&completed_at, completed, message));
    }
    if let Some(failed) = failed.filter(|_| !per_index) {
        let message = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(Error::invalid(&failed_at, failed, message));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;
    use serde_json::json;

    #[test]
    fn a_status_ends_in_order() {
        let complete = json!({
            "startTime": "2026-11-24T08:00:00Z", "completionTime": "2026-11-24T08:00:05Z",
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}],
        });
        assert_eq!(messages(&validate_status_update(&json!({ "status": complete }), &json!({}))), Vec::<String>::new());
        for (status, old, expected) in [
            (
                json!({"conditions": [{"type": "Failed", "status": "True"}], "startTime": "2026-11-24T08:00:00Z"}),
                json!({}),
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
            ),
            (
                json!({"completionTime": "2026-11-24T08:00:00Z"}),
                json!({}),
                "status.completionTime: Invalid value: \"2026-11-24T08:00:00Z\": cannot set completionTime when there is no Complete=True condition",
            ),
            (json!({}), json!({"failed": 1}), "status.failed: Invalid value: 0: cannot decrease the failed counter"),
            (
                json!({"active": 1, "ready": 2}),
                json!({}),
                "status.ready: Invalid value: 2: cannot set more ready pods than active",
            ),
            (
                json!({"completedIndexes": "0"}),
                json!({}),
                "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode",
            ),
        ] {
            let errors = validate_status_update(&json!({ "status": status }), &json!({ "status": old }));
            assert_eq!(messages(&errors), [expected]);
        }
    }
}
