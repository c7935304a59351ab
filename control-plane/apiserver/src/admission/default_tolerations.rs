//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or can't be reached, unless it says otherwise.

use serde_json::{Value, json};
use skep_api::Status;

use super::{Objects, Operation, Plugin, Request};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn admit(&self, request: &Request<'_>, pod: &mut Value, _objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("pods") {
            return Ok(());
        }
        let tolerations = &mut pod["spec"]["tolerations"];
        for taint in TAINTS {
            let tolerated = tolerations.as_array().into_iter().flatten().any(|toleration| {
                let key = toleration["key"].as_str().unwrap_or_default();
                let effect = toleration["effect"].as_str().unwrap_or_default();
                (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            });
            if tolerated {
                continue;
            }
            let toleration =
                json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS });
            match tolerations.as_array_mut() {
                Some(tolerations) => tolerations.push(toleration),
                None => *tolerations = json!([toleration]),
            }
        }
        Ok(())
    }
}
