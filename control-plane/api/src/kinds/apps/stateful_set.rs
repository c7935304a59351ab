//! StatefulSet: pods with names and storage of their own, one after the other.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::apps::{V1, workload};
use crate::kinds::cells::{age_cell, containers_cell, name_cell};
use crate::kinds::core::persistent_volume_claim::{default_claim, validate_claim_spec};
use crate::kinds::core::pod::{default_pod_template, template_warnings, validate_pod_template};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{fill, fill_text, immutable, integer, items, items_mut, remove, text};
use crate::kinds::{ScalePaths, Subresource, WriteContext, names};
use crate::meta::validate_label_selector;
use crate::names::{is_dns1123_label, name_is_dns_label};
use crate::selector::LabelSelector;

/// `apps/v1 StatefulSet`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["sts"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Scale, Subresource::Status],
        scale: Some(ScalePaths::BUILTIN),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Ready", "string", "The number of ready pods, of those wanted."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
        ],
        ..Kind::new(V1, "StatefulSet", "statefulsets", "io.k8s.api.apps.v1.StatefulSet", StatefulSet)
    }
}

struct StatefulSet;

impl Strategy for StatefulSet {
    /// `SetDefaults_StatefulSet`
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        default_pod_template(&mut spec["template"]);
        for claim in items_mut(spec, "volumeClaimTemplates") {
            fill_text(claim, "apiVersion", "v1");
            fill_text(claim, "kind", "PersistentVolumeClaim");
            default_claim(claim);
        }
        fill_text(spec, "podManagementPolicy", "OrderedReady");
        let strategy = &mut spec["updateStrategy"];
        if text(&strategy["type"]).is_empty() {
            strategy["type"] = "RollingUpdate".into();
            fill(strategy, "rollingUpdate", json!({}));
        }
        if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"].is_object() {
            fill(&mut strategy["rollingUpdate"], "partition", 0);
            fill(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
        }
        let retention = &mut spec["persistentVolumeClaimRetentionPolicy"];
        fill_text(retention, "whenDeleted", "Retain");
        fill_text(retention, "whenScaled", "Retain");
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({ "replicas": 0, "availableReplicas": 0 });
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_spec(&object["spec"], &Path::new("spec"))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        for field in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
            errors.extend(immutable(&object["spec"][field], &old["spec"][field], &Path::new("spec").child(field)));
        }
        errors
    }

    /// `ValidateStatefulSetStatusUpdate`
    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        let status = &object["status"];
        let path = Path::new("status");
        let counted = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        let mut errors = workload::counts_not_negative(status, &["replicas"]);
        errors.extend(workload::counts_not_negative(status, &counted));
        errors.extend(workload::counts_not_negative(status, &["observedGeneration", "collisionCount"]));
        for field in counted {
            let count = integer(&status[field]);
            if count > integer(&status["replicas"]) {
                errors.push(Error::invalid(&path.child(field), count, "cannot be greater than status.replicas"));
            }
        }
        let available = integer(&status["availableReplicas"]);
        if available > integer(&status["readyReplicas"]) {
            let message = "cannot be greater than status.readyReplicas";
            errors.push(Error::invalid(&path.child("availableReplicas"), available, message));
        }
        errors.extend(workload::collisions_only_grow(object, old));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let mut warnings = Vec::new();
        if old.is_none_or(|old| object["metadata"]["generation"] != old["metadata"]["generation"]) {
            warnings.extend(template_warnings(&spec["template"], &path.child("template")));
        }
        if integer(&spec["revisionHistoryLimit"]) < 0 {
            let at = path.child("revisionHistoryLimit");
            warnings
                .push(format!("{at}: a negative value retains all historical revisions; a value >= 0 is recommended"));
        }
        warnings
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        vec![
            name_cell(object),
            format!("{}/{}", integer(&status["readyReplicas"]), integer(&spec["replicas"])).into(),
            age_cell(object, now),
            containers_cell(&spec["template"], "name"),
            containers_cell(&spec["template"], "image"),
        ]
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        name_is_dns_label(name, prefix)
    }
}

/// `ValidateStatefulSetSpec`
fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("podManagementPolicy");
    match text(&spec["podManagementPolicy"]) {
        "OrderedReady" | "Parallel" => {}
        "" => errors.push(Error::required(&at, "")),
        other => errors.push(Error::invalid(&at, other, "must be 'OrderedReady' or 'Parallel'")),
    }
    errors.extend(validate_strategy(&spec["updateStrategy"], &path.child("updateStrategy")));
    let at = path.child("persistentVolumeClaimRetentionPolicy");
    for (field, policy) in crate::kinds::tree::entries(&spec["persistentVolumeClaimRetentionPolicy"]) {
        if !["Retain", "Delete"].contains(&text(policy)) {
            errors.push(Error::not_supported(&at.child(field), policy.clone(), &["Retain", "Delete"]));
        }
    }
    for (index, claim) in items(&spec["volumeClaimTemplates"]).iter().enumerate() {
        let at = path.child("volumeClaimTemplates").index(index).child("spec");
        errors.extend(validate_claim_spec(&claim["spec"], &at));
    }
    errors.extend(workload::not_negative(spec, "replicas"));
    errors.extend(workload::not_negative(spec, "minReadySeconds"));
    if let Some(start) = spec["ordinals"]["start"].as_i64().filter(|start| *start < 0) {
        errors.push(Error::invalid(&path.child("ordinals.start"), start, "must be greater than or equal to 0"));
    }
    let service = text(&spec["serviceName"]);
    if !service.is_empty() {
        let at = path.child("serviceName");
        errors.extend(is_dns1123_label(service).into_iter().map(|message| Error::invalid(&at, service, message)));
    }
    errors.extend(validate_selector_and_template(spec, path));
    errors.extend(workload::validate_endless(&spec["template"], "StatefulSet", &path.child("template")));
    errors
}

