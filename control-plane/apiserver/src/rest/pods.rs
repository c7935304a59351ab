//! The subresources of pods that are written: binding and eviction. And the token of a service account.

use serde_json::{Value, json};
use skep_api::Status;
use skep_api::decode::{Media, decode_type};
use skep_api::gvk::{GroupKind, Name};
use skep_api::kinds::Subresource;
use skep_api::kinds::core::pod;

use super::owners::Ownership;
use super::{Answer, Call, DeleteOptions, Engine, Payload, metadata, served};
use crate::admission::dynamic::Notes;
use crate::auth::token::Tokens;

impl Engine {
    /// `create` of a Binding: the scheduler's decision. A pod is bound once (upstream's BindingREST.assignPod).
    ///
    /// # Errors
    /// 400, 404, 409 when the pod is bound or being deleted already.
    pub async fn bind(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<Answer, Status> {
        let binding = read(body, media, "Binding", "io.k8s.api.core.v1.Binding")?;
        let errors = pod::validate_binding(&binding);
        if !errors.is_empty() {
            let kind = GroupKind { group: Name::Borrowed(""), kind: Name::Borrowed("Binding") };
            return Err(Status::invalid(&kind, call.name, &errors));
        }
        let call = &Call { subresource: Some(Subresource::Binding), ..*call };
        let mut notes = Notes::default();
        let binding = self.admit_subresource(call, binding, ("", "v1", "Binding"), &mut notes).await?;
        let uid = metadata::text(&binding, "uid").to_owned();
        let resource = call.kind.group_resource();
        let now = super::rfc3339(call.now);
        // Nobody owns where a pod runs, as upstream has it.
        self.change_owned(call, false, Ownership::Kept, |old| {
            let own = metadata::text(old, "uid");
            if !uid.is_empty() && uid != own {
                let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}");
                return Err(Status::conflict(&resource, call.name, &why));
            }
            let mut pod = old.clone();
            pod::bind(&mut pod, &binding, &now).map_err(|why| Status::conflict(&resource, call.name, &why))?;
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
        let errors = pod::validate_eviction(&eviction);
        if !errors.is_empty() {
            let kind = GroupKind { group: Name::Borrowed("policy"), kind: Name::Borrowed("Eviction") };
            return Err(Status::invalid(&kind, call.name, &errors));
        }
        let named = metadata::text(&eviction, "name");
        if !named.is_empty() && named != call.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut notes = Notes::default();
        let eviction = self.admit_subresource(call, eviction, ("policy", "v1", "Eviction"), &mut notes).await?;
        let options: DeleteOptions = match &eviction["deleteOptions"] {
            Value::Null => DeleteOptions::default(),
            options => {
                serde_json::from_value(options.clone()).map_err(|error| Status::bad_request(error.to_string()))?
            }
        };
        let call = &Call { subresource: None, ..*call };
        let pod = served(call.kind, &*self.newest(call).await?);
        self.take_disruption(call, &pod).await?;
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
        crate::admission::admit_token(call.user, call.namespace, call.name, &request, &*self.cache)?;
        let mut notes = Notes::default();
        let kind = ("authentication.k8s.io", "v1", "TokenRequest");
        let request = self.admit_subresource(call, request, kind, &mut notes).await?;
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

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}
