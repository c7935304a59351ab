//! What PodDisruptionBudgets say to an eviction: the budget's allowance is taken down in its status before the pod is deleted
//! (upstream's pkg/registry/core/pod/storage/eviction.go).

use serde_json::{Value, json};
use skep_api::kinds::Subresource;
use skep_api::selector::LabelSelector;
use skep_api::status::Cause;
use skep_api::{GroupResource, Status};

use super::owners::Ownership;
use super::{Call, Engine, Query};
use crate::admission::Objects as _;
use crate::auth::User;

/// How many evictions may wait for the budget's controller to see them.
const MOST_UNCONFIRMED: usize = 2000;
const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

impl Engine {
    /// Takes an eviction of `pod` from the allowance of the budget that covers it, if one does.
    ///
    /// # Errors
    /// 429 when the budget allows none now, 500 when more than one covers the pod.
    pub(super) async fn take_disruption(&self, call: &Call<'_>, pod: &Value) -> Result<(), Status> {
        let budgets = GroupResource::new("policy", "poddisruptionbudgets");
        if !is_counted(pod) {
            return Ok(());
        }
        self.cache.wait_for_latest(&budgets).await?;
        let labels = &pod["metadata"]["labels"];
        let mut covering = self.cache.list(&budgets, Some(call.namespace));
        covering.retain(|budget| {
            LabelSelector::from_object(&budget["spec"]["selector"])
                .is_ok_and(|selector| selector.matches_object(labels))
        });
        let budget = match &covering[..] {
            [] => return Ok(()),
            [budget] => budget,
            _ => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::internal(why));
            }
        };
        if !is_ready(pod) && may_go_unready(budget) {
            return Ok(());
        }
        let name = budget["metadata"]["name"].as_str().unwrap_or_default();
        let table = self.registry.table();
        let kind = table.get("policy", "v1", "poddisruptionbudgets").ok_or_else(Status::no_such_path)?;
        let user = User::system("system:apiserver");
        let query = Query { dry_run: call.query.dry_run, ..Query::default() };
        let subresource = Some(Subresource::Status);
        let write =
            Call { kind, user: &user, namespace: call.namespace, name, subresource, query: &query, now: call.now };
        let now = super::rfc3339(call.now);
        self.change_owned(&write, false, Ownership::Kept, |old| {
            let mut budget = take_one(old, call, &now)?;
            super::metadata::of(&mut budget).remove("resourceVersion");
            Ok((budget, Vec::new()))
        })
        .await?;
        Ok(())
    }
}

/// Pods that don't run, or are going already, are nobody's loss.
fn is_counted(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether pods that are not ready may go without being counted.
fn may_go_unready(budget: &Value) -> bool {
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0
}

/// The budget with one disruption less.
fn take_one(old: &Value, call: &Call<'_>, now: &str) -> Result<Value, Status> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let count = |value: &Value| value.as_i64().unwrap_or_default();
    let status = &old["status"];
    let refused = |why: String, retry: u32| {
        let mut refused = Status::too_many_requests(VIOLATION, retry);
        let details = refused.details.get_or_insert_default();
        details.causes.push(Cause { reason: "DisruptionBudget".to_owned(), message: why, field: String::new() });
        refused
    };
    if count(&status["observedGeneration"]) < count(&old["metadata"]["generation"]) {
        return Err(refused(format!("The disruption budget {name} is still being processed by the server."), 10));
    }
    let forbidden = |why: &str| Status::forbidden(&GroupResource::new("policy", "poddisruptionbudgets"), name, why);
    let allowed = count(&status["disruptionsAllowed"]);
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_UNCONFIRMED) {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count(&status["desiredHealthy"]),
            count(&status["currentHealthy"])
        );
        return Err(refused(why, 0));
    }
    let mut budget = old.clone();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if allowed == 1 {
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "DisruptionAllowed");
        conditions.push(json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "lastTransitionTime": now, "observedGeneration": status["observedGeneration"],
        }));
        budget["status"]["conditions"] = conditions.into();
    }
    budget["status"]["disruptedPods"][call.name] = now.into();
    Ok(budget)
}
