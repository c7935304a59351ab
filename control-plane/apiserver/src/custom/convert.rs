//! Conversion of custom objects by their definition's webhook (k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go).
//!
//! What a webhook makes of a stored object is kept beside it in the form of a stored one, so that answers, tables and watches need not know.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skep_api::custom::Custom;
use skep_api::kinds::Kind;
use skep_api::{GroupVersion, Reason, Status};

use crate::object::{self, Object, Shared};
use crate::rest::{Answer, Engine, Payload, is_as_stored};
use crate::webhook_client::ClientConfig;

/// How long a webhook may take; upstream's default.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Engine {
    /// An answer in the version that was asked for, as far as a webhook has to make it.
    ///
    /// # Errors
    /// 500 when the webhook fails.
    pub(crate) async fn present(self: &Arc<Self>, kind: &Arc<Kind>, mut answer: Answer) -> Result<Answer, Status> {
        if kind.custom.as_ref().is_none_or(|custom| custom.webhook.is_none()) {
            return Ok(answer);
        }
        match &mut answer.payload {
            Payload::Object(object) => {
                let mut made = self.in_version(kind, vec![object.clone()]).await?;
                *object = made.remove(0);
            }
            Payload::List(page) => page.objects = self.in_version(kind, std::mem::take(&mut page.objects)).await?,
            Payload::Watch(watch) => watch.convert_by(self.clone()),
            Payload::Value(_) => {}
        }
        Ok(answer)
    }

    /// Objects as a version has them; those that a webhook has to convert go to it in one call.
    ///
    /// # Errors
    /// 500 when the webhook fails.
    pub(crate) async fn in_version(&self, kind: &Arc<Kind>, mut objects: Vec<Shared>) -> Result<Vec<Shared>, Status> {
        let Some(custom) = kind.custom.as_ref().filter(|custom| custom.webhook.is_some()) else { return Ok(objects) };
        let wanted = kind.group_version.to_string();
        let mut at = Vec::new();
        let mut others = Vec::new();
        for (index, object) in objects.iter().enumerate().filter(|(_, object)| !is_as_stored(kind, object)) {
            let value = object.to_value();
            if value["apiVersion"] != *wanted {
                at.push(index);
                others.push(value);
            }
        }
        for (index, mut value) in at.into_iter().zip(self.convert(kind, custom, others, &kind.group_version).await?) {
            custom.conform(&mut value, &kind.group_version);
            let there = &objects[index];
            let made = Object::from_parts(there.key.clone(), object::encode(kind, &value), there.revision);
            objects[index] = Arc::new(made.map_err(Status::internal)?);
        }
        Ok(objects)
    }

    /// Objects converted to a version.
    ///
    /// # Errors
    /// 500 in upstream's words.
    pub(crate) async fn convert(
        &self,
        kind: &Kind,
        custom: &Custom,
        objects: Vec<Value>,
        to: &GroupVersion,
    ) -> Result<Vec<Value>, Status> {
        let Some(webhook) = custom.webhook.as_ref().filter(|_| !objects.is_empty()) else { return Ok(objects) };
        let from = objects[0]["apiVersion"].as_str().unwrap_or_default();
        let what = format!("conversion webhook for {from}, Kind={}", kind.kind);
        let failed = |why: String| Status::new(500, Reason::Unknown, format!("{what} {why}"));
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let version = versions.into_iter().find(|version| matches!(*version, "v1" | "v1beta1")).unwrap_or("v1");
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": format!("apiextensions.k8s.io/{version}"), "kind": "ConversionReview",
            "request": { "uid": uid, "desiredAPIVersion": to.to_string(), "objects": objects },
        });
        let config =
            ClientConfig::from_value(&webhook["clientConfig"]).map_err(|why| failed(format!("failed: {why}")))?;
        let answer = self.webhooks.post(&config, review.to_string().into(), TIMEOUT).await;
        let answer = answer.map_err(|error| failed(format!("failed: {error}")))?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(format!("failed: {error}")))?;
        let response = &answer["response"];
        if response["uid"] != *uid {
            return Err(failed("returned response.uid that is not the request's".to_owned()));
        }
        if response["result"]["status"] != "Success" {
            let why = response["result"]["message"].as_str().unwrap_or("unknown reason");
            return Err(failed(format!("failed: {why}")));
        }
        let made = response["convertedObjects"].as_array().cloned().unwrap_or_default();
        if made.len() != objects.len() {
            return Err(failed(format!("returned {} objects, expected {}", made.len(), objects.len())));
        }
        let mut out = Vec::with_capacity(made.len());
        for (index, (mut new, old)) in made.into_iter().zip(objects).enumerate() {
            if new["apiVersion"] != *to.to_string() || new["kind"] != old["kind"] {
                return Err(failed(format!("returned invalid converted object at index {index}: invalid type")));
            }
            // A webhook may change labels and annotations, and nothing else of metadata.
            let mut metadata = old["metadata"].clone();
            for field in ["labels", "annotations"] {
                match new["metadata"].get(field) {
                    Some(value) => metadata[field] = value.clone(),
                    None => {
                        metadata.as_object_mut().map(|metadata| metadata.remove(field));
                    }
                }
            }
            new["metadata"] = metadata;
            out.push(new);
        }
        Ok(out)
    }
}
