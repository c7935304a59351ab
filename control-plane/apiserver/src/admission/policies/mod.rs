//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: rules in CEL that judge and change what is written, put to use by bindings.
//!
//! Invariant: nothing here waits. Policies are compiled when the watch cache sees them, and read from an index that its observers keep.
//! Upstream: k8s.io/apiserver/pkg/admission/plugin/policy.

mod mutate;
mod parameters;
mod policy;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;
use skep_api::cel::admission::{Composed, Inputs};
use skep_api::kinds::Kind;
use skep_api::{GroupResource, Status, cel};

use super::dynamic::{Attributes, UserAuthority};
use super::webhooks::Surroundings;
use policy::{Binding, Policy};

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: GroupResource = GroupResource::new(GROUP, "mutatingadmissionpolicies");
const MUTATING_BINDINGS: GroupResource = GroupResource::new(GROUP, "mutatingadmissionpolicybindings");
const VALIDATING: GroupResource = GroupResource::new(GROUP, "validatingadmissionpolicies");
const VALIDATING_BINDINGS: GroupResource = GroupResource::new(GROUP, "validatingadmissionpolicybindings");

/// The policies of both kinds, and their bindings.
pub(crate) struct Policies {
    mutating: Index,
    validating: Index,
}

impl Policies {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { mutating: Index::default(), validating: Index::default() })
    }

    /// The resources that [`Self::apply`] wants to see.
    pub(crate) fn observed() -> [GroupResource; 4] {
        [MUTATING, MUTATING_BINDINGS, VALIDATING, VALIDATING_BINDINGS]
    }

    /// A policy or a binding has changed, or gone.
    pub(crate) fn apply(&self, resource: &GroupResource, name: &str, object: Option<&Value>) {
        let mutating = *resource == MUTATING || *resource == MUTATING_BINDINGS;
        let index = if mutating { &self.mutating } else { &self.validating };
        let mut parts = index.parts.lock();
        if *resource == MUTATING || *resource == VALIDATING {
            match object {
                Some(object) => parts.policies.insert(name.to_owned(), Arc::new(Policy::from_value(name, object))),
                None => parts.policies.remove(name),
            };
        } else {
            match object {
                Some(object) => parts.bindings.insert(name.to_owned(), Arc::new(Binding::from_value(name, object))),
                None => parts.bindings.remove(name),
            };
        }
        index.bound.store(Arc::new(parts.bound()));
    }
}

/// A policy and its bindings. A policy without one has no say.
type Bound = (Arc<Policy>, Vec<Arc<Binding>>);

#[derive(Default)]
struct Index {
    parts: Mutex<Parts>,
    bound: ArcSwap<Vec<Bound>>,
}

#[derive(Default)]
struct Parts {
    policies: BTreeMap<String, Arc<Policy>>,
    bindings: BTreeMap<String, Arc<Binding>>,
}

impl Parts {
    fn bound(&self) -> Vec<Bound> {
        let bindings_of = |name: &str| -> Vec<Arc<Binding>> {
            self.bindings.values().filter(|binding| binding.policy == name).cloned().collect()
        };
        let bound = self.policies.iter().map(|(name, policy)| (policy.clone(), bindings_of(name)));
        bound.filter(|(_, bindings)| !bindings.is_empty()).collect()
    }
}

/// The variables of a policy's expressions for one request and one set of parameters.
fn compose(
    policy: &Policy,
    attributes: &Attributes<'_>,
    object: &Value,
    kind: &Kind,
    params: Option<&Value>,
    surroundings: &Surroundings<'_>,
) -> Result<Composed, Status> {
    let tree = |object: &Value| cel::from_json(&attributes.converted(object, kind));
    let authority = UserAuthority::new(surroundings.authorizer.clone(), attributes.user);
    let namespace = if attributes.namespace.is_empty() || attributes.is_of_namespaces() {
        cel::Value::Null
    } else {
        let namespaces = GroupResource::new("", "namespaces");
        let namespace = surroundings
            .objects
            .get(&namespaces, "", attributes.namespace)
            .ok_or_else(|| Status::not_found(&namespaces, attributes.namespace))?;
        cel::from_json(&namespace)
    };
    let inputs = Inputs {
        object: tree(object),
        old_object: attributes.old.map_or(cel::Value::Null, tree),
        request: cel::from_json(&Value::Object(attributes.to_request(kind))),
        namespace_object: namespace,
        params: policy.params.is_some().then(|| params.map_or(cel::Value::Null, cel::from_json)),
        authorizer: Some((Arc::new(authority), UserAuthority::request_resource(attributes))),
    };
    Ok(inputs.with_variables(policy.variables.iter().map(|(name, expression)| (name.as_str(), expression))))
}

/// What a refusal by a policy is called.
fn refusal(attributes: &Attributes<'_>, reason: skep_api::Reason, message: &str) -> Status {
    let mut status = Status::forbidden(&attributes.kind.group_resource(), attributes.name, message);
    status.reason = reason;
    status.code = match reason {
        skep_api::Reason::Invalid => 422,
        skep_api::Reason::RequestEntityTooLarge => 413,
        skep_api::Reason::Unauthorized => 401,
        _ => 403,
    };
    let cause = skep_api::status::Cause { reason: String::new(), message: message.to_owned(), field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}
