//! Mutating policies change what is written.

use serde_json::Value;
use skep_api::apply::{self, Node};
use skep_api::cel::admission::Composed;
use skep_api::kinds::Kind;
use skep_api::schema::{Schemas, Type};
use skep_api::{Reason, Status, cel, patch};

use super::policy::{Binding, Mutation, Policy};
use super::{Policies, compose, parameters, refusal};
use crate::admission::dynamic::{Attributes, Round};
use crate::admission::webhooks::{Refine, Surroundings};

impl Policies {
    /// Lets the mutating policies change an object. Deletes have none.
    ///
    /// # Errors
    /// The first policy that can't be evaluated and fails closed.
    pub(crate) fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        surroundings: &Surroundings<'_>,
        refine: &Refine<'_>,
        round: &mut Round,
    ) -> Result<(), Status> {
        if object.is_null() {
            return Ok(());
        }
        for (policy, bindings) in self.mutating.bound.load().iter() {
            let failed = |binding: Option<&Binding>, why: &str| failure(policy, binding, attributes, why);
            let matched = policy.criteria.matches(attributes, object, surroundings.objects, surroundings.table);
            let kind = match matched {
                Ok(None) => continue,
                Ok(Some(matched)) => matched.kind,
                Err(status) => {
                    failed(None, &format!("failed to configure policy: {}", status.message))?;
                    continue;
                }
            };
            for binding in bindings {
                let within = binding.criteria.as_ref().map_or(Ok(true), |criteria| {
                    criteria.narrows_to(attributes, object, surroundings.objects, surroundings.table)
                });
                let params = match within {
                    Ok(false) => continue,
                    Ok(true) => parameters::collect(policy, binding, attributes, surroundings),
                    Err(status) => Err(status.message),
                };
                let params = match params {
                    Ok(params) => params,
                    Err(why) => {
                        failed(Some(binding), &format!("failed to configure binding: {why}"))?;
                        continue;
                    }
                };
                for param in params {
                    let named = |field: &str| {
                        param
                            .as_ref()
                            .and_then(|param| param["metadata"][field].as_str())
                            .unwrap_or_default()
                            .to_owned()
                    };
                    let id = format!("{}/{}/{}/{}", policy.name, binding.name, named("namespace"), named("name"));
                    if !round.asks(&id) {
                        continue;
                    }
                    let invocation = Invocation { policy, attributes, kind: &kind, surroundings, refine };
                    match invocation.run(object, param.as_deref()) {
                        Ok(None) => {}
                        Ok(Some(changed)) => round.done(&id, changed, policy.reinvoked),
                        Err(Failure::Status(status)) => return Err(*status),
                        Err(Failure::Policy(why)) => failed(Some(binding), &why)?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// A failure of a policy is one of the request, unless it fails open.
fn failure(policy: &Policy, binding: Option<&Binding>, attributes: &Attributes<'_>, why: &str) -> Result<(), Status> {
    if policy.fails_open {
        return Ok(());
    }
    let with = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
    let message = format!("policy '{}'{with} denied request: {why}", policy.name);
    let mut status = refusal(attributes, Reason::Invalid, &message);
    status.code = 403;
    status.message = message;
    Err(status)
}

enum Failure {
    /// Of the request.
    Status(Box<Status>),
    /// Of the policy.
    Policy(String),
}

struct Invocation<'a> {
    policy: &'a Policy,
    attributes: &'a Attributes<'a>,
    kind: &'a Kind,
    surroundings: &'a Surroundings<'a>,
    refine: &'a Refine<'a>,
}

impl Invocation<'_> {
    /// Runs all mutations; `None` when the policy's conditions do not hold, else whether the object was changed.
    fn run(&self, object: &mut Value, param: Option<&Value>) -> Result<Option<bool>, Failure> {
        if let Some(why) = &self.policy.broken {
            return Err(Failure::Policy(why.clone()));
        }
        let before = object.clone();
        let composed = self.compose(object, param)?;
        if !self.policy.judge_conditions(&composed).map_err(Failure::Policy)? {
            return Ok(None);
        }
        for mutation in &self.policy.mutations {
            // Each sees what those before it made.
            let composed = self.compose(object, param)?;
            let asked = self.attributes.converted(object, self.kind);
            let patched = match mutation {
                Mutation::ApplyConfiguration(expression) => {
                    let configuration = made(&composed, expression)?;
                    merged(self.kind, &asked, &configuration).map_err(Failure::Policy)?
                }
                Mutation::JsonPatch(expression) => {
                    let operations = made(&composed, expression)?;
                    patch::json(&asked, &operations)
                        .map_err(|status| Failure::Policy(format!("JSON Patch: {}", status.message)))?
                }
            };
            let patched = self.attributes.converted_back(patched, self.kind);
            *object = (self.refine)(&patched).map_err(|status| Failure::Status(Box::new(status)))?;
        }
        Ok(Some(*object != before))
    }

    fn compose(&self, object: &Value, param: Option<&Value>) -> Result<Composed, Failure> {
        compose(self.policy, self.attributes, object, self.kind, param, self.surroundings)
            .map_err(|status| Failure::Status(Box::new(status)))
    }
}

fn made(composed: &Composed, expression: &cel::Expression) -> Result<Value, Failure> {
    let value = composed.evaluate(expression).map_err(|error| Failure::Policy(error.0))?;
    cel::to_json(&value)
        .ok_or_else(|| Failure::Policy(format!("expression '{}' made what is no JSON", expression.source())))
}

/// An object with what a configuration says, by the schema's rules of server-side apply. What says which object it is stays.
fn merged(kind: &Kind, object: &Value, configuration: &Value) -> Result<Value, String> {
    let Some(fields) = configuration.as_object() else {
        return Err("invalid ApplyConfiguration: must be an object".to_owned());
    };
    for field in ["apiVersion", "kind"] {
        if fields.contains_key(field) {
            return Err(format!("invalid ApplyConfiguration: {field} may not be set"));
        }
    }
    let root = Schemas::builtin().id(&kind.schema).map_or(Type::Raw, Type::Struct);
    let node = Node::root(Schemas::builtin(), &root);
    let merged = apply::merge(node, Some(object), Some(configuration))?;
    Ok(merged.unwrap_or_else(|| object.clone()))
}
