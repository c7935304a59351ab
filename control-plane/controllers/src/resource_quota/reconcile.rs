//! What a quota's status says. Pure.
//!
//! Follows `syncResourceQuota` in `resource_quota_controller.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use skep_api::quantity::Quantity;
use skep_api::quota::Usage;

/// What a quota limits or what is used of it, as the API has it.
type List = BTreeMap<String, Text>;

/// The status after counting; `None` if the quota says that already. What could not be counted stays as it was.
pub(super) fn status(quota: &ResourceQuota, counted: &Usage) -> Option<ResourceQuotaStatus> {
    let hard = hard(quota);
    let old = quota.status.clone().unwrap_or_default();
    let mut used = old.used.clone().unwrap_or_default();
    used.extend(counted.iter().map(|(name, amount)| (name.clone(), Text(amount.to_string()))));
    used.retain(|name, _| hard.contains_key(name));
    let is_as_was = |old: Option<&List>, new: &List| old.is_some_and(|old| same(old, new));
    if is_as_was(old.hard.as_ref(), &hard) && is_as_was(old.used.as_ref(), &used) {
        return None;
    }
    Some(ResourceQuotaStatus { hard: Some(hard), used: Some(used) })
}

/// What the quota limits.
pub(super) fn hard(quota: &ResourceQuota) -> List {
    quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default()
}

/// Whether two lists have the same amounts, however they are written.
pub(super) fn same(a: &List, b: &List) -> bool {
    let amount = |text: &Text| text.0.parse::<Quantity>().ok();
    a.len() == b.len() && a.iter().all(|(name, own)| b.get(name).is_some_and(|other| amount(own) == amount(other)))
}
