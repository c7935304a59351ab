//! The subresources of pods that are written: binding and eviction. And the token of a service account.

use serde_json::{Value, json};
use skep_api::Status;
use skep_api::decode::{Media, decode_type};

use super::{Answer, Call, DeleteOptions, Engine, Payload, metadata, served};
use crate::auth::token::Tokens;

impl Engine {
    /// `create` of a Binding: the scheduler's decision. A pod is bound once (upstream's BindingREST.assignPod).
    ///
    /// # Errors
    /// 400, 404, 409 when the pod is bound or being deleted already.
    pub async fn bind(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<Answer, Status> {
        let binding = read(body, media, "Binding", "io.k8s.api.core.v1.Binding")?;
        let kind = binding["target"]["kind"].as_str().unwrap_or_default();
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        if !kind.is_empty() && kind != "Node" {
            return Err(invalid_binding(
                call,
                "target.kind",
                &json!(kind),
                "Unsupported value",
                "supported values: \"Node\", \"<empty>\"",
            ));
        }
        if node.is_empty() {
            return Err(invalid_binding(call, "target.name", &Value::Null, "Required value", ""));
        }
        let uid = metadata::text(&binding, "uid").to_owned();
        let resource = call.kind.group_resource();
        let bound = super::rfc3339(call.now);
        let call = &Call { subresource: Some(skep_api::kinds::Subresource::Binding), ..*call };
        self.change(call, false, |pod| {
            if !uid.is_empty() && uid != metadata::text(pod, "uid") {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    metadata::text(pod, "uid")
                );
                return Err(Status::conflict(&resource, call.name, &why));
            }
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                let why = format!("pod {} is being deleted, cannot be assigned to a host", call.name);
                return Err(Status::conflict(&resource, call.name, &why));
            }
            if let Some(there) = pod["spec"]["nodeName"].as_str().filter(|there| !there.is_empty()) {
                let why = format!("pod {} is already assigned to node \"{there}\"", call.name);
                return Err(Status::conflict(&resource, call.name, &why));
            }
            if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
                let why = format!("pod {} has non-empty .spec.schedulingGates", call.name);
                return Err(Status::conflict(&resource, call.name, &why));
            }
            let mut pod = pod.clone();
            pod["spec"]["nodeName"] = node.into();
            for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
                pod["metadata"]["annotations"][key] = value.clone();
            }
            scheduled(&mut pod, &bound);
            metadata::of(&mut pod).remove("resourceVersion");
            Ok((pod, Vec::new()))
        })
        .await?;
        Ok(Answer::with(201, Payload::Value(success()), Vec::new()))
    }

    /// `create` of an Eviction: a delete that a PodDisruptionBudget may refuse.
    ///
    /// # Errors
    /// 400, 404, 409; 429 when a budget says no.
    pub async fn evict(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<Answer, Status> {
        let eviction = read(body, media, "Eviction", "io.k8s.api.policy.v1.Eviction")?;
        let named = metadata::text(&eviction, "name");
        if !named.is_empty() && named != call.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let options: DeleteOptions = match &eviction["deleteOptions"] {
            Value::Null => DeleteOptions::default(),
            options => {
                serde_json::from_value(options.clone()).map_err(|error| Status::bad_request(error.to_string()))?
            }
        };
        let call = &Call { subresource: None, ..*call };
        self.delete(call, &options).await?;
        Ok(Answer::with(201, Payload::Value(success()), Vec::new()))
    }

    /// `create` of a TokenRequest for a service account.
    ///
    /// # Errors
    /// 400, 404, 422, and those of the bound object.
    pub async fn token(&self, call: &Call<'_>, body: &[u8], media: Media, tokens: &Tokens) -> Result<Answer, Status> {
        let request = read(body, media, "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest")?;
        let account = served(call.kind, &*self.newest(call).await?);
        let answer = tokens.request(&account, request, &*self.cache, call.now)?;
        Ok(Answer::with(201, Payload::Value(answer), Vec::new()))
    }
}

/// Reads the body of a subresource, and refuses another kind.
fn read(body: &[u8], media: Media, kind: &str, schema: &str) -> Result<Value, Status> {
    let value = decode_type(body, media, schema)?;
    match value["kind"].as_str() {
        Some(given) if given != kind => Err(Status::bad_request(format!(
            "{given} in version {} cannot be handled as a {kind}",
            value["apiVersion"]
        ))),
        _ => Ok(value),
    }
}

/// Sets the condition that says that a pod has a node.
fn scheduled(pod: &mut Value, now: &str) {
    let condition =
        json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    match pod["status"]["conditions"].as_array_mut() {
        Some(conditions) => {
            conditions.retain(|there| there["type"] != "PodScheduled");
            conditions.push(condition);
        }
        None => pod["status"]["conditions"] = json!([condition]),
    }
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}

fn invalid_binding(call: &Call<'_>, field: &str, value: &Value, what: &str, detail: &str) -> Status {
    let mut message = format!("Binding \"{}\" is invalid: {field}: {what}", call.name);
    if !value.is_null() {
        message.push_str(&format!(": {value}"));
    }
    if !detail.is_empty() {
        message.push_str(&format!(": {detail}"));
    }
    Status::new(422, skep_api::Reason::Invalid, message)
}
