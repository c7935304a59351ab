//! TaintNodesByCondition: a new node takes no pods until it is known to be ready.

use serde_json::{Value, json};
use skep_api::Status;

use super::{Objects, Operation, Plugin, Request};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn admit(&self, request: &Request<'_>, node: &mut Value, _objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("nodes") {
            return Ok(());
        }
        let taints = &mut node["spec"]["taints"];
        let is_it = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
        let taint = json!({ "key": NOT_READY, "effect": "NoSchedule" });
        match taints.as_array_mut() {
            Some(taints) if taints.iter().any(is_it) => {}
            Some(taints) => taints.push(taint),
            None => *taints = json!([taint]),
        }
        Ok(())
    }
}
