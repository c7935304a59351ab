//! Whether a user may: RBAC and the Node authorizer, in one union.

mod node;
mod rbac;

use std::sync::Arc;

use serde_json::Value;
use skep_api::{GroupResource, Status};

pub use node::NodeGraph;
pub use rbac::{Rbac, Rule};

use super::{Attributes, MASTERS, Target, User};

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow {
        /// Which rule says so.
        reason: String,
    },
    /// No, whatever others say.
    Deny {
        /// Why.
        reason: String,
    },
    /// Not that this authorizer knew.
    NoOpinion {
        /// Why not.
        reason: String,
    },
}

impl Decision {
    /// Whether it is a yes.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// Says whether a user may.
pub trait Authorizer: Send + Sync {
    /// Decides on a wish.
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// All rules of a user in a namespace, for `kubectl auth can-i --list`.
    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule>;
}

/// RBAC and the Node authorizer, fed by the watch cache.
#[derive(Default)]
pub struct Authorizers {
    rbac: Rbac,
    nodes: NodeGraph,
}

impl Authorizers {
    /// With no rules yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The resources whose changes must be told by [`Self::apply`].
    #[must_use]
    pub fn observed() -> Vec<GroupResource> {
        let mut observed: Vec<_> =
            rbac::RESOURCES.iter().map(|resource| GroupResource::new(rbac::GROUP, resource)).collect();
        observed.push(GroupResource::new("", "pods"));
        observed
    }

    /// Takes note of a change: the object as it is now, or `None` when it is gone.
    pub fn apply(&self, resource: &GroupResource, namespace: &str, name: &str, object: Option<&Value>) {
        if resource.group.is_empty() {
            self.nodes.apply(namespace, name, object);
        } else {
            self.rbac.apply(&resource.resource, namespace, name, object);
        }
    }

    /// RBAC alone: escalation is about its rules only.
    #[must_use]
    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }
}

impl Authorizer for Authorizers {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        match self.nodes.authorize(attributes) {
            Some(decision @ (Decision::Allow { .. } | Decision::Deny { .. })) => return decision,
            Some(Decision::NoOpinion { reason }) => {
                let rbac = self.rbac.authorize(attributes);
                return match rbac {
                    Decision::NoOpinion { reason: other } if !reason.is_empty() => {
                        let reason = if other.is_empty() { reason } else { format!("{reason}, {other}") };
                        Decision::NoOpinion { reason }
                    }
                    other => other,
                };
            }
            None => {}
        }
        self.rbac.authorize(attributes)
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        if user.is_in(MASTERS) {
            let all = || vec!["*".to_owned()];
            return vec![
                Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() },
                Rule { verbs: all(), urls: all(), ..Rule::default() },
            ];
        }
        self.rbac.rules_of(user, namespace)
    }
}

/// The 403 of a wish that nobody allowed, in upstream's words (responsewriters.ForbiddenStatus).
#[must_use]
pub fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let user = &attributes.user.name;
    let verb = &attributes.verb;
    let with_reason = |text: String| if reason.is_empty() { text } else { format!("{text}: {reason}") };
    match &attributes.target {
        Target::Path(path) => {
            let text = format!("User \"{user}\" cannot {verb} path \"{path}\"");
            Status::forbidden(&GroupResource::new("", ""), "", &with_reason(text))
        }
        Target::Resource { group, resource, subresource, namespace, name, .. } => {
            let full = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
            let mut text = format!("User \"{user}\" cannot {verb} resource \"{full}\" in API group \"{group}\"");
            if namespace.is_empty() {
                text.push_str(" at the cluster scope");
            } else {
                text.push_str(&format!(" in the namespace \"{namespace}\""));
            }
            let resource = GroupResource { group: group.clone().into(), resource: resource.clone().into() };
            Status::forbidden(&resource, name, &with_reason(text))
        }
    }
}

#[cfg(test)]
mod tests;
