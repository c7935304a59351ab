//! Admission: what is changed in, or said no to, of a write that authorization has let through. Plug-ins run in upstream's order; webhooks and policies get
//! their place after them.

mod classes;
mod default_tolerations;
pub(crate) mod dynamic;
mod escalation;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_certificates;
pub(crate) mod policies;
mod priority;
mod service_account;
mod signers;
mod taint_nodes;
pub(crate) mod webhooks;

pub(crate) use node_restriction::admit_token;

use std::sync::Arc;

use serde_json::Value;
use skep_api::kinds::{Kind, Subresource};
use skep_api::{GroupResource, Status};

use crate::auth::User;
use crate::auth::authz::Authorizers;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// POST.
    Create,
    /// PUT and PATCH.
    Update,
    /// DELETE.
    Delete,
    /// A stream or a proxied request.
    Connect,
}

impl Operation {
    /// The operation as rules of webhooks and policies name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A write on its way.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The kind in the version asked for.
    pub kind: &'a Kind,
    /// The subresource that is written.
    pub subresource: Option<Subresource>,
    /// What is done.
    pub operation: Operation,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Empty for a create whose name is not made yet.
    pub name: &'a str,
    /// Who writes.
    pub user: &'a User,
    /// What was there.
    pub old: Option<&'a Value>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

impl Request<'_> {
    /// Whether the write is about a resource of the core group itself (no subresource).
    fn is_core(&self, plural: &str) -> bool {
        self.subresource.is_none() && self.kind.group_version.group.is_empty() && self.kind.plural == plural
    }

    fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.kind.group_resource(), self.name, why)
    }
}

/// What plug-ins may read of other objects.
pub trait Objects: Send + Sync {
    /// An object, if it is there.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a resource, in a namespace or in all.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>>;
}

/// A plug-in.
pub trait Plugin: Send + Sync {
    /// Changes an object before it is validated.
    ///
    /// # Errors
    /// When the write is refused.
    fn admit(&self, request: &Request<'_>, object: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        let _ = (request, object, objects);
        Ok(())
    }

    /// Judges an object that has passed validation; for deletes, the object that would go.
    ///
    /// # Errors
    /// When the write is refused.
    fn validate(&self, request: &Request<'_>, object: &Value, objects: &dyn Objects) -> Result<(), Status> {
        let _ = (request, object, objects);
        Ok(())
    }
}

/// The plug-ins in order.
pub struct Chain(Vec<Box<dyn Plugin>>);

impl Chain {
    /// Upstream's default plug-ins, as far as their kinds are served.
    #[must_use]
    pub fn default_plugins(authorizers: Arc<Authorizers>) -> Self {
        Self(vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(service_account::ServiceAccount),
            Box::new(limit_ranger::LimitRanger),
            Box::new(node_restriction::NodeRestriction(authorizers.clone())),
            Box::new(taint_nodes::TaintNodesByCondition),
            Box::new(priority::Priority),
            Box::new(default_tolerations::DefaultTolerationSeconds),
            Box::new(classes::DefaultStorageClass),
            Box::new(classes::DefaultIngressClass),
            Box::new(classes::RuntimeClass),
            Box::new(classes::Requestor),
            Box::new(signers::Signers(authorizers.clone())),
            Box::new(escalation::Escalation(authorizers)),
        ])
    }

    /// Every plug-in's changes.
    ///
    /// # Errors
    /// The first refusal.
    pub fn admit(&self, request: &Request<'_>, object: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        self.0.iter().try_for_each(|plugin| plugin.admit(request, object, objects))
    }

    /// Every plug-in's judgement.
    ///
    /// # Errors
    /// The first refusal.
    pub fn validate(&self, request: &Request<'_>, object: &Value, objects: &dyn Objects) -> Result<(), Status> {
        self.0.iter().try_for_each(|plugin| plugin.validate(request, object, objects))
    }
}

#[cfg(test)]
mod tests;
