//! CronJob: Jobs that are made at set times.

use serde_json::{Value, json};

use super::{V1, job};
use crate::cron;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::age::age;
use crate::kinds::cells::{age_cell, containers_cell, name_cell, selector_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{fill, fill_text, flag, length, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::names::is_dns1123_label;

/// `batch/v1 CronJob`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["cj"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Schedule", "string", "When Jobs are made, as a cron schedule."),
            Column::new("Timezone", "string", "The time zone of the schedule."),
            Column::new("Suspend", "boolean", "Whether no Jobs are made for now."),
            Column::new("Active", "integer", "The number of its Jobs that run."),
            Column::new("Last Schedule", "string", "How long ago a Job was made last."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "CronJob", "cronjobs", "io.k8s.api.batch.v1.CronJob", CronJob)
    }
}

/// The longest name: a Job's name is made by appending eleven bytes.
const NAME_MAX_LENGTH: usize = 52;

struct CronJob;

impl Strategy for CronJob {
    /// `SetDefaults_CronJob`
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        fill_text(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        job::default_job_template_parts(&mut spec["jobTemplate"]["spec"]);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_spec(&object["spec"], None);
        let name = text(&object["metadata"]["name"]);
        if name.len() > NAME_MAX_LENGTH {
            let message = format!("must be no more than {NAME_MAX_LENGTH} characters");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, message));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate_spec(&object["spec"], Some(&old["spec"]))
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        let spec = &object["spec"];
        let messages = old.map_or_else(|| is_dns1123_label(text(&object["metadata"]["name"])), |_| Vec::new());
        if !messages.is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
                messages.join(" ")
            ));
        }
        if old.is_none_or(|old| object["metadata"]["generation"] != old["metadata"]["generation"]) {
            let path = Path::new("spec").child("jobTemplate").child("spec");
            warnings.extend(job::spec_warnings(&spec["jobTemplate"]["spec"], &path));
        }
        if text(&spec["schedule"]).contains("TZ") {
            warnings.push(
                "spec.schedule: CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        warnings
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let template = &spec["jobTemplate"]["spec"];
        let last = status["lastScheduleTime"].as_str().map_or_else(|| "<none>".to_owned(), |at| age(Some(at), now));
        let suspended =
            spec["suspend"].as_bool().map_or("<unset>", |_| if flag(&spec["suspend"]) { "True" } else { "False" });
        vec![
            name_cell(object),
            text(&spec["schedule"]).into(),
            spec["timeZone"].as_str().unwrap_or("<none>").into(),
            suspended.into(),
            length(&status["active"]).into(),
            last.into(),
            age_cell(object, now),
            containers_cell(&template["template"], "name"),
            containers_cell(&template["template"], "image"),
            selector_cell(&template["selector"]),
        ]
    }
}

/// `validateCronJobSpec`
fn validate_spec(spec: &Value, old: Option<&Value>) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = validate_schedule(spec, old, &path.child("schedule"));
    let not_negative = |field: &str, errors: &mut ErrorList| {
        if let Some(count) = spec[field].as_i64().filter(|count| *count < 0) {
            errors.push(Error::invalid(&path.child(field), count, "must be greater than or equal to 0"));
        }
    };
    not_negative("startingDeadlineSeconds", &mut errors);
    if old.is_none_or(|old| old["timeZone"] != spec["timeZone"]) {
        errors.extend(validate_time_zone(&spec["timeZone"], &path.child("timeZone")));
    }
    let policies = ["Allow", "Forbid", "Replace"];
    match text(&spec["concurrencyPolicy"]) {
        "" => errors.push(Error::required(&path.child("concurrencyPolicy"), "")),
        policy if policies.contains(&policy) => {}
        other => errors.push(Error::not_supported(&path.child("concurrencyPolicy"), other, &policies)),
    }
    let (template, at) = (&spec["jobTemplate"]["spec"], path.child("jobTemplate").child("spec"));
    errors.extend(job::validate_spec(template, &at));
    if !template["selector"].is_null() {
        let message = "`selector` will be auto-generated";
        errors.push(Error::invalid(&at.child("selector"), template["selector"].clone(), message));
    }
    if flag(&template["manualSelector"]) {
        errors.push(Error::not_supported(&at.child("manualSelector"), true, &["nil", "false"]));
    }
    not_negative("successfulJobsHistoryLimit", &mut errors);
    not_negative("failedJobsHistoryLimit", &mut errors);
    errors
}

fn validate_schedule(spec: &Value, old: Option<&Value>, path: &Path) -> ErrorList {
    let schedule = text(&spec["schedule"]);
    if schedule.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    if let Err(why) = cron::parse(schedule) {
        errors.push(Error::invalid(path, schedule, why.to_string()));
    }
    if schedule.contains("TZ") {
        let had = old.is_some_and(|old| text(&old["schedule"]).contains("TZ"));
        if !had {
            let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(Error::invalid(path, schedule, message));
        } else if !spec["timeZone"].is_null() {
            let message = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errors.push(Error::invalid(path, schedule, message));
        }
    }
    errors
}

fn validate_time_zone(zone: &Value, path: &Path) -> ErrorList {
    let Some(name) = zone.as_str() else { return ErrorList::new() };
    if name.is_empty() {
        return vec![Error::invalid(path, name, "timeZone must be nil or non-empty string")];
    }
    let is_part = |part: &str| {
        let characters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
        !part.is_empty() && characters && part.len() <= 14 && !matches!(part, "." | "..") && !part.starts_with('-')
    };
    if !name.split('/').all(is_part) {
        return vec![Error::invalid(path, name, format!("unknown time zone {name}"))];
    }
    let mut errors = ErrorList::new();
    if name.eq_ignore_ascii_case("Local") {
        let message = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(Error::invalid(path, name, message));
    }
    if jiff::tz::TimeZone::get(name).is_err() && name != "Local" {
        errors.push(Error::invalid(path, name, format!("unknown time zone {name}")));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let mut object = json!({
            "metadata": {"name": "a"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {
                "containers": [{"name": "c", "image": "i"}], "restartPolicy": "OnFailure",
            }}}}},
        });
        CronJob.default(&mut object);
        object
    }

    #[test]
    fn mistakes_are_named() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (json!({"spec": {"timeZone": "Europe/Berlin"}}), vec![]),
            (
                json!({"spec": {"schedule": "* * * *"}}),
                vec!["spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]"],
            ),
            (
                json!({"spec": {"timeZone": "Mars/Base"}}),
                vec!["spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"],
            ),
            (
                json!({"spec": {"concurrencyPolicy": "Sometimes"}}),
                vec![
                    "spec.concurrencyPolicy: Unsupported value: \"Sometimes\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
            (
                json!({"spec": {"jobTemplate": {"spec": {"manualSelector": true}}}}),
                vec![
                    "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                ],
            ),
            (
                json!({"metadata": {"name": "x".repeat(53)}}),
                vec![
                    "metadata.name: Invalid value: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": must be no more than 52 characters",
                ],
            ),
        ] {
            assert_eq!(messages(&CronJob.validate_create(&mutated(&base(), &mutation))), expected, "{mutation}");
        }
    }

    #[test]
    fn a_row_shows_the_schedule() {
        assert_eq!(
            CronJob.row(&base(), NOW)[..7],
            [
                json!("a"),
                json!("*/5 * * * *"),
                json!("<none>"),
                json!("False"),
                json!(0),
                json!("<none>"),
                json!("<unknown>"),
            ]
        );
    }
}
