//! DeviceTaintRule (KEP-5055): an administrator's taint on the devices that a selector picks.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::age::age;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::persistent_volume::validate_driver_name;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy, Subresource, WriteContext};
use crate::kinds::fields::{conditions, form};
use crate::kinds::resource::validate_pool_name;
use crate::kinds::tree::{fill, items, text};
use crate::names::{is_dns1123_label, is_label_value, is_qualified_name};

/// `resource.k8s.io/v1 DeviceTaintRule`
#[must_use]
pub fn device_taint_rule() -> Kind {
    Kind {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        unconditional_update: false,
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Key", "string", "The taint's key."),
            Column::new("Value", "string", "The taint's value."),
            Column::new("Effect", "string", "What the taint does to claims that don't tolerate it."),
            Column::new("TimeAdded", "string", "How long ago the taint came, or last changed its effect."),
            Column::age(),
        ],
        ..Kind::new(
            GroupVersion::new("resource.k8s.io", "v1"),
            "DeviceTaintRule",
            "devicetaintrules",
            "io.k8s.api.resource.v1.DeviceTaintRule",
            Rule,
        )
    }
}

/// `SetDefaults_DeviceTaint`: a taint without a time was added now.
pub(in crate::kinds) fn stamp(taint: &mut Value, now: &str) {
    if taint.is_object() {
        fill(taint, "timeAdded", now);
    }
}

struct Rule;

impl Strategy for Rule {
    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        object["status"] = json!({});
        stamp(&mut object["spec"]["taint"], context.now);
    }

    /// A new effect counts from now, unless the writer says since when.
    fn prepare_update(&self, object: &mut Value, old: &Value, context: &WriteContext<'_>) {
        let was = &old["spec"]["taint"];
        let taint = &mut object["spec"]["taint"];
        stamp(taint, context.now);
        if taint.is_object() && taint["effect"] != was["effect"] && taint["timeAdded"] == was["timeAdded"] {
            taint["timeAdded"] = context.now.into();
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate(&object["spec"], None)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate(&object["spec"], Some(text(&old["spec"]["taint"]["effect"])))
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        const MOST_CONDITIONS: usize = 8;
        let (all, path) = (&object["status"]["conditions"], Path::new("status").child("conditions"));
        let mut errors = conditions(all, &path);
        if items(all).len() > MOST_CONDITIONS {
            errors.push(Error::too_many(&path, items(all).len(), MOST_CONDITIONS));
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let taint = &object["spec"]["taint"];
        let added = taint["timeAdded"].as_str().map_or_else(String::new, |added| age(Some(added), now));
        vec![
            name_cell(object),
            text(&taint["key"]).into(),
            text(&taint["value"]).into(),
            text(&taint["effect"]).into(),
            added.into(),
            age_cell(object, now),
        ]
    }
}

/// `validateDeviceTaintRuleSpec`; an effect that stays what it was is not judged again.
fn validate(spec: &Value, effect_was: Option<&str>) -> ErrorList {
    const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
    let (selector, at) = (&spec["deviceSelector"], Path::new("spec").child("deviceSelector"));
    let mut errors = ErrorList::new();
    if let Some(driver) = selector["driver"].as_str() {
        errors.extend(validate_driver_name(driver, &at.child("driver")));
    }
    if let Some(pool) = selector["pool"].as_str() {
        errors.extend(validate_pool_name(pool, &at.child("pool")));
    }
    if let Some(device) = selector["device"].as_str() {
        errors.extend(form(device, &at.child("device"), is_dns1123_label));
    }
    let (taint, at) = (&spec["taint"], Path::new("spec").child("taint"));
    errors.extend(form(text(&taint["key"]), &at.child("key"), is_qualified_name));
    errors.extend(form(text(&taint["value"]), &at.child("value"), is_label_value));
    let effect = text(&taint["effect"]);
    if effect_was != Some(effect) {
        if effect.is_empty() {
            errors.push(Error::required(&at.child("effect"), ""));
        } else if !EFFECTS.contains(&effect) {
            errors.push(Error::not_supported(&at.child("effect"), effect, &EFFECTS));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        json!({"metadata": {"name": "r"}, "spec": {
            "deviceSelector": {"driver": "d.example.com", "pool": "n/p"},
            "taint": {"key": "example.com/broken", "effect": "NoSchedule"},
        }})
    }

    #[test]
    fn a_taint_has_a_key_and_an_effect() {
        assert_eq!(messages(&Rule.validate_create(&base())), Vec::<String>::new());
        let wrong = mutated(&base(), &json!({"spec": {"taint": {"effect": "Never"}}}));
        assert_eq!(
            messages(&Rule.validate_create(&wrong)),
            [
                "spec.taint.effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
            ]
        );
        assert_eq!(messages(&Rule.validate_update(&wrong, &wrong)), Vec::<String>::new());
    }

    #[test]
    fn the_time_is_that_of_the_effect() {
        let mut object = base();
        Rule.prepare_create(&mut object, &WriteContext { now: "2026-11-24T08:00:00Z", user: "ann" });
        assert_eq!(object["spec"]["taint"]["timeAdded"], "2026-11-24T08:00:00Z");
        assert_eq!(Rule.row(&object, NOW)[4], "60m");
        let context = WriteContext { now: "2026-11-24T08:30:00Z", user: "ann" };
        let mut same = object.clone();
        Rule.prepare_update(&mut same, &object, &context);
        assert_eq!(same, object);
        let mut other = mutated(&object, &json!({"spec": {"taint": {"effect": "NoExecute"}}}));
        Rule.prepare_update(&mut other, &object, &context);
        assert_eq!(other["spec"]["taint"]["timeAdded"], "2026-11-24T08:30:00Z");
    }
}
