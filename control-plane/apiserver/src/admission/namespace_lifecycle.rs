//! NamespaceLifecycle: nothing is created in a namespace that is not there or on its way out, and the system's namespaces stay.

use serde_json::Value;
use skep_api::kinds::Scope;
use skep_api::status::{Cause, Details};
use skep_api::{GroupResource, Status};

use super::{Objects, Operation, Plugin, Request};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn admit(&self, request: &Request<'_>, _object: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        let creates = request.operation == Operation::Create && request.subresource.is_none();
        if !creates || request.kind.scope != Scope::Namespaced || request.kind.verbs == [skep_api::kinds::Verb::Create]
        {
            return Ok(());
        }
        let namespaces = GroupResource::new("", "namespaces");
        let Some(namespace) = objects.get(&namespaces, "", request.namespace) else {
            return Err(Status::not_found(&namespaces, request.namespace));
        };
        if namespace["status"]["phase"] == "Terminating" || !namespace["metadata"]["deletionTimestamp"].is_null() {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                request.namespace
            );
            let mut status = request.forbidden(&why);
            let details: &mut Details = status.details.get_or_insert_default();
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {} is being terminated", request.namespace),
                field: "metadata.namespace".to_owned(),
            });
            return Err(status);
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, _object: &Value, _objects: &dyn Objects) -> Result<(), Status> {
        if request.operation == Operation::Delete && request.is_core("namespaces") && IMMORTAL.contains(&request.name) {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        Ok(())
    }
}
