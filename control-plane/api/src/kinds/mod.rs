//! The table of built-in kinds. A kind is a declaration ([`Kind`]) and up to five pure functions ([`Strategy`]); everything else of the
//! API server is written once and reads these. Adding a built-in kind is one file here and a row in [`builtin`].
//!
//! Messages, defaults and table cells are those of upstream 1.37: `pkg/apis/*/validation`, `pkg/apis/*/*/defaults.go`,
//! `pkg/registry/*/*/strategy.go` and `pkg/printers/internalversion/printers.go`.

pub mod admission_registration;
pub mod age;
pub mod apiextensions;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
mod cells;
pub mod certificates;
pub mod coordination;
pub mod core;
mod declaration;
pub mod device_taint;
pub mod discovery;
pub mod events;
mod fields;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod storage;
pub mod storage_migration;
#[cfg(test)]
mod testing;
mod tree;

pub use declaration::{Column, Conversion, Kind, ScalePaths, Scope, Strategy, Subresource, Verb, WriteContext};

use crate::gvk::Name;

/// Every built-in kind, once a served version.
#[must_use]
pub fn builtin() -> Vec<Kind> {
    vec![
        admission_registration::mutating_admission_policy(),
        admission_registration::mutating_admission_policy_binding(),
        admission_registration::mutating_webhook_configuration(),
        admission_registration::validating_admission_policy(),
        admission_registration::validating_admission_policy_binding(),
        admission_registration::validating_webhook_configuration(),
        core::component_status::kind(),
        core::config_map::kind(),
        core::endpoints::kind(),
        core::event::kind(),
        core::limit_range::kind(),
        core::namespace::kind(),
        core::node::kind(),
        core::persistent_volume::kind(),
        core::persistent_volume_claim::kind(),
        core::pod::kind(),
        core::pod_template::kind(),
        core::replication_controller::kind(),
        core::resource_quota::kind(),
        core::secret::kind(),
        core::service::kind(),
        core::service_account::kind(),
        apps::controller_revision::kind(),
        apps::daemon_set::kind(),
        apps::deployment::kind(),
        apps::replica_set::kind(),
        apps::stateful_set::kind(),
        apiextensions::kind(),
        authentication::self_subject_review(),
        authentication::token_review(),
        authorization::local_subject_access_review(),
        authorization::self_subject_access_review(),
        authorization::self_subject_rules_review(),
        authorization::subject_access_review(),
        autoscaling::v1::horizontal_pod_autoscaler(),
        autoscaling::v2::horizontal_pod_autoscaler(),
        batch::cron_job::kind(),
        batch::job::kind(),
        certificates::pod_request::pod_certificate_request(),
        certificates::signing_request::certificate_signing_request(),
        certificates::trust_bundle::cluster_trust_bundle(),
        coordination::lease(),
        discovery::kind(),
        events::kind(),
        flowcontrol::flow_schema(),
        flowcontrol::priority_level_configuration(),
        networking::ingress::ingress(),
        networking::ingress::ingress_class(),
        networking::network_policy::network_policy(),
        networking::service_addresses::ip_address(),
        networking::service_addresses::service_cidr(),
        node::runtime_class(),
        policy::pod_disruption_budget(),
        rbac::role::cluster_role(),
        rbac::role::role(),
        rbac::binding::cluster_role_binding(),
        rbac::binding::role_binding(),
        device_taint::device_taint_rule(),
        resource::device_class(),
        resource::resource_claim(),
        resource::resource_claim_template(),
        resource::resource_slice(),
        scheduling::priority_class(),
        storage::attachment::volume_attachment(),
        storage::class::storage_class(),
        storage::class::volume_attributes_class(),
        storage::driver::csi_driver(),
        storage::driver::csi_node(),
        storage::driver::csi_storage_capacity(),
        storage_migration::storage_version_migration(),
    ]
}

/// A list of names known at compile time.
fn names(list: &[&'static str]) -> Vec<Name> {
    list.iter().map(|name| Name::Borrowed(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_table_has_a_cell_for_each_column_and_a_value_for_each_selector() {
        for kind in builtin() {
            let what = format!("{} {}", kind.group_version, kind.kind);
            assert_eq!(kind.strategy.row(&json!({}), testing::NOW).len(), kind.columns.len(), "{what}");
            assert_eq!(kind.strategy.selectable(&json!({})).len(), kind.selectable.len(), "{what}");
            assert_eq!(kind.scale.is_some(), kind.has(Subresource::Scale), "{what}");
        }
    }

    #[test]
    fn rules_stand_objects_that_have_nothing_in_them() {
        let context = WriteContext { now: "2026-11-24T09:00:00Z", user: "ann" };
        for empty in
            [json!({}), json!({"metadata": null, "spec": null, "status": null}), json!({"spec": {}, "status": {}})]
        {
            for kind in builtin() {
                let mut object: Value = empty.clone();
                kind.strategy.default(&mut object);
                kind.strategy.prepare_create(&mut object, &context);
                let _ = kind.strategy.validate_create(&object);
                kind.strategy.prepare_update(&mut object, &empty, &context);
                let _ = kind.strategy.validate_update(&object, &empty);
                kind.strategy.prepare_status_update(&mut object, &empty, &context);
                let _ = kind.strategy.validate_status_update(&object, &empty);
                let _ = kind.strategy.validate_status_time(&object, &empty, &context);
                let _ = kind.strategy.warnings(&object, Some(&empty));
            }
        }
    }
}
