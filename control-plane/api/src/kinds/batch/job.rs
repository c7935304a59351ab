//! Job: pods that are run until enough of them succeeded.

use serde_json::{Value, json};

use super::{V1, indexes, job_status};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::age::{age, human_duration};
use crate::kinds::cells::{age_cell, containers_cell, name_cell, selector_cell};
use crate::kinds::core::pod::{default_pod_template, template_warnings, validate_pod_template};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::fields::domain_prefixed_path;
use crate::kinds::tree::{
    fill, fill_text, flag, immutable, integer, items, items_mut, length, map_mut, semantically_equal, text,
};
use crate::kinds::{Subresource, WriteContext, names};
use crate::meta::validate_label_selector;
use crate::names::{is_dns1123_label, is_qualified_name};
use crate::selector::LabelSelector;

/// `batch/v1 Job`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        categories: names(&["all"]),
        subresources: vec![Subresource::Status],
        selectable: names(&["status.successful"]),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Status", "string", "How far it is, from its conditions."),
            Column::new("Completions", "string", "The number of pods that succeeded, of those wanted."),
            Column::new("Duration", "string", "How long it has run, or ran."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "Job", "jobs", "io.k8s.api.batch.v1.Job", Job)
    }
}

/// The labels of a Job's pods; each has an older name beside it.
const JOB_NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const CONTROLLER_UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;

struct Job;

impl Strategy for Job {
    /// `SetDefaults_Job`
    fn default(&self, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if labels.is_object() && length(&object["metadata"]["labels"]) == 0 {
            map_mut(&mut object["metadata"]).insert("labels".to_owned(), labels);
        }
        let spec = &mut object["spec"];
        if spec["completions"].is_null() && spec["parallelism"].is_null() {
            spec["completions"] = 1.into();
        }
        fill(spec, "parallelism", 1);
        let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
        fill(spec, "backoffLimit", limit);
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        let policy = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
        fill(spec, "podReplacementPolicy", policy);
        fill(spec, "manualSelector", false);
        default_job_template_parts(spec);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        if !flag(&object["spec"]["manualSelector"]) {
            generate_selector(object);
        }
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_generated_selector(object);
        errors.extend(validate_with_selector(&object["spec"], &Path::new("spec")));
        errors.extend(validate_name_allows_completions(object));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec");
        let (spec, was) = (&object["spec"], &old["spec"]);
        let same = |field: &str| immutable(&spec[field], &was[field], &path.child(field));
        let mut errors = validate_with_selector(spec, &path);
        errors.extend(validate_completions_change(spec, was, &path));
        errors.extend(same("selector"));
        errors.extend(validate_template_change(object, old, &path));
        for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
            errors.extend(same(field));
        }
        errors.extend(validate_name_allows_completions(object));
        errors
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        job_status::validate_status_update(object, old)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        let messages = old.map_or_else(|| is_dns1123_label(text(&object["metadata"]["name"])), |_| Vec::new());
        if !messages.is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
                messages.join(" ")
            ));
        }
        if old.is_none_or(|old| object["metadata"]["generation"] != old["metadata"]["generation"]) {
            warnings.extend(spec_warnings(&object["spec"], &Path::new("spec")));
        }
        warnings
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let succeeded = integer(&status["succeeded"]);
        let completions = match (spec["completions"].as_i64(), integer(&spec["parallelism"])) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let seconds = |field: &str| status[field].as_str()?.parse::<jiff::Timestamp>().ok().map(|at| at.as_second());
        let duration = match (seconds("startTime"), seconds("completionTime")) {
            (None, _) => String::new(),
            (Some(_), None) => age(status["startTime"].as_str(), now),
            (Some(start), Some(end)) => human_duration(end - start),
        };
        vec![
            name_cell(object),
            shown_status(object).into(),
            completions.into(),
            duration.into(),
            age_cell(object, now),
            containers_cell(&spec["template"], "name"),
            containers_cell(&spec["template"], "image"),
            selector_cell(&spec["selector"]),
        ]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![integer(&object["status"]["succeeded"]).to_string()]
    }
}