fn validate_selector_and_template(spec: &Value, path: &Path) -> ErrorList {
    let (selector, template) = (&spec["selector"], &spec["template"]);
    let mut errors = ErrorList::new();
    if selector.is_null() {
        errors.push(Error::required(&path.child("selector"), ""));
    } else {
        errors.extend(validate_label_selector(selector, &path.child("selector")));
        if workload::is_empty_selector(selector) {
            let message = "empty selector is invalid for statefulset";
            errors.push(Error::invalid(&path.child("selector"), selector.clone(), message));
        }
    }
    match LabelSelector::from_object(selector) {
        Err(_) => errors.push(Error::invalid(&path.child("selector"), selector.clone(), "")),
        Ok(parsed) => {
            let labels = &template["metadata"]["labels"];
            if !parsed.is_everything() && !parsed.matches_object(labels) {
                let at = path.child("template").child("metadata").child("labels");
                errors.push(Error::invalid(&at, labels.clone(), "`selector` does not match template `labels`"));
            }
            errors.extend(validate_pod_template(&as_run(spec), &path.child("template")));
        }
    }
    errors
}

/// The template as the controller will run it: hostname and subdomain are its own, and each claim template is a volume.
fn as_run(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    remove(&mut template["spec"], "subdomain");
    remove(&mut template["spec"], "hostname");
    let claims: Vec<&str> =
        items(&spec["volumeClaimTemplates"]).iter().map(|claim| text(&claim["metadata"]["name"])).collect();
    if !claims.is_empty() {
        let claimed = claims.iter().map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
        let others = items(&spec["template"]["spec"]["volumes"]).iter();
        let others = others.filter(|volume| !claims.contains(&text(&volume["name"]))).cloned();
        template["spec"]["volumes"] = claimed.chain(others).collect();
    }
    template
}

fn validate_strategy(strategy: &Value, path: &Path) -> ErrorList {
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match text(&strategy["type"]) {
        "" => vec![Error::required(path, "")],
        "OnDelete" if !rolling.is_null() => {
            vec![Error::invalid(&at, rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'")]
        }
        "OnDelete" => ErrorList::new(),
        "RollingUpdate" => {
            let mut errors = ErrorList::new();
            if let Some(partition) = rolling["partition"].as_i64().filter(|partition| *partition < 0) {
                let message = "must be greater than or equal to 0";
                errors.push(Error::invalid(&at.child("partition"), partition, message));
            }
            let unavailable = &rolling["maxUnavailable"];
            if !unavailable.is_null() {
                let at = at.child("maxUnavailable");
                errors.extend(workload::int_or_percent(unavailable, &at));
                if workload::is_zero(unavailable) {
                    errors.push(Error::invalid(&at, unavailable.clone(), "cannot be 0"));
                }
                errors.extend(workload::at_most_all(unavailable, &at));
            }
            errors
        }
        _ => vec![Error::invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let mut object = json!({
            "metadata": {"name": "a"},
            "spec": {
                "serviceName": "a",
                "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
                    {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
                ]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                }}],
            },
        });
        StatefulSet.default(&mut object);
        object
    }

    #[test]
    fn mistakes_are_named() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"spec": {"podManagementPolicy": "Chaos"}}),
                vec!["spec.podManagementPolicy: Invalid value: \"Chaos\": must be 'OrderedReady' or 'Parallel'"],
            ),
            (
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": -1, "maxUnavailable": 0}}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
                ],
            ),
            (
                json!({"spec": {"selector": {"matchLabels": null}}}),
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
            ),
        ] {
            assert_eq!(messages(&StatefulSet.validate_create(&mutated(&base(), &mutation))), expected, "{mutation}");
        }
    }

    #[test]
    fn what_pods_are_named_after_stays() {
        let object = mutated(&base(), &json!({"spec": {"serviceName": "b", "replicas": 5}}));
        assert_eq!(
            messages(&StatefulSet.validate_update(&object, &base())),
            ["spec.serviceName: Invalid value: \"b\": field is immutable"]
        );
        assert_eq!(StatefulSet.row(&object, NOW)[..2], [json!("a"), json!("0/5")]);
    }
}