/// What a Job's spec and the spec of a CronJob's Jobs have filled in alike.
pub(super) fn default_job_template_parts(spec: &mut Value) {
    default_pod_template(&mut spec["template"]);
    if !spec["podFailurePolicy"].is_object() {
        return;
    }
    for rule in items_mut(&mut spec["podFailurePolicy"], "rules") {
        for pattern in items_mut(rule, "onPodConditions") {
            fill_text(pattern, "status", "True");
        }
    }
}

fn shown_status(object: &Value) -> &'static str {
    let has = |type_: &str| job_status::condition_is_true(&object["status"], type_);
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !object["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// `generateSelector`
fn generate_selector(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let uid = object["metadata"]["uid"].clone();
    let labels = &mut object["spec"]["template"]["metadata"]["labels"];
    for (keys, value) in [(JOB_NAME_LABELS, &name), (CONTROLLER_UID_LABELS, &uid)] {
        for key in keys {
            fill(labels, key, value.clone());
        }
    }
    fill(&mut object["spec"]["selector"]["matchLabels"], CONTROLLER_UID_LABELS[1], uid);
}

fn validate_generated_selector(object: &Value) -> ErrorList {
    let spec = &object["spec"];
    let mut errors = ErrorList::new();
    if flag(&spec["manualSelector"]) || spec["selector"].is_null() {
        return errors;
    }
    let (name, uid) = (text(&object["metadata"]["name"]), text(&object["metadata"]["uid"]));
    if uid.is_empty() {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let at = Path::new("spec").child("template").child("metadata").child("labels");
    let labels = &spec["template"]["metadata"]["labels"];
    let expected = [
        (CONTROLLER_UID_LABELS[0], uid),
        (JOB_NAME_LABELS[0], name),
        (CONTROLLER_UID_LABELS[1], uid),
        (JOB_NAME_LABELS[1], name),
    ];
    for (key, wanted) in expected {
        match labels[key].as_str() {
            None => errors.push(Error::required(&at.key(key), format!("must be '{wanted}'"))),
            Some(value) if value != wanted => {
                errors.push(Error::invalid(&at.key(key), labels.clone(), format!("must be '{wanted}'")));
            }
            Some(_) => {}
        }
    }
    let generated: Value = expected.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    if LabelSelector::from_object(&spec["selector"]).is_ok_and(|selector| !selector.matches_object(&generated)) {
        let at = Path::new("spec").child("selector");
        errors.push(Error::invalid(&at, spec["selector"].clone(), "`selector` not auto-generated"));
    }
    errors
}

/// The last pod's hostname must be one.
fn validate_name_allows_completions(object: &Value) -> ErrorList {
    let spec = &object["spec"];
    let completions = integer(&spec["completions"]);
    if spec["completionMode"] != "Indexed" || completions <= 0 {
        return ErrorList::new();
    }
    let name = text(&object["metadata"]["name"]);
    let hostname = format!("{name}-{}", completions - 1);
    if is_dns1123_label(&hostname).is_empty() {
        return ErrorList::new();
    }
    let message = format!("will not able to create pod with invalid DNS label: {hostname}");
    vec![Error::invalid(&Path::new("metadata").child("name"), name, message)]
}

/// `ValidateJobSpec`
fn validate_with_selector(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_spec(spec, path);
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(Error::required(&path.child("selector"), ""));
    } else {
        errors.extend(validate_label_selector(selector, &path.child("selector")));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if LabelSelector::from_object(selector).is_ok_and(|selector| !selector.matches_object(labels)) {
        let at = path.child("template").child("metadata").child("labels");
        errors.push(Error::invalid(&at, labels.clone(), "`selector` does not match template `labels`"));
    }
    errors
}

/// `validateJobSpec`: what holds for a CronJob's template as well.
pub(super) fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for field in counts {
        if let Some(count) = spec[field].as_i64().filter(|count| *count < 0) {
            errors.push(Error::invalid(&path.child(field), count, "must be greater than or equal to 0"));
        }
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        errors.push(Error::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        errors.extend(validate_manager(manager, &path.child("managedBy")));
    }
    let mode = spec["completionMode"].as_str();
    match mode {
        Some("Indexed") => errors.extend(validate_indexed(spec, path)),
        Some("NonIndexed") | None => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(count) = spec[field].as_i64() {
                    errors.push(Error::invalid(&path.child(field), count, "requires indexed completion mode"));
                }
            }
        }
        Some(other) => {
            errors.push(Error::not_supported(&path.child("completionMode"), other, &["NonIndexed", "Indexed"]));
        }
    }
    if !spec["podFailurePolicy"].is_null() {
        errors.extend(validate_failure_policy(spec, &path.child("podFailurePolicy").child("rules")));
    }
    let success = &spec["successPolicy"];
    if !success.is_null() && mode != Some("Indexed") {
        let at = path.child("successPolicy");
        errors.push(Error::invalid(&at, success.clone(), "requires indexed completion mode"));
    } else if !success.is_null() {
        errors.extend(validate_success_policy(spec, &path.child("successPolicy").child("rules")));
    }
    if let Some(policy) = spec["podReplacementPolicy"].as_str() {
        let supported: &[&str] =
            if spec["podFailurePolicy"].is_null() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
        if !supported.contains(&policy) {
            errors.push(Error::not_supported(&path.child("podReplacementPolicy"), policy, supported));
        }
    }
    errors.extend(validate_pod_template(&spec["template"], &path.child("template")));
    let at = path.child("template").child("spec").child("restartPolicy");
    match text(&spec["template"]["spec"]["restartPolicy"]) {
        "" | "Always" => errors.push(Error::required(&at, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if !spec["podFailurePolicy"].is_null() => {
            let message = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Error::invalid(&at, "OnFailure", message));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(Error::not_supported(&at, other, &["OnFailure", "Never"])),
    }
    errors
}

/// A domain-prefixed path of at most 63 bytes.
fn validate_manager(manager: &str, path: &Path) -> ErrorList {
    let mut errors = domain_prefixed_path(manager, path);
    if manager.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    errors
}

fn validate_indexed(spec: &Value, path: &Path) -> ErrorList {
    const MOST: i64 = 100_000;
    const MOST_OF_MANY: i64 = 10_000;
    let mut errors = ErrorList::new();
    let [completions, parallelism, failed] =
        ["completions", "parallelism", "maxFailedIndexes"].map(|field| spec[field].as_i64());
    let mut too_large = |field: &str, value: Option<i64>, most: i64, message: String| {
        if let Some(value) = value.filter(|value| *value > most) {
            errors.push(Error::invalid(&path.child(field), value, message));
        }
    };
    let message = format!("must be less than or equal to {MOST} when completion mode is Indexed");
    too_large("parallelism", parallelism, MOST, message);
    let most = completions.unwrap_or(i64::MAX);
    too_large("maxFailedIndexes", failed, most, "must be less than or equal to completions".to_owned());
    too_large("maxFailedIndexes", failed, MOST, format!("must be less than or equal to {MOST}"));
    if completions.is_some_and(|count| count > COMPLETIONS_SOFT_LIMIT) && !spec["backoffLimitPerIndex"].is_null() {
        let message = format!(
            "must be less than or equal to {MOST_OF_MANY} when completions are above {COMPLETIONS_SOFT_LIMIT} and used with backoff limit per index"
        );
        too_large("parallelism", parallelism, MOST_OF_MANY, message.clone());
        too_large("maxFailedIndexes", failed, MOST_OF_MANY, message);
        if failed.is_none() {
            let message = format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
            errors.push(Error::required(&path.child("maxFailedIndexes"), message));
        }
    }
    if completions.is_none() {
        errors.insert(0, Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    errors
}

fn validate_failure_policy(spec: &Value, path: &Path) -> ErrorList {
    const MOST: usize = 20;
    let rules = items(&spec["podFailurePolicy"]["rules"]);
    let mut errors = ErrorList::new();
    if rules.len() > MOST {
        errors.push(Error::too_many(path, rules.len(), MOST));
    }
    for (index, rule) in rules.iter().enumerate() {
        errors.extend(validate_failure_rule(spec, rule, &path.index(index)));
    }
    errors
}

fn validate_failure_rule(spec: &Value, rule: &Value, path: &Path) -> ErrorList {
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let mut errors = ErrorList::new();
    let at = path.child("action");
    match text(&rule["action"]) {
        "" => {
            errors.push(Error::required(&at, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"));
        }
        "FailIndex" if spec["backoffLimitPerIndex"].is_null() => {
            errors.push(Error::invalid(&at, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
        action if ACTIONS.contains(&action) => {}
        other => errors.push(Error::not_supported(&at, other, ACTIONS)),
    }
    let (codes, conditions) = (&rule["onExitCodes"], items(&rule["onPodConditions"]));
    if !codes.is_null() {
        errors.extend(validate_exit_codes(spec, codes, &path.child("onExitCodes")));
    }
    errors.extend(validate_condition_patterns(conditions, &path.child("onPodConditions")));
    let message = match (codes.is_null(), conditions.is_empty()) {
        (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return errors,
    };
    errors.push(Error { value: None, ..Error::invalid(path, Value::Null, message) });
    errors
}

fn validate_condition_patterns(patterns: &[Value], path: &Path) -> ErrorList {
    const MOST: usize = 20;
    let mut errors = ErrorList::new();
    if patterns.len() > MOST {
        errors.push(Error::too_many(path, patterns.len(), MOST));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let at = path.index(index);
        let type_ = text(&pattern["type"]);
        let messages = is_qualified_name(type_).into_iter();
        errors.extend(messages.map(|message| Error::invalid(&at.child("type"), type_, message)));
        match text(&pattern["status"]) {
            "True" | "False" | "Unknown" => {}
            "" => {
                let message = "valid values: [\"False\" \"True\" \"Unknown\"]";
                errors.push(Error::required(&at.child("status"), message));
            }
            other => errors.push(Error::not_supported(&at.child("status"), other, &["False", "True", "Unknown"])),
        }
    }
    errors
}

fn validate_exit_codes(spec: &Value, codes: &Value, path: &Path) -> ErrorList {
    const MOST: usize = 255;
    let mut errors = ErrorList::new();
    let at = path.child("operator");
    match text(&codes["operator"]) {
        "In" | "NotIn" => {}
        "" => errors.push(Error::required(&at, "valid values: [\"In\" \"NotIn\"]")),
        other => errors.push(Error::not_supported(&at, other, &["In", "NotIn"])),
    }
    if let Some(name) = codes["containerName"].as_str() {
        let pod = &spec["template"]["spec"];
        let known = ["containers", "initContainers"]
            .iter()
            .any(|list| items(&pod[*list]).iter().any(|container| text(&container["name"]) == name));
        if !known {
            let message = "must be one of the container or initContainer names in the pod template";
            errors.push(Error::invalid(&path.child("containerName"), name, message));
        }
    }
    let at = path.child("values");
    let values: Vec<i64> = items(&codes["values"]).iter().map(integer).collect();
    if values.is_empty() {
        errors.push(Error::invalid(&at, codes["values"].clone(), "at least one value is required"));
    } else if values.len() > MOST {
        errors.push(Error::too_many(&at, values.len(), MOST));
    }
    for (index, value) in values.iter().enumerate() {
        if codes["operator"] == "In" && *value == 0 {
            errors.push(Error::invalid(&at.index(index), 0, "must not be 0 for the In operator"));
        }
        if values[..index].contains(value) {
            errors.push(Error::duplicate(&at.index(index), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(Error::invalid(&at, codes["values"].clone(), "must be ordered"));
    }
    errors
}

fn validate_success_policy(spec: &Value, path: &Path) -> ErrorList {
    const MOST: usize = 20;
    const LONGEST: usize = 64 * 1024;
    let completions = integer(&spec["completions"]);
    let rules = items(&spec["successPolicy"]["rules"]);
    let mut errors = ErrorList::new();
    if rules.is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        errors.push(Error::required(path, message));
    }
    if rules.len() > MOST {
        errors.push(Error::too_many(path, rules.len(), MOST));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = path.index(index);
        let (count, named) = (rule["succeededCount"].as_i64(), rule["succeededIndexes"].as_str());
        if count.is_none() && named.is_none() {
            let message = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(Error::required(&at, message));
        }
        let mut total = 0;
        if let Some(named) = named {
            let at = at.child("succeededIndexes");
            if named.len() > LONGEST {
                errors.push(Error::too_long(&at, LONGEST));
            }
            match indexes::count(named, completions) {
                Ok(count) => total = count,
                Err(why) => {
                    errors.push(Error::invalid(&at, named, format!("error parsing succeededIndexes: {why}")));
                }
            }
        }
        if let Some(count) = count {
            let at = at.child("succeededCount");
            if count < 0 {
                errors.push(Error::invalid(&at, count, "must be greater than or equal to 0"));
            }
            if count > completions {
                let message =
                    format!("must be less than or equal to {completions} (the number of specified completions)");
                errors.push(Error::invalid(&at, count, message));
            }
            if named.is_some() && count > total {
                let message = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                errors.push(Error::invalid(&at, count, message));
            }
        }
    }
    errors
}

/// Completions change only for indexed Jobs, and then with their parallelism.
fn validate_completions_change(spec: &Value, old: &Value, path: &Path) -> ErrorList {
    let at = path.child("completions");
    if spec["completionMode"] != "Indexed" || spec["completions"].is_null() {
        return immutable(&spec["completions"], &old["completions"], &at);
    }
    if spec["completions"] != old["completions"] && spec["completions"] != spec["parallelism"] {
        let message = "can only be modified in tandem with spec.parallelism";
        return vec![Error::invalid(&at, spec["completions"].clone(), message)];
    }
    ErrorList::new()
}

/// The template of a Job that does not run may still be scheduled elsewhere and get other resources.
fn validate_template_change(object: &Value, old: &Value, path: &Path) -> ErrorList {
    let (template, mut was) = (&object["spec"]["template"], old["spec"]["template"].clone());
    let status = &old["status"];
    let suspended = flag(&old["spec"]["suspend"])
        && (status["startTime"].is_null() || job_status::condition_is_true(status, "Suspended"))
        && integer(&status["active"]) == 0;
    if suspended {
        for (part, field) in [("metadata", "annotations"), ("metadata", "labels")] {
            was[part][field] = template[part][field].clone();
        }
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            was["spec"][field] = template["spec"][field].clone();
        }
        let node_affinity = template["spec"]["affinity"]["nodeAffinity"].clone();
        if was["spec"]["affinity"].is_object() || template["spec"]["affinity"].is_object() {
            was["spec"]["affinity"]["nodeAffinity"] = node_affinity;
        }
        if template["spec"]["affinity"].is_null()
            && crate::kinds::tree::entries(&was["spec"]["affinity"]).all(|(_, value)| value.is_null())
        {
            was["spec"]["affinity"] = Value::Null;
        }
        for list in ["containers", "initContainers"] {
            let new = items(&template["spec"][list]);
            if new.len() == length(&was["spec"][list]) {
                for (container, new) in items_mut(&mut was["spec"], list).iter_mut().zip(new) {
                    if container["name"] == new["name"] {
                        container["resources"] = new["resources"].clone();
                    }
                }
            }
        }
    }
    if semantically_equal(template, &was) {
        return ErrorList::new();
    }
    let (at, value) =
        if suspended { (path.child("template.spec"), &template["spec"]) } else { (path.child("template"), template) };
    vec![Error::invalid(&at, value.clone(), "field is immutable")]
}

/// `WarningsForJobSpec`
pub(super) fn spec_warnings(spec: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let many = integer(&spec["completions"]) > COMPLETIONS_SOFT_LIMIT && integer(&spec["parallelism"]) > 10_000;
    if spec["completionMode"] == "Indexed" && many {
        warnings.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    warnings.extend(template_warnings(&spec["template"], &path.child("template")));
    warnings
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
